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

from kallichore.cli.answers import Questions, open_questions
from kallichore.cli.show import Printer
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, make_message, open_channel
from kallichore.errors import KernelDiedError
from kallichore.kernel.kernelspecs import KernelSpec
from kallichore.models.converter import unstructure

SECOND_CHANCE = 2
"""Which Ctrl-C ends us: the first interrupts the code."""

QUIET_START = 3.0
"""Seconds that a start may take without a word; most take one."""

LATE_OUTPUT = 0.3
"""Seconds for which a kernel that goes on is listened to behind its reply: what programs print takes another way, and
the server keeps the beginning of a line for a moment."""

SERVERS_OWN = "[kallichore] "
"""How the lines begin that the server puts among what the kernel's process prints."""

KERNEL_DIED = "KernelDied"
"""The error's name in the reply that the server gives in the place of a kernel which is gone."""

END_PATIENCE = 5.0
"""Seconds that a kernel which was killed may take to be gone."""


def _new_id(spec: KernelSpec) -> str:
    return f"{spec.name}-{secrets.token_hex(4)}"


async def run_here(spec: KernelSpec, code: str, members: dict[str, Any]) -> int:
    """Run code in a private server inside this process; return 0, or 1 if the code raised an error.

    Cancelling ends the kernel; nothing is left behind.

    Args:
        spec: The kernel.
        code: What to run.
        members: What the session is created with besides the kernel, as members of `NewSession`.

    Raises:
        StartupError: The kernel could not be started.
        KernelDiedError: It ended before it was done.
    """
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.server import open_server

    printer = Printer()
    async with open_server(ServerConfig(token=None, resource_sample_interval_ms=0)) as server:
        session = server.create_session(spec.new_session(_new_id(spec), **members))
        async with tell_of_waiting(spec, members):
            await session.start()
        async with session.execute(code, allow_stdin=True) as execution:

            async def reply(answer: str) -> None:
                execution.answer_input(answer)

            async with open_questions(reply) as questions, _interrupt_on_signal(session.interrupt, questions):
                async for message in execution:
                    printer.show(message)
                    if message["header"]["msg_type"] == "input_request":
                        questions.ask(message["content"])
    return int(printer.failed)


async def run_there(address: Address, spec: KernelSpec, code: str, members: dict[str, Any]) -> int:
    """Run code in a new session of a running server, which is ended and deleted afterwards; see `run_here`.

    Raises:
        ApiError: The server refused.
        KernelDiedError: The kernel ended before it was done.
    """
    client = ApiClient(address)
    session_id = _new_id(spec)
    await client.call("PUT", "/sessions", unstructure(spec.new_session(session_id, **members)))
    printer = Printer()
    try:
        async with tell_of_waiting(spec, members):
            await client.call("POST", session_path(session_id, "start"))
        async with open_channel(address, session_id, since=0) as channel, trio.open_nursery() as nursery:

            def interrupt() -> None:
                nursery.start_soon(client.call, "POST", session_path(session_id, "interrupt"))

            await execute(channel, code, printer, partial(has_exited, client, session_id), interrupt)
            with suppress(ApiError):
                # Where there is nothing to kill it has ended by itself.
                await client.call("POST", session_path(session_id, "kill"))
            with trio.move_on_after(END_PATIENCE):
                await _show_last_output(channel, printer)
        return int(printer.failed)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await delete_session(client, session_id)


@asynccontextmanager
async def tell_of_waiting(spec: KernelSpec, members: dict[str, Any]) -> AsyncIterator[None]:
    """While a block waits for a kernel's start, say so on standard error once that takes long."""
    limit = members.get("connection_timeout", 0)
    given = f"for {limit} seconds at most; --timeout gives it more" if limit >= 0 else "for as long as it takes"

    async def tell() -> None:
        await trio.sleep(QUIET_START)
        print(f"Waiting for the kernel {spec.name} to start and answer, {given}", file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()


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


async def execute(
    channel: ChannelClient,
    code: str,
    printer: Printer,
    is_over: Callable[[], Awaitable[bool]],
    interrupt: Callable[[], Any] | None = None,
) -> None:
    """Run code over a session's channels and print what belongs to it, until the kernel has replied and is idle.

    Args:
        channel: The channels, opened with ``since``. What they tell of the time before may come first, an earlier
            kernel's end included.
        code: What to run.
        printer: Prints the messages, and what programs print that the code runs.
        is_over: Tells whether the kernel is gone now.
        interrupt: Interrupts the code; is called at Ctrl-C. None to leave Ctrl-C alone.

    Raises:
        KernelDiedError: The kernel ended.
    """

    async def reply(answer: str) -> None:
        await channel.send(make_message("input_reply", {"value": answer, "status": "ok"}, "stdin"))

    msg_id = await channel.send(make_execute_request(code))
    open_ends = {"reply", "idle"}
    reason = ""
    began = 0
    async with open_questions(reply) as questions, _interrupt_on_signal(interrupt, questions):
        while open_ends:
            message = await channel.receive()
            if message["kind"] == "kernel":
                if "sessionState" in message:
                    began = message["sessionState"]["seq"]
                elif "status" in message:
                    reason = message["status"]["reason"]
                elif "output" in message and message["seq"] > began:
                    printer.show_output(*message["output"])
                elif "exited" in message and await is_over():
                    raise KernelDiedError(f"The kernel ended before it was done: {reason}")
                continue
            if (message["parent_header"] or {}).get("msg_id") != msg_id:
                continue
            content = message["content"]
            if content.get("ename") == KERNEL_DIED:
                raise KernelDiedError(f"The kernel ended before it was done: {content['evalue']}")
            printer.show(message)
            match message["header"]["msg_type"]:
                case "execute_reply":
                    open_ends.discard("reply")
                case "status" if content["execution_state"] == "idle":
                    open_ends.discard("idle")
                case "input_request":
                    questions.ask(content)


async def show_late_output(channel: ChannelClient, printer: Printer) -> None:
    """Print what programs printed at the end of an execution, and what comes through their pipes behind its reply."""
    with trio.move_on_after(LATE_OUTPUT):
        await _show_last_output(channel, printer)


async def _show_last_output(channel: ChannelClient, printer: Printer) -> None:
    """Print what the kernel's process prints until it has ended."""
    while "exited" not in (message := await channel.receive()):
        # What the server says itself is of the kernel's end, which we asked for.
        if "output" in message and not message["output"][1].startswith(SERVERS_OWN):
            printer.show_output(*message["output"])


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
async def _interrupt_on_signal(interrupt: Callable[[], Any] | None, questions: Questions) -> AsyncIterator[None]:
    """While the block runs, let the first Ctrl-C interrupt the code, at a question as well, and the second end us."""

    async def watch(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            count = 0
            async for _ in signals:
                count += 1
                if interrupt is None or count >= SECOND_CHANCE:
                    raise KeyboardInterrupt
                questions.give_up()
                interrupt()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        yield
        nursery.cancel_scope.cancel()
