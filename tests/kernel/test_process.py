"""A kernel's process: what it is given, how its end is told, and that nothing of its group or of us is left."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from conftest import open_descriptors
from kallichore.config import ServerConfig
from kallichore.errors import ProcessNotFoundError
from kallichore.kernel.ending import Ending
from kallichore.kernel.process import SPARE_DESCRIPTORS, KernelProcess, count_memory_kills, open_kernel_process
from kallichore.server import open_server
from kernels import scripted

pytestmark = pytest.mark.posix_only("process groups and signals")

PATIENCE = 10
"""Seconds after which a test has failed; what it waits for takes milliseconds."""


async def launch(script: str) -> KernelProcess:
    """Launch a shell script as a kernel."""
    return await open_kernel_process(["/bin/sh", "-c", script], dict(os.environ), None)


async def read_line(stream: trio.abc.ReceiveStream) -> str:
    """Return the first line that arrives."""
    line = b""
    while not line.endswith(b"\n"):
        data = await stream.receive_some(1)
        assert data, f"the stream ended after {line!r}"
        line += data
    return line.decode().strip()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Return everything up to the end of the stream."""
    return b"".join([bytes(data) async for data in stream])


def our_children() -> set[int]:
    """Return this process's children, zombies included."""
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                children.add(int(stat.parent.name))
    return children


def our_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("code", [0, 1, 3, 255])
async def test_exit_code_is_reported_as_it_is(code: int) -> None:
    """A kernel that exits is reported with its code and no signal."""
    with trio.fail_after(PATIENCE):
        process = await launch(f"exit {code}")
        await process.wait()

    assert Ending(process.pid, code) == process.ending
    assert str(code) in process.ending.describe()


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
async def test_death_by_signal_is_minus_one_and_names_the_signal(name: str) -> None:
    """A kernel that a signal ends is reported with -1 and the signal's name."""
    with trio.fail_after(PATIENCE):
        process = await launch(f"kill -{name[3:]} $$")
        await process.wait()

    assert process.ending is not None
    assert (-1, name) == (process.ending.code, process.ending.signal)
    assert name in process.ending.describe()


async def test_program_that_does_not_exist_raises_and_leaves_nothing() -> None:
    """A launch that fails raises OSError with its number, and keeps no descriptor and no process."""
    children, descriptors = our_children(), our_descriptors()

    with pytest.raises(FileNotFoundError):
        await open_kernel_process(["/nowhere/kernel"], {}, None)

    assert (children, descriptors) == (our_children(), our_descriptors())


async def test_kernel_gets_exactly_the_environment_and_directory(tmp_path: Path) -> None:
    """A kernel sees the given environment and directory, and nothing of the server's."""
    with trio.fail_after(PATIENCE):
        process = await open_kernel_process(["/usr/bin/env"], {"GREETING": "chairé"}, None)
        environment = await read_to_end(process.stdout)
        await process.wait()
        located = await open_kernel_process(["/bin/pwd"], {}, str(tmp_path))
        directory = await read_to_end(located.stdout)
        await located.wait()

    assert environment == "GREETING=chairé\n".encode()
    assert directory.decode().strip() == str(tmp_path.resolve())


async def test_kernel_reads_nothing_from_the_server() -> None:
    """A kernel's standard input is at its end from the start."""
    with trio.fail_after(PATIENCE):
        process = await launch("cat; echo end >&2")
        errors = await read_line(process.stderr)
        await process.wait()

    assert errors == "end"


