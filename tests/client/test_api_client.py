"""The API's client: answers, refusals in words, and servers that are not there, not ours, or gone too soon."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio

from kallichore.client import channel_client
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, complaint, send_request, session_path
from kallichore.client.channel_client import make_execute_request, open_channel, send_and_leave
from kallichore.client.event_stream import open_events
from kallichore.client.websocket import ChannelClosedError
from kallichore.errors import ConfigurationError
from kernels import LOCAL, REAL_TIME, body, is_done, is_type, local_address, open_client, open_started, receive_until

NOBODY = r"\\.\pipe\kallichore-nobody" if sys.platform == "win32" else "{}/no.sock"
"""Where nobody listens, in the test's own directory where that counts."""

Answering = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def listening(answering: Answering) -> AsyncIterator[Address]:
    """Listen on TCP with something that is no Kallichore server."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answering, 0, host="127.0.0.1"))
        yield Address(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def saying(words: bytes) -> Answering:
    """Return what reads a request's beginning, says some words and closes."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(words)
        await stream.aclose()

    return answer


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_answers_are_decoded_and_refusals_raised(transport: str) -> None:
    """What the server says is a value; what it refuses an error with status, body and its own words."""
    async with open_client(transport=transport) as client:
        created = await client.call("PUT", "/sessions", body())
        with pytest.raises(ApiError) as refused:
            await client.call("PUT", "/sessions", body())
        with pytest.raises(ApiError, match="no session 'a/b'; kcclient list") as unknown:
            await client.call("GET", session_path("a/b"))
        deleted = await client.call("DELETE", session_path("s"))

    assert ({"session_id": "s"}, None) == (created, deleted)
    assert (400, "KS-0", refused.value.body["message"]) == (
        refused.value.status,
        refused.value.body["code"],
        str(refused.value),
    )
    assert 404 == unknown.value.status


@pytest.mark.parametrize("token", ["wrong", None])
@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_wrong_token_is_told_by_requests_events_and_channels(transport: str, token: str | None) -> None:
    """Whichever way one comes without the right token, the error is the same and says which options have it."""
    async with open_client(transport=transport) as client:
        address = attrs.evolve(client.address, token=token)
        with pytest.raises(ApiError, match=r"bearer token.*--connection-file or --token") as requested:
            await ApiClient(address).call("GET", "/sessions")
        with pytest.raises(ApiError, match=r"bearer token.*--connection-file or --token") as followed:
            async with open_events(address, "/logs"):
                pass
        with pytest.raises(ApiError, match=r"bearer token.*--connection-file or --token") as connected:
            async with open_channel(address, "s"):
                pass
        with pytest.raises(ApiError, match=r"bearer token.*--connection-file or --token") as left:
            await send_and_leave(address, "s", make_execute_request("print"))

    assert [401] * 4 == [error.value.status for error in (requested, followed, connected, left)]


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_channels_and_logs_of_an_unknown_session_are_refused(transport: str) -> None:
    """The error names the session, as for any other request about it."""
    async with open_client(transport=transport) as client:
        with pytest.raises(ApiError, match="no session 'a b'") as connected:
            async with open_channel(client.address, "a b"):
                pass
        with pytest.raises(ApiError, match="no session 'a b'") as left:
            await send_and_leave(client.address, "a b", make_execute_request("print"))
        with pytest.raises(ApiError, match="no session 'a b'") as followed:
            async with open_events(client.address, session_path("a b", "logs")):
                pass

    assert [404] * 3 == [error.value.status for error in (connected, left, followed)]


async def test_nobody_there_is_told_with_the_address(private_place: Path) -> None:
    """Errors name the port or the path that nobody listens at."""
    async with listening(saying(b"")) as tcp:
        pass
    for address in (tcp, local_address(NOBODY.format(private_place))):
        with pytest.raises(ConnectionError) as failed:
            await ApiClient(address).call("GET", "/status")

        assert f"Could not reach a server at {address}" in str(failed.value)


@pytest.mark.parametrize(
    "words",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"],
)
async def test_what_is_no_whole_answer_is_no_answer(words: bytes) -> None:
    """A connection that closes, another protocol, and half a body are all protocol errors."""
    with trio.fail_after(REAL_TIME):
        async with listening(saying(words)) as address:
            with pytest.raises(h11.RemoteProtocolError):
                await ApiClient(address).call("GET", "/status")


async def test_connection_that_closes_without_an_answer_is_nobody() -> None:
    """A server that is ending accepts a last connection and answers nobody: as if nobody listened."""
    with trio.fail_after(REAL_TIME):
        async with listening(saying(b"")) as address:
            with pytest.raises(ConnectionError):
                await ApiClient(address).call("GET", "/status")


