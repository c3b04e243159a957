"""Connections that break: what had not reached the client's side is the next client's, in order and once."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import make_execute_request, open_channel
from kernels import REAL_TIME, ask_until, body, is_idle, is_type, open_client, open_started, receive_until

RECEIVE_BUFFER = 1 << 14
"""Bytes; Linux doubles it. What a client's machine took and the client did not read is lost without a word."""


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
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


def numbers_of(messages: list[dict[str, Any]]) -> list[int]:
    """Return the numbers that the flood's messages begin with."""
    return [int(message["content"]["text"].split()[0]) for message in messages if is_type("stream")(message)]


async def test_what_the_clients_machine_never_took_is_the_next_clients() -> None:
    """A client that stops reading and is cut off loses at most what its own machine had taken; nothing comes twice."""
    count, size = 4000, 1000
    async with open_client(resource_sample_interval_ms=0) as client:
        async with open_started(client, body()) as channel:
            msg_id = await channel.send(make_execute_request(f"sleep 0.5\nflood {count} {size}"))
            await receive_until(channel, is_type("execute_input", msg_id))
        async with open_raw(client) as stream:
            seen = b""
            with trio.fail_after(REAL_TIME):
                while b'"text": "50 ' not in seen and b'"text":"50 ' not in seen:
                    seen += await stream.receive_some(1000)
                await ask_until(client, lambda session: session["status"] == "idle")
        async with open_channel(client.address, "s") as channel:
            numbers = numbers_of(await receive_until(channel, is_idle(msg_id)))

    assert numbers == list(range(numbers[0], count))
    assert 50 < numbers[0] < 50 + 8 * RECEIVE_BUFFER // size
