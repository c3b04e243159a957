"""The door that every connection comes through: HTTP goes to hypercorn, channel upgrades go to the session.

ASGI costs 58 µs a message, so channel traffic must not pass through it. A connection is hypercorn's until a request
turns out to be the WebSocket upgrade of a session's channels, be it the connection's first request or its tenth; then
hypercorn sees the end of the stream, and the attachment gets the stream itself. Requests that are refused by their head
alone do not reach hypercorn either: it is begun with when a connection's first request may pass.

Only HTTP/1 is spoken. hypercorn would go on in HTTP/2 with whoever begins with it or asks for it; nothing here needs
that, and it is a second way in: its frames are cheap to send and dear to take, and its libraries log the headers.

This is the one place that uses ``hypercorn.trio.tcp_server.TCPServer``, which is not documented as public: it serves an
ASGI app on anything that looks like a ``trio.SocketStream``. pyproject.toml bounds hypercorn's version for that, and
tests/transport/test_front_door.py is the contract. hypercorn writes a response in pieces; here they are put together
again, since clients that read once expect head and body in one piece. It leaves the reason phrase out; here it is put
in, since simple clients look for ``200 OK``.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

import attrs
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from kallichore.transport.request_head import (
    LONGEST_HEAD,
    MalformedHeadError,
    RequestHead,
    is_channels_path,
    parse_head,
    refusal,
    speaks_http_1,
)

logger = logging.getLogger(__name__)

CLOSING_PATIENCE = 1.0
"""Seconds that a client is given to read our last bytes: closing a socket with unread data would reset the connection
and could destroy them on their way."""

LARGEST_HELD_BACK = 1 << 20
"""Bytes of a response that wait for the rest of it; a longer response leaves as it comes."""

READ_SIZE = 1 << 16

MOST_CONNECTIONS = 2000
"""Connections at a time, many times what clients need; a silent one takes 20 kB. Whoever opens more, by mistake or to
do harm, must not take the memory and the file descriptors that kernels need."""

REFUSED_AT_A_TIME = 4
"""Requests that are answered at a time of those that are refused by their head. Whoever sends a thousand of them at
once waits for their answers; others do not, as little is done for them in each turn of the event loop."""

_FULL = refusal(HTTPStatus.SERVICE_UNAVAILABLE)
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) (?=\r\n)")
_UPGRADE_HEADER = re.compile(rb"\nupgrade:[^\n]*", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Attach = Callable[[trio.abc.Stream, RequestHead, bytes], Awaitable[None]]


class Screen(Protocol):
    """Who refuses requests by their head alone."""

    def judge(self, head: RequestHead) -> HTTPStatus | None:
        """Return the status with which a request is refused; None if it may pass."""

    def answer(self, head: RequestHead, status: HTTPStatus) -> bytes:
        """Return the whole answer to a request that is refused."""


@attrs.frozen
class _Upgrade:
    """A request that is the attachment's, and what came behind it."""

    head: RequestHead
    surplus: bytes


@attrs.frozen
class _Refusal:
    """What makes the answer to a request that goes no further."""

    answer: Callable[[], bytes]


