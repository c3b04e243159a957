"""What a listener is told of all sessions: everything at first, then what is new, and not too often."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.models.bodies import ServerStatus, SessionMode, SessionSummary, Status
from kallichore.server.changes import LEAST_PAUSE, MEMBERS, SERVER_EVERY, Account, differences

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def summary(session_id: str = "s", **members: Any) -> SessionSummary:
    """Return a session in short."""
    usual: dict[str, Any] = {
        "display_name": "Python", "language": "python", "session_mode": SessionMode.CONSOLE, "notebook_uri": None,
        "working_directory": "/w", "started": BEGIN, "status": Status.IDLE, "status_since": 5, "idle_since": 5,
        "busy_since": None, "running": None, "waits_for_input": False, "queue_length": 0, "clients": 0,
        "process_id": 7, "resource_usage": None, "journal_bytes": 0, "memory_warning": None, "last_exit": None,
    }  # fmt: skip
    return SessionSummary(session_id=session_id, **{**usual, **members})


SERVER = ServerStatus(
    sessions=1, active=1, busy=False, idle_seconds=0, busy_seconds=0, uptime_seconds=3, version="1",
    kallichore_version="1", process_id=1, started=BEGIN,
)  # fmt: skip


def test_first_time_all_there_is_is_told() -> None:
    """A listener is told every member of each session at first, and the server's figures."""
    told = Account().settle([summary("a"), summary("b")], [], SERVER, 0.0, 10)

    assert told is not None
    assert (10, SERVER, ()) == (told.time, told.server, told.removed)
    assert {"a": set(MEMBERS), "b": set(MEMBERS)} == {name: set(patch) for name, patch in told.sessions.items()}


def test_first_time_is_told_although_there_is_nothing() -> None:
    """A listener of a server without sessions is told so, rather than nothing."""
    told = Account().settle([], [], None, 0.0, 10)

    assert told is not None
    assert {} == told.sessions


def test_only_what_changed_is_told_then() -> None:
    """Of a session that changed, only the members that did; of one that did not, nothing."""
    account = Account()
    account.settle([summary("a"), summary("b")], [], None, 0.0, 10)
    told = account.settle([summary("a", queue_length=3, running=None), summary("b")], [], None, 1.0, 11)

    assert told is not None
    assert {"a": {"queue_length": 3}} == told.sessions


def test_member_that_is_gone_is_told_as_null() -> None:
    """What a session has no more is told, as None, rather than left out."""
    account = Account()
    account.settle([summary(running="1 + 1")], [], None, 0.0, 10)
    told = account.settle([summary(running=None)], [], None, 1.0, 11)

    assert told is not None
    assert {"s": {"running": None}} == told.sessions


def test_nothing_new_is_not_told() -> None:
    """Where a session was marked and is as before, there is no event."""
    account = Account()
    account.settle([summary()], [], None, 0.0, 10)

    assert account.settle([summary()], ["never-told"], None, 1.0, 11) is None


def test_deleted_session_is_told_once_and_is_new_if_it_comes_back() -> None:
    """A deleted session is named once; another of the same name is told whole."""
    account = Account()
    account.settle([summary()], [], None, 0.0, 10)
    gone = account.settle([], ["s"], None, 1.0, 11)
    again = account.settle([], ["s"], None, 2.0, 12)
    back = account.settle([summary()], [], None, 3.0, 13)

    assert gone is not None
    assert back is not None
    assert (("s",), None, set(MEMBERS)) == (gone.removed, again, set(back.sessions["s"]))


def test_events_are_a_pause_apart() -> None:
    """The first may go at once, the next after the pause, whatever was looked at and not told in between."""
    account = Account()
    at_first = account.pause(100.0)
    account.settle([], [], None, 100.0, 10)
    account.settle([], [], None, 100.1, 11)

    assert 0.0 == at_first
    assert pytest.approx(LEAST_PAUSE - 0.1) == account.pause(100.1)
    assert 0.0 == account.pause(100.0 + LEAST_PAUSE)


def test_servers_figures_are_due_again_after_a_while() -> None:
    """They are told at first, and then as often as they may be looked at."""
    account = Account()
    at_first = account.wants_server(100.0)
    account.settle([], [], SERVER, 100.0, 10)

    assert [True, False, True] == [
        at_first,
        account.wants_server(99.9 + SERVER_EVERY),
        account.wants_server(100.0 + SERVER_EVERY),
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 3), st.integers(0, 2)), max_size=20))
def test_who_applies_all_changes_has_what_is_true(steps: list[tuple[str, int | None, int]]) -> None:
    """Applied one after another, the events make exactly the sessions that there are at each moment."""
    account, shown, true = Account(), {}, {}
    for at, (name, queue, clients) in enumerate(steps):
        if queue is None:
            true.pop(name, None)
        else:
            true[name] = summary(name, queue_length=queue, clients=clients)
        told = account.settle([true[name]] if name in true else [], [] if name in true else [name], None, float(at), at)
        if told is not None:
            for gone in told.removed:
                del shown[gone]
            for session_id, patch in told.sessions.items():
                shown[session_id] = {**shown.get(session_id, {}), **patch}

        assert {name: attrs.asdict(each, recurse=False) for name, each in true.items()} == shown


def test_differences_are_the_later_values() -> None:
    """Of two descriptions, the members that differ have the values of the second."""
    assert {"clients": 2, "status": Status.BUSY} == differences(
        summary(clients=1), summary(clients=2, status=Status.BUSY)
    )
