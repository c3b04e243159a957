"""Every request is answered: by the kernel, or in its place, and truly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kernels import (
    KILLED,
    REAL_TIME,
    body,
    execute,
    is_done,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
)


def outcomes(messages: list[dict[str, Any]], msg_ids: list[str]) -> list[str]:
    """Return for each request the statuses of its replies and whether its idle came, as words."""
    words = dict.fromkeys(msg_ids, "")
    for message in messages:
        parent = (message.get("parent_header") or {}).get("msg_id")
        if message["kind"] != "jupyter" or parent not in words:
            continue
        if message["header"]["msg_type"].endswith("_reply"):
            words[parent] += message["content"]["status"] + " "
        elif message["content"].get("execution_state") == "idle":
            words[parent] += "idle "
    return [word.strip() for word in words.values()]


async def send_waiting(channel: ChannelClient, first: str, **content: Any) -> list[str]:
    """Send an execution, and two that wait behind it while it runs; return their ids."""
    ids = [await channel.send(make_execute_request(first, **content))]
    # Before that, the kernel would let an interrupt pass, as it runs nothing.
    await receive_until(channel, is_type("execute_input", ids[0]))
    ids += [await channel.send(make_execute_request(code, **content)) for code in ("print second", "print third")]
    await receive_until(channel, is_kernel("executionQueued", ids[-1]))
    return ids


def are_done(msg_ids: list[str]) -> Any:
    """Return a predicate, for one use: now each of these requests has its reply and its idle."""
    checks = {msg_id: is_done(msg_id) for msg_id in msg_ids}

    def check(message: dict[str, Any]) -> bool:
        for msg_id in [msg_id for msg_id, is_over in checks.items() if is_over(message)]:
            del checks[msg_id]
        return not checks

    return check


async def test_what_waits_behind_a_failure_is_aborted_and_what_comes_later_runs(private_place: Path) -> None:
    """As ipykernel does itself with what it has: a reply with the status aborted, and an idle."""
    async with open_client() as client, open_started(client, body()) as channel:
        ids = await send_waiting(channel, f"after {private_place / 'go'}\nerror no")
        (private_place / "go").touch()
        told = await receive_until(channel, are_done(ids))
        later = await run_code(channel, "print later")

    assert [sorted(words.split()) for words in outcomes(told, ids)] == [
        ["error", "idle"],
        ["aborted", "idle"],
        ["aborted", "idle"],
    ]
    assert later == "later\n"
    assert "second" not in str([message for message in told if is_type("stream")(message)])


@pytest.mark.parametrize("content", [{"stop_on_error": False}, {"silent": True}])
async def test_failure_that_stops_nothing_lets_the_others_run(content: dict[str, Any], private_place: Path) -> None:
    """With stop_on_error false, and where the failing execution is silent, the queue goes on."""
    async with open_client() as client, open_started(client, body()) as channel:
        ids = await send_waiting(channel, f"after {private_place / 'go'}\nerror no", **content)
        (private_place / "go").touch()
        told = await receive_until(channel, are_done(ids))

    assert [sorted(words.split()) for words in outcomes(told, ids)] == [
        ["error", "idle"],
        ["idle", "ok"],
        ["idle", "ok"],
    ]


@pytest.mark.parametrize("act", ["interrupt", "kill", "restart", "client interrupts", "client shuts down", "death"])
async def test_whatever_ends_the_running_execution_those_that_wait_are_aborted(act: str) -> None:
    """An interrupt, a kill, a restart, a shutdown or a death: nobody else would answer them."""
    # Read by the kernel in the middle of its sleep.
    first = "sleep 0.3\nkill 9" if act == "death" else "sleep 60"
    async with open_client(shutdown_grace=0.5) as client, open_started(client, body()) as channel:
        ids = await send_waiting(channel, first)
        match act:
            case "client interrupts":
                await channel.send(make_message("interrupt_request", {}, "control"))
            case "client shuts down":
                await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
            case "restart":
                await client.call("POST", "/sessions/s/restart", {})
            case "interrupt" | "kill":
                await client.call("POST", f"/sessions/s/{act}")
        told = await receive_until(channel, are_done(ids))
        waited = outcomes(told, ids)

    assert waited[1:] == ["aborted idle", "aborted idle"]
    assert sorted(waited[0].split()) == ["error", "idle"]


async def test_what_is_sent_after_an_interrupt_runs() -> None:
    """It was sent in spite of it, even if the interrupted code has not ended yet."""
    async with open_client() as client, open_started(client, body()) as channel:
        first = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", first))
        await channel.send(make_message("interrupt_request", {}, "control"))
        second = await channel.send(make_execute_request("print second"))
        told = await receive_until(channel, are_done([first, second]))

    assert [sorted(words.split()) for words in outcomes(told, [first, second])] == [["error", "idle"], ["idle", "ok"]]


async def test_requests_that_the_kernel_has_when_it_dies_are_answered_before_its_end_is_told() -> None:
    """What it was at work on is an error that says why; what it never began is aborted; a shutdown has happened."""
    async with open_client() as client, open_started(client, body()) as channel:
        running = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", running))
        behind = await channel.send(make_message("complete_request", {"code": "", "cursor_pos": 0}, "shell"))
        await client.call("POST", "/sessions/s/kill")
        told = await receive_until(channel, is_status("exited"))
        error = next(filter(is_type("execute_reply", running), told))

    assert outcomes(told, [running, behind]) == ["error idle", "aborted idle"]
    assert "KernelDied" == error["content"]["ename"]
    assert KILLED[1] in error["content"]["evalue"]


async def test_request_to_a_kernel_that_has_exited_is_answered_with_an_error() -> None:
    """The real client would wait for ever."""
    async with open_client() as client, open_started(client, body()) as channel:
        await client.call("POST", "/sessions/s/kill")
        await receive_until(channel, is_kernel("exited"))
        with trio.fail_after(REAL_TIME):
            told = await execute(channel, "print 1")

    reply = next(filter(is_type("execute_reply"), told))
    assert ("error", "KernelExited") == (reply["content"]["status"], reply["content"]["ename"])


async def test_requests_for_a_kernel_that_never_comes_are_aborted() -> None:
    """What was sent while it was starting, or before, is answered when the start has failed."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", "exit-before-info=3"))
        async with open_channel(client.address, "s") as channel:
            ids = [await channel.send(make_execute_request("print 1")) for _ in range(2)]
            ids.append(await channel.send(make_message("complete_request", {"code": "", "cursor_pos": 0}, "shell")))
            await receive_until(channel, is_kernel("executionQueued"))
            with pytest.raises(Exception, match="exited with code 3"):
                await client.call("POST", "/sessions/s/start")
            told = await receive_until(channel, is_kernel("exited"))

    assert [words.split()[-1] for words in outcomes(told, ids)] == ["idle"] * 3
    assert [words.split()[0] for words in outcomes(told, ids)][1:] == ["aborted"] * 2


