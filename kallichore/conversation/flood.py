"""Whether a kernel's messages come in a flood, so that it pays to wait a moment and take more of them at once. [pure]

Each wake-up of a pump and of the clients that it wakes costs some 100 µs of system calls and task switches, whether it
brings one message or a hundred. A server that keeps up with a kernel would wake for every few messages.
"""

from __future__ import annotations

import attrs

PAUSE = 0.001
"""Seconds that a pump waits in a flood where it has caught up: what somebody who watches output does not notice."""

WINDOW = 0.005
"""Seconds over which messages are counted. A small execution is over before one of them ends, and never waits, nor do
many in a row: 1,700 a second bring more messages than a flood has at least."""

FLOOD_RATE = 5_000.0
"""Messages a second from which on it is a flood: five or more of them are there after each pause."""


@attrs.define
class FloodGauge:
    """Counts messages in windows; the last whole one decides, until an execution begins or ends."""

    is_flood: bool = False
    _began: float = 0.0
    _count: int = 0
    _idle_since: float | None = None

    def count(self, messages: int, now: float, idle_since: float | None) -> None:
        """Note that so many messages came.

        Args:
            messages: How many.
            now: When, in seconds.
            idle_since: Since when the kernel is idle, by what these messages say; None while it executes.
        """
        if idle_since != self._idle_since:
            self.is_flood, self._began, self._count, self._idle_since = False, now, 0, idle_since
            return
        elapsed = now - self._began
        self._count += messages
        if elapsed >= WINDOW:
            # After a silence the window is long and its rate low: whatever comes first is not held up.
            self.is_flood = self._count > FLOOD_RATE * elapsed
            self._began, self._count = now, 0
