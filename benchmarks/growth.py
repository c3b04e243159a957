"""What many sessions cost: ``python -m benchmarks.growth``, which draws it for the documentation.

A fresh server each for 1, 10, 100 and 300 sessions with scripted kernels, on TCP, each with a client that reads. First
they idle, then each prints 20 messages a second. Server CPU and memory should grow in proportion, without a cliff.
"""

from __future__ import annotations

import argparse
import resource
import selectors
import time
from typing import NamedTuple

from benchmarks import page
from benchmarks.contestants import KallichoreServer, open_kallichore_tcp
from benchmarks.report import number

COUNTS = (1, 10, 100, 300)
RATE = 20
"""Messages a second in each session."""


class Point(NamedTuple):
    """So many sessions in one of the two states."""

    sessions: int
    busy: bool
    cpu: float
    """Per cent of a core."""
    memory: float
    """Megabytes."""
    rate: float
    """Messages a second that came."""


def measure(sessions: int, seconds: float) -> list[Point]:
    """Return both points for a number of sessions."""
    with open_kallichore_tcp() as server, selectors.DefaultSelector() as selector:
        channels = []
        for _ in range(sessions):
            channel = server.start_kernel("scripted")
            channel.run("print 1")
            channels.append(channel)
            selector.register(channel.socket, selectors.EVENT_READ, channel)
            # The others are pinged meanwhile.
            _read(selector, 0)
        points = []
        for busy in (False, True):
            if busy:
                for channel in channels:
                    channel.send_execute(f"tick {RATE} {seconds * 3 + 10}")
            _read(selector, seconds / 2)
            points.append(_watch(server, selector, sessions, busy, seconds))
        return points


def _watch(
    server: KallichoreServer, selector: selectors.BaseSelector, sessions: int, busy: bool, seconds: float
) -> Point:
    before, began = server.cpu(), time.perf_counter()
    messages = _read(selector, seconds)
    elapsed = time.perf_counter() - began
    cpu = (server.cpu() - before) / elapsed * 100
    return Point(sessions, busy, cpu, server.memory(), messages / elapsed)


def _read(selector: selectors.BaseSelector, seconds: float) -> int:
    """Take what comes for a while, and return how many messages of streams it was."""
    streams, left, deadline = 0, seconds, time.perf_counter() + seconds
    while left >= 0:
        for key, _ in selector.select(left):
            streams += sum(b'"stream"' in payload for payload in key.data.receive())
        left = deadline - time.perf_counter()
    return streams


def as_table(points: list[Point]) -> str:
    """Return a Markdown table."""
    lines = ["| sessions | each prints | server CPU (% of a core) | memory (MB) | messages a second |"]
    lines.append("|---:|---|---:|---:|---:|")
    for point in points:
        what = f"{RATE} messages a second" if point.busy else "nothing"
        figures = (number(figure) for figure in point[2:])
        lines.append(f"| {point.sessions} | {what} | {' | '.join(figures)} |")
    return "\n".join(lines)


WIDTH, HEIGHT = 270, 200
"""Of one diagram, in pixels, without what stands around it."""


def draw(points: list[Point]) -> str:
    """Return an SVG with two diagrams: CPU and memory over the number of sessions."""
    diagrams = [
        _diagram(points, 70, "Server CPU, % of a core", "cpu"),
        _diagram(points, 440, "Server memory, MB", "memory"),
    ]
    colours = [f'<tspan class="{kind}">●</tspan>' for kind in ("cool", "warm")]
    text = f"sessions, each with a client: {colours[0]} idle, {colours[1]} printing {RATE} messages a second"
    diagrams.append(f'  <text class="note" x="70" y="300">{text}</text>')
    return page.picture("CPU and memory of a Kallichore server over the number of its sessions", 310, diagrams)


def _diagram(points: list[Point], left: int, title: str, name: str) -> str:
    bottom = 45 + HEIGHT
    most = max(point.sessions for point in points)
    top, step = _scale(max(getattr(point, name) for point in points))

    def place(sessions: float, value: float) -> tuple[float, float]:
        return round(left + WIDTH * sessions / most, 1), round(bottom - HEIGHT * value / top, 1)

    lines = [f'  <text class="title" x="{left}" y="30">{title}</text>']
    for line in range(round(top / step) + 1):
        _, y = place(0, line * step)
        lines.append(f'  <path class="grid" d="M{left} {y}h{WIDTH}"/>')
        lines.append(f'  <text class="note" x="{left - 8}" y="{y + 4}" text-anchor="end">{line * step:g}</text>')
    for sessions in sorted({point.sessions for point in points if point.sessions * 20 >= most}):
        x, _ = place(sessions, 0)
        lines.append(f'  <text class="note" x="{x}" y="{bottom + 18}" text-anchor="middle">{sessions}</text>')
    lines.append(f'  <path class="axis" d="M{left} {bottom - HEIGHT}v{HEIGHT}h{WIDTH}"/>')
    for busy, kind in ((False, "cool"), (True, "warm")):
        places = [place(point.sessions, getattr(point, name)) for point in points if point.busy is busy]
        corners = " ".join(f"{x},{y}" for x, y in places)
        lines.append(f'  <polyline class="{kind}" points="{corners}"/>')
        lines += [f'  <circle class="{kind}" cx="{x}" cy="{y}" r="3"/>' for x, y in places]
    return "\n".join(lines)


def _scale(most: float) -> tuple[float, float]:
    """Return an axis' end and step, round numbers of at most six steps."""
    step = next(size * 10**power for power in range(-2, 9) for size in (1, 2, 5) if size * 10**power * 6 >= most)
    return step * -(-most // step), step


def main() -> None:
    """Measure, print the table and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="how long each point is measured (10)")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="so many sessions (1 10 100 300)")
    page.add_option(parser)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    points = [point for sessions in options.counts for point in measure(sessions, options.seconds)]
    print(as_table(points))
    options.page.with_name("growth.svg").write_text(draw(points))
    page.rewrite(options.page, "growth", as_table(points))


if __name__ == "__main__":
    main()
