// One session: what it said, live; what ran before; a line to run more; and how it is.
import { html, useEffect, useMemo, useRef, useState } from "./preact-htm.js";
import { ACTS, menuItems } from "./acts.js";
import { overwritten } from "./ansi.js";
import { call, pathOf } from "./api.js";
import { Channels } from "./channels.js";
import { empty, mentions, olderEntries } from "./console.js";
import { Doing } from "./list.js";
import { LogView, useFollowing } from "./logview.js";
import { ErrorText, Output, Text } from "./output.js";
import { Menu, Status } from "./parts.js";
import { Sparkline } from "./plot.js";
import { ago, bytes, count, duration, endedBadly, isRunning, statusSince, stopwatch, until } from "./words.js";

const SPAN = 300_000;

export function SessionPage({ id, live, now, begin }) {
  const session = live.sessions.get(id);
  const [tab, setTab] = useState("console");
  if (!session) {
    return html`<p class="centre faint">${live.link === "opening" ? "Looking…" : html`There is no session <strong>${id}</strong>. <a href="#/">All sessions</a>`}</p>`;
  }
  const samples = live.samples.get(id);
  const used = isRunning(session) ? session.resource_usage : null;
  return html`<div class="session">
    <header class="session-head">
      <nav aria-label="Where you are"><a href="#/">Sessions</a><span aria-hidden="true"> / </span></nav>
      <h1>${id}</h1><${Status} session=${session} /><span class="faint">${statusSince(session, now)}</span>
      <div class="row end grow">
        ${isRunning(session)
          ? html`<button type="button" disabled=${session.status !== "busy"} onClick=${() => begin("interrupt", [session])}>Interrupt</button>`
          : html`<button type="button" class="solid" onClick=${() => begin("start", [session])}>${ACTS.start.label}</button>`}
        <${Menu} label="What to do with ${id}" items=${menuItems(session, begin)} /></div>
    </header>
    ${endedBadly(session) && html`<p class="banner bad" role="status">${session.last_exit.text}</p>`}
    ${session.memory_warning && html`<p class="banner warn" role="status">${session.memory_warning}</p>`}
    <section class="cards" aria-label="In short">
      <div class="card"><h2>Memory</h2><p class="big">${used ? bytes(used.memory_bytes) : "–"}</p><${Sparkline} samples=${used ? samples : []} member="memory" least=${50e6} span=${SPAN} kind="memory" /></div>
      <div class="card"><h2>CPU</h2><p class="big">${used ? `${used.cpu_percent} %` : "–"}</p><${Sparkline} samples=${used ? samples : []} member="cpu" least=${100} span=${SPAN} kind="cpu" /></div>
      <div class="card"><h2>Doing</h2><div class="doing">${session.status === "exited"
        ? html`<span class="faint">Nothing: it ended ${ago(session.status_since, now)}</span>`
        : html`<${Doing} session=${session} now=${now} />`}</div></div>
    </section>
    <div class="tabs" role="tablist" aria-label="Views" onKeyDown=${(event) => moveTab(event, tab, setTab)}>${Object.entries(TABS).map(([name, label]) => html`
      <button type="button" role="tab" id="tab-${name}" aria-controls="panel" aria-selected=${tab === name} tabindex=${tab === name ? 0 : -1} onClick=${() => setTab(name)}>${label}</button>`)}</div>
    <div id="panel" role="tabpanel" aria-labelledby="tab-${tab}">
      ${tab === "console" ? html`<${Console} key=${id} session=${session} now=${now} />`
        : tab === "log" ? html`<${LogView} key=${id} path=${pathOf(id, "/logs")} label="What ${id}'s process printed" />`
        : html`<${Facts} session=${session} now=${now} />`}
    </div>
  </div>`;
}

const TABS = { console: "Console", log: "Log", facts: "Details" };

function moveTab(event, tab, setTab) {
  const names = Object.keys(TABS);
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const next = names[(names.indexOf(tab) + by + names.length) % names.length];
  setTab(next);
  document.getElementById(`tab-${next}`).focus();
}

