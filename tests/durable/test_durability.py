"""Floods in which servers are killed at random moments, and many takeovers in a row: minutes, `nox -s durability`."""

from __future__ import annotations

import gc
import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from durable.servers import Servers, open_servers, processes_below, wait_nothing_left
from kallichore.client.channel_client import make_execute_request, open_channel
from kallichore.client.websocket import ChannelClosedError
from kallichore.errors import KallichoreError
from kernels import body, ipykernel_argv, is_done, is_type, open_client, receive_until, text_of

pytestmark = [pytest.mark.durability, pytest.mark.posix_only("kernels end with their server on Windows")]


GROWTH = 80e6
"""Bytes that this process may grow by over all takeovers. It was 56 MB when this was written; the number of objects did
not grow, in takeovers without output, so what grows may be what lies between them."""


class Listener:
    """A client of one kind, which comes back to each next server, and what it has heard of one execution."""

    def __init__(self, msg_id: str, is_numbered: bool) -> None:
        self.msg_id = msg_id
        self.is_numbered = is_numbered
        self.since = 0
        self.numbers: list[int] = []
        self.texts: list[str] = []
        self.endings: Counter[str] = Counter()
        self.repeated = 0
        self._known: set[str] = set()

    def take(self, message: dict[str, Any]) -> None:
        """Note a message."""
        if "seq" in message:
            self.since = message["seq"]
            self.numbers.append(message["seq"])
        if message["kind"] != "jupyter" or (message["parent_header"] or {}).get("msg_id") != self.msg_id:
            return
        if message["header"]["msg_id"] in self._known:
            self.repeated += 1
            return
        self._known.add(message["header"]["msg_id"])
        if is_type("stream")(message):
            self.texts.append(message["content"]["text"])
        elif is_type("execute_reply")(message):
            self.endings["reply"] += 1
        elif message["content"].get("execution_state") == "idle":
            self.endings["idle"] += 1

    @property
    def is_done(self) -> bool:
        """Whether the execution is over."""
        return len(self.endings) == 2

    def lines(self) -> list[int]:
        """Return the numbers in what was printed."""
        return [int(number) for number in re.findall(r"\d+", "".join(self.texts))]


async def listen_through_kills(servers: Servers, listener: Listener, kills: int, most: int) -> int:
    """Listen until the execution is over, and kill the server at random moments; return how often."""
    done = 0
    while not listener.is_done:
        heard, stop_at = 0, random.randint(1, most)
        since = listener.since if listener.is_numbered else None
        try:
            async with open_channel(servers.client.address, "s", since=since) as channel:
                while not listener.is_done:
                    listener.take(await channel.receive())
                    heard += 1
                    if done < kills and heard == stop_at:
                        await servers.kill()
                        done += 1
                        assert await servers.start() is not None
        except* (ChannelClosedError, KallichoreError, OSError):
            assert servers.lives
    return done


@pytest.mark.parametrize("is_numbered", [True, False], ids=["numbered", "compatible"])
@pytest.mark.parametrize("kernel", ["scripted", "ipykernel"])
async def test_kills_in_a_flood(private_place: Path, kernel: str, is_numbered: bool) -> None:
    """Fifty kills at random moments of a flood: nothing is lost, and with numbers nothing comes twice."""
    count, kills = (50_000, 50) if kernel == "scripted" else (10_000, 50)
    if kernel == "scripted":
        code, members = f"flood {count} 20", {}
    else:
        code, members = f"for i in range({count}): print(i, flush=True)", {"argv": list(ipykernel_argv())}
    async with open_servers(private_place) as servers:
        client = await servers.start()
        assert client is not None
        await client.call("PUT", "/sessions", body(**members))
        await client.call("POST", "/sessions/s/start")
        request = make_execute_request(code)
        listener = Listener(request["header"]["msg_id"], is_numbered)
        async with open_channel(client.address, "s", attach="visit") as channel:
            await channel.send(request)
        done = await listen_through_kills(servers, listener, kills, most=count // kills)
        await servers.client.call("POST", "/shutdown")
        await servers.wait()
        left = await wait_nothing_left(servers)
    print(f"{kernel}: {done} kills, {len(listener.texts)} texts, {listener.repeated} messages again")

    assert done == kills
    assert listener.lines() == list(range(count))
    assert listener.endings == {"reply": 1, "idle": 1}
    assert listener.numbers == list(range(1, len(listener.numbers) + 1))
    assert left == []


def look(place: Path) -> dict[str, int]:
    """Return what this process has, and what runs and lies about because of it."""
    gc.collect()
    process = psutil.Process()
    return {
        "descriptors": process.num_fds(),
        "processes": len(processes_below(place)),
        "files": sum(len(files) + len(folders) for _, folders, files in os.walk(place)),
    }


def memory_of(place: Path) -> tuple[int, int]:
    """Return the bytes of this process, and of the hosts."""
    hosts = [each for each in processes_below(place) if "host.py" in str(each.cmdline())]
    return psutil.Process().memory_info().rss, sum(each.memory_info().rss for each in hosts)


async def test_takeovers_leave_nothing(private_place: Path) -> None:
    """After two hundred takeovers there are as many descriptors, processes and files as after twenty."""
    async with open_client(state_directory=private_place / "state") as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
    looks, memory = {}, {}
    for number in range(200):
        async with open_client(state_directory=private_place / "state") as client:
            async with open_channel(client.address, "s") as channel:
                msg_id = await channel.send(make_execute_request(f"print {number}\nflood 20 100"))
                messages = await receive_until(channel, is_done(msg_id))
            said = text_of([message for message in messages if is_type("stream", msg_id)(message)])
            assert said == f"{number}\n" + "".join(f"{line} " + "x" * 100 for line in range(20))
        if number in (20, 199):
            looks[number], memory[number] = look(private_place), memory_of(private_place)
    async with open_client(state_directory=private_place / "state", on_exit="stop") as client:
        await client.call("GET", "/sessions/s")
    growth = [after - before for before, after in zip(memory[20], memory[199], strict=True)]
    print(json.dumps([looks, growth]))

    assert looks[199] == looks[20]
    assert growth[0] < GROWTH
    assert growth[1] < 4 << 20
