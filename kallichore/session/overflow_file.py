"""The file in which a session's older undelivered messages wait.

It has no name, so it is gone when it is closed, and also when the server is killed; and it is made at the first message
that does not fit into memory, so that an ordinary session has none. Reads and writes go to the page cache and are as
fast as memory copies; handing them to a thread would cost more than they take.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections import deque
from itertools import islice
from typing import IO

import attrs

logger = logging.getLogger(__name__)

COMPACT_AT = 1 << 26
"""Bytes of delivered messages at the file's start, beyond which the rest is moved to a new file."""

COPY_SIZE = 1 << 20


@attrs.define
class OverflowFile:
    """A first-in, first-out queue of messages in a nameless temporary file; see
    `kallichore.session.replay.Overflow`.
    """

    size: int = attrs.field(default=0, init=False)
    _file: IO[bytes] | None = attrs.field(default=None, init=False)
    _start: int = attrs.field(default=0, init=False)
    _sizes: deque[int] = attrs.field(factory=deque, init=False)

    def push(self, payload: bytes) -> bool:
        """Add a message at the end; False, with a log line, if the disk does not take it."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="kallichore-", buffering=0)  # noqa: SIM115  # closed by `close`
            self._file.seek(self._start + self.size)
            if self._file.write(payload) < len(payload):
                # A disk with a little space left takes a part, and says why only when asked to take the rest.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            logger.error("Could not keep undelivered messages in a file: %s", error)
            return False
        self._sizes.append(len(payload))
        self.size += len(payload)
        return True

    def read(self, skip: int, count: int, max_bytes: int) -> list[bytes]:
        """Return up to ``count`` messages behind the first ``skip``, at least one, about ``max_bytes`` in all."""
        assert self._file is not None
        self._file.seek(self._start + sum(islice(self._sizes, skip)))
        payloads: list[bytes] = []
        total = 0
        for size in islice(self._sizes, skip, skip + count):
            total += size
            if payloads and total > max_bytes:
                break
            payloads.append(self._file.read(size))
        return payloads

    def drop(self, count: int) -> None:
        """Forget the first ``count`` messages; the space is given back when they are many, or all."""
        for _ in range(count):
            size = self._sizes.popleft()
            self._start += size
            self.size -= size
        if self._file is None:
            return
        if not self._sizes:
            self._file.truncate(0)
            self._start = 0
        elif self._start > max(COMPACT_AT, self.size):
            self._compact(self._file)

    def _compact(self, file: IO[bytes]) -> None:
        """Move what is left to the start of the file; the gap is larger than the rest, so nothing overlaps."""
        moved = 0
        while moved < self.size:
            file.seek(self._start + moved)
            data = file.read(min(COPY_SIZE, self.size - moved))
            file.seek(moved)
            file.write(data)
            moved += len(data)
        file.truncate(self.size)
        self._start = 0

    def close(self) -> None:
        """Forget everything. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._sizes.clear()
        self._start = self.size = 0
