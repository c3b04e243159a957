"""What a server keeps in memory when there is much to keep: ``python -m benchmarks.bounds``.

A message of 200 MB that a client waits for, and a million small messages that nobody waits for: they go to the
journal, in memory up to its bound and then in a file, until a client comes and reads them all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from benchmarks import page
from benchmarks.accounting import peak_megabytes
from benchmarks.clients import WebSocketChannel
from benchmarks.contestants import KallichoreServer, open_kallichore_tcp
from benchmarks.report import number

LARGE = 200_000_000
HISTORY = 1_000_000

SETTLE = 0.5
"""Seconds after which what was freed has been given back."""


class Stage(NamedTuple):
    """What one thing took."""

    what: str
    seconds: float
    cpu: float
    """Seconds of the server's CPU time."""
    memory: float
    """Megabytes when it was over."""
    peak: float
    """The most megabytes that there were until then."""


class Watch:
    """Notes the stages of a server's life."""

    def __init__(self, server: KallichoreServer) -> None:
        self.stages: list[Stage] = []
        self._server = server
        self.begin()

    def begin(self) -> None:
        """Begin the next stage; what is between two of them is not counted."""
        self._began, self._cpu = time.perf_counter(), self._server.cpu()

    def end(self, what: str) -> None:
        """Note what has happened since it began."""
        seconds, cpu = time.perf_counter() - self._began, self._server.cpu() - self._cpu
        time.sleep(SETTLE)
        peak = peak_megabytes(self._server.pid)
        self.stages.append(Stage(what, seconds, cpu, self._server.memory(), peak))


def large_message(size: int) -> list[Stage]:
    """Have a message of so many bytes pass."""
    with open_kallichore_tcp() as server:
        watch = Watch(server)
        channel = server.start_kernel("scripted")
        channel.run(f"prepare blob {size}")
        watch.end("a session")
        watch.begin()
        received = channel.run("publish")
        watch.end(f"a message of {size / 1e6:,.0f} MB to its client")
        # Base64 makes four characters of three bytes.
        assert received.size >= size * 4 / 3, "bytes were lost"
        return watch.stages


def history(count: int) -> list[Stage]:
    """Have so many messages pile up, then read them."""
    with open_kallichore_tcp() as server:
        watch = Watch(server)
        channel = server.start_kernel("scripted")
        channel.run("print 1")
        watch.end("a session")
        with tempfile.TemporaryDirectory() as place:
            begin = Path(place, "begin")
            msg_id = channel.send_execute(f"after {begin}\nrepeat {count} 100")
            _wait(server, channel, "status", "busy")
            channel.close()
            _wait(server, channel, "connected", False)
            watch.begin()
            begin.touch()
            _wait(server, channel, "status", "idle")
        watch.end(f"{count:,} messages without a client")
        watch.begin()
        with closing(WebSocketChannel(server.address, f"{channel.path}/channels")) as again:
            received = again.wait_done(msg_id)
            watch.end("a client reads them")
        assert received.messages >= count, "messages were lost"
        return watch.stages


def _wait(server: KallichoreServer, channel: WebSocketChannel, name: str, value: object) -> None:
    """Wait until the API says so of a session."""
    while server.address.call("GET", channel.path)[name] != value:
        # Often enough for seconds, and each question is the server's work too.
        time.sleep(0.05)


def as_table(stages: list[Stage]) -> str:
    """Return a Markdown table."""
    lines = ["| after | seconds | server CPU (s) | memory (MB) | peak until then (MB) |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {stage.what} | {' | '.join(map(number, stage[1:]))} |" for stage in stages]
    return "\n".join(lines)


def main() -> None:
    """Measure, and rewrite the table in the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description=__doc__.partition("\n")[0])
    parser.add_argument("--large", type=int, default=LARGE, metavar="BYTES", help="the large message (200000000)")
    parser.add_argument("--history", type=int, default=HISTORY, metavar="COUNT", help="small messages (1000000)")
    page.add_option(parser)
    options = parser.parse_args()
    table = "\n\n".join([as_table(large_message(options.large)), as_table(history(options.history))])
    print(table)
    page.rewrite(options.page, "bounds", table)


if __name__ == "__main__":
    main()
