"""The front door under abuse: whatever bytes come, and however connections end, others are served and nothing leaks."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import example, given, settings, strategies as st
from trio.testing import wait_all_tasks_blocked
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from abuse import LIMIT, Victim, answer_of, reset, rest_of, run_victim
from kallichore.client.channel_client import make_execute_request
from kallichore.transport.front_door import FrontDoor
from kallichore.transport.request_head import RequestHead
from kernels import body

if sys.platform != "win32":
    import resource


@pytest.fixture(scope="module")
def server(lasting_place: Path) -> Iterator[Victim]:
    """Return a server that all these tests share: what one does to it, the next would feel."""
    with run_victim() as server:
        assert server.ask("PUT", "/sessions", body("s", argv=[]))[0] == 200
        yield server


KEY = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
HEARTBEAT = b'{"process_id": 1}'

_RESPONSE = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]+\r\n((?:[^\r]+\r\n)*)\r\n")
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def upgrade(server: Victim) -> bytes:
    """Return the request that opens the session's channels."""
    return server.head("GET", "/sessions/s/channels", *KEY)


def conversations(server: Victim) -> list[bytes]:
    """Return what clients send on a connection."""
    return [
        server.head("GET", "/status"),
        server.head("GET", "/sessions") * 2,
        server.head("POST", "/client_heartbeat", f"Content-Length: {len(HEARTBEAT)}") + HEARTBEAT,
        server.head("POST", "/client_heartbeat", "Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(HEARTBEAT), HEARTBEAT),
        upgrade(server) + frame(0x81, json.dumps(make_execute_request("1")).encode()) + frame(0x88, b"\x03\xe8"),
        # This one goes to hypercorn with what is before it, and it is not for hypercorn to answer.
        server.head("GET", "/status") + upgrade(server),
    ]


def statuses_of(data: bytes) -> list[int]:
    """Return the statuses in a connection's answer: responses one after another, perhaps a WebSocket behind them.

    A reset may have cut it short.
    """
    statuses = []
    while response := _RESPONSE.match(data):
        statuses.append(int(response[1]))
        length = _LENGTH.search(response[2])
        data = data[response.end() + (int(length[1]) if length else 0) :]
        if statuses[-1] == 101:
            client = Connection(ConnectionType.CLIENT)
            client.receive_data(data)
            list(client.events())
            return statuses
    assert b"HTTP/1.1 ".startswith(data[:9])
    return statuses


def talk(server: Victim, *pieces: bytes) -> list[int]:
    """Send pieces on a connection and end our side; return the statuses that come back. The server has to end it."""
    with server.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It has ended it already.
        return statuses_of(rest_of(connection))


def check_statuses(statuses: list[int]) -> None:
    """See that no failure of ours is among them: 501 is for what a request may ask in vain."""
    assert [status for status in statuses if status >= 500 and status != 501] == []


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    """Return data in pieces."""
    places = sorted({position % (len(data) + 1) for position in positions} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 5000), max_size=4)

ODDITIES = st.binary(max_size=8) | st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"\xff", b"\t", b"\r\n\r\n", b"\r\n ", b"HTTP/1.0", b"HTTP/9"),
        *(b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n"),
        *(b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n"),
    ]
)

EDITS = st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([0, 0, 1, 2, 10, 100]), ODDITIES), max_size=4)
"""Places, how many bytes are taken out there, and what is put in."""