class _Http1(h11.Connection):
    """Reads requests for hypercorn, and lets none of them lead out of HTTP/1: those that came together with the one
    before are seen by nobody else.
    """

    asks_for_head = False
    """Whether the latest request is a HEAD, whose answer has no body, whatever its head says."""

    def next_event(self) -> Any:
        """Return what came next.

        Raises:
            h11.RemoteProtocolError: It is no HTTP/1.
        """
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        if not speaks_http_1(f"HTTP/{event.http_version.decode()}"):
            raise h11.RemoteProtocolError("this is another HTTP", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        self.asks_for_head = event.method == b"HEAD"
        headers = [(name, value) for name, value in event.headers if name != b"upgrade"]
        if len(headers) == len(event.headers):
            return event
        return h11.Request(method=event.method, target=event.target, http_version=event.http_version, headers=headers)


class _HttpStream(trio.abc.Stream):
    """A connection as hypercorn sees it: requests that are ours never reach it."""

    def __init__(
        self, stream: Any, scope: trio.CancelScope, judge: _Judge, begun: bytes, *, serves_half_closed: bool = True
    ) -> None:
        self.socket = stream.socket
        self.taken: _Upgrade | _Refusal | None = None
        self._stream = stream
        self._scope = scope
        self._judge = judge
        self._begun = begun
        self._serves_half_closed = serves_half_closed
        self._answered = trio.Event()
        """Set when the answer to the latest request has been sent."""
        self._is_complete = False
        """Whether all of that answer is on its way: a client may be faster with its next request than we with this."""
        self._held_back: list[bytes] = []
        self._owed: int | None = None

    def read_by(self, server: TCPServer) -> None:
        """Note who reads this."""
        self._server = server

    @property
    def _reader(self) -> Any:
        """hypercorn's reader, which knows how much of a request has come: our `h11.Connection`."""
        return self._server.protocol.protocol.connection

    def _is_between_requests(self) -> bool:
        """Whether what comes next begins a request: of the one before nothing is left to read, nor to answer."""
        state = self._reader.their_state
        if state is h11.DONE:
            return self._is_complete and self._reader.our_state is not h11.SEND_RESPONSE
        return state is h11.IDLE and not self._reader.trailing_data[0]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._begun:
            # The first call; hypercorn has made its own reader by now.
            self._server.protocol.protocol.connection = _Http1(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
            data, self._begun = self._note_request(self._begun), b""
            return data
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
            if data and self._is_between_requests():
                data = await self._begin_request(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # hypercorn would go on waiting, for the idle time of a connection to be over.
            self._scope.cancel()
            raise
        if not data:
            if self._serves_half_closed and self._reader.their_state in (h11.DONE, h11.MUST_CLOSE):
                # The client closed its side and still wants the answer; hypercorn would take this for a hang-up.
                if self._reader.our_state is h11.SEND_RESPONSE:
                    self._owe_answer()
                await self._answered.wait()
            self._scope.cancel()
        return data

    def _owe_answer(self) -> None:
        if self._is_complete:
            self._answered, self._is_complete = trio.Event(), False

    async def _begin_request(self, data: bytes) -> bytes:
        verdict = self._judge(await read_head(self._stream, data))
        if isinstance(verdict, bytes):
            return self._note_request(verdict)
        self.taken = verdict
        return b""

    def _note_request(self, data: bytes) -> bytes:
        self._owe_answer()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            return
        data = bytes(data)
        if self._owed is None:
            self._owe_answer()
            data = _STATUS_LINE.sub(_name_status, data, count=1) if data.startswith(b"HTTP/") else data
        self._held_back.append(data)
        if self._owed is None:
            self._owed = self._size_of_response(self._held_back[0])
        else:
            self._owed -= len(data)
        if self._owed <= 0 or len(data) > LARGEST_HELD_BACK:
            await self._flush()

    def _size_of_response(self, first: bytes) -> int:
        """Return how many bytes are to come behind ``first``, the head of a response and perhaps more."""
        end = first.find(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(first, 0, end + 2)
        if first.startswith(b"HTTP/1.1 1") or length is None or self._reader.asks_for_head:
            return 0
        return end + 4 + int(length[1]) - len(first)

    async def _flush(self) -> None:
        data = b"".join(self._held_back)
        self._held_back.clear()
        answered = None
        if self._owed is not None and self._owed <= 0:
            self._owed = None
            if not data.startswith(b"HTTP/1.1 1"):
                answered, self._is_complete = self._answered, True
        try:
            if data:
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Who waits for the answer to be complete, or for the next request, would wait for ever.
            self._scope.cancel()
            raise
        if answered is not None:
            answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        # hypercorn ends a connection (`Connection: close`) from within the request's task, which quart-trio cancels
        # once the answer is complete. So the end is begun before anything is awaited; `FrontDoor.serve` carries it out.
        self._scope.cancel()
        if self.taken is None:
            with trio.CancelScope(shield=True):
                await self._flush()

    async def aclose(self) -> None:
        # The connection is closed by `FrontDoor.serve`; what hypercorn keeps running for it ends here.
        self._scope.cancel()
        self._answered.set()
        await trio.lowlevel.checkpoint()


_Judge = Callable[[bytes], bytes | _Upgrade | _Refusal]


async def read_head(stream: Any, begin: bytes) -> bytes:
    """Return what came up to the end of a head, and perhaps more; less where the client, or h11, ends it."""
    data, looked_at = bytearray(begin), 0
    # What begins with a space or less is no request (TLS is one case), and h11 says so at once.
    while data[0] > 0x20 and len(data) < LONGEST_HEAD and not _END_OF_HEAD.search(data, looked_at):
        looked_at = max(0, len(data) - 2)
        more = await stream.receive_some(READ_SIZE)
        if not more:
            break
        data += more
    return bytes(data)


def _name_status(line: re.Match[bytes]) -> bytes:
    try:
        return line[0] + HTTPStatus(int(line[1])).phrase.encode()
    except ValueError:
        return line[0]


def most_connections() -> int:
    """Return how many connections are served at a time: at most half as many as there may be open files."""
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 2)


class FrontDoor:
    """Serves connections for one server.

    Args:
        app: The ASGI app for everything but channels.
        attach: Serves a channel upgrade; it gets the stream, the request's head and the bytes behind it, and answers.
            None where channels have sockets of their own: then an upgrade is an ordinary request.
        takes: Tells by its path whether an upgrade is of channels.
        serves_half_closed: Whether a client that ends its side of a connection gets the answer to what it asked. If
            not, it is gone, and what serves it is cancelled.
        screen: Refuses requests by their head; then their connection ends. It is asked for every request but those that
            come together with the one before.
        most: How many connections are served at a time; None for `most_connections`.
    """

    def __init__(
        self,
        app: ASGIFramework,
        attach: Attach | None,
        screen: Screen | None = None,
        most: int | None = None,
        takes: Callable[[str], bool] = is_channels_path,
        *,
        serves_half_closed: bool = True,
    ) -> None:
        self._app = ASGIWrapper(app)
        self._attach = attach
        self._takes = takes
        self._serves_half_closed = serves_half_closed
        self._screen = screen
        self._most = most_connections() if most is None else most
        self._open = 0
        self._is_closing = False
        self._refusing = trio.Semaphore(REFUSED_AT_A_TIME)
        self._opening: set[trio.CancelScope] = set()
        """Of connections whose first request has not come yet."""
        self._context = WorkerContext(None)
        self._config = Config()
        self._config.include_server_header = False
        # The API has no time limits for idle connections; `close_idle` ends them when the server does.
        self._config.keep_alive_timeout = float("inf")
        self._config.keep_alive_max_requests = 1 << 62
        self._config.h11_max_incomplete_size = LONGEST_HEAD
        self._config.errorlog = logging.getLogger("kallichore.hypercorn")

    async def serve(self, stream: Any) -> None:
        """Serve one connection to its end and close it; one too many is told so. Cancelling closes it at once.

        Args:
            stream: A stream with a ``socket``, such as `trio.SocketStream`.
        """
        self._open += 1
        try:
            if self._open > self._most:
                await stream.send_all(_FULL)
                return
            if self._open == self._most:
                logger.warning("There are %d connections; more are refused", self._most)
            match await self._serve_http(stream):
                case _Upgrade(head, surplus) if self._attach is not None:
                    await self._attach(stream, head, surplus)
                case _Refusal(answer):
                    async with self._refusing:
                        with trio.move_on_after(CLOSING_PATIENCE):
                            await stream.send_all(answer())
                    await close_in_order(stream)
                case _:
                    await close_in_order(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # The client is gone; nobody is left to tell.
            pass
        finally:
            self._open -= 1
            await trio.aclose_forcefully(stream)

    async def _serve_http(self, stream: Any) -> _Upgrade | _Refusal | None:
        """Serve requests up to the end of the connection, or to one that is not hypercorn's, which is returned."""
        begun = self._judge(await self._read_opening(stream))
        if not isinstance(begun, bytes):
            return begun
        if not begun:
            return None
        async with trio.open_nursery() as nursery:
            served = trio.Event()
            nursery.start_soon(_close_when_cancelled, stream, served)
            with trio.CancelScope() as scope:
                http = _HttpStream(stream, scope, self._judge, begun, serves_half_closed=self._serves_half_closed)
                state: LifespanState = {}
                server = TCPServer(self._app, self._config, self._context, state, http)  # type: ignore[arg-type]
                http.read_by(server)
                await server.run()
            served.set()
        return http.taken

    async def _read_opening(self, stream: Any) -> bytes:
        """Return the head of a connection's first request, and what came with it; nothing if none comes."""
        data = b""
        with trio.CancelScope() as scope:
            self._opening.add(scope)
            if self._is_closing:
                scope.cancel()
            try:
                begin = bytes(await stream.receive_some(READ_SIZE))
                data = await read_head(stream, begin) if begin else b""
            finally:
                self._opening.discard(scope)
        return data

    def _judge(self, data: bytes) -> bytes | _Upgrade | _Refusal:
        """Decide about a request by its head: the bytes for hypercorn, or what becomes of it instead."""
        try:
            parsed = parse_head(data)
        except MalformedHeadError:
            return _Refusal(partial(refusal, HTTPStatus.BAD_REQUEST))
        if parsed is None:
            # hypercorn's parser knows what is wrong with it.
            return data
        head, surplus = parsed
        if not speaks_http_1(head.version):
            return _Refusal(partial(refusal, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED))
        if self._screen is not None and (status := self._screen.judge(head)) is not None:
            return _Refusal(partial(self._screen.answer, head, status))
        if self._attach is not None and head.asks_for_websocket and self._takes(head.path):
            return _Upgrade(head, surplus)
        return _for_hypercorn(data, head, surplus)

    async def close_idle(self) -> None:
        """Close the connections that wait for a next request; those in the middle of one get their answer first."""
        self._is_closing = True
        for scope in self._opening:
            scope.cancel()
        await self._context.terminated.set()


def _for_hypercorn(data: bytes, head: RequestHead, surplus: bytes) -> bytes:
    """Return a request as hypercorn takes it for what it is."""
    if "host" not in head.headers:
        # h11 insists on a Host, the API does not.
        data = data.replace(b"\n", b"\nhost: localhost\r\n", 1)
    if "upgrade" in head.headers:
        # Nothing else here upgrades, and a server may ignore the wish (RFC 9110, 7.8). h11 would wait with the next
        # request until it knows.
        end = len(data) - len(surplus)
        data = _UPGRADE_HEADER.sub(b"", data[:end]) + data[end:]
    return data


async def _close_when_cancelled(stream: trio.abc.AsyncResource, served: trio.Event) -> None:
    """End what hypercorn shields: a send to a client that does not read on would hold up the end of the server."""
    try:
        await served.wait()
    except trio.Cancelled:
        await trio.aclose_forcefully(stream)
        raise


async def close_in_order(stream: trio.abc.AsyncResource) -> None:
    """Close a stream so that what was sent arrives: end our side, let the other side read, then close."""
    if not isinstance(stream, trio.SocketStream):
        # A pipe keeps what was written to it for its reader.
        await stream.aclose()
        return
    with trio.move_on_after(CLOSING_PATIENCE):
        await stream.send_eof()
        while await stream.receive_some(READ_SIZE):
            pass
    await stream.aclose()
