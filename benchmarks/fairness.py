"""What one session's flood costs the others: a kernel prints, and its client reads, as fast as they can.

Meanwhile another session executes, HTTP is asked how the server is, and in the end the flood is interrupted over HTTP.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.clients import WebSocketChannel
from benchmarks.contestants import Server

PATIENCE = 60.0
"""Seconds after which the flood ends by itself, and for which its end is waited for."""


def measure(server: Server, count: int) -> dict[str, float]:
    """Return the figures of so many executions and requests during one flood."""
    quiet, loud = (server.start_kernel("scripted") for _ in range(2))
    quiet.run("print 1")
    loud.run("print 1")
    with tempfile.TemporaryDirectory() as place, _reader(loud):
        end = Path(place, "end")
        loud.send_execute(f"rush {PATIENCE} {end}")
        _times(lambda: quiet.run("print 1"), count // 10)
        executions = _times(lambda: quiet.run("print 1"), count)
        answers = _times(lambda: server.address.call("GET", server.status_path), count)
        assert not end.exists(), "the flood has ended too early"
        began = time.monotonic()
        server.address.call("POST", f"{loud.path}/interrupt")
        interrupted = _wait_for(end) - began
    cuts = statistics.quantiles(executions, n=100)
    return {
        "fair_execute_p50": cuts[49] * 1e3,
        "fair_execute_p99": cuts[98] * 1e3,
        "fair_http_p99": statistics.quantiles(answers, n=100)[98] * 1e3,
        "fair_interrupt": interrupted * 1e3,
    }


@contextmanager
def _reader(channel: WebSocketChannel) -> Iterator[None]:
    """Have a process read what comes: in this one it would hold up what is measured."""
    reader = multiprocessing.get_context("fork").Process(target=_read, args=(channel,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        reader.kill()
        reader.join()


def _read(channel: WebSocketChannel) -> None:
    while True:
        channel.receive()


def _times(act: Callable[[], object], count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return times


def _wait_for(file: Path) -> float:
    """Return the time that the kernel writes into a file; its last message may come much later."""
    deadline = time.monotonic() + PATIENCE
    while not (file.exists() and (text := file.read_text()).endswith("\n")):
        assert time.monotonic() < deadline, "the flood was not interrupted"
        # The time is the kernel's own, so when this looks again does not count.
        time.sleep(0.001)
    return float(text)
