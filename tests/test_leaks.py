"""Nothing is left: thirty real kernels at once, and cancellation at every point of a session's life."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from conftest import open_descriptors
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kallichore.models.bodies import NewSession, RestartSession
from kallichore.server import open_server
from kernels import bash_kernel_argv, ipykernel_argv, scripted, wait_ended


async def _use(server: Any, number: int, results: dict[int, str]) -> None:
    """Start a kernel, run code in it, restart every third, and end it."""
    argv, code = (
        (ipykernel_argv(), f"print({number} * 2)") if number % 3 else (bash_kernel_argv(), f"echo $(({number}*2))")
    )
    session = server.create_session(NewSession(session_id=f"k{number}", argv=argv, connection_timeout=120))
    await session.start()
    async with session.execute(code) as execution:
        text = [message["content"]["text"] async for message in execution if message["header"]["msg_type"] == "stream"]
    results[number] = "".join(text).strip()


@pytest.mark.filterwarnings("default::ResourceWarning")
async def test_thirty_real_kernels_at_once_leave_nothing(private_place: Path) -> None:
    """Thirty Python and bash kernels start at once, run code and end; no process, file, socket or descriptor is
    left.
    """
    before = open_descriptors()
    results: dict[int, str] = {}
    with trio.fail_after(240):
        async with serve(ServerConfig(transport="socket", resource_sample_interval_ms=0)) as server:
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(_use, server, number, results)
            pids = [session.process_id for session in server.sessions]

    assert results == {number: str(number * 2) for number in range(30)}
    assert [pid for pid in pids if pid is None or psutil.pid_exists(pid)] == []
    assert [path for path in private_place.iterdir() if path.name.startswith("kc-")] == []
    assert open_descriptors() <= before + 2


STEPS = 25
"""Moments at which an operation is cancelled, spread over the time that it takes when it is not."""


async def _measure(act: Any) -> float:
    began = trio.current_time()
    async with open_server(FAST) as server:
        await act(server)
    return trio.current_time() - began


FAST = ServerConfig(token=None, shutdown_grace=2, terminate_grace=1, resource_sample_interval_ms=0)


async def _start(server: Any) -> None:
    await server.create_session(scripted("s")).start()


async def _start_registering(server: Any) -> None:
    await server.create_session(scripted("s", protocol_version="5.5")).start()


async def _start_in_a_shell(server: Any) -> None:
    request = scripted("s", startup_environment="command", startup_environment_arg="export X=1")
    await server.create_session(request).start()


async def _restart(server: Any) -> None:
    session = server.create_session(scripted("s"))
    await session.start()
    await session.restart(RestartSession())


async def _execute(server: Any) -> None:
    session = server.create_session(scripted("s"))
    await session.start()
    async with session.execute("sleep 0.05\nprint done") as execution:
        async for _ in execution:
            pass


@pytest.mark.parametrize("act", [_start, _start_registering, _start_in_a_shell, _restart, _execute])
async def test_cancelling_anywhere_leaves_nothing(act: Any, private_place: Path) -> None:
    """Wherever a start, restart, execution or end is cancelled: no process, file, socket or descriptor is left."""
    whole = await _measure(act)
    before = open_descriptors()
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for step in range(STEPS):
        with trio.move_on_after(whole * step / STEPS):
            async with open_server(FAST) as server:
                await act(server)
        left = {child.pid for child in psutil.Process().children(recursive=True)} - children
        assert (step, left) == (step, set())
        assert [path.name for path in private_place.iterdir() if path.name.startswith("kc-")] == []
    assert open_descriptors() <= before + 2


async def test_cancelling_every_checkpoint_of_a_launch_leaves_nothing(private_place: Path) -> None:
    """Cancelled at each of the first checkpoints of the server and a start, nothing is left either."""
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for checkpoints in range(0, 60, 3):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                async with open_server(FAST) as server:
                    await _start(server)

            nursery.start_soon(run)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        left = {child.pid for child in psutil.Process().children(recursive=True)} - children
        assert (checkpoints, left) == (checkpoints, set())


async def test_server_killed_outright_takes_its_kernels_along(private_place: Path) -> None:
    """After SIGKILL of the server, its kernel, the kernel's grandchild and the server's files are gone."""
    script = (
        "import sys, trio, kallichore\n"
        "from kernels import scripted\n"
        "async def main():\n"
        "    async with kallichore.open_server() as server:\n"
        "        session = server.create_session(scripted('s'))\n"
        "        await session.start()\n"
        "        async with session.execute('spawn 600') as execution:\n"
        "            async for message in execution:\n"
        "                if message['header']['msg_type'] == 'stream':\n"
        "                    print(f'{session.process_id} {message[\"content\"][\"text\"]}', end='', flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    )
    assert process.stdout is not None
    async with process.stdout:
        with trio.fail_after(30):
            kernel, grandchild = map(int, (await process.stdout.receive_some()).split())
    watchdogs = psutil.Process(process.pid).children()
    process.kill()
    await process.wait()
    await wait_ended(kernel)
    await wait_ended(grandchild)
    for watchdog in watchdogs:
        await wait_ended(watchdog.pid)

    assert [path.name for path in private_place.iterdir() if path.name.startswith("kc-")] == []
