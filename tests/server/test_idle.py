"""When an idle server ends, in virtual time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.conversation.culling import OVERSLEPT
from kallichore.models.bodies import ServerConfiguration
from kallichore.server.idle import IdleClock
from kallichore.server.server import Server

HOUR = 3600.0


@pytest.fixture
async def make_server(nursery: trio.Nursery) -> Any:
    """Return a maker of servers without sessions, whose idle clock runs in virtual time."""

    def make(hours: int | None) -> Server:
        # An idle clock needs nothing of what a server lends to sessions.
        server = Server(ServerConfig(idle_shutdown_hours=hours), None, nursery)  # type: ignore[arg-type]
        nursery.start_soon(server._watch_idleness)
        return server

    yield make
    nursery.cancel_scope.cancel()


async def seconds_until_shutdown(server: Server) -> float:
    """Return after how many virtual seconds the server asks for its end."""
    began = trio.current_time()
    await server.shutdown_requested.wait()
    return trio.current_time() - began


@pytest.mark.parametrize(("hours", "seconds"), [(0, 30.0), (1, HOUR), (168, 168 * HOUR)])
async def test_idle_server_ends_after_its_hours(
    autojump_clock: Any, make_server: Any, hours: int, seconds: float
) -> None:
    """A server where nothing happens ends after the configured hours; 0 stands for 30 seconds."""
    assert await seconds_until_shutdown(make_server(hours)) == pytest.approx(seconds)


async def test_server_without_hours_never_ends(autojump_clock: Any, make_server: Any) -> None:
    """Without a setting, an idle year changes nothing."""
    server = make_server(None)
    with trio.move_on_after(366 * 24 * HOUR) as year:
        await server.shutdown_requested.wait()
    assert year.cancelled_caught


async def test_heartbeat_begins_the_period_anew(autojump_clock: Any, make_server: Any) -> None:
    """A heartbeat every 20 s keeps a server up; the period counts from the last one."""
    server = make_server(0)
    for _ in range(10):
        await trio.sleep(20)
        server.client_heartbeat(None)
    assert await seconds_until_shutdown(server) == pytest.approx(30)


async def test_living_client_process_keeps_the_server_up(autojump_clock: Any, make_server: Any) -> None:
    """A client whose process lives keeps the server up without heartbeats; when it is gone, the next period ends it."""
    server = make_server(0)
    server.client_heartbeat(os.getpid())
    with trio.move_on_after(HOUR) as hour:
        await server.shutdown_requested.wait()
    assert hour.cancelled_caught
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])  # noqa: ASYNC220  # real I/O has no place in virtual time
    gone.wait()
    server.client_heartbeat(gone.pid)
    assert await seconds_until_shutdown(server) == pytest.approx(30)


async def test_change_on_the_fly_begins_anew_and_minus_one_means_never(autojump_clock: Any, make_server: Any) -> None:
    """A new number of hours holds at once, from now; -1 switches idle shutdown off, and it can be switched on again."""
    server = make_server(1)
    await trio.sleep(HOUR - 1)
    server.configure(ServerConfiguration(idle_shutdown_hours=-1))
    with trio.move_on_after(100 * HOUR) as long:
        await server.shutdown_requested.wait()
    assert long.cancelled_caught
    server.configure(ServerConfiguration(idle_shutdown_hours=0))
    assert await seconds_until_shutdown(server) == pytest.approx(30)


@pytest.mark.parametrize(
    ("late", "is_over", "look_at"), [(0, True, HOUR), (OVERSLEPT, True, HOUR), (OVERSLEPT + 1, False, 2 * HOUR + 61)]
)
def test_time_asleep_does_not_count(late: float, is_over: bool, look_at: float) -> None:
    """A look that comes far too late comes after the machine slept, and begins the period anew."""
    clock = IdleClock(1, 0.0)

    assert (is_over, look_at) == (clock.look(HOUR + late), clock.look_at)


def test_look_before_the_end_changes_nothing() -> None:
    """The period counts from the last activity."""
    clock = IdleClock(1, 0.0)
    clock.nudge(100.0)

    assert (False, 100.0 + HOUR) == (clock.look(HOUR), clock.look_at)


async def test_nothing_wakes_while_the_period_lasts(
    autojump_clock: Any, make_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week is one wait, and one look at its end."""
    looks: list[float] = []
    look = IdleClock.look
    monkeypatch.setattr(IdleClock, "look", lambda clock, now: looks.append(now) or look(clock, now))
    await seconds_until_shutdown(make_server(168))

    assert 1 == len(looks)


async def test_server_in_use_stays_up(autojump_clock: Any, make_server: Any) -> None:
    """A session that is in use keeps the server up, whatever its status."""
    server = make_server(0)

    class InUse:
        is_in_use = True

    server._sessions["s"] = InUse()
    with trio.move_on_after(HOUR) as hour:
        await server.shutdown_requested.wait()
    assert hour.cancelled_caught
    server._sessions.clear()
    assert await seconds_until_shutdown(server) <= 30
