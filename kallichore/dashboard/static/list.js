// All sessions: a table that sorts, filters, sums up, and acts on several.
import { html, useState } from "./preact-htm.js";
import { ACTS, menuItems } from "./acts.js";
import { Menu, Status } from "./parts.js";
import { Sparkline } from "./plot.js";
import { ago, bytes, count, duration, endedBadly, hindrance, isRunning, statusSince, stopwatch, until } from "./words.js";

export const addressOf = (session) => `#/session/${encodeURIComponent(session.session_id)}`;

const ORDER = ["offline", "busy", "starting", "ready", "idle", "uninitialized", "exited"];
const COLUMNS = [
  { key: "name", label: "Session", by: (session) => session.session_id.toLowerCase() },
  { key: "status", label: "Status", by: (session) => ORDER.indexOf(session.status) },
  { key: "running", label: "Doing", by: (session) => session.busy_since ?? Infinity },
  { key: "memory", label: "Memory", by: (session) => -memoryOf(session), number: true },
  { key: "cpu", label: "CPU", by: (session) => -cpuOf(session), number: true },
  { key: "age", label: "Age", by: (session) => -Date.parse(session.started), number: true },
];

const usage = (session) => (isRunning(session) ? session.resource_usage : null);
const memoryOf = (session) => usage(session)?.memory_bytes ?? 0;
const cpuOf = (session) => usage(session)?.cpu_percent ?? 0;

const KINDS = {
  all: ["All", () => true],
  busy: ["Busy", (session) => ["busy", "starting", "offline"].includes(session.status)],
  idle: ["Idle", (session) => ["idle", "ready"].includes(session.status)],
  ended: ["Not running", (session) => !isRunning(session)],
};

/** Return the sessions to be shown, in order. Pure. */
export function arrange(sessions, { text, kind, key, down }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const said = (session) => [session.session_id, session.display_name, session.language, session.working_directory, session.running ?? ""].join(" ").toLowerCase();
  const shown = sessions.filter((session) => KINDS[kind][1](session) && words.every((word) => said(session).includes(word)));
  const { by } = COLUMNS.find((column) => column.key === key);
  const compare = (a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : a.session_id < b.session_id ? -1 : 1);
  return shown.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
}

