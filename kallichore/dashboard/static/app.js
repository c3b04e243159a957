// The page: who is let in, which part is shown, and what a person is told.
import { Component, html, render } from "./preact-htm.js";
import { Confirmation, ACTS, perform, StartDialog } from "./acts.js";
import { call, forgetToken, Refusal, saveToken, takeToken } from "./api.js";
import { addressOf, ListPage } from "./list.js";
import { Live } from "./live.js";
import { LogView } from "./logview.js";
import { Dialog, Toasts } from "./parts.js";
import { SessionPage } from "./session.js";
import { endedBadly } from "./words.js";

takeToken();

const SHOWN_FOR = 6000; // milliseconds that a good message stays
const SESSION = /^#\/session\/([^/]+)$/;

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    // Somebody's own address; it names no session.
    return text;
  }
}

class App extends Component {
  live = new Live();
  state = { isIn: null, wasRefused: false, live: this.live.state, now: Date.now(), place: location.hash, toasts: [], open: null };

  componentDidMount() {
    addEventListener("hashchange", () => this.go());
    this.live.subscribe((live, before) => this.hear(live, before));
    setInterval(() => this.tick(), 1000);
    this.logIn();
  }

  tick() {
    const now = Date.now() + this.live.state.skew;
    this.live.advance(now);
    if (!document.hidden) this.setState({ now });
  }

  go() {
    // An address with a token may be opened in a tab that is here already.
    if (location.hash.includes("token=")) {
      takeToken();
      this.logIn();
    }
    // Who came by a link is at the beginning of the new page, with eyes and ears.
    this.setState({ place: location.hash }, () => document.getElementById("main")?.focus({ preventScroll: true }));
    scrollTo(0, 0);
  }

  hear(live, before) {
    for (const [id, session] of live.sessions) {
      const old = before.sessions.get(id);
      if (old && old.status !== "exited" && endedBadly(session)) this.say({ kind: "bad", text: `${id} has ended: ${session.last_exit.text}` });
    }
    this.setState({ live, now: Date.now() + live.skew });
  }

  async logIn() {
    try {
      await call("GET", "server_configuration");
      this.setState({ isIn: true });
      this.live.start(() => this.refuse());
    } catch (error) {
      if (error instanceof Refusal && error.status === 401) this.refuse();
      else setTimeout(() => this.logIn(), 2000);
    }
  }

  refuse() {
    const wasRefused = this.state.isIn === true || this.tried;
    this.live.stop();
    forgetToken();
    this.setState({ isIn: false, wasRefused, open: null });
  }

  say(toast) {
    const key = Math.random();
    this.setState(({ toasts }) => ({ toasts: [...toasts.slice(-3), { ...toast, key }] }));
    if (toast.kind !== "bad") setTimeout(() => this.hush(key), SHOWN_FOR);
  }

  hush(key) {
    this.setState(({ toasts }) => ({ toasts: toasts.filter((toast) => toast.key !== key) }));
  }

  begin = (name, sessions) => {
    if (ACTS[name].ask) this.setState({ open: { name, sessions } });
    else this.perform(name, sessions);
  };

  async perform(name, sessions) {
    this.setState({ open: null });
    const said = await perform(name, sessions);
    this.say(said);
    if (name === "delete" && said.kind === "good" && SESSION.test(location.hash)) location.hash = "#/";
  }

  start = async () => {
    try {
      this.setState({ open: { kernels: await call("GET", "kernels") } });
    } catch (error) {
      this.say({ kind: "bad", text: error.message });
    }
  };

  async endServer() {
    this.setState({ open: null });
    try {
      await call("POST", "shutdown");
      this.say({ kind: "good", text: "The server is shutting down" });
    } catch (error) {
      this.say({ kind: "bad", text: error.message });
    }
  }

