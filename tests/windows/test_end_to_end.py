"""The whole of it on Windows: kcserver as a process, over TCP and over named pipes, with real and scripted kernels.

A process takes seconds to start under Wine, so there are few tests here and each goes a long way.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

if sys.platform != "win32":
    pytest.skip("Windows only: `nox -s windows` runs it under Wine", allow_module_level=True)

from kallichore.client.address import Address, from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import ChannelClient, make_execute_request, open_channel
from kallichore.transport.connection_file import read_connection_file
from kallichore.transport.named_pipe import open_pipe_listener
from kernels import body, execute, ipykernel_argv, is_done, is_kernel, is_type, receive_until, run_code, wait_ended

LIMIT = 100
"""Seconds after which a test has failed; an ipykernel takes five to fifteen to start under Wine."""

SERVER = [sys.executable, "-m", "kallichore.cli.kcserver"]
CLIENT = [sys.executable, "-m", "kallichore.cli.kcclient"]


@asynccontextmanager
async def run_server(place: Path, *options: str) -> AsyncIterator[tuple[trio.Process, Address]]:
    """Run kcserver until the block ends; yield its process and its address."""
    file = place / "connection.json"
    command = [*SERVER, "--connection-file", str(file), *options]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not file.exists():
            assert process.poll() is None, "the server has ended"
            await trio.sleep(0.05)
        yield process, from_connection_document(read_connection_file(file))
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def shut_down(client: ApiClient, process: trio.Process) -> None:
    """Ask a server to end, and see that it does so in order."""
    await client.call("POST", "/shutdown")
    assert await process.wait() == 0


def real(session_id: str, **members: Any) -> dict[str, Any]:
    """Return the body of a session with ipykernel."""
    return body(session_id, argv=list(ipykernel_argv()), connection_timeout=60, **members)


def look_often(name: str) -> None:
    """See again and again whether a pipe is there, which connects to it and leaves."""
    for _ in range(50):
        os.path.exists(name)


async def interrupted(client: ApiClient, channel: ChannelClient, code: str) -> list[str]:
    """Run code that would take minutes, interrupt it once it says something, and return the errors' names."""
    msg_id = await channel.send(make_execute_request(code))
    await receive_until(channel, is_type("stream", msg_id))
    await client.call("POST", "/sessions/s/interrupt")
    messages = await receive_until(channel, is_done(msg_id))
    return [message["content"]["ename"] for message in messages if is_type("error", msg_id)(message)]


@pytest.mark.parametrize("transport", ["tcp", "named-pipe"])
async def test_session_lives_from_creation_to_deletion(transport: str, private_place: Path) -> None:
    """Create, start, execute, interrupt by the event, restart, kill, delete; then the server ends in order, and its
    connection file and directory are gone.
    """
    loop = "import time\nprint('go', flush=True)\nfor _ in range(3000): time.sleep(0.1)"
    with trio.fail_after(LIMIT):
        async with run_server(private_place, "--transport", transport) as (process, address):
            client = ApiClient(address)
            await client.call("PUT", "/sessions", real("s", interrupt_mode="signal"))
            await client.call("POST", "/sessions/s/start")
            async with open_channel(address, "s") as channel:
                first = await run_code(channel, "print(6 * 7)")
                errors = await interrupted(client, channel, loop)
                await client.call("POST", "/sessions/s/restart", {"env": []})
                second = await run_code(channel, "import os; print('JPY_PARENT_PID' in os.environ)")
                await client.call("POST", "/sessions/s/kill")
                exited = (await receive_until(channel, is_kernel("exited")))[-1]["exited"]
            await client.call("DELETE", "/sessions/s")
            await shut_down(client, process)

    assert first.endswith("42\n")
    assert ["KeyboardInterrupt"] == errors
    assert second.endswith("True\n")
    assert 1 == exited
    assert [] == [name for name in os.listdir(private_place) if name.startswith(("kc-", "connection"))]


