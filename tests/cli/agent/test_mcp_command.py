"""kcclient mcp with the official client and real kernels: an agent's day, and its bad moments."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import psutil
import pytest
import trio
from mcp.shared.exceptions import MCPError

from agent_client import open_command
from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kallichore.transport.connection_file import read_connection_file
from kernels import REAL_TIME

COMMAND = ("kallichore.cli.kcclient", "mcp")

PLOT = """\
from IPython.display import Image, display
import base64
display(Image(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")))
"""

SLEEP = "import time\nfor _ in range(1000): time.sleep(0.1)"
"""In short pieces: on Windows, Python interrupts none in its middle."""

LONG = """\
import time
for number in range(100000):
    print("step", number, flush=True)
    time.sleep(0.02)
"""


async def test_agents_day() -> None:
    """Start, run, plot, fail, leave a long run, come back to it, interrupt it, restart, stop: the state stays as long
    as it should, and each answer says what happened.
    """
    with trio.fail_after(REAL_TIME):
        async with open_command(*COMMAND) as agent:
            kernels = (await agent.call("list_kernels")).members["kernels"]
            nothing = await agent.call("execute_code", code="1")
            started = await agent.call("start_session", session_id="day")
            await agent.call("execute_code", code="x = 41")
            value = await agent.call("evaluate_code", code="x + 1")
            plot = await agent.call("execute_code", code=PLOT)
            failed = await agent.call("execute_code", code="1 / 0")
            left = await agent.call("execute_code", code=LONG, timeout_s=1, keep_running=True)
            busy = await agent.call("evaluate_code", code="x")
            rest = await agent.call("get_output", since=left.members["next"], wait_s=10)
            await agent.call("interrupt_session")
            end = await agent.call("evaluate_code", code="x", wait=True)
            history = await agent.call("get_session_history")
            await agent.call("restart_session")
            forgotten = await agent.call("evaluate_code", code="x")
            await agent.call("stop_session")
            sessions = (await agent.call("list_sessions")).members["sessions"]

    assert "python3" in [kernel["name"] for kernel in kernels]
    assert nothing.code == "NO_SESSION_SELECTED"
    assert (started.members["session_id"], started.members["language"]) == ("day", "python")
    assert value.members["result"] == {"text/plain": "42"}
    image = next(block for block in plot.content if block.type == "image")
    assert (image.mime_type, b64decode(image.data)[:4]) == ("image/png", b"\x89PNG")
    assert (failed.members["status"], failed.members["error"]["name"]) == ("error", "ZeroDivisionError")
    assert failed.is_error is False
    assert left.members["status"] == "running"
    assert "step 0\n" in left.members["stdout"]
    assert busy.code == "RUNTIME_BUSY"
    steps = [int(word) for word in left.members["stdout"].split() if word.isdigit()]
    assert f"step {steps[-1] + 1}\n" in rest.members["outputs"][0]["text"]
    assert end.members["result"] == {"text/plain": "41"}
    assert "x = 41" in [entry["input"] for entry in history.members["entries"]]
    assert "x" not in [entry["input"] for entry in history.members["entries"][:2]]
    assert forgotten.members["error"]["name"] == "NameError"
    assert sessions == []


async def test_large_output_is_read_whole_by_its_link() -> None:
    """An answer with much output is cut and says so, and the resource that it links to has every byte."""
    with trio.fail_after(REAL_TIME):
        async with open_command(*COMMAND) as agent:
            await agent.call("start_session")
            told = await agent.call("execute_code", code="print('a' * 100000)")
            link = next(block for block in told.content if block.type == "resource_link")
            whole = await agent.session.read_resource(link.uri)
            with pytest.raises(MCPError) as unknown:
                await agent.session.read_resource("kallichore://sessions/nobody/outputs/1")

    assert told.members["truncated"] is True
    assert len(json.dumps(told.members)) < 40_000
    assert whole.contents[0].text == "a" * 100_000 + "\n"
    assert "no resource" in str(unknown.value)
    assert unknown.value.error.data == {"uri": "kallichore://sessions/nobody/outputs/1"}


async def test_time_that_is_up_interrupts() -> None:
    """Code that takes longer than it was given is interrupted, is said to have timed out, and leaves the state."""
    with trio.fail_after(REAL_TIME):
        async with open_command(*COMMAND) as agent:
            await agent.call("start_session")
            await agent.call("execute_code", code="y = 1")
            late = await agent.call("execute_code", code=f"print('on it')\n{SLEEP}", timeout_s=1)
            after = await agent.call("evaluate_code", code="y", wait=True)

    assert (late.members["status"], late.members["stdout"]) == ("timed_out", "on it\n")
    assert "interrupted" in late.members["message"]
    assert after.members["result"] == {"text/plain": "1"}


async def test_kernel_that_dies_is_told_with_the_reason() -> None:
    """A kernel that ends in the middle of a call is CHANNEL_CLOSED at once, with how it ended; a restart helps."""
    with trio.fail_after(REAL_TIME):
        async with open_command(*COMMAND) as agent:
            await agent.call("start_session")
            died = await agent.call("execute_code", code="import os; os._exit(7)")
            dead = await agent.call("execute_code", code="1")
            await agent.call("restart_session")
            alive = await agent.call("execute_code", code="1")

    assert (died.code, dead.code) == ("CHANNEL_CLOSED", "SESSION_NOT_READY")
    assert "exited with code 7" in died.members["error"]["message"]
    assert alive.members["status"] == "ok"


async def test_cancelled_call_interrupts_its_run() -> None:
    """An agent that cancels a call does not leave its code running."""
    with trio.fail_after(REAL_TIME):
        async with open_command(*COMMAND) as agent:
            await agent.call("start_session")
            with trio.move_on_after(1):
                await agent.call("execute_code", code=SLEEP)
            after = await agent.call("evaluate_code", code="1", wait=True, timeout_s=30)

    assert after.members["status"] == "ok"


async def test_named_server_is_used_and_stays(private_place: Path) -> None:
    """With a server that is named, its sessions are those that there are, two agents share one, none ends with its
    agent, and the history tells which of them had what run.
    """
    file = private_place / "server.json"
    with trio.fail_after(REAL_TIME):
        async with serve(ServerConfig(connection_file=file)) as running:
            options = (COMMAND[0], "-c", str(file), "mcp")
            async with open_command(*options, name="Ada") as first, open_command(*options, name="Bob") as second:
                await first.call("start_session", session_id="shared")
                await first.call("execute_code", code="shared = 'yes'")
                told = await second.call("evaluate_code", code="shared")
            names = [session.session_id for session in running.sessions]
            history = running.server.session("shared").conversation.history.entries()
            client = ApiClient(from_connection_document(read_connection_file(file)))
            await KallichoreServer(client).remove("shared")

    assert told.members["result"] == {"text/plain": "'yes'"}
    assert names == ["shared"]
    assert [(entry.source, entry.agent) for entry in history] == [("agent", "Ada"), ("agent", "Bob")]


@pytest.mark.parametrize(
    "how", ["end of input", pytest.param("SIGTERM", marks=pytest.mark.posix_only("a signal to end")), "SIGKILL"]
)
async def test_everything_ends_with_the_agent(how: str) -> None:
    """However the command ends, in the middle of a run at that, no process of it is left."""
    with trio.fail_after(REAL_TIME):
        process = subprocess.Popen(  # noqa: ASYNC220  # it is to die, and Trio's would be waited for
            [sys.executable, "-m", *COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        call = {"jsonrpc": "2.0", "method": "tools/call"}
        sleep = {"name": "execute_code", "arguments": {"code": "print(1)\nimport time; time.sleep(100)"}}
        for message in (
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                },
            },
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            {**call, "id": 2, "params": {"name": "start_session", "arguments": {}}},
            {**call, "id": 3, "params": {**sleep, "_meta": {"progressToken": 1}}},
        ):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            if "id" in message:
                # The last is not answered, but its progress is told.
                answer = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
                assert answer.get("id", 3) == message["id"]
        children = psutil.Process(process.pid).children(recursive=True)
        match how:
            case "end of input":
                process.stdin.close()
            case "SIGTERM":
                process.terminate()
            case _:
                process.kill()
        await trio.to_thread.run_sync(process.wait)
        gone, left = await trio.to_thread.run_sync(lambda: psutil.wait_procs(children, timeout=REAL_TIME / 4))
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()

    assert (len(gone) > 0, left) == (True, [])


async def test_lines_that_are_no_messages_change_nothing() -> None:
    """What is no message of JSON-RPC is answered as an error or passed over, and the next message is served."""
    lines = (b"{", b"[]", b"null", b'"x"', b'{"jsonrpc": "2.0"}', b"\xff\xfe", b"[" * 5000)
    ping = b'{"jsonrpc": "2.0", "id": 7, "method": "ping"}'
    with trio.fail_after(REAL_TIME):
        process = await trio.run_process(
            [sys.executable, "-m", *COMMAND], stdin=b"\n".join([*lines, ping, b""]), capture_stdout=True,
            capture_stderr=True,
        )  # fmt: skip

    assert 7 in [json.loads(answer).get("id") for answer in process.stdout.splitlines()]


async def test_first_answer_waits_for_nothing_that_can_come_later() -> None:
    """What has to be imported to greet an agent is neither the private server nor a checker for all of JSON Schema."""
    program = "import sys, kallichore.cli.kcclient, kallichore.cli.agent.serving; print(*sys.modules)"
    with trio.fail_after(REAL_TIME):
        done = await trio.run_process([sys.executable, "-c", program], capture_stdout=True)
    loaded = set(done.stdout.decode().split())

    assert "mcp" in loaded
    assert not {"kallichore.embed", "kallichore.server", "quart", "jsonschema"} & loaded


async def test_agent_that_says_nothing_is_no_failure() -> None:
    """An agent that is gone before it said anything leaves nothing behind, and no complaint."""
    with trio.fail_after(REAL_TIME):
        done = await trio.run_process(
            [sys.executable, "-m", *COMMAND], stdin=b"", capture_stdout=True, capture_stderr=True
        )

    assert (done.stdout, done.stderr) == (b"", b"")
