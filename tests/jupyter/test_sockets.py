"""A kernel's WebSocket in Jupyter's API: what front ends are told, and what they find when they come back."""

from __future__ import annotations

import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    open_websocket_url,
)

from front_end import TOKEN, connect, open_kernel, target_of, texts_of
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.errors import StartupError
from kallichore.session.session import Session
from kernels import REAL_TIME, scripted


@pytest.mark.parametrize("is_v1", [False, True])
async def test_front_end_executes_code_and_is_shown_that_the_kernel_is_there(is_v1: bool) -> None:
    """First the answer on iopub to a question of its own session's; then what it asked, under the names it gave."""
    async with open_kernel() as (server, session), connect(server, session, is_v1=is_v1) as front_end:
        nudge = await front_end.receive_until("status", execution_state="idle")
        asked = await front_end.execute("print 42")
        messages = await front_end.receive_all(asked)

    assert [each["parent_header"]["session"] for each in nudge] == ["a"] * len(nudge)
    assert {each["header"]["msg_type"] for each in nudge} == {"status"}
    assert texts_of(messages) == ["42\n"]
    reply = next(each for each in messages if each["header"]["msg_type"] == "execute_reply")
    assert reply["parent_header"]["username"] == "me"
    assert reply["channel"] == "shell"


async def test_output_is_everybodys_and_an_answer_is_the_askers() -> None:
    """Questions of the kernel, too, are for the front end whose code it runs."""
    async with (
        open_kernel() as (server, session),
        connect(server, session, "a") as asker,
        connect(server, session, "b") as other,
    ):
        asked = await asker.execute("input Name?")
        question = await asker.receive_until("input_request", asked)
        await asker.ask("input_reply", {"value": "x"}, "stdin")
        await asker.receive_until("execute_reply", asked)
        later = await other.execute("print later")
        seen = await other.receive_all(later)

    assert question[-1]["channel"] == "stdin"
    assert {"shell", "iopub"} == {each["channel"] for each in seen}
    assert [each["parent_header"]["msg_id"] for each in seen if each["channel"] == "shell"] == [later]
    assert asked in {each["parent_header"].get("msg_id") for each in seen}


@pytest.mark.parametrize("is_v1", [False, True])
async def test_front_end_that_comes_back_finds_what_it_missed(is_v1: bool) -> None:
    """In order, its answer too, and again only what it had not confirmed; another one begins with what comes."""
    async with open_kernel() as (server, session):
        async with connect(server, session, is_v1=is_v1) as front_end:
            await front_end.receive_until("status", execution_state="idle")
            asked = await front_end.execute("print 0\ninput go on?\nflood 3000 1")
            before = await front_end.receive_until("input_request", asked)
            await front_end.ask("input_reply", {"value": ""}, "stdin")
        async with connect(server, session, "other") as other:
            await other.receive_until("status", execution_state="idle")
        async with connect(server, session, is_v1=is_v1) as front_end:
            after = await front_end.receive_until("status", asked, execution_state="idle")

    ids = [each["header"]["msg_id"] for each in [*before, *after]]
    numbers = [int(text.split()[0]) for text in texts_of(after) if text.endswith(" x")]
    assert numbers == list(range(3000))
    # What was not confirmed comes again, in one piece at the beginning.
    assert len(ids) - len(set(ids)) < 30


async def test_newer_socket_of_a_front_end_takes_the_place_of_the_older() -> None:
    """The older gets an empty close frame, and the answers go to the newer, whoever asked."""
    async with open_kernel() as (server, session), connect(server, session) as older:
        await older.receive_until("status", execution_state="idle")
        asked = await older.execute("input go on?")
        await older.receive_until("input_request", asked)
        async with connect(server, session) as newer:
            with pytest.raises(ConnectionClosed) as closed:
                await older.receive_until("never")
            await newer.ask("input_reply", {"value": ""}, "stdin")
            messages = await newer.receive_until("execute_reply", asked)

    assert closed.value.reason.code == 1005
    assert messages[-1]["content"]["status"] == "ok"


async def come_and_be_displaced(server: RunningServer, session: Session) -> None:
    """Connect while the kernel starts, and be refused as another socket of this front end came."""
    with pytest.raises(ExceptionGroup) as refused:
        async with connect(server, session):
            pass

    assert refused.group_contains(ConnectionRejected)


