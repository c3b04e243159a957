"""What goes out to a client: what arrived whole is delivered, and no more, wherever the connection breaks."""

from __future__ import annotations

from math import inf

from hypothesis import given, strategies as st

from kallichore.attach.dialect import KallichoreDialect
from kallichore.attach.frames import PING, TEXT
from kallichore.attach.outgoing import Outgoing
from kallichore.attach.pings import QUIET, Pings
from kallichore.conversation.delivery import Ending
from kallichore.conversation.journal import Journal
from kallichore.session.clients import Audience, ClientSlot, Wish
from kallichore.session.overflow_file import OverflowFile
from returning_client import whole_frames

sizes = st.lists(st.integers(1, 300) | st.sampled_from([65535, 65536, 1 << 18, 300_000]), min_size=1, max_size=40)


def make_outgoing(payloads: list[bytes], wish: Wish | None = None, journal: Journal | None = None) -> Outgoing:
    """Return what goes out to a new client of a session that has said this."""
    audience = Audience(journal or Journal(1 << 30, 0, OverflowFile(), 1 << 30))
    audience.journal.extend(payloads)
    slot = audience.attach(wish or Wish())
    pings = Pings(slot.deliveries, slot.delivery, slot.is_numbered, 20, 3, inf)
    return Outgoing(slot, pings, KallichoreDialect(slot.is_numbered))


def send(outgoing: Outgoing, most: int, now: float = 0) -> bytes:
    """Let at most so many bytes go out, as a socket would, and return them."""
    sent = b""
    while len(sent) < most and (outgoing.pieces or outgoing.take_next(now)):
        piece = bytes(outgoing.pieces[0][: most - len(sent)])
        outgoing.went_out(len(piece))
        sent += piece
        if not outgoing.pieces:
            outgoing.settle(now)
    outgoing.settle(now)
    return sent


def messages_in(data: bytes) -> list[bytes]:
    """Return the messages that came whole."""
    return [payload for opcode, payload, _ in whole_frames(data) if opcode == TEXT]


@given(sizes, st.data())
def test_what_went_out_whole_is_given_wherever_it_broke(lengths: list[int], data: st.DataObject) -> None:
    """The frame in which the connection broke is not, nor what comes behind it."""
    payloads = [bytes([32 + number]) * length for number, length in enumerate(lengths)]
    outgoing = make_outgoing(payloads)
    sent = send(outgoing, data.draw(st.integers(0, sum(lengths) + 100)))

    assert payloads[: outgoing.slot.delivery.given] == messages_in(sent)


@given(sizes, st.data())
def test_answered_ping_confirms_what_went_before_it(lengths: list[int], data: st.DataObject) -> None:
    """Wherever it stands, and whatever went out behind it."""
    payloads = [bytes([32 + number]) * length for number, length in enumerate(lengths)]
    outgoing = make_outgoing(payloads)
    outgoing.pings.is_wanted = True
    frames = list(whole_frames(send(outgoing, data.draw(st.integers(10, sum(lengths) + 1000)))))
    pings = [index for index, (opcode, _, _) in enumerate(frames) if opcode == PING]
    answered = data.draw(st.sampled_from(pings))
    outgoing.pings.answer(frames[answered][1])

    assert outgoing.slot.delivery.confirmed == sum(opcode == TEXT for opcode, _, _ in frames[:answered])


def kinds_in(data: bytes) -> str:
    """Return a letter for each frame: m for a message, p for a ping."""
    return "".join("p" if opcode == PING else "m" for opcode, _, _ in whole_frames(data))


def test_pings_stand_among_messages_and_none_at_their_end() -> None:
    """However many there are: who has what it wanted closes at once."""
    outgoing = make_outgoing([b"x"] * 30)
    first = kinds_in(send(outgoing, 1000, now=1))
    outgoing.pings.answer(b"\0" * 7 + b"\1")
    at_end = kinds_in(send(make_outgoing([b"x"] * 24), 1000))

    assert "m" * 12 + "p" + "m" * 12 + "p" + "m" * 6 == first
    assert "m" * 12 + "p" + "m" * 12 == at_end


def test_ping_goes_in_front_of_the_next_messages_when_it_is_time() -> None:
    """Not alone, where there are none; and once for all that it follows."""
    outgoing = make_outgoing([b"x"] * 2)
    journal = outgoing.slot.journal
    sent = [kinds_in(send(outgoing, 1000, now)) for now in (1, 2)]
    for now in (3, 4):
        journal.extend([b"x"])
        sent.append(kinds_in(send(outgoing, 1000, now)))
    outgoing.pings.answer(b"\0" * 7 + b"\1")
    confirmed = outgoing.slot.delivery.confirmed

    assert ["mm", "", "pm", "m"] == sent
    assert (2, 4) == (confirmed, outgoing.slot.delivery.given)