function Facts({ session, now }) {
  const used = session.resource_usage;
  const exit = session.last_exit;
  const facts = [
    ["Kernel", [session.display_name, session.language && `(${session.language})`].filter(Boolean).join(" ")],
    ["Directory", session.working_directory],
    ["Document", session.notebook_uri],
    ["Created", `${new Date(session.started).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}, ${ago(Date.parse(session.started), now)}`],
    ["Process", session.process_id && `${session.process_id}${used ? `, ${count(used.thread_count, "thread")} with those of its children` : ""}`],
    ["Clients", session.clients ? `${session.clients}, this page among them` : "none"],
    ["Waiting executions", String(session.queue_length)],
    ["Kept messages", `${bytes(session.journal_bytes)}, for clients that come back`],
    ["Idle", session.idle_since && `for ${duration((now - session.idle_since) / 1000)}`],
    ["Ends by itself", session.cull?.deadline && until(Date.parse(session.cull.deadline), now)],
    ["Last end", exit && `${exit.text} (${ago(Date.parse(exit.time), now)})`],
  ];
  return html`<dl class="facts">${facts.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${exit?.last_words?.length > 0 && html`<h2>Its last words</h2><${Text} text=${exit.last_words.join("\n")} />`}`;
}

function Console({ session, now }) {
  const id = session.session_id;
  const [console, setConsole] = useState(empty());
  const [isLinked, setLinked] = useState(null);
  const [history, setHistory] = useState({ entries: [], told: new Set() });
  const [search, setSearch] = useState("");
  const [frozen, setFrozen] = useState(null);
  const channels = useRef(null);
  useEffect(() => {
    channels.current = new Channels(id, (console, isLinked) => (setConsole(console), setLinked(isLinked)));
    const keep = (entries) => setHistory({ entries, told: new Set(channels.current.console.cells.map((cell) => cell.key)) });
    call("GET", pathOf(id, "/history")).then(keep, () => {});
    return () => channels.current.close();
  }, [id]);
  const shown = frozen ?? console;
  const cells = useMemo(() => {
    // What began after the history was told is not in it, be it the same code once more.
    const told = shown.cells.filter((cell) => cell.isOld || history.told.has(cell.key));
    const older = olderEntries(history.entries, told).map(cellOfEntry);
    const all = [...older, ...shown.cells];
    return search ? all.filter((cell) => mentions(cell, search)) : all;
  }, [history, shown, search]);
  const { box, isFollowing, setFollowing, onScroll } = useFollowing(cells);
  const late = frozen ? console.seq - frozen.seq : 0;
  return html`<div class="console">
    <div class="toolbar">
      <div class="search"><label class="unseen" for="console-search">Search code and output</label>
        <input id="console-search" type="search" placeholder="Search code and output" value=${search} onInput=${(event) => setSearch(event.target.value)} /></div>
      <button type="button" aria-pressed=${frozen !== null} onClick=${() => setFrozen(frozen ? null : console)}>${frozen ? `Go on${late ? ` (${count(late, "message")})` : ""}` : "Pause"}</button>
      <button type="button" aria-pressed=${isFollowing} onClick=${() => setFollowing(!isFollowing)}>Follow</button>
    </div>
    <div class="cells" ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-busy=${!isLinked} aria-label="Code and output">
      ${cells.length === 0 && html`<p class="faint">${search ? "Nothing has this in it." : "Nothing ran here yet. Type some code below."}</p>`}
      ${cells.map((cell) => html`<${Cell} key=${cell.key} cell=${cell} now=${now} />`)}
    </div>
    ${isLinked === false && html`<p class="faint" role="status">The connection to the session is lost; it comes back by itself, with all that is missed.</p>`}
    ${console.question ? html`<${Question} question=${console.question} onAnswer=${(value) => channels.current.answer(console.question, value)} />`
      : html`<${CodeLine} session=${session} history=${cells} onRun=${(code) => (setFollowing(true), channels.current.run(code))} />`}
  </div>`;
}

