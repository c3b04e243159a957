"""The Python and the bash kernel behind a whole server, seen as a client sees them: over HTTP and the channels.

Faults that no real kernel shows are tests/session/ and the scripted kernel's business. A kernel takes half a second
to start, so each test asks a lot of the one that it has.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiClient, ApiError, open_stream, send_request, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kernels import (
    LONG_SLEEP,
    REAL_TIME,
    bash_kernel_argv,
    body,
    execute,
    ipykernel_argv,
    is_done,
    is_idle,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    statuses_of,
    text_of,
    wait_ended,
)

TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", "socket"])


def python_body(session_id: str = "s", **members: Any) -> dict[str, Any]:
    """Return the JSON body of a new session with the Python kernel."""
    return body(session_id, argv=list(ipykernel_argv()), **members)


def replace(name: str, value: str) -> dict[str, str]:
    """Return the environment action that sets a variable."""
    return {"action": "replace", "name": name, "value": value}


@asynccontextmanager
async def open_python(
    transport: str = "tcp", *, settings: dict[str, Any] | None = None, **members: Any
) -> AsyncIterator[tuple[ApiClient, ChannelClient]]:
    """Run a server with a started Python kernel; yield a client of each kind, the channels at the first idle."""
    async with (
        open_client(transport=transport, **(settings or {})) as client,
        open_started(client, python_body(**members)) as channel,
    ):
        await receive_until(channel, is_status("idle"))
        yield client, channel


async def refusal(client: ApiClient, method: str, operation: str = "", content: Any = None) -> tuple[int, str]:
    """Send a request about the session that must be refused; return its status and error code."""
    with pytest.raises(ApiError) as info:
        await client.call(method, session_path("s", operation), content)
    return info.value.status, info.value.body.get("error", info.value.body)["code"]


def news_of(messages: list[dict[str, Any]]) -> list[str]:
    """Return the course of a kernel's life among some messages: its statuses, and its exits with their codes."""
    told = (message for message in messages if message["kind"] == "kernel")
    names = (
        message["status"]["status"] if "status" in message else f"exit {message['exited']}"
        for message in told
        if "status" in message or "exited" in message
    )
    return list(names)


def types_of(messages: list[dict[str, Any]]) -> list[str]:
    """Return what some messages are: the type of a kernel's message, or the member of one of the session's."""
    return [
        message["header"]["msg_type"] if message["kind"] == "jupyter" else next(iter(message.keys() - {"kind"}))
        for message in messages
    ]


@TRANSPORTS
async def test_executions_queue_up_and_an_error_stops_none_that_do_not_ask_for_it(
    transport: str, private_place: Path
) -> None:
    """Requests sent at once run one after another, each announced as queued, also behind one that failed."""
    go = private_place / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint(0)"
    async with open_python(transport) as (client, channel):
        codes = [wait, "print(1)", "1 / 0", "print(2)", "print(3)"]
        ids = [await channel.send(make_execute_request(code, stop_on_error=False)) for code in codes]
        queued = await receive_until(channel, is_kernel("executionQueued", ids[-1]))
        queue = (await client.call("GET", session_path("s")))["execution_queue"]
        go.touch()
        ran = queued + await receive_until(channel, is_done(ids[-1]))
        replies = [message for message in ran if is_type("execute_reply")(message)]
        inputs = [message["parent_header"]["msg_id"] for message in ran if is_type("execute_input")(message)]
        idle = (await client.call("GET", session_path("s")))["execution_queue"]

        assert ids[1:] == [message["executionQueued"] for message in ran if "executionQueued" in message]
        assert (ids[0], 4) == (queue["active"]["header"]["msg_id"], queue["length"])
        assert ids[1:] == [message["header"]["msg_id"] for message in queue["pending"]]
        assert ids == inputs
        assert ["ok", "ok", "error", "ok", "ok"] == [message["content"]["status"] for message in replies]
        assert "0\n1\n2\n3\n" == text_of(ran)
        assert {"length": 0, "pending": []} == idle