async def test_sockets_that_come_while_the_kernel_starts_wait_for_it_and_the_last_one_counts() -> None:
    """Though the ones before have the same session."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        session = server.create_session(scripted("s", "slow-info=0.5"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.start)
            while not session.is_running:  # noqa: ASYNC110  # it is about to
                await trio.lowlevel.checkpoint()

            nursery.start_soon(come_and_be_displaced, server, session)
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with connect(server, session) as front_end:
                asked = await front_end.execute("print 1")
                messages = await front_end.receive_all(asked)

    assert texts_of(messages) == ["1\n"]


async def test_kernel_that_dies_says_why_before_it_is_dead() -> None:
    """And who comes then is told so too."""
    async with open_kernel() as (server, session), connect(server, session) as front_end:
        await front_end.execute("exit 3")
        messages = await front_end.receive_until("status", execution_state="dead")
        async with connect(server, session, "late") as late:
            told = await late.receive_until("status", execution_state="dead")

    for heard in (messages, told):
        assert "exited with code 3" in "".join(texts_of(heard))
        assert heard[-1]["parent_header"] == {}


async def test_front_end_of_an_idle_kernel_is_warned_and_told_why_it_is_dead() -> None:
    """In streams on stderr: some time before, and at the end."""
    settings = {"cull_idle_after": 1, "cull_connected": True}
    async with open_kernel(**settings) as (server, session), connect(server, session) as front_end:
        messages = await front_end.receive_until("status", execution_state="dead")

    warned, ended = (text for text in texts_of(messages) if text.startswith("[kallichore] "))
    assert "unless code is run or input is given" in warned
    assert "It was ended because it had been idle for " in ended


async def test_restart_is_no_death() -> None:
    """The socket stays, and works."""
    async with open_kernel() as (server, session), connect(server, session) as front_end:
        await session.restart()
        asked = await front_end.execute("print again")
        messages = await front_end.receive_all(asked)

    assert "dead" not in {each["content"].get("execution_state") for each in messages}
    assert texts_of(messages) == ["again\n"]


@pytest.mark.parametrize(
    ("is_v1", "headers", "expected"),
    [(False, {}, True), (True, {}, True), (False, {"user_agent": "Tornado/6.4"}, False)],
    ids=["default", "v1", "gateway"],
)
async def test_buffers_arrive_where_they_can_be_read(is_v1: bool, headers: dict[str, str], expected: bool) -> None:
    """A gateway that cannot read them gets the message without them, and goes on."""
    async with open_kernel() as (server, session), connect(server, session, is_v1=is_v1, **headers) as front_end:
        asked = await front_end.execute("buffers 3 1000")
        messages = await front_end.receive_all(asked)

    with_buffers = [each for each in messages if each["buffers"]]
    assert bool(with_buffers) is expected


async def test_events_are_a_socket_on_which_nothing_is_said() -> None:
    """It opens, answers pings, and closes in order."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        url = f"ws://127.0.0.1:{server.address.port}/api/events/subscribe?token={TOKEN}"
        with trio.fail_after(REAL_TIME):
            async with open_websocket_url(url) as socket:
                await socket.ping(b"there?")
                await socket.aclose()

    assert socket.closed.code == 1000


async def test_nonsense_is_ignored_and_the_socket_stays() -> None:
    """Text that is no message, a channel that is none, and a frame that says it has what it has not."""
    async with open_kernel() as (server, session), connect(server, session) as front_end:
        for nonsense in ("{", "[]", '{"header": {}}', b"", b"\xff" * 40):
            await front_end.socket.send_message(nonsense)
        await front_end.ask("execute_request", {"code": "print no"}, "heartbeat")
        asked = await front_end.execute("print yes")
        messages = await front_end.receive_all(asked)

    assert texts_of(messages) == ["yes\n"]


async def test_kernel_that_does_not_start_refuses_its_sockets_with_the_reason() -> None:
    """Nobody waits for a minute."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        session = server.create_session(scripted("s", "exit-before-info=3"))
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with pytest.raises(StartupError):
                    await session.start()

            nursery.start_soon(start)
            while not session.is_running:  # noqa: ASYNC110  # it is about to
                await trio.lowlevel.checkpoint()
            head = [
                f"GET {target_of(server, session, 'a')} HTTP/1.1",
                *("host: localhost", "connection: Upgrade", "upgrade: websocket"),
                *("sec-websocket-version: 13", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="),
            ]
            answer = b""
            async with await trio.open_tcp_stream("127.0.0.1", server.address.port or 0) as stream:
                await stream.send_all("\r\n".join([*head, "", ""]).encode())
                with trio.fail_after(REAL_TIME):
                    async for piece in stream:
                        answer += bytes(piece)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"exited with code 3" in answer
