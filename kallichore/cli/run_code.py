"""``kcclient exec``: run code in a new kernel, here or in a server, see what it prints, leave nothing behind."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import trio

from kallichore.cli.show import Printer
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kallichore.errors import KernelDiedError
from kallichore.kernel.kernelspecs import KernelSpec
from kallichore.models.converter import unstructure

SECOND_CHANCE = 2
"""Which Ctrl-C ends us: the first interrupts the code."""


def _new_id(spec: KernelSpec) -> str:
    return f"{spec.name}-{secrets.token_hex(4)}"


async def run_here(spec: KernelSpec, code: str, working_directory: str) -> int:
    """Run code in a private server inside this process; return 0, or 1 if the code raised an error.

    Cancelling ends the kernel; nothing is left behind.

    Raises:
        StartupError: The kernel could not be started.
        KernelDiedError: It ended before it was done.
    """
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.server import open_server

    printer = Printer()
    async with open_server(ServerConfig(token=None, resource_sample_interval_ms=0)) as server:
        session = server.create_session(spec.new_session(_new_id(spec), working_directory=working_directory))
        await session.start()
        async with (
            _interrupt_on_signal(lambda: session.interrupt()),
            session.execute(code, allow_stdin=True) as execution,
        ):
            async for message in execution:
                printer.show(message)
                if message["header"]["msg_type"] == "input_request":
                    execution.answer_input(await ask(message["content"]))
    return int(printer.failed)


async def run_there(address: Address, spec: KernelSpec, code: str, working_directory: str) -> int:
    """Run code in a new session of a running server, which is ended and deleted afterwards; see `run_here`.

    Raises:
        ApiError: The server refused.
        KernelDiedError: The kernel ended before it was done.
    """
    client = ApiClient(address)
    session_id = _new_id(spec)
    request = unstructure(spec.new_session(session_id, working_directory=working_directory))
    await client.call("PUT", "/sessions", request)
    printer = Printer()
    try:
        await client.call("POST", session_path(session_id, "start"))
        async with open_channel(address, session_id) as channel, trio.open_nursery() as nursery:

            def interrupt() -> None:
                nursery.start_soon(client.call, "POST", session_path(session_id, "interrupt"))

            async with _interrupt_on_signal(interrupt):
                await execute(channel, code, printer, partial(has_exited, client, session_id))
        return int(printer.failed)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await delete_session(client, session_id)


async def has_exited(client: ApiClient, session_id: str) -> bool:
    """Return whether a session's kernel is gone."""
    return bool((await client.call("GET", session_path(session_id)))["status"] == "exited")


async def check_kernel(client: ApiClient, session_id: str, *, must_be_started: bool = True) -> None:
    """See that a session has a kernel to talk to; until one is started the session holds what it is sent.

    Raises:
        KernelDiedError: It has exited, or was not started though it must be.
        ApiError: The server refused.
    """
    status = (await client.call("GET", session_path(session_id)))["status"]
    if status == "exited":
        raise KernelDiedError(
            f"The kernel of session {session_id} has exited; start it again with: kcclient restart -s {session_id}"
        )
    if status == "uninitialized" and must_be_started:
        raise KernelDiedError(
            f"The kernel of session {session_id} was not started; start it with: kcclient start -s {session_id}"
        )


async def execute(channel: ChannelClient, code: str, printer: Printer, is_over: Callable[[], Awaitable[bool]]) -> None:
    """Run code over a session's channels and print what belongs to it, until the kernel has replied and is idle.

    Args:
        channel: The channels. What they tell of the time before may come first, an earlier kernel's end included.
        code: What to run.
        printer: Prints the messages.
        is_over: Tells whether the kernel is gone now.

    Raises:
        KernelDiedError: The kernel ended.
    """
    msg_id = await channel.send(make_execute_request(code, allow_stdin=sys.stdin.isatty()))
    open_ends = {"reply", "idle"}
    reason = ""
    while open_ends:
        message = await channel.receive()
        if message["kind"] == "kernel":
            if "status" in message:
                reason = message["status"]["reason"]
            elif "exited" in message and await is_over():
                raise KernelDiedError(f"The kernel ended before it was done: {reason}")
            continue
        if (message["parent_header"] or {}).get("msg_id") != msg_id:
            continue
        printer.show(message)
        content = message["content"]
        match message["header"]["msg_type"]:
            case "execute_reply":
                open_ends.discard("reply")
            case "status" if content["execution_state"] == "idle":
                open_ends.discard("idle")
            case "input_request":
                await channel.send(make_message("input_reply", {"value": await ask(content), "status": "ok"}, "stdin"))


async def ask(content: dict[str, Any]) -> str:
    """Ask the person for what the kernel's ``input_request`` asks for; nothing if there is nobody."""
    sys.stdout.write(content.get("prompt", ""))
    sys.stdout.flush()
    line = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return str(line).removesuffix("\n")


async def delete_session(client: ApiClient, session_id: str) -> None:
    """Kill and delete a session of ours. Its kernel ends a moment after the kill; deleting works from then on."""
    try:
        with suppress(ApiError):
            await client.call("POST", session_path(session_id, "kill"))
        while not await has_exited(client, session_id):  # noqa: ASYNC110  # the API has no call that waits for it
            await trio.sleep(0.05)
        await client.call("DELETE", session_path(session_id))
    except ApiError:
        # Somebody else was faster.
        pass


@asynccontextmanager
async def _interrupt_on_signal(interrupt: Callable[[], Any]) -> AsyncIterator[None]:
    """While the block runs, let the first Ctrl-C interrupt the code and the second end us."""

    async def watch() -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            started.set()
            count = 0
            async for _ in signals:
                count += 1
                if count >= SECOND_CHANCE:
                    raise KeyboardInterrupt
                interrupt()

    started = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await started.wait()
        yield
        nursery.cancel_scope.cancel()
