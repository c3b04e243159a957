// What can be done with sessions, one or several: what it is called, when it can be done, and what to ask before.
import { html, useRef, useState } from "./preact-htm.js";
import { call, message, openChannels, pathOf } from "./api.js";
import { Dialog } from "./parts.js";
import { count, isRunning } from "./words.js";

const LONGEST_FAREWELL = 20_000; // milliseconds to wait for a kernel's answer to a shutdown

/** Ask a kernel to end, by the way that it knows. */
function shutDown(id) {
  return new Promise((resolve, reject) => {
    const channels = openChannels(id, { attach: "visit" });
    const timer = setTimeout(() => channels.close(), LONGEST_FAREWELL);
    channels.onopen = () => channels.send(JSON.stringify(message("shutdown_request", { restart: false }, "control")));
    channels.onmessage = ({ data }) => {
      const heard = JSON.parse(data);
      if ("exited" in heard || heard.header?.msg_type === "shutdown_reply") channels.close();
    };
    channels.onerror = () => reject(new Error("The connection to the session could not be made."));
    channels.onclose = () => (clearTimeout(timer), resolve());
  });
}

const isGone = (session) => !isRunning(session);

export const ACTS = {
  interrupt: {
    label: "Interrupt",
    done: "Interrupted",
    fits: isRunning,
    unfit: "It is not running.",
    act: (id) => call("POST", pathOf(id, "/interrupt")),
  },
  restart: {
    label: "Restart…",
    done: "Restarted",
    fits: isRunning,
    unfit: "It is not running.",
    ask: { title: "Restart", text: "The kernel ends and starts again. Everything in its memory is lost: variables, imports, open files." },
    act: (id) => call("POST", pathOf(id, "/restart")),
  },
  start: {
    label: "Start again",
    done: "Started",
    fits: isGone,
    unfit: "It is running.",
    act: (id) => call("POST", pathOf(id, "/restart")),
  },
  shutdown: {
    label: "Shut down…",
    done: "Asked to end",
    fits: isRunning,
    unfit: "It is not running.",
    ask: { title: "Shut down", text: "The kernel is asked to end, and may tidy up first. What is in its memory is lost; what it said stays here." },
    act: shutDown,
  },
  kill: {
    label: "Kill…",
    done: "Killed",
    grave: true,
    fits: isRunning,
    unfit: "It is not running.",
    ask: { title: "Kill", text: "The kernel and all that it started end at once, without a chance to tidy up. Files that they were writing may be left in pieces." },
    act: (id) => call("POST", pathOf(id, "/kill")),
  },
  delete: {
    label: "Delete…",
    done: "Deleted",
    grave: true,
    fits: isGone,
    unfit: "Shut it down first.",
    ask: { title: "Delete", text: "The session is forgotten, with its history and its log. This cannot be undone." },
    act: (id) => call("DELETE", pathOf(id)),
  },
};

/** Return the items of a session's menu. */
export function menuItems(session, begin) {
  return Object.entries(ACTS)
    .filter(([name, act]) => act.fits(session) || !["start", "restart"].includes(name))
    .map(([name, act]) => ({
      label: act.label,
      grave: act.grave,
      hint: act.fits(session) ? null : act.unfit,
      act: () => begin(name, [session]),
    }));
}

/** Do something with sessions, one after another would take long: all at once. Returns what to tell the person. */
export async function perform(name, sessions) {
  const act = ACTS[name];
  const results = await Promise.allSettled(sessions.map((session) => act.act(session.session_id)));
  const failed = results.flatMap((result, at) => (result.status === "rejected" ? [`${sessions[at].session_id}: ${result.reason.message}`] : []));
  if (failed.length) return { kind: "bad", text: failed.join("\n") };
  const whom = sessions.length === 1 ? sessions[0].session_id : count(sessions.length, "session");
  return { kind: "good", text: `${act.done}: ${whom}` };
}

/** Asks whether it is really meant. */
export function Confirmation({ name, sessions, onClose, onConfirm }) {
  const { ask, grave } = ACTS[name];
  const whom = sessions.length === 1 ? sessions[0].session_id : count(sessions.length, "session");
  const busy = name === "delete" ? [] : sessions.filter((session) => session.status === "busy");
  return html`<${Dialog} title="${ask.title} ${whom}?" onClose=${onClose}>
    <p>${ask.text}</p>
    ${sessions.length > 1 && html`<p class="names">${sessions.map((session) => session.session_id).join(", ")}</p>`}
    ${busy.length > 0 && html`<p class="warning">${busy.length === 1 ? `${busy[0].session_id} is running code right now.` : `${busy.length} of them are running code right now.`}</p>`}
    <form method="dialog" class="row end">
      <button autofocus>Cancel</button>
      <button type="button" class=${grave ? "grave solid" : "solid"} onClick=${onConfirm}>${ask.title}</button>
    </form>
  <//>`;
}

/** Asks for a kernel, a name and a directory, and starts a session. */
export function StartDialog({ kernels, onClose, onStarted }) {
  const names = Object.keys(kernels.kernels);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  const form = useRef(null);
  const start = async (event) => {
    event.preventDefault();
    const fields = new FormData(form.current);
    const body = { kernel: fields.get("kernel") };
    if (fields.get("name").trim()) body.session_id = fields.get("name").trim();
    if (fields.get("directory").trim()) body.working_directory = fields.get("directory").trim();
    setBusy(true);
    setProblem(null);
    try {
      onStarted((await call("POST", "sessions", body)).session_id);
    } catch (error) {
      setProblem({ text: error.message, output: error.body?.output });
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Start a kernel" onClose=${onClose}>
    ${names.length === 0 && html`<p class="warning">No kernel is installed here. <code>pip install ipykernel</code> brings Python's.</p>`}
    <form ref=${form} onSubmit=${start} class="fields">
      <label for="start-kernel">Kernel</label>
      <select id="start-kernel" name="kernel" autofocus>${names.map((name) => html`
        <option value=${name} selected=${name === kernels.default}>${kernels.kernels[name].display_name || name}</option>`)}</select>
      <label for="start-name">Name <small>optional</small></label>
      <input id="start-name" name="name" autocomplete="off" spellcheck="false" placeholder="one is made up" />
      <label for="start-directory">Directory <small>optional</small></label>
      <input id="start-directory" name="directory" autocomplete="off" spellcheck="false" placeholder="where the server runs" />
      ${problem && html`<div class="problem" role="alert"><p>${problem.text}</p>${problem.output && html`<pre tabindex="0">${problem.output}</pre>`}</div>`}
      <div class="row end"><button type="button" onClick=${onClose}>Cancel</button>
        <button class="solid" disabled=${isBusy || names.length === 0}>${isBusy ? "Starting…" : "Start"}</button></div>
    </form>
  <//>`;
}
