"""Which session a console works with: one that is there, or a new one that goes with it."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from kallichore.cli.dialogue import open_dialogue
from kallichore.cli.run_code import LATE_OUTPUT, delete_session, tell_of_waiting
from kallichore.cli.show import Printer
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, session_path
from kallichore.kernel.kernelspecs import find_kernelspec
from kallichore.models.converter import unstructure

DEFAULT_KERNEL = "python3"


async def run_console(
    address: Address | None, session_id: str | None, kernel: str | None, members: dict[str, Any]
) -> int:
    """Run a console to its end and return the exit code.

    Args:
        address: The server; None for a private one inside this process.
        session_id: A session of it; None for its first, if no kernel is named.
        kernel: The kernel of a new session, which is deleted at the end.
        members: What such a session is created with besides the kernel.

    Raises:
        ApiError: The server refused.
        KernelNotFoundError: The kernel is not installed.
    """
    if address is None:
        async with _open_private_server() as private:
            return await _run_new(private, kernel or DEFAULT_KERNEL, members)
    if kernel is not None:
        return await _run_new(address, kernel, members)
    if session_id is None:
        sessions = (await ApiClient(address).call("GET", "/sessions"))["sessions"]
        if not sessions:
            return await _run_new(address, DEFAULT_KERNEL, members)
        session_id = str(sessions[0]["session_id"])
    return await _run(address, session_id)


@asynccontextmanager
async def _open_private_server() -> AsyncIterator[Address]:
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.embed import serve

    async with serve(ServerConfig(resource_sample_interval_ms=0)) as server:
        yield Address(host="127.0.0.1", port=server.address.port, token=server.token)


async def _run_new(address: Address, kernel: str, members: dict[str, Any]) -> int:
    client, spec = ApiClient(address), find_kernelspec(kernel)
    session_id = f"{spec.name}-{secrets.token_hex(4)}"
    await client.call("PUT", "/sessions", unstructure(spec.new_session(session_id, **members)))
    try:
        async with tell_of_waiting(spec, members):
            await client.call("POST", session_path(session_id, "start"))
        return await _run(address, session_id)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await delete_session(client, session_id)


async def _ask_nobody(_: dict[str, Any]) -> str:
    """Answer that standard input has ended: it was the code."""
    raise EOFError


async def _run(address: Address, session_id: str) -> int:
    is_terminal = sys.stdin.isatty()
    images = Path(tempfile.mkdtemp(prefix="kcclient-images-")) if is_terminal else None
    printer = Printer(images)
    try:
        async with open_dialogue(address, session_id, printer) as dialogue:
            if is_terminal:
                from kallichore.cli.console import Console

                return await Console(dialogue).run()
            data = await trio.to_thread.run_sync(sys.stdin.buffer.read)
            await dialogue.run(data.decode("utf-8", "replace"), ask=_ask_nobody)
            await trio.sleep(LATE_OUTPUT)
            return int(printer.failed)
    finally:
        if images is not None and not any(images.iterdir()):
            images.rmdir()
