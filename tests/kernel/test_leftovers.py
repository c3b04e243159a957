"""What a killed server left behind is removed by the next one; what belongs to a living one is not touched."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.kernel.leftovers import clear_leftovers, hold_lock, record_kernel
from kallichore.transport.connection_file import read_connection_file
from kernels import REAL_TIME, body, has_ended, open_client, wait_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="start times are read from /proc")


def make_directory(parent: Path, name: str) -> Path:
    """Return a new server's directory."""
    directory = parent / name
    directory.mkdir()
    return directory


def test_directory_of_a_living_server_stays(tmp_path: Path) -> None:
    """A lock that is held means that somebody is there; a directory without a lock is not known, and stays too."""
    living, unknown, gone = (make_directory(tmp_path, f"kc-{number}-abc") for number in (1, 2, 3))
    with hold_lock(gone):
        pass
    with hold_lock(living):
        clear_leftovers(tmp_path)
        left = sorted(path.name for path in tmp_path.iterdir())

    assert ["kc-1-abc", "kc-2-abc"] == left
    assert unknown.exists()


def test_process_that_only_has_the_same_number_is_not_ended(tmp_path: Path) -> None:
    """A kernel is known by its number and its start time."""
    directory = make_directory(tmp_path, "kc-1-abc")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        with hold_lock(directory):
            (directory / "kernels").write_text(f"{process.pid} 1\nnonsense\n")
        clear_leftovers(tmp_path)
        survived = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)

    assert survived
    assert not directory.exists()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that leads its group, as kernels do."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def start_time(pid: int) -> str:
    """Return when a process was started, as the list of kernels has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_only_leaders_of_groups_of_our_own_are_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1, which is every process there is to killpg, one that leads no group, and our own: none is ended."""
    directory = make_directory(tmp_path, "kc-1-abc")
    ended: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _signal: ended.append(pid))
    with subprocess.Popen(["sleep", "60"]) as follower:
        # The leader of our own group may be gone.
        group = [os.getpgrp()] if Path(f"/proc/{os.getpgrp()}").exists() else []
        pids = [1, os.getpid(), *group, follower.pid, sleeper.pid]
        lines = [f"{pid} {start_time(pid)}" for pid in pids]
        lines += [f"0 {start_time(1)}", f"-1 {start_time(1)}", "9" * 5000]
        with hold_lock(directory):
            (directory / "kernels").write_text("\n".join(lines))
        clear_leftovers(tmp_path)
        follower.kill()

    assert [sleeper.pid] == ended


def test_kernels_of_another_user_are_not_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of somebody else's, which root could end, is not one of our kernels."""
    directory = make_directory(tmp_path, "kc-1-abc")
    with hold_lock(directory):
        record_kernel(directory, sleeper.pid)
    us = os.getuid()
    answers = {f"/proc/{sleeper.pid}": us + 1}
    usual = os.stat

    def stat_as_if(path: Any, **options: Any) -> Any:
        found = usual(path, **options)
        fields = list(found)
        fields[4] = answers.get(str(path), found.st_uid)
        return os.stat_result(fields)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stat_as_if)
        clear_leftovers(tmp_path)

    assert sleeper.poll() is None
    assert not directory.exists()


@pytest.mark.parametrize("name", ["lock", "kernels"])
@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "socket"])
def test_nothing_but_regular_files_is_opened(
    tmp_path: Path, private_place: Path, sleeper: subprocess.Popen[bytes], name: str, kind: str
) -> None:
    """A pipe of such a name would have the next server wait for ever, and a link leads to somebody else's file."""
    directory = make_directory(private_place, "kc-1-abc")
    with hold_lock(directory):
        record_kernel(directory, sleeper.pid)
    (directory / name).rename(tmp_path / "elsewhere")
    match kind:
        case "fifo":
            os.mkfifo(directory / name)
        case "link":
            (directory / name).symlink_to(tmp_path / "elsewhere")
        case "directory":
            (directory / name).mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(directory / name))
    clear_leftovers(private_place)
    left = directory.exists()
    shutil.rmtree(directory, ignore_errors=True)

    assert left == (name == "lock")
    assert sleeper.poll() is None


async def test_server_starts_beside_a_pipe_that_looks_like_a_lock(private_place: Path) -> None:
    """What somebody put into the directory of servers does not keep the next one from starting."""
    directory = make_directory(private_place, "kc-1-abc")
    os.mkfifo(directory / "lock")
    with trio.fail_after(REAL_TIME):
        async with open_client() as client:
            answer = await client.call("GET", "/status")
    shutil.rmtree(directory)

    assert 0 == answer["sessions"]


def test_recorded_kernel_is_ended(tmp_path: Path) -> None:
    """A kernel whose server is gone is killed with its group."""
    directory = make_directory(tmp_path, "kc-1-abc")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        with hold_lock(directory):
            record_kernel(directory, process.pid)
        clear_leftovers(tmp_path)
        code = process.wait(REAL_TIME)

    assert -signal.SIGKILL == code


def test_sockets_are_removed_if_nobody_listens(tmp_path: Path) -> None:
    """A socket that refuses is a leftover; one that is listened on, and a file of such a name, are not."""
    live, dead = tmp_path / "kc-1-live.sock", tmp_path / "kc-2-dead.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as closed:
        listener.bind(str(live))
        listener.listen()
        closed.bind(str(dead))
        closed.close()
        clear_leftovers(tmp_path)
        left = [path.name for path in tmp_path.iterdir()]

    assert ["kc-1-live.sock"] == left


async def test_next_server_ends_the_kernels_of_one_that_was_killed_with_its_watchdog(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server and watchdog are killed at once: the kernel lives on, until the next server starts."""
    file = private_place / "connection.json"
    command = [sys.executable, "-m", "kallichore.cli.kcserver", "--connection-file", str(file), "--transport", "tcp"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(private_place), "TMPDIR": str(private_place)}
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private_place))
    with trio.fail_after(REAL_TIME):
        server = await trio.lowlevel.open_process(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            while not file.exists():
                assert server.poll() is None
                await trio.lowlevel.checkpoint()
            document = read_connection_file(file)
            client = ApiClient(from_connection_document(document))
            await client.call("PUT", "/sessions", body())
            await client.call("POST", "/sessions/s/start")
            kernel = (await client.call("GET", "/sessions/s"))["process_id"]
            others = [child for child in psutil.Process(server.pid).children() if child.pid != kernel]
            for pid in (*(child.pid for child in others), server.pid):
                os.kill(pid, signal.SIGSTOP)
            for pid in (*(child.pid for child in others), server.pid):
                os.kill(pid, signal.SIGKILL)
            await server.wait()
            assert not has_ended(kernel)
        finally:
            if server.poll() is None:
                server.kill()
                await server.wait()
        async with open_client():
            await wait_ended(kernel)
            left = [path for path in private_place.iterdir() if path.name.startswith(f"kc-{server.pid}-")]

    assert [] == left
