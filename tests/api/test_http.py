"""HTTP itself: what is refused and how, who is let in, and what a client can send without harm."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import attrs
import pytest
import trio

from kallichore.api.app import LARGEST_STRANGERS_BODY
from kallichore.client.address import Address
from kallichore.client.api_client import Answer, ApiClient, open_stream, send_request
from kallichore.client.websocket import ChannelClosedError
from kallichore.config import ServerConfig
from kallichore.embed import run, serve
from kernels import (
    LOCAL,
    REAL_TIME,
    address_of,
    body,
    is_kernel,
    local_address,
    open_client,
    open_started,
    receive_until,
    scripted,
)

TRANSPORTS = pytest.mark.parametrize("transport", ["tcp", LOCAL])


async def ask(client: Any, method: str, path: str, raw: bytes | None = None, **headers: str) -> Answer:
    """Send a request and return the answer, whatever it is."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    with trio.fail_after(REAL_TIME):
        return await send_request(client.address, method, path, raw, named)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status/", 404),
        ("GET", "/Status", 404),
        ("GET", "/%73tatus", 404),
        ("GET", "/status?verbose=1", 200),
        ("HEAD", "/status", 405),
        ("OPTIONS", "/status", 405),
        ("POST", "/status", 405),
        ("GET", "/shutdown", 405),
        ("DELETE", "/sessions", 405),
        ("POST", "/docs", 405),
        ("GET", "/docs/", 404),
        ("GET", "/docs/../kallichore.json", 404),
        ("PATCH", "/sessions/x", 405),
    ],
)
async def test_paths_and_methods_match_exactly(method: str, path: str, status: int) -> None:
    """Paths are matched as they are, without redirects; what is wrong about a path or method is said."""
    codes = {404: "no_such_path", 405: "no_such_method"}
    async with open_client() as client:
        answer = await ask(client, method, path)
        assert answer.status == status
        if status != 200:
            assert (answer.json()["code"] if answer.body else None) == (None if method == "HEAD" else codes[status])
            assert "x-span-id" not in answer.headers


@pytest.mark.parametrize("session_id", ["", "a/b", "a%zz", "ünï", "a b?", "x" * 300, "../../etc/passwd"])
@TRANSPORTS
async def test_any_session_id_is_reachable(session_id: str, transport: str) -> None:
    """Ids with slashes, escapes, blanks and length, even the empty one, name their session and no file outside."""
    async with open_client(transport=transport) as client:
        await client.call("PUT", "/sessions", body(session_id))
        path = "/sessions/" + quote(session_id, safe="")
        assert (await client.call("GET", path))["session_id"] == session_id
        await client.call("POST", path + "/start")
        assert (await client.call("GET", path))["status"] == "idle"


async def test_escape_that_is_no_utf8_is_refused() -> None:
    """An id that decodes to bytes which are no UTF-8 is 400 with plain text."""
    async with open_client() as client:
        answer = await ask(client, "GET", "/sessions/%ff")

        assert (answer.status, answer.headers["content-type"]) == (400, "text/plain; charset=utf-8")


@TRANSPORTS
async def test_token_is_needed_everywhere_but_for_status_and_heartbeat(transport: str) -> None:
    """Without the token every operation is 401 with an error that says what to send, but for the two that are open."""
    operations = [
        ("GET", "/sessions"),
        ("PUT", "/sessions"),
        ("GET", "/sessions/x"),
        ("DELETE", "/sessions/x"),
        ("POST", "/sessions/x/start"),
        ("POST", "/sessions/x/restart"),
        ("POST", "/sessions/x/kill"),
        ("POST", "/sessions/x/interrupt"),
        ("PUT", "/sessions/x/adopt"),
        ("GET", "/sessions/x/connection_info"),
        ("GET", "/sessions/x/channels"),
        ("POST", "/shutdown"),
        ("GET", "/kernels"),
        ("POST", "/sessions"),
        ("GET", "/server_configuration"),
        ("POST", "/server_configuration"),
    ]
    async with serve(ServerConfig(transport=transport)) as server:
        right = address_of(server)
        anonymous = ApiClient(attrs.evolve(right, token=None))
        for method, path in operations:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {right.token}"}):
                answer = await ask(anonymous, method, path, b"{}", **headers)
                assert (method, path, answer.status, answer.json()["code"]) == (method, path, 401, "unauthorized")
                assert "Bearer" in answer.json()["message"]
        assert (await ask(anonymous, "GET", "/status")).status == 200
        assert (await ask(anonymous, "POST", "/client_heartbeat", b"{}")).status == 200
        assert (await ask(anonymous, "GET", "/sessions", authorization=f"bEARER   {right.token}")).status == 200


