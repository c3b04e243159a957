"""ZMTP as we speak it: messages survive any cutting of the bytes, and what is not ZMTP 3 is refused in words.

That libzmq understands us, and we it, is tested in tests/zeromq.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings, strategies as st

from kallichore.wire.zmtp import (
    LARGE,
    MANY,
    STEP,
    SUBSCRIPTION,
    Decoder,
    MechanismError,
    ZmtpError,
    check_greeting,
    encode,
    opening,
)

GREETING = opening("DEALER")[:64]
READY = opening("DEALER")[64:]

frames = st.one_of(
    st.binary(max_size=20), st.integers(200, 300).map(bytes), st.sampled_from([LARGE - 1, LARGE, 200_000]).map(bytes)
)
messages = st.lists(st.lists(frames, min_size=1, max_size=8), max_size=5)
commands = st.sampled_from([b"", b"\x04\x07\x04PING\0\0", b"\x04\x0b\x04PING\0\0ping", b"\x04\x04\x03ODD", b"\x04\0"])


def wire(message: list[bytes]) -> bytes:
    """Return a message as it is on the wire."""
    return b"".join(encode(message))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return data in pieces."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


@given(messages, st.lists(st.integers(0, 1_000_000), max_size=12), st.lists(commands, max_size=5))
@settings(deadline=None, max_examples=60)
def test_messages_survive_any_cutting(sent: list[list[bytes]], places: list[int], between: list[bytes]) -> None:
    """Whatever the sizes of frames, the pieces in which they come and commands between them, they come out whole."""
    data = GREETING + READY
    for number, message in enumerate(sent):
        data += (between[number] if number < len(between) else b"") + wire(message)
    decoder = Decoder()
    received = [message for piece in cut(data, places) for message in decoder.feed(piece)]

    assert received == sent
    assert decoder.is_open
    assert decoder.missing == 0


@given(messages, st.lists(st.integers(0, 1_000_000), max_size=12), st.lists(commands, max_size=5))
@settings(deadline=None, max_examples=60)
def test_what_is_held_is_what_came_behind_the_last_whole_message(
    sent: list[list[bytes]], places: list[int], between: list[bytes]
) -> None:
    """Or behind a command: from there on it has to come again, if the decoder is lost with what it holds."""
    items = [item for number, message in enumerate(sent) for item in (*between[number : number + 1], wire(message))]
    ends = [0, *accumulate(map(len, items))]
    decoder, fed = Decoder(is_open=True), 0
    for piece in cut(b"".join(items), places):
        decoder.feed(piece)
        fed += len(piece)

        assert decoder.held == fed - max(end for end in ends if end <= fed)


flood_sizes = st.tuples(
    st.sampled_from([(), (0,), (9, 64, 190, 120, 2), (9, 64, 191, 120, 2), (9, 64, 300, 255, 256)]),
    st.sampled_from([0, 1, 130, 255, 256, 5000, LARGE]),
)


@given(st.lists(st.tuples(flood_sizes, st.integers(1, 200)), min_size=1, max_size=6), st.lists(st.integers(0, 1 << 20)))
@settings(deadline=None, max_examples=60)
def test_floods_survive_any_cutting(runs: list[tuple[tuple[tuple[int, ...], int], int]], places: list[int]) -> None:
    """Many messages at once, alike for a while and then not, come out as they do one by one."""
    sent = [
        [*(bytes([number % 256]) * size for size in sizes), bytes([index]) * last]
        for index, ((sizes, last), count) in enumerate(runs)
        for number in range(count)
    ]
    data = b"".join(map(wire, sent))
    decoder = Decoder()
    decoder.feed(GREETING + READY)
    received = [message for piece in cut(data, places[:3]) for message in decoder.feed(piece)]

    assert received == sent
    assert decoder.missing == 0


@pytest.mark.parametrize("head", [b"\x08\x05", b"\x04\x05", b"\x03\x05", b"\x01\x05"])
def test_what_is_no_last_frame_in_a_flood_is_taken_as_what_it_is(head: bytes) -> None:
    """Commands, unknown flags and further frames where alike messages have their last: each is seen."""
    alike = wire([b"topic", b"content"])
    flood = alike * (MANY // len(alike) + 1)
    whole, pieces = (Decoder(), Decoder())
    data = flood + alike[:7] + head + b"\x04PONG" + alike
    outcomes: list[object] = []
    for decoder, step in ((whole, len(data)), (pieces, 100)):
        received: list[list[bytes]] = []
        try:
            for start in range(0, len(GREETING + READY + data), step):
                received += decoder.feed((GREETING + READY + data)[start : start + step])
        except ZmtpError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(received)

    assert outcomes[0] == outcomes[1]


def test_messages_survive_byte_by_byte() -> None:
    """A connection that brings one byte at a time, the handshake's too, brings every message."""
    sent = [[b"topic", b"", bytes(300)], [b"x" * LARGE], [b""]]
    data = GREETING + READY + b"".join(map(wire, sent))
    decoder = Decoder()

    assert sent == [message for index in range(len(data)) for message in decoder.feed(data[index : index + 1])]


