"""What arrives from a client: the short way for usual frames gives what wsproto gives, whatever comes and however."""

from __future__ import annotations

from itertools import pairwise
from struct import pack

import pytest
from hypothesis import given, strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Event, TextMessage
from wsproto.utilities import ProtocolError

from kallichore.attach.incoming import Incoming, TooBig

FINAL, MASKED = 0x80, 0x80

masks = st.binary(min_size=4, max_size=4)


def frame(first: int, payload: bytes, mask: bytes) -> bytes:
    """Return a masked frame."""
    size = len(payload)
    if size < 126:
        head = bytes((first, MASKED | size))
    else:
        head = pack("!BBH", first, MASKED | 126, size) if size < 1 << 16 else pack("!BBQ", first, MASKED | 127, size)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


texts = st.text(max_size=200).map(str.encode) | st.sampled_from([125, 126, 127, 65535, 65536]).map(lambda n: b"x" * n)
usual = st.builds(frame, st.just(FINAL | 1), texts, masks) | st.builds(
    frame, st.sampled_from([FINAL | 9, FINAL | 10]), st.binary(max_size=125), masks
)
other = st.one_of(
    st.builds(frame, st.sampled_from([0, 1, 2, FINAL | 0, FINAL | 2, FINAL | 8, FINAL | 3, 0x40, 9]), texts, masks),
    st.builds(frame, st.just(FINAL | 1), st.binary(max_size=200), masks),
    st.builds(lambda payload: bytes((FINAL | 1, len(payload))) + payload, st.binary(max_size=125)),
    st.builds(lambda mask: pack("!BBH", FINAL | 1, MASKED | 126, 5) + mask + b"short", masks),
    st.binary(max_size=20),
)


def outcome(incoming: Incoming | Connection, pieces: list[bytes]) -> list[Event | TooBig | type[Exception]]:
    """Return the events that the pieces give, and what is raised in the end."""
    events: list[Event | TooBig | type[Exception]] = []
    receive = incoming.receive if isinstance(incoming, Incoming) else incoming.receive_data
    for piece in pieces:
        try:
            receive(piece)
            events += incoming.events()
        except ProtocolError as error:
            events.append(type(error))
            break
    return events


@given(
    st.lists(st.one_of(usual, usual, usual, other), max_size=12),
    st.lists(st.integers(0, 1 << 20), max_size=4),
    st.booleans(),
)
def test_events_are_those_of_wsproto(frames: list[bytes], places: list[int], are_whole: bool) -> None:
    """Usual and unusual frames, sound and broken ones, one by one or cut anywhere."""
    data = b"".join(frames)
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    pieces = [piece for piece in frames if piece] if are_whole else [data[start:end] for start, end in pairwise(ends)]

    assert outcome(Connection(ConnectionType.SERVER), pieces) == outcome(Incoming(b""), pieces)


@given(usual)
def test_what_came_behind_the_request_is_taken_as_well(first: bytes) -> None:
    """A client need not wait for the answer to its upgrade."""
    plain = Connection(ConnectionType.SERVER, trailing_data=first)

    assert list(plain.events()) == list(Incoming(first).events())


@pytest.mark.parametrize("size", [0, 1, 3, 4, 125, 126, 400])
def test_masks_are_taken_off(size: int) -> None:
    """Also where the mask does not come out even."""
    payload = bytes(range(97, 123)) * 20

    assert [TextMessage(payload[:size].decode())] == outcome(
        Incoming(b""), [frame(FINAL | 1, payload[:size], b"\1\2\3\4")]
    )


MOST = 1000


def head(first: int, length: int) -> bytes:
    """Return a masked frame's head that says how long it is, in as few bytes as that takes."""
    if length < 126:
        return bytes((first, MASKED | length, 0, 0, 0, 0))
    if length < 1 << 16:
        return pack("!BBHI", first, MASKED | 126, length, 0)
    return pack("!BBQI", first, MASKED | 127, length, 0)


@pytest.mark.parametrize(
    "data",
    [
        head(FINAL | 1, MOST + 1),
        head(1, MOST + 1),
        head(FINAL | 2, MOST + 1),
        head(FINAL | 1, 1 << 31),
        head(FINAL | 1, 1 << 62),
        head(FINAL | 2, (1 << 63) - 1),
        head(1, 600) + bytes(600) + head(FINAL | 0, 401),
        head(1, 600) + bytes(600) + head(FINAL | 9, 5) + b"hello" + head(0, 400) + bytes(400) + head(0, 1),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_message_that_will_be_too_long_is_refused_by_its_head(data: bytes, step: int) -> None:
    """What it says of its size counts, alone or with the fragments before; nothing behind it is read."""
    incoming = Incoming(b"", MOST)
    whole = data + b"the beginning of it" * 10
    pieces = [whole[start : start + step] for start in range(0, len(whole), step)]
    events = outcome(incoming, pieces)

    assert events.count(TooBig()) == 1
    assert events[-1] == TooBig()


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 300), min_size=1, max_size=4), st.integers(0, 125)), max_size=5),
    st.integers(1, 200),
)
def test_messages_of_the_right_size_are_taken(messages: list[tuple[list[int], int]], step: int) -> None:
    """Each message counts for itself, however many fragments it has, and what stands between them does not count."""
    data = b""
    for sizes, ping in messages:
        for number, size in enumerate(sizes):
            first = (0 if number else 1) | (FINAL if number == len(sizes) - 1 else 0)
            data += head(first, size) + b"x" * size + head(FINAL | 9, ping) + b"y" * ping
    most = max((sum(sizes) for sizes, _ in messages), default=0)
    events = outcome(Incoming(b"", most), [data[start : start + step] for start in range(0, len(data), step)])
    told = [event for event in events if isinstance(event, TextMessage)]

    assert TooBig() not in events
    assert sum(sum(sizes) for sizes, _ in messages) == sum(len(event.data) for event in told)
