"""Whether a kernel's messages come in a flood, so that it pays to wait a moment and take more of them at once. [pure]

Each wake-up of a pump and of the clients that it wakes costs some 100 µs of system calls and task switches, whether it
brings one message or a hundred. A server that keeps up with a kernel would wake for every few messages. Where messages
are large it is the clients that are waited for, so that what they are about to take need not go through a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kallichore.wire.frames import Frames

WINDOW = 0.05
"""Seconds over which messages are counted, within one execution. What is over before a window ends never waits, and
what takes longer is longer by a tenth at most."""

FLOOD_RATE = 400.0
"""Messages a second from which on it is a flood: two or more of them are there after each pause."""

ENOUGH = 64
"""Messages that are worth a wake-up. More at once would save next to nothing, and have to wait somewhere meanwhile."""

LONGEST_PAUSE = 0.005
"""Seconds that a pump waits at most: what somebody who watches output does not notice."""

LARGE, MOST_LARGE = 1 << 20, 64
"""Bytes of a large message, of its last frame and on the average of a batch; and the most messages in one."""

SLOWEST = 50e6
"""Bytes a second that a client takes at least, if what is large is to wait for it in the kernel, and not in a file."""


@attrs.define
class FloodGauge:
    """Counts messages in windows; the last whole one decides, until an execution begins or ends.

    Attributes:
        pause: Seconds to wait where all was taken that came; 0 where it is no flood.
    """

    pause: float = attrs.field(default=0.0, init=False)
    _began: float = attrs.field(default=0.0, init=False)
    _count: int = attrs.field(default=0, init=False)
    _since: float | None = attrs.field(default=None, init=False)

    def count(self, messages: int, now: float, since: float | None) -> None:
        """Note that so many messages came.

        Args:
            messages: How many.
            now: When, in seconds.
            since: Since when the kernel is busy, or idle, by what these messages say; None where it is neither.
        """
        if since != self._since:
            self.pause, self._began, self._count, self._since = 0.0, now, 0, since
            return
        elapsed = now - self._began
        self._count += messages
        if elapsed >= WINDOW:
            # After a silence the window is long and its rate low: whatever comes first is not held up.
            rate = self._count / elapsed
            self.pause = min(ENOUGH / rate, LONGEST_PAUSE) if rate > FLOOD_RATE else 0.0
            self._began, self._count = now, 0


def patience_for(batch: Sequence[Frames]) -> float:
    """Return how many seconds clients are given to take messages, before the kernel is listened to again.

    While the kernel waits, what it says is in its own queue of a thousand messages. Of large ones that is as much as a
    journal's file holds; of small ones it is a moment's output, and nobody is waited for.
    """
    if len(batch) > MOST_LARGE or len(batch[0][-1]) < LARGE:
        return 0.0
    size = sum(len(frames[-1]) for frames in batch)
    return size / SLOWEST if size >= LARGE * len(batch) else 0.0
