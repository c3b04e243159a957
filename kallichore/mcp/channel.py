"""A window's WebSocket: what it says goes to its workspace, and what the workspace has for it goes out."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import attrs
import trio
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from kallichore.attach.frames import PING, PONG, close_frame, control_frame, text_frame
from kallichore.attach.incoming import Incoming, TooBig
from kallichore.attach.websocket import NO_CODE, TOO_BIG, upgrade_response
from kallichore.mcp.channel_frames import MalformedFrameError, parse_frame
from kallichore.mcp.workspace import Window, Workspace
from kallichore.transport.request_head import RequestHead

logger = logging.getLogger(__name__)

READ_SIZE = 1 << 16

LARGEST_FRAME = 1 << 23
"""Bytes that a window may say at once: a catalogue of thousands of commands with schemas, a plot as a data URI."""

PING_EVERY = 30.0
"""Seconds of silence after which a window is asked whether it is there."""

SILENCE = 90.0
"""Seconds without a word, or an answer to a ping, after which a window is taken for gone."""

GOING_AWAY, PROTOCOL_ERROR = 1001, 1002


@attrs.define(eq=False)
class _Channel:
    workspace: Workspace
    window: Window
    stream: trio.abc.Stream
    incoming: Incoming
    _has_more: trio.Event = attrs.field(factory=trio.Event, init=False)
    _pieces: list[str] = attrs.field(factory=list, init=False)
    _control: list[bytes] = attrs.field(factory=list, init=False)
    """Answers to pings, and pings, which go first."""
    _closing: bytes | None = attrs.field(default=None, init=False)

    def wake(self) -> None:
        """Note that there is more to send, or that it is over."""
        self._has_more.set()

    async def read(self) -> None:
        """Take in what the window says, to its end."""
        while self._closing is None:
            try:
                for event in self.incoming.events():
                    self._take(event)
            except RemoteProtocolError as error:
                self._close(close_frame(PROTOCOL_ERROR, str(error)))
                return
            with trio.move_on_after(SILENCE) as silence:
                data = await self.stream.receive_some(READ_SIZE)
            if silence.cancelled_caught or not data:
                self._close(b"")
                return
            self.incoming.receive(bytes(data))

    def _take(self, event: object) -> None:
        match event:
            case TextMessage():
                self._pieces.append(event.data)
                if event.message_finished:
                    text, self._pieces = "".join(self._pieces), []
                    self._hear(text)
            case Ping():
                self._send(control_frame(PONG, bytes(event.payload)))
            case TooBig():
                self._close(close_frame(TOO_BIG))
            case CloseConnection():
                self._close(close_frame(None if event.code == NO_CODE else int(event.code)))

    def _hear(self, text: str) -> None:
        try:
            frame = parse_frame(text)
        except MalformedFrameError as error:
            # One frame that is wrong is no reason to lose the window with all its commands.
            logger.warning("[workspace %s] A frame of a window was ignored: %s", self.workspace.workspace_id, error)
            return
        if frame is not None:
            self.workspace.hear(self.window, frame)

    def _send(self, frame: bytes) -> None:
        self._control.append(frame)
        self.wake()

    def _close(self, last: bytes) -> None:
        if self._closing is None:
            self._closing = last
            self.wake()

    async def write(self) -> None:
        """Send what there is for the window, until it is over."""
        while True:
            data = b"".join(self._control) + b"".join(map(text_frame, self.window.outgoing))
            self._control.clear()
            self.window.outgoing.clear()
            if self.window.is_let_go:
                self._close(close_frame(GOING_AWAY))
            if self._closing is not None:
                await self.stream.send_all(data + self._closing)
                return
            if data:
                await self.stream.send_all(data)
                continue
            with trio.move_on_after(PING_EVERY) as quiet:
                await self._has_more.wait()
            if quiet.cancelled_caught:
                self._control.append(control_frame(PING))
            self._has_more = trio.Event()


async def serve_channel(
    workspace: Workspace, stream: trio.abc.Stream, head: RequestHead, surplus: bytes, ending: trio.Event
) -> None:
    """Serve one window until it is gone or let go; the stream is closed then.

    Args:
        workspace: Whose window it is.
        stream: Its connection.
        head: Its request.
        surplus: What came behind that.
        ending: Is set when the server ends.
    """
    async with stream:
        await stream.send_all(upgrade_response(head))
        window = workspace.open_window()
        channel = _Channel(workspace, window, stream, Incoming(surplus, LARGEST_FRAME))
        window.wake = channel.wake
        logger.info("[workspace %s] A window is there", workspace.workspace_id)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_let_go_at, ending, window)
                nursery.start_soon(channel.read)
                await channel.write()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            # The window is gone without a word.
            pass
        finally:
            workspace.close_window(window, datetime.now(UTC))
            logger.info("[workspace %s] A window is gone", workspace.workspace_id)


async def _let_go_at(event: trio.Event, window: Window) -> None:
    await event.wait()
    window.is_let_go = True
    window.wake()
