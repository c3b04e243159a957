"""What each client of a session was given, what it is known to have, and what is owed to the next. [pure]

What went out to a client may never reach it: its machine takes what the client does not live to read. WebSocket has an
answer that comes from the client itself, when it has read up to there: the pong (RFC 6455, section 5.5.3). So a message
is *given* when it went out whole, and *confirmed* when a ping that followed it was answered. Nothing else confirms, but
for a client that closes in order; `OWED` is the table of that. Who comes next begins behind what is confirmed.

So nothing is lost. What comes twice is what no answered ping followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import Enum, auto

import attrs
import msgspec

from kallichore.conversation.journal import Journal, Shift
from kallichore.conversation.runs import Runs, numbers_in, runs_of

FIRST_DISTANCE = 12
"""Messages between two pings to a client that has just come: so many may come twice if it is cut, and among twenty that
wait for it there is one ping."""

UNDER_WAY = 64 << 20
"""Bytes beyond the journal's memory that may wait there for a client that takes them as they come. Images and tables of
10 MB in a row would otherwise go through the journal's file, which takes longer than all else."""

MOST_OPEN = 4096
"""Pings that are remembered until they are answered; the buffers of a connection hold fewer."""


class Ending(Enum):
    """How a client's connection ended."""

    CLOSED = auto()
    """In order: its close frame came."""
    CUT = auto()
    """Any other way: a reset, an end without a word, a client that was let go or did not answer our close frame."""


class Owed(Enum):
    """From where on messages are the next client's."""

    WHAT_IT_WAS_NOT_GIVEN = auto()
    WHAT_FOLLOWED_AN_EXIT = auto()
    """All behind the latest exit of a kernel that it was told; or behind what it confirmed, if that is more."""
    WHAT_IT_DID_NOT_CONFIRM = auto()


OWED: dict[tuple[Ending, bool], Owed] = {
    # It had time to read what it was given, or came to the end of it just now. Who has what it wanted closes at once.
    (Ending.CLOSED, False): Owed.WHAT_IT_WAS_NOT_GIVEN,
    # It closed in the middle, as a window that is loaded anew does. Yet the exit of a kernel is what clients close for;
    # they answer nothing behind it, and would be told of it each time that they come.
    (Ending.CLOSED, True): Owed.WHAT_FOLLOWED_AN_EXIT,
    (Ending.CUT, False): Owed.WHAT_IT_DID_NOT_CONFIRM,
    (Ending.CUT, True): Owed.WHAT_IT_DID_NOT_CONFIRM,
}
"""What is owed by how the connection ended, and whether a ping was unanswered then that messages had followed."""


