"""What a kernel's process and its children print past the kernel's messages, read line by line as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
import trio

from kallichore.kernel.output import LineSplitter

READ_SIZE = 1 << 16

PARTIAL_PATIENCE = 0.1
"""Seconds that the beginning of a line waits for the rest: a person is to see a progress bar, or a prompt, in time."""


@attrs.define(eq=False)
class OutputReader:
    """Reads the output of one process.

    Args:
        tell: Is given the name of a stream, and lines of it.
        may_split: Whether the beginning of a line may be told before its rest has come.
    """

    tell: Callable[[str, Sequence[str]], None]
    may_split: Callable[[], bool]
    _partial: set[str] = attrs.field(factory=set, init=False)
    """The streams of which the beginning of a line waits for its rest."""
    _splitters: dict[str, LineSplitter] = attrs.field(factory=dict, init=False)

    @property
    def has_partial_line(self) -> bool:
        """Whether there is the beginning of a line, which is told within `PARTIAL_PATIENCE`."""
        return bool(self._partial)

    def held(self, name: str) -> int:
        """Return how many bytes of a stream were read, and not told yet."""
        splitter = self._splitters.get(name)
        return 0 if splitter is None else splitter.held

    async def read(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        """Read a stream to its end, and close it. Cancelled, it tells what it has read so far."""
        splitter = self._splitters[name] = LineSplitter()
        try:
            async with stream:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while (lines := await self._read_lines(stream, name, splitter)) is not None:
                        self.tell(name, lines)
        finally:
            self.tell(name, splitter.finish())
            self._partial.discard(name)

    async def _read_lines(
        self, stream: trio.abc.ReceiveStream, name: str, splitter: LineSplitter
    ) -> Sequence[str] | None:
        """Return what one read completes, or the beginning of a line whose rest takes long; None at the end."""
        if splitter.is_within_line and self.may_split():
            self._partial.add(name)
            patience = PARTIAL_PATIENCE
        else:
            self._partial.discard(name)
            patience = float("inf")
        with trio.move_on_after(patience):
            data = await stream.receive_some(READ_SIZE)
            return splitter.feed(bytes(data)) if data else None
        return splitter.take_partial()
