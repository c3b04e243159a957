"""What a session says to its clients: message by message, or a batch in one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
        is_held: Whether what is said is held back until `publish`, as nobody may hear what was not written down; then
            ``on_growth`` is called when there is something to be written.
    """

    journal: Journal
    _on_growth: Callable[[], None]
    is_held: bool = False
    _held: list[tuple[Sequence[bytes], bool]] = attrs.field(factory=list, init=False)
    """What is held back, and whether it is urgent."""
    _held_count: int = attrs.field(default=0, init=False)
    _batch: list[bytes] | None = attrs.field(default=None, init=False)
    """What a batch has brought so far, while one is taken in."""
    _is_urgent: bool = attrs.field(default=False, init=False)

    @property
    def next_number(self) -> int:
        """The number that the next message will have in the journal."""
        return self.journal.end + self._held_count + len(self._batch or ())

    def say(self, member: str, value: Any) -> None:
        """Tell news of the session: a ``kind: kernel`` message with this member."""
        self.put((kernel_message(member, value),))

    def put(self, payloads: Iterable[bytes]) -> None:
        """Tell messages, already as clients get them."""
        if self._batch is not None:
            self._batch.extend(payloads)
        else:
            self._add(tuple(payloads), urgent=False)

    def _add(self, payloads: Sequence[bytes], *, urgent: bool) -> None:
        if self.is_held:
            self._held.append((payloads, urgent))
            self._held_count += len(payloads)
        else:
            self.journal.extend(payloads, urgent=urgent)
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
            self._add(batch, urgent=self._is_urgent)

    @property
    def is_within_batch(self) -> bool:
        """Whether a batch is being taken in."""
        return self._batch is not None

    @property
    def held(self) -> Sequence[tuple[Sequence[bytes], bool]]:
        """What is held back: messages that came together, and whether they are urgent."""
        return self._held

    def publish(self) -> None:
        """Put into the journal what was held back: it was written down."""
        for payloads, urgent in self._held:
            self.journal.extend(payloads, urgent=urgent)
        self._held.clear()
        self._held_count = 0
