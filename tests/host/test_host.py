"""The program beside a kernel: how the kernel ends is told, everything ends with it, and strangers disturb nobody."""

from __future__ import annotations

import ast
import errno
import os
import random
import shutil
import signal
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest
import trio

from hosts import (
    CONTROL,
    IOPUB,
    PATIENCE,
    PLAIN_KERNEL,
    SECRET,
    SHELL,
    STDERR,
    STDOUT,
    Hosted,
    connect_all,
    open_host,
    read,
    read_line,
    read_to_end,
    tell,
    wait,
    wait_gone,
)
from kallichore.engines.host_link import HostLink
from kallichore.engines.local import HOST_LOG, start_host
from kallichore.host import HOST_PROGRAM
from kallichore.wire.host_frames import HEAD, SIGNALS, HostEnding, Kind, encode_attach, head
from plain_kernel import lines

if sys.platform != "linux":
    pytest.skip("processes are looked at through pidfds", allow_module_level=True)

SHELL_PROGRAM = "/bin/sh"


async def ended(link: HostLink) -> HostEnding:
    """Wait until the kernel's process has ended, and return how."""
    with trio.fail_after(PATIENCE):
        await link.ended.wait()
    assert link.ending is not None
    return link.ending


def run(script: str) -> list[str]:
    """Return the arguments of a kernel that is a shell script."""
    return [SHELL_PROGRAM, "-c", script]


def guardian_of(host: Hosted) -> int:
    """Return the process that ends a host's kernel when the host is gone."""
    children = psutil.Process(host.pid).children()
    return next(child.pid for child in children if child.cmdline()[-1] == str(HOST_PROGRAM))


def test_program_runs_on_python_3_8() -> None:
    """The program has the syntax of Python 3.8, which machines far away may have."""
    assert ast.parse(HOST_PROGRAM.read_text(), feature_version=(3, 8))


async def test_files_are_private_and_tell_no_secret(private_place: Path) -> None:
    """The session's directory has a socket and a log that only the owner may use, and the secret is in neither."""
    async with open_host(private_place / "s") as host:
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in host.directory.iterdir()}
        told = b"".join(Path(f"/proc/{host.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))

    assert {"host.sock": 0o600, HOST_LOG: 0o600} == modes
    assert SECRET.hex().encode() not in told


async def test_kernel_leads_a_group_of_its_own_and_reads_nothing(private_place: Path) -> None:
    """The kernel has its own process group, an empty input, the usual signals, and the directory that was asked for."""
    script = "cat; pwd; grep Sig /proc/self/status; exec sleep 600"
    async with open_host(private_place / "s", run(script), working_directory="/") as host, host.link() as link:
        directory = await read_line(link, STDOUT)
        signals = dict([(await read_line(link, STDOUT)).split(b":\t") for _ in range(5)])
        pid = link.hello.pid
        assert pid is not None
        group = os.getpgid(pid)

    assert (b"/", pid) == (directory, group)
    assert group != os.getpgid(0)
    assert 0 == int(signals[b"SigIgn"], 16) | int(signals[b"SigBlk"], 16)


async def test_kernel_starts_in_the_hosts_directory_by_default(private_place: Path) -> None:
    """Without a directory of its own a kernel starts where its host is."""
    async with open_host(private_place / "s", run("pwd")) as host, host.link() as link:
        assert str(host.directory.resolve()).encode() == await read_line(link, STDOUT)


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ("exit 0", HostEnding(code=0)),
        ("exit 3", HostEnding(code=3)),
        ("kill -SEGV $$", HostEnding(signal=signal.SIGSEGV)),
        ("kill -KILL $$", HostEnding(signal=signal.SIGKILL)),
    ],
)
async def test_end_is_told_with_code_or_signal_and_all_output(
    private_place: Path, script: str, ending: HostEnding
) -> None:
    """How a kernel ended is told, and what it printed is had to the end, also by a server that comes later."""
    async with open_host(private_place / "s", run(f"seq 50000; echo why >&2; {script}")) as host:
        async with host.link() as link:
            assert ending.code == (await ended(link)).code
            assert await read_to_end(link, STDERR) == b"why\n"
        async with host.link() as link:
            told = await ended(link)
            printed = await read_to_end(link, STDOUT)

    assert (ending.code, ending.signal, False) == (told.code, told.signal, told.memory_kill)
    assert "".join(f"{number}\n" for number in range(1, 50001)).encode() == printed


async def test_peak_memory_is_told(private_place: Path) -> None:
    """With the end comes the most memory that the kernel had."""
    argv = [sys.executable, "-S", "-c", "x = b'x' * (100 << 20)"]
    async with open_host(private_place / "s", argv) as host, host.link() as link:
        peak = (await ended(link)).peak_kib

    assert peak is not None
    assert 100 << 10 < peak < 200 << 10


