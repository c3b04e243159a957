"""A result that one task owes to others, however many wait for it and whoever of them gives up."""

from __future__ import annotations

from typing import Generic, TypeVar

import outcome
import trio

T = TypeVar("T")


class Pending(Generic[T]):
    """A value or an error, set once."""

    def __init__(self) -> None:
        self._known = trio.Event()
        self._outcome: outcome.Maybe[T] | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the result is there."""
        return self._outcome is not None

    def set(self, value: T) -> None:
        """Settle with a value; later results are ignored."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Settle with an error; later results are ignored."""
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Maybe[T]) -> None:
        if self._outcome is None:
            self._outcome = result
            self._known.set()

    async def wait(self) -> T:
        """Wait for the result and return it, or raise its error. Cancelling changes nothing for anybody else."""
        await self._known.wait()
        assert self._outcome is not None
        if isinstance(self._outcome, outcome.Error):
            # Not unwrap(), which may be called only once: several may wait.
            raise self._outcome.error
        return self._outcome.value
