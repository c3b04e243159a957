"""Kernels that nobody uses are ended: what everybody is told before, then and afterwards, with real kernels."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import make_message
from kallichore.config import ServerConfig
from kallichore.errors import ValueRangeError
from kallichore.models.bodies import CullHold
from kallichore.server import open_server
from kallichore.server.idle import IdleClock
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    freeze,
    ipykernel_argv,
    is_kernel,
    open_client,
    open_started,
    receive_until,
    run_code,
    scripted,
    scripted_argv,
)

SOON = 4
"""Seconds that a kernel has where it is to be used before; it is warned after two."""

WHY = re.compile(r"on request \(cull_idle_after\)\. It was ended because it had been idle for \d+ seconds$")


async def test_idle_kernel_is_warned_ended_explained_and_can_be_started_again() -> None:
    """The client that is there is told in time; the reason is in the output, the status and the session."""
    async with (
        open_client(cull_idle_after=SOON, cull_connected=True) as client,
        open_started(client, body(argv=list(ipykernel_argv()))) as channel,
    ):
        assert await run_code(channel, "print('used')") == "used\n"
        before = await client.call("GET", "/sessions/s")
        told = await receive_until(channel, is_kernel("exited"))
        session = await client.call("GET", "/sessions/s")
        await client.call("POST", "/sessions/s/restart")
        assert await run_code(channel, "print('back')") == "back\n"

    lines = [line for stream, line in (each["output"] for each in told if "output" in each) if stream == "stderr"]
    *_, warned, ended = (line.rstrip() for line in lines if line.startswith("[kallichore] "))
    assert {"idle_after": SOON, "connected": True, "busy": False} == {
        name: value for name, value in before["cull"].items() if name != "deadline"
    }
    assert datetime.fromisoformat(before["cull"]["deadline"]) <= datetime.now(UTC) + timedelta(seconds=SOON)
    assert "Its kernel will be ended in 2 seconds, at " in warned
    assert WHY.search(ended)
    assert [ended.removeprefix("[kallichore] ")] == [
        each["status"]["reason"] for each in told if "status" in each and each["status"]["status"] == "exited"
    ]
    report = session["last_exit"]
    assert ("exited", "requested", "cull_idle_after") == (session["status"], report["cause"], report["requested_by"])
    assert WHY.search(report["text"])
    assert ("no_kernel", None) == (session["cull"]["held_by"], session["cull"].get("deadline"))


async def test_client_keeps_the_kernel_and_takes_it_with_it() -> None:
    """Where clients count. The session tells what holds it, and the kernel ends when nobody is there any more."""
    async with open_client(cull_idle_after=SOON) as client:
        async with open_started(client, body()) as channel:
            await run_code(channel, "print x")
            held = (await client.call("GET", "/sessions/s"))["cull"]
        session = await ask_until(client, lambda session: session["status"] == "exited")

    assert ("clients", None) == (held["held_by"], held.get("deadline"))
    assert "cull_idle_after" == session["last_exit"]["requested_by"]


async def test_kernel_that_runs_is_ended_with_what_it_runs_where_that_does_not_count(private_place: Path) -> None:
    """The report says what was running."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(cull_idle_after=1, cull_busy=True))
        await client.call("POST", "/sessions/s/start")
        with pytest.raises(ApiError, match="The kernel ended during the execution"):
            await client.call("POST", "/sessions/s/execute", {"code": f"after {private_place / 'never'}"})
        report = (await client.call("GET", "/sessions/s"))["last_exit"]

    why = r"nobody had used it for \d seconds?, whatever it was at \(cull_busy\)\. It had been running `after"
    assert re.search(why, report["text"])


async def test_session_has_its_own_limits_and_none_means_none() -> None:
    """What a session is created with counts before what the server was told, in both ways of creating one."""
    async with open_client(cull_idle_after=3600, cull_busy=True) as client:
        for session_id, members in (
            ("never", {"cull_idle_after": 0}),
            ("own", {"cull_idle_after": 60, "cull_connected": True, "cull_busy": False}),
            ("server", {"cull_idle_after": None}),
        ):
            await client.call("PUT", "/sessions", body(session_id, **members))
        listed = (await client.call("GET", "/sessions"))["sessions"]

    shown = {session["session_id"]: session.get("cull") for session in listed}
    assert {
        "never": None,
        "own": {"idle_after": 60, "connected": True, "busy": False, "held_by": "no_kernel"},
        "server": {"idle_after": 3600, "connected": False, "busy": True, "held_by": "no_kernel"},
    } == shown


