"""Clients whose connection is cut or frozen by what lies between, and who come back with a number: every message comes
once, and in order.
"""

from __future__ import annotations

import random
import re

import pytest
import trio

from kernels import REAL_TIME, ask_until, body, open_client, open_started, run_code
from returning_client import ReturningClient, has_all
from scripted_proxy import Connection, Ending, open_proxy

_FLOODED = re.compile(rb'"text": ?"(\d+) ')


async def test_client_that_is_cut_at_any_byte_of_a_frame_gets_the_rest_once() -> None:
    """Cut at every byte of a message that a server sends to a client that comes back, and back again: it comes once."""
    limits: list[int] = []

    def prepare(connection: Connection) -> None:
        connection.to_client.limit = limits.pop(0) if limits else None

    async with open_client(resource_sample_interval_ms=0) as client, open_proxy(client.address, prepare) as proxy:
        async with open_started(client, body()) as channel:
            await run_code(channel, "print one\nprint two")
        everything = ReturningClient(proxy.address)
        await everything.visit(has_all)
        await ReturningClient(proxy.address, last=everything.last - 1).visit(has_all)
        length = (await proxy.wait_connection(1)).to_client.passed
        frame = len(everything.messages[-1]) + 4
        results, was_cut = set(), []
        with trio.fail_after(3 * REAL_TIME):
            # The ping of 10 bytes may come before the frame, or behind it.
            for missing in range(1, frame + 11):
                limits.append(length - missing)
                listener = ReturningClient(proxy.address, last=everything.last - 1)
                await listener.visit()
                was_cut.append(not listener.messages)
                await listener.visit(has_all)
                results.add(tuple(listener.messages))

    assert {(everything.messages[-1],)} == results
    assert sum(was_cut) >= frame


async def test_hundreds_of_cuts_in_a_flood_cost_no_message() -> None:
    """A client that is cut off hundreds of times while tens of thousands of messages come has each of them once, and in
    order, the last one too.
    """
    count, seed = 25_000, random.Random(8)

    def prepare(connection: Connection) -> None:
        connection.to_client.limit = seed.randrange(1, 60_000)

    def is_over(listener: ReturningClient) -> bool:
        return bool(listener.messages) and rb'all of it\n"' in listener.messages[-1]

    async with (
        open_client(resource_sample_interval_ms=0) as client,
        # What is on its way at a cut is sent again: with megabytes of it, this would be a test of that.
        open_proxy(client.address, prepare, buffer=1 << 16) as proxy,
    ):
        async with open_started(client, body()):
            pass
        listener = ReturningClient(proxy.address)
        with trio.fail_after(3 * REAL_TIME):
            while not has_all(listener):
                await listener.visit(has_all)
            async with trio.open_nursery() as nursery:
                code = f"flood {count} 1\nprint all of it"
                nursery.start_soon(client.call, "POST", "/sessions/s/execute", {"code": code})
                while not is_over(listener):
                    await listener.visit(is_over)

    flooded = [int(found[1]) for message in listener.messages if (found := _FLOODED.search(message))]
    assert listener.visits > 250
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
        listener = ReturningClient(proxy.address)
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
