"""A workspace with its windows: who is asked, and what becomes of what was asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kallichore.mcp.channel_frames import CommandReply, CommandsChanged, Focused, Hello
from kallichore.mcp.names import LONGEST_ID, is_token, is_workspace_id, make_workspace_id
from kallichore.mcp.workspace import MOST_CLIENTS, MOST_WAITING, Window, WindowsGone, Workspace, is_visible
from kallichore.models.bodies import NewSession

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def make_workspace(name: str = "w") -> Workspace:
    """Return a workspace."""
    return Workspace(name, "W", "0" * 64)


def asked(window: Window) -> list[str]:
    """Return the ids of the commands that a window has been asked to run."""
    frames: list[dict[str, Any]] = [json.loads(frame) for frame in window.outgoing]
    return [frame["command_id"] for frame in frames if frame["kind"] == "command_request"]


def test_window_that_had_the_focus_last_is_asked() -> None:
    """A command goes to the window focused last; where none ever was, to the newest."""
    workspace = make_workspace()
    first, second = workspace.open_window(), workspace.open_window()
    workspace.ask("newest", [], (None, None), 45, lambda reply: None)
    workspace.hear(first, Focused())
    workspace.ask("focused", [], (None, None), 45, lambda reply: None)
    third = workspace.open_window()
    workspace.ask("still", [], (None, None), 45, lambda reply: None)
    workspace.hear(third, Hello(focused=True))
    workspace.ask("said hello", [], (None, None), 45, lambda reply: None)

    assert [asked(window) for window in (first, second, third)] == [["focused", "still"], ["newest"], ["said hello"]]


def test_request_moves_to_another_window_and_fails_with_the_last() -> None:
    """What a window was asked and did not answer, another is asked when it closes; with the last one it fails."""
    workspace, replies = make_workspace(), []
    first, second = workspace.open_window(), workspace.open_window()
    workspace.ask("c", [], (None, None), 45, replies.append)
    workspace.close_window(second, NOW)
    moved = asked(first)
    workspace.close_window(first, NOW)

    assert (moved, replies) == (["c"], [WindowsGone()])
    assert workspace.disconnected_since == NOW


def test_reply_counts_once_and_of_who_was_asked() -> None:
    """A reply of a window that was not asked, a second reply, and one to a call that was given up count for nothing."""
    workspace, replies = make_workspace(), []
    other, front = workspace.open_window(), workspace.open_window()
    call = workspace.ask("c", [], (None, None), 45, replies.append)
    assert call is not None
    reply = CommandReply(call.number, True, 1)
    workspace.hear(other, reply)
    assert replies == []
    workspace.hear(front, reply)
    workspace.hear(front, reply)
    late = workspace.ask("d", [], (None, None), 45, replies.append)
    assert late is not None
    workspace.give_up(late)
    workspace.hear(front, CommandReply(late.number, True, 2))

    assert replies == [reply]


def test_what_a_window_said_stays_when_it_is_gone() -> None:
    """Catalogue, sessions, foreground and version are kept while no window is there."""
    workspace = make_workspace()
    window = workspace.open_window()
    workspace.hear(window, Hello(positron_version="1", session_ids=["a"], foreground_session_id="a"))
    workspace.hear(window, CommandsChanged([]))
    workspace.close_window(window, NOW)

    assert (workspace.session_ids, workspace.foreground, workspace.positron_version) == (("a",), "a", "1")
    assert workspace.ask("c", [], (None, None), 45, lambda reply: None) is None


def test_windows_are_told_which_agents_are_there() -> None:
    """A window hears of the agents when it comes, and of each change; there are at most so many."""
    workspace = make_workspace()
    window = workspace.open_window()
    number = workspace.add_client({"name": "a", "pid": 3}, NOW)
    assert number is not None
    workspace.remove_client(number)
    told = [json.loads(frame)["clients"] for frame in window.outgoing]
    shown = {"id": number, "connected_at": "2026-10-01T00:00:00.000Z", "name": "a", "pid": 3}
    added = [workspace.add_client({}, NOW) for _ in range(MOST_CLIENTS + 1)]

    assert ([], {**shown, "connected_at": told[1][0]["connected_at"]}, []) == (told[0], told[1][0], told[2])
    assert added[-1] is None


def test_window_that_does_not_read_is_let_go() -> None:
    """Frames for a window that takes none do not pile up without a bound."""
    workspace = make_workspace()
    window = workspace.open_window()
    for _ in range(MOST_WAITING + 5):
        window.say(b"{}")

    assert (len(window.outgoing), window.is_let_go) == (MOST_WAITING, True)


def new_session(session_id: str, workspace_id: str | None) -> NewSession:
    """Return what a session is created with, as far as ownership goes."""
    fields = {field.name: None for field in attrs.fields(NewSession)}
    session = object.__new__(NewSession)
    for name, value in {**fields, "session_id": session_id, "workspace_id": workspace_id}.items():
        object.__setattr__(session, name, value)
    return session


def test_session_is_visible_to_its_owner_and_to_who_lists_it() -> None:
    """Agents see their workspace's sessions, and those that a window lists and no other registered workspace owns."""
    mine, other = make_workspace("mine"), make_workspace("other")
    mine.session_ids = ("listed", "theirs", "orphan")
    both = [mine, other]
    seen = {
        (name, owner): is_visible(mine, new_session(name, owner), both)
        for name, owner in (
            ("own", "mine"), ("listed", None), ("theirs", "other"), ("orphan", "gone"), ("unlisted", None),
        )
    }  # fmt: skip

    assert list(seen.values()) == [True, True, False, True, False]


