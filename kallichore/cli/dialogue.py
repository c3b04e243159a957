"""A conversation with one session's kernel, request by request, over its channels.

One task hears everything that the session says; each request has an inbox for what belongs to it. What belongs to other
clients' requests is nobody's here, and so the channels are joined as a visitor: it stays for whoever it is meant for.
"""

from __future__ import annotations

import getpass
import math
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from kallichore.cli.show import plain_text
from kallichore.client.channel_client import make_execute_request, make_message
from kallichore.client.server import Channel, Server
from kallichore.client.websocket import ChannelClosedError
from kallichore.errors import KernelDiedError

PATIENCE = 3.0
"""Seconds that a kernel may take to tell whether code is complete, while Enter waits; a busy one does not answer."""

LOOK_UP_PATIENCE = 20.0
"""Seconds that it may take to complete or explain: the first time, ipykernel imports jedi and reads its files."""

LATE_OUTPUT = 0.3
"""Seconds for which a kernel that goes on is listened to behind its reply: what programs print takes another way, and
the server keeps the beginning of a line for a moment."""

SERVERS_OWN = "[kallichore] "
"""How the lines begin that the server puts among what the kernel's process prints."""

KERNEL_DIED = "KernelDied"
"""The error's name in the reply that the server gives in the place of a kernel which is gone."""

VISIT, TAKE_OVER = "visit", "takeover"

Inbox = trio.MemoryReceiveChannel[dict[str, Any]]


