"""What goes wrong besides the server: hosts, disks, files, starts that nobody saw the end of; and what is not durable."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from durable.servers import open_servers, processes_below, wait_nothing_left
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.client.channel_client import make_execute_request, open_channel
from kallichore.engines.host_link import open_link
from kernels import (
    ask_until,
    body,
    is_done,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
    wait_ended,
)

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")


@asynccontextmanager
async def keeping(place: Path, **settings: Any) -> AsyncIterator[ApiClient]:
    """Run a server that leaves its kernels to the next one."""
    async with open_client(state_directory=place / "state", shutdown_grace=0.5, **settings) as client:
        yield client


@asynccontextmanager
async def ending(place: Path, **settings: Any) -> AsyncIterator[ApiClient]:
    """Run a server that ends its kernels."""
    async with keeping(place, on_exit="stop", **settings) as client:
        yield client


def session_place(place: Path) -> Path:
    """Return the directory of the only session."""
    (found,) = (place / "state" / "sessions").iterdir()
    return found


async def pid_of(client: ApiClient) -> int:
    """Return the process id of the session's kernel."""
    return int((await client.call("GET", "/sessions/s"))["process_id"])


async def is_refused(client: ApiClient, path: str) -> str:
    """Return in which words a request is refused."""
    with pytest.raises(ApiError) as caught:
        await client.call("POST", path)
    return str(caught.value)


# What is not durable


async def test_session_that_encrypts_is_not_durable_and_says_so(
    private_place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A host cannot carry what is encrypted, so such a kernel is the server's own, works, and ends with it."""
    encrypted = body(transport_encryption="required", supported_encryption=["curve"])
    async with keeping(private_place) as client, open_started(client, encrypted) as channel:
        said = await run_code(channel, "print hello")
        pid = await pid_of(client)
    await wait_ended(pid)

    assert said == "hello\n"
    assert "[session s] It will end with this server: kernels that encrypt" in caplog.text
    assert list((private_place / "state" / "sessions").iterdir()) == []


async def test_durable_session_is_not_started_where_all_have_to_encrypt(private_place: Path) -> None:
    """With a next server that wants encryption the session is there, and says why its kernel is not started."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body(supported_encryption=["curve"]))
    async with ending(private_place, transport_encryption="required") as client:
        why = await is_refused(client, "/sessions/s/start")
    async with ending(private_place, transport_encryption="auto") as client:
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            said = await run_code(channel, "print plain")

    assert "the session outlives its server; create it with `durable` false" in why
    assert said == "plain\n"