async def upgrade(address: Address, path: str, *lines: str) -> str:
    """Ask for a WebSocket and return the status line of the answer."""
    head = [f"GET {path} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", *lines]
    async with await open_stream(address) as stream:
        await stream.send_all("\r\n".join([*head, "", ""]).encode())
        with trio.fail_after(REAL_TIME):
            return (await stream.receive_some(4096)).split(b"\r\n")[0].decode()


KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="


@TRANSPORTS
async def test_channel_upgrade_is_checked_before_anybody_is_displaced(transport: str) -> None:
    """Token, key and session are checked before the upgrade, on TCP and on the channel socket."""
    async with serve(ServerConfig(transport=transport)) as server:
        session = server.create_session(scripted())
        address = address_of(server)
        path = "/sessions/s/channels"
        if transport == LOCAL:
            answer = await send_request(address, "GET", path)
            address = local_address(answer.json(), server.token)
            path = "/any/path"
        else:
            token = f"Authorization: Bearer {server.token}"
            assert "404" in await upgrade(address, "/sessions/nobody/channels", "Host: localhost", KEY, token)
            assert "403" in await upgrade(address, path, "Host: evil.example", KEY, token)
            assert "403" in await upgrade(address, path, "Host: localhost", "Origin: https://evil.example", KEY, token)
        resident = session.attach()
        token = f"Authorization: Bearer {server.token}"
        assert "401" in await upgrade(address, path, "Host: localhost", KEY)
        assert "400" in await upgrade(address, path, "Host: localhost", token)
        assert [resident] == session.audience._slots
        assert resident.leaving is None
        session.detach(resident)
        assert "101" in await upgrade(address, path, KEY, token)


async def test_upgrade_on_a_reused_connection_works() -> None:
    """A WebSocket can be opened on a connection that has served HTTP requests before, as proxies do."""
    async with serve(ServerConfig(token=None)) as server:
        server.create_session(scripted())
        async with await open_stream(address_of(server)) as stream:
            await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b'"sessions":1' in await stream.receive_some(4096)
            head = f"GET /sessions/s/channels HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n{KEY}\r\n\r\n"
            await stream.send_all(head.encode())
            answer = await stream.receive_some(4096)

        assert answer.startswith(b"HTTP/1.1 101")
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer


@TRANSPORTS
async def test_head_and_body_of_a_response_come_in_one_piece(transport: str) -> None:
    """Clients that read once find the whole answer in it."""
    async with open_client(transport=transport) as client, await open_stream(client.address) as stream:
        await stream.send_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await stream.receive_some(4096)

        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["sessions"] == 0


