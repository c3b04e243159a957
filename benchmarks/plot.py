"""The comparison as a picture and a table in the documentation: ``python -m benchmarks.plot FILE``.

FILE is what ``python -m benchmarks --json FILE`` has written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.report import as_table, number

PANELS = ("execute_p50", "execute_cpu", "flood_rate", "flood_cpu", "kernel_start", "server_start")

MORE_IS_BETTER = ("flood_rate",)

LABEL, BAR, STEP = 175, 120, 20
"""Pixels: where bars begin, how long the longest is, and from one to the next."""


def draw(summary: dict[str, Any]) -> str:
    """Return an SVG with a bar diagram for each of `PANELS`."""
    contestants = summary["contestants"]
    height = STEP * len(contestants) + 55
    parts = []
    for index, name in enumerate(PANELS):
        parts += _panel(summary["measures"][name], contestants, 370 * (index % 2), 25 + height * (index // 2), name)
    bottom = 25 + height * (len(PANELS) // 2)
    note = "plain ZeroMQ has no server: its CPU is the client's"
    parts.append(f'  <text class="note" x="24" y="{bottom}">{note}</text>')
    return page.picture("Kallichore, Jupyter's servers and plain ZeroMQ compared", bottom + 20, parts)


def _panel(measure: dict[str, Any], contestants: list[str], left: int, top: int, name: str) -> list[str]:
    better = "more" if name in MORE_IS_BETTER else "less"
    title = f"{measure['title']}, {measure['unit']}"
    lines = [f'  <text class="title" x="{left + 24}" y="{top + 5}">{title}</text>']
    lines.append(f'  <text class="note" x="{left + 24}" y="{top + 21}">{better} is better</text>')
    results = measure["results"]
    most = max(result["median"] for result in results.values())
    for row, who in enumerate(contestants):
        y, end = top + 30 + STEP * row, left + LABEL
        lines.append(f'  <text class="note" x="{end - 8}" y="{y + 12}" text-anchor="end">{who}</text>')
        text = "–"
        if who in results:
            value = results[who]["median"]
            kind, width, text = "warm" if "Kallichore" in who else "cool", max(BAR * value / most, 1), number(value)
            lines.append(f'  <rect class="{kind}" x="{end}" y="{y}" width="{width:.1f}" height="{STEP - 5}" rx="2"/>')
            end += round(width)
        lines.append(f'  <text class="note" x="{end + 6}" y="{y + 12}">{text}</text>')
    return lines


def describe(summary: dict[str, Any]) -> str:
    """Return the table, and below it where it comes from."""
    machine, rounds = summary["machine"], summary["rounds"]
    source = f"{machine['cores']} cores, CPython {machine['python']}, {machine['system']}; rounds: {rounds}."
    return f"{as_table(summary)}\n\n{source}"


def main() -> None:
    """Draw the picture and rewrite the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the figures as JSON")
    page.add_option(parser)
    options = parser.parse_args()
    summary = json.loads(options.file.read_text())
    options.page.with_name("comparison.svg").write_text(draw(summary))
    page.rewrite(options.page, "comparison", describe(summary))


if __name__ == "__main__":
    main()
