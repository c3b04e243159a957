"""What a session that outlives its server writes down, before anybody is told.

All that leaves a session, to its clients and to its kernel, leaves it behind a commit: messages wait in the voice,
frames for the kernel in the stream to its host. A commit takes both, with what changed in the session's state and with
how far the kernel's bytes were taken in, and writes them as one record; then they go out. So whatever moment a server
is killed at, the next one knows all that anybody was told, and the host has the rest.

What the kernel says is committed as it is taken in. All else is committed by a task, within the same turn of the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import trio

from kallichore.conversation.conversation import Conversation
from kallichore.conversation.parts import ConversationParts
from kallichore.engines.host_link import HostLink
from kallichore.state.session_log import Commit, SessionLog
from kallichore.wire.host_frames import Frame

logger = logging.getLogger(__name__)

CONFIRM_AT_LEAST = 1 << 20
"""Bytes of one stream after which its host is told that it need not keep them. The next server asks for where it is to
go on; so this is only about the host's memory, and it would be woken for it."""

SUPERVISION, POSITIONS, SENT = "supervision", "positions", "sent"
"""Names of parts: what the supervisor is doing, how far the kernel's bytes were taken in, and the frames for the kernel
of which the host has not said that it has them."""


@attrs.define(eq=False)
class Keeper:
    """Writes down one session.

    Args:
        session_id: The session's, for the log.
        log: Where to.
        conversation: What it said, and what follows.
        parts: What of that has to be remembered.
        describe: Returns what the supervisor is doing.
        on_told: Called when what was said is in the journal, to wake who reads it.
    """

    session_id: str
    log: SessionLog
    conversation: Conversation
    parts: ConversationParts
    describe: Callable[[], Mapping[str, Any]]
    on_told: Callable[[], None]
    positions: Callable[[], dict[int, int]] = dict
    """Returns how far the kernel's bytes were taken in."""
    trouble: str = attrs.field(default="", init=False)
    """Why the latest commit could not be written; empty if it could."""
    _link: HostLink | None = attrs.field(default=None, init=False)
    _written: dict[str, bytes] = attrs.field(factory=dict, init=False)
    """The parts of our own, as they were written last."""
    _taken: dict[int, int] = attrs.field(factory=dict, init=False)
    _confirmed: dict[int, int] = attrs.field(factory=dict, init=False)
    _has_no_kernel: bool = attrs.field(default=False, init=False)
    """Whether the kernel that was followed has ended: then what was sent to it is not to reach another."""
    _sent: int = attrs.field(default=0, init=False)
    """The number of the latest frame for the kernel that was written down."""
    _taken_back: Sequence[tuple[int, int]] = attrs.field(default=(), init=False)
    _is_due: bool = attrs.field(default=False, init=False)
    _due: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)

    _epoch: float = attrs.field(factory=lambda: time.time() - trio.current_time(), init=False)
    """When Trio's clock was at zero, in seconds since 1970: the next server's will be another."""

    def restore(self, parts: Mapping[str, bytes]) -> list[str]:
        """Take up what another server wrote down; return what of it could not be read, in words."""
        shift = read_supervision(parts).get("epoch", self._epoch) - self._epoch
        self._taken = {int(number): position for number, position in _read(parts, POSITIONS).items()}
        return self.parts.restore(parts, shift)

    def follow(self, link: HostLink | None, positions: Callable[[], dict[int, int]]) -> None:
        """Take the kernel's messages from this host from now on, and have frames for it wait for commits.

        Args:
            link: The stream to the host; None when its kernel has ended.
            positions: Returns how far the kernel's bytes were taken in.
        """
        self._link, self.positions = link, positions
        self._confirmed, self._sent = {}, 0
        self._has_no_kernel = link is None
        if link is None:
            self._taken = {}
        else:
            link.on_waiting = self.note

    def note(self) -> None:
        """Note that there is something to be written."""
        if not self._is_due:
            self._is_due = True
            self._due.set()

    async def run(self) -> None:
        """Write what `note` was called for, until `close`: a kernel's end is written down whoever is cancelled."""
        with trio.CancelScope(shield=True):
            while not self._is_closed:
                await self._due.wait()
                self._due = trio.Event()
                self.commit()

    def note_taken_back(self, numbers: Sequence[range]) -> None:
        """Note that messages were taken out of the journal, right behind a commit; they are taken out of the log."""
        self._taken_back = [(each.start, each.stop) for each in numbers]
        self.commit()

    def commit(self) -> None:
        """Write down what is new, and let it go out: to clients, to the kernel. A full disk ends the first only."""
        if self._is_closed:
            return
        self._is_due = False
        before = self.trouble
        voice = self.conversation.voice
        journal, held = voice.journal, voice.held
        parts = self.parts.take_changes()
        self._add_own(parts)
        if held or parts or self._taken_back:
            payloads = [payload for together, _ in held for payload in together]
            try:
                self.log.commit(Commit(journal.end, payloads, _urgent(journal.end, held), parts, self._taken_back))
                self.trouble = ""
            except OSError as error:
                self.trouble = error.strerror or str(error)
            self._taken_back = ()
        is_told = bool(held)
        voice.publish()
        if self._link is not None:
            self._link.flush()
            self._confirm(self._link)
        self.log.forget_before(journal.first)
        if is_told:
            self.on_told()
        if bool(before) != bool(self.trouble):
            self._tell_trouble()

    def close(self) -> None:
        """Write what is new, and nothing after that. Idempotent."""
        self.commit()
        self._is_closed = True
        self._due.set()
        self.log.close()

    def _add_own(self, parts: dict[str, bytes]) -> None:
        """Add the parts that are not the conversation's, where they changed."""
        self._taken.update(self.positions())
        own = {SUPERVISION: _write({**self.describe(), "epoch": self._epoch}), POSITIONS: _write(self._taken)}
        sent = self._link.unaccepted if self._link is not None else ()
        if sent and sent[-1].number > self._sent:
            # What the host has meanwhile does no harm there: it is not sent again.
            self._sent = sent[-1].number
            own[SENT] = _write([(frame.number, frame.channel, frame.data) for frame in sent])
        elif self._has_no_kernel:
            own[SENT] = b""
        written = self._written
        for name, part in own.items():
            if written.get(name) != part:
                parts[name] = written[name] = part

    def _confirm(self, link: HostLink) -> None:
        for number, position in self._taken.items():
            if position >= self._confirmed.get(number, 0) + CONFIRM_AT_LEAST:
                link.confirm(number, position)
                self._confirmed[number] = position

    def _tell_trouble(self) -> None:
        """Say that what happens is kept no more, or is kept again; the disk is asked anew with every commit."""
        why = f" no more: {self.trouble}" if self.trouble else " again"
        text = f"What happens in this session is kept over a restart of the server{why}"
        logger.warning("[session %s] %s", self.session_id, text)
        self.conversation.say_output("stderr", f"[kallichore] {text}\n")


_write = msgspec.json.encode


def _urgent(first: int, held: Sequence[tuple[Sequence[bytes], bool]]) -> list[tuple[int, int]]:
    """Return the numbers of urgent messages, as ranges."""
    ranges, number = [], first
    for payloads, is_urgent in held:
        if is_urgent:
            ranges.append((number, number + len(payloads)))
        number += len(payloads)
    return ranges


def _read(parts: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """Return a part of our own; empty where it is not there, or is damaged."""
    try:
        value = msgspec.json.decode(parts.get(name, b"{}"))
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def read_supervision(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the supervisor was doing, as `Keeper` was told; empty where that is not known."""
    return _read(parts, SUPERVISION)


def read_positions(parts: Mapping[str, bytes]) -> dict[int, int]:
    """Return how far the kernel's bytes were taken in."""
    return {int(number): int(position) for number, position in _read(parts, POSITIONS).items()}


def read_sent(parts: Mapping[str, bytes]) -> list[Frame]:
    """Return the frames for the kernel of which it is not known whether the host has them."""
    try:
        sent = msgspec.json.decode(parts.get(SENT, b"[]"), type=list[tuple[int, int, bytes]])
    except msgspec.MsgspecError:
        return []
    return [Frame(*each) for each in sent]