async def test_pipelined_requests_are_answered_in_order() -> None:
    """A client may send its next requests before the first is answered."""
    async with open_client() as client, await open_stream(client.address) as stream:
        await stream.send_all(b"GET /status HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        with trio.fail_after(REAL_TIME):
            while b" 404 " not in answer:
                answer += await stream.receive_some(4096)

        assert answer.startswith(b"HTTP/1.1 200")


async def test_half_closed_request_is_answered() -> None:
    """A client may close its sending side after its request, also one that takes a while."""
    async with open_client() as client, await open_stream(client.address) as stream:
        await client.call("PUT", "/sessions", body())
        await stream.send_all(b"POST /sessions/s/start HTTP/1.1\r\nHost: a.localhost\r\n%s\r\n\r\n" % _bearer(client))
        await stream.send_eof()
        answer = b""
        with trio.fail_after(REAL_TIME):
            while data := await stream.receive_some(4096):
                answer += data

        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"implementation":"scripted"' in answer


def _bearer(client: ApiClient) -> bytes:
    return f"Authorization: Bearer {client.address.token}".encode()


async def test_foreign_host_is_refused_over_tcp() -> None:
    """A request that a web page made through DNS rebinding or across sites is 403."""
    async with serve(ServerConfig(token=None)) as server:
        async with await open_stream(address_of(server)) as stream:
            await stream.send_all(b"GET /sessions HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("raw", [b"", b"null", b"{", b"[]", b"\xff", b'{"process_id": "1"}', b'{"process_id": 1.0}'])
async def test_body_that_does_not_fit_is_refused_in_words(raw: bytes) -> None:
    """A missing, broken or ill-typed body is 400 with a plain text that names the schema."""
    async with open_client() as client:
        answer = await ask(client, "POST", "/client_heartbeat", raw)

        assert answer.status == 400
        assert b"ClientHeartbeat" in answer.body


async def test_unknown_members_are_ignored_and_reported() -> None:
    """Members that no schema knows do not matter, and a warning header lists them."""
    async with open_client() as client:
        raw = json.dumps({**body(), "run_in_shell": True}).encode()
        answer = await ask(client, "PUT", "/sessions", raw, x_span_id="my-span")

        assert answer.status == 200
        assert '["?.run_in_shell"]' in answer.headers["warning"]
        assert answer.headers["x-span-id"] == "my-span"


async def test_restart_refuses_a_body_that_is_no_body() -> None:
    """Restart takes no body, null or options; garbage is 400 and nothing is restarted."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        assert (await ask(client, "POST", "/sessions/s/restart", b"{garbage")).status == 400
        assert (await client.call("GET", "/sessions/s"))["status"] == "uninitialized"
        assert (await ask(client, "POST", "/sessions/s/restart", b"null")).status == 200


async def test_configuration_is_a_patch_that_holds_or_fails_whole() -> None:
    """Absent members keep their value, -1 switches idle shutdown off, and a bad value changes nothing."""
    async with open_client() as client:
        configure = "/server_configuration"
        await client.call("POST", configure, {"idle_shutdown_hours": 4, "log_level": "warn"})
        await client.call("POST", configure, {"resource_sample_interval_ms": 7})
        first = await client.call("GET", configure)
        assert first == {
            "idle_shutdown_hours": 4,
            "resource_sample_interval_ms": 100,
            "resource_include_children": True,
            "log_level": "warn",
        }
        bad = {"idle_shutdown_hours": 5, "resource_sample_interval_ms": -1}
        answer = await ask(client, "POST", configure, json.dumps(bad).encode())
        assert (answer.status, answer.json()["code"]) == (400, "400")
        assert (await ask(client, "POST", configure, b'{"log_level": "loud"}')).status == 400
        assert await client.call("GET", configure) == first
        await client.call("POST", configure, {"idle_shutdown_hours": -1})
        assert "idle_shutdown_hours" not in await client.call("GET", configure)


async def test_hundred_megabytes_and_silence_leave_the_server_alone() -> None:
    """A body of 100 MB gets its answer, and clients that say nothing or garbage keep nobody waiting."""
    async with open_client() as client:
        async with await open_stream(client.address), await open_stream(client.address) as garbage:
            await garbage.send_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert (await garbage.receive_some(4096)).startswith(b"HTTP/1.1 400")
            answer = await ask(client, "POST", "/client_heartbeat", b'"' + b"x" * 100_000_000 + b'"')
            assert answer.status == 400
            assert (await client.call("GET", "/status"))["sessions"] == 0


async def test_body_of_a_stranger_is_not_collected() -> None:
    """Without the token a body over 1 KiB is 413 before it has all come; one of 1 KiB is read as ever."""
    async with serve(ServerConfig()) as server:
        right = address_of(server)
        stranger = ApiClient(Address(right.host, right.port))
        largest = b'{"process_id": null, "": "%s"}'
        largest %= b"x" * (LARGEST_STRANGERS_BODY - len(largest) + 2)
        assert (await ask(stranger, "POST", "/client_heartbeat", largest)).status == 200
        async with await open_stream(right) as stream:
            await stream.send_all(b"POST /client_heartbeat HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
            await stream.send_all(largest + b" ")
            with trio.fail_after(REAL_TIME):
                assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 413")


async def test_shutdown_answers_and_then_ends_the_server() -> None:
    """POST /shutdown is answered at once; the kernels end, clients hear of it, and then the server is gone."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(run, ServerConfig())
        client = ApiClient(address_of(server))
        async with open_started(client, body()) as channel:
            assert await client.call("POST", "/shutdown") is None
            await receive_until(channel, is_kernel("exited", 0))
            with pytest.raises(ChannelClosedError) as info:
                await receive_until(channel, is_kernel("nothing"))
            assert info.value.close_code == 1001
    with pytest.raises(OSError, match="Could not reach"):
        await client.call("GET", "/status")
