"""Kernels with habits: they start if they do with jupyter_client, and fail in bounded time, with the reason, if not."""

from __future__ import annotations

import pytest
import trio

from kallichore.client.api_client import ApiError
from kernels import REAL_TIME, START_LIMIT, body, open_client, open_started, run_code


@pytest.mark.parametrize(
    "habit", ["parent=empty", "parent=id", "parent=null-type", "msg-id=number", "misses-info=1", "no-heart"]
)
async def test_careless_kernel_starts_and_runs_code(habit: str) -> None:
    """It may leave out what nobody needs, miss the first question, and have no heartbeat."""
    async with open_client() as client, open_started(client, body("s", habit)):
        with trio.fail_after(REAL_TIME):
            replies = [await client.call("POST", "/sessions/s/execute", {"code": "print 1\nresult 2"}) for _ in "ab"]
            session = await client.call("GET", "/sessions/s")

    assert [("ok", "1\n", "2")] * 2 == [
        (reply["status"], reply["output"][0]["text"], reply["data"]["text/plain"]) for reply in replies
    ]
    assert session["status"] == "idle"


@pytest.mark.parametrize(
    ("habit", "reason"),
    [
        ("signature=upper", "the signature does not fit"),
        ("signature=wrong", "the signature does not fit"),
        ("signature=empty", "the signature does not fit"),
        ("no-metadata", "not JSON"),
    ],
)
async def test_start_of_a_kernel_that_cannot_be_understood_ends_with_the_reason(habit: str, reason: str) -> None:
    """It will do no better, so it gets as long as one that does not answer."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", habit, connection_timeout=START_LIMIT))
        with trio.fail_after(REAL_TIME), pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")

    assert refused.value.body["error"]["code"] == "KS-7"
    assert reason in refused.value.body["error"]["message"]


async def test_one_bad_message_does_not_end_a_start() -> None:
    """Somebody else's message may be among those of a good kernel."""
    request = body("s", "bad-first", connection_timeout=START_LIMIT)
    async with open_client() as client, open_started(client, request) as channel:
        assert await run_code(channel, "print 1") == "1\n"
