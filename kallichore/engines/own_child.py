"""Kernels that are the server's own children: they end with it, however it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kallichore.engines.placement import Placement
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.leftovers import record_kernel
from kallichore.kernel.spawn import spawn
from kallichore.kernel.watchdog import Watchdog


@asynccontextmanager
async def place_child(plan: LaunchPlan, watchdog: Watchdog, runtime_directory: Path) -> AsyncIterator[Placement]:
    """Start a kernel as a child, for the block; the block has to wait for its end.

    Args:
        plan: What to start.
        watchdog: Ends it if this server is killed.
        runtime_directory: Where it is listed, for the server that comes after this one and its watchdog were killed.

    Raises:
        StartupError: ``KS-5``, there is no process.
    """
    process = await spawn(plan)
    watchdog.guard(process.pid)
    record_kernel(runtime_directory, process.pid)
    yield Placement(process, note_end=lambda: watchdog.release(process.pid))
