"""Why a kernel ended: what the report says, and that clients, callers and the session's description all get it."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import make_execute_request
from kallichore.conversation.exit_report import Circumstances, make_exit_report, running_request
from kallichore.kernel.ending import Ending
from kallichore.models.bodies import ExitCause, KernelExit
from kernels import REAL_TIME, ask_until, body, is_kernel, is_type, open_client, open_started, receive_until


def report_of(ending: Ending, **known: Any) -> KernelExit:
    """Return the report of an ending, with nothing else known by default."""
    defaults: dict[str, Any] = {"requested_by": None, "running": None, "memory_bytes": None, "last_words": ()}
    return make_exit_report(Circumstances(ending, datetime(2026, 1, 1, tzinfo=UTC), **{**defaults, **known}))


@pytest.mark.parametrize(
    ("ending", "requested_by", "cause", "words"),
    [
        (Ending(7, 3), None, ExitCause.EXITED, "exited with code 3"),
        (Ending(7, 0), "restart", ExitCause.REQUESTED, "on request (restart)"),
        (Ending(7, -1, "SIGSEGV"), None, ExitCause.SIGNAL, "SIGSEGV"),
        (Ending(7, -1, "SIGKILL"), None, ExitCause.KILLED_FROM_OUTSIDE, "most often that is for memory"),
        (Ending(7, -1, "SIGKILL", out_of_memory=True), None, ExitCause.OUT_OF_MEMORY, "ran out of memory"),
        (Ending(7, -1, "SIGKILL", killed_by_us=True), "kill", ExitCause.REQUESTED, "on request (kill)"),
    ],
)
def test_cause_is_told_in_one_word_and_in_words(
    ending: Ending, requested_by: str | None, cause: ExitCause, words: str
) -> None:
    """What ended the kernel is told apart: itself, a signal, memory, somebody outside, or whoever asked."""
    report = report_of(ending, requested_by=requested_by)

    assert cause is report.cause
    assert words in report.text


def test_report_names_what_ran_and_the_memory() -> None:
    """Where memory is suspected, the figures are there; the code that ran is cut to its first line."""
    ending = Ending(7, -1, "SIGKILL", peak_memory_bytes=3_000_000_000)
    running = running_request("m", "x = load()\nmore", 12.34)
    report = report_of(ending, running=running, memory_bytes=1_000_000_000, last_words=["a\n", "b\n"])

    assert "`x = load() …` for 12.3 s" in report.text
    assert "1,000 MB when last looked at and 3,000 MB at its peak" in report.text
    assert ("a\n", "b\n") == report.last_words


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
