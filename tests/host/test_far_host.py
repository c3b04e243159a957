"""A host that was started on another machine: it finds a place and ports for its kernel, says where it is, tells what
the kernel uses, and leaves nothing behind.
"""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hosts import (
    PATIENCE,
    SECRET,
    SHELL,
    STDOUT,
    Hosted,
    connect_all,
    old_pythons,
    open_far_host,
    open_host,
    read,
    read_line,
    wait_gone,
)
from kallichore.engines.host_link import HostLink
from kallichore.engines.host_program import host_script, read_failure
from kallichore.host import DIAL_PROGRAM, HOST_PROGRAM, RELAY_PROGRAM
from kallichore.wire.connection_info import PORT_NAMES
from kallichore.wire.host_frames import (
    HostDecoder,
    HostFacts,
    Kind,
    Received,
    decode_facts,
    encode_ask,
    encode_attach,
)

if sys.platform != "linux":
    pytest.skip("processes are looked at through pidfds", allow_module_level=True)

MEET = {"key": "abc", "signature_scheme": "hmac-sha256", "kernel_name": "some"}
SLEEP = ["/bin/sh", "-c", "exec sleep 600"]
IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
ORDER = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


@pytest.fixture
def far_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for temporary files, whose path is short."""
    return tmp_path_factory.mktemp("t", numbered=True)


def shell(script: str) -> list[str]:
    """Return the arguments of a kernel that is a shell script."""
    return ["/bin/sh", "-c", script]


@pytest.mark.parametrize("program", [HOST_PROGRAM, DIAL_PROGRAM, RELAY_PROGRAM], ids=lambda program: program.name)
def test_programs_run_on_python_3_8(program: Path) -> None:
    """What travels has the syntax of Python 3.8, which machines far away may have."""
    assert ast.parse(program.read_text(), feature_version=(3, 8))


async def test_kernel_runs_under_an_old_python(far_place: Path) -> None:
    """The oldest Python that is here takes the script, and what the kernel is sent comes back."""
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python before 3.11 here")
    async with open_far_host(far_place, python=(pythons[0], "-I")) as host, host.link() as link:
        await connect_all(link)
        link.send(SHELL, b"there and back")

        assert b"there and back" == await read(link, SHELL, 14)


async def test_python_that_is_too_old_says_so(far_place: Path) -> None:
    """A Python before 3.8 is named as the reason, in a line that is found behind others."""
    script = host_script({"argv": []}).replace(b"(3, 8)", b"(9, 9)")
    ended = await trio.run_process([sys.executable, "-"], stdin=script, capture_stdout=True, check=False)

    assert 1 == ended.returncode
    assert f"Python 3.8 or later is needed here, and this is {sys.version.split()[0]}" == read_failure(ended.stdout)


async def test_host_says_where_it_listens_and_who_started_it_has_to_wait_no_more(far_place: Path) -> None:
    """The line that says `ready` has the host's process and its socket, in a directory that nobody else may look into;
    then what was started ends, and its outputs are nobody's.
    """
    async with open_far_host(far_place, SLEEP) as host:
        with trio.fail_after(PATIENCE):
            assert 0 == await host.process.wait()
            assert host.process.stdout is not None
            rest = await host.process.stdout.receive_some()
        directory = host.directory
        found = [path for path in (directory, *directory.iterdir()) if not path.is_symlink()]
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}
        async with host.link() as link:
            hello = link.hello

    assert b"" == rest
    assert {directory.name: 0o700, "host.sock": 0o600, "host.log": 0o600} == modes
    assert far_place == directory.parent
    assert (host.pid, os.uname().nodename, None) == (hello.host_pid, hello.node, hello.connection)


async def test_place_for_temporary_files_that_cannot_be_used_is_not(private_place: Path) -> None:
    """Where the directory for temporary files is missing, or too long for a socket's path, another is taken."""
    for place in (private_place / "missing", private_place / ("x" * 90)):
        place.parent.mkdir(exist_ok=True)
        async with open_far_host(place, SLEEP) as host, host.link():
            assert "/tmp" == str(host.directory.parent)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_real_kernel_is_met_where_its_host_said(far_place: Path, transport: str) -> None:
    """The host writes the connection file, tells it to servers, and a kernel has the five connections that it names."""
    async with open_far_host(far_place, IPYKERNEL, meet={**MEET, "transport": transport}) as host:
        async with host.link() as link:
            told = link.hello.connection
            assert told is not None
            file = host.directory / "connection.json"
            written, mode = json.loads(file.read_bytes()), stat.S_IMODE(file.stat().st_mode)
            for channel, name in enumerate(ORDER):
                await connect(link, channel, told, told[name])

    assert written == told
    assert 0o600 == mode
    assert {**MEET, "transport": transport} == {name: told[name] for name in (*MEET, "transport")}
    assert 5 == len({told[name] for name in PORT_NAMES})


