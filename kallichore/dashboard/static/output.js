// What code put out, as a person sees it. Nothing that a kernel says becomes HTML of this page: text stays text, pictures
// are images, and HTML goes into a frame whose origin is nobody's.
import { html, useEffect, useMemo, useRef, useState } from "./preact-htm.js";
import { overwritten, pieces } from "./ansi.js";

const FRAME = new URL("frame.html", import.meta.url);
const LOWEST = 24;
const HIGHEST = 640;
const LONGEST_JSON = 100_000;

/** Text with a terminal's colours. */
export function Text({ text, kind = "" }) {
  const parts = useMemo(() => pieces(text), [text]);
  // What is so long that it scrolls can be reached with the keyboard.
  const scrolls = text.length > 2000 || text.split("\n").length > 20;
  return html`<pre class=${kind} tabindex=${scrolls ? 0 : null}>${parts.map(({ text, look }) =>
    look ? html`<span class=${look.classes} style=${look.style}>${text}</span>` : text)}</pre>`;
}

const asText = (value) => (Array.isArray(value) ? value.join("") : typeof value === "string" ? value : JSON.stringify(value));

/** HTML of a kernel. */
function Frame({ source }) {
  const frame = useRef(null);
  const [height, setHeight] = useState(LOWEST);
  useEffect(() => {
    const hear = (event) => {
      if (event.source !== frame.current?.contentWindow) return;
      // It may say anything; what it can get is a height.
      if (event.data?.ready === true) frame.current.contentWindow.postMessage(source, "*");
      else if (Number.isFinite(event.data?.height)) setHeight(Math.min(HIGHEST, Math.max(LOWEST, Math.ceil(event.data.height))));
    };
    addEventListener("message", hear);
    return () => removeEventListener("message", hear);
  }, [source]);
  // The address is given last: the frame is not to be ready before somebody listens.
  useEffect(() => void (frame.current.src = FRAME.href), [source]);
  return html`<iframe ref=${frame} class="rich" sandbox="allow-scripts" referrerpolicy="no-referrer" title="Rich output"
    style=${{ height: `${height}px` }}></iframe>`;
}

const image = (type, encoded, label) => html`<img class="picture" alt=${label} src="data:${type};base64,${encoded}" />`;

function base64Of(text) {
  const bytes = new TextEncoder().encode(text);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 32768) binary += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(binary);
}

/** The richest form of a display that this page knows. */
function Display({ data }) {
  const label = data["text/plain"] ? asText(data["text/plain"]).slice(0, 200) : "A picture";
  const clean = (name) => asText(data[name]).replace(/\s/g, "");
  if (data["text/html"]) return html`<${Frame} source=${asText(data["text/html"])} />`;
  for (const type of ["image/png", "image/jpeg", "image/gif", "image/webp"]) {
    if (data[type]) return image(type, clean(type), label);
  }
  // As an image, SVG runs no scripts and loads nothing.
  if (data["image/svg+xml"]) return image("image/svg+xml", base64Of(asText(data["image/svg+xml"])), label);
  if (data["application/json"] !== undefined) {
    const text = JSON.stringify(data["application/json"], null, 2) ?? "";
    return html`<${Text} kind="json" text=${text.slice(0, LONGEST_JSON)} />`;
  }
  const name = ["text/markdown", "text/latex", "text/plain"].find((name) => data[name]) ?? Object.keys(data)[0];
  return name ? html`<${Text} text=${asText(data[name])} />` : null;
}

export function ErrorText({ error }) {
  const { name, message, traceback } = error;
  const text = traceback?.length ? traceback.join("\n") : [name, message].filter(Boolean).join(": ");
  return html`<${Text} kind="error" text=${text} />`;
}

/** One output of an execution. */
export function Output({ output }) {
  if (output.type === "stream") return html`<${Text} kind=${output.name === "stderr" ? "stderr" : ""} text=${overwritten(output.text)} />`;
  if (output.type === "error") return html`<${ErrorText} error=${output} />`;
  return html`<${Display} data=${output.data ?? {}} />`;
}
