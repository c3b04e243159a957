"""Frames of a window: those that are sound are read, all others are refused or passed over."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.mcp.channel_frames import (
    Argument,
    Command,
    CommandReply,
    CommandsChanged,
    Focused,
    ForegroundChanged,
    Hello,
    MalformedFrameError,
    SessionsChanged,
    command_request,
    parse_frame,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    ["id", "ok", "commands", "session_ids", "session_id", "focused", "result", "foreground_session_id", "new"]
)
KINDS = st.sampled_from(
    ["hello", "commands_changed", "foreground_changed", "sessions_changed", "focused", "command_reply", "other"]
)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ({"kind": "hello"}, Hello()),
        (
            {"kind": "hello", "positron_version": "2026.10", "session_ids": ["a"], "focused": True, "later": 1},
            Hello(positron_version="2026.10", session_ids=["a"], focused=True),
        ),
        (
            {"kind": "commands_changed", "commands": [{"id": "c", "description": "d", "args": [{"name": "n"}]}]},
            CommandsChanged([Command("c", "d", [Argument("n")])]),
        ),
        ({"kind": "foreground_changed"}, ForegroundChanged()),
        ({"kind": "foreground_changed", "session_id": "a"}, ForegroundChanged("a")),
        ({"kind": "sessions_changed", "session_ids": []}, SessionsChanged([])),
        ({"kind": "focused"}, Focused()),
        ({"kind": "command_reply", "id": 7, "ok": True, "result": [1]}, CommandReply(7, True, [1])),
        (
            {"kind": "command_reply", "id": "7", "ok": False, "reason": "disabled", "message": "no"},
            CommandReply("7", False, None, "disabled", "no"),
        ),
        ({"kind": "of a newer window"}, None),
    ],
)
def test_frame_is_read_as_what_it_says(frame: dict[str, Any], expected: object) -> None:
    """Each kind is read with its members and their defaults; members and kinds that are not known are passed over."""
    assert expected == parse_frame(json.dumps(frame))


@given(KINDS, st.dictionaries(MEMBERS, JSON, max_size=4))
def test_frame_of_a_known_kind_fits_or_is_refused(kind: str, members: dict[str, Any]) -> None:
    """Whatever members a frame has, it is read or refused, and nothing else comes of it."""
    frame: object = None
    with suppress(MalformedFrameError):
        frame = parse_frame(json.dumps({"kind": kind, **members}))

    assert frame is None or kind != "other"


@given(st.text() | JSON.map(json.dumps) | st.integers(1, 100_000).map("[".__mul__))
def test_what_is_no_frame_is_refused(text: str) -> None:
    """Text that is no JSON object with a kind is refused, however deep it is."""
    with pytest.raises(MalformedFrameError):
        parse_frame(text)


def test_request_says_who_wants_what_and_until_when() -> None:
    """A request for a command has all members of the protocol; an agent that has no name has none."""
    expected = {
        "kind": "command_request",
        "id": "3",
        "command_id": "c",
        "args": [1, "two"],
        "agent": {"name": "a"},
        "deadline_ms": 45000,
    }

    assert expected == json.loads(command_request("3", "c", [1, "two"], "a", None, 45))
