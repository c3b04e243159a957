"""Connections that break: what the client did not get, as far as that can be known, is the next client's, in order."""

from __future__ import annotations

import json
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from kallichore.attach.pings import MOST
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import make_execute_request, open_channel
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    is_idle,
    is_type,
    open_client,
    open_started,
    receive_until,
)

RECEIVE_BUFFER = 1 << 14
"""Bytes; Linux doubles it. So little is taken by a client's machine that the client does not read."""


@asynccontextmanager
async def open_raw(client: ApiClient) -> AsyncIterator[trio.SocketStream]:
    """Connect to the session's channels with a small receive buffer, and leave by a reset."""
    raw = trio.socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    await raw.connect((client.address.host, client.address.port))
    lines = [
        "GET /sessions/s/channels HTTP/1.1",
        f"Host: 127.0.0.1:{client.address.port}",
        f"Authorization: Bearer {client.address.token}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    stream = trio.SocketStream(raw)
    try:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        yield stream
    finally:
        reset(stream)


def unmasked_frame(payload: bytes) -> bytes:
    """Return a client's text frame of 126 bytes or more, whose mask is zero."""
    return b"\x81" + struct.pack("!BHI", 0x80 | 126, len(payload), 0) + payload


def numbers_of(messages: list[dict[str, Any]]) -> list[int]:
    """Return the numbers that the flood's messages begin with."""
    return [int(message["content"]["text"].split()[0]) for message in messages if is_type("stream")(message)]


def reset(stream: trio.SocketStream) -> None:
    """Close a connection by a reset."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@asynccontextmanager
async def open_cuttable(client: ApiClient) -> AsyncIterator[WebSocketConnection]:
    """Connect to the session's channels, answer pings as WebSocket libraries do, and leave by a reset."""
    address = client.address
    if address.socket_path is not None:
        stream = await trio.open_unix_socket(await client.call("GET", "/sessions/s/channels"))
    else:
        stream = await trio.open_tcp_stream("127.0.0.1", address.port)
    headers = [(b"authorization", f"Bearer {address.token}".encode())]
    async with trio.open_nursery() as nursery:
        channel = await wrap_client_stream(nursery, stream, "localhost", "/sessions/s/channels", extra_headers=headers)
        try:
            yield channel
        finally:
            reset(stream)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transport", ["tcp", pytest.param("socket", marks=pytest.mark.posix_only("a Unix socket"))])
async def test_client_that_is_cut_again_and_again_loses_nothing(transport: str) -> None:
    """Reset every thirty messages in a flood, a client without a number gets every message, in order; of those that it
    did not confirm any more a few come twice.
    """
    count, cuts = 2000, 0
    numbers: list[int] = []
    async with open_client(resource_sample_interval_ms=0, transport=transport) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with open_cuttable(client) as channel:
            await channel.send_message(json.dumps(make_execute_request(f"flood {count} 100")))
            await ask_until(client, lambda session: session["status"] == "busy")
        with trio.fail_after(REAL_TIME):
            while count - 1 not in numbers:
                async with open_cuttable(client) as channel:
                    for _ in range(30):
                        numbers += numbers_of([json.loads(await channel.get_message())])
                        if numbers[-1:] == [count - 1]:
                            break
                cuts += 1

    assert list(range(count)) == list(dict.fromkeys(numbers))
    assert len(numbers) - count < 10 * cuts


async def test_client_that_closes_in_a_flood_leaves_the_rest_to_the_next() -> None:
    """What was on its way to a client that closes in order, as a window that is loaded anew, is not lost with it."""
    count = 20000
    async with open_client(resource_sample_interval_ms=0) as client:
        async with open_started(client, body()) as first:
            msg_id = await first.send(make_execute_request(f"flood {count} 100"))
            numbers = numbers_of(await receive_until(first, lambda message: "300 xxx" in str(message)))
            await ask_until(client, lambda session: session["status"] == "idle")
        async with open_channel(client.address, "s") as second:
            numbers += numbers_of(await receive_until(second, is_idle(msg_id)))

    assert list(range(count)) == list(dict.fromkeys(numbers))
    assert len(numbers) < count + 2 * MOST


FROZEN = """
import socket, sys, time
host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
connection = socket.create_connection((host, port))
lines = ["GET /sessions/s/channels HTTP/1.1", "Host: " + host, "Authorization: Bearer " + token, "Connection: Upgrade",
    "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
connection.sendall("\\r\\n".join([*lines, "", ""]).encode())
data = b""
while b"\\x89\\x08" not in data:
    data += connection.recv(1)
ping = connection.recv(8)
connection.sendall(b"\\x8a\\x88\\0\\0\\0\\0" + ping)
print("answered", flush=True)
time.sleep(1000)
"""
"""A client that answers the first ping and then does nothing."""


async def test_what_a_frozen_client_never_read_is_the_next_clients() -> None:
    """A client that hangs, and is killed in the end, has taken nothing from the next, whatever its machine took."""
    async with open_client(resource_sample_interval_ms=0) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        address = client.address
        command = [sys.executable, "-c", FROZEN, "127.0.0.1", str(address.port), address.token]
        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:
                frozen = await trio.lowlevel.open_process(command, stdout=-1)
                try:
                    assert b"answered" in await frozen.stdout.receive_some(100)
                    await ask_until(client, lambda session: session["connected"])
                    await client.call("POST", "/sessions/s/execute", {"code": "flood 50 100"})
                finally:
                    frozen.kill()
                    await frozen.wait()
                    await frozen.stdout.aclose()
                nursery.cancel_scope.cancel()
        async with open_channel(address, "s") as channel:
            numbers = numbers_of(await receive_until(channel, lambda message: "49 xxx" in str(message)))

    assert numbers == list(range(50))


async def test_what_a_client_took_that_answers_no_pings_is_all_the_next_clients() -> None:
    """A client that was cut off before it answered a ping has nothing for certain, however much it read."""
    count, size = 4000, 1000
    async with open_client(resource_sample_interval_ms=0) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        request = make_execute_request(f"flood {count} {size}")
        msg_id = request["header"]["msg_id"]
        async with open_raw(client) as stream:
            await stream.send_all(unmasked_frame(json.dumps(request).encode()))
            seen = b""
            with trio.fail_after(REAL_TIME):
                while b'"text": "50 ' not in seen and b'"text":"50 ' not in seen:
                    seen += await stream.receive_some(1000)
                await ask_until(client, lambda session: session["status"] == "idle")
        async with open_channel(client.address, "s") as channel:
            numbers = numbers_of(await receive_until(channel, is_idle(msg_id)))

    assert list(range(count)) == numbers
