"""Pings among messages: often for who has just come, rarely for who is there for long, and what an answer confirms."""

from __future__ import annotations

from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given, strategies as st

from kallichore.attach.frames import PING, control_frame
from kallichore.attach.pings import MOST, MOST_BYTES, NUMBERED, Pings


def send(pings: Pings, first: int, count: int) -> list[int]:
    """Send so many messages as a writer does; return in front of which a ping stood."""
    stood = []
    for number in range(first, first + count):
        if not pings.room(number):
            pings.make(number)
            stood.append(number)
        pings.unpinged += 1
    return stood


def test_first_messages_are_each_followed_by_a_ping_and_later_ones_by_few() -> None:
    """The distance grows with what was sent, up to a bound, wherever the client began."""
    pings = Pings(is_numbered=False)
    pings.began = 1000
    stood = send(pings, 1000, 2000)
    distances = [after - before for before, after in pairwise(stood)]

    assert list(range(1001, 1016)) == stood[:15]
    assert distances == sorted(distances)
    assert distances[-1] == MOST


def test_client_that_goes_by_the_numbers_is_pinged_rarely() -> None:
    """It says itself what it has."""
    assert [NUMBERED, 2 * NUMBERED] == send(Pings(is_numbered=True), 0, 3 * NUMBERED)


@pytest.mark.parametrize("is_numbered", [False, True])
def test_ping_is_due_behind_much_however_few_messages_it_is(is_numbered: bool) -> None:
    """A large message is kept until it is confirmed, so it is asked for at once."""
    pings = Pings(is_numbered)
    pings.unpinged = 1
    pings.unpinged_bytes = MOST_BYTES - 1
    assert pings.room(1000)
    pings.unpinged_bytes += 1
    assert not pings.room(1000)
    pings.make(1000)
    assert pings.room(1000)


def test_answer_confirms_all_that_went_before() -> None:
    """An answer stands for the earlier ones too (RFC 6455, section 5.5.3)."""
    pings = Pings(is_numbered=False)
    frames = [pings.make(behind) for behind in (5, 7, 7, 9)]

    assert control_frame(PING, pack("!Q", 1)) == frames[0]
    assert not pings.are_answered
    assert [7, 9] == [pings.answer(pack("!Q", number)) for number in (3, 4)]
    assert pings.are_answered
    assert not pings.is_behind


@pytest.mark.parametrize("payload", [b"", b"odd", bytes(8), pack("!Q", 3), bytes(9)])
def test_answer_to_nothing_confirms_nothing(payload: bytes) -> None:
    """Pongs that nobody asked for are allowed, and no news."""
    pings = Pings(is_numbered=False)
    pings.make(4)
    pings.make(6)

    assert pings.answer(payload) is None
    assert not pings.are_answered


@given(st.lists(st.integers(1, 50), max_size=20), st.data())
def test_confirmed_is_never_more_than_went_before_an_answered_ping(steps: list[int], data: st.DataObject) -> None:
    """Whatever is sent and answered in which order, only what a client has read counts, and it only grows."""
    pings, sent, position, confirmed = Pings(is_numbered=False), [0], 0, 0
    for step in steps:
        position += step
        pings.make(position)
        sent.append(position)
        number = data.draw(st.integers(0, len(sent) - 1))
        news = pings.answer(pack("!Q", number))

        assert news is None or (news == sent[number] and news >= confirmed)
        confirmed = news or confirmed