/** An entry of the history, which the server keeps in short, as a cell. */
export function cellOfEntry(entry) {
  const outputs = entry.output ? [{ type: "stream", name: "stdout", text: overwritten(entry.output) }] : [];
  if (entry.error) outputs.push({ type: "error", ...entry.error });
  return { key: `entry ${entry.timestamp} ${entry.input.slice(0, 20)}`, code: entry.input, agent: entry.agent, outputs, began: entry.timestamp, isShort: entry.truncated };
}

function Cell({ cell, now }) {
  if (cell.notice) return html`<p class="notice">${cell.notice}</p>`;
  if (cell.process) return html`<div class="cell process"><${Text} text=${cell.process} /></div>`;
  return html`<article class="cell ${cell.running ? "running" : ""}" aria-label=${cell.code ? `Execution ${cell.count ?? ""}` : "Output"}>
    ${cell.code != null && html`<div class="code"><span class="prompt" aria-hidden="true">${cell.count ? `[${cell.count}]` : "[ ]"}</span><pre>${cell.code}</pre>
      <span class="when">${cell.agent && html`<span class="agent">by ${cell.agent}</span> `}${when(cell, now)}</span></div>`}
    <div class="outputs">${cell.outputs.map((output, at) => html`<${Output} key=${at} output=${output} />`)}
      ${cell.failed && html`<${ErrorText} error=${cell.failed} />`}</div>
  </article>`;
}

function when(cell, now) {
  if (cell.aborted) return "did not run";
  if (cell.running && cell.began) return html`<span class="pulse" aria-hidden="true"></span>${stopwatch(Math.max(0, now - cell.began) / 1000)}`;
  if (cell.cut) return "cut off";
  const took = cell.ended && cell.began ? `${stopwatch((cell.ended - cell.began) / 1000)}, ` : "";
  return cell.began ? `${took}${ago(cell.began, now)}` : "";
}

/** Where code is typed: Enter runs it, Shift and Enter begins another line, the arrows bring back what ran. */
function CodeLine({ session, history, onRun }) {
  const [code, setCode] = useState("");
  const [back, setBack] = useState(0);
  const area = useRef(null);
  const past = history.filter((cell) => cell.code).map((cell) => cell.code);
  const can = isRunning(session);
  const run = () => {
    if (!code.trim() || !onRun(code)) return;
    setCode("");
    setBack(0);
  };
  const keys = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      run();
      return;
    }
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const { selectionStart: at, value } = area.current;
    const isAtEdge = step === 1 ? !value.slice(0, at).includes("\n") : !value.slice(at).includes("\n");
    if (!step || !isAtEdge || event.shiftKey) return;
    const next = Math.min(past.length, Math.max(0, back + step));
    if (next === back) return;
    event.preventDefault();
    setBack(next);
    setCode(next ? past.at(-next) : "");
  };
  const rows = Math.min(12, Math.max(1, code.split("\n").length));
  return html`<form class="entry" onSubmit=${(event) => (event.preventDefault(), run())}>
    <label class="unseen" for="code">Code to run in ${session.session_id}</label>
    <textarea id="code" ref=${area} rows=${rows} spellcheck="false" autocapitalize="off" autocomplete="off" disabled=${!can} value=${code}
      placeholder=${can ? "Code to run" : "Start the kernel to run code"} aria-describedby="code-help" onInput=${(event) => (setCode(event.target.value), setBack(0))} onKeyDown=${keys}></textarea>
    <button class="solid" disabled=${!can}>Run</button>
    <small id="code-help" class="faint"><kbd>Enter</kbd> runs it, <kbd>Shift</kbd> + <kbd>Enter</kbd> begins a line, <kbd>↑</kbd> brings back what ran.</small>
  </form>`;
}

/** The kernel asks something. */
function Question({ question, onAnswer }) {
  const input = useRef(null);
  useEffect(() => input.current.focus(), [question]);
  return html`<form class="entry question" onSubmit=${(event) => (event.preventDefault(), onAnswer(input.current.value))}>
    <label for="answer"><span class="unseen">The kernel asks: </span>${question.prompt || "The kernel asks for a line"}</label>
    <input id="answer" ref=${input} type=${question.password ? "password" : "text"} autocomplete="off" spellcheck="false" />
    <button class="solid">Answer</button>
  </form>`;
}