def test_ping_that_is_wanted_goes_alone() -> None:
    """Where there is nothing else; and when something went out is noted, once it has."""
    outgoing = make_outgoing([b"x"] * 2)
    assert outgoing.take_next(1)
    on_its_way = outgoing.pings.sent_at, outgoing.pings.unpinged_bytes
    sent = send(outgoing, 1000, 5)
    quiet_at = outgoing.pings.quiet_at
    outgoing.pings.is_wanted = True

    assert on_its_way == (inf, len(sent))
    assert quiet_at == 5 + QUIET
    assert "p" == kinds_in(send(outgoing, 1000, 5))
    assert not outgoing.take_next(5)


def test_numbers_are_the_messages_last_member() -> None:
    """They count from 1, wherever a client begins."""
    outgoing = make_outgoing([b'{"a":1}', b'{"b":2}', b'{"c":3}'], Wish(since=1))

    assert [b'{"b":2,"seq":2}', b'{"c":3,"seq":3}'] == messages_in(send(outgoing, 1000))


def test_what_was_dropped_is_told_before_what_follows() -> None:
    """An honest gap stands where it is."""
    outgoing = make_outgoing([b"12345", b"67890", b"abcde"], journal=Journal(10, 0, OverflowFile(), 0))

    assert [b'{"kind":"kernel","messagesLost":1}', b"67890", b"abcde"] == messages_in(send(outgoing, 1000))


def test_what_went_ahead_of_its_turn_is_not_given_by_that() -> None:
    """What its turn has not come for is still to be given, and it is not sent again then."""
    outgoing = make_outgoing([])
    journal = outgoing.slot.journal
    journal.extend([b"o%d" % number for number in range(2000)])
    journal.extend([b"reply"], urgent=True)
    assert outgoing.take_next(0)
    ahead = b"".join(outgoing.pieces)
    outgoing.went_out(len(ahead))
    outgoing.settle(0)
    given = outgoing.slot.delivery.given
    rest = messages_in(send(outgoing, 1 << 20))

    assert [b"reply"] == messages_in(ahead)
    assert given == 0
    assert [b"o%d" % number for number in range(2000)] == rest
    assert outgoing.slot.delivery.given == 2001


def test_messages_before_a_break_are_given_whatever_byte_it_comes_at() -> None:
    """In the middle of heads, payloads and pings; and in a second batch, whose pings stand elsewhere."""
    payloads = [b"%02d" % number for number in range(60)]
    everything = send(make_outgoing(payloads), 1000)
    broken = []
    for at in range(len(everything) + 1):
        outgoing = make_outgoing(payloads[:30])
        sent = send(outgoing, at)
        if at > len(sent) or not outgoing.unsent:
            outgoing.slot.journal.extend(payloads[30:])
            sent += send(outgoing, at - len(sent))
        broken.append((outgoing.slot.delivery.given, len(messages_in(sent))))

    assert [here for _, here in broken] == [given for given, _ in broken]
    assert (60, 60) == broken[-1]


def test_break_before_the_first_message_gives_none() -> None:
    """What stands in front of a batch is a ping, or what matters only now."""
    outgoing = make_outgoing([b"first"])
    send(outgoing, 1000)
    outgoing.slot.tell(b"now")
    outgoing.slot.journal.extend([b"second"])
    sent = send(outgoing, 3)

    assert [] == messages_in(sent)
    assert 1 == outgoing.slot.delivery.given


def test_what_matters_now_goes_in_front() -> None:
    """It has no number, and goes once."""
    outgoing = make_outgoing([b"1"])
    outgoing.slot.tell(b"now")

    assert [b"now", b"1"] == messages_in(send(outgoing, 1000))
    assert [] == messages_in(send(outgoing, 1000))


def test_pings_are_the_further_apart_the_more_was_given() -> None:
    """By an eighth of it; one that begins with a later message is as new as one that begins with the first."""
    early = make_outgoing([b"x"] * 300)
    deliveries = early.slot.deliveries
    sent = send(early, 5000)
    gaps = [len(run) for run in kinds_in(sent).split("p")]
    early.pings.answer([payload for opcode, payload, _ in whole_frames(sent) if opcode == PING][-1])
    early.slot.ending = Ending.CLOSED
    deliveries.end(early.slot.delivery, early.slot.ending)
    deliveries.journal.extend([b"x"] * 100)
    slot = ClientSlot(deliveries, Wish(), None)
    pings = Pings(deliveries, slot.delivery, is_numbered=False, interval=20, allowance=3, regular_at=inf)
    late = Outgoing(slot, pings, KallichoreDialect(False))

    assert [*[12] * 8, 13, 15, 17, 20, 22, 26, 29, 33, 29] == gaps
    assert [*[12] * 8, 4] == [len(run) for run in kinds_in(send(late, 5000)).split("p")]


def test_pings_confirm_in_a_second_batch_what_stands_before_them() -> None:
    """Their numbers go on from the first batch's."""
    outgoing = make_outgoing([b"x"] * 30)
    send(outgoing, 1000)
    outgoing.slot.journal.extend([b"y"] * 30)
    frames = list(whole_frames(send(outgoing, 1000)))
    first = next(index for index, (opcode, _, _) in enumerate(frames) if opcode == PING)
    outgoing.pings.answer(frames[first][1])

    assert 30 + first == outgoing.slot.delivery.confirmed