async def test_session_over_a_pipe_with_message_interrupts_and_a_big_journal(private_place: Path) -> None:
    """An interrupt by message; vanishing clients meanwhile; 60 MB that were said while nobody was there come in order;
    a bare program name, a directory under ``~`` and a startup environment that Windows has not; the end by request.
    """
    argv = body("s")["argv"]
    path = {"action": "replace", "name": "Path", "value": str(Path(sys.executable).parent)}
    request = body(
        "s", argv=["python", *argv[1:]], env=[path], working_directory="~\\", startup_environment="command",
        startup_environment_arg="rem",
    )  # fmt: skip
    with trio.fail_after(LIMIT):
        async with run_server(private_place) as (process, address):
            assert address.named_pipe is not None
            client = ApiClient(address)
            await client.call("PUT", "/sessions", request)
            await client.call("POST", "/sessions/s/start")
            look_often(address.named_pipe)
            async with open_channel(address, "s") as channel:
                where = await run_code(channel, "cwd")
                errors = await interrupted(client, channel, "print go\nsleep 600")
                await channel.send(make_execute_request("flood 60 1000000\nprint all"))
            sizes, text = [], ""
            async with open_channel(address, "s") as channel:
                while not text.endswith("all\n"):
                    message = await channel.receive()
                    if is_type("stream")(message):
                        text = message["content"]["text"]
                        sizes.append(len(text))
                await execute(channel, "print still there")
                await client.call("POST", "/shutdown")
                exited = (await receive_until(channel, is_kernel("exited")))[-1]["exited"]
            ended = await process.wait()

    assert os.path.normcase(os.path.expanduser("~")) == os.path.normcase(where.rstrip("\\"))
    assert ["KeyboardInterrupt"] == errors
    assert sum(sizes) >= 60_000_000
    assert (0, 0) == (exited, ended)


async def test_killed_server_takes_its_kernels_along_and_the_next_one_its_files(private_place: Path) -> None:
    """A hard kill leaves no kernel behind; the next server removes the directory. It tells its launcher by a pipe."""
    name = rf"\\.\pipe\kallichore-handshake-{secrets.token_hex(6)}"
    with trio.fail_after(LIMIT):
        async with run_server(private_place, "--transport", "tcp") as (process, address):
            client = ApiClient(address)
            await client.call("PUT", "/sessions", body("s"))
            await client.call("POST", "/sessions/s/start")
            kernel = (await client.call("GET", "/sessions/s"))["process_id"]
            process.kill()
            await process.wait()
            await wait_ended(kernel)
        left = [entry for entry in os.listdir(private_place) if entry.startswith("kc-")]
        async with open_pipe_listener(name) as listener:
            command = [*SERVER, "--transport", "named-pipe", "--handshake-socket", name]
            second = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            async with await listener.accept() as stream:
                document = json.loads(b"".join([bytes(data) async for data in stream]))
            client = ApiClient(from_connection_document(document))
            status = await client.call("GET", "/status")
            now = [entry for entry in os.listdir(private_place) if entry.startswith("kc-")]
            await shut_down(client, second)

    assert 1 == len(left)
    assert 1 == len(now)
    assert left != now
    assert document["server_id"] == status["server_id"]


async def test_people_use_a_server_over_a_pipe(private_place: Path) -> None:
    """kcclient runs code in a kernel of its own, and its console, in one that is there, takes lines from a pipe."""
    with trio.fail_after(LIMIT):
        async with run_server(private_place) as (process, address):
            file = str(private_place / "connection.json")
            client = ApiClient(address)
            await client.call("PUT", "/sessions", body("s"))
            await client.call("POST", "/sessions/s/start")
            told = await trio.run_process(
                [*CLIENT, "--connection-file", file, "exec", "print(6 * 7, 'from a pipe')"],
                capture_stdout=True, capture_stderr=True, check=False,
            )  # fmt: skip
            typed = await trio.run_process(
                [*CLIENT, "--connection-file", file, "console", "-s", "s"],
                stdin=b"print from the console\n", capture_stdout=True, capture_stderr=True, check=False,
            )  # fmt: skip
            await shut_down(client, process)

    assert b"42 from a pipe" in told.stdout, told.stderr
    assert b"from the console" in typed.stdout, typed.stderr
