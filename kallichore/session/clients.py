"""The clients of a session: who they are, what each has been sent, and when one has to leave.

By the API's rule a session has one client, and a newer one takes its place. Clients that ask for it share the session
instead, only watch, or come for the answers to their own requests. Each reads the journal at its own pace; the journal
is where messages wait, so a slow client holds up nobody, and one that is gone has lost nothing that was not delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

import attrs
import trio

from kallichore.conversation.delivery import Deliveries, Delivery, Ending
from kallichore.conversation.journal import Batch, Journal, Shift
from kallichore.wire.client_messages import belongs_to

BATCH_BYTES = 1 << 18
"""Bytes handed to a client at a time: enough that one send carries hundreds of small messages, little enough that a
send that fails repeats little to the next client."""

BATCH_MESSAGES = 1024

LIVE_MESSAGES = 8
"""Live messages that wait for a client; beyond that the oldest go, as newer ones have overtaken them."""


class Attendance(StrEnum):
    """How a client attends to a session: the ``attach`` of its request."""

    TAKE_OVER = "takeover"
    SHARE = "share"
    WATCH = "watch"
    VISIT = "visit"


@attrs.frozen
class Wish:
    """What a client asks for when it connects.

    Args:
        attendance: How it attends.
        since: The number of the last message that it has; None to be given what nobody was given yet. With a number it
            gets everything beyond, each with its number.
        socket_path: The socket that it came through, if it is a session's own.
        name: What it says it is; empty where it does not.
    """

    attendance: Attendance = Attendance.TAKE_OVER
    since: int | None = None
    socket_path: str | None = None
    name: str = ""


@attrs.define(eq=False)
class ClientSlot:
    """One client's place at a session. Made by `Audience.attach`."""

    deliveries: Deliveries
    wish: Wish
    older: ClientSlot | None = None
    """The client that this one displaced: what is on its way to it has to be settled first."""
    delivery: Delivery = attrs.field(init=False)
    """What this client was given and has."""
    ending: Ending = attrs.field(default=Ending.CUT, init=False)
    """How its connection ended."""
    finished: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing more is sent to this client."""
    leaving: str | None = attrs.field(default=None, init=False)
    """Why this client has to leave, once it has to."""
    displaced: bool = attrs.field(default=False, init=False)
    """Whether it has to leave because a newer client came."""
    on_displaced: Callable[[], None] | None = attrs.field(default=None, init=False)
    """Called when a newer client came: puts a bound on a send that may never end."""
    on_settled: Callable[[Delivery], None] | None = attrs.field(default=None, init=False)
    """Called when it is known what this client has, once it is gone."""
    on_news: Callable[[], bool] | None = attrs.field(default=None, init=False)
    """Called when there may be something to send; true if all of it was sent."""
    live: list[bytes] = attrs.field(factory=list, init=False)
    """Messages that only matter now, which are to be sent next; see `take_live`."""
    _replayed: int = attrs.field(init=False)
    """Up to where it is told what was said before it came, which is in order."""
    _hurried: int = attrs.field(init=False)
    """Up to where urgent messages were sent ahead of others."""
    _requests: set[str] = attrs.field(factory=set, init=False)
    """The ids of what a visitor has asked for."""
    _is_answered: bool = attrs.field(default=False, init=False)
    """Whether a visitor was sent anything of its own; what processes print from then on is shown to it, too."""
    _question: tuple[bytes, int] | None = attrs.field(default=None, init=False)
    _parked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._replayed = self._hurried = self.journal.end
        self.delivery = self.deliveries.begin(speaks=self.may_speak, visits=self.visits, since=self.wish.since)

    @property
    def journal(self) -> Journal:
        """What the session has to say."""
        return self.deliveries.journal

    @property
    def may_speak(self) -> bool:
        """Whether the kernel is to be told what this client says."""
        return self.wish.attendance is not Attendance.WATCH

    @property
    def visits(self) -> bool:
        """Whether this client comes for the answers to its own requests only."""
        return self.wish.attendance is Attendance.VISIT

    def note_request(self, msg_id: str) -> None:
        """Note that this client sent a request."""
        if self.visits:
            self._requests.add(msg_id)

    @property
    def is_numbered(self) -> bool:
        """Whether this client is to be told the numbers of messages."""
        return self.wish.since is not None

    @property
    def is_behind(self) -> bool:
        """Whether the journal has more for this client."""
        return self.delivery.given < self.deliveries.journal.end

    def wake(self) -> None:
        """Let the client look again: the journal grew, or it has to leave."""
        if self.on_news is None or not self.on_news():
            self._parked.unpark_all()

    def leave(self, reason: str, *, displaced: bool = False) -> None:
        """Ask the client to leave."""
        self.leaving = self.leaving or reason
        if displaced and not self.displaced:
            self.displaced = True
            if self.on_displaced is not None:
                self.on_displaced()
        self.wake()

    async def wait_woken(self) -> None:
        """Wait for the next `wake`. Cancelling changes nothing."""
        await self._parked.park()

    def tell(self, payload: bytes) -> None:
        """Send a message that only matters now: it has no number, and is nobody else's if this client goes."""
        del self.live[: max(0, len(self.live) - LIVE_MESSAGES + 1)]
        self.live.append(payload)
        self.wake()

    def show(self, question: bytes, number: int) -> None:
        """Show an open question of the kernel, the message with this number, unless it is to come anyway.

        That is known only when this client's turn has come.
        """
        self._question = question, number

    def take_live(self) -> list[bytes]:
        """Return the live messages that are to be sent next."""
        live, self.live = self.live, []
        return [] if self.displaced else live

    def take_nowait(self) -> Batch | None:
        """Return what is to be sent next, or None. Once it went out, it has to be noted with `Delivery.give`.

        A client that was displaced gets nothing more; one that has to leave for another reason gets what is there
        first. To one that is behind by more than a batch, replies and questions go ahead of output. Not to one that
        goes by the numbers, which would be out of order, nor before all that was said while nobody was there.
        """
        if self.displaced or not self.is_behind:
            return None
        journal, delivery = self.deliveries.journal, self.delivery
        batch = journal.read(delivery.given, BATCH_BYTES, BATCH_MESSAGES)
        if delivery.given >= self._replayed and batch.next_position < journal.end and not self.is_numbered:
            urgent = journal.urgent_after(max(delivery.given, self._hurried))
            self._hurried = journal.end
            # Those in the batch as well, or later ones would overtake them; unless there are no others.
            if urgent and urgent[-1] >= batch.next_position:
                delivery.give_ahead(urgent)
                payloads = [payload for number in urgent for payload in journal.read(number, 0, 1).payloads]
                if delivery.own is not None:
                    self._find_own(delivery.own, urgent, payloads)
                return Batch(payloads, delivery.given, 0, is_ahead=True)
        if delivery.left_out:
            first, left_out = batch.next_position - len(batch.payloads), delivery.left_out
            payloads = [b"" if first + at in left_out else each for at, each in enumerate(batch.payloads)]
            batch = batch._replace(payloads=payloads)
        if delivery.own is not None:
            numbers = range(batch.next_position - len(batch.payloads), batch.next_position)
            self._find_own(delivery.own, numbers, batch.payloads)
        return batch

    def _find_own(self, own: set[int], numbers: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Add to a visitor's own numbers those of the messages that are meant for it, of those that go to it."""
        for number, payload in zip(numbers, payloads, strict=True):
            is_own = belongs_to(payload, self._requests)
            self._is_answered = self._is_answered or is_own is True
            if is_own or (is_own is None and self._is_answered):
                own.add(number)

    def note_pace(self, *, keeps_up: bool) -> None:
        """Note whether the client takes what it is sent, or stands still: for it, more may wait in memory."""
        self.deliveries.note_pace(self.delivery, keeps_up=keeps_up)

    async def wait_turn(self) -> None:
        """Wait until the client that this one displaced has been sent its last message."""
        if self.older is not None:
            await self.older.finished.wait()
            self.older = None
            if not self.is_numbered:
                self.deliveries.begin_again(self.delivery)
        if self._question is not None:
            question, number = self._question
            if not self.delivery.is_to_come(number):
                self.tell(question)


@attrs.define(eq=False)
class Audience:
    """All clients of one session.

    Args:
        journal: What the session has to say.
        keeps_told: Whether what a caller in this process got is kept for clients all the same.
    """

    journal: Journal
    keeps_told: bool = False
    deliveries: Deliveries = attrs.field(init=False)
    """What they were given, and what is kept for whom."""
    _slots: list[ClientSlot] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.deliveries = Deliveries(self.journal, self.keeps_told)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def socket_path(self) -> str | None:
        """The socket that the client came through who took the session over last; of those who share, the first's."""
        return next((slot.wish.socket_path for slot in self._slots), None)

    def attach(self, wish: Wish) -> ClientSlot:
        """Make room for a client. One that takes over displaces the one that had; others stay."""
        older = None
        if wish.attendance is Attendance.TAKE_OVER:
            exclusive = (slot for slot in self._slots if slot.wish.attendance is Attendance.TAKE_OVER)
            older = next(exclusive, None)
        if older is not None:
            self._slots.remove(older)
            by = f": {wish.name}" if wish.name else ""
            older.leave(f"Another client connected to this session{by}", displaced=True)
        slot = ClientSlot(self.deliveries, wish, older)
        self._slots.insert(0 if wish.attendance is Attendance.TAKE_OVER else len(self._slots), slot)
        return slot

    def detach(self, slot: ClientSlot) -> bool:
        """Note that a client is gone: what it does not have is the next one's. True if it was not displaced before."""
        self.deliveries.end(slot.delivery, slot.ending)
        if slot.on_settled is not None:
            slot.on_settled(slot.delivery)
        slot.finished.set()
        if slot not in self._slots:
            return False
        self._slots.remove(slot)
        return True

    def told_to_caller(self, numbers: Iterable[range]) -> Shift:
        """Let go of what a caller in this process got, if no client may come for it; see `Deliveries`."""
        return self.deliveries.told_to_caller(numbers)

    # What everybody is told

    def wake(self) -> None:
        """Let every client look again: the journal grew."""
        for slot in self._slots:
            slot.wake()

    def tell(self, payload: bytes) -> None:
        """Send every client a message that only matters now."""
        for slot in self._slots:
            slot.tell(payload)

    def leave(self, reason: str) -> None:
        """Ask every client to leave."""
        for slot in self._slots:
            slot.leave(reason)
