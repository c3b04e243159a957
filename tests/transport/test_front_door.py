"""The contract of the front door, and of the use of hypercorn's TCPServer that it makes: what goes where, and how."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from kallichore.transport.front_door import MOST_CONNECTIONS, Attach, FrontDoor, most_connections
from kallichore.transport.request_head import LONGEST_HEAD, RequestHead

UPGRADE = (
    b"GET /sessions/a%20b/channels HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT = 5


@attrs.define(eq=False)
class App:
    """An ASGI app that answers with what it was asked."""

    asked: list[str] = attrs.field(factory=list)
    answering: trio.Event = attrs.field(factory=trio.Event)
    may_answer: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer `/slow` when it may, `/stream` in two parts of unknown length, the rest at once."""
        path = scope["path"]
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        self.asked.append(path)
        if path == "/slow":
            self.answering.set()
            await self.may_answer.wait()
        text = f"{scope['method']} {path} {len(body)}".encode()
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": text, "more_body": True})
            self.answering.set()
            await self.may_answer.wait()
            await send({"type": "http.response.body", "body": b"the end"})
            return
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


@attrs.define(eq=False)
class Recorded:
    """A stream that notes each write: what the client would see if it read fast enough."""

    stream: trio.SocketStream
    writes: list[bytes] = attrs.field(factory=list)

    @property
    def socket(self) -> Any:
        """The socket, which hypercorn asks for addresses."""
        return self.stream.socket

    async def send_all(self, data: bytes) -> None:
        """Note and send."""
        self.writes.append(bytes(data))
        await self.stream.send_all(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@attrs.define(eq=False)
class Client:
    """The client's side of a connection."""

    stream: trio.SocketStream
    server_side: Recorded
    buffer: bytes = b""

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def answer(self) -> bytes:
        """Return the next answer that has a content-length, head and body."""
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, _ = self.buffer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self.buffer) < len(head) + 4 + length:
            await self._more()
        answer, self.buffer = self.buffer[: len(head) + 4 + length], self.buffer[len(head) + 4 + length :]
        return answer

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, f"the server closed the connection after {self.buffer!r}"
        self.buffer += bytes(data)

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        data = self.buffer
        while more := await self.stream.receive_some(65536):
            data += bytes(more)
        return data


@asynccontextmanager
async def open_door(app: App, attach: Attach | None) -> AsyncIterator[tuple[FrontDoor, Client]]:
    """Serve one connection through a front door; leaving waits until it has been served."""
    ours, theirs = trio.socket.socketpair()
    server_side = Recorded(trio.SocketStream(theirs))
    door = FrontDoor(app, attach)  # type: ignore[arg-type]
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery, trio.SocketStream(ours) as stream:
            nursery.start_soon(door.serve, server_side)  # noqa: ASYNC113  # what the client sends waits for it
            yield door, Client(stream, server_side)


class Attachments:
    """Answers upgrades with what arrived with them."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []

    async def __call__(self, stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
        """Tell the client the path and the bytes behind the head, then end."""
        self.heads.append(head)
        text = f"{head.path} {surplus!r}".encode()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)


async def test_requests_of_one_connection_are_answered_one_after_another() -> None:
    """A connection serves any number of requests, each answer head and body in one write."""
    async with open_door(App(), Attachments()) as (_, client):
        answers = []
        for _ in range(3):
            await client.send(HELLO)
            answers.append((await client.answer()).partition(b"\r\n\r\n")[2])

    assert [b"GET /hello 0"] * 3 == answers
    assert 3 == len(client.server_side.writes)


@pytest.mark.parametrize("before", [0, 2])
async def test_an_upgrade_is_attached_wherever_on_the_connection_it_comes(before: int) -> None:
    """The upgrade of a session's channels gets the stream, the head and the bytes behind it, also on a used
    connection.
    """
    app, attachments = App(), Attachments()
    async with open_door(app, attachments) as (_, client):
        for _ in range(before):
            await client.send(HELLO)
            await client.answer()
        await client.send(UPGRADE + b"first frame")
        answer = await client.answer()

    assert b"/sessions/a%20b/channels b'first frame'" == answer.partition(b"\r\n\r\n")[2]
    assert ["/hello"] * before == app.asked
    assert "13" == attachments.heads[0].headers["sec-websocket-version"]


@pytest.mark.parametrize("request_", [HELLO, UPGRADE], ids=["request", "upgrade"])
async def test_a_head_may_come_in_pieces(request_: bytes) -> None:
    """A head that arrives byte by byte means the same as one in one piece."""
    attachments = Attachments()
    async with open_door(App(), attachments) as (_, client):
        for position in range(len(request_)):
            await client.send(request_[position : position + 1])
            await trio.testing.wait_all_tasks_blocked()
        answer = await client.answer()

    assert answer.startswith(b"HTTP/1.1 200")
    assert (request_ is UPGRADE) == bool(attachments.heads)


async def test_a_refused_upgrade_closes_the_connection() -> None:
    """After an attachment has answered, nothing more is taken from the connection."""

    async def refuse(stream: trio.abc.Stream, _head: RequestHead, _surplus: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")

    app = App()
    async with open_door(app, refuse) as (_, client):
        await client.send(UPGRADE + HELLO)
        answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 403")
    assert [] == app.asked


@pytest.mark.parametrize("wish", [b"websocket", b"h2c"])
async def test_without_attachments_an_upgrade_is_an_ordinary_request(wish: bytes) -> None:
    """Where channels have sockets of their own, a wish to upgrade is ignored: the app answers the request itself."""
    async with open_door(App(), None) as (_, client):
        await client.send(UPGRADE.replace(b"websocket", wish))
        answer = await client.answer()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"GET /sessions/a b/channels 0")


@attrs.define(eq=False)
class HastyApp(App):
    """An app that gives its own task up as soon as the end of the connection is on its way, as quart-trio does."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer, and watch for the end meanwhile."""
        await receive()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("app", [App(), HastyApp()], ids=["patient", "hasty"])
