"""Jobs in a cluster of the tests, by the engine that places them, with a plain kernel and a link to its host."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from hosts import PLAIN_KERNEL, SECRET
from kallichore.engines.certificate import make_certificate
from kallichore.engines.dial_in import Desk, open_dial_in
from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.reach import Reach
from kallichore.engines.slurm import SlurmEngine, open_engine
from kallichore.engines.slurm_job import LostJob, SlurmJob
from kallichore.kernel.ending import Ending
from kallichore.kernel.process import signal_name
from slurm_cluster import Cluster

PATIENCE = 30
"""Seconds after which a test has failed; most of what it waits for takes two or three."""

OWNER = "tests"


@attrs.define(eq=False)
class Started:
    """A job whose host is linked to."""

    job: SlurmJob
    link: HostLink
    ticket: Ticket
    told: list[Waiting | None]
    connection: list[str | None]
    """What was told of the link's connection."""


def order(argv: Sequence[str] = PLAIN_KERNEL, **options: Any) -> Order:
    """Return what is to run."""
    connection = {"key": secrets.token_hex(16), "signature_scheme": "hmac-sha256", "transport": "tcp"}
    return Order("s", "lab-1", SECRET, argv, (), None, connection, 30.0, options)


@asynccontextmanager
async def open_desk(cluster: Cluster) -> AsyncIterator[Desk]:
    """Have a place where a cluster's nodes can dial in."""
    async with open_dial_in(cluster.address, 0, make_certificate()) as desk:
        yield desk


@asynccontextmanager
async def open_slurm(cluster: Cluster, desk: Desk | None = None, owner: str = OWNER) -> AsyncIterator[SlurmEngine]:
    """Have the engine, with a place of its own to dial in where none is given."""
    if desk is None:
        async with open_desk(cluster) as own, open_slurm(cluster, own, owner) as engine:
            yield engine
    else:
        async with open_engine(EngineServices(cluster.place, owner, lambda: desk)) as engine:
            yield engine


@asynccontextmanager
async def start(
    engine: SlurmEngine,
    wanted: Order,
    ticket: Ticket | None = None,
    *,
    ends: bool = True,
    told: list[Waiting | None] | None = None,
) -> AsyncIterator[Started]:
    """Submit a job, or find that of a ticket, and link to its host; on leaving it is ended, or left as it is."""
    told = [] if told is None else told
    connection: list[str | None] = []
    is_new = ticket is None
    ticket = ticket or engine.ticket(wanted)
    async with engine.open_job(wanted, ticket, told.append, is_new=is_new) as job:
        assert not isinstance(job, LostJob)
        try:
            reach = Reach(job.connect, job.name, connection.append)
            async with open_link(reach, SECRET) as link:
                yield Started(job, link, ticket, told, connection)
                if ends:
                    link.release()
                    link.flush()
        finally:
            if ends:
                with trio.CancelScope(shield=True):
                    await job.end()


async def until(is_so: Callable[[], object], what: str = "") -> None:
    """Wait until something is so, which nobody tells."""
    with trio.fail_after(PATIENCE):
        while not is_so():  # noqa: ASYNC110
            await trio.sleep(0.05)


def ending_of(link: HostLink) -> Ending:
    """Return what the session makes of a host's word of the end."""
    told = link.ending
    assert told is not None
    assert told.signal is not None
    peak = None if told.peak_kib is None else told.peak_kib * 1024
    return Ending(1, -1, signal_name(told.signal), out_of_memory=told.memory_kill, peak_memory_bytes=peak)