@pytest.mark.parametrize("terminal", [False, True])
async def test_kernel_leads_a_group_and_has_no_terminal(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal's Ctrl-C does not reach a kernel; it is in our session, unless that has a terminal to be kept from."""
    monkeypatch.setattr("kallichore.kernel.process.has_controlling_terminal", lambda: terminal)
    with trio.fail_after(PATIENCE):
        process = await launch("echo ready; exec sleep 60")
        await read_line(process.stdout)
        found = os.getsid(process.pid), os.getpgid(process.pid)
        process.kill()
        await process.wait()

    assert (process.pid if terminal else os.getsid(0), process.pid) == found


async def test_signal_reaches_the_whole_group() -> None:
    """An interrupt reaches the kernel behind a shell that stays its parent."""
    child = "import signal, sys; signal.signal(2, lambda *_: sys.exit(7)); print('ready', flush=True); signal.pause()"
    with trio.fail_after(PATIENCE):
        process = await launch(f'trap : INT; "{sys.executable}" -c "{child}"; exit $?')
        await read_line(process.stdout)
        process.send_signal_to_group(signal.SIGINT)
        await process.wait()

    assert Ending(process.pid, 7) == process.ending


@pytest.mark.parametrize("killed", [False, True], ids=["ends by itself", "is killed"])
async def test_grandchildren_end_with_the_kernel(killed: bool) -> None:
    """What a kernel has started ends with it, whether it is killed or ends by itself."""
    with trio.fail_after(PATIENCE):
        process = await launch("sleep 600 & echo ready; " + ("wait" if killed else "exit 0"))
        await read_line(process.stdout)
        if killed:
            process.kill()
        await process.wait()
        # The sleeper has the pipe too: it ends when the sleeper is gone, and only then.
        rest = await read_to_end(process.stdout)

    assert rest == b""
    assert process.ending is not None
    assert (-1 if killed else 0) == process.ending.code


async def test_grandchildren_that_ignore_signals_end_too() -> None:
    """A worker that ignores every request to end does not outlive its kernel."""
    with trio.fail_after(PATIENCE):
        process = await launch("(trap '' INT TERM HUP; echo ready; while :; do sleep 600; done) & read x; exit 4")
        await read_line(process.stdout)
        await process.wait()
        rest = await read_to_end(process.stdout)

    assert rest == b""


async def test_signal_after_the_end_is_refused() -> None:
    """A kernel that was reaped is not signalled: its number may be somebody else's by now."""
    with trio.fail_after(PATIENCE):
        process = await launch("exit 0")
        await process.wait()

    with pytest.raises(ProcessLookupError):
        process.send_signal_to_group(signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        process.kill()


async def test_cancelled_wait_leaves_the_kernel_alone() -> None:
    """Cancelling a wait changes nothing: the kernel runs on and can be waited for again."""
    with trio.fail_after(PATIENCE):
        process = await launch("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        await read_line(process.stdout)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(process.wait)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        os.kill(process.pid, 0)
        running = process.ending
        process.send_signal_to_group(signal.SIGTERM)
        await process.wait()

    assert running is None
    assert Ending(process.pid, 5) == process.ending


async def test_wait_that_is_cancelled_at_the_very_end_can_be_repeated() -> None:
    """A wait that is cancelled while a dead kernel is being reaped loses nothing: the next one tells the ending."""
    with trio.fail_after(PATIENCE):
        process = await launch("exit 6")
        await read_to_end(process.stdout)
        with trio.CancelScope() as scope:
            scope.cancel()
            await process.wait()
        await process.wait()

    assert Ending(process.pid, 6) == process.ending


async def test_any_number_of_tasks_may_wait() -> None:
    """Everybody who waits for a kernel learns of its end."""
    told = []

    async def wait_and_tell(process: KernelProcess) -> None:
        await process.wait()
        told.append(process.ending)

    with trio.fail_after(PATIENCE):
        process = await launch("echo ready; exec sleep 600")
        await read_line(process.stdout)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait_and_tell, process)
            await trio.testing.wait_all_tasks_blocked()
            process.kill()

    assert [Ending(process.pid, -1, "SIGKILL")] * 3 == told


@pytest.mark.skipif(sys.platform != "linux", reason="children are found through /proc")
@pytest.mark.parametrize("checkpoints", range(8))
async def test_cancelled_launch_leaks_no_process(checkpoints: int) -> None:
    """A launch that is cancelled at any point gives its process to the caller, or leaves none."""
    before = our_children()
    launched = []

    async def cancel_later(scope: trio.CancelScope) -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_later, scope)
                launched.append(await launch("exec sleep 600"))
        found = our_children() - before
        for process in launched:
            process.kill()
            await process.wait()

    assert {process.pid for process in launched} == found
    assert before == our_children()


async def test_kernels_leave_no_descriptors() -> None:
    """Whoever closes the two pipes and waits has nothing left of a kernel, waits that were cancelled included."""
    with trio.fail_after(PATIENCE):
        await (await launch("exit 0")).wait()
        before = our_descriptors()
        for _ in range(5):
            process = await launch("exec sleep 600")
            with trio.move_on_after(0):
                await process.wait()
            process.kill()
            async with process.stdout, process.stderr:
                await process.wait()

    assert before == our_descriptors()


@pytest.mark.skipif(sys.platform != "linux", reason="process descriptors are Linux's")
async def test_end_is_noticed_without_a_free_descriptor() -> None:
    """A server that has run out of descriptors still notices that a kernel ended, and reaps it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    process = await launch("echo ready; exec sleep 600")
    try:
        with trio.fail_after(PATIENCE):
            await read_line(process.stdout)
            # No number below the limit is free: open() and its kind fail, those that are open stay.
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            process.kill()
            await process.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if process.ending is None:
            await process.wait()

    assert Ending(process.pid, -1, "SIGKILL") == process.ending


@pytest.mark.parametrize(
    ("counter", "is_unified"),
    [("groups/a/b/memory.events", True), ("groups/memory/c/memory.oom_control", False), ("proc/vmstat", False)],
)
async def test_kill_while_a_count_of_memory_kills_rose_was_for_memory(
    counter: str, is_unified: bool, tmp_path: Path
) -> None:
    """SIGKILL from outside is laid to memory if our control group counted a kill for it meanwhile, or the machine where
    the group does not count.
    """
    proc, file = tmp_path / "proc", tmp_path / counter
    for directory in (proc / "self", tmp_path / "groups", file.parent):
        directory.mkdir(parents=True, exist_ok=True)
    if is_unified:
        (tmp_path / "groups" / "cgroup.controllers").write_text("memory")
    (proc / "self" / "cgroup").write_text("4:memory:/c\n0::/a/b\n")
    (proc / "vmstat").write_text("nr_free_pages 3\noom_kill 2\n")
    file.write_text("low 0\noom 4\noom_kill 1\noom_group_kill 0\n")

    async def die(*, of_memory: bool) -> Ending:
        launched = await launch("echo ready; exec sleep 600")
        process = KernelProcess(
            launched._process, count_memory_kills=lambda: count_memory_kills(proc, tmp_path / "groups")
        )
        await read_line(process.stdout)
        if of_memory:
            file.write_text("oom 5\noom_kill 10\n")
        os.kill(process.pid, signal.SIGKILL)
        return await process.wait()

    with trio.fail_after(PATIENCE):
        endings = [await die(of_memory=of_memory) for of_memory in (False, True, False)]

    assert [False, True, False] == [ending.out_of_memory for ending in endings]
    assert "ran out of memory" in endings[1].describe()


def test_kills_of_others_do_not_count_where_our_own_are_told(tmp_path: Path) -> None:
    """What the whole machine counts has a neighbour's kills in it: where our control group counts, only that counts."""
    for name in ("proc/self", "groups/a"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "groups" / "cgroup.controllers").write_text("memory")
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/a\n")
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 7\n")
    (tmp_path / "groups" / "a" / "memory.events").write_text("oom_kill 0\n")

    assert 0 == count_memory_kills(tmp_path / "proc", tmp_path / "groups")


def test_ending_says_when_the_machine_ran_out_of_memory() -> None:
    """An ending for lack of memory says so; another death by the same signal does not."""
    by_machine, by_somebody = Ending(1, -1, "SIGKILL", True).describe(), Ending(1, -1, "SIGKILL").describe()

    assert "memory" in by_machine
    assert "memory" not in by_somebody


async def test_last_descriptors_are_not_for_kernels() -> None:
    """With few descriptors left a start is refused, and has taken none: without them nobody could stop anything."""
    resource = pytest.importorskip("resource")
    before, opened = resource.getrlimit(resource.RLIMIT_NOFILE), open_descriptors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + SPARE_DESCRIPTORS // 2, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await launch("exit 0")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (open_descriptors(), our_children()) == (opened, set())


@pytest.fixture
def not_permitted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Forbid to signal any group, as where a kernel is another user's; return what kills one nevertheless."""
    permitted = os.killpg

    def refuse(group: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(
        "kallichore.kernel.process.describe_survivors", lambda group: f"Not permitted to end process {group} (sudo)"
    )
    return lambda group: permitted(group, signal.SIGKILL)


async def test_kernel_that_may_not_be_signalled_is_named_and_given_up(
    not_permitted: Callable[[int], None],
) -> None:
    """Behind sudo a kernel survives its kill: the error says which process it is, and nobody waits for it for ever."""
    process = await open_kernel_process(["sleep", "600"], os.environ, None)
    with pytest.raises(PermissionError, match=rf"process {process.pid} \(sudo\)"):
        process.kill()
    process.kill_or_give_up()
    with trio.fail_after(10):
        ending = await process.wait()
    not_permitted(process.pid)
    await process._process.wait()
    for stream in (process.stdout, process.stderr):
        await stream.aclose()

    assert (ending.code, ending.signal) == (-1, None)
    assert ending.survivors == f"Not permitted to end process {process.pid} (sudo)"
    assert ending.describe() == "was given up, as this server may not end it"


async def test_session_ends_though_its_kernel_may_not_be_signalled(not_permitted: Callable[[int], None]) -> None:
    """Kill says which process stays; a stop waits no longer than for any other kernel, and the report tells."""
    config = ServerConfig(token=None, shutdown_grace=0.2, terminate_grace=0.2, drain_grace=0.2)
    async with open_server(config) as server:
        session = server.create_session(scripted("s", "ignore-shutdown"))
        await session.start()
        life, pid = session.supervisor.life, session.process_id
        assert life is not None
        assert life.process is not None
        assert pid is not None
        process = life.process._process
        with pytest.raises(ProcessNotFoundError, match=rf"process {pid} \(sudo\)"):
            session.kill()
        assert session.is_running
        session.begin_stop()
        with trio.fail_after(10):
            await session.wait_ended()
        last_exit = session.conversation.last_exit
    not_permitted(pid)
    await process.wait()

    assert last_exit is not None
    assert f"Not permitted to end process {pid} (sudo)" in last_exit.text