@TRANSPORTS
async def test_environment_and_directory_are_those_asked_for(
    transport: str, private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sees the environment actions applied in order, and its directory is known before and after a chdir."""
    monkeypatch.setenv("OF_SERVER", "middle")
    home, other = private_place / "home", private_place / "öther dir"
    home.mkdir()
    other.mkdir()
    actions = [
        replace("OURS", "b"),
        {"action": "append", "name": "OURS", "value": ":c"},
        {"action": "prepend", "name": "OURS", "value": "a:"},
        {"action": "append", "name": "OF_SERVER", "value": "-end"},
        {"action": "prepend", "name": "UNSET", "value": "new"},
        replace("UMLAUT", "ü\n$HOME '\""),
    ]
    async with open_python(transport, env=actions, working_directory=str(home)) as (client, channel):
        names = ["OURS", "OF_SERVER", "UNSET", "UMLAUT", "PATH"]
        seen = json.loads(
            await run_code(channel, f"import json, os; print(json.dumps([os.environ[n] for n in {names}]))")
        )
        expected = ["a:b:c", "middle-end", "new", "ü\n$HOME '\"", os.environ["PATH"]]
        initial = (await client.call("GET", session_path("s")))["initial_env"]
        stayed = await execute(channel, "print(os.getcwd())")
        moved = await execute(channel, f"os.chdir({str(other)!r})")
        session = await client.call("GET", session_path("s"))

        assert expected == seen
        assert expected == [initial[name] for name in names]
        assert f"{home}\n" == text_of(stayed)
        assert "workingDirChanged" not in types_of(stayed)
        assert [str(other)] == [message["workingDirChanged"] for message in moved if "workingDirChanged" in message]
        # The reply comes over another socket, and so before or after these.
        told = [name for name in types_of(moved) if name != "execute_reply"]
        assert ["status", "workingDirChanged", "status"] == told[-3:]
        assert str(other) == session["working_directory"]


async def test_input_comms_buffers_and_odd_numbers_pass_both_ways() -> None:
    """A question is answered on stdin, comm messages carry binary buffers there and back, NaN arrives as null."""
    async with open_python() as (_, channel):
        asked = await channel.send(make_execute_request("name = input('who? '); print(f'hello {name}')"))
        question = (await receive_until(channel, is_type("input_request", asked)))[-1]
        await channel.send(make_message("input_reply", {"value": "wörld", "status": "ok"}, "stdin"))
        answered = await receive_until(channel, is_done(asked))
        opening = await execute(
            channel,
            "from comm import create_comm\n"
            "c = create_comm(target_name='t', data={'n': 1}, buffers=[b'', b'\\x00\\xff'])\n"
            "c.on_msg(lambda m: c.send({'back': m['content']['data']},\n"
            "    buffers=[bytes(reversed(bytes(b))) for b in m['buffers']]))",
        )
        opened = next(filter(is_type("comm_open"), opening))
        message = make_message("comm_msg", {"comm_id": opened["content"]["comm_id"], "data": {"deep": [1, None, "ä"]}})
        big = "AAEC" * 500_000
        message["buffers"] = ["AQI=", big]
        sent = await channel.send(message)
        echo = next(filter(is_type("comm_msg"), await receive_until(channel, is_idle(sent))))
        shown = await execute(
            channel,
            "import json\nk = get_ipython().kernel\nk.session.pack = lambda o: json.dumps(o, default=str).encode()\n"
            "data = {'application/json': [float('nan'), 1e999, 1.5]}\n"
            "k.send_response(k.iopub_socket, 'display_data',\n"
            "    {'data': data, 'metadata': {'x': float('-inf')}, 'transient': {}}, buffers=[b'\\x01'])",
        )
        display = next(filter(is_type("display_data"), shown))

        assert ("stdin", "who? ") == (question["channel"], question["content"]["prompt"])
        assert "hello wörld\n" == text_of(answered)
        assert ("iopub", {"n": 1}, ["", "AP8="]) == (opened["channel"], opened["content"]["data"], opened["buffers"])
        assert {"back": {"deep": [1, None, "ä"]}} == echo["content"]["data"]
        assert ["AgE=", "AgEA" * 500_000] == echo["buffers"]
        assert [None, None, 1.5] == display["content"]["data"]["application/json"]
        assert ({"x": None}, ["AQ=="]) == (display["content"]["metadata"], display["buffers"])


@pytest.mark.parametrize("mode", ["signal", "message"])
async def test_interrupt_ends_the_running_code_and_drops_what_waits(mode: str) -> None:
    """The interrupted code raises KeyboardInterrupt, what waited never runs, and the kernel goes on."""
    async with open_python(interrupt_mode=mode) as (client, channel):
        running = await channel.send(
            make_execute_request(f"kept = 7\nimport time\nprint('on', flush=True)\n{LONG_SLEEP}")
        )
        await receive_until(channel, is_type("stream", running))
        waiting = await channel.send(make_execute_request("kept = 8"))
        await receive_until(channel, is_kernel("executionQueued", waiting))
        with trio.fail_after(5):
            assert await client.call("POST", session_path("s", "interrupt")) is None
            ended = await receive_until(channel, is_done(running))
        reply = next(filter(is_type("execute_reply", running), ended))

        assert ("error", "KeyboardInterrupt") == (reply["content"]["status"], reply["content"]["ename"])
        assert "7\n" == await run_code(channel, "print(kept)")


async def test_bash_kernel_runs_and_is_interrupted(private_place: Path) -> None:
    """A kernel around another program works too: code, errors, an interrupt by signal, and its shell ends with it."""
    request = body(
        argv=list(bash_kernel_argv()),
        interrupt_mode="signal",
        # Without the second, a debugger that nobody uses prints a warning into the first output.
        env=[replace("GREETING", "hi there"), replace("PYDEVD_DISABLE_FILE_VALIDATION", "1")],
        working_directory=str(private_place),
    )
    async with open_client(transport="socket") as client, open_started(client, request) as channel:
        child = int((await run_code(channel, "echo $$")).strip())
        assert "hi there" == (await run_code(channel, 'echo "$GREETING"')).strip()
        assert str(private_place) == (await run_code(channel, "pwd")).strip()
        failed = await execute(channel, "(exit 3)")
        assert "error" == next(filter(is_type("execute_reply"), failed))["content"]["status"]
        # What says that it runs is what is to be interrupted: bash between two commands loses a Ctrl-C, or ends by it.
        running = await channel.send(make_execute_request("bash -c 'echo on; exec sleep 60'"))
        await receive_until(channel, is_type("stream", running))
        await client.call("POST", session_path("s", "interrupt"))
        await receive_until(channel, is_done(running))
        assert "after" == (await run_code(channel, "echo after")).strip()
        await client.call("POST", session_path("s", "kill"))
        await receive_until(channel, is_kernel("exited", -1))
        await wait_ended(child)


@TRANSPORTS
async def test_a_session_outlives_its_kernels(transport: str, private_place: Path) -> None:
    """Restarts and deaths follow each other on one open channel, each told in order and with its code."""
    place = private_place / "new place"
    place.mkdir()
    settings = {"shutdown_grace": 0.5}
    async with open_python(transport, settings=settings, env=[replace("ROUND", "1")]) as (client, channel):
        before = await client.call("GET", session_path("s"))
        await execute(channel, f"import os; state = 1; os.chdir({str(private_place)!r})")
        waiting = [await channel.send(make_execute_request(code)) for code in ("import time; time.sleep(60)", "state")]
        await receive_until(channel, is_kernel("executionQueued", waiting[1]))

        # A busy kernel restarts, in the directory that it had, without its state and what waited for it.
        assert await client.call("POST", session_path("s", "restart")) is None
        restarted = await receive_until(channel, is_status("starting")) + await receive_until(
            channel, is_status("idle")
        )
        session = await client.call("GET", session_path("s"))
        assert ["exited", "exit -1", "starting", "idle"] == news_of(restarted)[-4:]
        assert (before["session_id"], before["started"]) == (session["session_id"], session["started"])
        assert before["process_id"] != session["process_id"]
        assert {"length": 0, "pending": []} == session["execution_queue"]
        code = "import os, time; print('state' in dir(), os.getcwd(), os.environ['ROUND'])"
        assert f"False {private_place} 1\n" == await run_code(channel, code)

        # With options they hold, for the next kernel and the ones after it.
        options = {"env": [replace("ROUND", "2")], "working_directory": str(place)}
        await client.call("POST", session_path("s", "restart"), options)
        assert f"False {place} 2\n" == await run_code(channel, code)

        # A kernel may end by itself in the middle of an execution; what waits is dropped, the code is told.
        dying = [
            await channel.send(make_execute_request(code))
            for code in ("print('bye', flush=True); time.sleep(0.1); os._exit(3)", "1")
        ]
        died = await receive_until(channel, is_kernel("exited"))
        session = await client.call("GET", session_path("s"))
        assert ["exited", "exit 3"] == news_of(died)[-2:]
        assert ["output", "status", "exited"] == types_of(died)[-3:]
        assert "bye\n" == text_of(died)
        assert "3" in died[-3]["output"][1]
        assert [] == [message for message in died if is_type("execute_input", dying[1])(message)]
        assert ("exited", {"length": 0, "pending": []}) == (session["status"], session["execution_queue"])
        assert "process_id" not in session
        assert "ipython" == session["kernel_info"]["implementation"]
        assert (400, "KS-3") == await refusal(client, "POST", "kill")
        assert (400, "KS-10") == await refusal(client, "POST", "interrupt")

        # A dead kernel restarts, and so does one that was killed.
        await client.call("POST", session_path("s", "restart"), {"env": [], "working_directory": ""})
        revived = await receive_until(channel, is_status("idle"))
        assert ["starting", "idle"] == news_of(revived)
        assert f"False {place} 2\n" == await run_code(channel, code)
        assert await client.call("POST", session_path("s", "kill")) is None
        assert ["exited", "exit -1"] == news_of(await receive_until(channel, is_kernel("exited")))[-2:]
        await client.call("POST", session_path("s", "start"))
        assert f"False {place} 2\n" == await run_code(channel, code)


@pytest.mark.parametrize("asked_on", ["control", "shell"])
async def test_orderly_shutdown_tells_the_reply_before_the_end(asked_on: str) -> None:
    """A running session can be neither started nor deleted; after its orderly shutdown it can be deleted soon."""
    async with open_python() as (client, channel):
        assert (500, "KS-2") == await refusal(client, "POST", "start")
        assert (400, "KS-2") == await refusal(client, "DELETE")
        assert "still here\n" == await run_code(channel, "print('still here')")
        asked = await channel.send(make_message("shutdown_request", {"restart": False}, asked_on))
        messages = await receive_until(channel, is_type("shutdown_reply", asked))
        with trio.fail_after(REAL_TIME):
            messages += await receive_until(channel, is_kernel("exited"))
            await client.call("DELETE", session_path("s"))

        assert {"restart": False, "status": "ok"} == next(filter(is_type("shutdown_reply"), messages))["content"]
        assert ["exited", "exit 0"] == news_of(messages)[-2:]
        assert {"total": 0, "sessions": []} == await client.call("GET", "/sessions")


MEMORY = 64 << 20
"""Bytes that the child of a kernel takes: much more than the noise of a kernel's own use."""

CHILD = f"""
import subprocess, sys
code = "data = bytearray({MEMORY}); data[::4096] = b'x' * len(data[::4096]); print(1, flush=True); input()"
child = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
"""


def is_usage(check: Any) -> Any:
    """Return a predicate: a sample of which ``check`` holds."""
    return lambda message: "resourceUsage" in message and check(message["resourceUsage"])


async def test_samples_count_children_or_not_at_the_pace_asked_for() -> None:
    """Samples show the kernel with its children, or alone, at the interval of the moment; 0 stops them."""
    async with open_python(settings={"resource_sample_interval_ms": 100}) as (client, channel):

        async def configure(**change: Any) -> None:
            await client.call("POST", "/server_configuration", change)

        alone = (await receive_until(channel, is_usage(lambda usage: True)))[-1]["resourceUsage"]
        await execute(channel, CHILD)
        grown = alone["memory_bytes"] + MEMORY
        more = (await receive_until(channel, is_usage(lambda usage: usage["memory_bytes"] > grown)))[-1][
            "resourceUsage"
        ]
        await configure(resource_include_children=False)
        await receive_until(channel, is_usage(lambda usage: usage["memory_bytes"] < grown))
        await configure(resource_sample_interval_ms=150)
        await receive_until(channel, is_usage(lambda usage: usage["sampling_period_ms"] == 150))
        busy = await channel.send(
            # Until it had so much, which takes longer on a busy machine.
            make_execute_request("import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass")
        )
        await receive_until(channel, is_usage(lambda usage: usage["cpu_percent"] > 10))
        await receive_until(channel, is_done(busy))
        await configure(resource_sample_interval_ms=1)
        clamped = (await receive_until(channel, is_usage(lambda usage: usage["sampling_period_ms"] != 150)))[-1]
        await configure(resource_sample_interval_ms=0)
        await execute(channel, "print('what was on its way has come')")
        silent = await execute(channel, "time.sleep(0.4)")
        session = await client.call("GET", session_path("s"))
        # ipykernel, asked to end, waits for the zombie of its child.
        await client.call("POST", session_path("s", "kill"))

        assert more["thread_count"] > alone["thread_count"] >= 1
        assert alone["timestamp"] < more["timestamp"]
        assert 100 == clamped["resourceUsage"]["sampling_period_ms"]
        assert "resourceUsage" not in types_of(silent)
        assert session["resource_usage"]["memory_bytes"] > 0


@asynccontextmanager
async def open_own_kernel(file: Path) -> AsyncIterator[trio.Process]:
    """Start a Python kernel that is nobody's session; killed on leaving."""
    argv = [word.replace("{connection_file}", str(file)) for word in ipykernel_argv()]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("end", ["death", "shutdown"])
async def test_a_kernel_of_somebody_else_is_adopted(end: str, private_place: Path) -> None:
    """A kernel started by hand is adopted with its own key, works, is not ours to kill, and its end is noticed."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=[]))
        info = await client.call("GET", session_path("s", "connection_info"))
        again = await client.call("GET", session_path("s", "connection_info"))
        own = {**info, "key": "0123-a-key-of-its-own"}
        file = private_place / "own.json"
        file.write_text(json.dumps(own))
        async with open_own_kernel(file) as process:
            reply = await client.call("PUT", session_path("s", "adopt"), own)
            async with open_channel(client.address, "s") as channel:
                text = await run_code(channel, "import os; print(os.getpid())")
                session = await client.call("GET", session_path("s"))
                shown = await client.call("GET", session_path("s", "connection_info"))
                refusals = [
                    await refusal(client, "POST", "kill"),
                    await refusal(client, "POST", "start"),
                    await refusal(client, "PUT", "adopt", own),
                    await refusal(client, "DELETE"),
                ]
                with trio.fail_after(5):
                    if end == "death":
                        process.send_signal(signal.SIGKILL)
                    else:
                        await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
                    messages = await receive_until(channel, is_kernel("exited"))
            await client.call("DELETE", session_path("s"))

        assert info == again
        assert own == shown
        assert (reply, "idle") == (session["kernel_info"], session["status"])
        assert f"{process.pid}\n" == text
        assert "process_id" not in session
        assert [(400, "KS-12"), (500, "KS-2"), (500, "KS-2"), (400, "KS-2")] == refusals
        assert ["exited", "exit 0"] == news_of(messages)[-2:]
        assert (end == "shutdown") == any(map(is_type("shutdown_reply"), messages))


def count_again(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> int:
    """Return how many messages come again: what the client had not confirmed when it left, in one piece."""
    return next(size for size in range(len(after), -1, -1) if before[len(before) - size :] == after[:size])


@TRANSPORTS
async def test_a_client_that_was_away_gets_all_that_it_missed_once(transport: str, private_place: Path) -> None:
    """A client that is displaced in a flood, and one that was away during one, leave no gap and no repetition."""
    count = 1500
    # Who opens a fifo waits for the other end: the kernel goes on when its client is gone, the test when all is said.
    gone, said = private_place / "gone", private_place / "said"
    for fifo in (gone, said):
        os.mkfifo(fifo)
    code = (
        f"for i in range({count}): print(i, flush=True)\n"
        "input('leave')\n"
        f"open({str(gone)!r}).close()\n"
        f"for i in range({count}): print(-i, flush=True)\n"
        f"open({str(said)!r}, 'w').close()\n"
        "input('back')\n"
    )
    async with open_client(transport=transport) as client:
        await client.call("PUT", "/sessions", python_body())
        await client.call("POST", session_path("s", "start"))
        async with open_channel(client.address, "s") as older:
            asked = await older.send(make_execute_request(code))
            received = await receive_until(older, is_type("stream"))
            async with open_channel(client.address, "s") as newer:
                received += await receive_until(older, is_kernel("clientDisconnected"))
                received += await receive_until(newer, is_type("input_request", asked))
                # What a kernel says on iopub may arrive after what it said later on stdin.
                with trio.fail_after(REAL_TIME):
                    while f"\n{count - 1}\n" not in text_of(received[-count:]):
                        received.append(await newer.receive())
                await newer.send(make_message("input_reply", {"value": "", "status": "ok"}, "stdin"))
        with trio.fail_after(REAL_TIME):
            await trio.to_thread.run_sync(gone.write_text, "", abandon_on_cancel=True)
            await trio.to_thread.run_sync(said.read_text, abandon_on_cancel=True)
        session = await client.call("GET", session_path("s"))
        async with open_channel(client.address, "s") as channel:
            missed = await receive_until(channel, is_type("input_request", asked))
            await channel.send(make_message("input_reply", {"value": "", "status": "ok"}, "stdin"))
            missed += await receive_until(channel, is_done(asked))

        assert ("busy", False) == (session["status"], session["connected"])
        assert asked == session["execution_queue"]["active"]["header"]["msg_id"]
        expected = [*range(count), *(-i for i in range(count))]
        received += missed[count_again(received, missed) :]
        assert expected == [int(line) for line in text_of(received).split()]
        assert ["starting", "idle", "busy", "idle"] == statuses_of(received)


UPGRADE = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_clients_that_speak_only_the_simplest_http_are_served() -> None:
    """A client that reads to the end of the stream, and only looks at status lines, finds its way to the channels."""
    async with open_client(transport="socket", token=None) as client:
        await client.call("PUT", "/sessions", python_body())
        with trio.fail_after(REAL_TIME):
            async with await open_stream(client.address) as stream:
                await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                status = b"".join([bytes(data) async for data in stream])
            async with await open_stream(client.address) as stream:
                await stream.send_all(b"GET /sessions/s/channels HTTP/1.1\r\n" + UPGRADE)
                told = bytes(await stream.receive_some())
            path = json.loads(told.partition(b"\r\n\r\n")[2])
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\n" + UPGRADE)
                upgraded = bytes(await stream.receive_some())

        assert [b"HTTP/1.1 200 OK"] * 2 == [answer.partition(b"\r\n")[0] for answer in (status, told)]
        assert b"\r\ncontent-type: application/json\r\n" in status
        assert upgraded.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


async def test_a_kernel_that_does_not_start_says_why() -> None:
    """A start that fails is answered with what the kernel printed, and leaves a session that can be deleted."""
    argv = [*ipykernel_argv()[:1], "-m", "ipykernel_launcher_of_another_world", "-f", "{connection_file}"]
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=argv))
        answer = await send_request(client.address, "POST", session_path("s", "start"))
        failure = answer.json()

        assert (500, "KS-8", 1) == (answer.status, failure["error"]["code"], failure["exit_code"])
        assert "No module named ipykernel_launcher_of_another_world" in failure["output"]
        assert "exited" == (await client.call("GET", session_path("s")))["status"]
        await client.call("DELETE", session_path("s"))


async def test_two_busy_kernels_do_not_wait_for_each_other() -> None:
    """What one session's kernel does, dying included, is nothing to another session."""
    async with open_client() as client:
        async with trio.open_nursery() as nursery:
            for session_id in ("a", "b"):
                await client.call("PUT", "/sessions", python_body(session_id))
                nursery.start_soon(client.call, "POST", session_path(session_id, "start"))
        async with open_channel(client.address, "a") as one, open_channel(client.address, "b") as other:
            busy = await one.send(make_execute_request("import time, os; time.sleep(60)"))
            await receive_until(one, is_type("execute_input", busy))
            assert "quick\n" == await run_code(other, "print('quick')")
            await client.call("POST", session_path("a", "kill"))
            await receive_until(one, is_kernel("exited", -1))
            with trio.fail_after(REAL_TIME):
                await client.call("DELETE", session_path("a"))
            assert "still\n" == await run_code(other, "print('still')")
            listed = await client.call("GET", "/sessions")

            assert ["b"] == [session["session_id"] for session in listed["sessions"]]