async def test_a_connection_is_closed_after_the_answer_where_the_client_wants_that(app: App) -> None:
    """A client that says ``Connection: close`` may read to the end of the stream."""
    async with open_door(app, Attachments()) as (_, client):
        await client.send(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_without_host_is_answered() -> None:
    """The API does not insist on a Host header, nor on what it says."""
    async with open_door(App(), Attachments()) as (_, client):
        await client.send(b"GET /hello HTTP/1.1\r\n\r\n")
        answer = await client.answer()

    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("lines", [b"HTTP/1.1\r\nHost: a", b"HTTP/1.1\r\nHost: a\r\nConnection: close", b"HTTP/1.0"])
async def test_a_client_that_closed_its_side_still_gets_its_answer(lines: bytes) -> None:
    """The end of the client's side in the middle of a request is not taken for a hang-up."""
    app = App()
    async with open_door(app, Attachments()) as (_, client):
        await client.send(b"POST /slow %s\r\nContent-Length: 3\r\n\r\nabc" % lines)
        await client.stream.send_eof()
        await app.answering.wait()
        app.may_answer.set()
        answer = await client.rest()

    assert answer.endswith(b"POST /slow 3")


async def test_head_requests_have_no_body() -> None:
    """The answer to HEAD names a length and does not send it; the next request on the connection is served."""
    async with open_door(App(), Attachments()) as (_, client):
        await client.send(b"HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        head = bytes(await client.stream.receive_some(65536))
        await client.send(HELLO)
        answer = await client.answer()

    assert head.endswith(b"\r\n\r\n")
    assert answer.endswith(b"GET /hello 0")


async def test_a_response_of_unknown_length_leaves_as_it_comes() -> None:
    """What is streamed is not held back for its end."""
    app = App()
    async with open_door(app, Attachments()) as (_, client):
        await client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        while b"GET /stream 0" not in client.buffer:
            await client._more()
        early = client.buffer
        app.may_answer.set()
        while not client.buffer.endswith(b"0\r\n\r\n"):
            await client._more()

    assert b"the end" not in early
    assert b"the end" in client.buffer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /sessions/a/channels\r\n\r\n", b"400"),
        (b"GET /hello HTTP/1.1\r\nX: " + b"x" * (LONGEST_HEAD + 1), b"431"),
        (b"GET /sessions/a/channels HTTP/1.1\r\nX: " + b"x" * (LONGEST_HEAD + 1), b"431"),
    ],
    ids=["TLS", "no version", "long head", "long head of an upgrade"],
)
async def test_what_is_no_request_is_refused(data: bytes, status: bytes) -> None:
    """Garbage and endless heads get an error and the end of the connection."""
    async with open_door(App(), Attachments()) as (_, client):
        await client.send(data)
        answer = await client.rest()

    assert status == answer.split(b" ")[1]


async def test_closing_idle_connections_spares_answers_on_their_way() -> None:
    """An idle connection is closed at once; one in the middle of a request gets its answer first."""
    app = App()
    async with open_door(app, Attachments()) as (door, client):
        await client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await app.answering.wait()
        await door.close_idle()
        app.may_answer.set()
        busy = await client.rest()
    async with open_door(App(), Attachments()) as (door, client):
        await client.send(HELLO)
        await client.answer()
        await door.close_idle()
        idle = await client.rest()

    assert busy.endswith(b"GET /slow 0")
    assert b"" == idle


@pytest.mark.parametrize("sent", [b"", b"GET /hel", HELLO], ids=["nothing", "half a head", "a request"])
async def test_a_cancelled_connection_is_closed(sent: bytes) -> None:
    """Cancelling a connection closes its stream, wherever it is."""
    ours, theirs = trio.socket.socketpair()
    app = App()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery, trio.SocketStream(ours) as stream:
            nursery.start_soon(FrontDoor(app, None).serve, trio.SocketStream(theirs))  # type: ignore[arg-type]
            await stream.send_all(sent)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()

    assert -1 == theirs.fileno()


async def test_one_connection_too_many_is_refused_until_another_ends() -> None:
    """At the limit a connection is told so and closed; those that are there go on, and an end makes room."""
    door = FrontDoor(App(), None, most=1)  # type: ignore[arg-type]
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:

            async def connect() -> Client:
                ours, theirs = trio.socket.socketpair()
                server_side = Recorded(trio.SocketStream(theirs))
                nursery.start_soon(door.serve, server_side)
                await trio.testing.wait_all_tasks_blocked()
                return Client(trio.SocketStream(ours), server_side)

            first, second = await connect(), await connect()
            refused = await second.rest()
            await first.send(HELLO)
            served = await first.answer()
            await first.stream.send_eof()
            await first.rest()
            await trio.testing.wait_all_tasks_blocked()
            third = await connect()
            await third.send(HELLO)
            next_one = await third.answer()
            for client in (first, second, third):
                await client.stream.aclose()

    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert [b"HTTP/1.1 200"] * 2 == [served[:12], next_one[:12]]


@pytest.mark.posix_only("Windows has no limit of open files")
def test_connections_leave_half_of_the_files_to_kernels() -> None:
    """Where the system admits few open files, the limit is half of them."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
        few = most_connections()
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
        many = most_connections()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert 500 == few
    assert MOST_CONNECTIONS == many
