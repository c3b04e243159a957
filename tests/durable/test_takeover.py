"""A server with a state directory ends, and the next one goes on: sessions, kernels, and what clients are owed."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiClient, send_request
from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kallichore.config import ServerConfig
from kallichore.server import open_server
from kallichore.wire.client_messages import make
from keeping import ending, keeping
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    is_done,
    is_idle,
    is_kernel,
    is_status,
    is_type,
    open_started,
    receive_until,
    run_code,
    text_of,
    wait_ended,
)

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")


def attend(client: ApiClient, **query: Any) -> AbstractAsyncContextManager[ChannelClient]:
    """Connect to the session's channels."""
    return open_channel(client.address, "s", **query)


async def until_done(channel: ChannelClient, msg_id: str) -> str:
    """Return what an execution printed from now on."""
    return text_of(await receive_until(channel, is_done(msg_id)))


async def test_kernel_goes_on_while_there_is_no_server(private_place: Path) -> None:
    """The next server has the same session and the same process, whose code has run on; clients get its output."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request(f"print one\nafter {private_place / 'go'}\nprint two"))
        await receive_until(channel, is_type("stream", msg_id))
        before = await client.call("GET", "/sessions/s")
    (private_place / "go").touch()
    async with ending(private_place) as client, attend(client) as channel:
        messages = await receive_until(channel, is_done(msg_id))
        after = await client.call("GET", "/sessions/s")
        later = await run_code(channel, "print later")

    assert "two" in text_of(messages)
    assert later == "later\n"
    for member in ("process_id", "started", "session_id", "display_name"):
        assert before[member] == after[member]


async def test_numbered_client_goes_on_where_it_was(private_place: Path) -> None:
    """A client that names the last number that it has gets what follows, each message once."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with attend(client, since=0) as channel:
            msg_id = await channel.send(make_execute_request(f"after {private_place / 'go'}\nflood 3000 10"))
            first = await receive_until(channel, is_type("execute_input", msg_id))
    (private_place / "go").touch()
    since = max(message["seq"] for message in first if "seq" in message)
    async with ending(private_place) as client, attend(client, since=since) as channel:
        rest = await receive_until(channel, is_done(msg_id))
    numbers = [message["seq"] for message in (*first, *rest) if "seq" in message]
    lines = [int(message["content"]["text"].split()[0]) for message in rest if is_type("stream")(message)]

    assert numbers == list(range(1, len(numbers) + 1))
    assert lines == list(range(3000))


async def test_what_waits_in_the_queue_runs_once(private_place: Path) -> None:
    """The execution that ran is not sent again, and those that waited are sent when their turn comes."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        codes = [f"after {private_place / 'go'}\nprint first", "print second", "print third"]
        ids = [await channel.send(make_execute_request(codes[0]))]
        await receive_until(channel, is_type("execute_input", ids[0]))
        ids += [await channel.send(make_execute_request(code)) for code in codes[1:]]
        await receive_until(channel, is_kernel("executionQueued", ids[-1]))
    async with ending(private_place) as client, attend(client) as channel:
        waiting = (await client.call("GET", "/sessions/s"))["execution_queue"]
        (private_place / "go").touch()
        messages = await receive_until(channel, is_done(ids[-1]))

    assert [entry["header"]["msg_id"] for entry in (waiting["active"], *waiting["pending"])] == ids
    assert text_of(messages) == "first\nsecond\nthird\n"


async def test_open_question_is_answered_to_the_next_server(private_place: Path) -> None:
    """A kernel that asks for input while a server goes is asked for by the next one, and gets the answer."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request("input name?"))
        await receive_until(channel, is_type("input_request"))
    async with ending(private_place) as client, attend(client) as channel:
        await receive_until(channel, is_type("input_request"))
        await channel.send(make_message("input_reply", {"value": "Ada", "status": "ok"}, "stdin"))
        printed = await until_done(channel, msg_id)

    assert "Ada" in printed


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [("exit 3", 3, "code 3"), (f"kill {int(signal.SIGABRT)}", -1, "SIGABRT")],
    ids=["exit code", "signal"],
)
async def test_end_that_nobody_saw_is_known(private_place: Path, command: str, code: int, words: str) -> None:
    """A kernel that ends while no server is there is reported with its exit code, or its signal, by the next."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request(f"after {private_place / 'go'}\nstderr last words\n{command}"))
        await receive_until(channel, is_type("execute_input", msg_id))
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
    (private_place / "go").touch()
    await wait_ended(pid)
    async with ending(private_place) as client, attend(client) as channel:
        messages = await receive_until(channel, is_kernel("exited"))
        session = await ask_until(client, lambda session: session["status"] == "exited")
        await client.call("DELETE", "/sessions/s")
        left = list((private_place / "state" / "sessions").iterdir())

    assert messages[-1]["exited"] == code
    assert words in session["last_exit"]["text"]
    assert "last words" in str(messages)
    assert left == []


async def test_history_and_directory_are_kept(private_place: Path) -> None:
    """What ran before is in the history, and the kernel's directory is known, after one server and the next."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        await run_code(channel, f"print one\nchdir {private_place}")
    async with keeping(private_place) as client, attend(client) as channel:
        await run_code(channel, "print two")
    async with ending(private_place) as client:
        history = await client.call("GET", "/sessions/s/history")
        session = await client.call("GET", "/sessions/s")

    assert [entry["output"] for entry in history] == ["one\n", "two\n"]
    assert session["working_directory"] == str(private_place)