async def test_requests_during_a_restart_are_the_next_kernels() -> None:
    """They are neither lost nor aborted."""
    async with (
        open_client(shutdown_grace=1, terminate_grace=0.2) as client,
        open_started(client, body("s", "ignore-shutdown")) as channel,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "POST", "/sessions/s/restart", {})
            await receive_until(channel, is_type("shutdown_reply"))
            msg_id = await channel.send(make_execute_request("print next"))
            told = await receive_until(channel, is_done(msg_id))

    assert sorted(outcomes(told, [msg_id])[0].split()) == ["idle", "ok"]


@pytest.mark.parametrize("end", ["no-idle", "no-status", "idle-of-first"])
async def test_reply_releases_the_next_execution_where_no_idle_of_its_own_comes(end: str) -> None:
    """Such kernels exist, and work elsewhere; afterwards the session is idle."""
    async with open_client() as client, open_started(client, body()) as channel:
        ids = [await channel.send(make_execute_request(f"print {number}\n{end}")) for number in range(3)]
        with trio.fail_after(REAL_TIME):
            told = await receive_until(channel, is_type("execute_reply", ids[-1]))
            while (await client.call("GET", "/sessions/s"))["status"] != "idle":
                told.append(await channel.receive())
            reply = await client.call("POST", "/sessions/s/execute", {"code": f"print over\n{end}"})

    assert [words.split()[0] for words in outcomes(told, ids)] == ["ok"] * 3
    assert ("ok", "over\n") == (reply["status"], reply["output"][0]["text"])


@pytest.mark.parametrize("outcome", ["aborted", "abort", ""])
async def test_call_whose_reply_is_not_ok_is_an_error_with_a_name(outcome: str) -> None:
    """Only ok means that the code ran to its end."""
    async with open_client() as client, open_started(client, body()):
        reply = await client.call("POST", "/sessions/s/execute", {"code": f"outcome {outcome or 'none'}"})

    assert ("error", "ExecutionAborted") == (reply["status"], reply["error_name"])


async def test_call_that_waits_behind_a_failure_is_told_so(private_place: Path) -> None:
    """Its code never runs, and it hears it at once."""
    async with open_client() as client, open_started(client, body()) as channel, trio.open_nursery() as nursery:
        await channel.send(make_execute_request(f"after {private_place / 'go'}\nerror no"))
        refused = []

        async def call() -> None:
            with pytest.raises(Exception, match="taken out of the queue") as info:
                await client.call("POST", "/sessions/s/execute", {"code": "print never"})
            refused.append(info)

        nursery.start_soon(call)
        await receive_until(channel, is_kernel("executionQueued"))
        (private_place / "go").touch()

    assert len(refused) == 1


async def test_what_the_process_prints_is_in_a_calls_output() -> None:
    """A child program's output is somebody's output too."""
    async with open_client() as client, open_started(client, body()):
        reply = await client.call("POST", "/sessions/s/execute", {"code": "stdout from a child\nprint own"})
        # The beginning of a line: 70 is "p".
        partial = await client.call("POST", "/sessions/s/execute", {"code": "raw stderr 70"})

    text = "".join(output["text"] for output in reply["output"])
    assert ["from a child", "own"] == sorted(text.splitlines())
    assert [("stderr", "p")] == [(output["stream_name"], output["text"]) for output in partial["output"]]
