// The server: requests, its stream of changes, and the channels of a session; all with the token of this tab.

export const BASE = new URL(".", location.href.split("#")[0]);
const KEY = `kallichore token ${BASE.pathname}`;
const FRAGMENT = /^#(?:.*&)?token=([^&]*)/;

/** Take the token out of the address, before anything else: it must not stay in the bar, nor in the history. */
export function takeToken() {
  const found = FRAGMENT.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    saveToken(decodeURIComponent(found[1]));
  } catch {
    // It is no token; the form asks for one.
  }
}

export function saveToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

const token = () => sessionStorage.getItem(KEY);

/** What the server refuses, in its own words. */
export class Refusal extends Error {
  constructor(status, message, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token()) headers.authorization = `Bearer ${token()}`;
  const response = await fetch(new URL(path, BASE), { cache: "no-store", credentials: "omit", ...options, headers });
  if (response.ok) return response;
  const text = await response.text();
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // Plain text, which says it as well.
  }
  const error = body?.error ?? body;
  const message = [error?.message ?? text.trim(), body?.hint].filter(Boolean).join(". ");
  throw new Refusal(response.status, message || `The server refused this (${response.status}).`, body);
}

/** Ask for JSON, or send some. */
export async function call(method, path, body) {
  const response = await ask(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  return response.json();
}

export const pathOf = (id, rest = "") => `sessions/${encodeURIComponent(id)}${rest}`;

/** Hear the events of a path until it ends, by the server or by the signal: each is {id, event, data}. */
export async function* events(path, signal) {
  const response = await ask(path, { headers: { accept: "text/event-stream" }, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let begun = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (begun + value).split("\n\n");
    begun = blocks.pop();
    for (const block of blocks) {
      const event = {};
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      if ("data" in event) yield { ...event, data: JSON.parse(event.data) };
      else yield null;
    }
  }
}

/** Open the channels of a session. A browser sends no header of ours with a WebSocket, but subprotocols. */
export function openChannels(id, query) {
  const url = new URL(pathOf(id, "/channels"), BASE);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams({ name: "the dashboard", ...query });
  const protocols = ["kallichore"];
  if (token()) {
    const plain = btoa(token()).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
    protocols.push(`kallichore.token.${plain}`);
  }
  return new WebSocket(url, protocols);
}

/** Return a message for a kernel, as the channels want it. */
export function message(type, content, channel = "shell", parent = null) {
  const header = { msg_id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), msg_type: type };
  return { header, parent_header: parent, channel, content, metadata: {}, buffers: [] };
}

/** Wait so many seconds, or until the signal. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
