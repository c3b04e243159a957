"""Kernels that encrypt (CurveZMQ, JEP 145) and kernels on Unix sockets: started, adopted, and shared with Jupyter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import open_channel
from kallichore.errors import HINTS, StartupReason
from kallichore.zeromq.curve_socket import make_keys
from kernels import (
    REAL_TIME,
    body,
    execute,
    ipykernel_argv,
    is_kernel,
    open_client,
    open_started,
    receive_until,
    run_code,
    scripted_argv,
    text_of,
)

CURVE = {"supported_encryption": ["curve"]}

ENCRYPTS = pytest.mark.skipif(
    tuple(map(int, version("ipykernel").split(".")[:2])) < (7, 3), reason="ipykernel encrypts from 7.3 on"
)

WARNING = "without encryption"
"""Part of what ipykernel says of TCP in the clear."""


def python_body(**members: Any) -> dict[str, Any]:
    """Return the JSON body of a new session with the Python kernel, which says what it does about encryption."""
    argv = [word for word in ipykernel_argv() if word != "{connection_file}"]
    return body(argv=[*argv, "{connection_file}", "--log-level=20"], **members)


async def connection_of(client: ApiClient) -> dict[str, Any]:
    """Return the session's connection information."""
    info: dict[str, Any] = await client.call("GET", session_path("s", "connection_info"))
    return info


async def log_of(client: ApiClient) -> str:
    """Return what the kernel's process printed."""
    lines = (await client.call("GET", session_path("s", "logs")))["lines"]
    return "\n".join(line["text"] for line in lines)


ASK = """
import sys
from jupyter_client.blocking.client import BlockingKernelClient
client = BlockingKernelClient(connection_file=sys.argv[1])
client.load_connection_file()
client.start_channels()
client.wait_for_ready(timeout=30)
client.execute_interactive("print(6 * 7)", timeout=30)
client.stop_channels()
"""
"""Runs code in a kernel, and prints what that prints, with nothing of ours."""


async def ask_as_jupyter(info: dict[str, Any], directory: Path) -> str:
    """Have jupyter_client run code in a kernel, by a connection file of ours; return what it prints."""
    file = directory / "ours.json"
    file.write_text(json.dumps(info))
    with trio.fail_after(REAL_TIME):
        done = await trio.run_process([sys.executable, "-c", ASK, str(file)], capture_stdout=True)
    return done.stdout.decode()


@ENCRYPTS
@pytest.mark.parametrize(
    ("server", "session"),
    [
        ({"transport_encryption": "auto"}, CURVE),
        ({}, {"transport_encryption": "required", **CURVE}),
        ({}, {"transport_encryption": "required", "kernel_transport": "ipc", **CURVE}),
    ],
    ids=["auto", "required", "required-ipc"],
)
async def test_encrypted_kernel_works_also_for_jupyter(
    server: dict[str, Any], session: dict[str, Any], private_place: Path
) -> None:
    """It runs code, is restarted with the same keys, and jupyter_client can use it by our connection information; what
    that has it print reaches our clients too."""
    async with open_client(**server) as client, open_started(client, python_body(**session)) as channel:
        text = await run_code(channel, "print(1)")
        info = await connection_of(client)
        jupyters = await ask_as_jupyter(info, private_place)
        await client.call("POST", session_path("s", "restart"), {})
        again = text_of(await execute(channel, "print(2)"))
        log = await log_of(client)
        later = await connection_of(client)

    assert ("1\n", "42\n", "42\n2\n") == (text, jupyters, again)
    assert [info["curve_publickey"], info["curve_secretkey"]] == [later["curve_publickey"], later["curve_secretkey"]]
    assert 2 == log.count("using transport encryption")
    assert WARNING not in log


async def test_kernel_on_unix_sockets_works_and_leaves_none(private_place: Path) -> None:
    """It runs code and is restarted; its sockets are in the server's own directory, and gone with it."""
    async with (
        open_client(kernel_transport="ipc", socket_directory=private_place) as client,
        open_started(client, python_body(transport_encryption="auto", **CURVE)) as channel,
    ):
        text = await run_code(channel, "print(1)")
        info = await connection_of(client)
        sockets = sorted(path.name for path in Path(info["ip"]).parent.glob(Path(info["ip"]).name + "*"))
        await client.call("POST", session_path("s", "restart"), {})
        again = await run_code(channel, "print(2)")
        log = await log_of(client)
        pid = (await client.call("GET", session_path("s")))["process_id"]
        os.kill(pid, signal.SIGKILL)
        await receive_until(channel, is_kernel("exited"))
        left = list(Path(info["ip"]).parent.glob(Path(info["ip"]).name + "*"))

    assert ("1\n", "2\n", "ipc") == (text, again, info["transport"])
    assert [f"{Path(info['ip']).name}-{number}" for number in range(1, 6)] == sockets
    assert "curve_publickey" not in info
    assert private_place in Path(info["ip"]).parents
    assert WARNING not in log
    assert [] == left


