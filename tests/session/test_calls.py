"""What a session keeps of executions that callers in this process, or over HTTP, have heard to their end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

import kallichore
from kallichore.client.api_client import session_path
from kallichore.session.clients import Attendance, Wish
from kallichore.session.session import Session
from kernels import REAL_TIME, body, execute, open_channel, open_client, scripted, text_of


def kept(session: Session) -> list[dict[str, Any]]:
    """Return what waits for a client."""
    journal = session.conversation.journal
    return [json.loads(payload) for payload in journal.read(journal.first, 1 << 30, 1 << 20).payloads]


def types_of(messages: list[dict[str, Any]]) -> set[str]:
    """Return the types of those that are Jupyter messages."""
    return {message["header"]["msg_type"] for message in messages if message["kind"] == "jupyter"}


async def test_what_callers_got_does_not_pile_up() -> None:
    """After any number of executions whose callers got all, the journal is what it was after the first."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        await session.run("print first")
        before = kept(session)
        for number in range(20):
            result = await session.run(f"print {number}")
            assert f"{number}\n" == result.text

        assert before == kept(session)
        assert set() == types_of(before)


async def test_callers_at_the_same_time_leave_nothing_either() -> None:
    """Executions that wait for each other are each their callers'."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        await session.run("print first")
        before = kept(session)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(session.run, f"print {number}")

        assert before == kept(session)


async def test_caller_that_goes_early_leaves_its_output_to_clients() -> None:
    """What a caller was given and did not hear to its end waits, all of it, for a client."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        async with session.execute("print a") as execution:
            await execution.__anext__()
        with trio.fail_after(REAL_TIME):
            await session.run("print b")

        assert "a\n" in text_of([message for message in kept(session) if message["kind"] == "jupyter"])


@pytest.mark.parametrize("attendance", list(Attendance))
async def test_output_is_kept_once_a_client_was_there(attendance: Attendance) -> None:
    """A client of any kind that has been there is expected back, and finds what others ran meanwhile."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        session.detach(session.attach(Wish(attendance)))
        await session.run("print x")

        assert {"stream", "execute_reply"} <= types_of(kept(session))


@pytest.mark.parametrize(("keep", "expected"), [(None, False), (0, False), (1, True)])
async def test_output_is_kept_where_the_session_asks_for_it(keep: int | None, expected: bool) -> None:
    """A session that was created with a ``journal_keep`` keeps what callers got, for clients to come."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted(journal_keep=keep))
        await session.start()
        await session.run("print x")

        assert expected is ("stream" in types_of(kept(session)))


async def test_calls_over_http_do_not_pile_up_and_a_client_comes_to_a_clean_session() -> None:
    """Both forms of the HTTP call count as told; a client that comes then is told how the kernel is, and is served."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", session_path("s", "start"))
        await client.call("POST", session_path("s", "execute"), {"code": "print first"})
        before = (await client.call("GET", "/status"))["journal_bytes"]
        for _ in range(5):
            await client.call("POST", session_path("s", "execute"), {"code": "print again"})
        after = (await client.call("GET", "/status"))["journal_bytes"]
        async with open_channel(client.address, "s") as channel:
            said = text_of(await execute(channel, "print mine"))

    assert before == after
    assert "mine\n" == said
