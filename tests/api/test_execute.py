"""Code over HTTP, in one call: results, errors, turns, time limits, and what the history says afterwards."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiClient, ApiError, send_request
from kallichore.client.channel_client import make_execute_request
from kallichore.client.event_stream import open_events
from kallichore.session import execute_call
from kernels import REAL_TIME, ask_until, body, is_kernel, is_type, open_client, open_started, receive_until, run_code


async def run(client: ApiClient, code: str, **members: Any) -> Any:
    """Execute code over HTTP."""
    with trio.fail_after(REAL_TIME):
        return await client.call("POST", "/sessions/s/execute", {"code": code, **members})


async def test_result_and_output_come_back_in_one_call() -> None:
    """Streams are joined, the result is apart from the output, and the client of the session sees it all as well."""
    async with open_client() as client, open_started(client, body()) as channel:
        reply = await run(client, "print one\nprint two\nresult 42")
        seen = await receive_until(channel, is_type("execute_result"))

    assert ("ok", 1, {"text/plain": "42"}) == (reply["status"], reply["execution_count"], reply["data"])
    assert [{"type": "stream", "stream_name": "stdout", "text": "one\ntwo\n"}] == reply["output"]
    assert {"text/plain": "42"} == seen[-1]["content"]["data"]


async def test_error_of_the_code_is_a_result() -> None:
    """An error is in the output, in its place, and in the reply's own members."""
    async with open_client() as client, open_started(client, body()):
        reply = await run(client, "print before\nerror it broke")

    assert ("error", "ScriptError", "it broke") == (reply["status"], reply["error_name"], reply["error_message"])
    assert ["stream", "error"] == [output["type"] for output in reply["output"]]
    assert reply["error_traceback"] == reply["output"][1]["error_traceback"]


async def test_calls_take_turns_with_the_client() -> None:
    """A call waits behind what a client runs; the client is not told of somebody else's waiting as its own result."""
    async with open_client() as client, open_started(client, body()) as channel, trio.open_nursery() as nursery:
        first = await channel.send(make_execute_request("sleep 0.3\nprint first"))
        await receive_until(channel, is_type("execute_input", first))
        nursery.start_soon(run, client, "print second")
        messages = await receive_until(channel, lambda message: is_type("stream")(message) and "second" in str(message))

    streams = [message["content"]["text"] for message in messages if is_type("stream")(message)]
    assert ["first\n", "second\n"] == streams


async def test_who_has_code_run_is_told_to_clients_and_kept() -> None:
    """A call that says who makes it is announced to the session's clients before anything comes of it, the kernel gets
    the same, and the history names the agent; one that does not say is announced to nobody.
    """
    attribution = {"source": "agent", "agent_name": "Ada", "tool": "look"}
    async with open_client() as client, open_started(client, body()) as channel:
        await run(client, "print unsaid")
        await run(client, "print said", attribution=attribution)
        messages = await receive_until(channel, lambda message: is_type("stream")(message) and "said" in str(message))
        messages += await receive_until(channel, lambda message: is_type("stream")(message) and "said" in str(message))
        history = await client.call("GET", "/sessions/s/history")
        with pytest.raises(ApiError) as refused:
            await run(client, "print no", attribution={"agent_name": 5})
    places = [at for at, message in enumerate(messages) if is_kernel("executionRequested")(message)]
    told = messages[places[0]]["executionRequested"]
    parents = [(message.get("parent_header") or {}).get("msg_id") for message in messages]

    assert len(places) == 1
    assert {**attribution, "agent_version": None, "workspace_id": None} == told["attribution"]
    assert ("print said", True) == (told["code"], places[0] < parents.index(told["msg_id"]))
    assert [(None, None), ("agent", "Ada")] == [(entry.get("source"), entry.get("agent")) for entry in history]
    assert refused.value.status == 400
    assert {"$.attribution.source", "$.attribution.agent_name"} == {
        line.rpartition(" @ ")[2] for line in refused.value.message.splitlines()
    }


async def test_call_whose_time_is_up_interrupts_what_it_runs() -> None:
    """The answer is 408, and the kernel is free again."""
    async with open_client() as client, open_started(client, body()) as channel:
        with pytest.raises(ApiError, match="time") as refused:
            await run(client, "sleep 60", timeout_seconds=1)
        text = await run_code(channel, "print free")

    assert (408, "timeout") == (refused.value.status, refused.value.body["code"])
    assert "free\n" in text


async def test_call_whose_time_is_up_while_it_waits_leaves_others_alone() -> None:
    """Code that waited is withdrawn, and never runs; what runs goes on."""
    async with open_client() as client, open_started(client, body()) as channel:
        first = await channel.send(make_execute_request("sleep 1.5\nprint first"))
        with pytest.raises(ApiError, match="time"):
            await run(client, "print never", timeout_seconds=1)
        messages = await receive_until(channel, is_type("execute_reply", first))
        text = await run_code(channel, "print next")

    assert "never" not in str(messages) + text
    assert "ok" == messages[-1]["content"]["status"]


