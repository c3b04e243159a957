// A log that is followed: a session's, or the server's.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact-htm.js";
import { events, pause } from "./api.js";
import { plain } from "./ansi.js";
import { Text } from "./output.js";

const MOST_LINES = 2000;

/** Whether a list shows its newest; it stops doing so when a person scrolls up, and goes on when they come back. */
export function useFollowing(news) {
  const box = useRef(null);
  const [isFollowing, setFollowing] = useState(true);
  useLayoutEffect(() => {
    if (isFollowing && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [news, isFollowing]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    setFollowing(scrollHeight - scrollTop - clientHeight < 40);
  };
  return { box, isFollowing, setFollowing, onScroll };
}

export function LogView({ path, label }) {
  const [lines, setLines] = useState([]);
  const [text, setText] = useState("");
  const [isPaused, setPaused] = useState(false);
  useEffect(() => {
    const stop = new AbortController();
    if (!isPaused) follow(path, stop.signal, setLines);
    return () => stop.abort();
  }, [path, isPaused]);
  const shown = useMemo(() => (text ? lines.filter((line) => plain(line.text).toLowerCase().includes(text.toLowerCase())) : lines), [lines, text]);
  const { box, isFollowing, setFollowing, onScroll } = useFollowing(shown);
  return html`<section class="log" aria-label=${label}>
    <div class="toolbar">
      <div class="search"><label class="unseen" for="log-search">Search the log</label>
        <input id="log-search" type="search" placeholder="Search the log" value=${text} onInput=${(event) => setText(event.target.value)} /></div>
      <button type="button" aria-pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>${isPaused ? "Go on" : "Pause"}</button>
      <button type="button" aria-pressed=${isFollowing} onClick=${() => setFollowing(!isFollowing)}>Follow</button>
    </div>
    <div class="lines" ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label=${label}>
      ${shown.length === 0 && html`<p class="faint">${lines.length ? "No line has this in it." : "Nothing was said yet."}</p>`}
      ${shown.map((line) => html`<div key=${line.number} class="line ${line.stream}"><time>${line.time.slice(11, 19)}</time><${Text} text=${line.text} /></div>`)}
    </div>
  </section>`;
}

async function follow(path, signal, setLines) {
  let after = 0;
  setLines((lines) => ((after = lines.at(-1)?.number ?? 0), lines));
  let fresh = [];
  const show = () => {
    const more = fresh;
    fresh = [];
    if (more.length) setLines((lines) => [...lines, ...more].slice(-MOST_LINES));
  };
  const timer = setInterval(show, 150);
  signal.addEventListener("abort", () => clearInterval(timer));
  while (!signal.aborted) {
    try {
      for await (const event of events(`${path}?after=${after}${after ? "" : `&tail=${MOST_LINES}`}`, signal)) {
        if (!event) continue;
        after = event.data.number;
        fresh.push(event.data);
      }
      return show();
    } catch {
      show();
      await pause(2, signal);
    }
  }
}
