// What the page knows of all sessions, kept true by the server's stream of changes.
import { call, events, pause, Refusal } from "./api.js";

const MOST_SAMPLES = 300; // five minutes of one a second
const LEAST_STEP = 800; // milliseconds between two samples of a plot
const SLEEPS_AFTER = 30; // seconds that a page may be hidden before it lets go of the stream

/** Return the state with an event of the server in it. Pure. */
export function apply(state, event, now) {
  const sessions = new Map(state.sessions);
  const samples = new Map(state.samples);
  for (const id of event.removed) {
    sessions.delete(id);
    samples.delete(id);
  }
  for (const [id, patch] of Object.entries(event.sessions)) {
    const session = { ...sessions.get(id), ...patch };
    sessions.set(id, session);
    if (patch.resource_usage) samples.set(id, addSample(samples.get(id) ?? [], patch.resource_usage));
  }
  return { ...state, sessions, samples, server: event.server ?? state.server, skew: event.time - now };
}

/** Return the state with what the server kept of the last minutes, before anybody looked here. Pure. */
export function remember(state, record) {
  const samples = new Map(state.samples);
  for (const [id, past] of Object.entries(record.sessions)) {
    if (!state.sessions.has(id)) continue;
    const kept = past.time.map((time, at) => ({ time, memory: past.memory_bytes[at], cpu: past.cpu_percent[at] }));
    samples.set(id, merged(kept, samples.get(id) ?? []));
  }
  const running = [...state.sessions.values()].filter((session) => session.process_id).map((session) => samples.get(session.session_id) ?? []);
  return { ...state, samples, totals: merged(sums(running), state.totals) };
}

/** Two lists of samples as one, in their order, with no more of them than a plot can show. */
function merged(some, others) {
  const all = [...some, ...others].sort((one, other) => one.time - other.time);
  const apart = [];
  for (const sample of all) if (!apart.length || sample.time - apart.at(-1).time >= LEAST_STEP) apart.push(sample);
  return apart.slice(-MOST_SAMPLES);
}

/** What all used together, at each time at which one was sampled, from when on each of them was. */
function sums(all) {
  if (!all.length || all.some((samples) => !samples.length)) return [];
  const begin = Math.max(...all.map((samples) => samples[0].time));
  const times = [...new Set(all.flatMap((samples) => samples.map((sample) => sample.time)))].filter((time) => time >= begin);
  const places = all.map(() => 0);
  return times.sort((one, other) => one - other).map((time) => {
    const sum = { time, memory: 0, cpu: 0 };
    for (const [at, samples] of all.entries()) {
      while (samples[places[at] + 1]?.time <= time) places[at]++;
      sum.memory += samples[places[at]].memory;
      sum.cpu += samples[places[at]].cpu;
    }
    return sum;
  });
}

/** Return the state with the plots at a moment: what was not told to be others is what it was. Pure. */
export function advance(state, moment) {
  const samples = new Map(state.samples);
  // A sum in which somebody is missing would be drawn as a dip.
  let isWhole = true;
  const sum = { memory_bytes: 0, cpu_percent: 0, timestamp: moment };
  for (const [id, session] of state.sessions) {
    const usage = session.resource_usage;
    if (!session.process_id) continue;
    if (!usage) {
      isWhole = false;
      continue;
    }
    samples.set(id, addSample(samples.get(id) ?? [], { ...usage, timestamp: moment }));
    sum.memory_bytes += usage.memory_bytes;
    sum.cpu_percent += usage.cpu_percent;
  }
  return { ...state, samples, totals: isWhole ? addSample(state.totals, sum) : state.totals };
}

function addSample(before, usage) {
  const sample = { time: usage.timestamp, memory: usage.memory_bytes, cpu: usage.cpu_percent };
  const last = before.at(-1)?.time ?? 0;
  return sample.time - last < LEAST_STEP ? before : [...before.slice(1 - MOST_SAMPLES), sample];
}

const nothing = () => ({ sessions: new Map(), samples: new Map(), totals: [], server: null, skew: 0, link: "opening" });

export class Live {
  state = nothing();
  #listeners = new Set();
  #stop = null;

  /** Call when anything changes; returns what ends that. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #set(state) {
    const before = this.state;
    this.state = state;
    for (const listener of this.#listeners) listener(state, before);
  }

  /** Follow the server for as long as somebody may be looking; `onRefused` is called when it wants another token. */
  start(onRefused) {
    this.stop();
    const stop = (this.#stop = new AbortController());
    let sleep = null;
    const look = () => {
      clearTimeout(sleep);
      if (document.hidden) sleep = setTimeout(() => this.#awake?.abort(), SLEEPS_AFTER * 1000);
      else this.#wake?.();
    };
    document.addEventListener("visibilitychange", look, { signal: stop.signal });
    addEventListener("online", () => this.#wake?.(), { signal: stop.signal });
    this.#follow(stop.signal, onRefused);
  }

  /** Draw the plots on to a moment, in milliseconds of the server's clock. */
  advance(moment) {
    if (this.state.link === "live") this.#set(advance(this.state, moment));
  }

  stop() {
    this.#stop?.abort();
    this.#awake?.abort();
    this.#stop = null;
    this.state = nothing();
  }

  #awake = null;
  #wake = null;

  async #follow(stopped, onRefused) {
    let wait = 0.5;
    while (!stopped.aborted) {
      this.#awake = new AbortController();
      try {
        let isFirst = true;
        for await (const event of events("events", this.#awake.signal)) {
          if (!event) continue;
          // The first event is all there is: what is not in it is not there any more.
          const before = isFirst ? { ...this.state, sessions: new Map() } : this.state;
          wait = 0.5;
          this.#set({ ...apply(before, event.data, Date.now()), link: "live" });
          // The plots begin before the page did; without this they only begin later.
          if (isFirst) call("GET", "samples").then((record) => stopped.aborted || this.#set(remember(this.state, record)), () => {});
          isFirst = false;
        }
      } catch (error) {
        if (stopped.aborted) return;
        if (error instanceof Refusal && error.status === 401) return onRefused();
      }
      if (stopped.aborted) return;
      if (document.hidden) {
        await new Promise((resolve) => (this.#wake = resolve));
        continue;
      }
      this.#set({ ...this.state, link: "lost" });
      const sooner = new AbortController();
      this.#wake = () => sooner.abort();
      await pause(wait, sooner.signal);
      wait = Math.min(wait * 1.7, 5);
    }
  }
}
