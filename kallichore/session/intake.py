"""How much of clients' messages a server holds while they are still coming, and how much it may. [pure]

A message, or a request's body, counts from its first byte until it is whole and handed on. One client's is bounded, and
so is the sum over all clients of a server: many that are each allowed could otherwise take all the memory there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import attrs

LARGEST_MESSAGE = 3 << 30
"""Bytes of one message at most. Widgets send buffers of up to 2,000 MB where users allow it, which are 2,670 MB of
base64."""

MOST_HELD = 4 << 30
"""Bytes of all unfinished messages of a server at most: one of the largest, and room for everybody else's."""


class TooMuchError(Exception):
    """A message is larger than it may be, or all of them together are."""


@attrs.define(eq=False)
class Intake:
    """The sum of one server.

    Attributes:
        most: Bytes that may be held.
        held: Bytes that are held now.
        refused: How many messages were refused so far.
    """

    most: int = MOST_HELD
    held: int = attrs.field(default=0, init=False)
    refused: int = attrs.field(default=0, init=False)

    @contextmanager
    def open(self) -> Iterator[Portion]:
        """Yield the portion of one sender; on leaving nothing is held for it any more."""
        portion = Portion(self)
        try:
            yield portion
        finally:
            portion.clear()


@attrs.define(eq=False)
class Portion:
    """What is held for one sender."""

    _intake: Intake
    size: int = attrs.field(default=0, init=False)

    def add(self, size: int) -> None:
        """Count more bytes.

        Raises:
            TooMuchError: They would be too many; they are not counted.
        """
        if self._intake.held + size > self._intake.most:
            self.refuse()
        self._intake.held += size
        self.size += size

    def refuse(self) -> NoReturn:
        """Count a message that is refused for its size.

        Raises:
            TooMuchError: Always.
        """
        self._intake.refused += 1
        raise TooMuchError

    def clear(self) -> None:
        """Count nothing any more: the message was handed on, or given up."""
        self._intake.held -= self.size
        self.size = 0