@pytest.mark.parametrize(
    "setting", [{}, {"transport_encryption": "disabled", **CURVE}, {"transport_encryption": "auto"}]
)
async def test_kernel_is_not_encrypted_unless_both_sides_want_it(setting: dict[str, Any]) -> None:
    """By default, where the session says no, and where nobody says that the kernel can, it is as ever."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(**setting))
        info = await connection_of(client)
        await client.call("POST", session_path("s", "start"))

    assert "tcp" == info["transport"]
    assert "curve_publickey" not in info


@ENCRYPTS
async def test_flood_of_an_encrypted_kernel_arrives_whole() -> None:
    """Thousands of messages come in order, and the last of a kernel that ends behind them."""
    async with (
        open_client(transport_encryption="auto") as client,
        open_started(client, python_body(**CURVE)) as channel,
    ):
        messages = await execute(channel, "for i in range(1000): print(i, flush=True)")
        await client.call("POST", session_path("s", "restart"), {})
        last = await execute(channel, "print('last', flush=True)")

    assert "".join(f"{number}\n" for number in range(1000)) == text_of(messages)
    assert "last\n" == text_of(last)


# Adoption


@asynccontextmanager
async def jupyters_kernel(private_place: Path, *, encrypted: bool = True) -> AsyncIterator[tuple[trio.Process, Any]]:
    """Start a kernel with a connection file as jupyter_client writes it; killed on leaving."""
    from jupyter_client.connect import write_connection_file

    file, keys = private_place / "theirs.json", make_keys()
    assert keys.secret is not None
    pair = {"curve_publickey": keys.public.encode(), "curve_secretkey": keys.secret.encode()} if encrypted else {}
    _, info = write_connection_file(str(file), key=b"their-key", **pair)
    argv = [word.replace("{connection_file}", str(file)) for word in ipykernel_argv()]
    nothing = subprocess.DEVNULL
    process = await trio.lowlevel.open_process(argv, stdin=nothing, stdout=nothing, stderr=nothing)
    try:
        yield process, info
    finally:
        process.kill()
        await process.wait()


async def refusal(request: Any) -> dict[str, Any]:
    """Return the error of a request that is refused, soon."""
    with trio.fail_after(REAL_TIME), pytest.raises(ApiError) as refused:
        await request()
    found: dict[str, Any] = refused.value.body
    return found.get("error", found)


@ENCRYPTS
async def test_encrypted_kernel_of_jupyter_is_adopted(private_place: Path) -> None:
    """It works by the members of its connection file, and its death is noticed; without its keys, or with others, the
    adoption fails and says why."""
    others = make_keys()
    async with open_client() as client, jupyters_kernel(private_place) as (process, info):
        await client.call("PUT", "/sessions", body(argv=[], connection_timeout=300))
        adopt = partial(client.call, "PUT", session_path("s", "adopt"))
        bare = {name: value for name, value in info.items() if not name.startswith("curve_")}
        without = await refusal(partial(adopt, bare))
        wrong = await refusal(
            partial(adopt, {**bare, "curve_publickey": others.public, "curve_secretkey": others.secret})
        )
        none = await refusal(partial(adopt, {**bare, "curve_publickey": "no key"}))
        half = await refusal(partial(adopt, {**bare, "curve_secretkey": info["curve_secretkey"]}))
        with trio.fail_after(REAL_TIME):
            await adopt(info)
        async with open_channel(client.address, "s") as channel:
            text = await run_code(channel, "import os; print(os.getpid())")
            process.send_signal(signal.SIGKILL)
            await receive_until(channel, is_kernel("exited"))

    assert f"{process.pid}\n" == text
    assert ["KS-6"] * 4 == [error["code"] for error in (without, wrong, none, half)]
    assert "asks for the mechanism CURVE" in without["message"]
    assert "curve_publickey and curve_secretkey are not its own" in wrong["message"]
    assert "curve_publickey is no key" in none["message"]
    assert "without curve_publickey" in half["message"]


async def test_kernel_that_does_not_encrypt_is_not_taken_for_one_that_does(private_place: Path) -> None:
    """Keys for a kernel that does not use them, and a server that requires encryption, lead to errors that say so."""
    keys = make_keys()
    async with jupyters_kernel(private_place, encrypted=False) as (_, info):
        async with open_client() as client:
            await client.call("PUT", "/sessions", body(argv=[]))
            given = {**info, "curve_publickey": keys.public}
            adoption = await refusal(partial(client.call, "PUT", session_path("s", "adopt"), given))
        async with open_client(transport_encryption="required") as client:
            await client.call("PUT", "/sessions", body(argv=[]))
            required = await refusal(partial(client.call, "PUT", session_path("s", "adopt"), info))

    assert ("KS-6", "KS-6") == (adoption["code"], required["code"])
    assert "it does not encrypt" in adoption["message"]
    assert "transport_encryption is required" in required["message"]


# Refusals


async def test_kernel_that_ignores_its_keys_is_not_started() -> None:
    """It said that it can encrypt and does not: nothing is sent to it, and the process is gone."""
    async with open_client() as client:
        request = body(argv=list(scripted_argv()), transport_encryption="required", **CURVE)
        await client.call("PUT", "/sessions", request)
        error = await refusal(partial(client.call, "POST", session_path("s", "start")))
        session = await client.call("GET", session_path("s"))

    assert "KS-6" == error["code"]
    assert "it does not encrypt" in error["message"]
    assert "process_id" not in session


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"transport_encryption": "required"}, "supported_encryption"),
        ({"transport_encryption": "required", "protocol_version": "5.5", **CURVE}, "JEP 66"),
        ({"kernel_transport": "ipc", "protocol_version": "5.5"}, "JEP 66"),
    ],
)
async def test_connection_that_cannot_be_had_is_refused(members: dict[str, Any], told: str) -> None:
    """The start fails at once, and its error names the setting."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(**members))
        with pytest.raises(ApiError) as refused:
            await client.call("POST", session_path("s", "start"))

    answer = refused.value.body
    assert ("KS-5", "bad_connection") == (answer["error"]["code"], answer["reason"])
    assert HINTS[StartupReason.BAD_CONNECTION] == answer["hint"]
    assert next(iter(members)) in answer["error"]["message"]
    assert told in answer["error"]["message"]
