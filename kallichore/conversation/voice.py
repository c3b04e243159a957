"""What a session says to its clients: message by message, or a batch in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from kallichore.conversation.journal import Journal
from kallichore.wire.client_messages import kernel_message


@attrs.define(eq=False)
class Voice:
    """Puts what clients are to be told into the journal.

    Args:
        journal: Where it is numbered, and waits.
        on_growth: Called after the journal grew, to wake who reads it.
    """

    journal: Journal
    _on_growth: Callable[[], None]
    _batch: list[bytes] | None = attrs.field(default=None, init=False)
    """What a batch has brought so far, while one is taken in."""
    _is_urgent: bool = attrs.field(default=False, init=False)

    @property
    def next_number(self) -> int:
        """The number that the next message will have in the journal."""
        return self.journal.end + len(self._batch or ())

    def say(self, member: str, value: Any) -> None:
        """Tell news of the session: a ``kind: kernel`` message with this member."""
        self.put((kernel_message(member, value),))

    def put(self, payloads: Iterable[bytes]) -> None:
        """Tell messages, already as clients get them."""
        if self._batch is not None:
            self._batch.extend(payloads)
        else:
            self.journal.extend(tuple(payloads))
            self._on_growth()

    def begin_batch(self, *, urgent: bool) -> list[bytes]:
        """Collect what is told until `end_batch`; return the list that it is collected in.

        What is urgent, replies and questions, may reach a client that is behind before the output that it waits for.
        """
        self._batch, self._is_urgent = [], urgent
        return self._batch

    def end_batch(self) -> None:
        """Put into the journal what a batch brought, and let clients know."""
        batch, self._batch = self._batch, None
        if batch:
            self.journal.extend(batch, urgent=self._is_urgent)
            self._on_growth()
