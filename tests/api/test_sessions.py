"""A session's life over HTTP and WebSocket, on both transports, with a scripted kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiError, send_request, session_path
from kallichore.client.channel_client import make_execute_request, make_message, open_channel
from kallichore.client.websocket import ChannelClosedError
from kernels import (
    KILLED,
    LOCAL,
    REAL_TIME,
    body,
    execute,
    is_done,
    is_idle,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    scripted_argv,
    statuses_of,
    text_of,
    wait_ended,
)

TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", LOCAL])


async def wait_status(client: Any, session_id: str, status: str) -> dict[str, Any]:
    """Ask until a session has a status. Nothing announces it to a client without channels, so this one asks again."""
    with trio.fail_after(REAL_TIME):
        while True:
            session = await client.call("GET", session_path(session_id))
            if session["status"] == status:
                return session
            await trio.sleep(0.01)


@TRANSPORTS
async def test_code_runs_in_a_started_session(transport: str) -> None:
    """A created and started session runs code, and its output arrives on the channel."""
    async with open_client(transport=transport) as client, open_started(client, body("a/b ü")) as channel:
        assert await run_code(channel, "print hello") == "hello\n"


@TRANSPORTS
async def test_start_answers_with_the_kernel_info(transport: str) -> None:
    """The answer of start is the content of the kernel's reply, which the session keeps."""
    async with open_client(transport=transport) as client:
        await client.call("PUT", "/sessions", body("s", "prompts"))
        info = await client.call("POST", session_path("s", "start"))
        session = await client.call("GET", session_path("s"))

        assert info["implementation"] == "scripted"
        assert session["kernel_info"] == info
        assert (session["input_prompt"], session["continuation_prompt"]) == ("in> ", "...> ")
        assert session["status"] == "idle"
        assert session["initial_env"]["PATH"]
        assert session["process_id"] > 1


async def test_new_session_is_uninitialized_and_deletable() -> None:
    """A session that was never started is uninitialized, and can be deleted and created again."""
    async with open_client() as client:
        assert await client.call("PUT", "/sessions", body("s")) == {"session_id": "s"}
        session = await client.call("GET", session_path("s"))
        assert session["status"] == "uninitialized"
        assert session["initial_env"] == {}
        assert session["kernel_info"] == {"language_info": {}}
        assert session["execution_queue"] == {"length": 0, "pending": []}
        assert "process_id" not in session
        assert await client.call("DELETE", session_path("s")) is None
        assert await client.call("GET", "/sessions") == {"total": 0, "sessions": []}
        await client.call("PUT", "/sessions", body("s"))


async def refused(client: Any, method: str, path: str, content: Any = None) -> tuple[int, Any]:
    """Send a request that must be refused; return status and error code."""
    with pytest.raises(ApiError) as info:
        await client.call(method, path, content)
    answer = info.value.body
    return info.value.status, answer.get("error", answer).get("code") if isinstance(answer, dict) else answer


