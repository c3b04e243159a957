// Numbers and times as a person would say them. Pure: the time is an argument.

const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

/** Say how long something takes, in one unit: "3 minutes". */
export function duration(seconds) {
  if (seconds < 1) return "a moment";
  const [size, name] = UNITS.find(([size]) => seconds >= size);
  return count(Math.floor(seconds / size), name);
}

/** Say how long ago a moment was, in milliseconds since 1970. */
export function ago(moment, now) {
  const seconds = (now - moment) / 1000;
  return seconds < 2 ? "just now" : `${duration(seconds)} ago`;
}

/** Say how far away a moment is, before or behind now. */
export function until(moment, now) {
  return moment <= now ? "now" : `in ${duration((moment - now) / 1000)}`;
}

/** Say how long code ran, which people compare: "1.24 s". */
export function stopwatch(seconds) {
  if (seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const whole = Math.floor(seconds);
  const rest = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0")).join(":");
  return whole < 3600 ? rest : `${Math.floor(whole / 3600)}:${rest}`;
}

/** Say a number of bytes: "54 MB". */
export function bytes(number) {
  if (number == null) return "–";
  const names = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; number >= 999.5 && at < names.length - 1; at++) number /= 1000;
  return `${at > 0 && number < 9.95 ? number.toFixed(1) : Math.round(number)} ${names[at]}`;
}

/** Say how many there are: "1 session", "2 sessions". */
export function count(number, name, plural = `${name}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? name : plural}`;
}

export const STATUSES = {
  busy: "Busy",
  idle: "Idle",
  ready: "Ready",
  starting: "Starting",
  offline: "Not answering",
  uninitialized: "Not started",
  exited: "Ended",
};

/** Whether a session has a kernel, or is about to. */
export const isRunning = (session) => !["exited", "uninitialized"].includes(session.status);

/** Say how a session is doing, with since when. */
export function statusSince(session, now) {
  const seconds = (now - session.status_since) / 1000;
  if (session.status === "exited") return ago(session.status_since, now);
  return `for ${duration(seconds)}`;
}

/** Whether a session's end is something that a person should look at. */
export const endedBadly = (session) =>
  session.status === "exited" && session.last_exit && session.last_exit.cause !== "requested"
  && !(session.last_exit.cause === "exited" && session.last_exit.exit_code === 0);

/** Why a kernel on another machine cannot do anything now: it has none yet, or it cannot be reached; null if it can. */
export function hindrance(session) {
  if (session.connection_lost) {
    const { reason } = session.connection_lost;
    return `Computes on, and cannot be reached${reason ? `: ${reason}` : ""}`;
  }
  if (!session.pending) return null;
  const { reason, position } = session.pending;
  return `Waits for a machine: ${reason}${position ? `, ${position} in the queue` : ""}`;
}
