"""Several clients, and clients that come back with a number: what each is told, and what nobody is told twice."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlencode

import pytest

from kallichore.client.api_client import ApiClient, open_stream
from kallichore.client.channel_client import (
    ChannelClient,
    make_execute_request,
    make_message,
    open_channel,
    send_and_leave,
)
from kallichore.client.websocket import ChannelClosedError
from kernels import (
    ask_until,
    body,
    execute,
    is_done,
    is_idle,
    is_kernel,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
)


def open_unsampled(**settings: Any) -> Any:
    """Run a server that takes no samples: they have no numbers, and would come in between."""
    return open_client(resource_sample_interval_ms=0, **settings)


def attend(client: ApiClient, **query: Any) -> AbstractAsyncContextManager[ChannelClient]:
    """Connect to the session's channels with some parameters."""
    return open_channel(client.address, "s", **query)


async def test_client_that_comes_back_with_a_number_gets_the_rest_again() -> None:
    """Everything beyond the number comes again, in order, each message with its number, and then what is new."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        await run_code(first, "print one\nprint two")
        async with attend(client, since=0) as again:
            state = await again.receive()
            known = await receive_until(again, lambda message: is_type("stream")(message) and "two" in str(message))
            await receive_until(first, is_kernel("clientDisconnected"))
        last = known[-1]["seq"]
        async with attend(client, since=last) as third:
            await third.receive()
            rest = await execute(third, "print three")

    assert ("idle", None, None) == tuple(
        state["sessionState"][name] for name in ("status", "active_request", "input_request")
    )
    assert list(range(1, len(known) + 1)) == [message["seq"] for message in known]
    assert last + 1 == rest[0]["seq"]
    assert "three\n" == text_of(rest)


async def test_client_that_comes_back_without_a_number_gets_what_nobody_got() -> None:
    """The compatible way: nothing twice, and no numbers."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        await run_code(first, "print one")
        async with attend(client) as second:
            messages = await execute(second, "print two")

    assert "two\n" == text_of(messages)
    assert all("seq" not in message for message in messages)


async def test_number_of_another_run_means_everything() -> None:
    """A number that this session never gave belongs to another server; all of it is new to that client."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        await run_code(first, "print one")
        async with attend(client, since=10**9) as again:
            await again.receive()
            messages = await receive_until(again, lambda message: "one" in str(message))

    assert 1 == messages[0]["seq"]


async def test_missing_messages_are_an_honest_gap() -> None:
    """What is gone is counted, and the numbers go on behind it."""
    limits = {"journal_memory": 1 << 16, "journal_file": 0, "journal_keep": 0}
    async with open_unsampled(**limits) as client, open_started(client, body()) as first:
        # Its end on iopub: the reply comes over another socket, and may be in the gap.
        msg_id = await first.send(make_execute_request("repeat 500 400"))
        await receive_until(first, is_idle(msg_id))
        async with attend(client, since=0) as again:
            await again.receive()
            gap = await again.receive()
            next_message = await execute(again, "print x")

    assert gap["messagesLost"] > 400
    assert gap["messagesLost"] + 1 == next_message[0]["seq"]


async def test_clients_that_share_all_get_everything() -> None:
    """Nobody is displaced; replies to one client's requests reach the other too."""
    async with (
        open_unsampled() as client,
        open_started(client, body()) as first,
        attend(client, attach="share") as second,
    ):
        one = await first.send(make_execute_request("print one"))
        heard = [text_of(await receive_until(channel, is_done(one))) for channel in (first, second)]
        msg_id = await second.send(make_execute_request("print two"))
        mine = await receive_until(second, is_done(msg_id))
        theirs = await receive_until(first, is_done(msg_id))

    assert ["one\n", "one\n"] == heard
    assert ("two\n", "two\n") == (text_of(mine), text_of(theirs))


