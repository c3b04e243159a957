"""Waiting for the kernels that a server keeps ready. For tests."""

from __future__ import annotations

from collections.abc import Callable

import trio

from kallichore.server import Server
from kallichore.session.warm_kernel import WarmKernel
from kernels import REAL_TIME


async def wait_warm(server: Server, count: int = 1) -> list[WarmKernel]:
    """Wait until so many are ready, and return them."""
    pool = server.facilities.warm
    with trio.fail_after(REAL_TIME):
        while len(ready := [kernel for kernel in pool.kernels if kernel.spare.is_ready]) < count:
            await pool.changed.wait()
    return ready


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is true that nobody announces."""
    with trio.fail_after(REAL_TIME):
        while not condition():  # noqa: ASYNC110  # it is no event
            await trio.sleep(0.005)
