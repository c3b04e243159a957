"""Tasks that are there until others have ended by them, whoever is cancelled meanwhile."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio


def start_lasting(scope: trio.CancelScope, task_status: trio.TaskStatus[Any], value: Any) -> None:
    """Say that a task has started, and have nobody cancel it any more but by its own scope.

    A task whose starter was cancelled in this very moment stays with that one, which waits for its end (see
    `trio.TaskStatus.started`): so it has to notice the cancellation, and is not shielded.

    Args:
        scope: What the task runs in.
        task_status: Of the task.
        value: What its starter is given.
    """
    is_cancelled = trio.current_effective_deadline() == -math.inf
    task_status.started(value)
    scope.shield = not is_cancelled


@asynccontextmanager
async def open_lasting_nursery() -> AsyncIterator[trio.Nursery]:
    """Have a nursery for a block. Nobody cancels its tasks before the block is left; then they are cancelled.

    Errors of the block come out in a group.
    """
    async with trio.open_nursery() as outer:
        closing = trio.Event()
        nursery: trio.Nursery = await outer.start(_hold, closing)
        try:
            yield nursery
        finally:
            closing.set()


async def _hold(  # noqa: ASYNC128  # by `start_lasting`
    closing: trio.Event, *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            start_lasting(scope, task_status, nursery)
            await closing.wait()
            nursery.cancel_scope.cancel()
