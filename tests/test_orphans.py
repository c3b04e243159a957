"""No orphans: however a server ends, its kernels and what they made are gone, also those that resist.

Of the two kernels that each server has, one ignores everything that can be ignored. Both have forked twice: the
grandchild is nobody's child any more, is deaf as well, and holds the kernel's pipes open.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import trio

import kallichore
from jupyter_requests import install_kernels
from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import open_channel
from kallichore.models.bodies import NewSession
from kallichore.transport.connection_file import read_connection_file
from kernels import REAL_TIME, body, has_ended, run_code, scripted, wait_ended

pytestmark = pytest.mark.posix_only("fork and signals")

BEHAVIOURS = {"deaf": ("ignore-shutdown", "ignore-sigterm"), "polite": ()}

ORPHAN = "orphan 600"

FAST = {"shutdown_grace": 0.5, "terminate_grace": 0.2, "resource_sample_interval_ms": 0}


async def _start(client: ApiClient, session_id: str) -> list[int]:
    """Start a kernel with an orphan and return the process ids of both."""
    await client.call("PUT", "/sessions", body(session_id, *BEHAVIOURS[session_id]))
    await client.call("POST", f"/sessions/{session_id}/start")
    async with open_channel(client.address, session_id) as channel:
        orphan = int(await run_code(channel, ORPHAN))
    return [(await client.call("GET", f"/sessions/{session_id}"))["process_id"], orphan]


async def _run_and_end(place: Path, end: Callable[[trio.Process, ApiClient], Awaitable[object]]) -> int:
    """Run kcserver with resisting kernels, end it, and see that they are gone; return its exit code."""
    place.mkdir()
    file = place / "connection.json"
    command = [sys.executable, "-m", "kallichore.cli.kcserver", "--connection-file", str(file)]
    server = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
    try:
        while not file.exists():
            assert server.poll() is None, "kcserver ended"
            await trio.sleep(0.01)
        client = ApiClient(from_connection_document(read_connection_file(file)))
        pids = [*await _start(client, "deaf"), *await _start(client, "polite")]
        assert not any(map(has_ended, pids))
        # The watchdog is one of them: it takes away the files of a server that was killed, at the very end.
        pids += [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        await end(server, client)
        code = await server.wait()
    finally:
        if server.poll() is None:
            server.kill()
            with trio.CancelScope(shield=True):
                await server.wait()
    for pid in pids:
        await wait_ended(pid)
    return code


async def test_kcserver_that_ends_takes_everything_along(private_place: Path) -> None:
    """Killed, signalled, or asked by a client: no process is left, and none of the server's files."""

    async def send(number: signal.Signals, server: trio.Process) -> None:
        server.send_signal(number)

    ways: dict[str, Callable[[trio.Process, ApiClient], Awaitable[object]]] = {
        "SIGKILL": lambda server, _: send(signal.SIGKILL, server),
        "SIGTERM": lambda server, _: send(signal.SIGTERM, server),
        "SIGHUP": lambda server, _: send(signal.SIGHUP, server),
        "shutdown": lambda _, client: client.call("POST", "/shutdown"),
    }
    codes: dict[str, int] = {}

    async def run(way: str) -> None:
        codes[way] = await _run_and_end(private_place / way, ways[way])

    # All at once: each of them waits for seconds until a deaf kernel's grace is over.
    with trio.fail_after(3 * REAL_TIME):
        async with trio.open_nursery() as nursery:
            for way in ways:
                nursery.start_soon(run, way)

    assert {"SIGKILL": -signal.SIGKILL, "SIGTERM": 0, "SIGHUP": 0, "shutdown": 0} == codes


async def _start_embedded(server: kallichore.RunningServer, session_id: str) -> list[int]:
    session = server.create_session(scripted(session_id, *BEHAVIOURS[session_id]))
    await session.start()
    async with session.execute(ORPHAN) as execution:
        texts = [message["content"]["text"] async for message in execution if "text" in message["content"]]
    assert session.process_id is not None
    return [session.process_id, int("".join(texts))]


@pytest.mark.parametrize("raises", [False, True], ids=["cancelled", "exception"])
async def test_embedded_server_that_is_left_takes_everything_along(raises: bool) -> None:
    """A program that cancels its server, and one that fails inside, have no kernels left when the block is left."""
    pids: list[int] = []

    async def use() -> None:
        async with kallichore.serve(kallichore.ServerConfig(**FAST)) as server:
            for session_id in BEHAVIOURS:
                pids.extend(await _start_embedded(server, session_id))
            assert not any(map(has_ended, pids))
            if raises:
                raise ZeroDivisionError
            scope.cancel()
            await trio.sleep_forever()

    with trio.fail_after(REAL_TIME):
        with trio.CancelScope() as scope:
            if raises:
                with pytest.raises(ZeroDivisionError):
                    await use()
            else:
                await use()
        for pid in pids:
            await wait_ended(pid)

    assert 4 == len(pids)


async def test_failure_in_the_servers_own_task_takes_everything_along() -> None:
    """A task of the server that fails, which would be our mistake, ends its kernels as well."""
    pids: list[int] = []

    async def fail() -> None:
        raise ZeroDivisionError

    with trio.fail_after(REAL_TIME), pytest.raises(ZeroDivisionError):
        async with kallichore.open_server(kallichore.ServerConfig(**FAST)) as server:
            session = server.create_session(NewSession(session_id="s", argv=scripted().argv))
            await session.start()
            assert session.process_id is not None
            pids.append(session.process_id)
            server._nursery.start_soon(fail)
            await trio.sleep_forever()
    for pid in pids:
        await wait_ended(pid)

    assert 1 == len(pids)


async def test_kernels_that_were_kept_ready_are_not_left_by_a_server_that_is_killed(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits, and one that a session took, end with a server that had no time to end them."""
    install_kernels(private_place, monkeypatch)
    file = private_place / "connection.json"
    options = ("--warm", "script=2", "--transport", "tcp", "--connection-file", str(file))
    command = [sys.executable, "-m", "kallichore.cli.kcserver", *options]
    with trio.fail_after(REAL_TIME):
        server = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
        try:
            while not file.exists():
                assert server.poll() is None, "kcserver ended"
                await trio.sleep(0.01)
            client = ApiClient(from_connection_document(read_connection_file(file)))
            ready: list[int] = []
            while len(ready) < 2:
                kernels = (await client.call("GET", "/warm"))["kernels"]
                ready = [kernel["process_id"] for kernel in kernels if kernel["status"] == "ready"]
            session = await client.call("POST", "/sessions", {"kernel": "script"})
            assert session["process_id"] in ready
            companions = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        finally:
            server.kill()
            with trio.CancelScope(shield=True):
                await server.wait()
        # The watchdog is one of them, which takes away the files.
        for pid in ready + companions:
            await wait_ended(pid)
