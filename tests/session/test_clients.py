"""The audience of a session: what was sent to whom, and what of it has to stay for whom."""

from __future__ import annotations

from kallichore.conversation.journal import Journal
from kallichore.session.clients import Attendance, Audience, ClientSlot, Wish
from kallichore.session.overflow_file import OverflowFile


def make_audience(messages: int) -> Audience:
    """Return the audience of a session that has said so many messages, and whose journal keeps nothing for long."""
    audience = Audience(Journal(1 << 20, 0, OverflowFile()))
    audience.journal.extend([b"%d" % number for number in range(messages)])
    return audience


def send_all(slot: ClientSlot) -> None:
    """Send a client what there is."""
    while (batch := slot.take_nowait()) is not None:
        slot.delivered(batch.next_position)


def test_what_was_sent_stays_until_it_is_confirmed() -> None:
    """A client that was sent a message may not have it yet."""
    audience = make_audience(3)
    slot = audience.attach(Wish())
    send_all(slot)
    sent = audience.journal.first
    slot.confirm(2)

    assert (0, 2) == (sent, audience.journal.first)


def test_last_client_to_confirm_decides_what_stays() -> None:
    """Each may lose its connection and ask for the rest again."""
    audience = make_audience(3)
    first, second = (audience.attach(Wish(attendance)) for attendance in (Attendance.SHARE, Attendance.WATCH))
    for slot in (first, second):
        send_all(slot)
    first.confirm(3)
    with_second = audience.journal.first
    audience.detach(second)

    assert (0, 3) == (with_second, audience.journal.first)


def test_what_a_displaced_client_did_not_confirm_stays_for_the_newer_one() -> None:
    """Whatever others confirm meanwhile: it may turn out that it never arrived."""
    audience = make_audience(3)
    sharing = audience.attach(Wish(Attendance.SHARE))
    older = audience.attach(Wish())
    for slot in (sharing, older):
        send_all(slot)
    older.confirm(1)
    newer = audience.attach(Wish())
    sharing.confirm(3)
    older.delivered(older.confirmed)
    audience.detach(older)

    assert audience.journal.first == 1
    assert newer.older is older


def test_what_was_confirmed_and_turns_out_not_to_be_is_not_let_go_twice() -> None:
    """Taking back what was sent takes back what was confirmed, as far as it is still there."""
    audience = make_audience(3)
    slot = audience.attach(Wish())
    send_all(slot)
    slot.confirm(2)
    slot.delivered(1)

    assert (1, 1, 2) == (slot.position, slot.confirmed, audience.journal.first)
