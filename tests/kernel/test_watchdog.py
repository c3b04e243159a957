"""The watchdog: what it guards ends with its server, however that ended, and nothing else does."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from kallichore.kernel.watchdog import open_watchdog

if sys.platform != "linux":
    pytest.skip("processes are looked at through /proc and pidfds", allow_module_level=True)

PATIENCE = 10
"""Seconds after which a test has failed; what it waits for takes milliseconds."""

SERVER = """
import sys, trio
from pathlib import Path
from kallichore.kernel.process import open_kernel_process
from kallichore.kernel.watchdog import open_watchdog

async def main(directory, file):
    async with open_watchdog(Path(directory)) as watchdog:
        watchdog.guard_file(Path(file))
        kernels = []
        for _ in range(3):
            argv = ["/bin/sh", "-c", "trap '' HUP INT TERM; exec sleep 600"]
            kernel = await open_kernel_process(argv, {}, None)
            watchdog.guard(kernel.pid)
            kernels.append(kernel)
        watchdog.release(kernels[1].pid)
        print(*[kernel.pid for kernel in kernels], flush=True)
        await trio.sleep_forever()

trio.run(main, *sys.argv[1:])
"""
"""Guards the first and the third of three deaf kernels, a directory and a file, and waits to be killed."""


@attrs.frozen
class Sleeper:
    """A process group of a shell and its child, which hold the other end of ``pipe``."""

    group: int
    pipe: int

    @property
    def is_running(self) -> bool:
        """Whether anybody has the pipe still."""
        try:
            return os.read(self.pipe, 1) != b""
        except BlockingIOError:
            return True

    async def wait(self) -> None:
        """Return when nobody of the group is left."""
        while self.is_running:
            await trio.lowlevel.wait_readable(self.pipe)


@contextmanager
def open_sleeper() -> Iterator[Sleeper]:
    """Run a group that ignores polite signals; kill it and reap its leader at the end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    script = "trap '' HUP INT TERM; sleep 600 & wait; wait"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=writing, start_new_session=True)
    os.close(writing)
    try:
        yield Sleeper(process.pid, reading)
    finally:
        # The leader is reaped last, so the group's number is still ours here.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(reading)


@contextmanager
def open_pidfds(pids: Iterable[int]) -> Iterator[list[int]]:
    """Hold on to processes that are not our children; kill them at the end."""
    descriptors = [os.pidfd_open(pid) for pid in pids]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


async def wait_gone(pid: int) -> None:
    """Return when a process, which need not be our child, has ended."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)


def find_companion() -> int:
    """Return the process id of the one watchdog of this process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            is_ours = int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if is_ours and b"kallichore-watchdog" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
    (companion,) = found
    return companion


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a child for the time of the block."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A server's private directory with something in it, and with a name that a shell might trip over."""
    path = tmp_path / "runtime $(touch x) 'dir'"
    (path / "below").mkdir(parents=True)
    (path / "below" / "connection.json").write_text("{}")
    return path


async def test_killed_server_takes_its_kernels_and_files_along(tmp_path: Path, directory: Path) -> None:
    """SIGKILL of a server ends the kernels it guarded and removes its files; a kernel that it released lives on."""
    file = tmp_path / "kcserver.sock"
    file.touch()
    argv = [sys.executable, "-c", SERVER, str(directory), str(file)]
    with trio.fail_after(PATIENCE):
        server = await trio.lowlevel.open_process(
            argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        assert server.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            line += await server.stdout.receive_some()
        with open_pidfds(map(int, line.split())) as (first, released, third):
            server.kill()
            await server.wait()
            await trio.lowlevel.wait_readable(first)
            await trio.lowlevel.wait_readable(third)
            # The files go last; nobody tells when a file is gone, so this has to look.
            while directory.exists() or file.exists():  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.005)
            lives_on = not select.select([released], [], [], 0)[0]
        await server.stdout.aclose()

    assert lives_on


async def test_orderly_end_leaves_nothing_either(tmp_path: Path, directory: Path) -> None:
    """Leaving the block ends what is still guarded, with its children, and removes the directory and the files."""
    file = tmp_path / "a file"
    file.touch()
    with trio.fail_after(PATIENCE), open_sleeper() as sleeper:
        async with open_watchdog(directory) as watchdog:
            watchdog.guard(sleeper.group)
            watchdog.guard_file(file)
        await sleeper.wait()

    assert (False, False) == (directory.exists(), file.exists())


async def test_released_groups_live_on(directory: Path) -> None:
    """A released group is left alone, wherever in the list it stood; what was not released ends."""
    with trio.fail_after(PATIENCE), open_sleeper() as one, open_sleeper() as two, open_sleeper() as three:
        async with open_watchdog(directory) as watchdog:
            for sleeper in (one, two, three):
                watchdog.guard(sleeper.group)
            watchdog.release(one.group)
            watchdog.release(three.group)
            watchdog.release(three.group)
        await two.wait()
        alive = one.is_running, three.is_running

    assert (True, True) == alive


