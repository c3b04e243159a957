"""What clients send is bounded, one message and all together; what is beyond is refused in the protocol's words."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection

from abuse import LIMIT, Victim, answer_of, rest_of, run_victim
from kallichore.client.api_client import ApiClient, open_stream, send_request
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import REAL_TIME, address_of, body, scripted

OPENING = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
NO_MASK = bytes(4)


@pytest.fixture(scope="module")
def server(lasting_place: Path) -> Iterator[Victim]:
    """Return a server that all these tests share."""
    with run_victim() as server:
        assert server.ask("PUT", "/sessions", body("s", argv=[]))[0] == 200
        yield server


def close_of(data: bytes) -> int | None:
    """Return the code of the close frame in what a WebSocket's server sent."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data.partition(b"\r\n\r\n")[2])
    return next((int(event.code) for event in client.events() if isinstance(event, CloseConnection)), None)


@pytest.mark.parametrize("first", [0x81, 0x01, 0x82])
@pytest.mark.parametrize("claimed", [1 << 62, 1 << 33, (1 << 63) - 1])
def test_message_that_claims_too_much_is_closed_with_1009(server: Victim, first: int, claimed: int) -> None:
    """At once, by what it says of its size; the client can read that although it goes on sending."""
    memory = server.process.memory_info().rss
    with server.watched(), server.connect() as connection:
        connection.sendall(server.head("GET", "/sessions/s/channels", *OPENING))
        connection.sendall(struct.pack("!BBQ", first, 0xFF, claimed) + NO_MASK + b"x" * 1_000_000)
        code = close_of(rest_of(connection))

    assert code == 1009
    assert server.process.memory_info().rss < memory + (50 << 20)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/sessions"), ("POST", "/client_heartbeat")])
def test_body_that_claims_too_much_is_413(server: Victim, method: str, path: str) -> None:
    """At once, with the token as well."""
    with server.watched(), server.connect() as connection:
        connection.sendall(server.head(method, path, f"Content-Length: {1 << 62}") + b"x" * 1000)
        connection.settimeout(LIMIT)
        status = answer_of(connection).status

    assert status == 413


def test_refused_messages_are_counted(server: Victim) -> None:
    """The metrics have what is coming, and how many messages were refused."""
    with server.connect() as connection:
        connection.sendall(server.head("PUT", "/sessions", f"Content-Length: {1 << 62}"))
        answer_of(connection)
    text = server.ask("GET", "/metrics")[1].decode()
    samples = dict(line.split(" ") for line in text.splitlines() if line.startswith("kallichore_") and "{" not in line)

    assert float(samples["kallichore_incoming_bytes"]) == 0
    assert float(samples["kallichore_messages_refused_total"]) >= 1


async def test_all_clients_together_are_bounded() -> None:
    """What one is sending leaves another less; when it goes away, what it held is free."""
    async with serve(ServerConfig()) as server:
        intake = server.server.facilities.intake
        intake.most = 1_000_000
        server.create_session(scripted("s"))
        address = address_of(server)
        head = ["GET /sessions/s/channels HTTP/1.1", f"Authorization: Bearer {server.token}", *OPENING]
        opening = "\r\n".join([*head, "", ""]).encode()
        frame = struct.pack("!BBQ", 0x81, 0xFF, 2_000_000) + NO_MASK
        with trio.fail_after(REAL_TIME):
            async with await open_stream(address) as first:
                await first.send_all(opening + frame + b"x" * 900_000)
                while intake.held < 900_000:  # noqa: ASYNC110  # what came is no event
                    await trio.sleep(0.01)
                refused = await send_request(address, "PUT", "/sessions", b" " * 200_000)
                small = await ApiClient(address).call("PUT", "/sessions", body("small", argv=[]))
                metrics = (await send_request(address, "GET", "/metrics")).body.decode()
                await first.send_all(b"x" * 200_000)
                data = b""
                while more := await first.receive_some():
                    data += bytes(more)
            while intake.held:  # noqa: ASYNC110  # the same
                await trio.sleep(0.01)
            large = json.dumps(body("t", argv=[])).encode().ljust(900_000)
            again = await send_request(address, "PUT", "/sessions", large)

    assert (413, "small", 200) == (refused.status, small["session_id"], again.status)
    assert "kallichore_incoming_bytes 9" in metrics
    assert close_of(data) == 1009