async def test_process_output_is_whole(private_place: Path) -> None:
    """What the kernel's process prints past its messages arrives once, the line that a server's end cuts included."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        await channel.send(make_execute_request(f"stdout before\nafter {private_place / 'go'}\nstdout after"))
        await receive_until(channel, lambda message: message.get("output", ["", ""])[1] == "before\n")
    (private_place / "go").touch()
    async with ending(private_place) as client, attend(client, since=0) as channel:
        messages = await receive_until(channel, lambda message: message.get("output", ["", ""])[1] == "after\n")

    assert [message["output"][1] for message in messages if "output" in message] == ["before\n", "after\n"]


@pytest.mark.parametrize("act", ["interrupt", "kill", "restart"])
async def test_kernel_obeys_the_next_server(private_place: Path, act: str) -> None:
    """It can be interrupted, killed and restarted as if its server had started it."""
    async with keeping(private_place) as client, open_started(client, body(interrupt_mode="signal")) as channel:
        msg_id = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", msg_id))
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
    async with ending(private_place) as client, attend(client) as channel:
        await client.call("POST", f"/sessions/s/{act}")
        if act == "interrupt":
            await receive_until(channel, is_done(msg_id))
        elif act == "kill":
            await receive_until(channel, is_status("exited"))
            await wait_ended(pid)
            await client.call("POST", "/sessions/s/start")
        said = await run_code(channel, "print alive")
        after = (await client.call("GET", "/sessions/s"))["process_id"]

    assert said == "alive\n"
    assert (after == pid) == (act == "interrupt")


async def test_shutdown_by_request_ends_kernels_and_leaves_the_session(private_place: Path) -> None:
    """A client that asks for the server's end has its kernels ended; the session can be started again as it was."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        await run_code(channel, "print one")
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        await client.call("POST", "/shutdown")
        await wait_ended(pid)
        await receive_until(channel, is_status("exited"))
    async with ending(private_place) as client:
        session = await client.call("GET", "/sessions/s")
        await client.call("POST", "/sessions/s/start")
        async with attend(client) as channel:
            # What the client before had, and did not come to confirm, comes once more.
            running = await channel.send(make_execute_request("print two"))
            messages = await receive_until(channel, is_done(running))
        said = text_of([message for message in messages if is_type("stream", running)(message)])
        history = await client.call("GET", "/sessions/s/history")

    assert session["status"] == "exited"
    assert said == "two\n"
    assert [entry["input"] for entry in history] == ["print one", "print two"]