@pytest.mark.parametrize("end", ["kill", "interrupt"])
async def test_call_ends_when_its_code_will_never_run(end: str) -> None:
    """A kernel that is killed, or an interrupt while the code waits, ends the call with the reason."""
    async with open_client() as client, open_started(client, body()) as channel:
        first = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", first))

        async def call() -> None:
            with pytest.raises(ApiError) as refused:
                await run(client, "print never")
            assert (400, "channel_closed") == (refused.value.status, refused.value.body["code"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await receive_until(channel, is_kernel("executionQueued"))
            await client.call("POST", f"/sessions/s/{end}")


async def test_call_ends_when_its_kernel_dies() -> None:
    """Code that takes its kernel down is answered with how it ended."""
    async with open_client() as client, open_started(client, body()):
        with pytest.raises(ApiError, match="code 3") as refused:
            await run(client, "exit 3")

    assert "channel_closed" == refused.value.body["code"]


async def test_session_without_kernel_cannot_execute() -> None:
    """Never started, or exited: refused at once, with what to do."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        with pytest.raises(ApiError, match="start") as refused:
            await run(client, "print x")

    assert (400, "session_not_ready") == (refused.value.status, refused.value.body["code"])


async def test_call_waits_for_a_kernel_that_starts() -> None:
    """A call during the start runs once the kernel is ready."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", "slow-info=0.3"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "POST", "/sessions/s/start")
            while (await client.call("GET", "/sessions/s"))["status"] == "uninitialized":
                pass
            reply = await run(client, "print ready")

    assert "ready\n" == reply["output"][0]["text"]


async def test_execution_is_streamed_to_those_who_accept_events() -> None:
    """Each message is an event; the last one, named reply, is what the call would have returned."""
    async with open_client() as client, open_started(client, body()):
        answer = await send_request(
            client.address,
            "POST",
            "/sessions/s/execute",
            json.dumps({"code": "print hello"}).encode(),
            [("accept", "text/event-stream")],
        )

    events = answer.body.decode().strip().split("\n\n")
    types = [json.loads(event.removeprefix("data: "))["header"]["msg_type"] for event in events[:-1]]
    name, _, data = events[-1].partition("\n")
    assert "stream" in types
    assert "event: reply" == name
    assert "hello\n" == json.loads(data.removeprefix("data: "))["output"][0]["text"]


async def test_history_tells_what_ran_whoever_sent_it() -> None:
    """Calls and clients' requests are in the history, the last three also in the session's description."""
    async with open_client() as client, open_started(client, body()) as channel:
        await run_code(channel, "print 0")
        for number in range(1, 5):
            await run(client, f"print {number}")
        await run(client, "print silent", silent=True)
        history = await client.call("GET", "/sessions/s/history")
        session = await client.call("GET", "/sessions/s")

    assert [(f"print {number}", f"{number}\n") for number in range(5)] == [
        (entry["input"], entry["output"]) for entry in history
    ]
    assert history[-3:] == session["history"]


@pytest.mark.parametrize("name", ["timeout", "Code", "stop_on_eror"])
async def test_misspelt_member_is_refused_before_anything_runs(name: str) -> None:
    """A member that is not known is a 400 that names it and those that there are, and the code is not run."""
    async with open_client() as client, open_started(client, body()):
        with pytest.raises(ApiError, match="timeout_seconds") as refused:
            await client.call("POST", "/sessions/s/execute", {"code": "print x", name: 1})
        history = await client.call("GET", "/sessions/s/history")

    assert 400 == refused.value.status
    assert f"$.{name}" in str(refused.value)
    assert [] == history


async def test_streamed_execution_that_nobody_hears_any_more_leaves_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hears an execution as events and is gone while it waits for its turn has it taken out of the queue: the
    silence is broken now and then, and what cannot be written has no reader.
    """
    monkeypatch.setattr(execute_call, "SILENCE", 0.05)
    async with open_client() as client, open_started(client, body()) as channel:
        await channel.send(make_execute_request("sleep 1000"))
        await ask_until(client, lambda session: session["status"] == "busy")
        with trio.fail_after(REAL_TIME):
            async with open_events(client.address, "/sessions/s/execute", {"code": "print never"}):
                waiting = await ask_until(client, lambda session: session["execution_queue"]["length"] == 1)
            left = await ask_until(client, lambda session: session["execution_queue"]["length"] == 0)
        await client.call("POST", "/sessions/s/kill")

    assert (waiting["status"], left["status"]) == ("busy", "busy")