def own_name(command: str) -> str:
    """Return who we are, for a client that we displace."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError, ImportError):
        who = "somebody"
    return f"kcclient {command} of {who} on {socket.gethostname()}, process {os.getpid()}"


class DisplacedError(KernelDiedError):
    """Another client took the session over; the message says which, as far as the server knows."""


async def check_kernel(server: Server, session_id: str, *, must_be_started: bool = True, way_out: str = "") -> None:
    """See that a session has a kernel to talk to; until one is started the session holds what it is sent.

    Args:
        server: The server.
        session_id: The session.
        must_be_started: Whether it is not enough that one can be started.
        way_out: How to start it, where that is not another command.

    Raises:
        KernelDiedError: It has exited, or was not started though it must be.
        ApiError: The server refused.
    """
    status = await server.session_status(session_id)
    if status == "exited":
        way_out = way_out or f"start it again with: kcclient restart -s {session_id}"
        raise KernelDiedError(f"The kernel of session {session_id} has exited; {way_out}")
    if status == "uninitialized" and must_be_started:
        raise KernelDiedError(
            f"The kernel of session {session_id} was not started; start it with: kcclient start -s {session_id}"
        )


@attrs.define(eq=False)
class Dialogue:
    """The requests of one terminal to one session. Made by `open_dialogue`.

    Args:
        session_id: The session.
        on_output: Is given what processes print while nothing of ours runs: the stream and the text.
        way_out: How to start a kernel that has ended, where that is not another command.
    """

    session_id: str
    on_output: Callable[[str, str], None]
    way_out: str
    _server: Server
    _channel: Channel
    exited: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the kernel has ended."""
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing more is heard."""
    closed: str | None = attrs.field(default=None, init=False)
    """Why that is so."""
    displaced_by: str | None = attrs.field(default=None, init=False)
    """What the server said when another client took the session over."""
    _inboxes: dict[str, trio.MemorySendChannel[dict[str, Any]]] = attrs.field(factory=dict, init=False)
    _running: str | None = attrs.field(default=None, init=False)
    """The id of the execution to which what processes print belongs."""
    _told: str = attrs.field(default="", init=False)
    """Why the kernel ended, as whoever ran code was told; the server's line about it says the same."""

    async def hear(self) -> None:
        """Hand out what the session says, until its channels are closed."""
        reason = ""
        try:
            while True:
                message = await self._channel.receive()
                if message["kind"] != "kernel":
                    inbox = self._inboxes.get((message["parent_header"] or {}).get("msg_id", ""))
                    if inbox is not None:
                        inbox.send_nowait(message)
                elif "status" in message:
                    reason = message["status"]["reason"]
                elif "clientDisconnected" in message:
                    self.displaced_by = str(message["clientDisconnected"])
                # An earlier kernel's exit may come first, from a server that knows no visitors.
                elif "exited" in message and await self._server.has_exited(self.session_id):
                    self.exited.set()
                    self._end_all(f"The kernel ended before it was done: {reason}")
                elif "output" in message:
                    self._take_output(*message["output"])
        except ChannelClosedError as error:
            self.closed = self.displaced_by or str(error)
            self.ended.set()
            self.exited.set()
            self._end_all(self.closed)

    def _take_output(self, stream: str, text: str) -> None:
        if self._running in self._inboxes:
            message = make_message("stream", {"name": stream, "text": text}, "iopub")
            self._inboxes[self._running].send_nowait({**message, "parent_header": {"msg_id": self._running}})
        elif not self._told or text.strip() != SERVERS_OWN + self._told:
            self.on_output(stream, text)

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
        await self._server.restart(self.session_id)
        self.exited = trio.Event()

    # What `kallichore.cli.execution` runs code in

    @asynccontextmanager
    async def run(self, code: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Run code; yield what iterates over its messages until the kernel has replied and is idle.

        Raises:
            DisplacedError: Another client took the session over.
            KernelDiedError: The kernel ended, or had ended before; or the session is gone.
        """
        self.check_heard()
        await check_kernel(self._server, self.session_id, way_out=self.way_out)
        request = make_execute_request(code)
        self._running = request["header"]["msg_id"]
        try:
            async with self._send(request) as inbox:
                yield self._follow(inbox)
        except ChannelClosedError as error:
            raise KernelDiedError(str(error)) from error
        finally:
            self._running = None

    def check_heard(self) -> None:
        """See that the session is still listened to.

        Raises:
            DisplacedError: Another client took it over.
            KernelDiedError: It is gone, or its server is.
        """
        if self.displaced_by is not None:
            raise DisplacedError(self.displaced_by)
        if self.closed is not None:
            raise KernelDiedError(self.closed)

    async def _follow(self, inbox: Inbox) -> AsyncIterator[dict[str, Any]]:
        open_ends = {"reply", "idle"}
        while open_ends:
            message = await inbox.receive()
            if "ended" in message:
                self.check_heard()
                raise KernelDiedError(message["ended"])
            content = message["content"]
            if content.get("ename") == KERNEL_DIED:
                self._told = content["evalue"].strip()
                raise KernelDiedError(f"The kernel ended before it was done: {content['evalue']}")
            match message["header"]["msg_type"]:
                case "execute_reply":
                    open_ends.discard("reply")
                case "status" if content["execution_state"] == "idle":
                    open_ends.discard("idle")
            yield message  # noqa: ASYNC119  # nothing is to be cleaned up here
        # What processes print from now on is not this execution's; what is here already is.
        self._running = None
        while inbox.statistics().current_buffer_used:
            message = inbox.receive_nowait()
            if "ended" not in message:
                yield message  # noqa: ASYNC119  # the same

    async def answer(self, value: str) -> None:
        """Answer the kernel's question."""
        await self._channel.send(make_message("input_reply", {"value": value, "status": "ok"}, "stdin"))

    async def interrupt(self) -> None:
        """Interrupt what the kernel runs."""
        await self._server.interrupt(self.session_id)

    async def wait_late_output(self) -> None:
        """Give what programs printed at the end of an execution the time to come."""
        if self.closed is None:
            await trio.sleep(LATE_OUTPUT)


@asynccontextmanager
async def open_dialogue(
    server: Server,
    session_id: str,
    on_output: Callable[[str, str], None],
    *,
    takes_over: bool = False,
    way_out: str = "",
    name: str | None = None,
) -> AsyncIterator[Dialogue]:
    """Join a session's channels and talk to its kernel. Leaving disconnects.

    Args:
        server: The server.
        session_id: The session.
        on_output: See `Dialogue`.
        takes_over: Whether another client is to be displaced, and nothing left to others.
        way_out: See `Dialogue`.
        name: Who we are, for one that is displaced.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    attach = TAKE_OVER if takes_over else VISIT
    async with (
        server.open_channel(session_id, attach=attach, name=name) as channel,
        trio.open_nursery() as nursery,
    ):
        dialogue = Dialogue(session_id, on_output, way_out, server, channel)
        nursery.start_soon(dialogue.hear)
        yield dialogue
        nursery.cancel_scope.cancel()