@attrs.define(eq=False)
class Delivery:
    """What one client was given and has. Made by `Deliveries.begin`.

    Messages are told by their numbers in the journal, and ranges of them by the number behind.

    Args:
        speaks: Whether it may speak to the kernel. What was delivered to one that only watches is owed all the same.
        own: Of one that only visits, the numbers of what was meant for it; all else is owed all the same. None for
            others.
        began: The number of the first message for it.
        left_out: The numbers of messages that it is not given when their turn comes.
        distance: How many messages it is to be given before the first ping.
    """

    speaks: bool
    began: int
    left_out: set[int]
    distance: int
    own: set[int] | None = None
    keeps_up: bool = attrs.field(default=False, init=False)
    """Whether it takes what it is sent without standing still."""
    given: int = attrs.field(init=False)
    """What is before this number went out whole, and the message with this number is the next."""
    confirmed: int = attrs.field(init=False)
    """It has what is before this number."""
    _pings: int = attrs.field(default=0, init=False)
    """How many there were, which is the number of the latest."""
    _answered: int = attrs.field(default=0, init=False)
    """The number of the latest ping that was answered."""
    _open: deque[tuple[int, int]] = attrs.field(factory=lambda: deque(maxlen=MOST_OPEN), init=False)
    """Of the pings that were not answered yet, their numbers and those of the messages that followed them."""
    _ahead: dict[int, int] = attrs.field(factory=dict, init=False)
    """The numbers of messages that were given ahead of their turn, each with that of the ping that followed it."""

    def __attrs_post_init__(self) -> None:
        self.given = self.confirmed = self.began

    @property
    def is_open(self) -> bool:
        """Whether a ping is unanswered."""
        return bool(self._open)

    @property
    def is_midway(self) -> bool:
        """Whether messages followed a ping that is unanswered. One that went alone says nothing of who closes in order:
        it may have crossed the close, and who closes before it has been sent everything.
        """
        return bool(self._open) and self._open[0][1] != self.given

    def is_to_come(self, number: int) -> bool:
        """Whether the message with this number is still to be given, when its turn comes."""
        return number >= self.given and number not in self.left_out

    def give(self, behind: int) -> None:
        """Note that what is before number ``behind`` went out, or as much as was confirmed, if that is more."""
        self.given = max(behind, self.confirmed)

    def give_ahead(self, numbers: Collection[int]) -> None:
        """Note that messages are given ahead of their turn, and left out when that comes."""
        self._ahead.update(dict.fromkeys(numbers, self._pings + 1))
        self.left_out.update(numbers)

    def ping(self, behind: int) -> int:
        """Return the number of a ping that goes out behind the messages before number ``behind``."""
        self._pings += 1
        self._open.append((self._pings, behind))
        return self._pings

    def pong(self, number: int) -> bool:
        """Take an answer to a ping, which answers the earlier ones too; False if that is no news."""
        if not self._answered < number <= self._pings:
            return False
        self._answered = number
        while self._open and self._open[0][0] <= number:
            self.confirmed = self._open.popleft()[1]
        self.give(self.given)
        if self.left_out:
            self.left_out = {left_out for left_out in self.left_out if left_out >= self.confirmed}
        return True

    @property
    def had_ahead(self) -> set[int]:
        """The numbers of what was given ahead of its turn and confirmed."""
        return {number for number, ping in self._ahead.items() if ping <= self._answered}

    def end(self, ending: Ending, exits: Sequence[int]) -> None:
        """Settle what this client has: what is `confirmed` now, and no more will be.

        Args:
            ending: How the connection ended.
            exits: The numbers of the messages that tell of a kernel's exit.
        """
        match OWED[ending, self.is_midway]:
            case Owed.WHAT_IT_WAS_NOT_GIVEN:
                self.confirmed = self.given
            case Owed.WHAT_FOLLOWED_AN_EXIT:
                told = (number + 1 for number in exits if number < self.given and number not in self.left_out)
                self.confirmed = max((self.confirmed, *told))
            case Owed.WHAT_IT_DID_NOT_CONFIRM:
                pass


def _ignore() -> None:
    pass


class SavedDeliveries(msgspec.Struct, omit_defaults=True):
    """What is owed to the next client, as JSON."""

    owed: int = 0
    had: Runs = ()
    distance: int = FIRST_DISTANCE
    had_clients: bool = False


