"""A machine that is reached by SSH, and an engine that places kernels on it, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import attrs
import trio

from far_machine import Far
from hosts import PLAIN_KERNEL, SECRET
from kallichore.engines.engine import Order, Waiting
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.reach import Reach
from kallichore.engines.ssh import SshEngine, SshJob

M = TypeVar("M", bound=Far)

PATIENCE = 60
"""Seconds after which a test has failed: an SSH connection takes a good deal of a second on a busy machine."""

SLEEP = ("/bin/sh", "-c", "exec sleep 600")
"""A kernel that does nothing."""


@attrs.frozen
class Setting(Generic[M]):
    """A machine, and an engine that reaches it."""

    machine: M
    engine: SshEngine
    waits: list[Waiting | None] = attrs.field(factory=list)
    cuts: list[str | None] = attrs.field(factory=list)

    def order(self, argv: tuple[str, ...] = PLAIN_KERNEL, **options: Any) -> Order:
        """Return an order for this machine."""
        return Order(
            session_id="s-1",
            label="s-1",
            secret=SECRET,
            argv=argv,
            actions=[],
            working_directory=None,
            connection={"key": "k", "signature_scheme": "hmac-sha256", "kernel_name": "plain"},
            abandon_after=0,
            options={**self.machine.options, **options},
        )

    @asynccontextmanager
    async def open_job(self, argv: tuple[str, ...] = PLAIN_KERNEL, **options: Any) -> AsyncIterator[SshJob]:
        """Have a host for the block; it is ended behind it."""
        order = self.order(argv, **options)
        with trio.fail_after(PATIENCE):
            async with self.engine.open_job(order, self.engine.ticket(order), self.waits.append, is_new=True) as job:
                try:
                    yield job
                finally:
                    with trio.CancelScope(shield=True):
                        await job.end()

    @asynccontextmanager
    async def open_link(self, job: SshJob) -> AsyncIterator[HostLink]:
        """Attach to a job's host, as a session does."""
        reach = Reach(job.connect, job.name, self.cuts.append)
        async with open_link(reach, SECRET) as link:
            link.confirms = True
            yield link


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that tells nobody."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.02)