def test_frames_are_those_of_the_specification() -> None:
    """A short frame has its size in a byte, a longer one in eight; all but the last say that more follow (RFC 23)."""
    assert b"\x01\x01a\x00\x02bc" == wire([b"a", b"bc"])
    assert b"\x00\xff" + bytes(255) == wire([bytes(255)])
    assert b"\x02" + (256).to_bytes(8, "big") + bytes(256) == wire([bytes(256)])


def test_large_frames_are_not_copied() -> None:
    """A frame that is large is handed on as it is, and one message is one piece otherwise."""
    large = bytes(LARGE)

    assert [type(piece) for piece in encode([b"a", b"b"])] == [bytes]
    assert encode([b"a", large])[3] is large


def test_opening_tells_who_we_are() -> None:
    """The greeting has 64 bytes, names version 3.0 and NULL; READY has the socket's type and its identity."""
    ready = opening("DEALER", b"me")[64:]

    assert (b"\xff" + bytes(8) + b"\x7f\x03\x00NULL").ljust(64, b"\0") == GREETING
    assert ready[:2] == bytes([4, len(ready) - 2])
    assert ready[2:] == b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x02me"
    assert opening("SUB")[66:] == b"\x05READY\x0bSocket-Type\0\0\0\x03SUB\x08Identity\0\0\0\0"
    assert wire([b"\x01"]) == SUBSCRIPTION


def test_ping_is_answered_with_its_own_context() -> None:
    """A PING's bytes behind its time to live come back in a PONG (RFC 37)."""
    decoder = Decoder()
    decoder.feed(GREETING + READY + b"\x04\x0b\x04PING\x00\x0apong")

    assert [b"\x04\x09\x04PONGpong"] == decoder.replies


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request", "does not begin with a ZMTP greeting"),
        (b"\xff" + bytes(8) + b"\x00", "does not begin with a ZMTP greeting"),
        (b"\xff" + bytes(8) + b"\x7f\x01", "speaks version 1"),
        (GREETING.replace(b"NULL", b"CURV"), "the mechanism CURV"),
        (GREETING + wire([b"early"]), "before the handshake"),
        (GREETING + b"\x02" + (1 << 40).to_bytes(8, "big"), "before the handshake"),
        (GREETING + READY + b"\x08\x00", "the flags 0x08"),
        (GREETING + READY + b"\x05\x00", "the flags 0x05"),
        (GREETING + READY + b"\x06" + (1 << 40).to_bytes(8, "big"), "1099511627776 bytes"),
        (GREETING + READY + b"\x07\x00", "the flags 0x07"),
        (GREETING + READY + b"\x06" + LARGE.to_bytes(8, "big"), "65536 bytes"),
        (GREETING[:10] + b"\x02", "speaks version 2 of ZMTP; 3 is the least"),
        (GREETING + b"\x01\x01a", "before the handshake"),
        (GREETING + b"\x04\x0b\x05ERROR\x04nope", "it refuses: nope"),
    ],
)
def test_what_is_not_zmtp_3_is_refused_in_words(data: bytes, reason: str) -> None:
    """Other protocols, older versions, other mechanisms and broken frames end the connection, and say why."""
    with pytest.raises(ZmtpError, match=reason):
        Decoder().feed(data)


def test_newer_version_of_the_protocol_is_understood() -> None:
    """It speaks as we do with who is older (RFC 23, version negotiation)."""
    decoder = Decoder()

    assert decoder.feed(GREETING[:10] + b"\x04" + GREETING[11:] + READY + wire([b"a"])) == [[b"a"]]


def test_other_side_may_call_itself_the_server() -> None:
    """Without a mechanism that says nothing."""
    assert Decoder().feed(GREETING[:32] + b"\x01" + GREETING[33:] + READY + wire([b"a"])) == [[b"a"]]


def test_flood_of_empty_messages_comes_whole() -> None:
    """However little there is to tell one from the next."""
    decoder = Decoder()

    assert decoder.feed(GREETING + READY + wire([b""]) * MANY) == [[b""]] * MANY