@pytest.mark.parametrize(
    ("argv", "directory", "number", "name"),
    [
        (["/nowhere/kernel"], None, errno.ENOENT, "/nowhere/kernel"),
        (["no-such-program"], None, errno.ENOENT, "no-such-program"),
        (["/bin/true"], "/nowhere", errno.ENOENT, "/nowhere"),
        (["/"], None, errno.EACCES, "/"),
        (["/bin/echo", "a\0b"], None, errno.EINVAL, "/bin/echo"),
    ],
)
async def test_kernel_that_cannot_be_started_is_told_with_the_reason(
    private_place: Path, argv: list[str], directory: str | None, number: int, name: str
) -> None:
    """Which program or directory it is about, and the system's number, are told to whoever attaches, every time."""
    async with open_host(private_place / "s", argv, working_directory=directory) as host:
        for _ in range(2):
            async with host.link() as link:
                hello = link.hello

            assert hello.failed is not None
            assert (None, None, number, name) == (hello.pid, hello.ended, hello.failed.errno, hello.failed.filename)
            assert hello.failed.message


async def test_end_is_kept_for_the_next_server(private_place: Path) -> None:
    """A kernel that ends while no server is there is told of to the one that comes."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            pid = link.hello.pid
            position = link.channels[STDOUT].position
            tell(link, "print 10 10")
            tell(link, "exit 7")
        assert pid is not None
        await wait_gone(pid)
        async with host.link({STDOUT: position}) as link:
            assert (7, None) == ((await ended(link)).code, link.hello.failed)
            printed = await read_to_end(link, STDOUT)

    assert lines(10, 10) == printed


async def test_released_host_leaves_nothing(private_place: Path) -> None:
    """A host whose end was taken down goes, with its socket, its log and its guardian."""
    async with open_host(private_place / "s", run("exit 3")) as host:
        guardian = guardian_of(host)
        async with host.link() as link:
            await ended(link)
            link.release()
            with trio.fail_after(PATIENCE):
                await link.lost.wait()
        await wait_gone(host.pid)

        assert [] == list(host.directory.iterdir())
        assert not psutil.pid_exists(guardian)


async def test_last_word_of_a_server_is_heard_though_it_has_hung_up(private_place: Path) -> None:
    """A host that has just something to say to a server that is gone takes what that said before."""
    go, done = private_place / "go", private_place / "done"
    script = f"until [ -e {go} ]; do sleep 0.01; done; echo said; touch {done}; exec sleep 600"
    async with open_host(private_place / "s", run(script)) as host:
        process = psutil.Process(host.pid)
        try:
            async with host.link() as link:
                process.suspend()
                go.touch()
                with trio.fail_after(PATIENCE):
                    while not done.exists():  # noqa: ASYNC110  # a file that a shell makes
                        await trio.sleep(0.01)
                link.release()
                link.flush()
        finally:
            process.resume()
        await wait_gone(host.pid)


async def test_host_that_is_released_early_kills_its_kernel(private_place: Path) -> None:
    """A host that is let go while its kernel lives takes the kernel along, with all of its group."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        worker = await start_worker(link)
        link.release()
        await wait_gone(host.pid)
        await wait_gone(worker)
        assert link.hello.pid is not None
        await wait_gone(link.hello.pid)


async def test_host_whose_directory_is_gone_can_still_be_released(private_place: Path) -> None:
    """Whoever removes a session's directory too early does not keep its processes alive by that."""
    async with open_host(private_place / "s", run("exec sleep 600")) as host, host.link() as link:
        kernel = link.hello.pid
        assert kernel is not None
        shutil.rmtree(host.directory)
        link.release()
        await wait_gone(host.pid)

        assert not psutil.pid_exists(kernel)


async def start_worker(link: HostLink) -> int:
    """Have a plain kernel start a process that is deaf to signals, and return its id."""
    tell(link, "worker")
    return int(await read_line(link, STDOUT))


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("first", ["host", "guardian"])
async def test_killed_host_takes_the_kernels_group_along(private_place: Path, attached: bool, first: str) -> None:
    """kill -9 of a host ends its kernel and what that has started, with a server there and without; and also after its
    guardian was killed before: it gets another.
    """
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            worker = await start_worker(link)
            kernel = link.hello.pid
            assert kernel is not None
            if first == "guardian":
                guardian = guardian_of(host)
                os.kill(guardian, signal.SIGKILL)
                with trio.fail_after(PATIENCE):
                    while psutil.pid_exists(guardian) or len(psutil.Process(host.pid).children()) < 2:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                # The new one is told of the group before the host does anything else.
                link.send(SHELL, b"x")
                await read(link, SHELL, 1)
            if attached:
                os.kill(host.pid, signal.SIGKILL)
                await wait_gone(kernel)
        if not attached:
            os.kill(host.pid, signal.SIGKILL)
        await wait_gone(kernel)
        await wait_gone(worker)