export function ListPage({ live, now, begin, onStart }) {
  const [view, setView] = useState({ text: "", kind: "all", key: "name", down: false });
  const [chosen, setChosen] = useState(new Set());
  const sessions = [...live.sessions.values()];
  const shown = arrange(sessions, view);
  const picked = shown.filter((session) => chosen.has(session.session_id));
  const sort = (key) => setView({ ...view, key, down: view.key === key && !view.down });
  const pick = (ids, isOn) => {
    const next = new Set(chosen);
    for (const id of ids) isOn ? next.add(id) : next.delete(id);
    setChosen(next);
  };
  const all = shown.map((session) => session.session_id);
  return html`
    <${Summary} live=${live} sessions=${sessions} now=${now} />
    <div class="toolbar">
      <div class="search"><label class="unseen" for="filter">Filter sessions</label>
        <input id="filter" type="search" placeholder="Filter sessions" value=${view.text} onInput=${(event) => setView({ ...view, text: event.target.value })} /></div>
      <div class="tabs" role="group" aria-label="Which sessions">${Object.entries(KINDS).map(([kind, [label, fits]]) => html`
        <button type="button" aria-pressed=${view.kind === kind} onClick=${() => setView({ ...view, kind })}>${label} <span class="number">${sessions.filter(fits).length}</span></button>`)}</div>
      <button type="button" class="solid start" onClick=${onStart}>Start a kernel</button>
    </div>
    ${picked.length > 0 && html`<div class="picked" role="group" aria-label="What to do with the chosen sessions">
      <strong>${count(picked.length, "session")} chosen</strong>
      ${Object.entries(ACTS).map(([name, act]) => {
        const fit = picked.filter(act.fits);
        return html`<button type="button" class=${act.grave ? "grave" : ""} disabled=${fit.length === 0} onClick=${() => begin(name, fit)}>${act.label}</button>`;
      })}
      <button type="button" class="quiet" onClick=${() => setChosen(new Set())}>Choose none</button>
    </div>`}
    ${sessions.length === 0 ? html`<${Nothing} onStart=${onStart} isOpening=${live.link === "opening"} />` : html`
    <div class="table-frame"><table role="table" class="sessions" aria-label="Sessions">
      <thead role="rowgroup"><tr role="row">
        <th role="columnheader" scope="col" class="c-pick"><input type="checkbox" aria-label="Choose all that are shown" checked=${all.length > 0 && picked.length === all.length}
          onChange=${(event) => pick(all, event.target.checked)} /></th>
        ${COLUMNS.map((column) => html`<th role="columnheader" scope="col" class="c-${column.key}" aria-sort=${view.key === column.key ? (view.down ? "descending" : "ascending") : "none"}>
          <button type="button" class="sort" onClick=${() => sort(column.key)}>${column.label}<span aria-hidden="true" class="arrow">${view.key === column.key ? (view.down ? "↓" : "↑") : ""}</span></button></th>`)}
        <th role="columnheader" scope="col" class="c-acts"><span class="unseen">What to do</span></th>
      </tr></thead>
      <tbody role="rowgroup">${shown.map((session) => html`<${Row} key=${session.session_id} session=${session} samples=${live.samples.get(session.session_id)} now=${now}
        isPicked=${chosen.has(session.session_id)} onPick=${(isOn) => pick([session.session_id], isOn)} begin=${begin} />`)}</tbody>
      <tfoot role="rowgroup"><tr role="row"><td role="cell" class="c-pick"></td>
        <th role="rowheader" scope="row" class="c-name">${shown.length === sessions.length ? "Total" : `${shown.length} of ${count(sessions.length, "session")}`}</th>
        <td role="cell" class="c-status">${count(shown.filter((session) => session.status === "busy").length, "busy", "busy")}</td>
        <td role="cell" class="c-running">${waiting(shown)}</td>
        <td role="cell" class="c-memory"><span class="value">${bytes(shown.reduce((sum, session) => sum + memoryOf(session), 0))}</span></td>
        <td role="cell" class="c-cpu"><span class="value">${shown.reduce((sum, session) => sum + cpuOf(session), 0)} %</span></td>
        <td role="cell" class="c-age">${count(shown.reduce((sum, session) => sum + session.clients, 0), "client")}</td><td role="cell" class="c-acts"></td>
      </tr></tfoot>
    </table></div>
    ${shown.length === 0 && html`<p class="centre faint">No session fits. <button type="button" class="link" onClick=${() => setView({ ...view, text: "", kind: "all" })}>Show all</button></p>`}`}`;
}

function waiting(sessions) {
  const queued = sessions.reduce((sum, session) => sum + session.queue_length, 0);
  return queued ? `${queued} waiting` : "";
}

function Row({ session, samples, now, isPicked, onPick, begin }) {
  const used = usage(session);
  const bad = endedBadly(session);
  return html`<tr role="row" class="${isRunning(session) ? "" : "over"} ${isPicked ? "is-picked" : ""}">
    <td role="cell" class="c-pick"><input type="checkbox" aria-label="Choose ${session.session_id}" checked=${isPicked} onChange=${(event) => onPick(event.target.checked)} /></td>
    <th role="rowheader" scope="row" class="c-name"><a href=${addressOf(session)}>${session.session_id}</a>
      <small title=${session.working_directory}>${[session.display_name, session.working_directory && shortened(session.working_directory)].filter(Boolean).join(" · ")}</small></th>
    <td role="cell" class="c-status"><${Status} session=${session} /><small>${statusSince(session, now)}</small></td>
    <td role="cell" class="c-running"><${Doing} session=${session} now=${now} bad=${bad} /></td>
    <td role="cell" class="c-memory"><span class="value">${used ? bytes(used.memory_bytes) : "–"}</span><${Sparkline} samples=${used ? samples : []} member="memory" least=${50e6} kind="memory" /></td>
    <td role="cell" class="c-cpu"><span class="value">${used ? `${used.cpu_percent} %` : "–"}</span><${Sparkline} samples=${used ? samples : []} member="cpu" least=${100} kind="cpu" /></td>
    <td role="cell" class="c-age"><span class="value">${duration((now - Date.parse(session.started)) / 1000)}</span><small>${session.clients ? count(session.clients, "client") : "nobody here"}</small></td>
    <td role="cell" class="c-acts"><${Menu} label="What to do with ${session.session_id}" items=${menuItems(session, begin)} /></td>
  </tr>`;
}

