"""Who sees to the warm kernels of a server: launches those that are wanted, and ends those that are not any more.

Nothing wakes here as long as nobody wants any. As long as somebody does, there is a look every `LOOK_EVERY` seconds at
what cannot be waited for: files, and memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from kallichore.kernel.memory_limits import MemoryWatch, watch_shared_memory
from kallichore.session.facilities import Facilities
from kallichore.session.warm_pool import WarmPool
from kallichore.session.warm_stock import Spare

if TYPE_CHECKING:
    from kallichore.session.warm_kernel import WarmKernel
    from kallichore.session.warm_kernelspecs import WarmKernelspec

logger = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between two looks at files and memory: a dozen of the system's smaller calls."""


async def keep_warm(facilities: Facilities, kernelspecs: Sequence[WarmKernelspec], server_ends: trio.Event) -> None:
    """Keep a server's stock of warm kernels as it is to be, for ever.

    Cancelling ends those that nobody has taken, as a session's kernel is ended, and waits for that.

    Args:
        facilities: The server's things.
        kernelspecs: What is wanted for everybody.
        server_ends: Set when the server is to end: that is their end as well.
    """
    for kernelspec in kernelspecs:
        facilities.warm.want(kernelspec.owner, kernelspec.count, kernelspec.recipe)
    keeping = _Keeping(facilities, kernelspecs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_close_with_server, facilities.warm, server_ends)
        try:
            while True:
                await keeping.take_turn(nursery)
        finally:
            facilities.warm.close()


async def _close_with_server(pool: WarmPool, server_ends: trio.Event) -> None:
    await server_ends.wait()
    pool.close()


@attrs.define(eq=False)
class _Keeping:
    """The work of one server."""

    _facilities: Facilities
    _kernelspecs: Sequence[WarmKernelspec]
    _memory: MemoryWatch | None = attrs.field(default=None, init=False)
    _look_at: float = attrs.field(factory=trio.current_time, init=False)

    @property
    def _pool(self) -> WarmPool:
        return self._facilities.warm

    async def take_turn(self, nursery: trio.Nursery) -> None:
        """Do what is to be done, and wait until there may be something again."""
        pool = self._pool
        if pool.changed.is_set():
            pool.changed = trio.Event()
        is_worth_a_look = bool(self._kernelspecs) or not pool.is_empty
        if is_worth_a_look and trio.current_time() >= self._look_at:
            self._look()
            self._look_at = trio.current_time() + LOOK_EVERY
        due = pool.stock.act(trio.current_time())
        for spare in due.end:
            if (kernel := pool.remove(spare)) is not None:
                logger.info("Ending the warm kernel %s: it is not wanted any more", kernel.name)
                kernel.end()
        for spare in due.start:
            from kallichore.session.warm_kernel import WarmKernel

            kernel = WarmKernel(spare, self._facilities, pool.note_change)
            pool.add(kernel)
            nursery.start_soon(self._keep, kernel, name=f"warm kernel {kernel.name}")
        with trio.move_on_at(min(due.look_at, self._look_at) if is_worth_a_look else due.look_at):
            await pool.changed.wait()

    async def _keep(self, kernel: WarmKernel) -> None:
        logger.info("Launching the warm kernel %s for %s", kernel.name, kernel.spare.owner)
        why = await kernel.run()
        pool = self._pool
        pool.remove(kernel.spare)
        pool.running.discard(kernel)
        pause = pool.stock.note_end(kernel.spare, why, trio.current_time())
        if pause is not None:
            logger.warning("The warm kernel %s is gone: %s. Another is launched in %g s", kernel.name, why, pause)
        pool.changed.set()

    def _look(self) -> None:
        for kernelspec in self._kernelspecs:
            if kernelspec.look_again(self._facilities):
                self._pool.want(kernelspec.owner, kernelspec.count, kernelspec.recipe)
        for kernel in self._pool.kernels:
            if kernel.has_changed:
                self._renew(kernel, kernel.spare)
        self._look_at_memory()

    def _renew(self, kernel: WarmKernel, spare: Spare) -> None:
        logger.info("Renewing the warm kernel %s: what it was started from has changed", kernel.name)
        self._pool.remove(spare)
        self._pool.stock.give_up(spare, trio.current_time())
        kernel.end()

    def _look_at_memory(self) -> None:
        self._memory = self._memory or watch_shared_memory()
        warning = None if self._memory is None else self._memory.look()
        is_short = warning is not None
        if is_short and not self._pool.stock.is_short:
            logger.warning("Warm kernels are ended. %s", warning)
        elif self._pool.stock.is_short and not is_short:
            logger.info("There is enough memory for warm kernels again")
        self._pool.stock.is_short = is_short
