"""What a killed server left behind is removed by the next one; what belongs to a living one is not touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

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