async def connect(link: HostLink, channel: int, told: dict[str, Any], port: int) -> None:
    """Connect a channel as soon as the kernel listens."""
    family, numbers = ("unix", f"{told['ip']}-{port}") if told["transport"] == "ipc" else ("inet", [told["ip"], port])
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await link.open(channel, family, numbers)
                return
            except (ConnectionRefusedError, FileNotFoundError):
                await trio.sleep(0.05)


async def test_connection_file_is_named_in_every_argument(far_place: Path) -> None:
    """Wherever the arguments have the file's name, its path is put; what else is in braces stays."""
    argv = [*shell('printf "%s\\n" "$@"'), "-", "{connection_file}", "--f={connection_file}", "{other}"]
    async with open_far_host(far_place, argv, meet=MEET) as host, host.link() as link:
        said = [(await read_line(link, STDOUT)).decode() for _ in range(3)]

    assert [f"{host.directory}/connection.json", f"--f={host.directory}/connection.json", "{other}"] == said


async def test_environment_is_what_is_there_with_changes(far_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has the far machine's variables, with new values in their place, or before and behind them."""
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("LIST", "middle")
    actions = [["replace", "NEW", "new"], ["append", "LIST", ":end"], ["prepend", "LIST", "begin:"]]
    actions += [["replace", "HOME", "/nowhere"], ["append", "NONE", "before"]]
    script = 'echo "$KEPT $LIST $NEW $HOME $NONE"'
    async with open_far_host(far_place, shell(script), actions=actions) as host, host.link() as link:
        assert b"kept begin:middle:end new /nowhere before" == await read_line(link, STDOUT)


async def test_directory_that_is_not_there_gives_way_to_home(far_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of another machine need not be there; the kernel starts at home, and it is told why."""
    monkeypatch.setenv("HOME", str(far_place))
    async with open_far_host(far_place, shell("pwd"), directory="/no/such/place") as host, host.link() as link:
        assert str(far_place).encode() == await read_line(link, STDOUT)
        assert link.hello.moved.startswith("/no/such/place is no directory on ")


async def test_environment_without_inheritance_is_all_there_is(far_place: Path) -> None:
    """Otherwise the kernel has what it is given and nothing of the host's."""
    more: dict[str, Any] = {"environment": {"PATH": "/bin:/usr/bin", "ONLY": "this"}, "actions": None}
    async with open_far_host(far_place, ["env"], **more) as host, host.link() as link:
        said = {await read_line(link, STDOUT) for _ in range(2)}

    assert {b"PATH=/bin:/usr/bin", b"ONLY=this"} == said


async def test_directory_may_be_somebodys_home(far_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tilde is what it is on the far machine."""
    (far_place / "work").mkdir()
    monkeypatch.setenv("HOME", str(far_place))
    async with open_far_host(far_place, shell("pwd"), directory="~/work") as host, host.link() as link:
        assert f"{far_place}/work".encode() == await read_line(link, STDOUT)


async def test_kernel_is_started_anew_in_the_same_place(far_place: Path) -> None:
    """A kernel that has ended is followed by another, with the same connection file; whoever attaches then has it."""
    (far_place / "work").mkdir()
    argv = ["/bin/sh", "-c", 'echo "$0 $PWD"; exit 3', "{connection_file}"]
    async with open_far_host(far_place, argv, meet=MEET) as host:
        async with host.link() as link:
            first = await read_line(link, STDOUT)
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
                link.start_again(str(far_place / "work"))
                await link.lost.wait()
        async with host.link() as link:
            second = await read_line(link, STDOUT)
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
            ending = link.ending

    path = f"{host.directory}/connection.json"
    assert first.decode().startswith(f"{path} ")
    assert f"{path} {far_place}/work" == second.decode()
    assert ending is not None
    assert 3 == ending.code


async def test_kernel_that_runs_is_not_started_anew(far_place: Path) -> None:
    """Who asks for another while there is one is hung up on, and the one that is there goes on."""
    async with open_far_host(far_place, SLEEP, meet=MEET) as host:
        async with host.link() as link:
            pid = link.hello.pid
            link.start_again(None)
            with trio.fail_after(PATIENCE):
                await link.lost.wait()
        async with host.link() as link:
            assert (pid, None) == (link.hello.pid, link.hello.ended)


@pytest.mark.parametrize("way", ["released", "killed"])
async def test_far_host_leaves_nothing(far_place: Path, way: str) -> None:
    """A host that is let go removes its directory, and one that is killed has it removed by its guardian."""
    async with open_far_host(far_place, SLEEP, meet=MEET) as host:
        async with host.link() as link:
            kernel = link.hello.pid
            assert kernel is not None
            if way == "released":
                link.release()
                with trio.fail_after(PATIENCE):
                    await link.lost.wait()
        if way == "killed":
            os.kill(host.pid, signal.SIGKILL)
        await wait_gone(host.pid)
        await wait_gone(kernel)
        with trio.fail_after(PATIENCE):
            while list(far_place.iterdir()):  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_host_has_the_name_that_it_is_given_and_there_is_no_second_one(far_place: Path) -> None:
    """Who gave a host a name finds it by that, and a second host with the name says that there is one."""
    async with open_far_host(far_place, SLEEP, name="0123abcd") as host:
        with pytest.raises(AssertionError, match=r"failed: .*exists: .*kallichore-0123abcd"):
            async with open_far_host(far_place, SLEEP, name="0123abcd"):
                pass
        async with host.link() as link:
            assert host.pid == link.hello.host_pid

    assert far_place / "kallichore-0123abcd" == host.directory


async def test_next_host_clears_away_after_those_that_were_killed_with_their_guardians(far_place: Path) -> None:
    """What is left of a job whose processes were all killed goes when the next host comes to that machine; what lives,
    is new, has a log to read, or is another machine's stays.
    """
    for name in ("dead", "new", "elsewhere", "other", "logged"):
        place = far_place / f"kallichore-{name}"
        place.mkdir()
        (place / "node").symlink_to("elsewhere" if name == "elsewhere" else socket.gethostname())
        if name != "other":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(place / "host.sock"))
        if name == "logged":
            (place / "host.log").write_text("Traceback")
        if name != "new":
            os.utime(place, (0, 0))
    async with open_far_host(far_place, SLEEP, name="alive") as alive:
        os.utime(alive.directory, (0, 0))
        async with open_far_host(far_place, SLEEP) as host, alive.link():
            left = {path.name.partition("-")[2] for path in far_place.iterdir() if path != host.directory}

    assert {"new", "elsewhere", "other", "logged", "alive"} == left
    assert ["host.log"] == [path.name for path in (far_place / "kallichore-logged").iterdir()]


async def test_log_of_a_host_that_failed_is_left(far_place: Path) -> None:
    """A host that ends by an error of its own leaves what it said of it, and nothing else; its kernel is gone."""
    async with open_far_host(far_place, shell("echo x; exec sleep 600"), meet=MEET, keep_limit="much") as host:
        await wait_gone(host.pid)
        left = [path.name for path in host.directory.iterdir()]

        assert ["host.log"] == left
        assert "TypeError" in (host.directory / "host.log").read_text()


async def test_host_that_cannot_be_leaves_nothing(far_place: Path) -> None:
    """A host that fails before it is ready says why, and its directory is gone."""
    document = {"secret": SECRET.hex(), "argv": [], "environment": {}, "directory": None, "meet": MEET}
    environment = {**os.environ, "TMPDIR": str(far_place)}
    script = host_script({**document, "abandon_after": 0, "keep_limit": 1, "stays": True})
    limited = ["/bin/sh", "-c", 'ulimit -n 8; exec "$0" -I -', sys.executable]
    ended = await trio.run_process(limited, stdin=script, env=environment, capture_stdout=True, check=False)

    assert 1 == ended.returncode
    assert "Too many open files" in str(read_failure(ended.stdout))
    assert [] == list(far_place.iterdir())


async def test_second_host_leaves_the_socket_of_the_first(private_place: Path) -> None:
    """A host that may not listen where another does takes nothing away when it goes."""
    async with open_host(private_place / "s") as host:
        document = {"secret": SECRET.hex(), "argv": [], "environment": {}, "directory": None, "socket": "host.sock"}
        told = json.dumps({**document, "abandon_after": 0, "keep_limit": 1}).encode()
        argv = [sys.executable, "-I", "-S", str(HOST_PROGRAM)]
        ended = await trio.run_process(argv, stdin=told, cwd=host.directory, capture_stdout=True)
        async with host.link() as link:
            await connect_all(link)

    assert "in use" in str(read_failure(ended.stdout))


# Those that stay


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
async def test_staying_host_ends_as_its_kernel_did(far_place: Path, script: str, code: int) -> None:
    """A batch job's exit code is its kernel's, or what shells make of a signal."""
    async with open_far_host(far_place, shell(script), stays=True) as host:
        async with host.link() as link:
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
            link.release()
            with trio.fail_after(PATIENCE):
                ended = await host.process.wait()

    assert host.pid == host.process.pid
    assert code == ended


async def test_staying_host_whose_kernel_cannot_be_started_waits_for_a_server_and_fails(far_place: Path) -> None:
    """A server is told why, and then the job has the exit code that shells have for it."""
    async with open_far_host(far_place, ["/nowhere/kernel"], stays=True) as host:
        async with host.link() as link:
            failed = link.hello.failed
            link.release()
            with trio.fail_after(PATIENCE):
                ended = await host.process.wait()

    assert failed is not None
    assert ("/nowhere/kernel", 127) == (failed.filename, ended)


async def test_staying_host_that_is_told_to_end_gives_a_server_time_to_take_the_rest(far_place: Path) -> None:
    """After SIGTERM the kernel is ended, a server can still attach to hear of it, and when it lets go the job ends."""
    script = "trap 'echo last words; exit 5' TERM; echo on; while :; do sleep 0.05; done"
    async with open_far_host(far_place, shell(script), stays=True) as host:
        async with host.link() as link:
            await read_line(link, STDOUT)
            os.kill(host.pid, signal.SIGTERM)
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
        async with host.link({STDOUT: 3}) as link:
            assert b"last words" == await read_line(link, STDOUT)
            assert link.ending is not None
            assert 5 == link.ending.code
            link.release()
            with trio.fail_after(PATIENCE):
                assert 5 == await host.process.wait()


async def test_host_that_is_told_to_end_again_and_again_kills_its_kernel_all_the_same(far_place: Path) -> None:
    """Who is impatient and repeats SIGTERM every moment does not put off the end of a kernel that is deaf to it."""
    script = "trap : TERM; echo on; while :; do sleep 0.05; done"
    async with open_far_host(far_place, shell(script), stays=True) as host, host.link() as link:
        await read_line(link, STDOUT)
        with trio.fail_after(PATIENCE):
            while not link.ended.is_set():
                os.kill(host.pid, signal.SIGTERM)
                with trio.move_on_after(0.1):
                    await link.ended.wait()

        assert link.ending is not None
        assert signal.SIGKILL == link.ending.signal


async def test_staying_host_that_is_told_to_end_does_not_wait_for_a_server_for_ever(far_place: Path) -> None:
    """A job that is cancelled while no server is there ends by itself, and leaves nothing."""
    async with open_far_host(far_place, SLEEP, stays=True) as host:
        os.kill(host.pid, signal.SIGTERM)
        with trio.fail_after(PATIENCE):
            assert 128 + signal.SIGTERM == await host.process.wait()

        assert [] == list(far_place.iterdir())


SUBREAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)
os.execv(sys.executable, [sys.executable, "-I", "-"])
"""


async def test_staying_host_reaps_what_lost_its_parent(far_place: Path) -> None:
    """Where it is process 1 of a container, or stands for it, no zombie of the kernel's descendants stays; the kernel's
    own end is told all the same.
    """
    script = "for n in 1 2 3 4 5; do (sleep 0 & ) ; done; echo done; exec sleep 600"
    python = (sys.executable, "-c", SUBREAPER)
    async with open_far_host(far_place, shell(script), python=python, stays=True) as host:
        async with host.link() as link:
            await read_line(link, STDOUT)
            with trio.fail_after(PATIENCE):
                while len(children_of(host.pid)) > 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            link.signal(signal.SIGINT)
            with trio.fail_after(PATIENCE):
                await link.ended.wait()

            assert link.ending is not None
            assert signal.SIGINT == link.ending.signal


def children_of(pid: int) -> list[str]:
    """Return the children of a process, zombies too."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# What the kernel uses


@asynccontextmanager
async def asking(host: Hosted) -> AsyncIterator[Callable[[], Awaitable[HostFacts]]]:
    """Attach to a host as a server that does nothing but ask, and yield what asks."""
    decoder = HostDecoder()
    received: list[Received] = []
    async with await trio.open_unix_socket(str(host.directory / "host.sock")) as stream:

        async def receive(kind: Kind) -> Received:
            while True:
                while received:
                    frame = received.pop(0)
                    if frame.kind == kind:
                        return frame
                received.extend(decoder.feed(await stream.receive_some()))

        async def ask() -> HostFacts:
            with trio.fail_after(PATIENCE):
                await stream.send_all(encode_ask(77))
                answer = await receive(Kind.TOLD)
            assert answer.number == 77
            return decode_facts(answer.payload)

        challenge = await receive(Kind.CHALLENGE)
        await stream.send_all(encode_attach(SECRET, challenge.payload, bytes(32), {}))
        yield ask


async def test_facts_are_those_of_the_kernel_and_all_below_it(far_place: Path) -> None:
    """Memory, CPU time, processes and threads are sums over the tree; what lives beside it is not in them."""
    worker = "import sys, time; x = b'x' * (60 << 20); print('on', flush=True); time.sleep(600)"
    busy = "import time; t = time.process_time\nwhile t() < 0.4: pass"
    program = (
        "import subprocess, sys, threading, time, os\n"
        f"subprocess.run([sys.executable, '-S', '-c', {busy!r}])\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        f"children = [subprocess.Popen([sys.executable, '-S', '-c', {worker!r}], stdout=-1) for _ in range(2)]\n"
        "for child in children: child.stdout.readline()\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    async with open_far_host(far_place, [sys.executable, "-S", "-c", program], directory="/") as host:
        async with host.link() as link:
            await read_line(link, STDOUT)
        async with asking(host) as ask:
            facts = await ask()

    assert ("/", 3, 4, False) == (facts.directory, facts.processes, facts.threads, facts.is_stopped)
    assert facts.memory is not None
    assert facts.cpu_seconds is not None
    assert 120 << 20 < facts.memory < 250 << 20
    assert 0.4 <= facts.cpu_seconds < 20


async def test_stopped_kernel_is_told_as_such(far_place: Path) -> None:
    """A kernel that was stopped is told as stopped, and as going on when it does."""
    async with open_far_host(far_place, SLEEP) as host:
        async with host.link() as link:
            kernel = link.hello.pid
            assert kernel is not None
        async with asking(host) as ask:
            for number, is_stopped in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
                os.kill(kernel, number)
                with trio.fail_after(PATIENCE):
                    while (await ask()).is_stopped is not is_stopped:
                        pass


async def test_nothing_is_known_of_a_kernel_that_is_none(far_place: Path) -> None:
    """Where there is no process any more, all facts are null."""
    async with open_far_host(far_place, shell("exit 0")) as host:
        async with host.link() as link:
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
        async with asking(host) as ask:
            assert HostFacts() == await ask()


@pytest.fixture
def program() -> dict[str, Any]:
    """The host's functions."""
    return runpy.run_path(str(HOST_PROGRAM), run_name="host")


@pytest.fixture
def system(program: dict[str, Any], tmp_path: Path) -> Path:
    """A directory in which the host's functions look for what the system tells; nothing is told there yet."""
    names = program["own_groups"].__globals__
    names["PROC"], names["GROUPS"] = str(tmp_path / "proc"), str(tmp_path / "groups")
    return tmp_path


def write(place: Path, files: dict[str, str]) -> None:
    """Write files, by their paths."""
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


SECOND = {"proc/self/cgroup": "0::/job/step\n"}
FIRST = {"proc/self/cgroup": "9:name=systemd:/x\n4:cpu,memory:/job/step\n0::/x\n", "groups/x/cgroup.procs": ""}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 0),
        ({"proc/vmstat": "nr_free_pages 3\noom_kill 5\n"}, 5),
        ({**SECOND, "groups/job/step/memory.events": "oom 1\noom_kill 2\n", "proc/vmstat": "oom_kill 5\n"}, 2),
        ({**SECOND, "groups/job/step/memory.events": "oom_kill 0\n", "proc/vmstat": "oom_kill 5\n"}, 0),
        ({**SECOND, "groups/memory.events": "oom_kill 3\n"}, 3),
        ({"proc/self/cgroup": "0::/../../x\n", "groups/x/memory.events": "oom_kill 3\n"}, 3),
        ({**FIRST, "groups/memory/job/step/memory.oom_control": "under_oom 0\noom_kill 4\n"}, 4),
        ({**FIRST, "groups/memory/memory.oom_control": "oom_kill 6\n"}, 6),
        ({**FIRST, "groups/memory/job/step/memory.oom_control": "under_oom 0\n", "proc/vmstat": "oom_kill 5\n"}, 5),
    ],
)
def test_memory_kills_are_counted_where_the_system_tells_of_them(
    program: dict[str, Any], system: Path, files: dict[str, str], count: int
) -> None:
    """Both versions of control groups tell, in a container at their root; the whole machine's count is the last resort,
    since a neighbour's kills are in it.
    """
    write(system, files)

    assert count == program["count_memory_kills"]()