/** Where somebody works is told by the end of it. */
function shortened(path) {
  const parts = path.split("/");
  return parts.length > 4 ? `…/${parts.slice(-2).join("/")}` : path;
}

/** What a session is doing, or what became of it. */
export function Doing({ session, now, bad }) {
  const facts = [];
  if (session.place?.node) facts.push(`on ${session.place.node}`);
  if (session.queue_length) facts.push(`${session.queue_length} waiting`);
  if (session.journal_bytes > 1e6) facts.push(`${bytes(session.journal_bytes)} to be fetched`);
  if (session.cull?.deadline) facts.push(`ends ${until(Date.parse(session.cull.deadline), now)} if idle`);
  const more = facts.length > 0 && html`<small>${facts.join(" · ")}</small>`;
  const hindered = hindrance(session);
  if (hindered) return html`<span class="warning">${hindered}</span>${more}`;
  if (session.memory_warning) return html`<span class="warning">${session.memory_warning}</span>${more}`;
  if (session.waits_for_input) return html`<a class="asks" href=${addressOf(session)}>Asks for an answer</a>${more}`;
  if (session.running != null) return html`<code>${session.running || "(empty)"}</code><small>${["for " + stopwatch((now - (session.busy_since ?? now)) / 1000), ...facts].join(" · ")}</small>`;
  if (session.status === "exited") return html`<span class="end ${bad ? "bad" : ""}" title=${session.last_exit?.text}>${session.last_exit?.text ?? ""}</span>`;
  if (session.idle_since && isRunning(session)) return html`<span class="faint">Nothing</span>${more}`;
  return more || null;
}

function Summary({ live, sessions, now }) {
  const server = live.server;
  const busy = sessions.filter((session) => session.status === "busy").length;
  const ended = sessions.filter(endedBadly).length;
  const sums = live.totals;
  const running = sessions.filter(isRunning).length;
  const trouble = server?.durability && server.durability !== "ok" && server.durability;
  return html`${trouble && html`<p class="banner bad" role="status">What happens now would be lost with the server: ${trouble}</p>`}
  <section class="cards" aria-label="In short">
    <div class="card"><h2>Sessions</h2><p class="big">${sessions.length}</p><p class="faint">${running} running, ${busy} busy${ended ? html`, <span class="bad">${ended} died</span>` : ""}</p></div>
    <div class="card"><h2>Memory</h2><p class="big">${bytes(sessions.reduce((sum, session) => sum + memoryOf(session), 0))}</p><${Sparkline} samples=${sums} member="memory" least=${50e6} kind="memory" /></div>
    <div class="card"><h2>CPU</h2><p class="big">${sessions.reduce((sum, session) => sum + cpuOf(session), 0)} %</p><${Sparkline} samples=${sums} member="cpu" least=${100} kind="cpu" /></div>
    <div class="card"><h2>Server</h2><p class="big">${server ? duration((now - Date.parse(server.started)) / 1000) : "–"}</p>
      <p class="faint">${server && [`version ${server.kallichore_version}`, server.memory_bytes && bytes(server.memory_bytes), server.open_descriptors && `${server.open_descriptors} descriptors`].filter(Boolean).join(", ")}</p>
      <p class="faint">${server && (server.dropped_messages ? html`<span class="bad">${count(server.dropped_messages, "message")} dropped</span>` : "no message dropped")}</p></div>
  </section>`;
}

function Nothing({ onStart, isOpening }) {
  if (isOpening) return html`<p class="centre faint">Looking…</p>`;
  return html`<div class="nothing"><h2>No sessions yet</h2><p>Start a kernel here, or from your editor, a notebook, or a terminal: <code>kcclient start</code></p>
    <button type="button" class="solid" onClick=${onStart}>Start a kernel</button></div>`;
}
