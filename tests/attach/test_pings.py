"""Pings to a client: among many messages, in front of the next ones, alone when it is quiet, and regularly."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from struct import pack
from typing import Any

import pytest

from kallichore.attach.frames import PING, control_frame
from kallichore.attach.pings import MOST, MOST_BYTES, NUMBERED, PAUSE, QUIET, Pings
from kallichore.conversation.delivery import FIRST_DISTANCE, Deliveries
from kallichore.conversation.journal import Journal
from kallichore.session.overflow_file import OverflowFile

INTERVAL = 20.0
ALLOWANCE = 2


def make_pings(count: int = 0, began: int = 0, **members: Any) -> Pings:
    """Return the pings to a new client of a session that has said so many messages, at the time 100."""
    deliveries = Deliveries(Journal(1 << 20, 0, OverflowFile(), 0))
    deliveries.journal.extend([b"x"] * count)
    deliveries.owed = began
    values = {"is_numbered": False, "interval": INTERVAL, "allowance": ALLOWANCE, "regular_at": 100 + INTERVAL}
    return Pings(deliveries, deliveries.begin(), **{**values, **members})


def pong(number: int) -> bytes:
    """Return the payload of the answer to a ping."""
    return pack("!Q", number)


def send(pings: Pings, first: int, count: int) -> list[int]:
    """Send so many messages as a writer does; return in front of which a ping stood."""
    stood = []
    for number in range(first, first + count):
        if not pings.room(number):
            pings.make(number, 0)
            stood.append(number)
        pings.unpinged += 1
    return stood


def test_distance_grows_with_what_a_client_was_given() -> None:
    """From a few messages up to a bound, wherever the client began."""
    stood = send(make_pings(2000, 1000), 1000, 2000)
    distances = [after - before for before, after in pairwise([1000, *stood])]

    assert [FIRST_DISTANCE] * 8 == distances[:8]
    assert distances == sorted(distances)
    assert FIRST_DISTANCE < distances[15] < MOST == distances[-1]


def test_there_are_at_most_two_pings_among_twenty_messages() -> None:
    """More frames than messages help nobody."""
    assert 1 <= len(send(make_pings(), 0, 20)) <= 2


def test_client_that_is_to_be_pinged_sooner_is() -> None:
    """The first distance is what the session has seen fit."""
    pings = make_pings()
    pings.delivery.distance = 3

    assert [3, 6, 9] == send(pings, 0, 10)


def test_client_that_goes_by_the_numbers_is_pinged_rarely() -> None:
    """It says itself what it has."""
    assert [NUMBERED, 2 * NUMBERED] == send(make_pings(is_numbered=True), 0, 3 * NUMBERED)


@pytest.mark.parametrize("is_numbered", [False, True])
def test_ping_is_due_behind_much_however_few_messages_it_is(is_numbered: bool) -> None:
    """A large message is kept until it is confirmed, so it is asked for at once."""
    pings = make_pings(1000, is_numbered=is_numbered)
    pings.unpinged = 1
    pings.unpinged_bytes = MOST_BYTES - 1
    before = pings.room(1000)
    pings.unpinged_bytes += 1
    due = pings.room(1000)
    pings.make(1000, 0)

    assert ((NUMBERED if is_numbered else MOST) - 1, 0) == (before, due)
    assert (NUMBERED if is_numbered else MOST) == pings.room(1000)


def test_room_is_never_negative() -> None:
    """Where a batch grew beyond the distance, a ping is due, and no more than that."""
    pings = make_pings()
    pings.unpinged = FIRST_DISTANCE + 5

    assert pings.room(0) == 0


def test_pings_are_frames_with_numbers() -> None:
    """Each has its own, by which the answer is known."""
    pings = make_pings()

    assert [control_frame(PING, pong(number)) for number in (1, 2)] == [pings.make(5, 0), pings.make(5, 0)]


def test_answer_confirms_what_went_before() -> None:
    """It is taken to the deliveries of the session."""
    pings = make_pings(9)
    pings.make(5, 0)
    pings.make(7, 0)
    pings.answer(pong(1))

    assert (5, 5) == (pings.delivery.confirmed, pings.deliveries.owed)


@pytest.mark.parametrize("payload", [b"", b"odd", bytes(8), pong(3), bytes(9), bytes(7)])
def test_answer_to_nothing_confirms_nothing(payload: bytes) -> None:
    """Pongs that nobody asked for are allowed, and no sign of life."""
    pings = make_pings(9)
    pings.make(4, 0)
    pings.make(6, 0)
    for _ in range(ALLOWANCE + 2):
        pings.answer(payload)
        pings.tick(pings.regular_at)

    assert pings.delivery.confirmed == 0
    assert pings.is_given_up


# Alone, when it is quiet


def test_ping_goes_alone_when_nothing_followed_for_a_moment() -> None:
    """Not before, as who has what it wanted closes at once; and there is one for all that is new."""
    pings = make_pings(9)
    pings.unpinged = 2
    pings.sent_at = 100.0
    times = [pings.quiet_at, pings.next_at]
    pings.tick(100 + QUIET / 2)
    early = pings.is_wanted
    pings.tick(100 + QUIET)
    wanted = pings.is_wanted, pings.quiet_at
    pings.make(2, 100 + QUIET)

    assert [100 + QUIET] * 2 == times
    assert not early
    assert wanted == (True, inf)
    assert not pings.is_wanted
    assert (0, 0) == (pings.unpinged, pings.unpinged_bytes)
    assert (inf, 100 + INTERVAL) == (pings.quiet_at, pings.next_at)


def test_ping_does_not_go_alone_where_nothing_is_new() -> None:
    """A client that has confirmed all is left in peace."""
    pings = make_pings()
    pings.sent_at = 100.0

    assert (inf, 100 + INTERVAL) == (pings.quiet_at, pings.next_at)


def test_one_ping_is_under_way_at_a_time() -> None:
    """The next waits for the answer, and then goes without another wait if it is quiet."""
    pings = make_pings(9)
    pings.make(3, 100)
    pings.unpinged = 1
    pings.sent_at = 100.0
    waiting = pings.quiet_at, pings.is_due(200)
    pings.answer(pong(1))

    assert waiting == (inf, False)
    assert (100 + QUIET, True) == (pings.quiet_at, pings.is_due(200))


def test_nothing_goes_alone_while_something_is_on_its_way() -> None:
    """It would come together with that."""
    pings = make_pings()
    pings.unpinged = 1
    pings.sent_at = inf

    assert pings.quiet_at == inf


# In front of the next messages


def test_ping_goes_in_front_of_messages_that_follow_others() -> None:
    """If the one before was answered, and not more often than the pause allows."""
    pings = make_pings()
    nothing_new = pings.is_due(1000)
    pings.unpinged = 1
    first = pings.is_due(0)
    pings.make(1, 100)
    pings.answer(pong(1))
    pings.unpinged = 1

    assert (nothing_new, first) == (False, True)
    assert [False, True] == [pings.is_due(now) for now in (100 + PAUSE / 2, 100 + PAUSE)]


# Regularly


def test_regular_ping_goes_each_interval() -> None:
    """Whatever there is to send, or not; at the ticks that all clients share, however late one was."""
    pings = make_pings()
    pings.tick(100 + INTERVAL - 1)
    early = pings.is_wanted
    pings.tick(100 + INTERVAL + 1)

    assert (early, pings.is_wanted) == (False, True)
    assert pings.next_at == 100 + 2 * INTERVAL


def test_client_is_given_up_that_leaves_more_pings_unanswered_than_allowed() -> None:
    """Counted by the regular ones; what answers in between begins the count anew."""
    pings = make_pings()
    given_up = []
    for tick in range(2 * ALLOWANCE + 5):
        pings.tick(pings.regular_at)
        pings.make(0, 0)
        if tick == ALLOWANCE:
            pings.answer(pong(1))
        given_up.append((pings.is_given_up, pings.unanswered))

    assert [(False, 0), (False, 1), (False, 2), (False, 0), (False, 1), (False, 2), (True, 3)] == given_up[:7]


def test_ping_that_goes_alone_is_no_regular_one() -> None:
    """A client that answers late is not given up for many messages."""
    pings = make_pings()
    for now in range(20):
        pings.unpinged, pings.sent_at = 1, 0.0
        pings.tick(now)
        pings.make(0, now)
        pings.delivery._open.clear()

    assert not pings.is_given_up
    assert pings.unanswered == 0
