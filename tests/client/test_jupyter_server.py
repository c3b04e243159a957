"""A server that is spoken to by Jupyter's API, as commands see it: our own server's side of that, with real kernels."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from kallichore.cli.installed import find_kernel
from kallichore.cli.options import new_kernel
from kallichore.client import jupyter_channel
from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import make_execute_request
from kallichore.client.jupyter_channel import JupyterChannel
from kallichore.client.jupyter_server import JupyterServer
from kallichore.client.server import NewKernel, NoSuchThingError
from kallichore.client.websocket import ChannelClosedError
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kallichore.errors import KallichoreError
from kernels import REAL_TIME, address_of, bash_kernel_argv, is_done, receive_until, scripted_argv, text_of

KERNEL_ID = "6f2d3a52-0e3c-4c6e-9f6e-0a4d5f5c8f01"


@pytest.fixture(autouse=True)
def _installed(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install kernels: the scripted one, ways in which it fails, and bash."""
    kernels = {
        "scripted": scripted_argv(),
        "silent": scripted_argv("silent-shell"),
        "broken": ("/nowhere/kernel", "{connection_file}"),
        "bash": bash_kernel_argv(),
    }
    for name, argv in kernels.items():
        folder = private_place / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": f"The {name}", "language": name, "interrupt_mode": "message"}
        if name == "bash":
            spec |= {"interrupt_mode": "signal"}
        (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(private_place / "jupyter"))


@asynccontextmanager
async def open_server(**settings: Any) -> AsyncIterator[JupyterServer]:
    """Run a server of ours and yield what speaks to it by Jupyter's API only."""
    async with serve(ServerConfig(**settings)) as server:
        yield JupyterServer(attrs.evolve(address_of(server), base_path=settings.get("base_url", "")))


async def wanted(server: JupyterServer, name: str = "scripted", **members: Any) -> NewKernel:
    """Return a kernel of the server's that is to be started."""
    return attrs.evolve(new_kernel(await find_kernel(server, name), None, (), 20), **members)


async def run(channel: JupyterChannel, code: str) -> str:
    """Run code, and return what it prints."""
    msg_id = await channel.send(make_execute_request(code))
    return text_of(await receive_until(channel, is_done(msg_id)))


@pytest.mark.parametrize("settings", [{}, {"token": None}, {"base_url": "/deep/er"}])
async def test_kernel_lives_by_the_contract(settings: dict[str, Any]) -> None:
    """Started, seen, used, restarted, ended; with a token or without, below a path or not."""
    async with open_server(**settings) as server:
        kernel_id = await server.start_new(await wanted(server), KERNEL_ID)
        (listed,), described = await server.sessions(), await server.describe(kernel_id)
        async with server.open_channel(kernel_id) as channel:
            before = await run(channel, "print one")
            await server.restart(kernel_id)
            after = await run(channel, "print two")
        await server.interrupt(kernel_id)
        outcome = await server.shut_down_kernel(kernel_id)
        left = await server.sessions()

    assert (KERNEL_ID, "The scripted", "idle") == (listed.session_id, listed.display_name, listed.status)
    assert {**listed.told, "last_activity": "", "language": "scripted"} == {**described, "last_activity": ""}
    assert ("one\n", "two\n", "exited", []) == (before, after, outcome, left)


@pytest.mark.posix_only("bash")
async def test_bash_prints_fails_and_is_interrupted() -> None:
    """A kernel of another language is like others."""
    async with open_server() as server, server.open_new(await wanted(server, "bash")) as kernel_id:
        async with server.open_channel(kernel_id) as channel:
            printed = await run(channel, "echo $((6 * 7))")
            msg_id = await channel.send(make_execute_request("echo begun; sleep 60"))
            await receive_until(channel, lambda message: "begun" in str(message["content"]))
            await server.interrupt(kernel_id)
            ended = await receive_until(channel, is_done(msg_id))

    assert "42\n" == printed
    assert ended


async def test_kernel_of_a_block_is_gone_afterwards() -> None:
    """However the block ends: by itself, by an error, or cancelled in the middle of the start."""
    async with open_server() as server:
        async with server.open_new(await wanted(server)):
            inside = len(await server.sessions())
        with pytest.raises(KeyError):
            async with server.open_new(await wanted(server)):
                raise KeyError
        async with trio.open_nursery() as nursery:
            stack = AsyncExitStack()
            nursery.start_soon(stack.enter_async_context, server.open_new(await wanted(server, "silent")))
            with trio.fail_after(REAL_TIME):
                while not await server.sessions():  # noqa: ASYNC110  # the API does not tell it by itself
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        left = await server.sessions()

    assert (1, []) == (inside, left)


async def test_kernel_that_does_not_answer_in_time_is_ended() -> None:
    """And the way out is said."""
    async with open_server() as server:
        with trio.fail_after(REAL_TIME), pytest.raises(KallichoreError, match="--start-timeout gives it more"):
            await server.start_new(await wanted(server, "silent", start_timeout=1))
        left = await server.sessions()

    assert [] == left