async def test_client_that_takes_over_leaves_those_who_share() -> None:
    """The one that had the session is told and closed; who shares it stays."""
    async with (
        open_unsampled() as client,
        open_started(client, body()) as first,
        attend(client, attach="share") as sharer,
    ):
        async with attend(client) as second:
            await receive_until(first, is_kernel("clientDisconnected"))
            with pytest.raises(ChannelClosedError):
                await first.receive()
            await run_code(second, "print two")
            messages = await receive_until(sharer, lambda message: "two" in str(message))

    assert not any("clientDisconnected" in message for message in messages)


async def test_visitor_leaves_to_others_what_is_theirs() -> None:
    """It displaces nobody and is sent what comes; who comes next gets all but what answers the visitor's request."""
    is_printed = is_kernel("output", ["stdout", "also mine\n"])
    async with open_unsampled() as client:
        async with open_started(client, body()):
            pass
        await send_and_leave(client.address, "s", make_execute_request("print left"))
        await ask_until(client, lambda session: session["status"] == "idle" and session["history"] != [])
        async with attend(client, attach="visit") as visitor:
            seen = await execute(visitor, "print mine")
            # Through a pipe, in its own time: before the first answer, it would not be known whose it is.
            if not any(map(is_printed, await execute(visitor, "stdout also mine"))):
                await receive_until(visitor, is_printed)
        async with attend(client) as last:
            owed = await execute(last, "print last")

    assert "mine\n" == text_of(seen)
    assert ["left\n", "last\n"] == [message["content"]["text"] for message in owed if is_type("stream")(message)]
    assert [] == list(filter(is_printed, owed))


async def test_displaced_client_is_told_the_name_of_who_came() -> None:
    """Where it gave one; as much of it as is for people."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        async with attend(client, name="Ada & co, " * 20):
            told = await receive_until(first, is_kernel("clientDisconnected"))

    assert told[-1]["clientDisconnected"].startswith("Another client connected to this session: Ada & co, Ada")
    assert 200 > len(told[-1]["clientDisconnected"])


async def test_client_that_watches_only_reads() -> None:
    """What it says is ignored, and what it was told is still owed to the next client."""
    async with open_unsampled() as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with attend(client, attach="watch") as watcher:
            await watcher.send(make_execute_request("print never"))
            await receive_until(watcher, is_kernel("status"))
            async with attend(client) as other:
                messages = await execute(other, "print mine")
            seen = await receive_until(watcher, lambda message: "mine" in str(message))

    assert "mine\n" == text_of(messages)
    assert any("status" in message and message["status"]["status"] == "starting" for message in messages)
    assert "never" not in str(seen)


async def test_slow_client_holds_up_nobody() -> None:
    """While one does not read at all, the other gets a flood and its answers."""
    async with open_unsampled() as client, open_started(client, body()) as slow, attend(client, attach="share") as fast:
        await execute(fast, "repeat 8000 1000")
        text = await run_code(fast, "print done")
        caught_up = await receive_until(slow, lambda message: "done" in str(message))

    assert "done\n" in text
    assert 8000 == sum(is_type("stream")(message) and "xxx" in message["content"]["text"] for message in caught_up)


@pytest.mark.parametrize("query", [{}, {"since": 0}], ids=["compatible", "numbered"])
async def test_replies_go_ahead_of_output_for_who_is_behind(query: dict[str, Any]) -> None:
    """The reply to an interrupt reaches a client that has not read megabytes of output before these, unless it goes by
    the numbers; all output comes, once and in order.
    """
    async with open_unsampled() as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with attend(client, **query) as slow:
            msg_id = await slow.send(make_execute_request("flood 10000 1000\nsleep 60"))
            interrupt = make_message("interrupt_request", {}, "control")
            await client.call("GET", "/sessions/s")
            await slow.send(interrupt)
            await ask_until(client, lambda session: session["status"] == "idle")
            messages = await receive_until(slow, is_done(msg_id) if query else is_idle(msg_id))
    streams = [int(message["content"]["text"].split()[0]) for message in messages if is_type("stream")(message)]
    replied = next(at for at, message in enumerate(messages) if is_type("interrupt_reply")(message))
    behind = sum(is_type("stream")(message) for message in messages[replied:])

    assert streams == list(range(10000))
    if query:
        numbers = [message["seq"] for message in messages if "seq" in message]
        assert numbers == list(range(1, len(numbers) + 1))
    else:
        # Of 13 MB, what the system and one batch hold may be before it.
        assert behind > 1000
    assert 1 == sum(is_type("execute_reply")(message) for message in messages)


@pytest.mark.parametrize("query", [{}, {"since": 0}], ids=["compatible", "numbered"])
async def test_open_question_is_shown_to_the_next_client(query: dict[str, Any]) -> None:
    """A client that left without an answer leaves the question to the next, who answers it."""
    is_shown = (lambda message: "sessionState" in message) if query else is_type("input_request")
    async with open_unsampled() as client, open_started(client, body()) as first:
        await first.send(make_execute_request("input name?"))
        await receive_until(first, is_type("input_request"))
        async with attend(client, **query) as second:
            # Others may come before: what the first client was given last and had no time to confirm.
            shown = await receive_until(second, is_shown)
            question = shown[-1]["sessionState"]["input_request"] if query else shown[-1]
            await second.send(make_message("input_reply", {"value": "Ada", "status": "ok"}, "stdin"))
            messages = await receive_until(second, is_type("stream"))

    assert "name?" == question["content"]["prompt"]
    assert "Ada" in str(messages)


async def test_answered_or_interrupted_question_is_shown_to_nobody() -> None:
    """After the answer, or an interrupt, no client is asked again."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        await first.send(make_execute_request("input name?"))
        await receive_until(first, is_type("input_request"))
        await client.call("POST", "/sessions/s/interrupt")
        async with attend(client, since=0) as second:
            state = await second.receive()

    assert state["sessionState"]["input_request"] is None


