"""Heads of our own WebSocket frames: what an independent WebSocket client makes of them."""

from __future__ import annotations

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from kallichore.attach.frames import CLOSE, PING, PONG, TEXT, close_frame, control_frame, head, text_frame


def read_by_a_client(data: bytes) -> list[object]:
    """Return the events that a client has of these bytes."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "8100"),
        (1, "8101"),
        (125, "817d"),
        (126, "817e007e"),
        (127, "817e007f"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
        (1 << 40, "817f0000010000000000"),
    ],
)
def test_length_takes_as_few_bytes_as_it_may(length: int, expected: str) -> None:
    """Up to 125 the head has two bytes, up to 65535 four, above that ten (RFC 6455, section 5.2)."""
    assert head(TEXT, length).hex() == expected


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_text_frame_is_a_whole_message_to_a_client(length: int) -> None:
    """Text of each kind of length arrives as one finished message, also between two others."""
    text = "x" * length
    events = read_by_a_client(text_frame(b"before") + text_frame(text.encode()) + text_frame("ü".encode()))

    assert events == [TextMessage(data) for data in ("before", text, "ü")]


@pytest.mark.parametrize("payload", [b"", b"12345678", bytes(125)])
def test_pings_and_pongs_carry_their_payload(payload: bytes) -> None:
    """Control frames with nothing, with our counter and with the most that is allowed are what they should be."""
    assert read_by_a_client(control_frame(PING, payload) + control_frame(PONG, payload)) == [
        Ping(payload),
        Pong(payload),
    ]


@pytest.mark.parametrize(
    ("code", "reason", "seen"),
    [
        (1000, "", CloseConnection(1000, "")),
        (1011, "the kernel ended", CloseConnection(1011, "the kernel ended")),
        (1001, "x" * 200, CloseConnection(1001, "x" * 123)),
        (1001, "ü" * 100, CloseConnection(1001, "ü" * 61)),
        (1001, "😀" * 100, CloseConnection(1001, "😀" * 30)),
        (None, "", CloseConnection(1005, "")),
    ],
)
def test_close_frame_says_why(code: int | None, reason: str, seen: CloseConnection) -> None:
    """Code and reason reach the client; a reason that is too long is cut between two characters."""
    assert read_by_a_client(close_frame(code, reason)) == [seen]


def test_close_without_a_code_is_empty() -> None:
    """Without a code there is no payload at all."""
    assert close_frame(None) == bytes((CLOSE, 0))
