"""Kernels that misbehave: nothing of it reaches clients as garbage, stops the session, or disturbs another."""

from __future__ import annotations

import base64
import json
import sys

import pytest
import trio

from kallichore.attach.pings import MOST
from kallichore.client.channel_client import make_execute_request, open_channel
from kernels import (
    REAL_TIME,
    body,
    execute,
    freeze,
    is_done,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
    thaw,
    unseen_in_wine,
)


@pytest.mark.parametrize("fault", ["short", "signature", "empty-signature", "no-delimiter", "json"])
async def test_broken_message_is_dropped_and_the_next_arrives(fault: str) -> None:
    """A message with too few frames, a wrong signature or broken JSON is dropped; its neighbours are delivered."""
    async with open_client() as client, open_started(client, body()) as channel:
        assert await run_code(channel, f"print before\nbad {fault}\nprint after") == "before\nafter\n"


@pytest.mark.parametrize(
    ("fault", "text"),
    [("nan", "nan\n"), ("surrogate", "half \ufffd\n"), ("utf8", "latin \ufffd\n"), ("ids-only", "bad\n")],
)
async def test_repairable_message_is_repaired(fault: str, text: str) -> None:
    """NaN becomes null, what is not UTF-8 becomes U+FFFD, a header with only its ids is enough."""
    async with open_client() as client, open_started(client, body()) as channel:
        messages = await execute(channel, f"bad {fault}")
        message = next(filter(is_type("stream"), messages))

        assert message["content"]["text"] == text
        if fault == "nan":
            assert message["content"]["value"] == [None, None, None]


@pytest.mark.parametrize("ending", ["no-reply", "idle-first", "duplicate-reply", "orphan-reply"])
async def test_odd_ending_of_an_execution_releases_the_next_exactly_once(ending: str) -> None:
    """Lost, early, repeated and orphaned replies neither stall the queue nor send two executions at once."""
    async with open_client() as client, open_started(client, body()) as channel:
        first = await channel.send(make_execute_request(f"sleep 0.1\n{ending}\nprint 1"))
        second = await channel.send(make_execute_request("print 2"))
        third = await channel.send(make_execute_request("print 3"))
        messages = await receive_until(channel, is_done(third))
        inputs = [message["parent_header"]["msg_id"] for message in messages if is_type("execute_input")(message)]

        assert inputs == [first, second, third]
        assert text_of(messages) == "1\n2\n3\n"
        assert (await client.call("GET", "/sessions/s"))["execution_queue"] == {"length": 0, "pending": []}


async def test_megabytes_without_a_newline_arrive_in_pieces() -> None:
    """A kernel that floods stderr without ever ending the line neither hangs nor grows the server."""
    async with open_client() as client, open_started(client, body()) as channel:
        msg_id = await channel.send(make_execute_request("stderr-flood 4194304\nprint done"))
        messages = await receive_until(channel, is_done(msg_id))
        received = [message["output"] for message in messages if "output" in message]
        while sum(len(text) for _, text in received) < 4194304:
            received.append((await receive_until(channel, is_kernel("output")))[-1]["output"])

        assert "".join(text for _, text in received) == "e" * 4194304
        assert text_of(messages) == "done\n"


async def test_output_that_is_not_utf8_arrives_with_replacements() -> None:
    """Bytes that are no UTF-8 become U+FFFD, and the lines after them still arrive."""
    async with open_client() as client, open_started(client, body()) as channel:
        await channel.send(make_execute_request("raw stdout ff61620a\nstdout after"))
        first = (await receive_until(channel, is_kernel("output")))[-1]
        second = (await receive_until(channel, is_kernel("output")))[-1]

        assert [first["output"], second["output"]] == [["stdout", "\ufffdab\n"], ["stdout", "after\n"]]


@unseen_in_wine
async def test_frozen_kernel_is_offline_and_comes_back_as_it_was() -> None:
    """A stopped kernel becomes offline; continued, it is busy again as before, not idle."""
    async with (
        open_client(heartbeat_limit=0.5, heartbeat_pause=0.1) as client,
        open_started(client, body()) as channel,
    ):
        msg_id = await channel.send(make_execute_request("sleep 60"))
        await receive_until(channel, is_type("execute_input", msg_id))
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        freeze(pid)
        await receive_until(channel, is_status("offline"))
        assert (await client.call("GET", "/sessions/s"))["busy_seconds"] == 0
        thaw(pid)
        back = (await receive_until(channel, lambda message: "status" in message))[-1]
        assert back["status"]["status"] == "busy"
        await client.call("POST", "/sessions/s/interrupt")
        await receive_until(channel, is_type("execute_reply", msg_id))


async def test_death_of_one_kernel_leaves_the_others_alone() -> None:
    """When a kernel crashes in the middle of its work, the crash is told by name and another session goes on."""
    how, told = ("kill -1073741819", "access violation") if sys.platform == "win32" else ("kill 11", "SIGSEGV")
    async with open_client() as client, open_started(client, body("a")) as a, open_started(client, body("b")) as b:
        await a.send(make_execute_request(f"print x\n{how}"))
        exited = await receive_until(a, is_kernel("exited"))
        assert told in json.dumps(exited)
        assert await run_code(b, "print alive") == "alive\n"


async def test_garbage_from_a_client_is_ignored() -> None:
    """Text that is no message, unknown channels, bad buffers and binary frames change nothing."""
    async with open_client() as client, open_started(client, body()) as channel:
        good = make_execute_request("print fine")
        for garbage in (
            "not json",
            "[]",
            "{}",
            json.dumps({**good, "channel": "telepathy"}),
            json.dumps({**good, "channel": "iopub"}),
            json.dumps({**good, "header": {"msg_id": 1, "msg_type": "x"}}),
            json.dumps({**good, "header": {**good["header"], "msg_type": "comm_msg"}, "buffers": ["%%%"]}),
            "[" * 100_000,
            b"\x00\x01",
        ):
            await channel.socket.send_message(garbage)

        assert await run_code(channel, "print fine") == "fine\n"


async def test_buffers_travel_both_ways_whole() -> None:
    """Buffers of a kernel arrive in base64, all of them."""
    async with open_client() as client, open_started(client, body()) as channel:
        message = next(filter(is_type("display_data"), await execute(channel, "buffers 3 65536")))

        assert [base64.b64decode(buffer) for buffer in message["buffers"]] == [bytes(range(256)) * 256] * 3


async def test_flood_arrives_whole_and_in_order() -> None:
    """Ten thousand messages sent at once all arrive, in order, also where another client connects in the middle."""
    async with open_client() as client:
        async with open_started(client, body()) as channel:
            msg_id = await channel.send(make_execute_request("flood 10000 100"))
            early = await receive_until(channel, lambda message: text_of([message]).startswith("2000 "))
        async with open_channel(client.address, "s") as channel:
            with trio.fail_after(REAL_TIME):
                late = await receive_until(channel, is_done(msg_id))
        numbers = [int(message["content"]["text"].split()[0]) for message in early + late if is_type("stream")(message)]

        # What the first client read behind the last ping that it answered comes again.
        assert list(dict.fromkeys(numbers)) == list(range(10_000))
        assert len(numbers) < 10_000 + 2 * MOST
