"""A client that only listens to a session's channels, leaves without a word, and comes back where it was. For tests.

It has to read a hundred thousand messages in seconds, so it looks at the frames itself: what a server sends is neither
masked nor, here, fragmented (RFC 6455, section 5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import attrs
import trio

from kallichore.attach.frames import PING, PONG
from kallichore.client.address import Address
from kallichore.client.api_client import open_stream

_NUMBER = re.compile(rb'"seq":(\d+)\}$')
_STATE = re.compile(rb'^\{"kind":"kernel","sessionState":.*"seq":(\d+)\}\}$')


@attrs.define
class ReturningClient:
    """What it has heard, over all its visits."""

    address: Address
    path: str = "/sessions/s/channels"
    last: int = 0
    """The number of the last message that came whole."""
    known: int = 0
    """The number of the last message that there was when it came; 0 until it was told."""
    messages: list[bytes] = attrs.field(factory=list)
    visits: int = 0
    pings: int = 0

    async def visit(self, is_enough: Callable[[ReturningClient], bool] = lambda _: False) -> None:
        """Connect and listen until the connection ends, or this is enough: then leave without a close frame."""
        self.visits += 1
        self.known = 0
        lines = [
            f"GET {self.path}?since={self.last} HTTP/1.1",
            *(f"{name}: {value}" for name, value in self.address.headers),
            "connection: Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
        async with await open_stream(self.address) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all("\r\n".join([*lines, "", ""]).encode())
                await self._listen(stream, is_enough)

    async def _listen(self, stream: trio.abc.Stream, is_enough: Callable[[ReturningClient], bool]) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := await stream.receive_some()):
                return
            data += bytes(more)
        data = data.partition(b"\r\n\r\n")[2]
        while True:
            start = 0
            for opcode, payload, end in whole_frames(data):
                start = end
                if opcode == PING:
                    self.pings += 1
                    await stream.send_all(bytes((PONG, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
                elif found := _NUMBER.search(payload):
                    self.last = int(found[1])
                    self.messages.append(payload)
                elif found := _STATE.match(payload):
                    self.known = int(found[1])
                if is_enough(self):
                    return
            if not (more := await stream.receive_some()):
                return
            data = data[start:] + bytes(more)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the messages, as they came."""
        return [int(found[1]) for message in self.messages if (found := _NUMBER.search(message))]


def whole_frames(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the first byte of each whole frame, its payload, and where it ends."""
    start = 0
    while start + 2 <= len(data):
        size, body_start = data[start + 1], start + 2
        if size > 125:
            body_start += 2 if size == 126 else 8
            if body_start > len(data):
                return
            size = int.from_bytes(data[start + 2 : body_start], "big")
        end = body_start + size
        if end > len(data):
            return
        yield data[start], data[body_start:end], end
        start = end


def has_all(client: ReturningClient) -> bool:
    """Return whether a client has what there was when it came."""
    return client.last >= client.known > 0
