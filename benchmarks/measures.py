"""What is measured of each contestant in a round: two fresh servers, one for messages, one for sessions that idle."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import fairness
from benchmarks.contestants import Channel, Server


class Measure(NamedTuple):
    """One row of the table."""

    title: str
    unit: str


MEASURES = {
    "execute_p50": Measure("small execute, p50", "ms"),
    "execute_p99": Measure("small execute, p99", "ms"),
    "execute_cpu": Measure("small execute, server CPU", "µs"),
    "ipykernel_p50": Measure("small execute in ipykernel, p50", "ms"),
    "ipykernel_p99": Measure("small execute in ipykernel, p99", "ms"),
    "ipykernel_cpu": Measure("small execute in ipykernel, server CPU", "µs"),
    "flood_rate": Measure("flood of small messages", "1/s"),
    "flood_cpu": Measure("flood, server CPU a message", "µs"),
    "display_rate": Measure("large display_data", "MB/s"),
    "buffers_rate": Measure("large binary buffers", "MB/s"),
    "displays_rate": Measure("20 large display_data in a row", "MB/s"),
    "displays_cpu": Measure("20 large display_data in a row, server CPU", "ms/MB"),
    "blobs_rate": Measure("20 large binary buffers in a row", "MB/s"),
    "blobs_cpu": Measure("20 large binary buffers in a row, server CPU", "ms/MB"),
    "kernel_start": Measure("kernel, start to first result", "ms"),
    "ipykernel_start": Measure("ipykernel, start to first result", "ms"),
    "server_start": Measure("server, start to first answer", "ms"),
    "idle_cpu": Measure("idle sessions, server CPU", "%"),
    "memory_idle": Measure("memory, idle", "MB"),
    "memory_session": Measure("memory, each idle session", "MB"),
    "memory_large": Measure("memory after the large outputs, above idle", "MB"),
    "fair_execute_p50": Measure("small execute while another session floods, p50", "ms"),
    "fair_execute_p99": Measure("small execute while another session floods, p99", "ms"),
    "fair_http_p99": Measure("HTTP answer while a session floods, p99", "ms"),
    "fair_interrupt": Measure("interrupt over HTTP until the flooding code stops", "ms"),
}


class Scale(NamedTuple):
    """How much of everything."""

    executions: int = 200
    in_ipykernel: int = 100
    """0 to do without ipykernel."""
    flood: int = 20_000
    large: int = 10_000_000
    starts: int = 3
    floods: int = 2
    larges: int = 9
    """How often in one round; the median counts."""
    in_a_row: int = 20
    rows: int = 3
    beside: int = 300
    """How many executions and requests during another session's flood."""
    sessions: int = 20
    seconds: float = 5
    """How long the idle sessions are watched."""
    settle: float = 2
    """Seconds before anything idle is looked at: what was started has ended, what was freed has been given back."""
    fresh: bool = True
    """Whether the idle sessions get a server that has seen no messages: else their memory is what these have left."""


QUICK = Scale(
    executions=20,
    in_ipykernel=0,
    flood=2_000,
    large=1_000_000,
    starts=1,
    floods=1,
    larges=1,
    in_a_row=2,
    rows=1,
    beside=10,
    sessions=1,
    seconds=0.2,
    settle=0,
    fresh=False,
)
"""Enough to see that all of it runs."""


def measure_round(open_server: Callable[[], Any], scale: Scale) -> dict[str, float]:
    """Return the figures of one contestant; one without a server has no figures for it."""
    with open_server() as server:
        figures = _messages(server, scale)
        if server.pid:
            figures |= fairness.measure(server, scale.beside)
        if server.pid and not scale.fresh:
            figures |= _idle(server, scale)
    if server.pid and scale.fresh:
        with open_server() as server:
            figures |= _idle(server, scale)
    return figures


