"""Jobs that are held for a session: over several kernels, so that a restart keeps the machine that it has."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from kallichore.engines.engine import Engine, Job, Order, Ticket, Waiting

logger = logging.getLogger(__name__)

END_PATIENCE = 15.0
"""Seconds that an engine may take to end a job; what is left is swept later."""


@attrs.define(eq=False)
class HeldJob:
    """A job that a task looks after, see `hold_job`.

    Attributes:
        job: The job.
        order: What was ordered.
        is_used: Whether it has had a kernel.
        over: Set when nobody looks after it any more.
    """

    job: Job
    order: Order
    is_used: bool = False
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    _unneeded: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_left: bool = attrs.field(default=False, init=False)

    @property
    def is_unneeded(self) -> bool:
        """Whether it is to end, or to be left to another server."""
        return self._unneeded.is_set()

    async def end(self) -> None:
        """End it, and wait for that. Cancelling leaves the end to who looks after it. Idempotent."""
        self._unneeded.set()
        await self.over.wait()

    async def leave(self) -> None:
        """Look after it no longer, and leave it as it is, to another server."""
        self._is_left = True
        await self.end()

    async def _look_after(self) -> None:
        try:
            await self._unneeded.wait()
        finally:
            # Also where whoever wanted it has gone in the moment in which it was submitted.
            if not self._is_left:
                with trio.CancelScope(shield=True), trio.move_on_after(END_PATIENCE):
                    await self.job.end()


async def hold_job(
    engine: Engine,
    order: Order,
    ticket: Ticket,
    tell: Callable[[Waiting | None], None],
    is_new: bool,
    task_status: trio.TaskStatus[HeldJob],
) -> None:
    """Submit a job, or find it again, and look after it until nobody needs it.

    A failure of the engine's own ends this, is logged, and is nobody else's: the job's host tells what becomes of it.

    Args:
        engine: The engine.
        order: What is to run.
        ticket: What finds the job.
        tell: Called as `Engine.open_job` says.
        is_new: Whether it was never submitted.
        task_status: Is given the job when it is submitted.

    Raises:
        EngineError: It was refused.
    """
    held = None
    try:
        async with engine.open_job(order, ticket, tell, is_new=is_new) as job:
            held = HeldJob(job, order)
            task_status.started(held)
            await held._look_after()
    except Exception:
        if held is None:
            raise
        logger.exception("[session %s] Looking after the job %s failed", order.session_id, held.job.name)
    finally:
        if held is not None:
            held.over.set()
