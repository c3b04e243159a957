"""The files in which a session's older undelivered messages wait.

They have no names, so they are gone when they are closed, and also when the server is killed; the first is made at the
first message that does not fit into memory, so that an ordinary session has none. Reads and writes go to the page cache
and are as fast as memory copies; handing them to a thread would cost more than they take. There are several, since a
file gives space back only as a whole: nothing ever has to be moved.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from typing import IO

import attrs

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 1 << 26
"""Bytes of messages in one file, or a single message that is larger."""


@attrs.define
class _Segment:
    """One file, and where its messages are in the queue as a whole."""

    file: IO[bytes]
    begin: int
    end: int


@attrs.define
class OverflowFile:
    """A first-in, first-out queue of messages in nameless temporary files: the journal's `Overflow`."""

    _segments: deque[_Segment] = attrs.field(factory=deque, init=False)
    _start: int = attrs.field(default=0, init=False)
    _end: int = attrs.field(default=0, init=False)
    _refused: bool = attrs.field(default=False, init=False)
    """Whether the disk did not take the latest message; the log has it once, not with every message."""

    @property
    def size(self) -> int:
        """How many bytes of messages it holds."""
        return self._end - self._start

    def push(self, payload: bytes) -> bool:
        """Add a message at the end; False, with a log line for the first, if the disk does not take it."""
        try:
            segment = self._segment_for(len(payload))
            segment.file.seek(segment.end - segment.begin)
            if segment.file.write(payload) < len(payload):
                # A disk with a little space left takes a part, and says why only when asked to take the rest.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._refused:
                logger.error("Could not keep undelivered messages in a file: %s", error)
            self._refused = True
            return False
        self._refused = False
        segment.end = self._end = self._end + len(payload)
        return True

    def _segment_for(self, size: int) -> _Segment:
        if self._segments:
            last = self._segments[-1]
            if last.end == last.begin or last.end - last.begin + size <= SEGMENT_BYTES:
                return last
        file = tempfile.TemporaryFile(prefix="kallichore-", buffering=0)  # noqa: SIM115  # closed by `drop` or `close`
        self._segments.append(_Segment(file, self._end, self._end))
        return self._segments[-1]

    def read(self, skip: int, sizes: Sequence[int]) -> list[bytes]:
        """Return messages of these sizes, behind ``skip`` bytes of others."""
        position = self._start + skip
        payloads: list[bytes] = []
        segments = iter(self._segments)
        segment: _Segment | None = None
        for size in sizes:
            while size and (segment is None or position >= segment.end):
                segment = next(segments)
            if segment is not None:
                segment.file.seek(position - segment.begin)
            payloads.append(b"" if segment is None else segment.file.read(size))
            position += size
        return payloads

    def drop(self, size: int) -> None:
        """Forget messages of so many bytes at the start; files that hold nothing else give their space back."""
        self._start += size
        while self._segments and self._segments[0].end <= self._start:
            self._segments.popleft().file.close()

    def cut(self, size: int) -> None:
        """Forget messages of so many bytes at the end, and give their space back."""
        self._end -= size
        while self._segments and self._segments[-1].begin >= self._end:
            self._segments.pop().file.close()
        if self._segments and self._segments[-1].end > self._end:
            last = self._segments[-1]
            last.end = self._end
            last.file.truncate(last.end - last.begin)
        self.drop(0)

    def close(self) -> None:
        """Forget everything. Idempotent."""
        self.drop(self.size)
