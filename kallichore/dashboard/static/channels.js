// A page's own connection to a session: it visits, so what others are owed stays theirs, and it comes back by number.
import { openChannels, message, pause } from "./api.js";
import { empty, hear } from "./console.js";

const MOST_OLD = 1000; // messages of the past that are asked for
const NOBODY = 1000; // the code of an end in order: the session was deleted, or we closed

/** Keep a console true for as long as it is wanted; `tell` is called with it, and whether there is a connection. */
export class Channels {
  #id;
  #tell;
  #socket = null;
  #stop = new AbortController();
  #waiting = [];
  console = empty();

  constructor(id, tell) {
    this.#id = id;
    this.#tell = tell;
    this.#run();
  }

  close() {
    this.#stop.abort();
    this.#socket?.close();
  }

  /** Send a message to the kernel; false if there is no connection. */
  send(...parts) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message(...parts)));
    return true;
  }

  run(code) {
    return this.send("execute_request", { code, silent: false, store_history: true, user_expressions: {}, allow_stdin: true, stop_on_error: true });
  }

  answer(question, value) {
    const isSent = this.send("input_reply", { value }, "stdin", question.header);
    if (isSent) this.#show({ ...this.console, question: null });
    return isSent;
  }

  #show(console, isLinked = true) {
    this.console = console;
    this.#tell(console, isLinked);
  }

  async #run() {
    const signal = this.#stop.signal;
    let since = 0;
    let wait = 0.5;
    while (!signal.aborted) {
      const begin = Date.now();
      const next = await this.#connect(since);
      if (signal.aborted) return;
      if (next.over) return this.#show(this.console, false);
      since = next.since ?? this.console.seq;
      if (next.since === undefined) {
        if (Date.now() - begin > 5000) wait = 0.5;
        this.#show(this.console, false);
        await pause(wait, signal);
        wait = Math.min(wait * 1.7, 5);
      }
    }
  }

  /** One connection; resolves when it is over, with the number from which to go on where that is another. */
  #connect(since) {
    return new Promise((resolve) => {
      const socket = (this.#socket = openChannels(this.#id, { attach: "visit", since }));
      let restart;
      socket.onmessage = ({ data }) => {
        const heard = JSON.parse(data);
        const end = heard.sessionState?.seq;
        if (since === 0 && end > MOST_OLD) {
          // There is more of the past than anybody reads: begin anew, nearer to now.
          restart = end - MOST_OLD;
          socket.onmessage = null;
          return socket.close();
        }
        // A smaller number than we have is another server's, or another session of the same name.
        if (end !== undefined && end < this.console.seq) this.console = empty();
        if (this.#waiting.push(heard) === 1) setTimeout(() => this.#take(), document.hidden ? 500 : 30);
      };
      socket.onopen = () => this.#show(this.console);
      socket.onclose = ({ code }) => {
        this.#take();
        resolve({ since: restart, over: restart === undefined && code === NOBODY });
      };
    });
  }

  #take() {
    const heard = this.#waiting;
    this.#waiting = [];
    if (heard.length) this.#show(hear(this.console, heard));
  }
}