@pytest.mark.parametrize(
    ("files", "limit", "peak"),
    [
        ({}, None, None),
        ({**SECOND, "groups/job/step/memory.max": "max\n"}, None, None),
        ({**SECOND, "groups/job/step/memory.max": "2097152\n", "groups/job/step/memory.peak": "1048576\n"}, 2048, 1024),
        (
            {
                **SECOND,
                "groups/job/step/memory.max": "max",
                "groups/job/memory.max": "1048576",
                "groups/memory.max": "4194304",
            },
            1024,
            None,
        ),
        (
            {
                **FIRST,
                "groups/memory/job/step/memory.limit_in_bytes": "9223372036854771712",
                "groups/memory/job/memory.limit_in_bytes": "3145728",
                "groups/memory/job/memory.max_usage_in_bytes": "3144704",
            },
            3072,
            3071,
        ),
    ],
)
def test_limit_is_the_smallest_of_our_control_groups(
    program: dict[str, Any], system: Path, files: dict[str, str], limit: int | None, peak: int | None
) -> None:
    """A batch job's limit is on a group above ours: the smallest counts, with the most that was used of it."""
    write(system, {"groups/job/step/cgroup.procs": "", "groups/memory/job/step/cgroup.procs": "", **files})

    assert {"limit_kib": limit, "group_peak_kib": peak} == program["describe_limit"]()


