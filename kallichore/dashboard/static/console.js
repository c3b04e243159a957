// What was said on a session's channels, as a list of executions with their outputs. Pure: messages in, a new list out.
import { appended } from "./ansi.js";

export const MOST_CELLS = 200;
const MOST_TEXT = 200_000; // characters of one stream that are shown: the newest
const MOST_OUTPUTS = 500;

export const empty = () => ({ cells: [], seq: 0, question: null, exited: false });

/** Return the console with a batch of messages in it. */
export function hear(console, messages) {
  let next = { ...console, cells: [...console.cells] };
  for (const message of messages) {
    if (message.seq) next.seq = message.seq;
    if (message.kind === "kernel") next = hearServer(next, message);
    else hearKernel(next, message);
  }
  next.cells = next.cells.slice(-MOST_CELLS);
  return next;
}

function hearServer(next, message) {
  if (message.sessionState) {
    const { input_request: question, seq } = message.sessionState;
    return { ...next, end: next.end ?? seq, question: question ? questionOf(question) : null };
  }
  if (message.executionRequested) {
    const { msg_id: id, code, attribution } = message.executionRequested;
    change(next, id, (cell) => ({ ...cell, code, agent: attribution.agent_name ?? attribution.source }), true);
  }
  if (message.output) note(next, message.output[0], message.output[1]);
  if ("exited" in message) {
    for (const [at, cell] of next.cells.entries()) if (cell.running) next.cells[at] = { ...cell, running: false, cut: true };
    next.cells.push({ key: `exit ${message.seq}`, notice: "The kernel ended." });
    return { ...next, question: null };
  }
  if (message.messagesLost) {
    next.cells.push({ key: `lost ${message.seq ?? Math.random()}`, notice: `${message.messagesLost} messages are missing here: nobody fetched them in time.` });
  }
  return next;
}

function questionOf(message) {
  return { prompt: message.content.prompt, password: message.content.password, header: message.header, parent: message.parent_header?.msg_id };
}

function note(next, stream, text) {
  const last = next.cells.at(-1);
  if (last?.process) next.cells[next.cells.length - 1] = { ...last, process: joined(last.process, text) };
  else next.cells.push({ key: `process ${next.seq}`, process: text });
}

const joined = (before, text) => appended(before, text).slice(-MOST_TEXT);

function hearKernel(next, message) {
  const parent = message.parent_header?.msg_id;
  const type = message.header.msg_type;
  const content = message.content;
  const time = Date.parse(message.header.date) || null;
  if (type === "execute_input") {
    change(next, parent, (cell) => ({ ...cell, code: content.code, count: content.execution_count, began: time, running: true }), true);
  } else if (type === "status") {
    if (content.execution_state === "idle") {
      change(next, parent, (cell) => ({ ...cell, running: false, ended: time }));
      if (next.question?.parent === parent) next.question = null;
    }
  } else if (type === "input_request") {
    next.question = questionOf(message);
  } else if (type === "execute_reply") {
    if (content.status !== "ok") change(next, parent, (cell) => ({ ...cell, aborted: content.status === "aborted", failed: replyError(cell, content) }));
  } else if (["stream", "display_data", "execute_result", "error"].includes(type)) {
    change(next, parent, (cell) => addOutput(cell, type, content), true);
  } else if (type === "update_display_data") {
    for (const [at, cell] of next.cells.entries()) next.cells[at] = update(cell, content);
  } else if (type === "clear_output") {
    change(next, parent, (cell) => (content.wait ? { ...cell, clears: true } : { ...cell, outputs: [] }));
  }
}

/** An error that came in the reply alone: of a kernel that died, or one that publishes none. */
function replyError(cell, content) {
  if (content.status === "aborted" || cell.outputs?.some((output) => output.type === "error")) return null;
  return { name: content.ename, message: content.evalue, traceback: content.traceback };
}

function change(next, parent, how, makes = false) {
  // From the end: what is said is nearly always about the latest.
  const at = next.cells.findLastIndex((cell) => cell.key === parent);
  if (at >= 0) next.cells[at] = how(next.cells[at]);
  else if (makes && parent) next.cells.push(how({ key: parent, code: null, outputs: [], running: false, isOld: next.seq <= next.end }));
}

function addOutput(cell, type, content) {
  let outputs = cell.clears ? [] : cell.outputs;
  const last = outputs.at(-1);
  if (type === "stream") {
    if (last?.type === "stream" && last.name === content.name) {
      outputs = [...outputs.slice(0, -1), { ...last, text: joined(last.text, content.text) }];
    } else outputs = [...outputs, { type, name: content.name, text: joined("", content.text) }];
  } else if (type === "error") {
    outputs = [...outputs, { type, name: content.ename, message: content.evalue, traceback: content.traceback }];
  } else {
    outputs = [...outputs, { type: "display", data: content.data, id: content.transient?.display_id }];
  }
  return { ...cell, outputs: outputs.slice(-MOST_OUTPUTS), clears: false };
}

function update(cell, content) {
  const id = content.transient?.display_id;
  if (!id || !cell.outputs?.some((output) => output.id === id)) return cell;
  return { ...cell, outputs: cell.outputs.map((output) => (output.id === id ? { ...output, data: content.data } : output)) };
}

/** Return the entries of a session's history that are older than what the channels still told.
 *
 * By what ran and in which order, not by time: a kernel's clock may be another than the server's.
 */
export function olderEntries(history, cells) {
  const codes = cells.map((cell) => cell.code).filter((code) => code != null);
  const isSame = (entry, code) => code !== undefined && start(entry.input) === start(code);
  for (let from = Math.max(0, history.length - codes.length); from < history.length; from++) {
    if (history.slice(from).every((entry, at) => isSame(entry, codes[at]))) return history.slice(0, from);
  }
  return history;
}

/** The beginning of code, which the history keeps also where it shortens. */
const start = (code) => code.trimEnd().slice(0, 500);

/** Whether a cell has a text in it, for searching. */
export function mentions(cell, text) {
  const parts = [cell.code, cell.agent, cell.notice, cell.process, ...(cell.outputs ?? []).flatMap((output) => [output.text, output.name, output.message, ...(output.traceback ?? []), output.data?.["text/plain"]])];
  return parts.some((part) => part && String(part).toLowerCase().includes(text.toLowerCase()));
}