async def test_resource_samples_are_live_only() -> None:
    """Samples reach who is connected and are not kept for who comes back."""
    async with open_client(resource_sample_interval_ms=100) as client, open_started(client, body()) as first:
        await receive_until(first, is_kernel("resourceUsage"))
        await run_code(first, "print one")
        async with attend(client, since=0) as again:
            await again.receive()
            messages = await receive_until(again, lambda message: "one" in str(message))

    assert not any("resourceUsage" in message and "seq" in message for message in messages)


@pytest.mark.parametrize(("query", "named"), [({"attach": "push"}, "attach"), ({"since": "-1"}, "since")])
async def test_parameters_that_make_no_sense_are_refused(query: dict[str, str], named: str) -> None:
    """The upgrade is answered with 400 and the reason, and nobody is displaced."""
    async with open_unsampled() as client, open_started(client, body()) as first:
        lines = [f"GET /sessions/s/channels?{urlencode(query)} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Host: localhost", "Sec-WebSocket-Key: x", f"Authorization: Bearer {client.address.token}", "", ""]
        async with await open_stream(client.address) as stream:
            await stream.send_all("\r\n".join(lines).encode())
            answer = b""
            while data := await stream.receive_some():
                answer += bytes(data)
        text = await run_code(first, "print still here")

    assert "still here\n" == text
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert named in answer.decode()


async def test_session_can_have_limits_of_its_own() -> None:
    """What a session keeps can be set at its creation, whatever the server's default is."""
    limits = {"journal_memory": 1 << 16, "journal_file": 0, "journal_keep": 0}
    async with open_unsampled() as client, open_started(client, body(**limits)) as first:
        msg_id = await first.send(make_execute_request("repeat 500 400"))
        await receive_until(first, is_idle(msg_id))
        async with attend(client, since=0) as again:
            await again.receive()
            gap = await again.receive()

    assert gap["messagesLost"] > 400
