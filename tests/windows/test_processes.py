"""Kernels' processes on Windows: nothing escapes its job, nothing is inherited by accident, and ends are told."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

if sys.platform != "win32":
    pytest.skip("Windows only: `nox -s windows` runs it under Wine", allow_module_level=True)

from kallichore.cli.kcserver import _obey_signals
from kallichore.kernel.leftovers import clear_leftovers, hold_lock
from kallichore.kernel.process import KernelProcess, open_kernel_process
from kallichore.kernel.windows import Handles
from kernels import wait_ended

LIMIT = 90
"""Seconds after which a test has failed; a process takes one to three to start under Wine."""

LAUNCHER = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])
"""
"""Starts the real program at once, as a virtual environment's python.exe does, and ends."""


async def launch(code: str, *arguments: str, handles: tuple[int, ...] = ()) -> KernelProcess:
    """Start a Python program as a kernel."""
    return await open_kernel_process([sys.executable, "-S", "-c", code, *arguments], os.environ, None, handles)


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Return all that comes out of a stream."""
    return b"".join([bytes(data) async for data in stream])


async def test_what_a_kernel_starts_at_once_ends_with_it() -> None:
    """Ten launchers start something at their first moment; none of these outlives its launcher's job."""
    pids: list[int] = []

    async def run_one() -> None:
        process = await launch(LAUNCHER)
        pids.append(int(await process.stdout.receive_some()))
        await process.wait()
        await read_to_end(process.stdout)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(run_one)
        for pid in pids:
            await wait_ended(pid)

    assert len(set(pids)) == 10


async def test_end_of_output_does_not_wait_for_a_neighbour() -> None:
    """Of kernels that start at the same time, none holds the end of another's output open."""
    processes: list[KernelProcess] = []

    async def start(seconds: str) -> None:
        processes.append(await launch("import sys, time; time.sleep(float(sys.argv[1]))", seconds))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(start, "0" if number % 2 else "600")
        short = [process for process in processes if "0" == process._process.args[-1]]
        for process in short:
            await process.wait()
            assert await read_to_end(process.stdout) == b""
        for process in processes:
            if process not in short:
                process.kill()
                await process.wait()


async def test_kernel_inherits_its_handles_and_no_other() -> None:
    """A handle that can be inherited reaches the kernel that it is meant for; a neighbour's is not there."""
    look = (
        "import ctypes, sys; event = ctypes.WinDLL('kernel32').SetEvent; "
        "event.argtypes = [ctypes.c_void_p]; print([event(int(handle)) for handle in sys.argv[1:]])"
    )
    own, others = Handles(True), Handles(True)
    with trio.fail_after(LIMIT):
        process = await launch(look, str(own.handles[1]), str(others.handles[1]), handles=own.handles)
        output = await read_to_end(process.stdout)
        await process.wait()
    own.close()
    others.close()

    assert b"[1, 0]" == output.strip()


async def test_batch_file_is_given_its_arguments_as_they_are(tmp_path: Path) -> None:
    """What cmd.exe would take for its own among them included; what it starts has the kernel's handles, and ends with
    it.
    """
    show = tmp_path / "show.py"
    show.write_text(
        "import ctypes, json, sys; event = ctypes.WinDLL('kernel32').SetEvent; event.argtypes = [ctypes.c_void_p]\n"
        "print(json.dumps([event(int(sys.argv[1])), sys.argv[2:]]))"
    )
    batch = tmp_path / "a & b.bat"
    batch.write_text(f'@"{sys.executable}" -S "{show}" %*\n')
    odd = ["two words", "a&b", "c|d", "^<>()!", 'quo"te', "", "C:\\trailing\\", "a,b;c=d"]
    own = Handles(True)
    with trio.fail_after(LIMIT):
        argv = [str(batch), str(own.handles[1]), *odd]
        process = await open_kernel_process(argv, os.environ, None, own.handles)
        output = await read_to_end(process.stdout)
        ending = await process.wait()
    own.close()

    assert [1, odd] == json.loads(output)
    assert 0 == ending.code


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        (3, 3, "exited with code 3"),
        (0xC0000005, -1073741819, "crashed with code 0xC0000005 (access violation)"),
        (0xFFFFFFFF, -1, "exited with code -1"),
    ],
)
async def test_exit_codes_are_signed_and_crashes_have_words(code: int, told: int, words: str) -> None:
    """What clients read is a signed number of 32 bits."""
    with trio.fail_after(LIMIT):
        process = await launch(f"import ctypes; ctypes.WinDLL('kernel32').ExitProcess({code})")
        ending = await process.wait()

    assert (told, words) == (ending.code, ending.describe())


async def test_break_ends_the_server_in_order() -> None:
    """Ctrl-Break, which is also what a console that closes sends, is a request to end like Ctrl-C."""
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_obey_signals, [], nursery.cancel_scope))
            await trio.testing.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGBREAK)
            await trio.sleep_forever()

    assert nursery.cancel_scope.cancelled_caught


def test_directory_of_a_living_server_stays_and_others_go(tmp_path: Path) -> None:
    """Nobody removes the lock that a server holds open; one that was left is no lock."""
    living, gone, unknown = (tmp_path / f"kc-{number}-abc" for number in (1, 2, 3))
    for directory in (living, gone, unknown):
        directory.mkdir()
    with hold_lock(gone):
        pass
    (gone / "s.json").write_text("{}")
    with hold_lock(living):
        clear_leftovers(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir())

    assert ["kc-1-abc", "kc-3-abc"] == left
