"""The heartbeat of a kernel on another machine: what a connection that is lost does to its status."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

import engine_here
from engine_here import World
from kallichore.engines import registry
from kallichore.session import life
from kernels import body, is_status, open_client, open_started, receive_until, session_path

pytestmark = pytest.mark.posix_only("hosts")


async def test_kernel_at_rest_that_cannot_be_reached_is_offline_until_it_can(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heartbeat stays unanswered while the connection is lost, as is told, and it is idle when that is back."""
    monkeypatch.setitem(registry.KINDS, "here", "engine_here")
    monkeypatch.setattr(life, "PAUSE_ELSEWHERE", 0.1)
    world = World(private_place)
    world.free.set()
    engine_here.WORLD.append(world)
    try:
        async with (
            open_client(heartbeat_limit=0.3, heartbeat_pause=0.1) as client,
            open_started(client, body(engine={"kind": "here"})) as channel,
        ):
            await receive_until(channel, is_status("idle"))
            world.is_reachable = False
            world.cut()
            await receive_until(channel, is_status("offline"))
            described = await client.call("GET", session_path("s"))
            world.is_reachable = True
            await receive_until(channel, is_status("idle"))

        assert "No route to host" in described["connection_lost"]["reason"]
    finally:
        engine_here.WORLD.remove(world)
        with trio.CancelScope(shield=True):
            await world.end()
