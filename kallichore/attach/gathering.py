"""A client's message, put together from what comes of it; bounded by what its server holds for all. [pure]"""

from __future__ import annotations

import sys
from typing import NoReturn, TypeVar, cast

import attrs

from kallichore.session.intake import Portion, TooMuchError

Piece = TypeVar("Piece", str, bytes)


@attrs.define(eq=False)
class Gathering:
    """The message that one client is sending."""

    _portion: Portion
    _pieces: list[str | bytes] = attrs.field(factory=list, init=False)
    _is_refused: bool = attrs.field(default=False, init=False)

    def add(self, data: Piece, finished: bool) -> Piece | None:
        """Take a piece of a message; return the message if this was its last. After a refusal there is none any more.

        Raises:
            TooMuchError: The server holds no more. What came of the message is given up.
        """
        if self._is_refused:
            return None
        if finished and not self._pieces:
            return data
        try:
            # What it takes in memory, also where a piece is next to nothing.
            self._portion.add(sys.getsizeof(data))
        except TooMuchError:
            self._is_refused = True
            self._give_up()
            raise
        self._pieces.append(data)
        if not finished:
            return None
        # Its pieces are all text, or all bytes (RFC 6455, 5.4).
        message = data[:0].join(cast("list[Piece]", self._pieces))
        self._give_up()
        return message

    def refuse(self) -> NoReturn:
        """Refuse the message that begins, for what it says of its size.

        Raises:
            TooMuchError: Always.
        """
        self._is_refused = True
        self._give_up()
        self._portion.refuse()

    def _give_up(self) -> None:
        self._pieces.clear()
        self._portion.clear()
