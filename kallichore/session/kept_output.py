"""What a process prints before anybody listens: read, so that it never has to wait, and kept for who comes."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import attrs
import trio

MOST_KEPT = 1 << 16
"""Bytes that are kept of one stream: a banner and some warnings are a few hundred. Of more, the latest are."""

_READ_SIZE = 1 << 14


@attrs.define(eq=False)
class KeptOutput(trio.abc.ReceiveStream):
    """A stream that is read from the beginning, and has what was read then for whoever receives from it later.

    Args:
        stream: What the process prints to.
    """

    stream: trio.abc.ReceiveStream
    _kept: deque[bytes] = attrs.field(factory=deque, init=False)
    _size: int = attrs.field(default=0, init=False)
    _left_out: int = attrs.field(default=0, init=False)

    async def keep(self) -> None:
        """Read to the end. Cancelling it loses nothing, and leaves the stream open."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(_READ_SIZE):
                self._kept.append(bytes(data))
                self._size += len(data)
                while self._size > MOST_KEPT:
                    gone = len(self._kept.popleft())
                    self._size -= gone
                    self._left_out += gone

    @property
    def kept(self) -> bytes:
        """What was kept, and not received yet; it says how much was left out in front of it."""
        note = b"[... %d bytes left out ...]\n" % self._left_out if self._left_out else b""
        return note + b"".join(self._kept)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what was kept, whole, then what comes. Cancelling loses nothing."""
        if self._kept:
            await trio.lowlevel.checkpoint()
            data, self._left_out = self.kept, 0
            self._kept.clear()
            return data
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close the stream."""
        await self.stream.aclose()
