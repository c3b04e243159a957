"""A session's client at the other end of a WebSocket.

Two tasks on one stream: a reader that takes what arrives apart and hands it to the session, and a writer that takes
batches from the session's journal and sends each with one call. Control frames go through the writer too, so that
frames never interleave. A third task keeps the time of pings, which tell whether the client is there, and what it has;
see `kallichore.attach.pings`.

Channel traffic does not pass through ASGI: a message costs less than 1 µs here and 58 µs there.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from math import inf

import attrs
import trio
import trio_util
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from kallichore.attach.dialect import Dialect, KallichoreDialect
from kallichore.attach.frames import PONG, close_frame, control_frame
from kallichore.attach.gathering import Gathering, Piece
from kallichore.attach.incoming import Incoming, TooBig
from kallichore.attach.outgoing import Outgoing
from kallichore.attach.pings import QUIET, Pings
from kallichore.config import ServerConfig
from kallichore.conversation.delivery import Ending
from kallichore.conversation.ticks import tick_after
from kallichore.session.clients import ClientSlot, Wish
from kallichore.session.intake import TooMuchError
from kallichore.session.session import Session
from kallichore.transport.auth import SUBPROTOCOL, offers_ours
from kallichore.transport.request_head import RequestHead, accept_token
from kallichore.wire.client_messages import ClientMessageError

logger = logging.getLogger(__name__)

CLOSING_PATIENCE = 1.0
"""Seconds that a client is given to answer our close frame, and its connection to take the last bytes."""

READ_SIZE = 1 << 16

NOT_SENT = 1 << 18
"""Bytes that may wait in the system to be sent to a client: more would be in the way of replies that go ahead."""

STANDSTILL = 1.0
"""Seconds for which a client takes nothing before it counts as one that stands still."""

MOST_CONTROL = 64
"""Control frames that wait for a client; more pings are not answered."""

_CAN_PUSH = sys.platform != "win32"
"""Whether a socket is a file that can be written to without waiting."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, TOO_BIG, SERVICE_RESTART = 1000, 1001, 1002, 1005, 1009, 1012


def upgrade_response(request: RequestHead, subprotocol: str | None = None) -> bytes:
    """Return the answer that opens a WebSocket, with this subprotocol, and no extension."""
    lines = ["HTTP/1.1 101 Switching Protocols", "connection: Upgrade", "upgrade: websocket"]
    if subprotocol is not None:
        lines.append(f"sec-websocket-protocol: {subprotocol}")
    lines.append(f"sec-websocket-accept: {accept_token(request.headers['sec-websocket-key'])}")
    return "\r\n".join([*lines, "", ""]).encode()