@pytest.mark.parametrize("known", [1, 9, 10, 11, 12, 63])
def test_greeting_that_is_not_whole_is_waited_for(known: int) -> None:
    """Nothing is refused that may become a greeting of ours."""
    decoder = Decoder()

    received = decoder.feed(GREETING[:known])

    assert received == []
    assert not decoder.is_open
    assert decoder.feed(GREETING[known:] + READY) == []
    assert decoder.is_open


def test_command_just_small_enough_is_waited_for() -> None:
    """It is read whole, and what we do not know is left alone."""
    decoder = Decoder()
    size = LARGE - 1
    decoder.feed(GREETING + READY + b"\x06" + size.to_bytes(8, "big"))

    assert decoder.missing == 0
    assert decoder.feed(b"\x03ODD".ljust(size, b"x") + wire([b"a"])) == [[b"a"]]
    assert decoder.replies == []


def test_ping_brings_back_sixteen_bytes_at_most() -> None:
    """More than that is no context (RFC 37)."""
    decoder = Decoder()
    decoder.feed(GREETING + READY + b"\x04\x1b\x04PING\0\0" + b"0123456789abcdefXXXX")

    assert decoder.replies == [b"\x04\x15\x04PONG0123456789abcdef"]


@pytest.mark.parametrize("step", [1, 1000, 100_000, 1 << 24])
@pytest.mark.parametrize("behind", [[], [b"more", b""], [b"y" * LARGE]], ids=["last", "more", "more that is large"])
def test_large_frame_is_received_in_place(monkeypatch: pytest.MonkeyPatch, step: int, behind: list[bytes]) -> None:
    """Space is made in steps, the next after what was filled, and never more than is missing."""
    monkeypatch.setattr("kallichore.wire.zmtp.STEP", step)
    large = b"".join(number.to_bytes(4, "big") for number in range(50_000))
    data = wire([b"a", large, *behind])
    decoder = Decoder()
    decoder.feed(GREETING + READY)
    position = 100
    received = decoder.feed(data[:position])
    filled = position - 12
    while decoder.missing:
        missing = decoder.missing
        with decoder.space() as space:
            assert 0 < len(space) <= min(missing, max(step, filled))

            size = min(len(space), 70_001)
            space[:size] = data[position : position + size]
        received += decoder.fill(size)
        position += size
        filled += size

        assert decoder.missing == missing - size

    received += decoder.feed(data[position:])

    assert received == [[b"a", large, *behind]]


def test_large_frame_is_begun_where_it_is_large_only() -> None:
    """A smaller one is waited for as it is, and a whole one is taken at once."""
    decoder = Decoder()
    decoder.feed(GREETING + READY)
    missing = []
    for size in (LARGE - 1, LARGE):
        data = wire([bytes(size)])
        decoder.feed(data[:-1])
        missing.append(decoder.missing)

        assert decoder.feed(data[-1:]) == [[bytes(size)]]

    assert missing == [0, 1]


def test_announced_size_does_not_reserve_memory() -> None:
    """A size is but a claim: an exabyte that is announced takes no more than a step."""
    decoder = Decoder()
    decoder.feed(GREETING + READY + b"\x02" + (1 << 60).to_bytes(8, "big") + b"x")

    assert decoder.missing == (1 << 60) - 1
    with decoder.space() as space:
        assert len(space) <= STEP


@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_refused_or_waited_for(garbage: bytes, is_open: bool) -> None:
    """Whatever comes, there is no other error, and no more is kept than came."""
    decoder = Decoder()
    try:
        decoder.feed((GREETING + READY if is_open else b"") + garbage)
    except ZmtpError:
        return

    assert sum(len(frame) for frame in decoder._frames) + len(decoder._rest) <= len(garbage)


@pytest.mark.parametrize(
    ("named", "ours", "words"),
    [
        (b"NULL", "CURVE", "does not encrypt .* though it was given keys"),
        (b"CURVE", "NULL", "CURVE, which is encryption, and its keys are not known: curve_publickey"),
        (b"PLAIN", "NULL", "the mechanism PLAIN, and we know only NULL and CURVE"),
        (b"\xffX", "NULL", "the mechanism \ufffdX"),
    ],
)
def test_mechanism_that_is_not_ours_is_refused_in_words(named: bytes, ours: str, words: str) -> None:
    """With what to do about it."""
    greeting = GREETING[:12] + named.ljust(20, b"\0") + GREETING[32:]

    with pytest.raises(MechanismError, match=words):
        check_greeting(greeting, ours)


def test_greeting_is_whole_or_not_yet() -> None:
    """Which is all that is to be known of one that is ours."""
    assert [check_greeting(GREETING[:size]) for size in (1, 10, 63, 64)] == [False, False, False, True]
