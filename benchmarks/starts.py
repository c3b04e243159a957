"""What a server's start takes and has in memory, by interpreter: ``python -m benchmarks.starts [KCSERVER ...]``.

Each KCSERVER is a command to compare: of another Python's environment, or a self-contained binary. They take turns. A
start is from the command to the first answer over HTTP; a binary that unpacks itself has a process before the server's,
which is counted with it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.accounting import cpu_seconds, resident_megabytes
from benchmarks.clients import Address
from benchmarks.contestants import KallichoreServer, free_ports
from benchmarks.page import add_option, rewrite


class Start(NamedTuple):
    """One start."""

    seconds: float
    cpu: float
    """Seconds of CPU time until the first answer."""
    memory: float
    """Megabytes resident right behind it."""


def measure(command: Path) -> Start:
    """Start a server, ask it once, and end it."""
    (port,) = free_ports(1)
    options = ("--transport", "tcp", "--port", str(port), "--token", "none", "--log-level", "error")
    server = KallichoreServer([str(command), *options], Address(port=port), "/status", {})
    try:
        pids = [server.pid, *(child.pid for child in psutil.Process(server.pid).children())]
        return Start(server.start_seconds, *(sum(map(count, pids)) for count in (cpu_seconds, resident_megabytes)))
    finally:
        server.end()


def name_of(command: Path) -> str:
    """Return what a command is: the Python that runs it, or that it is self-contained."""
    python = command.with_name("python")
    if not python.exists():
        return f"{command.name}, self-contained"
    asked = [str(python), "-c", "import platform; print(platform.python_version())"]
    return f"CPython {subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()}"


def main() -> None:
    """Measure, print a table, and put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starts", description=__doc__.partition("\n")[0])
    ours = Path(sys.executable).with_name("kcserver")
    parser.add_argument("commands", nargs="*", type=Path, metavar="KCSERVER", help="what is compared (this Python's)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each is started (9)")
    add_option(parser)
    options = parser.parse_args()
    commands = options.commands or [ours]
    starts: dict[Path, list[Start]] = {command: [] for command in commands}
    for number in range(options.rounds + 1):
        for command in commands:
            start = measure(command)
            # The first has modules to compile, or to read from the disk.
            starts[command] += [start] if number else []
    rows = ["| | start to first answer (ms) | CPU (ms) | memory, idle (MB) |", "|---|---:|---:|---:|"]
    for command, each in starts.items():
        seconds, cpu, memory = map(statistics.median, zip(*each, strict=True))
        rows.append(f"| {name_of(command)} | {seconds * 1e3:.0f} | {cpu * 1e3:.0f} | {memory:.1f} |")
    print(*rows, sep="\n")
    rewrite(options.page, "starts", "\n".join(rows))


if __name__ == "__main__":
    main()