async def test_restarted_machine_is_named(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that went with its machine is reported as that, and its session can be started again."""
    monkeypatch.setattr("kallichore.session.keep.boot_id", lambda: "before")
    async with keeping(private_place, abandon_after=1) as client, open_started(client, body()):
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
    # Nobody comes back in time.
    await wait_ended(pid)
    monkeypatch.setattr("kallichore.session.keep.boot_id", lambda: "after")
    async with ending(private_place) as client:
        session = await ask_until(client, lambda session: session["status"] == "exited")
        await client.call("POST", "/sessions/s/start")

    assert "the machine was restarted" in session["last_exit"]["text"]


async def test_session_that_is_not_durable_ends_with_its_server(private_place: Path) -> None:
    """With durable false it is as without a state directory."""
    async with keeping(private_place) as client, open_started(client, body(durable=False)):
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
    await wait_ended(pid)
    async with ending(private_place) as client:
        sessions = await client.call("GET", "/sessions")

    assert sessions["sessions"] == []


async def test_kernel_that_was_starting_is_started_by_the_next_server(private_place: Path) -> None:
    """A start in the middle of which the server goes is taken up, with what clients had sent for it."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body("s", "slow-info=0.5"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "POST", "/sessions/s/start")
            async with attend(client) as channel:
                msg_id = await channel.send(make_execute_request("print hello"))
                await receive_until(channel, is_status("starting"))
            await ask_until(client, lambda session: session.get("process_id") is not None)
            nursery.cancel_scope.cancel()
    async with ending(private_place) as client, attend(client) as channel:
        printed = await until_done(channel, msg_id)

    assert printed == "hello\n"


async def test_kernel_whose_host_is_killed_ends_and_is_reported(private_place: Path) -> None:
    """The end of a host is the end of its kernel, and of no other; the session says so and can be started again."""
    async with ending(private_place) as client, open_started(client, body()) as channel:
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        os.kill(_parent_of(pid), signal.SIGKILL)
        messages = await receive_until(channel, is_kernel("exited"))
        await wait_ended(pid)
        session = await ask_until(client, lambda session: session["status"] == "exited")
        await client.call("POST", "/sessions/s/start")
        said = await run_code(channel, "print again")

    assert messages[-1]["exited"] == -1
    assert "host" in session["last_exit"]["text"]
    assert said == "again\n"


def _parent_of(pid: int) -> int:
    import psutil

    return int(psutil.Process(pid).ppid())


async def test_idle_of_the_past_does_not_come_again(private_place: Path) -> None:
    """What a client confirmed is not told to the next one, whatever server it comes to."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        first = await channel.send(make_execute_request("print one"))
        await receive_until(channel, is_done(first))
        await run_code(channel, "print two")
    async with ending(private_place) as client, attend(client) as channel:
        msg_id = await channel.send(make_execute_request("print three"))
        messages = await receive_until(channel, is_idle(msg_id))

    assert not any(is_idle(first)(message) for message in messages)


async def test_jupyter_clients_find_their_documents(private_place: Path) -> None:
    """The next server has the same kernels for Jupyter's clients, and the same documents tied to them."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        (kernel,) = await client.call("GET", "/api/kernels")
        wanted = {"path": "a.ipynb", "type": "notebook", "name": "a", "kernel": {"id": kernel["id"]}}
        await send_request(client.address, "POST", "/api/sessions", json.dumps(wanted).encode())
    async with ending(private_place) as client:
        (after,) = await client.call("GET", "/api/kernels")
        (document,) = await client.call("GET", "/api/sessions")

    assert kernel["id"] == after["id"] == document["kernel"]["id"]
    assert document["path"] == "a.ipynb"


@pytest.mark.parametrize("transport", ["tcp", "socket"])
async def test_next_server_is_reached_where_the_one_before_was(private_place: Path, transport: str) -> None:
    """Clients come back to the same address with the same token, where nobody chose others."""
    async with keeping(private_place, transport=transport) as client:
        before = client.address
    async with ending(private_place, transport=transport) as client:
        after = client.address

    assert before == after


async def test_adopted_kernel_is_adopted_again(private_place: Path) -> None:
    """A kernel that somebody else started has no host; the next server connects to it again, as the one before had."""
    async with keeping(private_place) as client, open_started(client, body()):
        info = await client.call("GET", "/sessions/s/connection_info")
        async with keeping(private_place / "other") as second:
            await second.call("PUT", "/sessions", body("t"))
            await second.call("PUT", "/sessions/t/adopt", info)
        async with ending(private_place / "other") as third, open_channel(third.address, "t") as channel:
            said = await run_code(channel, "print still here")
        await client.call("POST", "/shutdown")

    assert said == "still here\n"


async def test_message_that_comes_before_the_kernel_is_found_reaches_it(private_place: Path) -> None:
    """A client that is quicker than the way to the kernel's host is served, and what it sends keeps its order."""
    async with keeping(private_place) as client, open_started(client, body()):
        pass
    config = ServerConfig(state_directory=private_place / "state", on_exit="stop")
    async with open_server(config) as server:
        session = server.session("s")
        # No turn of the loop has passed in which the host could have been found.
        slot = session.attach()
        session.send(make("execute_request", "first", {"code": "print one", "allow_stdin": False}, "shell"))
        with trio.fail_after(REAL_TIME):
            while not session.conversation.history.entries() or session.conversation.is_at_work:  # noqa: ASYNC110
                await trio.sleep(0.01)
        output = session.conversation.history.entries()[-1].output
        session.detach(slot)

    assert output == "one\n"
