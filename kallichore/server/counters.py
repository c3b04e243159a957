"""What a server counts, in one look: for ``GET /status`` and for `kallichore.server.metrics`.

Nothing is counted for it on the way of a message; the look reads what the sessions know anyway.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress

import attrs
import trio

from kallichore.kernel.resources import read_process
from kallichore.models.bodies import Status
from kallichore.session.facilities import Facilities
from kallichore.session.session import Session


@attrs.frozen(kw_only=True)
class Counters:
    """One moment of a server."""

    sessions: Mapping[Status, int]
    """How many sessions have each status."""
    kernels: int
    """Kernel processes of the server's own that run."""
    warm_kernels: int
    """Kernel processes that are kept ready, or will be, before anybody asks for them."""
    warm_taken: int
    """How many of those were taken."""
    warm_missed: int
    """Starts of such kernels that found none."""
    clients: int
    """Clients that are connected to channels."""
    memory_bytes: int
    """Bytes of messages that the sessions' journals hold in memory."""
    file_bytes: int
    """Bytes of messages that they hold in files."""
    unread_bytes: int
    """Bytes of kernels that were read and not looked at yet, in memory."""
    dropped_messages: int
    """Messages for clients that fitted nowhere, deleted sessions' too."""
    incoming_bytes: int
    """Bytes of clients' messages that are still coming."""
    refused_messages: int
    """Clients' messages that were refused for their size, or because too much was coming already."""
    open_descriptors: int | None
    """Descriptors that the server's process has open; None where the system does not list them."""
    process_memory_bytes: int | None
    """Memory of the server's process."""
    tasks: int
    """Trio tasks that live in the server's process; where it is embedded, the program's own are among them."""
    uptime_seconds: float


def take_counters(
    sessions: Collection[Session], dropped_before: int, facilities: Facilities, uptime_seconds: float
) -> Counters:
    """Look at a server.

    Args:
        sessions: Its sessions.
        dropped_before: Messages that sessions dropped which are deleted by now.
        facilities: The server's things, which count what clients are sending, and kernels that are kept ready.
        uptime_seconds: For how long it has been running.
    """
    journals = [session.conversation.journal for session in sessions]
    own = read_process(os.getpid())
    intake, warm = facilities.intake, facilities.warm
    found = Counter(session.status for session in sessions)
    return Counters(
        sessions={status: found[status] for status in Status},
        kernels=sum(session.process_id is not None for session in sessions),
        warm_kernels=len(warm.kernels),
        warm_taken=warm.stock.taken,
        warm_missed=warm.stock.missed,
        clients=sum(len(session.audience) for session in sessions),
        memory_bytes=sum(journal.memory_bytes for journal in journals),
        file_bytes=sum(journal.overflow.size for journal in journals),
        unread_bytes=sum(session.unread_bytes for session in sessions),
        dropped_messages=dropped_before + sum(journal.dropped for journal in journals),
        incoming_bytes=intake.held,
        refused_messages=intake.refused,
        open_descriptors=count_open_descriptors(),
        process_memory_bytes=None if own is None else own.memory_bytes,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        uptime_seconds=uptime_seconds,
    )


def count_open_descriptors() -> int | None:
    """Return how many descriptors this process has open; None where the system does not list them."""
    for place in ("/proc/self/fd", "/dev/fd"):
        with suppress(OSError):
            return len(os.listdir(place)) - 1  # the look itself has one open
    return None
