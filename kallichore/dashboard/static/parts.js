// Parts that more than one page uses: dialogs, menus, notices, status marks.
import { html, useEffect, useRef, useState } from "./preact-htm.js";
import { endedBadly, STATUSES } from "./words.js";

/** A dialog over the page. The browser keeps the keyboard in it, Escape closes it, and then the keyboard is where it was.
 *
 * Only the browser may bring it back: it does so at once, and we hear of the end later, when people may have moved on.
 */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    const own = dialog.current;
    own.showModal();
    return () => own.close();
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${() => dialog.current && onClose()}
      onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    <div class="dialog-body"><h2 id="dialog-title">${title}</h2>${children}</div>
  </dialog>`;
}

/** A button with a menu below it; arrows move in it, Escape leaves it. */
export function Menu({ label, items }) {
  const [isOpen, setOpen] = useState(false);
  const root = useRef(null);
  const entries = () => [...root.current.querySelectorAll("[role=menuitem]")];
  useEffect(() => {
    if (!isOpen) return undefined;
    entries()[0]?.focus();
    const leave = (event) => !root.current.contains(event.target) && setOpen(false);
    document.addEventListener("pointerdown", leave);
    return () => document.removeEventListener("pointerdown", leave);
  }, [isOpen]);
  const close = () => {
    setOpen(false);
    root.current.querySelector("button").focus();
  };
  const keys = (event) => {
    const all = entries();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(at, 0) - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape" && isOpen) close();
    else if (event.key === "Tab") return setOpen(false);
    else if (to !== undefined && isOpen) all[(to + all.length) % all.length]?.focus();
    else if (event.key === "ArrowDown") setOpen(true);
    else return undefined;
    return event.preventDefault();
  };
  return html`<div class="menu" ref=${root} onKeyDown=${keys}>
    <button type="button" class="quiet icon" aria-haspopup="menu" aria-expanded=${isOpen} aria-label=${label} title=${label}
      onClick=${() => setOpen(!isOpen)}><span aria-hidden="true">⋯</span></button>
    ${isOpen && html`<div class="menu-items" role="menu" aria-label=${label}>${items.map((item) => html`
      <button type="button" role="menuitem" tabindex="-1" class=${item.grave ? "grave" : ""} aria-disabled=${Boolean(item.hint)}
        onClick=${() => !item.hint && (close(), item.act())}>${item.label}${item.hint && html`<small>${item.hint}</small>`}</button>`)}
    </div>`}
  </div>`;
}

/** How a session is: a colour, and always a word. */
export function Status({ session }) {
  const kind = endedBadly(session) ? "bad" : session.status;
  return html`<span class="status ${kind}"><i aria-hidden="true"></i>${STATUSES[session.status] ?? session.status}</span>`;
}

/** What a person is to read about something that went wrong, or right. */
export function Toasts({ toasts, onClose }) {
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.map((toast) => html`
    <div key=${toast.key} class="toast ${toast.kind}"><p>${toast.text}</p>
      <button type="button" class="quiet icon" aria-label="Close this message" onClick=${() => onClose(toast.key)}>×</button></div>`)}
  </div>`;
}