async def test_release_takes_the_whole_number_only(directory: Path) -> None:
    """Releasing a group whose number is part of another's leaves the other guarded."""
    with trio.fail_after(PATIENCE), open_sleeper() as sleeper:
        async with open_watchdog(directory) as watchdog:
            watchdog.guard(sleeper.group)
            watchdog.release(int(str(sleeper.group)[:-1] or "0"))
            watchdog.release(int(str(sleeper.group)[1:] or "0"))
        await sleeper.wait()


async def test_cancelled_server_waits_for_its_watchdog(directory: Path) -> None:
    """Cancelling the block ends the watchdog in order: it has done its work and was reaped."""
    with trio.fail_after(PATIENCE), open_sleeper() as sleeper:
        with trio.CancelScope() as scope:
            async with open_watchdog(directory) as watchdog:
                companion = find_companion()
                watchdog.guard(sleeper.group)
                scope.cancel()
                await trio.sleep_forever()
        await sleeper.wait()

    assert not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(companion, 0)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
async def test_polite_signals_do_not_end_the_watchdog(directory: Path, number: signal.Signals) -> None:
    """A signal that is sent to everybody at a logout or a shutdown does not stop the watchdog from doing its work."""
    with trio.fail_after(PATIENCE), open_sleeper() as sleeper:
        async with open_watchdog(directory) as watchdog:
            companion = find_companion()
            # The shell needs a millisecond to set its traps.
            while not _ignores(companion, number):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(0.001)
            os.kill(companion, number)
            watchdog.guard(sleeper.group)
        await sleeper.wait()

    assert not directory.exists()


def _ignores(pid: int, number: signal.Signals) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    raise AssertionError("no SigIgn")


async def test_watchdog_has_a_session_of_its_own(directory: Path) -> None:
    """A terminal's signals go to the server's group, of which the watchdog is no member."""
    with trio.fail_after(PATIENCE):
        async with open_watchdog(directory):
            companion = find_companion()
            found = os.getsid(companion), os.getpgid(companion)

    assert (companion, companion) == found


async def test_lost_watchdog_is_logged_once(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server whose watchdog was killed says so once, and goes on."""
    with caplog.at_level(logging.WARNING, "kallichore"), trio.fail_after(PATIENCE):
        async with open_watchdog(directory) as watchdog:
            companion = find_companion()
            os.kill(companion, signal.SIGKILL)
            await wait_gone(companion)
            for group in (2**30, 2**30 + 1):
                watchdog.guard(group)
                watchdog.release(group)

    assert [record for record in caplog.records if "watchdog" in record.message.lower()] == caplog.records
    assert len(caplog.records) == 1


async def test_watchdog_that_does_not_read_costs_no_kernel(directory: Path) -> None:
    """A pipe that is full, the watchdog standing still, is not closed: that would end a living server's kernels."""
    with trio.fail_after(PATIENCE), open_sleeper() as sleeper:
        async with open_watchdog(directory) as watchdog:
            companion = find_companion()
            watchdog.guard(sleeper.group)
            with stopped(companion):
                # More than a pipe holds, in pairs that cancel each other out.
                for group in range(2**30, 2**30 + 10_000):
                    watchdog.guard(group)
                    watchdog.release(group)
                was_closed = _has_no_writer(f"/proc/{companion}/fd/0")
        await sleeper.wait()

    assert not was_closed


def _has_no_writer(pipe: str) -> bool:
    """Return whether the pipe's other end is closed, however much there is still to read."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return any(events & select.POLLHUP for _, events in poll.poll(0))
    finally:
        os.close(descriptor)


async def test_kernels_do_not_hold_the_pipe(directory: Path) -> None:
    """A child of the server does not keep the watchdog from noticing the server's end."""
    with trio.fail_after(PATIENCE):
        async with open_watchdog(directory):
            companion = find_companion()
            with open_sleeper() as sleeper:
                pipe = os.readlink(f"/proc/{companion}/fd/0")
                descriptors = f"/proc/{sleeper.group}/fd"
                held = [os.readlink(f"{descriptors}/{number}") for number in os.listdir(descriptors)]

    assert pipe.startswith("pipe:")
    assert pipe not in held


async def test_watchdogs_leave_no_descriptors(directory: Path) -> None:
    """A watchdog that has ended has left no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))
    with trio.fail_after(PATIENCE):
        for _ in range(3):
            async with open_watchdog(directory):
                pass

    assert before == len(os.listdir("/proc/self/fd"))


async def test_file_is_removed_whatever_its_name(tmp_path: Path, directory: Path) -> None:
    """A guarded file is removed, and no other: spaces at the end, backslashes, dashes, bytes that are no UTF-8."""
    names = ["two  spaces ", "back\\slash", "-rf", "$HOME *", os.fsdecode(b"latin \xe9")]
    files = [tmp_path / name for name in names]
    other = tmp_path / "two  spaces"
    for file in (*files, other):
        file.touch()
    with trio.fail_after(PATIENCE):
        async with open_watchdog(directory) as watchdog:
            for file in files:
                watchdog.guard_file(file)

    assert [False] * len(files) == [file.exists() for file in files]
    assert other.exists()
