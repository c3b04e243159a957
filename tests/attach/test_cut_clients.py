"""Clients whose connection is cut or frozen by what lies between, and who come back with a number: every message comes
once, and in order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

import attrs
import pytest
import trio

from kallichore.attach.frames import PING, PONG
from kallichore.client.address import Address
from kallichore.client.api_client import open_stream
from kallichore.client.channel_client import make_execute_request
from kernels import REAL_TIME, ask_until, body, open_client, open_started, run_code
from scripted_proxy import Connection, Ending, open_proxy

_NUMBER = re.compile(rb'"seq":(\d+)\}$')
_STATE = re.compile(rb'^\{"kind":"kernel","sessionState":.*"seq":(\d+)\}\}$')
_FLOODED = re.compile(rb'"text": ?"(\d+) ')


MUCH = 1 << 26
"""Bytes: the whole flood. What is sent and then lost on the way is some megabytes at each cut."""


@attrs.define
class Listener:
    """A client that only listens, and comes back where it was. Reading a hundred thousand messages has to be cheap, so
    it looks at the frames itself: a server does not mask them (RFC 6455, section 5.1).
    """

    address: Address
    last: int = 0
    """The number of the last message that came whole."""
    known: int = 0
    """The number of the last message that there was when it came."""
    messages: list[bytes] = attrs.field(factory=list)
    visits: int = 0
    pings: int = 0

    async def visit(self, is_enough: Callable[[Listener], bool] = lambda _: False) -> None:
        """Connect and listen until the connection ends or this is enough."""
        self.visits += 1
        lines = [
            f"GET /sessions/s/channels?since={self.last} HTTP/1.1",
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

    async def _listen(self, stream: trio.abc.Stream, is_enough: Callable[[Listener], bool]) -> None:
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


def has_all(listener: Listener) -> bool:
    """Return whether a listener has what there was when it came."""
    return listener.last == listener.known > 0


async def test_client_that_is_cut_at_any_byte_of_a_frame_gets_the_rest_once() -> None:
    """Cut at every byte of a message that a server sends to a client that comes back, and back again: it comes once."""
    limits: list[int] = []

    def prepare(connection: Connection) -> None:
        connection.to_client.limit = limits.pop(0) if limits else None

    async with open_client(resource_sample_interval_ms=0) as client, open_proxy(client.address, prepare) as proxy:
        async with open_started(client, body()) as channel:
            await run_code(channel, "print one\nprint two")
        everything = Listener(proxy.address)
        await everything.visit(has_all)
        await Listener(proxy.address, last=everything.last - 1).visit(has_all)
        length = (await proxy.wait_connection(1)).to_client.passed
        frame = len(everything.messages[-1]) + 4
        results, was_cut = set(), []
        with trio.fail_after(REAL_TIME):
            # The ping of 10 bytes may come before the frame, or behind it.
            for missing in range(1, frame + 11):
                limits.append(length - missing)
                listener = Listener(proxy.address, last=everything.last - 1)
                await listener.visit()
                was_cut.append(not listener.messages)
                await listener.visit(has_all)
                results.add(tuple(listener.messages))

    assert {(everything.messages[-1],)} == results
    assert sum(was_cut) >= frame


async def test_a_thousand_cuts_in_a_flood_cost_no_message() -> None:
    """A client that is cut off more than a thousand times while a hundred thousand messages come has each of them
    once, and in order, the last one too.
    """
    count, seed = 100_000, random.Random(8)

    def prepare(connection: Connection) -> None:
        connection.to_client.limit = seed.randrange(1, 60_000)

    def is_over(listener: Listener) -> bool:
        return bool(listener.messages) and rb'all of it\n"' in listener.messages[-1]

    async with (
        open_client(resource_sample_interval_ms=0) as client,
        # What is on its way at a cut is sent again: with megabytes of it, this would be a test of that.
        open_proxy(client.address, prepare, buffer=1 << 16) as proxy,
    ):
        async with open_started(client, body(journal_memory=MUCH, journal_keep=MUCH)) as channel:
            listener = Listener(proxy.address)
            await channel.send(make_execute_request(f"flood {count} 1\nprint all of it"))
            with trio.fail_after(3 * REAL_TIME):
                while not is_over(listener):
                    await listener.visit(is_over)

    flooded = [int(found[1]) for message in listener.messages if (found := _FLOODED.search(message))]
    assert listener.visits > 1000
    assert list(range(1, listener.last + 1)) == listener.numbers
    assert list(range(count)) == flooded


@pytest.mark.parametrize("lane", ["to_server", "to_client"])
async def test_client_behind_a_frozen_direction_is_let_go_and_misses_nothing(lane: str) -> None:
    """A connection of which one direction stands still is given up, the kernel works on meanwhile, and the client that
    comes back has everything once.
    """
    settings = {"resource_sample_interval_ms": 0, "ping_interval": 0.05, "ping_allowance": 5}
    async with open_client(**settings) as client, open_proxy(client.address) as proxy:
        await client.call("PUT", "/sessions", body())
        listener = Listener(proxy.address)
        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.visit)
                connection = await proxy.wait_connection(0)
                await client.call("POST", "/sessions/s/start")
                # More than it may leave unanswered.
                while listener.pings < 10:  # noqa: ASYNC110  # it only counts
                    await trio.lowlevel.checkpoint()
                getattr(connection, lane).stall()
                await client.call("POST", "/sessions/s/execute", {"code": "print meanwhile"})
                await ask_until(client, lambda session: not session["connected"])
                connection.cut(Ending.RESET)
            heard_before = listener.last
            await listener.visit(has_all)

    assert heard_before > 0
    assert list(range(1, listener.last + 1)) == listener.numbers
    assert b"meanwhile" in b"".join(listener.messages)
