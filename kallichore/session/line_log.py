"""What a process printed lately, numbered, for those who ask for it or follow it.

Two of them: what each session's kernel process printed, over all its lives, and what the server itself logged. They are
bounded, and independent of the journal: reading them takes nothing from a client.
"""

from __future__ import annotations

from collections import deque

import attrs
import trio

from kallichore.models.bodies import LogLine, LogLines

MOST_BYTES = 1 << 20
"""Bytes of text that a log keeps: some ten thousand lines, so that many sessions may have one. The oldest go first."""


@attrs.define(eq=False)
class LineLog:
    """A bounded log of lines; the first ever is number 1."""

    most_bytes: int = MOST_BYTES
    _lines: deque[LogLine] = attrs.field(factory=deque, init=False)
    _bytes: int = attrs.field(default=0, init=False)
    _last: int = attrs.field(default=0, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    is_closed: bool = attrs.field(default=False, init=False)
    """Whether no more lines will come."""

    def append(self, stream: str, text: str, time: str) -> None:
        """Add a line.

        Args:
            stream: Where it was printed: ``stdout``, ``stderr``, or for the server its log level.
            text: The line; its ending is dropped.
            time: When, ISO 8601.
        """
        self._last += 1
        # One endless line must not push out everything else.
        line = LogLine(number=self._last, time=time, stream=stream, text=text.rstrip("\r\n")[: self.most_bytes // 4])
        self._lines.append(line)
        self._bytes += len(line.text)
        while self._bytes > self.most_bytes:
            self._bytes -= len(self._lines.popleft().text)
        self._wake()

    def close(self) -> None:
        """Let those who follow come to their end."""
        self.is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed.statistics().tasks_waiting:
            self._changed.set()
            self._changed = trio.Event()

    def read(self, after: int = 0, tail: int | None = None) -> LogLines:
        """Return the lines beyond number ``after``, the last ``tail`` of them where that is given."""
        oldest = self._last - len(self._lines) + 1
        lines = [line for line in self._lines if line.number > after]
        if tail is not None:
            lines = lines[max(0, len(lines) - tail) :]
        missing = 0 if tail is not None else max(0, min(oldest, self._last + 1) - after - 1)
        return LogLines(lines=tuple(lines), missing=missing)

    async def wait_beyond(self, number: int) -> None:
        """Wait until there is a line beyond ``number``, or no more will come. Cancelling changes nothing."""
        while self._last <= number and not self.is_closed:
            await self._changed.wait()