def edit(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return changed data."""
    for place, taken, put in edits:
        place %= len(data) + 1
        data = data[:place] + put + data[place + taken :]
    return data


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([b"d  \r\n\r\n"])  # A request for nothing, of no version.
@example([b"\x00 \x00 \x00\n\n"])  # Three words that are nothing.
@settings(max_examples=40)
def test_random_bytes_are_refused(server: Victim, pieces: list[bytes]) -> None:
    """What is no HTTP gets an error or nothing, and the connection ends."""
    assert set(talk(server, *pieces)) <= {400}
    server.check()


@given(st.integers(0, 5), EDITS, CUTS, st.integers(0, 5000) | st.none())
@example(0, [(21, 9, b"..")], [], None)  # A host that is none.
@example(5, [(-1, 0, b"frames")], [], None)
@example(4, [(len("GET /sessions/s/channels HTTP/1."), 2, b"1\n")], [], None)
@settings(max_examples=120)
def test_mutated_conversations_are_answered(
    server: Victim, number: int, edits: list[tuple[int, int, bytes]], cuts: list[int], end: int | None
) -> None:
    """Requests and frames that are changed, cut into pieces or not sent to their end break nothing."""
    data = edit(conversations(server)[number], edits)
    check_statuses(talk(server, *cut(data[:end], cuts)))
    server.check()


HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


def frames_of_http_2(server: Victim) -> bytes:
    """Return a request in HTTP/2, with the token, as its clients send it: the preface, and frames."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    named = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), (":path", "/client_heartbeat")]
    client.send_headers(1, [*named, ("authorization", f"Bearer {server.token}")])
    client.send_data(1, HEARTBEAT, end_stream=True)
    return client.data_to_send()


@given(EDITS, CUTS, st.integers(0, 5000) | st.none(), st.booleans())
@settings(max_examples=40)
def test_http_2_is_not_spoken(
    server: Victim, edits: list[tuple[int, int, bytes]], cuts: list[int], end: int | None, comes_first: bool
) -> None:
    """Who begins in HTTP/2, on a new connection or right behind a request, is told 505, whatever follows."""
    frames = frames_of_http_2(server).removeprefix(HTTP_2)
    before = b"" if comes_first else server.head("GET", "/status")
    statuses = talk(server, *cut(before + HTTP_2 + edit(frames, edits)[:end], cuts))

    assert statuses == ([505] if comes_first else [200, 505])
    server.check()


@pytest.mark.parametrize("count", [1, 2])
def test_a_wish_for_http_2_is_ignored(server: Victim, count: int) -> None:
    """A request that would go on in HTTP/2, as a connection's first or right behind another, is an ordinary one."""
    head = server.head("GET", "/status", *H2C)
    with server.connect() as connection:
        connection.sendall(head * count + server.head("GET", "/sessions", "Connection: close"))
        statuses = statuses_of(rest_of(connection))

    assert statuses == [200] * (count + 1)


def test_a_flood_of_frames_of_http_2_is_nobodys_burden(server: Victim) -> None:
    """64 KB of PRIORITY frames, which are cheap to send and dear to read, are not read."""
    priorities = b"".join(b"\0\0\5\2\0" + number.to_bytes(4, "big") + b"\0\0\0\0\x10" for number in range(1, 9001, 2))
    with server.watched():
        for _ in range(5):
            assert set(talk(server, HTTP_2 + b"\0\0\0\4\0\0\0\0\0" + priorities)) <= {505}


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        (b"GET /status HTTP/9.9", [505]),
        (b"GET /status HTTP/0.9", [505]),
        (b"GET /sessions/s/channels HTTP/2.0", [505]),
        (b"GET /status HTTP/1.0", [200]),
        (b"GET /status HTTP/1.2", [200]),
        (b"GET /status HTTP/x.y", [400]),
        (b"GET //status HTTP/1.1", [404]),
        (b"GET ///status HTTP/1.1", [404]),
        (b"GET http://localhost//status HTTP/1.1", [404]),
        (b"GET http://localhost/status HTTP/1.1", [200]),
        (b"GET //sessions/s/channels HTTP/1.1", [404]),
        (b"GET /x://localhost/status HTTP/1.1", [404]),
    ],
)
@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("is_second", [True, False])
def test_versions_and_paths_are_what_they_say(
    server: Victim, line: bytes, statuses: list[int], has_token: bool, is_second: bool
) -> None:
    """Another HTTP is 505, and a path with a slash too many is another path: with the token or without it, also in a
    request that comes together with the one before.
    """
    token = b"Authorization: Bearer %s\r\n" % server.token.encode() if has_token else b""
    before = server.head("GET", "/status") if is_second else b""
    asked = b"%s\r\nHost: localhost\r\n%sConnection: close\r\n\r\n" % (line, token)

    assert talk(server, before + asked) == ([200] if is_second else []) + statuses


FOREIGN = [
    ("Host: [::1]evil.com", 400),
    ("Host: 127.0.0.1/evil.com", 400),
    ("Host: evil.com@127.0.0.1", 400),
    ("Host: evil.com", 403),
    ("Host:\r\n evil.com", 400),
    ("Host: 127.0.0.1\r\nHost: evil.com", 400),
    ("Origin: http://evil.com", 403),
    ("Origin:\r\n http://evil.com", 400),
    ("Origin: http://[::1]evil.com", 400),
    ("Origin: http://localhost\r\nOrigin: http://evil.com", 400),
]


