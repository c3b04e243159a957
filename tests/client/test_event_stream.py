"""Server-sent events as a client reads them, however the bytes are cut."""

from __future__ import annotations

import pytest

from kallichore.client.event_stream import Event, EventParser

STREAM = ': still here\n\nid: 1\ndata: {"text":"ä"}\n\n: comment\ndata: a\ndata:b\n\ndata: open'.encode()
EVENTS = [Event('{"text":"ä"}', "1"), Event("a\nb")]


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_events_are_put_together_from_any_pieces(size: int) -> None:
    """Comments are skipped, data lines joined, and an unfinished event waits for its end."""
    parser = EventParser()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]

    assert EVENTS == [event for piece in pieces for event in parser.feed(piece)]
