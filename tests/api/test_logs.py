"""Logs over HTTP: what kernels print and what the server logs, read and followed."""

from __future__ import annotations

import json
import logging

import pytest
import trio

from kallichore.cli.log_feed import LineLogHandler
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.client.event_stream import open_events
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import REAL_TIME, address_of, body, execute, open_client, open_started


async def test_session_log_has_what_its_process_printed() -> None:
    """Lines of both streams are there with stream and time, and reading them takes nothing from the client."""
    async with open_client() as client, open_started(client, body()) as channel:
        await execute(channel, "stderr oops")
        with trio.fail_after(REAL_TIME):
            while not (found := await client.call("GET", "/sessions/s/logs?tail=1"))["lines"]:
                pass

    assert ("stderr", "oops") == (found["lines"][0]["stream"], found["lines"][0]["text"])
    assert 0 == found["missing"]


async def test_log_is_followed_until_its_session_is_deleted() -> None:
    """Events go on as lines come, each with its number as id, and end with the session."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", "exit-at-start=3"))
        with trio.fail_after(REAL_TIME):
            async with open_events(client.address, "/sessions/s/logs") as events:
                with pytest.raises(ApiError):
                    await client.call("POST", "/sessions/s/start")
                await client.call("DELETE", "/sessions/s")
                lines = [(event.event_id, json.loads(event.data)["text"]) async for event in events]

    assert [str(number) for number in range(1, len(lines) + 1)] == [number for number, _ in lines]
    assert {"last words on stdout", "last words on stderr"} <= {text for _, text in lines}


async def test_server_log_is_followed_to_the_end_of_the_server() -> None:
    """What is logged reaches those who follow, from any thread, up to the server's last line."""
    logger = logging.getLogger("kallichore.tests.logs")
    async with serve(ServerConfig()) as server:
        handler = LineLogHandler(server.server.log.append)
        logger.addHandler(handler)
        try:
            async with open_events(address_of(server), "/logs?tail=0") as events:
                logger.warning("from %s", "here")
                await trio.to_thread.run_sync(logger.error, "from a thread")
                server.request_shutdown()
                with trio.fail_after(REAL_TIME):
                    lines = [json.loads(event.data) async for event in events]
        finally:
            logger.removeHandler(handler)

    assert [("WARN", "from here"), ("ERROR", "from a thread")] == [(line["stream"], line["text"]) for line in lines]


@pytest.mark.parametrize(
    ("path", "named"), [("/logs?tail=-1", "tail"), ("/logs?tail=x", "tail"), ("/logs?after=1.5", "after")]
)
async def test_query_that_makes_no_sense_is_refused(path: str, named: str) -> None:
    """The answer names the parameter."""
    async with open_client() as client:
        with pytest.raises(ApiError, match=named) as refused:
            await client.call("GET", path)

    assert 400 == refused.value.status


async def test_log_needs_the_token_and_a_session() -> None:
    """Nobody reads a log without the token, and there is no log of a session that is not there."""
    async with open_client() as client:
        with pytest.raises(ApiError, match="token"):
            await ApiClient(type(client.address)(host="127.0.0.1", port=client.address.port)).call("GET", "/logs")
        with pytest.raises(ApiError, match="nobody"):
            async with open_events(client.address, "/sessions/nobody/logs"):
                pytest.fail("there is no such session")
