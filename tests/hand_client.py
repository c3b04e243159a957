"""A WebSocket client by hand: it reads no further than it is told, and answers pings when it is told. For tests."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from kallichore.attach.frames import CLOSE, PING, PONG, TEXT
from kallichore.client.api_client import ApiClient, open_stream
from returning_client import whole_frames


@attrs.define
class HandClient:
    """One connection to a session's channels, which goes by no numbers."""

    stream: trio.abc.Stream
    data: bytes = b""
    pings: list[bytes] = attrs.field(factory=list)
    """The payloads of those that it has met."""

    async def next_frame(self) -> tuple[int, bytes]:
        """Return the first byte of the next frame and its payload.

        Raises:
            EOFError: The connection is over.
        """
        while True:
            for opcode, payload, end in whole_frames(self.data):
                self.data = self.data[end:]
                self.pings += [payload] if opcode == PING else []
                return opcode, payload
            if not (more := await self.stream.receive_some()):
                raise EOFError
            self.data += bytes(more)

    async def read_until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return the messages up to the first that is wanted; pings among them are left unanswered."""
        messages: list[dict[str, Any]] = []
        while not messages or not wanted(messages[-1]):
            opcode, payload = await self.next_frame()
            if opcode == TEXT:
                messages.append(json.loads(payload))
        return messages

    async def read_ping(self) -> bytes:
        """Return the payload of the next ping; messages before it are passed over."""
        while True:
            opcode, payload = await self.next_frame()
            if opcode == PING:
                return payload

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send a frame, whose mask is zero."""
        size = len(payload)
        head = bytes((opcode, 0x80 | size)) if size < 126 else struct.pack("!BBH", opcode, 0x80 | 126, size)
        await self.stream.send_all(head + bytes(4) + payload)

    async def request(self, message: dict[str, Any]) -> str:
        """Send a message and return its ``msg_id``."""
        await self.send(TEXT, json.dumps(message).encode())
        return str(message["header"]["msg_id"])

    async def answer(self, ping: bytes) -> None:
        """Answer a ping."""
        await self.send(PONG, ping)

    async def leave(self) -> None:
        """Close in order, and wait for the server to have done so."""
        await self.send(CLOSE, struct.pack("!H", 1000))
        while (await self.next_frame())[0] != CLOSE:
            pass


@asynccontextmanager
async def open_by_hand(client: ApiClient) -> AsyncIterator[HandClient]:
    """Connect to the session's channels; leaving ends the connection without a close frame."""
    lines = [
        "GET /sessions/s/channels HTTP/1.1",
        *(f"{name}: {value}" for name, value in client.address.headers),
        "connection: Upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    async with await open_stream(client.address) as stream:
        await stream.send_all("\r\n".join([*lines, "", ""]).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += bytes(await stream.receive_some())
        yield HandClient(stream, data.partition(b"\r\n\r\n")[2])