async def test_guardian_and_host_killed_at_once_take_the_kernel_along(private_place: Path) -> None:
    """If nobody is left to kill the group, the system kills at least the kernel."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            kernel = link.hello.pid
        assert kernel is not None
        guardian = guardian_of(host)
        os.kill(host.pid, signal.SIGSTOP)
        os.kill(guardian, signal.SIGKILL)
        os.kill(host.pid, signal.SIGKILL)
        await wait_gone(kernel)


async def test_end_of_the_kernel_ends_its_workers(private_place: Path) -> None:
    """What a kernel leaves behind in its group is killed."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        worker = await start_worker(link)
        tell(link, "exit 0")
        await ended(link)
        await wait_gone(worker)


async def test_signals_reach_the_whole_group(private_place: Path) -> None:
    """A signal that a server sends reaches the kernel and what it started; a number that is none reaches nobody."""
    worker = "sh -c 'trap \"echo worker\" USR1; echo on; while :; do sleep 0.05; done'"
    script = f"{worker} & trap 'echo kernel' USR1; wait; wait"
    async with open_host(private_place / "s", run(script)) as host, host.link() as link:
        await read_line(link, STDOUT)
        link.signal(12345)
        link.signal(signal.SIGUSR1)
        heard = {await read_line(link, STDOUT), await read_line(link, STDOUT)}

    assert {b"worker", b"kernel"} == heard


@pytest.mark.parametrize(("deaf", "number"), [(False, signal.SIGTERM), (True, signal.SIGKILL)])
async def test_host_that_is_told_to_end_ends_its_kernel_and_waits(
    private_place: Path, deaf: bool, number: signal.Signals
) -> None:
    """SIGTERM to the host ends the kernel, in two seconds by force, and the end is still told to a server."""
    script = f"{'trap : TERM; ' if deaf else ''}echo on; while :; do sleep 0.05; done"
    async with open_host(private_place / "s", run(script)) as host:
        async with host.link() as link:
            await read_line(link, STDOUT)
        os.kill(host.pid, signal.SIGTERM)
        async with host.link() as link:
            assert number == (await ended(link)).signal


async def test_host_without_a_server_gives_up_in_the_end(private_place: Path) -> None:
    """A host to which no server comes ends its kernel, and goes with its socket; while one is there it waits."""
    async with open_host(private_place / "s", run("echo on; exec sleep 600"), abandon_after=0.3) as host:
        async with host.link() as link:
            await read_line(link, STDOUT)
            with trio.move_on_after(0.6) as patience:
                await link.lost.wait()
            kernel = link.hello.pid
        assert patience.cancelled_caught
        assert kernel is not None
        await wait_gone(kernel)
        await wait_gone(host.pid)

        assert [] == list(host.directory.iterdir())


async def test_what_is_kept_has_a_limit_beyond_which_a_kernel_can_still_be_talked_to(private_place: Path) -> None:
    """Beyond its limit a host stops reading iopub and output, and goes on when some of it was confirmed; meanwhile
    control is answered.
    """
    flood, limit = lines(200_000, 100), 1 << 20
    async with open_host(private_place / "s", keep_limit=limit) as host, host.link() as link:
        await connect_all(link)
        tell(link, "flood 200000 100")
        iopub = link.channels[IOPUB]
        with trio.fail_after(PATIENCE):
            while iopub.position < limit // 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        tell(link, "flood-output 10000 100")
        tell(link, "say there")
        assert b"there" == await read_line(link, CONTROL)
        kept = iopub.position
        data = await read(link, IOPUB, len(flood))
        printed = await read(link, STDOUT, 1_000_000)

    assert kept < limit + (1 << 17)
    assert flood == data
    assert lines(10_000, 100) == printed


async def test_limit_holds_without_a_server_too(private_place: Path) -> None:
    """What a kernel sends while no server is there is kept up to the limit, and the rest comes from the kernel then."""
    flood, limit = lines(200_000, 100), 1 << 20
    async with open_host(private_place / "s", keep_limit=limit) as host:
        async with host.link() as link:
            await connect_all(link)
            tell(link, "flood 200000 100")
            await wait(link, IOPUB)
        with trio.fail_after(PATIENCE):
            while True:
                async with host.link() as link:
                    kept = link.hello.channels[IOPUB].end
                if kept > limit // 2:
                    break
        async with host.link() as link:
            data = await read(link, IOPUB, len(flood))

    assert kept < limit + (1 << 17)
    assert flood == data