@pytest.mark.parametrize(("lines", "status"), FOREIGN)
@pytest.mark.parametrize("path", ["/status", "/sessions", "/sessions/s/channels", "/nowhere"])
@pytest.mark.parametrize("is_second", [True, False])
def test_foreign_hosts_and_origins_are_refused(
    server: Victim, lines: str, status: int, path: str, is_second: bool
) -> None:
    """One of another machine is 403, and one that is none 400: of requests, upgrades, and what comes behind them."""
    opening = KEY if path.endswith("channels") else ()
    named = [lines] if lines.startswith("Host") else ["Host: localhost", lines]
    head = "\r\n".join([f"GET {path} HTTP/1.1", *named, *opening, f"Authorization: Bearer {server.token}", "", ""])
    answered = talk(server, (server.head("GET", "/status") if is_second else b"") + head.encode())

    if is_second:
        # hypercorn's parser puts a folded header together, and does not know paths.
        assert answered[0] == 200
        assert answered[1:] in ([status], [403], [400], [404] if path == "/nowhere" else [status])
    else:
        assert answered == [status]
    server.check()


def test_a_thousand_bodies_of_strangers_are_not_read(server: Victim, many_files: None) -> None:
    """What has no token is answered before its body has come, and the connection closed so that the answer arrives."""
    before = server.open_descriptors()
    head = b"PUT /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    with server.watched(), ExitStack() as stack:
        strangers = [stack.enter_context(server.connect()) for _ in range(1000)]
        for connection in strangers:
            connection.sendall(head + b"x" * 1000)
        statuses = {answer_of(connection).status for connection in strangers}
    server.wait_descriptors(before)

    assert statuses == {401}


def frame(first: int, payload: bytes, *, masked: bool = True, claimed: int | None = None, long: bool = False) -> bytes:
    """Return a WebSocket frame, right or wrong; ``claimed`` is the length that it says, ``long`` how it says it."""
    length = len(payload) if claimed is None else claimed
    mask = 0x80 if masked else 0
    if long or length > 0xFFFF:
        head = bytes((first, mask | 127)) + length.to_bytes(8, "big")
    elif length > 125:
        head = bytes((first, mask | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, mask | length))
    # A mask of zeros leaves the payload as it is.
    return head + (bytes(4) if masked else b"") + payload


WELL_MEANT = st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x88, 0x89, 0x8A])
FRAMES = st.builds(
    frame,
    WELL_MEANT | WELL_MEANT | st.integers(0, 255),
    st.binary(max_size=200) | st.just(json.dumps(make_execute_request("1")).encode()),
    masked=st.sampled_from([True, True, True, False]),
    claimed=st.none() | st.none() | st.integers(0, 300) | st.sampled_from([1 << 20, 1 << 40, (1 << 64) - 1]),
    long=st.booleans(),
)


