"""The channels of a kernel of a Jupyter server: the WebSocket ``/api/kernels/{id}/channels``."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlencode

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from kallichore.client.address import Address
from kallichore.client.channel_client import make_message
from kallichore.client.jupyter_complaints import complaint, kernel_path
from kallichore.client.jupyter_messages import end_news, read_frame, write_frame
from kallichore.client.websocket import ChannelClosedError, closed, open_websocket
from kallichore.errors import KallichoreError, innermost
from kallichore.wire.envelope import EnvelopeError
from kallichore.wire.jupyter_frames import V1, JupyterFrameError

OPENING_PATIENCE = 65.0
"""Seconds that the server has to open the channels: Jupyter's servers wait up to 60 for the kernel to answer."""

LOOK_INTERVAL = 5.0
"""Seconds after which it is looked whether the kernel is there still: of its end a Jupyter server may say nothing."""

ASK_AGAIN = 1.0
"""Seconds after which a kernel that did not answer is asked again: a question to one that just starts may be lost."""

Message = dict[str, Any]


@attrs.define(eq=False)
class JupyterChannel:
    """A kernel's channels, open; see `kallichore.client.server.Channel`. Made by `open_jupyter_channel`.

    Args:
        address: Where the server is.
        kernel_id: The kernel.
        is_there: Asks the server whether it has the kernel.
    """

    address: Address
    kernel_id: str
    is_there: Callable[[], Awaitable[bool]]
    session_id: str = attrs.field(factory=lambda: str(uuid.uuid4()), init=False)
    """Our name for the server: the newest WebSocket of this name is the one that is answered."""
    _socket: WebSocketConnection | None = attrs.field(default=None, init=False)
    _opened: trio.Event = attrs.field(factory=trio.Event, init=False)
    _turn: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Of one WebSocket."""
    _is_renewed: bool = attrs.field(default=False, init=False)
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing more is received."""
    _closed: ChannelClosedError | None = attrs.field(default=None, init=False)
    _inbox: trio.MemoryReceiveChannel[Message] = attrs.field(init=False)
    _heard: trio.MemorySendChannel[Message] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        # Without bound, as a terminal's: what is read is what somebody asked for, and it is read as it comes.
        self._heard, self._inbox = trio.open_memory_channel[Message](math.inf)

    async def send(self, message: Message) -> str:
        """Send a message and return its ``msg_id``.

        Raises:
            ChannelClosedError: The channels are closed.
        """
        await self._opened.wait()
        if self._socket is None or self._closed is not None:
            raise self._why_closed()
        is_v1 = self._socket.subprotocol == V1
        try:
            await self._socket.send_message(write_frame(message, self.session_id, is_v1=is_v1))
        except ConnectionClosed as error:
            raise closed(error) from error
        return str(message["header"]["msg_id"])

    async def receive(self) -> Message:
        """Wait for the next message. Cancelling loses nothing.

        Raises:
            ChannelClosedError: The channels are closed, or the kernel is gone.
        """
        try:
            return await self._inbox.receive()
        except trio.EndOfChannel:
            raise self._why_closed() from None

    def _why_closed(self) -> ChannelClosedError:
        return self._closed or ChannelClosedError("The channels were closed", 1006)

    async def renew(self) -> None:
        """Connect anew, since a kernel that was restarted may not be heard on the old connection.

        Raises:
            ChannelClosedError: The channels are closed.
        """
        if self._closed is None:
            self._is_renewed, self._opened = True, trio.Event()
            self._turn.cancel()
            await self._opened.wait()
        if self._closed is not None:
            raise self._closed

    def tell_end(self, reason: str) -> None:
        """Have it heard that the kernel is gone for good, and close."""
        if self._closed is None:
            for news in end_news(reason):
                self._heard.send_nowait(news)
            self._close(ChannelClosedError(f"The kernel {self.kernel_id} is gone: {reason}", 1000))

    def _close(self, why: ChannelClosedError) -> None:
        self._closed = self._closed or why
        self._is_renewed = False
        self._turn.cancel()
        self._heard.close()

    def leave(self) -> None:
        """Close in order."""
        self._close(ChannelClosedError("The channels were closed", 1000))

    async def confirm(self) -> None:
        """Wait until the server has taken what was sent.

        Raises:
            ChannelClosedError: The channels are closed.
        """
        if self._socket is None:
            raise self._why_closed()
        try:
            await self._socket.ping()
        except ConnectionClosed as error:
            raise closed(error) from error

    async def introduce(self) -> None:
        """Ask the kernel who it is until it answers. Nothing else may be asked or received meanwhile.

        Raises:
            ChannelClosedError: The channels are closed, or the kernel is gone.
        """
        asked: set[str] = set()
        while True:
            asked.add(await self.send(make_message("kernel_info_request", {})))
            with trio.move_on_after(ASK_AGAIN):
                while True:
                    message = await self.receive()
                    if "exited" in message:
                        raise ChannelClosedError("The kernel ended while it started", 1000)
                    is_ours = message["kind"] == "jupyter" and (message["parent_header"] or {}).get("msg_id") in asked
                    if is_ours and message["header"]["msg_type"] == "kernel_info_reply":
                        return

    async def hear(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive messages until the end of the channels; of one WebSocket after the other, where that is renewed."""
        self._is_renewed, has_begun = True, False
        try:
            while self._is_renewed:
                self._is_renewed = False
                with trio.CancelScope() as self._turn:
                    async with self._open() as self._socket:
                        self._opened.set()
                        if not has_begun:
                            has_begun = True
                            task_status.started()
                        # A scope of its own: what is read no longer is closed in order.
                        with trio.CancelScope() as self._turn:
                            await self._read(self._socket)
        except (KallichoreError, OSError, BaseExceptionGroup) as error:
            cause = innermost(error)
            if not has_begun or not isinstance(cause, KallichoreError | OSError):
                raise
            self._close(cause if isinstance(cause, ChannelClosedError) else ChannelClosedError(str(cause), 1006))
        finally:
            self._socket = None
            self._opened.set()
            self.over.set()
        if not has_begun:
            raise self._why_closed()

    async def _read(self, socket: WebSocketConnection) -> None:
        is_v1 = socket.subprotocol == V1
        while True:
            try:
                payload = await socket.get_message()
            except ConnectionClosed as error:
                raise closed(error) from error
            try:
                messages = read_frame(payload, is_v1=is_v1)
            except (JupyterFrameError, EnvelopeError) as error:
                raise ChannelClosedError(f"The server sent what is no message: {error}", 1002) from error
            if self._closed is not None:
                # It comes while we are closing.
                return
            for message in messages:
                self._heard.send_nowait(message)

    def _open(self) -> Any:
        path = f"{self.address.base_path}{kernel_path(self.kernel_id, 'channels')}"
        resource = f"{path}?{urlencode({'session_id': self.session_id})}"
        complain = partial(complaint, str(self.address))
        return open_websocket(self.address, resource, complain, patience=OPENING_PATIENCE, subprotocols=[V1])

    async def look(self) -> None:
        """See from time to time that the kernel is there."""
        while await self.is_there():  # noqa: ASYNC110  # the server does not say it by itself
            await trio.sleep(LOOK_INTERVAL)
        self.tell_end("the server does not have it any more")


@asynccontextmanager
async def open_jupyter_channel(
    address: Address, kernel_id: str, is_there: Callable[[], Awaitable[bool]]
) -> AsyncIterator[JupyterChannel]:
    """Connect to a kernel's channels; see `JupyterChannel`. Closed on leaving.

    Raises:
        ApiError: The server refused.
        ChannelClosedError: It did not open them.
        OSError: Nobody listens there.
    """
    channel = JupyterChannel(address, kernel_id, is_there)
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        # From the beginning: a kernel that dies before it ever answers is not waited for.
        nursery.start_soon(channel.look)
        try:
            await nursery.start(channel.hear)
        except (KallichoreError, OSError, BaseExceptionGroup) as error:
            failure = innermost(error)
        else:
            yield channel
            channel.leave()
            await channel.over.wait()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