def _messages(server: Server, scale: Scale) -> dict[str, float]:
    time.sleep(scale.settle)
    idle = server.memory() if server.pid else 0.0
    starts = []
    for _ in range(scale.starts):
        seconds, channel = _start(server, "scripted", "print 1")
        starts.append(seconds)
    figures = {"kernel_start": statistics.median(starts) * 1e3}
    figures |= {"server_start": server.start_seconds * 1e3} if server.pid else {}
    figures |= _small(server, channel, scale.executions, "execute", "print 1")
    figures |= _flood(server, channel, scale)
    figures["display_rate"] = _large(channel, "display", scale)
    figures |= _row(server, channel, "displays", scale)
    figures["buffers_rate"] = _large(channel, "blob", scale)
    figures |= _row(server, channel, "blobs", scale)
    if server.pid:
        time.sleep(scale.settle)
        figures |= {"memory_idle": idle, "memory_large": server.memory() - idle}
    if scale.in_ipykernel:
        seconds, channel = _start(server, "ipykernel", "1")
        figures["ipykernel_start"] = seconds * 1e3
        figures |= _small(server, channel, scale.in_ipykernel, "ipykernel", "1")
    return figures


def _start(server: Server, kind: str, code: str) -> tuple[float, Channel]:
    began = time.perf_counter()
    channel = server.start_kernel(kind)
    channel.run(code)
    return time.perf_counter() - began, channel


def _small(server: Server, channel: Channel, count: int, name: str, code: str) -> dict[str, float]:
    for _ in range(count // 10):
        channel.run(code)
    times, before = [], server.cpu()
    for _ in range(count):
        began = time.perf_counter()
        channel.run(code)
        times.append(time.perf_counter() - began)
    used = server.cpu() - before
    cuts = statistics.quantiles(times, n=100)
    return {f"{name}_p50": cuts[49] * 1e3, f"{name}_p99": cuts[98] * 1e3, f"{name}_cpu": used / count * 1e6}


def _flood(server: Server, channel: Channel, scale: Scale) -> dict[str, float]:
    rates, costs = [], []
    for _ in range(scale.floods):
        before, began = server.cpu(), time.perf_counter()
        received = channel.run(f"repeat {scale.flood} 100")
        rates.append(scale.flood / (time.perf_counter() - began))
        costs.append((server.cpu() - before) / scale.flood * 1e6)
        assert received.messages >= scale.flood, "messages were lost"
    return {"flood_rate": statistics.median(rates), "flood_cpu": statistics.median(costs)}


def _large(channel: Channel, kind: str, scale: Scale) -> float:
    """Return megabytes a second: one message, from the request until it is there."""
    channel.run(f"prepare {kind} {scale.large}")
    rates = []
    for _ in range(scale.larges):
        began = time.perf_counter()
        received = channel.run("publish")
        rates.append(scale.large / 1e6 / (received.large_until - began))
        assert received.size >= scale.large, "bytes were lost"
    return statistics.median(rates)


def _row(server: Server, channel: Channel, name: str, scale: Scale) -> dict[str, float]:
    """Return megabytes a second and CPU a megabyte: some of the large message in a row, of the one prepared last."""
    rates, costs = [], []
    megabytes = scale.in_a_row * scale.large / 1e6
    for _ in range(scale.rows):
        before, began = server.cpu(), time.perf_counter()
        received = channel.run(f"publish {scale.in_a_row}")
        rates.append(megabytes / (received.large_until - began))
        costs.append((server.cpu() - before) / megabytes * 1e3)
        assert received.size >= scale.in_a_row * scale.large, "bytes were lost"
    return {f"{name}_rate": statistics.median(rates), f"{name}_cpu": statistics.median(costs)}


def _idle(server: Server, scale: Scale) -> dict[str, float]:
    time.sleep(scale.settle)
    empty = server.memory()
    for _ in range(scale.sessions):
        _start(server, "scripted", "print 1")
    time.sleep(scale.settle)
    before, began = server.cpu(), time.perf_counter()
    time.sleep(scale.seconds)
    used = (server.cpu() - before) / (time.perf_counter() - began)
    return {"idle_cpu": used * 100, "memory_session": (server.memory() - empty) / scale.sessions}
