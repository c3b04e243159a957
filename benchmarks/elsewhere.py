"""What sessions cost whose kernels are elsewhere: ``python -m benchmarks.elsewhere 100 300 1000``.

A fresh server for each number of sessions, on TCP, each with a client that reads. The machines are this one
(`benchmarks.engine_here`): hosts call the server by TLS, or with ``--sockets`` they are connected to, and kernels share
their memory (`benchmarks.kernel_farm`). First all idle, then each prints one small message a second.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.accounting import cpu_seconds, resident_megabytes
from benchmarks.clients import Address, WebSocketChannel
from benchmarks.contestants import KallichoreServer, free_ports
from benchmarks.kernel_farm import COMMAND
from benchmarks.report import number

COUNTS = (1, 100, 300)

AT_ONCE = 4
"""Sessions that are started at a time: each is two processes or three, for which there are only the processors of this
machine."""

SETTLE = 15.0
"""Seconds until all is as it stays: heartbeats are seldom then, and what was done at the start is over."""


class Point(NamedTuple):
    """So many sessions in one of the two states."""

    sessions: int
    busy: bool
    cpu: float
    """Per cent of a core, of the server."""
    memory: float
    """Megabytes, of the server."""
    descriptors: int
    """Of the server."""
    rate: float
    """Messages a second that came."""
    hosts_cpu: float
    """Per cent of a core, of one host with what it has started besides the kernel."""
    hosts_memory: float
    """Megabytes of it that it shares with nobody, and its share of the rest."""


@contextmanager
def open_farm(pipe: Path) -> Iterator[None]:
    """Have kernels made."""
    os.mkfifo(pipe)
    program = Path(__file__).with_name("kernel_farm.py")
    process = subprocess.Popen([sys.executable, str(program), str(pipe)], start_new_session=True)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


@contextmanager
def open_server(place: Path) -> Iterator[KallichoreServer]:
    """Run kcserver with the engine of this machine."""
    port, hosts = free_ports(2)
    command = [sys.executable, "-m", "benchmarks.engine_here", "--token", "none", "--log-level", "error"]
    command += ["--transport", "tcp", "--port", str(port), "--listen-hosts", f"127.0.0.1:{hosts}"]
    server = KallichoreServer(command, Address(port=port), "/status", {"TMPDIR": str(place)})
    try:
        yield server
    finally:
        server.end()


def start_session(server: KallichoreServer, pipe: Path, calls: bool) -> WebSocketChannel:
    """Start a session and return a channel on which code has run."""
    name = secrets.token_hex(4)
    texts = ("display_name", "language", "username", "input_prompt", "continuation_prompt", "working_directory")
    body = {**dict.fromkeys(texts, ""), "session_id": name, "session_mode": "console", "env": []}
    body |= {"argv": ["sh", "-c", COMMAND, "{connection_file}", str(pipe)], "interrupt_mode": "message"}
    body |= {"engine": {"kind": "here", "calls": calls}, "startup_environment": "none"}
    server.address.call("PUT", "/sessions", body)
    server.address.call("POST", f"/sessions/{name}/start")
    channel = WebSocketChannel(server.address, f"/sessions/{name}/channels")
    channel.run("print 1")
    return channel


def measure(sessions: int, seconds: float, settle: float, *, calls: bool) -> list[Point]:
    """Return both points for a number of sessions, each measured so many seconds after its beginning."""
    with tempfile.TemporaryDirectory() as folder, selectors.DefaultSelector() as selector:
        place = Path(folder)
        with open_farm(place / "kernels"), open_server(place) as server, ThreadPoolExecutor(AT_ONCE) as pool:
            channels = []
            for channel in pool.map(lambda _: start_session(server, place / "kernels", calls), range(sessions)):
                channels.append(channel)
                selector.register(channel.socket, selectors.EVENT_READ, channel)
                # The others are pinged meanwhile.
                read(selector, 0)
            hosts = find_hosts(server)
            points = []
            for busy in (False, True):
                if busy:
                    for channel in channels:
                        channel.send_execute(f"tick 1 {seconds + settle + 30}")
                read(selector, settle)
                points.append(watch(server, hosts, selector, sessions, busy, seconds))
            return points


def find_hosts(server: KallichoreServer) -> list[list[int]]:
    """Return the processes of some hosts, each with what it has started besides the kernel."""
    found = []
    for session in server.address.call("GET", "/sessions")["sessions"][:20]:
        host = psutil.Process(session["process_id"]).parent()
        assert host is not None
        found.append([host.pid, *(each.pid for each in host.children() if each.pid != session["process_id"])])
    return found


def watch(
    server: KallichoreServer,
    hosts: list[list[int]],
    selector: selectors.BaseSelector,
    sessions: int,
    busy: bool,
    seconds: float,
) -> Point:
    """Return what is used while clients read for a while."""
    before, hosts_before, began = server.cpu(), _cpu_of(hosts), time.perf_counter()
    messages = read(selector, seconds)
    elapsed = time.perf_counter() - began
    return Point(
        sessions,
        busy,
        (server.cpu() - before) / elapsed * 100,
        resident_megabytes(server.pid),
        psutil.Process(server.pid).num_fds(),
        messages / elapsed,
        (_cpu_of(hosts) - hosts_before) / len(hosts) / elapsed * 100,
        sum(psutil.Process(pid).memory_full_info().pss for host in hosts for pid in host) / len(hosts) / 1e6,
    )


def _cpu_of(hosts: list[list[int]]) -> float:
    return sum(cpu_seconds(pid) for host in hosts for pid in host)


def read(selector: selectors.BaseSelector, seconds: float) -> int:
    """Take what comes for a while, and return how many messages of streams it was."""
    streams, left, deadline = 0, seconds, time.perf_counter() + seconds
    while left >= 0:
        for key, _ in selector.select(left):
            streams += sum(b'"stream"' in payload for payload in key.data.receive())
        left = deadline - time.perf_counter()
    return streams


def as_table(points: list[Point]) -> str:
    """Return a Markdown table."""
    names = ("sessions", "each prints", "server CPU (% of a core)", "its memory (MB)", "its descriptors")
    names += ("messages a second", "a host's CPU (%)", "a host's memory (MB)")
    lines = [f"| {' | '.join(names)} |", "|---:|---|---:|---:|---:|---:|---:|---:|"]
    for point in points:
        what = "a message a second" if point.busy else "nothing"
        lines.append(f"| {point.sessions} | {what} | {' | '.join(map(number, point[2:]))} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elsewhere", description=__doc__.partition("\n")[0])
    parser.add_argument("counts", type=int, nargs="*", default=COUNTS, help="so many sessions (1 100 300)")
    parser.add_argument("--seconds", type=float, default=30, help="how long each point is measured (30)")
    parser.add_argument("--settle", type=float, default=SETTLE, help=f"how long it is waited before that ({SETTLE:g})")
    parser.add_argument("--sockets", action="store_true", help="hosts are connected to, and do not call")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for sessions in options.counts:
        print(as_table(measure(sessions, options.seconds, options.settle, calls=not options.sockets)), flush=True)


if __name__ == "__main__":
    main()
