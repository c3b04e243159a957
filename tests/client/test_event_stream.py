"""Server-sent events as a client reads them, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.client.event_stream import Event, EventParser

STREAM = ': still here\n\nid: 1\ndata: {"text":"ä"}\n\n: comment\ndata: a\ndata:b\n\ndata: open'.encode()
EVENTS = [Event('{"text":"ä"}', "1"), Event("a\nb")]


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_events_are_put_together_from_any_pieces(size: int) -> None:
    """Comments are skipped, data lines joined, and an unfinished event waits for its end."""
    parser = EventParser()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]

    assert EVENTS == [event for piece in pieces for event in parser.feed(piece)]


@given(st.integers(1, 40), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_may_end_in_either_way(size: int, end: bytes) -> None:
    """Events are the same whichever way their lines end, and however they are cut; comments are none."""
    lines = (b": ping", b"", b"event: message", b"data: {}", b"", b"id: 3", b"data: a", b"data: b", b"", b"")
    data = end.join(lines)
    parser = EventParser()
    found = [event for start in range(0, len(data), size) for event in parser.feed(data[start : start + size])]

    assert found == [Event("{}", None, "message"), Event("a\nb", "3")]