LIMIT = 96 << 20


@pytest.fixture
async def limited_group() -> AsyncIterator[Path]:
    """A control group whose memory is limited, of whichever version there is here."""
    root = Path("/sys/fs/cgroup")
    is_unified = (root / "cgroup.controllers").exists()
    group = (root if is_unified else root / "memory") / f"kt-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        (group / ("memory.max" if is_unified else "memory.limit_in_bytes")).write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"memory cannot be limited here: {error}")
    else:
        yield group
        with trio.fail_after(PATIENCE):
            # The host's guardian is in it, and goes a moment after the host.
            while (group / "cgroup.procs").read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
    finally:
        group.rmdir()


async def test_kernel_that_the_machine_killed_for_memory_is_told_as_that(far_place: Path, limited_group: Path) -> None:
    """Beyond its group's limit a kernel is killed, and with the end comes that it was for memory, the limit, and how
    much the group had; a job's other processes are in the same group.
    """
    greedy = [sys.executable, "-S", "-c", "x = [bytearray(b'x' * (1 << 20)) for _ in range(400)]"]
    enter = f'echo $$ > {limited_group}/cgroup.procs; exec "$0" "$@"'
    async with open_far_host(far_place, greedy, python=("/bin/sh", "-c", enter, sys.executable, "-I")) as host:
        async with host.link() as link:
            with trio.fail_after(PATIENCE):
                await link.ended.wait()
            ending = link.ending

    assert ending is not None
    assert (signal.SIGKILL, True, LIMIT >> 10) == (ending.signal, ending.memory_kill, ending.limit_kib)
    assert ending.group_peak_kib is None or LIMIT * 0.8 < ending.group_peak_kib << 10 <= LIMIT


