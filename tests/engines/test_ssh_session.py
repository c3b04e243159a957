"""Sessions whose kernels are reached by SSH, as clients see them: an HTTP API, channels, a state directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from far_machine import FarMachine, kill_ssh, open_far_machine
from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import make_execute_request, open_channel
from keeping import ending, keeping
from kernels import (
    LONG_SLEEP,
    body,
    ipykernel_argv,
    is_done,
    is_kernel,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    session_path,
    text_of,
)

pytestmark = pytest.mark.posix_only("hosts")


@pytest.fixture
async def machine(private_place: Path) -> AsyncIterator[FarMachine]:
    """The machine."""
    async with open_far_machine(private_place / "m") as machine:
        yield machine


async def test_session_by_ssh_is_like_any_other(machine: FarMachine) -> None:
    """It runs code, is interrupted and restarted, its output arrives over a lost connection, and nothing is left."""
    engine = {"kind": "ssh", **machine.options}
    request = body(argv=list(ipykernel_argv()), interrupt_mode="signal", engine=engine)
    slow = "import time\nfor n in range(200):\n    print(n, flush=True)\n    time.sleep(0.01)"
    async with open_client() as client:
        async with open_started(client, request) as channel:
            assert "2\n" == await run_code(channel, "print(1 + 1)")
            described = await client.call("GET", session_path("s"))
            running = await channel.send(make_execute_request(slow))
            messages = await receive_until(channel, is_type("stream", running))
            kill_ssh()
            messages += await receive_until(channel, is_done(running))
            running = await channel.send(make_execute_request(f"print(0, flush=True)\n{LONG_SLEEP}"))
            await receive_until(channel, is_type("stream", running))
            await client.call("POST", session_path("s", "interrupt"))
            ended = await receive_until(channel, is_done(running))
            await client.call("POST", session_path("s", "restart"))
            again = await run_code(channel, "print('time' in globals())")
        there = machine.directories()
        async with open_channel(client.address, "s") as channel:
            await channel.send(make_execute_request("import os; os._exit(5)"))
            await receive_until(channel, is_kernel("exited", 5))

    assert "".join(f"{n}\n" for n in range(200)) == text_of(messages)
    assert "False\n" == again
    assert "KeyboardInterrupt" == next(filter(is_type("execute_reply"), ended))["content"]["ename"]
    assert ("ssh", "on far", "far") == tuple(described["place"][name] for name in ("engine", "job", "node"))
    assert 1 == len(there)
    assert [] == machine.directories()


async def test_session_by_ssh_outlives_its_server(machine: FarMachine, private_place: Path) -> None:
    """With a state directory the next server finds the kernel where it was, and ends it when it is to."""
    place, profiles = private_place / "state", {"far": {"kind": "ssh", **machine.options}}
    async with keeping(place, profiles=profiles) as client:
        async with open_started(client, body(argv=list(ipykernel_argv()), engine={"profile": "far"})) as channel:
            await run_code(channel, "kept = 5")
    between = len(machine.directories())
    async with ending(place, profiles=profiles) as client, open_channel(client.address, "s") as channel:
        kept = await run_code(channel, "print(kept)")

    assert (1, "5\n") == (between, kept)
    assert [] == machine.directories()


async def test_machine_that_cannot_be_reached_is_an_answer(machine: FarMachine) -> None:
    """Who starts a session there has ssh's own words at once."""
    machine.go()
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(engine={"kind": "ssh", **machine.options}))
        with pytest.raises(ApiError, match=r"ssh to far cannot reach it: .*Connection refused"):
            with trio.fail_after(60):
                await client.call("POST", session_path("s", "start"))
