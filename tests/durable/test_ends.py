"""Kernels that were asked to end do end, whatever becomes of a server that would leave others."""

from __future__ import annotations

from pathlib import Path

import pytest

from kallichore.config import ServerConfig
from kallichore.server import open_server
from kernels import body, open_client, open_started, wait_ended

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")


async def test_kernel_is_not_left_in_the_middle_of_a_shutdown(private_place: Path) -> None:
    """A server that is cancelled right after a client asked for its end, with all its kernels, ends them."""
    settings = {"state_directory": private_place / "state", "shutdown_grace": 0.5}
    async with open_client(**settings) as client, open_started(client, body()):
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        await client.call("POST", "/shutdown")
    await wait_ended(pid)
    async with open_client(**settings) as client:
        session = await client.call("GET", "/sessions/s")

    assert session["status"] == "exited"


async def test_server_goes_on_with_those_sessions_that_are_named(private_place: Path) -> None:
    """Of a state directory with two, one is taken over and the other one is left as it is."""
    state = private_place / "state"
    async with open_client(state_directory=state) as client:
        await client.call("PUT", "/sessions", body("one"))
        await client.call("PUT", "/sessions", body("two"))
    async with open_server(ServerConfig(state_directory=state), only={"two"}) as server:
        names = [session.session_id for session in server.sessions]
    async with open_server(ServerConfig(state_directory=state)) as server:
        all_names = {session.session_id for session in server.sessions}

    assert names == ["two"]
    assert all_names == {"one", "two"}