async def test_kernel_that_is_started_by_name_may_have_limits_of_its_own(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request is enough."""
    folder = private_place / "jupyter" / "kernels" / "script"
    folder.mkdir(parents=True)
    spec = {"argv": list(scripted_argv()), "display_name": "S", "language": "script", "interrupt_mode": "message"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(private_place / "jupyter"))
    wanted = {"kernel": "script", "cull_idle_after": 7200, "cull_connected": True, "cull_busy": True}
    async with open_client() as client:
        cull = (await client.call("POST", "/sessions", wanted))["cull"]

    assert ({"idle_after": 7200, "connected": True, "busy": True}, True) == (
        {name: value for name, value in cull.items() if name != "deadline"},
        "deadline" in cull,
    )


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("cull_idle_after", -1, "cull_idle_after is -1; it cannot be negative: seconds, 0 for never"),
        ("cull_idle_after", 1.5, "must be an integer of 32 bits, not 1.5 @ $.cull_idle_after"),
        ("cull_idle_after", True, "must be an integer of 32 bits, not true @ $.cull_idle_after"),
        ("cull_idle_after", "60", 'must be an integer of 32 bits, not "60" @ $.cull_idle_after'),
        ("cull_connected", 1, "must be true or false, not 1 @ $.cull_connected"),
        ("cull_busy", "yes", 'must be true or false, not "yes" @ $.cull_busy'),
    ],
)
async def test_limit_that_is_none_is_refused_by_name(member: str, value: object, problem: str) -> None:
    """The answer names the member and what it may be; there is no session."""
    async with open_client() as client:
        with pytest.raises(ApiError) as refused:
            await client.call("PUT", "/sessions", body(**{member: value}))
        sessions = await client.call("GET", "/sessions")

    assert (400, 0) == (refused.value.status, sessions["total"])
    assert problem in str(refused.value)


async def test_program_that_embeds_the_server_is_told_the_same() -> None:
    """A wrong limit is refused; a kernel that nobody runs code in is ended, and `run` says why it is gone."""
    async with open_server(ServerConfig(cull_idle_after=0.5)) as server:
        with pytest.raises(ValueRangeError, match="cull_idle_after is -5"):
            server.create_session(scripted(cull_idle_after=-5))
        session = server.create_session(scripted())
        await session.start()
        free = session.describe().cull
        with trio.fail_after(REAL_TIME):
            await session.wait_ended()
        ended = session.describe().cull

    assert free is not None
    assert ended is not None
    assert (None, CullHold.NO_KERNEL) == (free.held_by, ended.held_by)
    assert session.conversation.last_exit is not None
    assert "cull_idle_after" == session.conversation.last_exit.requested_by


async def test_end_of_an_idle_kernel_does_not_put_off_the_servers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody did anything: the server's idle shutdown counts on from what somebody did last."""
    nudges: list[float] = []
    monkeypatch.setattr(IdleClock, "nudge", lambda _, now: nudges.append(now))
    async with open_server(ServerConfig(cull_idle_after=0.5)) as server:
        session = server.create_session(scripted())
        await session.start()
        await session.run("print x")
        before = len(nudges)
        with trio.fail_after(REAL_TIME):
            await session.wait_ended()

    assert before
    assert before == len(nudges)


async def test_restart_in_the_middle_of_the_end_has_a_kernel_again() -> None:
    """Somebody came back one moment too late; the report is then of a restart."""
    async with open_client(cull_idle_after=SOON, cull_connected=True, shutdown_grace=0.5) as client:
        async with open_started(client, body("s", "ignore-shutdown", "ignore-sigterm")) as channel:
            await ask_until(client, lambda session: session["cull"].get("held_by") == "ending")
            await client.call("POST", "/sessions/s/restart")
            session = await client.call("GET", "/sessions/s")
            await receive_until(channel, is_kernel("exited"))

    assert ("idle", "restart") == (session["status"], session["last_exit"]["requested_by"])


async def test_kernel_that_declined_to_shut_down_is_ended_all_the_same() -> None:
    """A client asked it, and it stayed: then it is idle like any other."""
    async with open_client(cull_idle_after=1, cull_connected=True, shutdown_grace=0.3) as client:
        async with open_started(client, body("s", "ignore-shutdown")) as channel:
            await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
            await receive_until(channel, is_kernel("exited"))
        report = (await client.call("GET", "/sessions/s"))["last_exit"]

    assert "cull_idle_after" == report["requested_by"]


@pytest.mark.posix_only("nothing stops a process on Windows")
async def test_kernel_that_stands_still_is_ended() -> None:
    """It hears no request, and is killed when the grace periods are over."""
    graces = {"shutdown_grace": 0.3, "terminate_grace": 0.3}
    async with open_client(cull_idle_after=1, **graces) as client:
        await client.call("PUT", "/sessions", body("s"))
        await client.call("POST", "/sessions/s/start")
        freeze((await client.call("GET", "/sessions/s"))["process_id"])
        report = (await ask_until(client, lambda session: session["status"] == "exited"))["last_exit"]

    assert ("cull_idle_after", "SIGKILL") == (report["requested_by"], report["signal"])


async def test_adopted_kernel_is_asked_to_end_and_let_go(private_place: Any) -> None:
    """It is somebody else's: it may decline, and clients are told why this server has left it."""
    async with open_client(cull_idle_after=1, cull_connected=True, shutdown_grace=0.3) as client:
        await client.call("PUT", "/sessions", body("s"))
        info = await client.call("GET", "/sessions/s/connection_info")
        file = private_place / "adopted.json"
        file.write_text(json.dumps(info))
        command = [word.format(connection_file=file) for word in scripted_argv("ignore-shutdown")]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL)
        try:
            await client.call("PUT", "/sessions/s/adopt", info)
            session = await ask_until(client, lambda session: session["status"] == "exited")
            lives = process.poll() is None
            logged = (await client.call("GET", "/sessions/s/logs"))["lines"]
        finally:
            process.kill()
            await process.wait()

    assert lives
    assert "no_kernel" == session["cull"]["held_by"]
    assert any(
        line["text"].startswith("[kallichore] The connection to the adopted kernel ended. It was ended because it had")
        for line in logged
    )
