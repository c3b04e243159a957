"""Where a session's kernel is, as clients are told it: in a queue, on another machine, or out of reach for a while.

A kernel on this machine has no whereabouts. Of one elsewhere each change is told as a ``kind: kernel`` message, so that
who connects later learns it from the journal like everything else, and is in the session's description.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from kallichore.models.bodies import ConnectionLost, KernelPlace, PendingStart
from kallichore.models.converter import unstructure

WARNINGS = (300.0, 60.0)
"""Seconds before the end of what a kernel is allotted at which people are told: time to save, and the last moment."""


SAME_END = 5.0
"""Seconds by which the end of what a kernel is allotted has to move to be told anew. Engines tell how much is left, in
whole seconds and a little late, so that the end is never reckoned twice the same; and each that is told is kept for
clients that are away."""


@attrs.define(eq=False)
class Whereabouts:
    """What is known of where a kernel is.

    Args:
        say: Tells clients: a member of a ``kind: kernel`` message, and its value.
    """

    say: Callable[[str, Any], None]
    place: KernelPlace | None = attrs.field(default=None, init=False)
    """On which machine, by what engine; None for this one."""
    pending: PendingStart | None = attrs.field(default=None, init=False)
    """Why it has no machine yet; None while it does not wait for one."""
    connection_lost: ConnectionLost | None = attrs.field(default=None, init=False)
    """Since when, and why, it cannot be reached; None while it can."""
    _warned: float = attrs.field(default=float("inf"), init=False)
    """The seconds that were left when people were told last that it will be ended."""

    def note_pending(
        self, reason: str, since: float, expected_start: float | None = None, position: int | None = None
    ) -> None:
        """Note why it has no machine yet; see `PendingStart`, times are seconds since 1970."""
        start = None if expected_start is None else _moment(expected_start)
        self._set("pending", PendingStart(reason=reason, since=_moment(since), expected_start=start, position=position))

    def note_no_longer_pending(self) -> None:
        """Note that it waits no more: it has a machine, or will have none."""
        self._set("pending", None)

    def note_place(self, engine: str, job: str, node: str | None, ends: float | None) -> None:
        """Note where it is.

        Args:
            engine: The kind of engine.
            job: What the engine calls it, in words.
            node: The machine.
            ends: When the engine will end it, in seconds since 1970; None if it will not, or nobody knows.
        """
        moment = None if ends is None else _moment(ends)
        told = None if self.place is None else self.place.ends
        if moment is not None and told is not None and abs(moment - told) < timedelta(seconds=SAME_END):
            moment = told
        self._set("place", KernelPlace(engine=engine, job=job, node=node, ends=moment))

    def note_cut(self, reason: str, now: float) -> None:
        """Note that it cannot be reached for a while; it goes on meanwhile.

        Args:
            reason: Why; empty where nothing is known yet.
            now: In seconds since 1970.
        """
        since = _moment(now) if self.connection_lost is None else self.connection_lost.since
        self._set("connection_lost", ConnectionLost(since=since, reason=reason))

    def note_connected(self) -> None:
        """Note that it can be reached again."""
        self._set("connection_lost", None)

    def take_warning(self, left: float) -> str | None:
        """Return what people are to be told when so much time is left, in a sentence; None if that is nothing new.

        Args:
            left: Seconds until the engine ends the kernel.
        """
        due = min((each for each in WARNINGS if left <= each), default=None)
        if due is None or due >= self._warned:
            return None
        self._warned = due
        amount = f"{round(left / 60)} minutes" if left > 90 else f"{max(0, round(left))} seconds"
        return f"The time limit of its job ends this kernel in {amount}; save what is to be kept"

    def clear(self) -> None:
        """Forget all, as the kernel is gone."""
        self._warned = float("inf")
        for member in ("pending", "connection_lost", "place"):
            self._set(member, None)

    def _set(self, member: str, value: Any) -> None:
        if getattr(self, member) != value:
            setattr(self, member, value)
            self.say(_MESSAGES[member], None if value is None else unstructure(value))


_MESSAGES = {"pending": "pending", "connection_lost": "connectionLost", "place": "place"}
"""What the messages are called, as such members are: in camel case."""


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
