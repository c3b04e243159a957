"""The warm kernels of a server, as sessions ask for them: taken at once, or not at all.

What there is to be is decided by `kallichore.session.warm_stock`; who sees to that is
`kallichore.session.warm_keeping`. A server that wants none has an empty stock, at which nobody looks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from kallichore.session.warm_recipe import Recipe
from kallichore.session.warm_stock import Owner, Spare, Stock

if TYPE_CHECKING:
    from kallichore.session.warm_kernel import WarmKernel

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class WarmPool:
    """The warm kernels of one server.

    Attributes:
        stock: What there is, and what there is to be.
        changed: Set when there may be something to be done about that.
        running: All that were launched and have not ended, whoever has them.
    """

    stock: Stock = attrs.field(factory=Stock)
    changed: trio.Event = attrs.field(factory=trio.Event)
    running: set[WarmKernel] = attrs.field(factory=set)
    _kernels: dict[Spare, WarmKernel] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        return f"<WarmPool wanted={self.stock.wanted} kernels={self.kernels}>"

    @property
    def kernels(self) -> Sequence[WarmKernel]:
        """Those that nobody has taken, and that are not asked to end."""
        return [kernel for spare in self.stock.spares if (kernel := self._kernels.get(spare)) is not None]

    @property
    def is_empty(self) -> bool:
        """Whether nobody wants any."""
        return not self.stock.wanted

    def want(self, owner: Owner, count: int, recipe: Recipe, *, after: float = 0.0) -> None:
        """Have so many ready, in the place of what the owner wanted before; see `Stock.want`.

        Args:
            owner: For whom.
            count: How many.
            recipe: What they are started like.
            after: Seconds until the first is launched.
        """
        self.stock.want(owner, count, recipe, trio.current_time() + after)
        self.changed.set()

    def forget(self, owner: Owner) -> None:
        """Note that an owner wants none any more: what waits for it is ended."""
        self.stock.forget(owner)
        self.changed.set()

    async def take(self, recipe: Recipe, session_id: str) -> WarmKernel | None:
        """Take a kernel that is as if it had been started for this session; None if there is none.

        One that does not answer is ended, and the next is tried. Whoever takes one has to run it, by
        `WarmKernel.place`: so this is out of a cancellation's reach, for a fraction of a second.

        Args:
            recipe: What the session's kernel is to be started like.
            session_id: The session.
        """
        taken = None
        while taken is None and (spare := self.stock.take(recipe, session_id, trio.current_time())) is not None:
            kernel = self._kernels.pop(spare)
            with trio.CancelScope(shield=True):
                problem = await kernel.hand_over(recipe.told)
            if problem:
                logger.warning("The warm kernel %s is not taken and ends: %s", kernel.name, problem)
            else:
                taken = kernel
        self.stock.note_start(recipe, None if taken is None else taken.spare, trio.current_time())
        self.changed.set()
        return taken

    def note_change(self) -> None:
        """Have what is there be looked at again."""
        self.changed.set()

    def add(self, kernel: WarmKernel) -> None:
        """Note that a kernel is launched for the stock."""
        self._kernels[kernel.spare] = kernel
        self.running.add(kernel)

    def remove(self, spare: Spare) -> WarmKernel | None:
        """Return a kernel that is to end, or has ended, and forget it; None if it is gone already."""
        return self._kernels.pop(spare, None)

    def close(self, *, hurry: bool = False) -> None:
        """Have all of them end, and launch no more: the server ends. Idempotent; ``hurry`` skips the waits.

        One that was taken is its session's, and ends with that.
        """
        self.stock.is_closed = True
        for spare in self.stock.act(trio.current_time()).end:
            self.remove(spare)
        for kernel in self.running:
            kernel.end(hurry=hurry)
        self.changed.set()
