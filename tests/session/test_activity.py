"""When a session is busy: as long as anything of its main shell runs, whatever else is asked meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.channel_client import make_execute_request, make_message
from kallichore.config import ServerConfig
from kallichore.conversation.conversation import OpenInput
from kallichore.server import open_server
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    execute,
    freeze,
    ipykernel_argv,
    is_done,
    is_idle,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    scripted,
    statuses_of,
    thaw,
    unseen_in_wine,
)

QUICK_HEART = {"heartbeat_limit": 0.5, "heartbeat_pause": 0.1}


@pytest.mark.parametrize("msg_type", ["kernel_info_request", "usage_request", "debug_request", "list_subshell_request"])
async def test_request_on_control_leaves_a_busy_session_busy(msg_type: str, private_place: Path) -> None:
    """It has a busy and an idle of its own, and says nothing about the cell that runs."""
    async with open_client() as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request(f"after {private_place / 'go'}"))
        await receive_until(channel, is_type("execute_input", msg_id))
        asked = await channel.send(make_message(msg_type, {}, "control"))
        told = await receive_until(channel, is_done(asked))
        session, server = await client.call("GET", "/sessions/s"), await client.call("GET", "/status")
        (private_place / "go").touch()
        told += await receive_until(channel, is_done(msg_id))

    assert ("busy", True) == (session["status"], server["busy"])
    assert statuses_of(told) == ["idle"]


async def test_request_on_control_leaves_an_idle_session_idle() -> None:
    """Who asks for the usage each second does not make a session look busy, nor reset for how long it is idle."""
    async with open_client() as client, open_started(client, body()) as channel:
        asked = await channel.send(make_message("usage_request", {}, "control"))
        told = await receive_until(channel, is_done(asked))

    assert [status for status in statuses_of(told) if status not in ("starting", "idle")] == []


async def test_comm_message_inside_an_execution_does_not_end_it(private_place: Path) -> None:
    """Code may serve comm messages while it waits; each is busy and idle, and the session is busy throughout."""
    async with open_client() as client, open_started(client, body()) as channel:
        told = await execute(channel, "comm\ncomm\nsleep 0.05")

    assert statuses_of(told)[-2:] == ["busy", "idle"]


async def test_subshell_answers_beside_a_cell_and_neither_waits_nor_changes_the_status() -> None:
    """JEP 91: what is sent to a subshell or on control runs at once, and the session is busy with its cell."""
    async with open_client() as client, open_started(client, body(argv=list(ipykernel_argv()))) as channel:
        created = await channel.send(make_message("create_subshell_request", {}, "control"))
        reply = next(filter(is_type("create_subshell_reply"), await receive_until(channel, is_done(created))))
        cell = await channel.send(make_execute_request("import threading\ngo = threading.Event()\ngo.wait()"))
        await receive_until(channel, is_type("execute_input", cell))
        request = make_execute_request("'beside'")
        request["header"]["subshell_id"] = reply["content"]["subshell_id"]
        told = await receive_until(channel, is_done(await channel.send(request)))
        busy = await client.call("GET", "/sessions/s")
        on_control = {**make_execute_request("go.set()"), "channel": "control"}
        await channel.send(on_control)
        told += await receive_until(channel, is_done(cell))
        ran = [message["parent_header"]["msg_id"] for message in told if is_type("execute_reply")(message)]

    assert ("busy", 0) == (busy["status"], busy["execution_queue"]["length"])
    assert "executionQueued" not in {member for message in told for member in message}
    assert request["header"]["msg_id"] == ran[0]
    assert statuses_of(told) == ["idle"]


async def test_kernel_with_one_thread_is_not_offline_while_it_works(private_place: Path) -> None:
    """It cannot answer its heartbeat while code runs; afterwards it does."""
    async with (
        open_client(**QUICK_HEART) as client,
        open_started(client, body("s", "heart-rests")) as channel,
    ):
        msg_id = await channel.send(make_execute_request("sleep 2.5"))
        told = await receive_until(channel, is_done(msg_id))
        told += await execute(channel, "print done")

    assert "offline" not in statuses_of(told)


@unseen_in_wine
async def test_stopped_process_is_offline_whatever_it_runs_and_its_server_is_busy(private_place: Path) -> None:
    """It does nothing while it is stopped, but its code is not done."""
    async with (
        open_client(**QUICK_HEART) as client,
        open_started(client, body("s", "heart-rests")) as channel,
    ):
        msg_id = await channel.send(make_execute_request(f"after {private_place / 'go'}"))
        await receive_until(channel, is_type("execute_input", msg_id))
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        freeze(pid)
        await receive_until(channel, is_status("offline"))
        server = await client.call("GET", "/status")
        thaw(pid)
        back = await receive_until(channel, lambda message: "status" in message)
        (private_place / "go").touch()
        await receive_until(channel, is_done(msg_id))

    assert server["busy"] is True
    assert statuses_of(back) == ["busy"]


async def test_silent_kernel_that_is_at_rest_is_offline() -> None:
    """Nothing runs that could excuse it."""
    async with open_client(**QUICK_HEART) as client, open_started(client, body()) as channel:
        await run_code(channel, "print 1")
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        freeze(pid)
        await receive_until(channel, is_status("offline"))
        thaw(pid)
        told = await receive_until(channel, lambda message: "status" in message)

    assert statuses_of(told) == ["idle"]


@unseen_in_wine
async def test_kernel_without_a_heartbeat_works_and_is_never_offline_unless_it_is_stopped() -> None:
    """Jupyter can use it as well."""
    async with (
        open_client(**QUICK_HEART) as client,
        open_started(client, body("s", "no-heart")) as channel,
    ):
        told = await execute(channel, "sleep 2")
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        freeze(pid)
        stopped = await receive_until(channel, is_status("offline"))
        thaw(pid)
        back = await receive_until(channel, lambda message: "status" in message)

    assert "offline" not in statuses_of(told) + statuses_of(stopped)[:-1]
    assert statuses_of(back) == ["idle"]


@pytest.mark.parametrize("act", ["restart", "kill"])
async def test_kernel_that_was_offline_is_told_to_live_before_it_is_told_to_be_gone(act: str) -> None:
    """The real client opens its sending again only at a living status that is not `exited`."""
    async with (
        open_client(**QUICK_HEART, shutdown_grace=0.2, terminate_grace=0.2) as client,
        open_started(client, body()) as channel,
    ):
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        freeze(pid)
        await receive_until(channel, is_status("offline"))
        with trio.fail_after(REAL_TIME):
            await client.call("POST", f"/sessions/s/{act}", {} if act == "restart" else None)
        told = await receive_until(channel, is_status("starting" if act == "restart" else "exited"))

    assert statuses_of(told)[:2] == ["idle", "exited"]


@unseen_in_wine
@pytest.mark.parametrize("behaviour", [(), ("heart-rests",)])
async def test_server_is_in_use_as_long_as_code_runs_or_waits(behaviour: tuple[str, ...], private_place: Path) -> None:
    """Nobody has to be connected, and the status does not matter: work would be lost."""
    config = ServerConfig(heartbeat_limit=0.2, heartbeat_pause=0.1)
    go = private_place / "go"
    with trio.fail_after(REAL_TIME):
        async with open_server(config) as server:
            session = server.create_session(scripted("s", *behaviour))
            await session.start()
            before = server._is_in_use()
            async with session.execute(f"after {go}") as execution:
                async for message in execution:
                    if message["header"]["msg_type"] == "execute_input":
                        assert session.process_id is not None
                        freeze(session.process_id)
                        while session.status.value != "offline":  # noqa: ASYNC110  # a status has no event
                            await trio.sleep(0.01)
                        stopped = server._is_in_use()
                        thaw(session.process_id)
                        go.touch()
            after = server._is_in_use()

    assert (before, stopped, after) == (False, True, False)


async def test_running_time_of_a_death_report_is_the_codes() -> None:
    """Control requests in between do not begin it anew."""
    async with open_client() as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request("sleep 0.5\nsleep 60"))
        await receive_until(channel, is_type("execute_input", msg_id))
        for _ in range(3):
            asked = await channel.send(make_message("usage_request", {}, "control"))
            await receive_until(channel, is_idle(asked))
        await ask_until(client, lambda session: session["busy_seconds"] >= 1)
        await client.call("POST", "/sessions/s/kill")
        ended: dict[str, Any] = await ask_until(client, lambda session: session["status"] == "exited")

    assert ended["last_exit"]["running"]["seconds"] >= 1


async def test_session_whose_kernel_waits_for_input_is_in_use() -> None:
    """Whatever it asks for: the server does not end for idleness meanwhile."""
    async with open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        before = session.is_in_use
        session.conversation.open_input = OpenInput(b"{}", None, 0)
        asking = session.is_in_use

    assert (False, True) == (before, asking)