  render(_, { isIn, wasRefused, live, now, place, toasts }) {
    if (isIn === null) return html`<p class="centre faint">Looking for the server…</p>`;
    if (!isIn) return html`<${LogIn} wasRefused=${wasRefused} onToken=${(token) => ((this.tried = true), saveToken(token), this.logIn())} />`;
    const session = SESSION.exec(place);
    const id = session && decoded(session[1]);
    document.title = id ? `${id} – Kallichore` : "Sessions – Kallichore";
    return html`<a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.getElementById("main").focus())}>To the content</a>
      <header class="top"><a class="brand" href="#/"><${Mark} />Kallichore</a>
        <nav aria-label="Pages"><a href="#/" aria-current=${!session && place !== "#/log" ? "page" : null}>Sessions</a><a href="#/log" aria-current=${place === "#/log" ? "page" : null}>Server log</a><a href="docs">API</a></nav>
        <${Link} link=${live.link} /><button type="button" class="quiet" onClick=${() => this.setState({ open: { ends: true } })}>Shut down server…</button></header>
      <main id="main" tabindex="-1">${id !== null ? html`<${SessionPage} key=${id} id=${id} live=${live} now=${now} begin=${this.begin} />`
        : place === "#/log" ? html`<h1>Server log</h1><${LogView} path="logs" label="What the server logs" />`
        : html`<h1 class="unseen">Sessions</h1><${ListPage} live=${live} now=${now} begin=${this.begin} onStart=${this.start} />`}</main>
      ${this.dialog()}<${Toasts} toasts=${toasts} onClose=${(key) => this.hush(key)} />`;
  }

  dialog() {
    const { open, live } = this.state;
    const onClose = () => this.setState({ open: null });
    if (open?.ends) {
      return html`<${Dialog} title="Shut down the server?" onClose=${onClose}><p>All kernels are asked to end, and what is in their memory is lost. This page has nothing to show then.</p>
        ${live.sessions.size > 0 && html`<p class="warning">Sessions here: ${[...live.sessions.keys()].slice(0, 12).join(", ")}${live.sessions.size > 12 ? " and more" : ""}</p>`}
        <form method="dialog" class="row end"><button autofocus>Cancel</button><button type="button" class="grave solid" onClick=${() => this.endServer()}>Shut down</button></form><//>`;
    }
    if (open?.kernels) {
      return html`<${StartDialog} kernels=${open.kernels} onClose=${onClose} onStarted=${(id) => (onClose(), (location.hash = addressOf({ session_id: id })))} />`;
    }
    if (open?.name) return html`<${Confirmation} ...${open} onClose=${onClose} onConfirm=${() => this.perform(open.name, open.sessions)} />`;
    return null;
  }
}

const Mark = () => html`<svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true"><rect width="32" height="32" rx="8" fill="#5b4bdb" /><path d="M9 8v16M22 8 10.5 16.5 22 24" fill="none" stroke="#fff" stroke-width="3.4" stroke-linecap="round" stroke-linejoin="round" /><circle cx="23.5" cy="16.3" r="2.6" fill="#7be0b0" /></svg>`;

const Link = ({ link }) => html`<span class="link-state ${link}" role="status">${link === "live" ? "Live" : link === "lost" ? "Connection lost, trying again…" : "Connecting…"}</span>`;

function LogIn({ wasRefused, onToken }) {
  const send = (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    if (token) onToken(token);
  };
  return html`<main class="login"><div class="card"><h1><${Mark} />Kallichore</h1>
    <form onSubmit=${send}><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="off" autofocus aria-describedby="token-help" />
      ${wasRefused && html`<p class="problem" role="alert">The server does not know this token.</p>`}
      <button class="solid">Open</button></form>
    <div id="token-help" class="faint"><p>Where to find it:</p><ul>
      <li>Started at a terminal, <code>kcserver</code> prints an address that has it.</li>
      <li>The connection file has it, as <code>bearer_token</code>.</li></ul>
      <p>It is kept for this tab only.</p></div></div></main>`;
}

render(html`<${App} />`, document.getElementById("app"));