async def test_kernel_that_cannot_start_is_told_with_the_servers_reason() -> None:
    """At once."""
    async with open_server() as server:
        with pytest.raises(ApiError, match="/nowhere/kernel"):
            await server.start_new(await wanted(server, "broken"))


async def test_end_of_a_kernel_is_heard_on_its_channels() -> None:
    """Ended from here, they are closed at once, whoever of the two says so first."""
    gone = "is gone: it was ended from here|The session was deleted"
    async with open_server() as server:
        kernel_id = await server.start_new(await wanted(server))
        async with server.open_channel(kernel_id) as channel:
            await server.kill(kernel_id)
            with trio.fail_after(REAL_TIME), pytest.raises(ChannelClosedError, match=gone):
                while True:
                    await channel.receive()
            for wait in (channel.renew, partial(channel.send, make_execute_request("print"))):
                with pytest.raises(ChannelClosedError, match=gone):
                    await wait()


async def test_end_by_others_is_heard_although_a_server_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked from time to time whether the kernel is there."""
    monkeypatch.setattr(jupyter_channel, "LOOK_INTERVAL", 0.05)
    async with open_server() as server:
        other = JupyterServer(server.address)
        kernel_id = await server.start_new(await wanted(server))
        async with server.open_channel(kernel_id) as channel:
            await other.kill(kernel_id)
            with trio.fail_after(REAL_TIME), pytest.raises(ChannelClosedError):
                while True:
                    await channel.receive()


@pytest.mark.posix_only("bash")
async def test_message_is_taken_before_one_leaves() -> None:
    """Who sends and leaves finds what it did."""
    async with open_server() as server, server.open_new(await wanted(server, "bash")) as kernel_id:
        for count in range(10):
            await server.send_and_leave(kernel_id, make_execute_request(f"n{count}=here"))
        async with server.open_channel(kernel_id) as channel:
            printed = await run(channel, "echo $n0 $n1 $n2 $n3 $n4 $n5 $n6 $n7 $n8 $n9")

    assert " ".join(["here"] * 10) == printed.strip()


@pytest.mark.parametrize(
    ("given", "said"),
    [({"variables": {"A": "b"}}, "--env is not for it"), ({"directory": "/tmp"}, "relative to that, and /tmp is not")],
)
async def test_what_such_a_server_cannot_do_for_a_new_kernel_is_said(given: dict[str, Any], said: str) -> None:
    """Rather than left out."""
    async with open_server() as server:
        with pytest.raises(NoSuchThingError, match=said):
            await server.start_new(await wanted(server, **given))
        left = await server.sessions()

    assert [] == left


@pytest.mark.posix_only("bash")
async def test_kernel_starts_in_a_folder_below_the_servers_own(tmp_path: Path) -> None:
    """The one that is named."""
    (tmp_path / "sub").mkdir()
    async with open_server(root_directory=tmp_path) as server:
        async with server.open_new(await wanted(server, "bash", directory="sub")) as kernel_id:
            async with server.open_channel(kernel_id) as channel:
                printed = await run(channel, "pwd")

    assert str(tmp_path / "sub") == printed.strip()


@pytest.mark.parametrize("way", [{"since": 0}, {"attach": "watch"}, {"attach": "takeover"}])
async def test_ways_to_be_there_that_are_ours_are_refused(way: dict[str, Any]) -> None:
    """Everybody shares a kernel there."""
    async with open_server() as server:
        with pytest.raises(NoSuchThingError, match="share it alike"):
            async with server.open_channel(KERNEL_ID, **way):
                pass


async def test_id_that_others_could_not_reach_is_refused() -> None:
    """Gateways route what looks like a UUID."""
    async with open_server() as server:
        with pytest.raises(NoSuchThingError, match="so -s cannot be 'abc'"):
            await server.start_new(await wanted(server), "abc")


async def test_kernel_that_is_not_there_is_told_whatever_is_asked() -> None:
    """With its id and the command that lists others."""
    said = f"There is no kernel '{KERNEL_ID}'; kcclient list shows"
    async with open_server() as server:
        for ask in (server.describe, server.interrupt, server.restart, server.kill):
            with pytest.raises(ApiError, match=said):
                await ask(KERNEL_ID)
        with pytest.raises(ApiError, match=said):
            async with server.open_channel(KERNEL_ID):
                pass


async def test_wrong_token_is_told_with_the_ways_to_give_the_right_one() -> None:
    """For requests and channels alike, and the token is not in what is said."""
    async with open_server(token="right") as server:
        other = JupyterServer(attrs.evolve(server.address, token="wrong-one"))
        for ask in (other.sessions, other.status, other.installed):
            with pytest.raises(ApiError, match=r"needs a token.*--token.*JUPYTER_TOKEN") as failed:
                await ask()

            assert "wrong-one" not in str(failed.value)
        with pytest.raises(ApiError, match="needs a token"):
            async with other.open_channel(KERNEL_ID):
                pass
