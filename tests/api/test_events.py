"""``GET /events``: what changes on a server, told to who listens and costing nothing otherwise."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import trio

from kallichore.client.api_client import ApiClient
from kallichore.client.event_stream import Event, open_events
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.errors import KallichoreError
from kallichore.session.session import Session
from kernels import REAL_TIME, address_of, scripted


class Watcher:
    """What a listener knows: the events that came, applied one after another."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.server: dict[str, Any] = {}
        self.times: list[int] = []
        """When the server told, in milliseconds."""
        self._events = events

    async def until(self, holds: Callable[[Watcher], bool]) -> None:
        """Take in events until something is true."""
        with trio.fail_after(REAL_TIME):
            while True:
                event = json.loads((await anext(self._events)).data)
                self.times.append(event["time"])
                for session_id in event["removed"]:
                    del self.sessions[session_id]
                for session_id, patch in event["sessions"].items():
                    self.sessions[session_id] = {**self.sessions.get(session_id, {}), **patch}
                self.server = event.get("server", self.server)
                if holds(self):
                    return


@asynccontextmanager
async def watch(server: RunningServer) -> AsyncIterator[Watcher]:
    """Listen to a server."""
    async with open_events(address_of(server), "/events") as events:
        yield Watcher(events)


async def run_to_some_end(session: Session, code: str) -> None:
    """Run code that is interrupted, or dropped."""
    with suppress(KallichoreError):
        await session.run(code)


async def test_life_of_a_session_is_told() -> None:
    """Its creation, its start, what it uses, how it ended, and that it was deleted, each reach who listens."""
    async with serve(ServerConfig(resource_sample_interval_ms=100)) as server, watch(server) as watcher:
        session = server.create_session(scripted("s", display_name="Scripted"))
        await watcher.until(lambda it: "s" in it.sessions)
        was_new = watcher.sessions["s"]["status"] == "uninitialized"
        await session.start()
        await watcher.until(lambda it: it.sessions["s"]["resource_usage"] is not None)
        process_id = watcher.sessions["s"]["process_id"]
        session.kill()
        await watcher.until(lambda it: it.sessions["s"]["status"] == "exited")
        ended = watcher.sessions["s"]
        server.server.delete_session("s")
        await watcher.until(lambda it: it.sessions == {})

    assert was_new
    assert isinstance(process_id, int)
    assert (None, "requested") == (ended["process_id"], ended["last_exit"]["cause"])
    assert watcher.server["memory_bytes"] > 1_000_000


async def test_what_runs_and_what_waits_is_told() -> None:
    """While code runs, its first line, since when, and how many wait behind it are there; afterwards they are not."""
    async with serve(ServerConfig()) as server, watch(server) as watcher, trio.open_nursery() as nursery:
        session = server.create_session(scripted())
        await session.start()
        nursery.start_soon(run_to_some_end, session, "sleep 100")
        await watcher.until(lambda it: it.sessions.get("s", {}).get("running") == "sleep 100")
        nursery.start_soon(run_to_some_end, session, "print never")
        await watcher.until(lambda it: it.sessions.get("s", {}).get("queue_length") == 1)
        running = watcher.sessions["s"]
        session.interrupt()
        await watcher.until(lambda it: it.sessions["s"]["status"] == "idle" and it.sessions["s"]["running"] is None)

    assert "sleep 100" == running["running"]
    assert running["busy_since"] >= running["status_since"] - 1000
    assert 0 == watcher.sessions["s"]["queue_length"]


async def test_much_that_happens_comes_in_few_events() -> None:
    """A session that prints without a pause is told of four times a second, not at each line."""
    async with serve(ServerConfig()) as server, watch(server) as watcher:
        session = server.create_session(scripted())
        await session.start()
        await watcher.until(lambda it: it.sessions.get("s", {}).get("status") in ("idle", "ready"))
        for _ in range(200):
            await session.run("print x")
        session.kill()
        await watcher.until(lambda it: it.sessions["s"]["status"] == "exited")

    # The server's clock is read in milliseconds, and is another than the one that it waits by.
    assert [] == [later - earlier for earlier, later in pairwise(watcher.times) if later - earlier < 240]


async def test_nobody_is_kept_when_the_listener_is_gone() -> None:
    """A listener that hangs up is forgotten, and nothing is sampled for it any more."""
    async with serve(ServerConfig(resource_sample_interval_ms=100)) as server:
        news = server.server.facilities.news
        session = server.create_session(scripted())
        await session.start()
        async with watch(server) as watcher:
            await watcher.until(lambda it: it.sessions["s"]["resource_usage"] is not None)
            was_heard, was_sampled = news.is_heard, session.wants_samples
        with trio.fail_after(REAL_TIME):
            while news.is_heard:  # noqa: ASYNC110  # nobody is told when a listener is gone
                await trio.lowlevel.checkpoint()
        is_sampled = session.wants_samples

    assert (True, True, False) == (was_heard, was_sampled, is_sampled)


async def test_who_accepts_no_events_gets_all_there_is_once() -> None:
    """Without text/event-stream the answer is one document, and it ends."""
    async with serve(ServerConfig()) as server:
        server.create_session(scripted("a"))
        server.create_session(scripted("b"))
        found = await ApiClient(address_of(server)).call("GET", "/events")

    assert {"a", "b"} == set(found["sessions"])
    assert not server.server.facilities.news.is_heard


async def test_samples_of_the_last_minutes_are_kept() -> None:
    """What is sampled for somebody can be asked for afterwards; asking has nothing sampled, and of a session that
    nobody watched there is nothing.
    """
    async with serve(ServerConfig(resource_sample_interval_ms=100)) as server:
        client = ApiClient(address_of(server))
        sessions = [server.create_session(scripted(name)) for name in ("watched", "new")]
        await sessions[0].start()
        nothing = await client.call("GET", "/samples")
        was_sampled = sessions[0].wants_samples
        async with watch(server) as watcher:
            await watcher.until(lambda it: bool(it.sessions["watched"]["resource_usage"]))
        found = await client.call("GET", "/samples")
        used = watcher.sessions["watched"]["resource_usage"]

    assert (nothing, was_sampled) == ({"sessions": {}}, False)
    assert {"watched"} == found["sessions"].keys()
    assert {"time", "memory_bytes", "cpu_percent"} == found["sessions"]["watched"].keys()
    # Of each two seconds one is kept: it, or a later one, was what the watcher saw.
    assert 0 <= used["timestamp"] - found["sessions"]["watched"]["time"][0] <= 2000
    assert found["sessions"]["watched"]["memory_bytes"][0] > 0


async def test_stream_ends_with_the_server() -> None:
    """When the server ends, so does the stream, and it is not what the end waits for."""
    async with serve(ServerConfig()) as server, open_events(address_of(server), "/events") as events:
        await anext(events)
        server.request_shutdown()
        with trio.fail_after(REAL_TIME):
            rest = [event async for event in events]

    assert len(rest) <= 1
