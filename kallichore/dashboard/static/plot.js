// Small plots of the last minutes: lines in SVG, drawn anew with each sample.
import { html } from "./preact-htm.js";

const WIDTH = 100;
const HEIGHT = 24;
const LEAST_SPAN = 30_000;

/** Return the points of a line, as SVG wants them. Pure. */
export function points(samples, member, span, most, end) {
  return samples
    .filter((sample) => sample.time >= end - span)
    .map((sample) => {
      const x = WIDTH * (1 - (end - sample.time) / span);
      const y = HEIGHT - 1 - (HEIGHT - 2) * Math.min(1, sample[member] / most);
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
}

/** A plot without axes, for a table's cell or a card; what it shows stands beside it as a number. */
export function Sparkline({ samples = [], member, least, span = 180_000, kind = "" }) {
  const end = samples.at(-1)?.time ?? 0;
  // A short past fills the plot as a long one does, from half a minute on.
  span = Math.min(span, Math.max(LEAST_SPAN, end - (samples[0]?.time ?? 0)));
  const most = Math.max(least, ...samples.map((sample) => sample[member])) * 1.2;
  const line = points(samples, member, span, most, end);
  const area = line.length > 1 ? [`${line[0].split(",")[0]},${HEIGHT}`, ...line, `${WIDTH},${HEIGHT}`] : [];
  return html`<svg class="spark ${kind}" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true" focusable="false">
    <polygon points=${area.join(" ")} /><polyline points=${line.join(" ")} />
  </svg>`;
}
