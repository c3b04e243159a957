"""A server's counters in Prometheus's words.

Imported at the first scrape: the client library takes 25 ms to import, which no start has to wait for. Each server has
a registry of its own, as many of them may run in one process; the library's global one is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kallichore.server.counters import Counters


def make_families(counters: Counters) -> list[Metric]:
    """Return the metrics of one moment of a server."""
    sessions = GaugeMetricFamily("kallichore_sessions", "Sessions by the status of their kernel.", labels=["status"])
    for status, count in counters.sessions.items():
        sessions.add_metric([status.value], count)
    journals = GaugeMetricFamily(
        "kallichore_journal_bytes",
        "Bytes of messages that sessions hold for their clients, by where they are.",
        labels=["place"],
    )
    journals.add_metric(["memory"], counters.memory_bytes)
    journals.add_metric(["file"], counters.file_bytes)
    return [
        sessions,
        GaugeMetricFamily("kallichore_kernels", "Kernel processes that run.", counters.kernels),
        GaugeMetricFamily(
            "kallichore_warm_kernels",
            "Kernel processes that are kept ready, or will be, before anybody asks for them.",
            counters.warm_kernels,
        ),
        CounterMetricFamily("kallichore_warm_kernels_taken", "Kept kernels that were taken.", counters.warm_taken),
        CounterMetricFamily(
            "kallichore_warm_kernels_missed", "Starts of such kernels that found none.", counters.warm_missed
        ),
        GaugeMetricFamily("kallichore_clients", "Clients that are connected to channels.", counters.clients),
        journals,
        GaugeMetricFamily(
            "kallichore_unread_bytes",
            "Bytes of kernels that were read and not looked at yet.",
            counters.unread_bytes,
        ),
        CounterMetricFamily(
            "kallichore_messages_dropped",
            "Messages for clients that fitted neither into memory nor into a file.",
            counters.dropped_messages,
        ),
        GaugeMetricFamily(
            "kallichore_incoming_bytes", "Bytes of clients' messages that are still coming.", counters.incoming_bytes
        ),
        CounterMetricFamily(
            "kallichore_messages_refused",
            "Clients' messages that were refused for their size, or because too much was coming already.",
            counters.refused_messages,
        ),
        GaugeMetricFamily("kallichore_tasks", "Trio tasks that live in the server's process.", counters.tasks),
        GaugeMetricFamily("kallichore_uptime_seconds", "Seconds since the server started.", counters.uptime_seconds),
    ]


@attrs.frozen
class _ServerCollector(Collector):
    take_counters: Callable[[], Counters]

    def collect(self) -> Iterable[Metric]:
        return make_families(self.take_counters())


def make_exporter(take_counters: Callable[[], Counters]) -> Callable[[], bytes]:
    """Return a function that returns a server's metrics, and its process's, in the text format.

    Args:
        take_counters: Looks at the server; called at each scrape.
    """
    registry = CollectorRegistry()
    registry.register(_ServerCollector(take_counters))
    # CPU, memory and descriptors, from /proc; on systems without it, nothing.
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)