async def test_limit_of_memory_is_told_with_the_end(private_place: Path) -> None:
    """What the host finds of its control groups is what a server is told when the kernel has ended."""
    found = runpy.run_path(str(HOST_PROGRAM), run_name="host")["describe_limit"]()
    async with open_host(private_place / "s", shell("exit 0")) as host, host.link() as link:
        with trio.fail_after(PATIENCE):
            await link.ended.wait()

    assert link.ending is not None
    assert found["limit_kib"] == link.ending.limit_kib


@pytest.mark.parametrize(
    ("text", "seconds"), [("0:00.07", 0.07), ("12:03.50", 723.5), ("01:02:03", 3723), ("2-01:02:03", 176523)]
)
def test_times_of_ps_are_read(program: dict[str, Any], text: str, seconds: float) -> None:
    """macOS writes minutes and seconds, others hours too, and days before a hyphen."""
    assert seconds == program["read_time"](text)


def test_processes_are_found_where_the_system_does_not_tell_who_the_children_are(
    program: dict[str, Any], system: Path
) -> None:
    """On a Linux without lists of children all processes are looked at, and the tree is the same."""
    stats = {
        7: "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 100 50 25 25 20 0 3 0 5 0 1000 0",
        8: "8 (b) T 7 7 7 0 -1 0 0 0 0 0 100 0 0 0 20 0 2 0 5 0 10 0",
        9: "9 (c) Z 8 7 7 0 -1 0 0 0 0 0 100 0 0 0 20 0 1 0 5 0 0 0",
        10: "10 (other) S 1 7 7 0 -1 0 0 0 0 0 100 0 0 0 20 0 2 0 5 0 10 0",
    }
    write(system, {f"proc/{pid}/stat": text + "\n" for pid, text in stats.items()})
    told = program["describe_tree"](7)
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")

    assert (1010 * page, 300 / ticks, 2, 5) == tuple(
        told[name] for name in ("memory", "cpu_seconds", "processes", "threads")
    )
    assert (False, None) == (told["is_stopped"], told["directory"])
    assert program["describe_tree"](8)["is_stopped"]


def test_ps_tells_the_same_as_the_files_of_linux(program: dict[str, Any]) -> None:
    """Where there are no such files, `ps` tells of a process's parent and memory, and nothing of its threads."""
    if shutil.which("ps") is None:
        pytest.skip("there is no ps here")
    table = program["ask_for_table"]()
    parent, _, cpu, memory, threads = table[os.getpid()]

    assert (os.getppid(), None) == (parent, threads)
    assert 0 <= cpu
    assert memory > 10 << 20
