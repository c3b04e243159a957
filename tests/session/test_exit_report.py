"""Why a kernel ended: clients, callers and the session's description all get the report."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import make_execute_request
from kernels import REAL_TIME, ask_until, body, is_kernel, is_type, open_client, open_started, receive_until


@pytest.mark.posix_only("an end by a signal")
async def test_death_is_explained_everywhere() -> None:
    """A kernel that is killed from outside in the middle of its work: the output, the status, the call, the session."""
    async with open_client() as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request("stderr last words\nsleep 60"))
        seen = await receive_until(channel, is_type("execute_input", msg_id))
        if not any("output" in message for message in seen):
            # It comes through a pipe, and may come before or after.
            await receive_until(channel, is_kernel("output"))
        pid = (await client.call("GET", "/sessions/s"))["process_id"]

        async def call() -> None:
            with pytest.raises(ApiError, match="SIGKILL"):
                await client.call("POST", "/sessions/s/execute", {"code": "print never"})

        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await ask_until(client, lambda session: session["execution_queue"]["length"] == 1)
                os.kill(pid, signal.SIGKILL)
                ended = await receive_until(channel, is_kernel("exited"))
        report = (await client.call("GET", "/sessions/s"))["last_exit"]

    told = [message["output"][1] for message in ended if "output" in message]
    # Beside a test on the same machine that runs out of memory, this end would be taken for one of those.
    assert report["cause"] in ("killed_from_outside", "out_of_memory")
    assert "had been running `stderr last words …`" in told[-1]
    assert (pid, -1, "SIGKILL") == (report["process_id"], report["exit_code"], report["signal"])
    assert msg_id == report["running"]["msg_id"]
    assert ["last words\n"] == report["last_words"]


@pytest.mark.parametrize(("end", "asked"), [("kill", "kill"), ("restart", "restart")])
async def test_who_asked_for_the_end_is_told(end: str, asked: str) -> None:
    """An end that a call asked for is no mystery."""
    async with open_client() as client, open_started(client, body()) as channel:
        await client.call("POST", f"/sessions/s/{end}")
        await receive_until(channel, is_kernel("exited"))
        report = (await client.call("GET", "/sessions/s"))["last_exit"]

    assert ("requested", asked) == (report["cause"], report["requested_by"])
