"""What goes out to a client: what arrived whole is delivered, and no more, wherever the connection breaks."""

from __future__ import annotations

from hypothesis import given, strategies as st

from kallichore.attach.frames import PING, TEXT
from kallichore.attach.outgoing import Outgoing
from kallichore.conversation.journal import Journal
from kallichore.session.clients import Audience, Wish
from kallichore.session.overflow_file import OverflowFile
from returning_client import whole_frames

sizes = st.lists(st.integers(1, 300) | st.sampled_from([65535, 65536, 1 << 18, 300_000]), min_size=1, max_size=40)


def make_outgoing(payloads: list[bytes], wish: Wish | None = None) -> Outgoing:
    """Return what goes out to a new client of a session that has said this."""
    audience = Audience(Journal(1 << 30, 0, OverflowFile(), 1 << 30))
    audience.journal.extend(payloads)
    return Outgoing(audience.attach(wish or Wish()))


def send(outgoing: Outgoing, most: int) -> bytes:
    """Let at most so many bytes go out, as a socket would, and return them."""
    sent = b""
    while len(sent) < most and (outgoing.pieces or outgoing.take_next()):
        piece = bytes(outgoing.pieces[0][: most - len(sent)])
        outgoing.went_out(len(piece))
        sent += piece
        if not outgoing.pieces:
            outgoing.settle()
    outgoing.settle()
    return sent


def messages_in(data: bytes) -> list[bytes]:
    """Return the messages that came whole."""
    return [payload for opcode, payload, _ in whole_frames(data) if opcode == TEXT]


@given(sizes, st.data())
def test_what_went_out_whole_is_delivered_wherever_it_broke(lengths: list[int], data: st.DataObject) -> None:
    """The frame in which the connection broke is the next client's, and what came before it is not."""
    payloads = [bytes([32 + number]) * length for number, length in enumerate(lengths)]
    outgoing = make_outgoing(payloads)
    sent = send(outgoing, data.draw(st.integers(0, sum(lengths) + 100)))

    assert payloads[: outgoing.slot.position] == messages_in(sent)
    assert outgoing.sent == len(sent)


@given(sizes, st.data())
def test_what_was_not_acknowledged_is_taken_back(lengths: list[int], data: st.DataObject) -> None:
    """Of a client that answers no pings, what its machine has is all that is known. That is delivered, but for a
    message or so, as the pings among the messages are not counted.
    """
    payloads = [bytes([32 + number]) * length for number, length in enumerate(lengths)]
    outgoing = make_outgoing(payloads)
    sent = send(outgoing, data.draw(st.integers(0, sum(lengths) + 1000)))
    unacknowledged = data.draw(st.integers(0, len(sent)))
    outgoing.take_back(unacknowledged)

    acknowledged = len(sent) - unacknowledged
    pings = sum(opcode == PING for opcode, _, _ in whole_frames(sent)) + 1
    at_least, at_most = (len(messages_in(sent[: max(0, end)])) for end in (acknowledged - 10 * pings, acknowledged))

    assert at_least <= outgoing.slot.position <= at_most


@given(sizes, st.data())
def test_what_followed_the_last_answered_ping_is_taken_back(lengths: list[int], data: st.DataObject) -> None:
    """A client that answers pings has what went before them, whatever its machine says."""
    payloads = [bytes([32 + number]) * length for number, length in enumerate(lengths)]
    outgoing = make_outgoing(payloads)
    outgoing.wants_ping = True
    sent = send(outgoing, data.draw(st.integers(10, sum(lengths) + 1000)))
    frames = list(whole_frames(sent))
    pings = [index for index, (opcode, _, _) in enumerate(frames) if opcode == PING]
    answered = data.draw(st.sampled_from(pings))
    outgoing.take_pong(frames[answered][1])
    outgoing.take_back(data.draw(st.integers(0, len(sent))))

    assert outgoing.slot.position == sum(opcode == TEXT for opcode, _, _ in frames[:answered])


def test_numbers_are_the_messages_last_member() -> None:
    """They count from 1, wherever a client begins."""
    outgoing = make_outgoing([b'{"a":1}', b'{"b":2}', b'{"c":3}'], Wish(since=1))

    assert [b'{"b":2,"seq":2}', b'{"c":3,"seq":3}'] == messages_in(send(outgoing, 1000))


def test_what_was_dropped_is_told_before_what_follows() -> None:
    """An honest gap stands where it is."""
    audience = Audience(Journal(10, 0, OverflowFile()))
    audience.journal.extend([b"12345", b"67890", b"abcde"])

    assert [b'{"kind":"kernel","messagesLost":1}', b"67890", b"abcde"] == messages_in(
        send(Outgoing(audience.attach(Wish())), 1000)
    )