def test_ids_are_kept_if_they_are_well_formed_and_made_otherwise() -> None:
    """The API's rule for ids, and slugs of names which always fit it."""
    good = ["a", "a-b", "0", "x" * LONGEST_ID]
    bad = ["", "-a", "a-", "A", "a_b", "ä", "a b", "x" * (LONGEST_ID + 1), "a\n"]
    made = [make_workspace_id(name, "abc123") for name in ("My Project!", "", "---", "x" * 99, "日本")]

    assert [is_workspace_id(text) for text in good + bad] == [True] * len(good) + [False] * len(bad)
    assert made[:3] == ["my-project-abc123", "workspace-abc123", "workspace-abc123"]
    assert all(map(is_workspace_id, made))
    assert [is_token(text) for text in ("f" * 64, "F" * 64, "f" * 63, "")] == [True, False, False, False]


class Windows(RuleBasedStateMachine):
    """Windows that come, go, focus and answer in any order: each call is told exactly one thing, or waits at a window
    that is there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.workspace = make_workspace()
        self.windows: list[Window] = []
        self.calls: dict[str, list[object]] = {}

    @rule()
    def come(self) -> None:
        self.windows.append(self.workspace.open_window())

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        if self.windows:
            window = self.windows.pop(data.draw(st.integers(0, len(self.windows) - 1)))
            self.workspace.close_window(window, NOW)

    @rule(data=st.data())
    def focus(self, data: st.DataObject) -> None:
        if self.windows:
            self.workspace.hear(data.draw(st.sampled_from(self.windows)), Focused())

    @rule()
    def ask(self) -> None:
        replies: list[object] = []
        call = self.workspace.ask("c", [], (None, None), 45, replies.append)
        assert (call is None) == (not self.windows)
        if call is not None:
            self.calls[call.number] = replies

    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        if self.windows and self.calls:
            number = data.draw(st.sampled_from(sorted(self.calls)))
            self.workspace.hear(data.draw(st.sampled_from(self.windows)), CommandReply(number, True))

    @invariant()
    def each_call_is_told_once_or_waits(self) -> None:
        waiting = self.workspace._calls
        for number, replies in self.calls.items():
            assert len(replies) == (0 if number in waiting else 1)
        assert all(call.window in self.windows for call in waiting.values())


TestWindows = Windows.TestCase