async def test_long_paths_are_no_obstacle(private_place: Path) -> None:
    """A directory whose path is longer than a socket's can be is as good as any."""
    place = private_place / ("x" * 150) / ("y" * 150)
    async with open_host(place) as host, host.link() as link:
        await connect_all(link)
        link.send(SHELL, b"far away")

        assert b"far away" == await read(link, SHELL, 8)


def connect(host: Hosted) -> socket.socket:
    """Return a stranger's connection."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(host.directory / "host.sock"))
    return connection


async def hung_up(connection: socket.socket) -> bool:
    """Wait until the other side has hung up; what it says before is dropped."""
    connection.setblocking(False)
    with trio.fail_after(PATIENCE):
        try:
            while True:
                await trio.lowlevel.wait_readable(connection)
                if not connection.recv(1 << 16):
                    return True
        except ConnectionError:
            return True


async def test_strangers_disturb_nobody(private_place: Path) -> None:
    """Whoever talks nonsense is hung up on without a word, whoever says nothing is after a while, and however many
    they are a server gets in, and the one that is there does not notice.
    """
    dice = random.Random(0)
    nonsense = [
        b"GET / HTTP/1.1\r\n\r\n",
        head(Kind.SEND, SIGNALS, 0, 1) + b"9",
        head(Kind.RELEASE),
        head(Kind.ATTACH, size=1 << 31),
        head(Kind.ATTACH, size=2) + b"{}",
        head(Kind.ATTACH, size=2) + b"[]",
        head(Kind.ATTACH, size=4000) + b"[" * 4000,
        head(Kind.ATTACH, size=4) + b"\xff\xff\xff\xff",
        encode_attach(b"wrong", bytes(32), bytes(32), {}),
        *(dice.randbytes(dice.randint(16, 300)) for _ in range(30)),
    ]
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        for words in nonsense:
            with connect(host) as stranger:
                stranger.sendall(words)
                assert await hung_up(stranger), words
        silent = [connect(host) for _ in range(40)]
        link.send(SHELL, b"undisturbed")
        assert b"undisturbed" == await read(link, SHELL, 11)
        async with host.link() as second:
            assert link.hello.pid == second.hello.pid
        for stranger in silent:
            with stranger:
                assert await hung_up(stranger)

        assert b"" == (host.directory / HOST_LOG).read_bytes()


async def test_proof_cannot_be_used_again(private_place: Path) -> None:
    """What one server said to prove itself convinces nobody on another connection."""
    async with open_host(private_place / "s") as host:
        with connect(host) as server, connect(host) as thief:
            challenge = server.recv(HEAD.size + 32)[HEAD.size :]
            words = encode_attach(SECRET, challenge, bytes(32), {})
            thief.sendall(words)

            assert await hung_up(thief)


async def test_server_that_talks_nonsense_is_hung_up_on(private_place: Path) -> None:
    """A server whose frames make no sense loses its connection, and the kernel lives on."""
    wrong = [head(99), head(Kind.SEND, 5, 1), head(Kind.OPEN, 0, 1, 2) + b"[]", head(Kind.CONFIRM, 77, 1)]
    async with open_host(private_place / "s") as host:
        for words in wrong:
            with connect(host) as server:
                challenge = server.recv(HEAD.size + 32)[HEAD.size :]
                server.sendall(encode_attach(SECRET, challenge, bytes(32), {}) + words)
                assert await hung_up(server)
        async with host.link() as link:
            await connect_all(link)


async def test_second_host_does_not_take_the_place_of_the_first(private_place: Path) -> None:
    """Where a host listens another one cannot be started, and says so; where one was killed it can."""
    async with open_host(private_place / "s") as host:
        with pytest.raises(OSError, match="in use"):
            await start_host(host.directory, SECRET, PLAIN_KERNEL, {}, None, abandon_after=0)
        async with host.link():
            pass
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)


async def test_start_that_was_cancelled_leaves_no_process(private_place: Path) -> None:
    """Whoever does not wait for a host to be ready has none."""
    place = private_place / "s"
    place.mkdir()
    for delay in (0.0, 0.02, 0.05, 0.08, 0.11):
        with trio.move_on_after(delay):
            pid = await start_host(place, SECRET, run("exec sleep 600"), dict(os.environ), None, abandon_after=0)
            os.kill(pid, signal.SIGKILL)
            await wait_gone(pid)