async def test_refusals_have_the_codes_of_the_api() -> None:
    """What cannot be done is refused with its status and code, and nothing changes."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s"))
        assert await refused(client, "PUT", "/sessions", body("s")) == (400, "KS-0")
        assert await refused(client, "PUT", "/sessions", body("t", argv=["/no/such/kernel"])) == (400, "KS-19")
        assert await refused(client, "PUT", "/sessions", body("t", argv=["./kernel"])) == (400, "KS-19")
        assert await refused(client, "PUT", "/sessions", body("t", argv=["/tmp"])) == (400, "KS-19")
        assert await refused(client, "POST", session_path("s", "kill")) == (400, "KS-12")
        assert await refused(client, "POST", session_path("s", "interrupt")) == (400, "KS-10")
        for method, operation in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "start"),
            ("POST", "kill"),
            ("GET", "channels"),
        ):
            assert await refused(client, method, session_path("nobody", operation)) == (404, "KS-1")
        await client.call("PUT", "/sessions", body("empty", argv=[]))
        assert await refused(client, "POST", session_path("empty", "start")) == (500, "KS-5")
        assert (await client.call("GET", session_path("empty")))["status"] == "uninitialized"
        await client.call("POST", session_path("s", "start"))
        assert await refused(client, "POST", session_path("s", "start")) == (500, "KS-2")
        assert await refused(client, "DELETE", session_path("s")) == (400, "KS-2")
        await client.call("POST", session_path("s", "kill"))
        await wait_status(client, "s", "exited")
        assert await refused(client, "POST", session_path("s", "kill")) == (400, "KS-3")
        assert await refused(client, "POST", session_path("s", "interrupt")) == (400, "KS-10")
        assert await client.call("DELETE", session_path("s")) is None
        assert await refused(client, "DELETE", session_path("s")) == (404, "KS-1")


@TRANSPORTS
async def test_client_that_connects_late_gets_what_was_said_before(transport: str, private_place: Path) -> None:
    """Messages wait for a client in order: the start, the output, and what the kernel said without anybody
    listening.
    """
    async with open_client(transport=transport) as client:
        async with open_started(client, body("s", "burst=3")) as channel:
            messages = await receive_until(channel, is_status("idle"))

            assert statuses_of(messages)[:2] == ["starting", "idle"]
            assert text_of(messages) == "burst 0\nburst 1\nburst 2\n"
            go = private_place / "go"
            await channel.send(make_execute_request(f"after {go}\nprint while away"))
            await receive_until(channel, is_type("execute_input"))
        go.touch()
        await wait_status(client, "s", "idle")
        async with open_channel(client.address, "s") as channel:
            messages = await receive_until(channel, is_status("idle"))

            assert text_of(messages) == "while away\n"
            assert sum(map(is_type("execute_input"), messages)) == 0


@TRANSPORTS
async def test_newer_client_displaces_the_older(transport: str) -> None:
    """The older client is told that it is displaced and closed without a code; the newer one carries on."""
    async with open_client(transport=transport) as client, open_started(client, body()) as older:
        await execute(older, "print one")
        async with open_channel(client.address, "s") as newer:
            with pytest.raises(ChannelClosedError) as info:
                await receive_until(older, is_kernel("nothing"))
            assert info.value.close_code == 1005
            assert await run_code(newer, "print two") == "two\n"
            assert (await client.call("GET", session_path("s")))["connected"] is True


async def test_headers_reach_the_kernel_as_the_api_promises() -> None:
    """Session, username and version are the session's; metadata, content and unknown header members go through."""
    async with open_client() as client, open_started(client, body()) as channel:
        request = make_execute_request("headers")
        request["header"]["cell"] = "7"
        request["metadata"] = {"attribution": {"source": "test"}}
        request["parent_header"] = {"msg_id": "p", "msg_type": "comm_msg"}
        request["buffers"] = ["AAEC"]
        msg_id = await channel.send(request)
        messages = await receive_until(channel, is_done(msg_id))
        seen = json.loads(text_of(messages))

        assert seen["header"] == {
            "msg_id": msg_id,
            "msg_type": "execute_request",
            "session": "s",
            "username": "tester",
            "version": "5.3",
            "date": seen["header"]["date"],
            "cell": "7",
        }
        assert seen["header"]["date"].endswith("Z")
        assert (seen["parent"]["msg_id"], seen["parent"]["msg_type"]) == ("p", "comm_msg")
        assert seen["metadata"] == {"attribution": {"source": "test"}}
        assert (seen["identities"], seen["buffers"]) == (1, 1)


async def test_executions_run_one_at_a_time_in_order(private_place: Path) -> None:
    """While one execution runs the others wait in the session's queue, are announced, and run in order."""
    go = private_place / "go"
    async with open_client() as client, open_started(client, body()) as channel:
        ids = [await channel.send(make_execute_request(f"after {go}\nprint {number}")) for number in range(4)]
        queued = await receive_until(channel, is_kernel("executionQueued", ids[3]))
        assert [message["executionQueued"] for message in queued if "executionQueued" in message] == ids[1:]
        queue = (await client.call("GET", session_path("s")))["execution_queue"]
        assert queue["active"]["header"]["msg_id"] == ids[0]
        assert queue["length"] == 3
        assert [message["header"]["msg_id"] for message in queue["pending"]] == ids[1:]
        go.touch()
        assert text_of(queued + await receive_until(channel, is_done(ids[3]))) == "0\n1\n2\n3\n"


@pytest.mark.parametrize("mode", ["message", "signal"])
async def test_interrupt_ends_what_runs_and_drops_what_waits(mode: str) -> None:
    """An interrupt ends the running execution with an error; those that wait never run."""
    async with open_client() as client, open_started(client, body(interrupt_mode=mode)) as channel:
        running = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", running))
        waiting = await channel.send(make_execute_request("print never"))
        await receive_until(channel, is_kernel("executionQueued", waiting))
        assert await client.call("POST", session_path("s", "interrupt")) is None
        reply = (await receive_until(channel, is_type("execute_reply", running)))[-1]

        assert reply["content"]["ename"] == "KeyboardInterrupt"
        assert await run_code(channel, "print after") == "after\n"
        assert (await client.call("GET", session_path("s")))["execution_queue"] == {"length": 0, "pending": []}