async def test_address_of_another_system_is_refused_in_words() -> None:
    """A Unix socket on Windows, and a named pipe elsewhere, are no failures of ours but of the address."""
    path = r"\\.\pipe\theirs"
    address = Address(socket_path="/theirs") if sys.platform == "win32" else Address(named_pipe=path)

    with pytest.raises(ConfigurationError, match=r"on Windows.*; use"):
        await ApiClient(address).call("GET", "/status")


@pytest.mark.posix_only("a Unix socket")
async def test_answer_counts_even_if_the_body_was_not_wanted(private_place: Path) -> None:
    """A server that answers and closes in the middle of a large body is heard all the same."""
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(str(private_place / "s"))
    listener.listen(1)

    async def refuse() -> None:
        async with await trio.SocketListener(listener).accept() as stream:
            await stream.receive_some(100)
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nno!")

    with trio.fail_after(REAL_TIME), listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            answer = await send_request(Address(socket_path=str(private_place / "s")), "POST", "/x", b"x" * (4 << 20))

    assert (413, b"no!") == (answer.status, answer.body)


async def test_cancelled_request_closes_its_connection() -> None:
    """Whoever gives up waiting leaves no connection behind: the server sees its end."""
    asked, ended = trio.Event(), trio.Event()

    async def never_answer(stream: trio.SocketStream) -> None:
        async for _ in stream:
            asked.set()
        ended.set()

    with trio.fail_after(REAL_TIME):
        async with listening(never_answer) as address:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ApiClient(address).call, "GET", "/status")
                await asked.wait()
                nursery.cancel_scope.cancel()
            await ended.wait()


async def test_answer_to_a_message_that_was_sent_on_leaving_is_the_next_clients() -> None:
    """However fast the kernel is, who left did not take it along."""
    texts = [f"{number}\n" for number in range(20)]
    heard = []
    async with open_client() as client, open_started(client, body()):
        for text in texts:
            request = make_execute_request(f"print {text}")
            await send_and_leave(client.address, "s", request)
            async with open_channel(client.address, "s") as channel:
                messages = await receive_until(channel, is_done(request["header"]["msg_id"]))
                heard += [message["content"]["text"] for message in messages if is_type("stream")(message)]

    assert texts == heard


async def test_who_sends_and_leaves_takes_no_news_along() -> None:
    """Not even that its execution waits, which is known at once."""
    running, waiting = (make_execute_request(code) for code in ("input Name?", "print x"))
    async with open_client() as client:
        async with open_started(client, body()) as channel:
            await channel.send(running)
            await receive_until(channel, is_type("input_request"))
        await send_and_leave(client.address, "s", waiting)
        async with open_channel(client.address, "s") as successor:
            told = await receive_until(successor, lambda message: "executionQueued" in message)
        await client.call("POST", "/sessions/s/kill")

    assert told[-1]["executionQueued"] == waiting["header"]["msg_id"]


async def test_channels_that_nobody_opens_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes away in the middle of the upgrade does not hold its client."""
    monkeypatch.setattr(channel_client, "UPGRADE_PATIENCE", 0.05)

    with trio.fail_after(REAL_TIME):
        async with listening(saying(b"")) as address:
            with pytest.raises(ExceptionGroup) as failed:
                async with open_channel(address, "s"):
                    pass

    assert failed.group_contains(ChannelClosedError, match="did not open the channels")


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 101 Half"])
async def test_message_to_what_opens_no_channels_is_an_error(words: bytes) -> None:
    """Whatever else is there."""
    async with listening(saying(words)) as address:
        with pytest.raises(ChannelClosedError, match="did not open the channels"):
            await send_and_leave(address, "s", make_execute_request("print"))


@pytest.mark.parametrize(
    ("session_id", "path"),
    [("s", "/sessions/s"), ("a/b", "/sessions/a%2Fb"), ("ä ?", "/sessions/%C3%A4%20%3F"), ("..", "/sessions/..")],
)
def test_session_path_is_one_segment(session_id: str, path: str) -> None:
    """Whatever is in an id, it stays one segment of the path."""
    assert (path, f"{path}/start") == (session_path(session_id), session_path(session_id, "start"))


@pytest.mark.parametrize(
    ("path", "status", "content", "said"),
    [
        ("/sessions", 400, {"code": "KS-0", "message": "there already"}, "there already"),
        ("/sessions/s/start", 500, {"error": {"message": "no", "details": "why"}, "output": "last"}, "no\nwhy\nlast"),
        ("/sessions/s/start", 400, "plain words", "plain words"),
        ("/sessions/a%2Fb/kill", 404, "", "There is no session 'a/b'; kcclient list shows those that there are"),
        ("/bogus", 404, "", "There is no /bogus"),
        ("/status", 503, "", "GET /status was answered with status 503"),
    ],
)
def test_refusals_are_put_in_words(path: str, status: int, content: Any, said: str) -> None:
    """The server's own words where it has any, with details and output; else what the status means."""
    assert said == complaint("GET", path, status, content)
