"""Something that is to be done at a time which moves: sooner, whenever somebody says so."""

from __future__ import annotations

from collections.abc import Callable

import trio

_NEVER = float("inf")


class Alarm:
    """One time, and a task that waits for it. To move the time wakes nobody: it costs a microsecond."""

    def __init__(self) -> None:
        self._at = _NEVER
        self._waiting: trio.CancelScope | None = None

    def set(self, at: float | None) -> None:
        """Ring at this time, in seconds of Trio's clock, unless it rings sooner anyway; None is no time."""
        if at is not None and at < self._at:
            self._at = at
            if self._waiting is not None:
                self._waiting.deadline = at

    async def run(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` at each time that was set, for ever; it may set the next. Cancelling ends it."""
        while True:
            with trio.CancelScope(deadline=self._at) as self._waiting:
                await trio.sleep_forever()
            self._at = _NEVER
            ring()