@attrs.define(eq=False)
class _Attachment:
    """One WebSocket client and its session, while both last."""

    session: Session
    slot: ClientSlot
    stream: trio.abc.Stream
    config: ServerConfig
    dialect: Dialect
    incoming: Incoming
    _gathering: Gathering
    _outgoing: Outgoing = attrs.field(init=False)
    _closing: bytes | None = attrs.field(default=None, init=False)
    _is_over: bool = attrs.field(default=False, init=False)
    """Whether nothing more is to be read."""
    _alarm: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Ends when it is time to think of a ping."""
    _alarm_at: float = attrs.field(default=inf, init=False)
    """When that is."""
    _socket: trio.socket.SocketType | None = attrs.field(default=None, init=False)
    """The connection, if that is a socket which can be read and written to as a file."""
    _may_push: bool = attrs.field(default=False, init=False)
    """Whether the writer waits for news, and so somebody else may send."""

    def __attrs_post_init__(self) -> None:
        slot, interval, now = self.slot, self.config.ping_interval, trio.current_time()
        allowance = self.config.ping_allowance
        by_numbers = self.dialect.goes_by_numbers
        pings = Pings(slot.deliveries, slot.delivery, by_numbers, interval, allowance, tick_after(now, interval))
        self._outgoing = Outgoing(slot, pings, self.dialect)
        if _CAN_PUSH and isinstance(self.stream, trio.SocketStream):
            self._socket = self.stream.socket

    async def run(self) -> None:
        """Serve the client until one side closes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            await trio_util.wait_any(self._read, self._write)
            nursery.cancel_scope.cancel()
        with trio.move_on_after(CLOSING_PATIENCE):
            await self._say_goodbye()
        if not self._is_over:
            self._read_last()

    def _close(self, code: int | None, reason: str = "") -> None:
        self._closing = self._closing or close_frame(code, reason)
        self.slot.wake()

    # What arrives

    async def _read(self) -> None:
        while True:
            if not await self._read_some(self._take):
                return

    async def _read_some(self, take: Callable[[object], None]) -> bool:
        """Read once and hand the events on; False at the end of the stream."""
        # That the client leaves comes first: what it said in the same breath is not answered to it any more.
        events = self._events()
        if len(events) > 1:
            events.sort(key=lambda event: not isinstance(event, CloseConnection))
        for event in events:
            take(event)
        if self._is_over:
            return False
        try:
            data = await self._receive()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            data = b""
        if not data:
            return False
        self.incoming.receive(data)
        return True

    async def _receive(self) -> bytes:
        """Return what came, empty at the end of the stream."""
        if self._socket is None:
            return bytes(await self.stream.receive_some(READ_SIZE))
        while True:
            # Not a try first, as Trio's sockets do: a client sends one message and waits for the answer.
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return os.read(self._socket.fileno(), READ_SIZE)
            except BlockingIOError:
                pass

    def _read_last(self) -> None:
        """Take in what is here already of a connection that broke: answers to pings, and perhaps requests."""
        if self._socket is None:
            return
        try:
            while data := os.read(self._socket.fileno(), READ_SIZE):
                self.incoming.receive(data)
                for event in self._events():
                    self._take(event)
        except OSError:
            pass

    def _events(self) -> list[object]:
        try:
            return list(self.incoming.events())
        except (RemoteProtocolError, LocalProtocolError) as error:
            logger.warning("[client %s] Protocol error: %s", self.session.session_id, error)
            self._is_over = True
            self._close(PROTOCOL_ERROR, "protocol error")
            return []

    def _take(self, event: object) -> None:
        match event:
            case TextMessage(data=data, message_finished=finished):
                self._take_piece(str(data), finished)
            case BytesMessage(data=data, message_finished=finished):
                self._take_piece(bytes(data), finished)
            case TooBig():
                with suppress(TooMuchError):
                    self._gathering.refuse()
                self._close(TOO_BIG, "message too big")
            case Ping(payload=payload):
                # Not every ping needs an answer (RFC 6455, 5.5.3), and whoever does not read gets a few.
                if len(self._outgoing.control) < MOST_CONTROL:
                    self._outgoing.control.append(control_frame(PONG, bytes(payload)))
                    self.slot.wake()
            case Pong(payload=payload):
                self._outgoing.pings.answer(bytes(payload))
                self._set_alarm()
            case CloseConnection(code=code):
                # An answer to a close without a code has none either (RFC 6455, 5.5.1).
                self.slot.ending, self._is_over = Ending.CLOSED, True
                self._close(None if int(code) == NO_CODE else int(code))

    def _take_piece(self, data: Piece, finished: bool) -> None:
        try:
            message = self._gathering.add(data, finished)
        except TooMuchError:
            self._close(TOO_BIG, "message too big")
            return
        if not message:
            return
        if not self.slot.may_speak:
            logger.warning("[client %s] Ignored a message of a client that watches", self.session.session_id)
            return
        try:
            request = self.dialect.read(message)
        except ClientMessageError as error:
            logger.error("[session %s] Ignored a client's message: %s", self.session.session_id, error)
            return
        self.slot.note_request(request.msg_id)
        self.session.send(request)

    # What leaves

    def _push(self, now: float) -> None:
        """Send what is ready, without waiting.

        Raises:
            BlockingIOError: The client takes no more now.
            OSError: The connection is broken.
        """
        assert self._socket is not None
        outgoing = self._outgoing
        while outgoing.pieces:
            outgoing.went_out(os.write(self._socket.fileno(), outgoing.pieces[0]))
        self._settle(now)

    def _settle(self, now: float) -> None:
        self._outgoing.settle(now)
        # With most messages the alarm is set already, and what follows would be more steps than to see that.
        if self._alarm_at > now + QUIET:
            self._set_alarm()

    def _set_alarm(self) -> None:
        """Let `_keep_time` wake for a ping that has to go alone, unless it wakes earlier anyway."""
        if (at := self._outgoing.pings.quiet_at) < self._alarm_at:
            self._alarm.deadline = self._alarm_at = at

    def _send_at_once(self) -> bool:
        """Send what is new in the task of whoever brought it; True if nothing is left to the writer.

        Most messages come alone and are taken at once. To wake the writer for them would be another task switch and
        another turn of the event loop each, a third of what a small execution costs.
        """
        if not self._may_push or self._closing is not None:
            return False
        self._may_push = False
        now = trio.current_time()
        try:
            if self._outgoing.take_next(now):
                self._push(now)
        except OSError:
            return False
        self._may_push = True
        return not self.slot.is_behind and self.slot.leaving is None and self._closing is None

    async def _write(self) -> None:
        """Send control frames and batches until the client has to leave.

        A displaced client is given a moment to take what is on its way, so that it can be told why it has to leave.
        """
        with trio.CancelScope() as sending:

            def hasten() -> None:
                sending.deadline = trio.current_time() + CLOSING_PATIENCE

            self.slot.on_displaced = hasten
            self.slot.on_news = self._send_at_once
            await self.slot.wait_turn()
            self.slot.note_pace(keeps_up=self._socket is not None)
            try:
                await self._write_on()
            finally:
                # What somebody else began to send, and nobody went on with.
                self._settle(trio.current_time())

    async def _write_on(self) -> None:
        while self._closing is None:
            if self._outgoing.pieces or self._outgoing.take_next(trio.current_time()):
                if not await self._send():
                    return
                if self.slot.is_behind:
                    await trio.lowlevel.checkpoint()
            elif self.slot.leaving is not None:
                return
            else:
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        self._may_push = self._socket is not None
        try:
            await self.slot.wait_woken()
        finally:
            self._may_push = False

    async def _send(self) -> bool:
        """Send what is ready; False if the client is gone. However it ends, what went out is settled."""
        try:
            while self._outgoing.pieces:
                if self._socket is not None:
                    try:
                        self._push(trio.current_time())
                    except BlockingIOError:
                        await self._wait_writable(self._socket)
                else:
                    # How far it came if it fails is not told; then all of it counts as unsent.
                    piece = self._outgoing.pieces[0]
                    await self.stream.send_all(piece)
                    self._outgoing.went_out(len(piece))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return False
        finally:
            self._settle(trio.current_time())
        return True

    async def _wait_writable(self, connection: trio.socket.SocketType) -> None:
        with trio.move_on_after(STANDSTILL) as patience:
            await trio.lowlevel.wait_writable(connection)
        if patience.cancelled_caught:
            self.slot.note_pace(keeps_up=False)
            await trio.lowlevel.wait_writable(connection)
            self.slot.note_pace(keeps_up=True)

    async def _keep_time(self) -> None:
        """Let pings go when it is time; let a client go that leaves too many unanswered.

        A client that does not even take what is written to it leaves its pings unanswered as well; the allowance covers
        a batch that is on its way.
        """
        pings = self._outgoing.pings
        while not pings.is_given_up:
            self._alarm_at = pings.next_at
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await trio.sleep_forever()
            pings.tick(trio.current_time())
            if pings.is_wanted:
                self.slot.wake()
        logger.warning("[client %s] Left %d pings unanswered; letting it go", self.session.session_id, pings.unanswered)
        await trio.aclose_forcefully(self.stream)

    async def _say_goodbye(self) -> None:
        """Close in order: last words, close frame, and then wait for the other side to have read them."""
        if self._outgoing.unsent or (self._closing is None and self.slot.leaving is None):
            return
        last = b""
        if self.slot.displaced:
            last = self.dialect.farewell(self.slot.leaving)
            self._closing = self._closing or close_frame(None)
        elif self._closing is None:
            code = NORMAL if self.session.deleted.is_set() else SERVICE_RESTART if self.session.is_left else GOING_AWAY
            self._closing = close_frame(code, self.slot.leaving or "")
        try:
            await self.stream.send_all(last + b"".join(self._outgoing.control) + (self._closing or b""))
            while not self._is_over and await self._read_some(self._note_close):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _note_close(self, event: object) -> None:
        if isinstance(event, Pong):
            self._outgoing.pings.answer(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.slot.ending, self._is_over = Ending.CLOSED, True


def _bound_what_waits(stream: trio.abc.Stream) -> None:
    """Let the system keep little that it cannot send yet: replies cannot go ahead of what it has."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option and isinstance(stream, trio.SocketStream) and stream.socket.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.IPPROTO_TCP, option, NOT_SENT)


async def serve_websocket(
    session: Session,
    stream: trio.abc.Stream,
    request: RequestHead,
    surplus: bytes,
    config: ServerConfig,
    wish: Wish,
    *,
    dialect: Dialect | None = None,
    attend: Callable[[ClientSlot], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Open the WebSocket that ``request`` asks for and serve it as a client of the session; closes the stream.

    By default, a client that is there already is displaced. What could not be delivered stays with the session for
    the next client. Cancelling closes the stream at once.

    Args:
        session: Whose channels these are.
        stream: The connection, its request head already read.
        request: The head; it has a ``sec-websocket-key``.
        surplus: Bytes that came behind the head: the client's first frames.
        config: For the ping interval and allowance.
        wish: How the client attends.
        dialect: How it is spoken to; the API's own way by default.
        attend: Is entered when the client has its place at the session, and left before that is given up.
    """
    if dialect is None:
        chosen = SUBPROTOCOL if offers_ours(request.subprotocols) else None
        dialect = KallichoreDialect(wish.since is not None, chosen)
    async with stream:
        try:
            await stream.send_all(upgrade_response(request, dialect.subprotocol))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        _bound_what_waits(stream)
        slot = session.attach(wish)
        try:
            with attend(slot), session.facilities.intake.open() as portion:
                incoming = Incoming(surplus)
                await _Attachment(session, slot, stream, config, dialect, incoming, Gathering(portion)).run()
        finally:
            session.detach(slot)