@attrs.define(eq=False)
class Deliveries:
    """What was delivered to the clients of one session, and what has to be kept for whom.

    Args:
        journal: What the session has to say; told to let go of what nobody will ask for.
        keeps_told: Whether what a caller in this process got is kept for clients all the same.
        on_change: Called when somebody has more than before.
    """

    journal: Journal
    keeps_told: bool = False
    on_change: Callable[[], None] = _ignore
    owed: int = attrs.field(default=0, init=False)
    """What is from this number on is the next client's: somebody who may speak has all before it."""
    changes: int = attrs.field(default=0, init=False)
    """How often it may have changed: who saves it need not look at all of it."""
    _here: list[Delivery] = attrs.field(factory=list, init=False)
    _had: set[int] = attrs.field(factory=set, init=False)
    """The numbers of messages that somebody has had ahead of their turn."""
    _distance: int = attrs.field(default=FIRST_DISTANCE, init=False)
    _had_clients: bool = attrs.field(default=False, init=False)
    """Whether there ever was one."""

    def begin(self, *, speaks: bool = True, visits: bool = False, since: int | None = None) -> Delivery:
        """Begin to deliver to a client.

        Args:
            speaks: Whether it may speak to the kernel.
            visits: Whether it comes for the answers to its own requests only.
            since: How many messages it says that it has; None to begin with what is owed, or for one that visits, with
                what comes.
        """
        if visits:
            here = self.journal.end
            began = here if since is None else since if since <= here else 0
            delivery = Delivery(speaks, began, set(), self._distance, own=set())
        elif since is None:
            delivery = Delivery(speaks, self.owed, self._left_out(), self._distance)
        else:
            # A number that was never given is another server's: everything is new to this client.
            delivery = Delivery(speaks, since if since <= self.journal.end else 0, set(), self._distance)
        self._here.append(delivery)
        self._had_clients = True
        self.changes += 1
        self._release()
        return delivery

    def begin_again(self, delivery: Delivery) -> None:
        """Let a client that was given nothing yet begin with what is owed now."""
        delivery.began = delivery.given = delivery.confirmed = self.owed
        delivery.left_out, delivery.distance = self._left_out(), self._distance
        self._release()

    def _left_out(self) -> set[int]:
        self._had = {number for number in self._had if number >= self.owed}
        return self._had.union(self.journal.old_exits)

    def pong(self, delivery: Delivery, number: int) -> bool:
        """Take a client's answer to a ping; False if it is no news."""
        if not delivery.pong(number):
            return False
        self._note(delivery)
        return True

    def end(self, delivery: Delivery, ending: Ending) -> None:
        """Settle what a client has whose connection ended: the rest is owed to the next."""
        was_confirmed = delivery.confirmed > delivery.began
        delivery.end(ending, self.journal.exits)
        if ending is Ending.CLOSED or was_confirmed:
            self._distance = FIRST_DISTANCE
        elif delivery.given > delivery.began:
            # Cut each time before it comes to the first ping, it would be given the same for ever.
            self._distance = max(1, self._distance // 2)
        self._here.remove(delivery)
        self._note(delivery)
        self._allow()

    def note_pace(self, delivery: Delivery, *, keeps_up: bool) -> None:
        """Note whether a client takes what it is sent, or stands still."""
        delivery.keeps_up = keeps_up
        self._allow()

    def _allow(self) -> None:
        allowance = UNDER_WAY if any(delivery.keeps_up for delivery in self._here) else 0
        if allowance != self.journal.allowance:
            self.journal.allow(allowance)

    @property
    def are_behind(self) -> bool:
        """Whether a client that takes what it is sent has yet to be given more than memory is meant for."""
        taking = [delivery.given for delivery in self._here if delivery.keeps_up]
        return bool(taking) and self.journal.bytes_from(min(taking)) > self.journal.memory_limit

    def told_to_caller(self, numbers: Iterable[range]) -> Shift:
        """Let go of what a caller in this process got, unless a client may come for it; return what numbers become.

        A client that was here may have seen the beginning, and numbers. Where there never was one, scripts use the
        session, and what they got would wait for nobody.

        Args:
            numbers: The numbers of the messages, in order.
        """
        if self._had_clients or self.keeps_told:
            return Shift(())
        return self.journal.take_back(numbers)

    def _note(self, delivery: Delivery) -> None:
        self.changes += 1
        if delivery.own is not None:
            self._note_visit(delivery, delivery.own)
        elif delivery.speaks:
            self.owed = max(self.owed, delivery.confirmed)
            self._had |= delivery.had_ahead
        self._release()
        self.on_change()

    def _note_visit(self, delivery: Delivery, own: set[int]) -> None:
        """Take what a visitor has had for itself out of what is owed. Where nobody else is here it is not kept."""
        had = sorted(number for number in own if number < delivery.confirmed or number in delivery.had_ahead)
        own.difference_update(had)
        self._had.update(had)
        while self.owed in self._had:
            self._had.discard(self.owed)
            self.owed += 1
        if all(other is delivery for other in self._here):
            self._had.difference_update(self.journal.empty(had))

    def _release(self) -> None:
        """Let go of what nobody will ask for: neither clients that are here, nor who comes next."""
        self.journal.release(min([self.owed, *(delivery.confirmed for delivery in self._here)]))

    # For another process

    def save(self) -> SavedDeliveries:
        """Return what would be owed if all who are here were cut now, for `load`: they end with this process."""
        owed = self.owed_if_cut
        had = sorted(number for number in self._had if number >= owed)
        return SavedDeliveries(owed, runs_of(had), self._distance, self._had_clients)

    @property
    def owed_if_cut(self) -> int:
        """What would be owed if all who are here were cut now."""
        # Who came with a number has what is before it, which counts when it goes.
        return max((self.owed, *(each.confirmed for each in self._here if each.speaks and each.own is None)))

    @property
    def has_more_than_owed(self) -> bool:
        """Whether more than that number says who has what: somebody had messages ahead of their turn."""
        return bool(self._had)

    def note_confirmed(self, number: int) -> None:
        """Take what is before a number as confirmed: another process knew it, behind `load`."""
        if number > self.owed:
            self.owed = self.journal.needed = number
            self.changes += 1

    def load(self, saved: SavedDeliveries) -> None:
        """Owe what was saved; the journal is to keep it when it is refilled."""
        self.owed, self._had = saved.owed, set(numbers_in(saved.had))
        self._distance, self._had_clients = saved.distance, saved.had_clients
        self.journal.needed = self.owed
        self.changes += 1
