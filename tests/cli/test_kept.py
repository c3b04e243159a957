"""kcclient sessions: what a state directory holds, seen and ended with no server there, and with one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from command import kcclient
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import ChannelClient, make_execute_request, open_channel
from kallichore.conversation.delivery import FIRST_DISTANCE
from kernels import (
    body,
    is_kernel,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
    wait_ended,
)

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")


@pytest.fixture
def state(private_place: Path) -> Path:
    """Return where the state directory is."""
    return private_place / "state"


@asynccontextmanager
async def keeping(state: Path, **settings: Any) -> AsyncIterator[ApiClient]:
    """Run a server that leaves its kernels to the next one."""
    async with open_client(state_directory=state, shutdown_grace=0.5, **settings) as client:
        yield client


@asynccontextmanager
async def started(client: ApiClient) -> AsyncIterator[tuple[ChannelClient, int]]:
    """Start a kernel in a session, and yield its channels and its process."""
    async with open_started(client, body()) as channel:
        yield channel, (await client.call("GET", "/sessions/s"))["process_id"]


async def look(state: Path) -> dict[str, Any]:
    """Return what kcclient says of a state directory."""
    ended = await kcclient("sessions", "--state-dir", str(state), "--json")
    assert (0, "") == (ended.code, ended.err)
    told: dict[str, Any] = json.loads(ended.out)
    return told


async def test_session_is_seen_with_and_without_a_server(state: Path, private_place: Path) -> None:
    """What it is called, how it is, its process and that it lives, its queue, and who has the directory."""
    codes = (f"after {private_place / 'go'}", "print second", "print third")
    async with keeping(state) as client, started(client) as (channel, pid):
        for code in codes:
            last = await channel.send(make_execute_request(code))
        await receive_until(channel, is_kernel("executionQueued", last))
        seen = await look(state)
    alone = await look(state)
    text = await kcclient("sessions", "--state-dir", str(state))
    (private_place / "go").touch()
    async with keeping(state, on_exit="stop"):
        pass
    first, second = seen["sessions"][0], alone["sessions"][0]

    assert os.getpid() == seen["server"]["process_id"]
    assert seen["server"]["address"].startswith("http://127.0.0.1:")
    assert None is alone["server"]
    for told in (first, second):
        assert ("s", "Scripted", "busy", pid, True, 3) == (
            *(told["session_id"], told["display_name"], told["status"], told["process_id"]),
            *(told["kernel_lives"], told["queue_length"]),
        )
        assert 1_000_000 < told["memory_bytes"]
        assert told["created"] <= told["active"]
        assert (False, []) == (told["damaged"], told["problems"])
    assert ["s", "Scripted", "busy", str(pid)] == text.rows[0][:4]
    assert f"No server has this directory; to go on: kcserver --state-dir {state}\n" == text.err


async def test_undelivered_messages_are_counted(state: Path) -> None:
    """Those that no client confirmed: few where one had all and closed, and all that came since."""
    async with keeping(state) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            await run_code(channel, "print one")
        before = (await look(state))["sessions"][0]["undelivered_messages"]
        await client.call("POST", "/sessions/s/execute", {"code": "flood 100 10"})
        after = (await look(state))["sessions"][0]["undelivered_messages"]
    async with keeping(state, on_exit="stop"):
        pass

    # So many may be on their way between two pings.
    assert before <= FIRST_DISTANCE
    assert 100 <= after - before


async def test_kernel_is_ended_and_its_last_words_are_kept(state: Path, private_place: Path) -> None:
    """The next server has the session, what the kernel said while no server was there, and how it ended."""
    async with keeping(state) as client, started(client) as (channel, pid):
        msg_id = await channel.send(make_execute_request(f"after {private_place / 'go'}\nprint by itself"))
        await receive_until(channel, is_type("execute_input", msg_id))
    (private_place / "go").touch()
    ended = await kcclient("sessions", "end", "--state-dir", str(state), "s")
    await wait_ended(pid)
    told = (await look(state))["sessions"][0]
    again = await kcclient("sessions", "--state-dir", str(state), "end", "--all", "--json")
    async with keeping(state) as client, open_channel(client.address, "s") as channel:
        messages = await receive_until(channel, is_kernel("exited"))
        await client.call("POST", "/sessions/s/start")
        said = await run_code(channel, "print anew")
        await client.call("POST", "/shutdown")

    assert (0, "s: ended\n", "") == (ended.code, ended.out, ended.err)
    assert ("exited", None, False) == (told["status"], told["process_id"], told["kernel_lives"])
    assert [{"session_id": "s", "result": "has no kernel"}] == json.loads(again.out)["sessions"]
    assert "by itself\n" == text_of(messages)
    assert "anew\n" == said


async def test_only_the_named_session_is_ended(state: Path) -> None:
    """Others go on, and the next server has them as they were."""
    async with keeping(state) as client, started(client) as (_, pid):
        async with open_started(client, body("other")):
            other = (await client.call("GET", "/sessions/other"))["process_id"]
    ended = await kcclient("sessions", "end", "--state-dir", str(state), "other", "--forget")
    await wait_ended(other)
    told = await look(state)
    async with keeping(state, on_exit="stop") as client, open_channel(client.address, "s") as channel:
        said = await run_code(channel, "print here")

    assert (0, "other: forgotten\n") == (ended.code, ended.out)
    assert [("s", pid, True)] == [
        (each["session_id"], each["process_id"], each["kernel_lives"]) for each in told["sessions"]
    ]
    assert "here\n" == said


async def test_server_is_asked_for_its_own_sessions(state: Path) -> None:
    """As long as a server has the directory, nothing is ended behind its back, and it is said who has it."""
    async with keeping(state) as client, started(client) as (channel, _):
        refused = await kcclient("sessions", "end", "--state-dir", str(state), "--all")
        said = await run_code(channel, "print here")
        await client.call("POST", "/shutdown")

    assert (1, "") == (refused.code, refused.out)
    assert f"Error: The server with pid {os.getpid()} at http://127.0.0.1:" in refused.err
    assert "kcclient kill -s ID, and kcclient delete -s ID; to end all: kcclient shutdown\n" in refused.err
    assert "here\n" == said


async def test_damaged_session_is_listed_and_can_be_forgotten(state: Path) -> None:
    """It is called by its directory, with the reason; forgetting it ends its kernel too."""
    async with keeping(state) as client, started(client) as (_, pid):
        pass
    (place,) = (state / "sessions").iterdir()
    (place / "session.json").write_text("{")
    told = (await look(state))["sessions"][0]
    text = await kcclient("sessions", "--state-dir", str(state))
    named = await kcclient("sessions", "end", "--state-dir", str(state), place.name)
    all_of_them = await kcclient("sessions", "end", "--state-dir", str(state), "--all")
    stays = place.exists()
    forgotten = await kcclient("sessions", "end", "--state-dir", str(state), place.name, "--forget")
    await wait_ended(pid)

    assert (place.name, True, pid, True) == (
        *(told["session_id"], told["damaged"], told["process_id"], told["kernel_lives"]),
    )
    assert "session.json is damaged" in told["problems"][0]
    assert [place.name, "damaged", str(pid)] == text.rows[0][:3]
    assert f"{place.name}: {place / 'session.json'} is damaged" in text.err
    assert (1, True) == (named.code, stays)
    assert "is damaged" in named.err
    assert (0, "") == (all_of_them.code, all_of_them.out)
    assert f"{place.name} is damaged, and stays; --forget removes it\n" == all_of_them.err
    assert (0, f"{place.name}: forgotten\n") == (forgotten.code, forgotten.out)
    assert [] == list((state / "sessions").iterdir())


async def test_what_is_not_there_is_named(state: Path, private_place: Path) -> None:
    """A directory that is none, and a session that it has not; nothing is made or ended."""
    async with keeping(state) as client, started(client) as (_, pid):
        pass
    nowhere = await kcclient("sessions", "--state-dir", str(private_place / "nowhere"))
    end_nowhere = await kcclient("sessions", "end", "--all", "--state-dir", str(private_place / "nowhere"))
    unknown = await kcclient("sessions", "end", "--state-dir", str(state), "s", "t")
    still = (await look(state))["sessions"][0]["kernel_lives"]
    await kcclient("sessions", "end", "--state-dir", str(state), "s")
    await wait_ended(pid)

    assert [(1, f"Error: --state-dir {private_place / 'nowhere'}: no server has kept sessions there\n")] * 2 == [
        (each.code, each.err) for each in (nowhere, end_nowhere)
    ]
    assert not (private_place / "nowhere").exists()
    assert (1, True) == (unknown.code, still)
    assert f"Error: There is no session 't' in {state}" in unknown.err


async def test_newer_directory_is_refused_in_words(state: Path) -> None:
    """What a newer Kallichore wrote would be misread."""
    (state / "sessions").mkdir(parents=True)
    (state / "version").write_text("2\n")
    looked = await kcclient("sessions", "--state-dir", str(state))

    assert 1 == looked.code
    assert "its version is 2, and this Kallichore knows versions up to 1" in looked.err


@pytest.mark.parametrize(
    "line", ["", "end x", "end --state-dir d", "end --state-dir d x --all"], ids=["list", "end", "none", "both"]
)
async def test_wrong_command_lines_end_with_code_2(line: str) -> None:
    """Without a state directory, without sessions, and with some and all of them."""
    ended = await kcclient("sessions", *line.split())

    assert (2, "") == (ended.code, ended.out)
    assert re.search(r"Which (state directory|sessions)\?", ended.err)
