"""Who wants to hear that a session changed, and which ones did: for pages and scripts that show all sessions live.

A change is only marked here, by the session's id; what is true by then is looked up by the listener when it has time.
So a listener that is slow misses steps between, never the last one, and nothing is kept for it but ids. Where nobody
listens, a mark is a look at an empty list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio


@attrs.define(eq=False)
class Listener:
    """One who listens. Made by `News.listen`."""

    _changed: set[str] = attrs.field(factory=set, init=False)
    _woken: trio.Event = attrs.field(factory=trio.Event, init=False)
    is_over: bool = attrs.field(default=False, init=False)
    """Whether nothing will change any more."""

    def note(self, session_id: str) -> None:
        """Mark that a session changed, began or is gone."""
        self._changed.add(session_id)
        self._woken.set()

    def end(self) -> None:
        """Mark that nothing will change any more."""
        self.is_over = True
        self._woken.set()

    async def wait(self) -> None:
        """Wait until something has changed, or nothing will any more. Cancelling changes nothing."""
        await self._woken.wait()

    def take(self) -> set[str]:
        """Return the ids of the sessions that changed since the last time."""
        changed, self._changed = self._changed, set()
        if not self.is_over:
            self._woken = trio.Event()
        return changed


@attrs.define(eq=False)
class News:
    """The listeners of one server."""

    _listeners: list[Listener] = attrs.field(factory=list, init=False)

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def note(self, session_id: str) -> None:
        """Mark for everybody that a session changed."""
        for listener in self._listeners:
            listener.note(session_id)

    def close(self) -> None:
        """Tell everybody that nothing will change any more: the server ends."""
        for listener in self._listeners:
            listener.end()

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Listen while the block runs."""
        listener = Listener()
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