@given(st.lists(FRAMES, max_size=6), EDITS, CUTS)
@settings(max_examples=120)
def test_frames_of_any_kind_end_their_connection_at_most(
    server: Victim, frames: list[bytes], edits: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """Fragments, lengths, masks and kinds of frames in any order: what comes back are valid frames up to an end."""
    assert talk(server, *cut(upgrade(server) + edit(b"".join(frames), edits), cuts)) == [101]
    server.check()


@pytest.mark.parametrize(
    "wrong",
    [
        frame(0x81, b"hello", masked=False),
        frame(0xC1, b"hello"),
        frame(0x83, b"hello"),
        frame(0x8F, b"hello"),
        frame(0x09, b"half a ping"),
        frame(0x89, bytes(126)),
        frame(0x80, b"the end of nothing"),
        frame(0x01, b"begun") + frame(0x81, b"begun again"),
        frame(0x81, b"\xff\xfe"),
        frame(0x81, b"\xed\xa0\x80"),
        frame(0x88, b"\x03"),
        frame(0x88, b"\x00\x00"),
        frame(0x88, b"\x03\xe8\xff"),
        frame(0x81, b"", claimed=1 << 63),
        frame(0x81, b"short", long=True),
    ],
    ids=lambda data: data[:8].hex(),
)
def test_wrong_frames_close_the_websocket(server: Victim, wrong: bytes) -> None:
    """A frame that RFC 6455 forbids is answered by a close frame with a code for errors, and by the end."""
    with server.connect() as connection:
        connection.sendall(upgrade(server) + wrong)
        data = rest_of(connection).partition(b"\r\n\r\n")[2]
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    closes = [event for event in client.events() if isinstance(event, CloseConnection)]

    assert [close.code for close in closes] in ([1002], [1007])
    server.check()


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_connections_that_end_at_any_byte_leave_nothing(server: Victim, end: Callable[[socket.socket], None]) -> None:
    """A client that goes away anywhere in its requests and frames, in order or not, is forgotten."""
    before = server.open_descriptors()
    with server.watched():
        for data in conversations(server):
            for position in range(0, len(data), 3):
                connection = server.connect()
                connection.sendall(data[:position])
                end(connection)
    server.wait_descriptors(before)

    assert json.loads(server.ask("GET", "/sessions/s")[1])["connected"] is False


@pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
def test_connections_that_end_when_they_are_answered_leave_nothing(
    server: Victim, end: Callable[[socket.socket], None]
) -> None:
    """A client that goes away while it is answered, or between two requests, is forgotten too."""
    before = server.open_descriptors()
    with server.watched():
        for data in conversations(server):
            for _ in range(10):
                connection = server.connect()
                connection.sendall(data)
                assert connection.recv(1)
                end(connection)
    server.wait_descriptors(before)


def test_slow_clients_keep_nobody_waiting(server: Victim) -> None:
    """A hundred clients that send their requests byte by byte are served in the end, and others meanwhile."""
    before = server.open_descriptors()
    head, posted = server.head("GET", "/status"), conversations(server)[2]
    with server.watched(), ExitStack() as stack:
        slow = [(stack.enter_context(server.connect()), data) for data in (head, posted) for _ in range(50)]
        for position in range(max(len(head), len(posted))):
            for connection, data in slow:
                connection.sendall(data[position : position + 1])
        statuses = [answer_of(connection).status for connection, _ in slow]
    server.wait_descriptors(before)

    assert statuses == [200] * 100


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process as many open files as it may have; Windows sets no limit."""
    if sys.platform == "win32":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4000:
        pytest.skip("too few open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
def test_a_thousand_idle_connections_are_no_burden(server: Victim) -> None:
    """Silent ones, ones with half a head and ones between two requests: others are served, and so are they at last."""
    before = server.open_descriptors()
    head = server.head("GET", "/status")
    with ExitStack() as stack:
        idle = [stack.enter_context(server.connect()) for _ in range(1000)]
        with server.watched():
            for connection in idle[::2]:
                connection.sendall(head[:-5])
            for connection in idle[1::20]:
                connection.sendall(head)
                assert answer_of(connection).read()
        for connection in idle[::20]:
            connection.sendall(head[-5:])
        for connection in (*idle[1::20], *idle[3::20]):
            connection.sendall(head)
        statuses = [answer_of(connection).status for start in (0, 1, 3) for connection in idle[start::20]]
    server.wait_descriptors(before)

    assert statuses == [200] * 150


FEW_FILES = 150
"""Enough for some kernels beside the connections, and not for eight."""


def allow_few_files() -> None:
    """Allow the server few open files; runs in its process."""
    assert sys.platform != "win32"
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))


@pytest.mark.posix_only("Windows has no limit of open files")
def test_descriptors_that_are_used_up_come_back(lasting_place: Path) -> None:
    """With its files used up by kernels and connections, the server lives on, and has them again when they are gone.

    A start that lacks them is refused; a connection as well, or it waits for its turn.
    """
    with run_victim(preexec_fn=allow_few_files) as server, ExitStack() as stack:
        names = [f"k{number}" for number in range(8)]
        for name in names:
            assert server.ask("PUT", "/sessions", body(name))[0] == 200
        # Some are opened with the first kernel, and stay.
        assert server.ask("POST", "/sessions/k0/start")[0] == 200
        server.ask("POST", "/sessions/k0/kill")
        server.wait_kernels()
        before = server.open_descriptors()
        idle = [stack.enter_context(server.connect()) for _ in range(FEW_FILES // 3)]
        with server.watched():
            statuses = [server.ask("POST", f"/sessions/{name}/start")[0] for name in names]
            for name in names:
                server.ask("POST", f"/sessions/{name}/kill")
            server.wait_kernels()
        idle += [stack.enter_context(server.connect()) for _ in range(2 * FEW_FILES)]
        for connection in idle:
            connection.close()
        server.wait_descriptors(before)
        again = server.ask("POST", "/sessions/k7/restart")[0]

    assert set(statuses) == {200, 500}
    assert again == 200


def test_client_that_does_not_read_does_not_hold_up_the_end(lasting_place: Path) -> None:
    """A server ends although a client has asked for megabytes and takes none of them."""
    with ExitStack() as stack:
        with run_victim() as server:
            server.ask("PUT", "/sessions", body("large", argv=[], display_name="x" * 20_000_000))
            deaf = stack.enter_context(server.connect())
            deaf.sendall(server.head("GET", "/sessions"))
            assert deaf.recv(1)
            server.check()


# On a connection in this process, where it can be told when the server has read what there is.


@attrs.define(eq=False)
class App:
    """An ASGI app that answers with what it was asked; on /hasty before it has read the body."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        content = b""
        while scope["path"] != "/hasty" and (event := await receive()):
            content += event.get("body", b"")
            if not event.get("more_body"):
                break
        text = f"{scope['type']} {scope['method']} {scope['path']} {len(content)}".encode()
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


async def answer_to(*pieces: bytes) -> bytes:
    """Send pieces to a front door, each when the one before was read, and end our side; return what comes back."""

    async def attach(stream: trio.abc.Stream, head: RequestHead, surplus: bytes) -> None:
        async for data in stream:
            surplus += data
        await stream.send_all(b"attached %s %s" % (head.path.encode(), surplus))

    ours, theirs = trio.socket.socketpair()
    answer = b""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery, trio.SocketStream(ours) as stream:
            nursery.start_soon(FrontDoor(App(), attach).serve, trio.SocketStream(theirs))  # type: ignore[arg-type]
            try:
                for piece in pieces:
                    await wait_all_tasks_blocked()
                    await stream.send_all(piece)
                await wait_all_tasks_blocked()
                await stream.send_eof()
            except trio.BrokenResourceError:
                pass  # It has ended the connection.
            try:
                async for data in stream:
                    answer += data
            except trio.BrokenResourceError:
                pass
    # The one header that changes by itself.
    return re.sub(rb"date: [^\r]+\r\n", b"", answer)


WHOLE = [
    b"GET /a HTTP/1.1\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    b"GET /sessions/s/channels HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nsurplus",
    b"GET /sessions/s/channels HTTP/1.1\r\n\r\n",
    # A request that comes together with the one before needs its Host: then it is hypercorn's before we have seen it.
    b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: b\r\n\r\n",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /a HTTP/1.1\nHost: a\n\n",
    b"GET /a\r\n\r\n",
    b"\x16\x03\x01 no HTTP at all\r\n\r\n",
]


@given(st.sampled_from(WHOLE), CUTS)
@example(WHOLE[0], [len(WHOLE[0]) - 2])
@settings(max_examples=40)
async def test_a_request_means_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    """The packets in which a request arrives say nothing about it."""
    assert await answer_to(*cut(data, cuts)) == await answer_to(data)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_all_requests_before_the_end_are_answered(count: int) -> None:
    """A client may send several requests at once and end its side behind them."""
    answer = await answer_to(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count)))

    assert [b"http GET /%d 0" % number in answer for number in range(count)] == [True] * count


@pytest.mark.parametrize("count", [1, 2])
async def test_client_that_is_gone_when_it_is_answered_is_forgotten(count: int) -> None:
    """Its connection ends with the answer that nobody takes, also if more requests were to come after it."""
    go = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await App()(scope, receive, send)

    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(FrontDoor(app, None).serve, trio.SocketStream(theirs))  # type: ignore[arg-type]
            await ours.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * count)
            await wait_all_tasks_blocked()
            ours.close()
            await wait_all_tasks_blocked()
            go.set()

    assert theirs.fileno() == -1


@pytest.mark.parametrize("path", [b"/hasty", b"/patient"])
async def test_a_body_is_not_taken_for_a_request(path: bytes) -> None:
    """What a body says, be it the opening of channels, counts for nothing; nor if the answer came before it."""
    smuggled = WHOLE[3].ljust(500)
    answer = await answer_to(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" % path, smuggled)

    assert b"attached" not in answer
    assert b"http POST %s" % path in answer