async def test_restart_keeps_the_channel_and_the_order_of_messages(private_place: Path) -> None:
    """A restart says exited, its code, starting, in this order, on the channel that stays open; options hold."""
    async with open_client() as client, open_started(client, body()) as channel:
        before = await run_code(channel, "pid")
        env = [{"action": "replace", "name": "WHERE", "value": "restarted"}]
        where = str(private_place.resolve())
        options = {"working_directory": where, "env": env}
        assert await client.call("POST", session_path("s", "restart"), options) is None
        messages = await receive_until(channel, is_status("idle"))
        news = [next(iter(set(message) - {"kind"})) for message in messages if message["kind"] == "kernel"]

        assert [name for name in news if name in ("status", "exited")] == ["status", "exited", "status", "status"]
        assert statuses_of(messages) == ["exited", "starting", "idle"]
        assert await run_code(channel, "env WHERE") == "restarted"
        assert await run_code(channel, "cwd") == where
        assert await run_code(channel, "pid") != before


async def test_restart_of_a_session_without_kernel_starts_it() -> None:
    """A restart of a session that was never started, or whose kernel is dead, just starts it."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", session_path("s", "restart"))
        await client.call("POST", session_path("s", "kill"))
        await wait_status(client, "s", "exited")
        await client.call("POST", session_path("s", "restart"))
        await wait_status(client, "s", "idle")


async def test_shutdown_request_ends_the_kernel_and_its_reply_arrives() -> None:
    """A shutdown_request is relayed with its reply; then comes the end, exited last, and the channel stays open."""
    async with open_client() as client, open_started(client, body()) as channel:
        await channel.send(make_message("shutdown_request", {"restart": False}, "shell"))
        messages = await receive_until(channel, is_kernel("exited"))

        assert any(map(is_type("shutdown_reply"), messages))
        assert statuses_of(messages)[-1] == "exited"
        assert messages[-1] == {"kind": "kernel", "exited": 0}
        await client.call("DELETE", session_path("s"))


async def test_kernel_that_hangs_in_its_shutdown_is_ended() -> None:
    """Whoever asked it to shut down waits for its end; a kernel that falls silent on the way there is given one."""
    settings = {"heartbeat_limit": 0.3, "heartbeat_pause": 0.1, "shutdown_grace": 0.1, "terminate_grace": 0.1}
    async with (
        open_client(**settings) as client,
        open_started(client, body("s", "hang-at-end", "ignore-sigterm")) as channel,
    ):
        await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
        messages = await receive_until(channel, is_kernel("exited"))
        described = await client.call("GET", session_path("s"))

    assert any(map(is_type("shutdown_reply"), messages))
    # A living status before the end: the real client opens its sending again at nothing else.
    assert ["offline", "idle", "exited"] == statuses_of(messages)[-3:]
    assert described["last_exit"]["requested_by"] == "shutdown_request"


@pytest.mark.posix_only("an end by a signal")
async def test_death_by_signal_is_told_in_words() -> None:
    """A kernel that is killed is reported with code -1, after an output that names the signal."""
    async with open_client() as client, open_started(client, body()) as channel:
        await channel.send(make_execute_request("kill 9"))
        messages = await receive_until(channel, is_kernel("exited"))
        outputs = [message["output"][1] for message in messages if "output" in message]

        assert messages[-1]["exited"] == -1
        assert "SIGKILL" in outputs[-1]
        session = await client.call("GET", session_path("s"))
        assert session["status"] == "exited"
        assert "process_id" not in session
        assert session["kernel_info"]["implementation"] == "scripted"


async def test_kill_reaches_what_the_kernel_started() -> None:
    """A kill ends the whole process group, or job: grandchildren do not outlive the kernel."""
    async with open_client() as client, open_started(client, body()) as channel:
        grandchild = int(await run_code(channel, "spawn 600"))
        pid, *group = map(int, (await run_code(channel, "pid")).split()[:2])
        assert group in ([pid], [])  # Windows has none
        await client.call("POST", session_path("s", "kill"))
        await receive_until(channel, is_kernel("exited", KILLED[0]))

        await wait_ended(grandchild)


not_followed = pytest.mark.posix_only("working directories are not followed on Windows")


@not_followed
async def test_working_directory_is_followed() -> None:
    """A change of directory by code is announced before the idle message, and shown by the session."""
    async with open_client() as client, open_started(client, body()) as channel:
        await execute(channel, "print settle")
        msg_id = await channel.send(make_execute_request("chdir /usr"))
        messages = await receive_until(channel, is_idle(msg_id))

        assert [message["workingDirChanged"] for message in messages if "workingDirChanged" in message] == ["/usr"]
        assert (await client.call("GET", session_path("s")))["working_directory"] == "/usr"


async def test_language_is_an_object_while_the_kernel_starts() -> None:
    """A client that comes back meanwhile can look into language_info, before there is anything in it."""
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.call("PUT", "/sessions", body("s", "silent-shell"))
        nursery.start_soon(client.call, "POST", session_path("s", "start"))
        starting = await wait_status(client, "s", "starting")
        nursery.cancel_scope.cancel()

    assert starting["kernel_info"] == {"language_info": {}}


@not_followed
@pytest.mark.parametrize("made_anew", [False, True])
async def test_deleted_directory_is_told_to_nobody(made_anew: bool, private_place: Path) -> None:
    """A kernel in a directory that is gone has no place to tell; a restart goes to the session's own directory, or to
    the one of that path where there is one again.
    """
    project, scratch = private_place / "project", private_place / "scratch"
    project.mkdir()
    scratch.mkdir()
    request = body(working_directory=str(project))
    async with open_client() as client, open_started(client, request) as channel:
        told = await execute(channel, f"chdir {scratch}")
        scratch.rmdir()
        if made_anew:
            scratch.mkdir()
        told += await execute(channel, "print anything")
        told += await execute(channel, "print more")
        before = await client.call("GET", session_path("s"))
        await client.call("POST", session_path("s", "restart"), {})
        told += await execute(channel, "cwd")
        after = await client.call("GET", session_path("s"))

    expected = str(scratch if made_anew else project)
    assert str(scratch) == before["working_directory"]
    assert expected == after["working_directory"] == text_of(told).splitlines()[-1]
    assert "(deleted)" not in json.dumps([told, before, after])


async def test_input_request_reaches_the_client_and_its_answer_the_kernel() -> None:
    """A kernel's question arrives on stdin, and the client's answer gets back."""
    async with open_client() as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request("input who?"))
        question = (await receive_until(channel, is_type("input_request", msg_id)))[-1]
        assert (question["channel"], question["content"]["prompt"]) == ("stdin", "who?")
        await channel.send(make_message("input_reply", {"value": "me", "status": "ok"}, "stdin"))
        assert text_of(await receive_until(channel, is_done(msg_id))) == "me\n"


async def test_adopted_kernel_works_and_its_death_is_noticed(private_place: Any) -> None:
    """A kernel that somebody else started is adopted with its own key; its end is reported with code 0."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", argv=[]))
        info = await client.call("GET", session_path("s", "connection_info"))
        assert await client.call("GET", session_path("s", "connection_info")) == info
        info["key"] = "another key"
        file = private_place / "adopted.json"
        file.write_text(json.dumps(info))
        argv = [word.replace("{connection_file}", str(file)) for word in scripted_argv()]
        process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL)
        try:
            reply = await client.call("PUT", session_path("s", "adopt"), info)
            assert reply["implementation"] == "scripted"
            async with open_channel(client.address, "s") as channel:
                assert await run_code(channel, "print adopted") == "adopted\n"
                assert await refused(client, "POST", session_path("s", "kill")) == (400, "KS-12")
                process.kill()
                messages = await receive_until(channel, is_kernel("exited"))
                assert messages[-1]["exited"] == 0
        finally:
            process.kill()
            await process.wait()


