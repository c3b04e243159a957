// Text with a terminal's escapes, as pieces with a look. Pure: nothing here makes HTML of it.

const ESCAPE = /\x1b\[([0-9;:]*)m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[[(][0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]/g;
const LEVELS = [0, 95, 135, 175, 215, 255];

/** Return pieces {text, look}; a look is null, or {classes, style}. */
export function pieces(text) {
  const found = [];
  let at = 0;
  let state = {};
  let look = null;
  const add = (piece) => piece && found.push({ text: piece, look });
  for (const match of text.matchAll(ESCAPE)) {
    add(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[1] !== undefined) {
      state = follow(state, match[1].split(/[;:]/).map(Number));
      look = lookOf(state);
    }
  }
  add(text.slice(at));
  return found;
}

function follow(state, codes) {
  state = { ...state };
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) state = {};
    else if (code === 1) state.bold = true;
    else if (code === 2) state.dim = true;
    else if (code === 3) state.italic = true;
    else if (code === 4) state.underline = true;
    else if (code === 7) state.inverse = true;
    else if (code === 22) state.bold = state.dim = false;
    else if (code === 23) state.italic = false;
    else if (code === 24) state.underline = false;
    else if (code === 27) state.inverse = false;
    else if (code === 39) state.colour = undefined;
    else if (code === 49) state.ground = undefined;
    else if (code >= 30 && code <= 37) state.colour = code - 30;
    else if (code >= 90 && code <= 97) state.colour = code - 82;
    else if (code >= 40 && code <= 47) state.ground = code - 40;
    else if (code >= 100 && code <= 107) state.ground = code - 92;
    else if (code === 38 || code === 48) {
      const [value, used] = wide(codes.slice(at + 1));
      state[code === 38 ? "colour" : "ground"] = value;
      at += used;
    }
  }
  return state;
}

/** Return the colour of 38;5;N or 38;2;R;G;B, and how many codes it took. */
function wide([kind, ...rest]) {
  if (kind === 2) return [`rgb(${rest.slice(0, 3).map((part) => part & 255).join(" ")})`, 4];
  const index = rest[0] & 255;
  if (kind !== 5) return [undefined, 1];
  if (index < 16) return [index, 2];
  if (index >= 232) return [`rgb(${Array(3).fill(8 + 10 * (index - 232)).join(" ")})`, 2];
  const cube = index - 16;
  return [`rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((part) => LEVELS[part]).join(" ")})`, 2];
}

function lookOf(state) {
  const classes = ["bold", "dim", "italic", "underline", "inverse"].filter((name) => state[name]).map((name) => `a-${name}`);
  const style = {};
  if (typeof state.colour === "number") classes.push(`a-f${state.colour}`);
  else if (state.colour) style.color = state.colour;
  if (typeof state.ground === "number") classes.push(`a-b${state.ground}`);
  else if (state.ground) style.backgroundColor = state.ground;
  return classes.length || Object.keys(style).length ? { classes: classes.join(" "), style } : null;
}

/** Return text as a terminal would leave it: what a carriage return or a backspace writes over is gone. */
export function overwritten(text) {
  if (!/[\r\x08]/.test(text)) return text;
  return text.replaceAll("\r\n", "\n").split("\n").map((line) => {
    while (/[^\x08]\x08/.test(line)) line = line.replace(/[^\x08]\x08/g, "");
    let shown = "";
    for (const part of line.split("\r")) shown = part + shown.slice(part.length);
    return shown;
  }).join("\n");
}

/** Return text with more behind it; of its last line, which may be written over yet, it is kept where that stands. */
export function appended(text, more) {
  const all = text + more;
  const last = all.lastIndexOf("\n") + 1;
  const line = all.slice(last);
  return overwritten(all.slice(0, last)) + overwritten(line) + (line.endsWith("\r") ? "\r" : "");
}

/** Return text without any escapes, for searching. */
export const plain = (text) => text.replace(ESCAPE, "");
