"""A conversation with one session's kernel, request by request, for `kallichore.cli.console`.

One task hears everything that the session says; each request has an inbox for what belongs to it. What belongs to other
clients' requests is nobody's here.
"""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from kallichore.cli.answers import END_OF_INPUT
from kallichore.cli.run_code import KERNEL_DIED, check_kernel
from kallichore.cli.show import Printer, plain_text
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, session_path
from kallichore.client.channel_client import (
    ChannelClient,
    ChannelClosedError,
    make_execute_request,
    make_message,
    open_channel,
)
from kallichore.errors import KernelDiedError

PATIENCE = 3.0
"""Seconds that a kernel may take to tell whether code is complete, while Enter waits; a busy one does not answer."""

LOOK_UP_PATIENCE = 20.0
"""Seconds that it may take to complete or explain: the first time, ipykernel imports jedi and reads its files."""

Inbox = trio.MemoryReceiveChannel[dict[str, Any]]
Ask = Callable[[dict[str, Any]], Awaitable[str]]


@attrs.define(eq=False)
class Dialogue:
    """The requests of one terminal to one session. Made by `open_dialogue`."""

    session_id: str
    printer: Printer
    _client: ApiClient
    _channel: ChannelClient
    _inboxes: dict[str, trio.MemorySendChannel[dict[str, Any]]] = attrs.field(factory=dict, init=False)

    async def hear(self) -> None:
        """Hand out what the session says, until its channels are closed."""
        reason, began = "", 0
        try:
            while True:
                message = await self._channel.receive()
                if message["kind"] == "kernel":
                    began = message["sessionState"]["seq"] if "sessionState" in message else began
                    reason = message["status"]["reason"] if "status" in message else reason
                    # What was before we came is over.
                    if "exited" in message and message["seq"] > began:
                        self._end_all(f"The kernel ended: {reason}")
                    elif "output" in message and message["seq"] > began:
                        self.printer.show_output(*message["output"])
                    continue
                inbox = self._inboxes.get((message["parent_header"] or {}).get("msg_id", ""))
                if inbox is not None:
                    inbox.send_nowait(message)
        except ChannelClosedError as error:
            self._end_all(str(error))

    def _end_all(self, reason: str) -> None:
        for inbox in self._inboxes.values():
            inbox.send_nowait({"ended": reason})

    @asynccontextmanager
    async def _send(self, message: dict[str, Any]) -> AsyncIterator[Inbox]:
        """Send a request; yield the inbox of what is said about it."""
        msg_id = message["header"]["msg_id"]
        # Without bound: what a terminal prints is what somebody asked for, and it is printed as it comes.
        sender, inbox = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._inboxes[msg_id] = sender
        try:
            await self._channel.send(message)
            yield inbox
        finally:
            del self._inboxes[msg_id]
            inbox.close()

    async def _request(self, msg_type: str, content: dict[str, Any], patience: float) -> dict[str, Any]:
        """Return the content of a reply; an empty one if the kernel is busy for longer than our patience, or gone."""
        with trio.move_on_after(patience):
            try:
                async with self._send(make_message(f"{msg_type}_request", content)) as inbox:
                    async for message in inbox:
                        if "ended" in message:
                            break
                        if message["header"]["msg_type"] == f"{msg_type}_reply":
                            return dict(message["content"])
            except ChannelClosedError:
                pass
        return {}

    async def complete(self, code: str, cursor: int) -> dict[str, Any]:
        """Return the kernel's completions (messaging spec, "Completion")."""
        return await self._request("complete", {"code": code, "cursor_pos": cursor}, LOOK_UP_PATIENCE)

    async def inspect(self, code: str, cursor: int) -> str:
        """Return what the kernel knows about what is at the cursor (messaging spec, "Introspection")."""
        content = {"code": code, "cursor_pos": cursor, "detail_level": 0}
        reply = await self._request("inspect", content, LOOK_UP_PATIENCE)
        return plain_text(reply["data"]) if reply.get("found") else ""

    async def missing_indent(self, code: str) -> str | None:
        """Return the indent of the line that has to follow, or None where code is complete, or nobody can tell."""
        reply = await self._request("is_complete", {"code": code}, PATIENCE)
        return str(reply.get("indent", "")) if reply.get("status") == "incomplete" else None

    async def restart(self) -> None:
        """Restart the kernel."""
        await self._client.call("POST", session_path(self.session_id, "restart"), {})

    async def run(self, code: str, ask: Ask | None = None) -> dict[str, Any]:
        """Run code and print what comes of it; return the content of its reply. Ctrl-C interrupts the kernel.

        Args:
            code: What to run.
            ask: Answers the kernel's questions; None where there is nobody to ask.

        Raises:
            KernelDiedError: The kernel ended.
            ChannelClosedError: The session is gone.
        """
        await check_kernel(self._client, self.session_id)
        reply: dict[str, Any] = {}
        async with trio.open_nursery() as nursery:
            await nursery.start(self._interrupt_on_signal)
            async with self._send(make_execute_request(code, allow_stdin=ask is not None)) as inbox:
                is_idle, ended = False, None
                while ended is None and not (reply and is_idle):
                    message = await inbox.receive()
                    ended = message.get("ended")
                    if ended is not None:
                        continue
                    content = message["content"]
                    if content.get("ename") == KERNEL_DIED:
                        ended = content["evalue"]
                        continue
                    self.printer.show(message)
                    match message["header"]["msg_type"]:
                        case "execute_reply":
                            reply = content
                        case "status":
                            is_idle = content["execution_state"] == "idle"
                        case "input_request" if ask is not None:
                            nursery.start_soon(self._answer, ask, content)
            nursery.cancel_scope.cancel()
        if ended is not None:
            raise KernelDiedError(ended)
        return reply

    async def _answer(self, ask: Ask, content: dict[str, Any]) -> None:
        try:
            value = await ask(content)
        except KeyboardInterrupt:
            await self._interrupt()
            return
        except EOFError:
            value = END_OF_INPUT
        await self._channel.send(make_message("input_reply", {"value": value, "status": "ok"}, "stdin"))

    async def _interrupt(self) -> None:
        await self._client.call("POST", session_path(self.session_id, "interrupt"))

    async def _interrupt_on_signal(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                await self._interrupt()


@asynccontextmanager
async def open_dialogue(address: Address, session_id: str, printer: Printer) -> AsyncIterator[Dialogue]:
    """Connect to a session's channels and talk to its kernel. Leaving disconnects.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    async with open_channel(address, session_id, since=0) as channel, trio.open_nursery() as nursery:
        dialogue = Dialogue(session_id, printer, ApiClient(address), channel)
        nursery.start_soon(dialogue.hear)
        yield dialogue
        nursery.cancel_scope.cancel()
