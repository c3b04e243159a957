"""What the next client is given, by how the one before it left: from outside, over a connection made by hand."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hand_client import open_by_hand
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import make_execute_request, open_channel
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    execute,
    is_idle,
    is_kernel,
    open_client,
    open_started,
    receive_until,
    text_of,
)


async def start(client: ApiClient) -> None:
    """Create a session that keeps for clients what others ran before they came, and start its kernel."""
    await client.call("PUT", "/sessions", body(journal_keep=1 << 20))
    await client.call("POST", "/sessions/s/start")


def open_unsampled(**config: Any) -> Any:
    """Run a server that sends nothing by itself."""
    return open_client(resource_sample_interval_ms=0, **config)


async def next_text(client: ApiClient) -> str:
    """Return what the next client is shown up to the end of an execution of its own."""
    async with open_channel(client.address, "s") as channel:
        return text_of(await execute(channel, "print end"))


async def gone(client: ApiClient) -> None:
    """Wait until nobody is connected."""
    await ask_until(client, lambda session: not session["connected"])


async def test_quiet_client_is_asked_for_what_it_has_and_none_of_it_comes_again() -> None:
    """Its answer to the ping behind the last message says that it has it, though its connection then just ends."""
    async with open_unsampled() as client:
        await start(client)
        with trio.fail_after(REAL_TIME):
            async with open_by_hand(client) as hand:
                msg_id = await hand.request(make_execute_request("print one"))
                await hand.read_until(is_idle(msg_id))
                # While one is open there is no other.
                for ping in hand.pings[-1:]:
                    await hand.answer(ping)
                await hand.answer(await hand.read_ping())
            await gone(client)
        text = await next_text(client)

    assert text == "end\n"


async def test_client_that_is_cut_before_it_answered_a_ping_leaves_all_to_the_next() -> None:
    """Also what it has read: nobody knows."""
    async with open_unsampled() as client:
        await start(client)
        with trio.fail_after(REAL_TIME):
            async with open_by_hand(client) as hand:
                await hand.read_until(is_kernel("status"))
                await hand.read_until(is_idle(await hand.request(make_execute_request("print one"))))
            await gone(client)
        text = await next_text(client)

    assert text == "one\nend\n"


async def test_client_that_speaks_no_websocket_has_not_closed_in_order() -> None:
    """The connection is closed for its error; what it was sent is the next one's."""
    async with open_unsampled() as client:
        await start(client)
        with trio.fail_after(REAL_TIME):
            async with open_by_hand(client) as hand:
                await hand.read_until(is_idle(await hand.request(make_execute_request("print one"))))
                await hand.stream.send_all(b"\xff" * 20)
                with pytest.raises(EOFError):
                    while True:
                        await hand.next_frame()
            await gone(client)
        text = await next_text(client)

    assert text == "one\nend\n"


async def test_client_that_closes_in_order_and_owes_no_answer_has_what_it_was_sent() -> None:
    """A client that closes at once when it has read the end of what it asked for is not given it again."""
    async with open_unsampled() as client:
        await start(client)
        with trio.fail_after(REAL_TIME):
            async with open_channel(client.address, "s") as channel:
                await execute(channel, "print one")
            await gone(client)
        text = await next_text(client)

    assert text == "end\n"


async def test_exit_is_told_once_to_clients_that_close_for_it() -> None:
    """A client that closes on reading it, and answers no ping any more, has it and all before it."""
    async with open_unsampled() as client:
        await start(client)
        with trio.fail_after(REAL_TIME):
            async with open_by_hand(client) as hand:
                await hand.request(make_execute_request("print one\nexit 3"))
                await hand.read_until(is_kernel("exited", 3))
                # Behind the exit, and not answered.
                await hand.read_ping()
                await hand.leave()
            await gone(client)
            async with open_channel(client.address, "s") as channel:
                await client.call("POST", "/sessions/s/start")
                messages = await execute(channel, "print end")

    assert text_of(messages) == "end\n"
    assert not any(map(is_kernel("exited"), messages))


async def test_exit_of_an_earlier_kernel_is_no_news_once_the_next_has_started() -> None:
    """A client that comes then is told the statuses, not the exit; what was said otherwise is there."""
    async with open_unsampled() as client:
        await start(client)
        await client.call("POST", "/sessions/s/execute", {"code": "print one"})
        await client.call("POST", "/sessions/s/kill")
        await ask_until(client, lambda session: session["status"] == "exited")
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            messages = await execute(channel, "print end")
    statuses = [message["status"]["status"] for message in messages if is_kernel("status")(message)]

    assert text_of(messages) == "one\nend\n"
    assert not any(map(is_kernel("exited"), messages))
    assert ["exited", "starting"] == [status for status in statuses if status in ("exited", "starting")][-2:]


async def test_exit_of_the_latest_kernel_is_told_to_who_comes_then() -> None:
    """Nobody has read of it yet."""
    async with open_unsampled() as client:
        await start(client)
        await client.call("POST", "/sessions/s/kill")
        await ask_until(client, lambda session: session["status"] == "exited")
        async with open_channel(client.address, "s") as channel:
            messages = await receive_until(channel, is_kernel("exited"))

    assert 1 == sum(map(is_kernel("exited"), messages))


async def test_client_that_is_there_is_told_of_the_exit_before_the_next_start() -> None:
    """In order, as it happens."""
    async with open_unsampled() as client, open_started(client, body()) as channel:
        await client.call("POST", "/sessions/s/restart")
        messages = await execute(channel, "print end")
    told = [message for message in messages if is_kernel("exited")(message) or is_kernel("status")(message)]
    at = next(at for at, message in enumerate(told) if "exited" in message)

    assert "exited" == told[at - 1]["status"]["status"]
    assert "starting" == told[at + 1]["status"]["status"]


async def test_twenty_messages_that_wait_bring_two_pings_at_most() -> None:
    """More frames than messages help nobody."""
    async with open_unsampled() as client:
        await start(client)
        await client.call("POST", "/sessions/s/execute", {"code": "flood 20 10"})
        pings = 0
        with trio.fail_after(REAL_TIME):
            async with open_by_hand(client) as hand:
                while True:
                    opcode, payload = await hand.next_frame()
                    pings += opcode == 0x89
                    if b"19 xxx" in payload:
                        break

    assert 1 <= pings <= 2


@pytest.mark.posix_only("what waits for a pipe has no more memory")
async def test_large_outputs_in_a_row_reach_a_client_that_reads_through_memory() -> None:
    """More than the journal has memory for, and no file: nothing is dropped, as the client takes it as it comes."""
    limits = {"journal_memory": 1 << 16, "journal_file": 0}
    async with open_unsampled(**limits) as client, open_started(client, body()) as channel:
        with trio.fail_after(REAL_TIME):
            messages = [message for _ in range(8) for message in await execute(channel, f"buffers 6 {1 << 21}")]

    sizes = [len(buffer) for message in messages for buffer in message.get("buffers") or ()]
    assert 8 * 6 == len(sizes)
    assert {4 * -(-(1 << 21) // 3)} == set(sizes)
    assert not any("messagesLost" in message for message in messages)