async def test_resource_usage_is_sampled_while_somebody_looks() -> None:
    """A connected client is sent samples with real numbers, and the session shows the latest."""
    async with open_client(resource_sample_interval_ms=100) as client, open_started(client, body()) as channel:
        usage = (await receive_until(channel, is_kernel("resourceUsage")))[-1]["resourceUsage"]

        assert usage["memory_bytes"] > 1 << 20
        assert usage["thread_count"] >= 1
        assert usage["sampling_period_ms"] == 100
        assert "resource_usage" in await client.call("GET", session_path("s"))


async def test_closing_the_http_connection_does_not_cancel_a_start() -> None:
    """A client that goes away during start leaves a start that goes on to its end."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("s", "slow-info=0.5"))
        with trio.move_on_after(0.2):
            await send_request(client.address, "POST", session_path("s", "start"))
        await wait_status(client, "s", "idle")


async def test_content_goes_through_byte_for_byte() -> None:
    """Numbers that no float can hold, order and spacing of a client's content reach the kernel as they were sent."""
    async with open_client() as client, open_started(client, body()) as channel:
        raw = '{"code": "content",  "big": 12345678901234567890123, "z": 1.10, "a": "\\u00e9"}'
        text = '{"header":{"msg_id":"m","msg_type":"execute_request"},"channel":"shell","content":' + raw + ","
        await channel.socket.send_message(text + '"metadata":{},"buffers":[]}')

        assert text_of(await receive_until(channel, is_done("m"))) == raw
