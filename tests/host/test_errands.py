"""What is done on another machine by a command of a moment: looking for a host, ending it, listing kernels."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from hosts import PATIENCE, STDOUT, connect_all, open_far_host, read_line, tell, wait_gone
from kallichore.engines.ssh_errands import describe_gone, errand, read_answer, relay_errand
from kallichore.host import ERRANDS_PROGRAM

pytestmark = pytest.mark.posix_only("hosts")

NAME = "one"
DIRECTORY = f"kallichore-{NAME}"


@pytest.fixture
def far_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for temporary files, whose path is short."""
    return tmp_path_factory.mktemp("t", numbered=True)


async def run(line: str, place: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line on the machine whose directory for temporary files is that."""
    environment = {**os.environ, "TMPDIR": str(place), **variables}
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [sys.executable, "-c", line], env=environment, capture_stdout=True, capture_stderr=True, check=False
        )


async def ask(function: str, *arguments: str, place: Path, **variables: str) -> Mapping[str, Any]:
    """Return what an errand answers."""
    done = await run(errand(function, *arguments), place, **variables)
    answer = read_answer(done.stdout.decode())
    assert answer is not None, done.stderr.decode()
    return answer


def test_errands_run_on_python_3_8() -> None:
    """What travels has the syntax of Python 3.8, which machines far away may have."""
    assert ast.parse(ERRANDS_PROGRAM.read_text(), feature_version=(3, 8))


async def test_host_is_found_by_the_name_of_its_directory(far_place: Path) -> None:
    """Whether a host is there is known without its secret, and the host is not disturbed by the question."""
    before = await ask("look", NAME, place=far_place)
    async with open_far_host(far_place, name=NAME) as host, host.link() as link:
        await connect_all(link)
        during = await ask("look", NAME, place=far_place)
        tell(link, "worker")
        await read_line(link, STDOUT)

    assert (None, False) == (before["left"], before["listens"])
    assert (str(far_place / DIRECTORY), True) == (during["left"], during["listens"])
    assert during["uptime"] > 0


async def test_directory_of_somebody_else_is_not_taken_for_a_hosts(far_place: Path) -> None:
    """A file, or a link, that has the name of a host's directory is none."""
    (far_place / DIRECTORY).symlink_to(far_place)

    assert (await ask("look", NAME, place=far_place))["left"] is None


async def test_host_is_ended_with_all_that_it_has(far_place: Path) -> None:
    """It is killed, so its kernel is too, and its directory is gone; ending what is not there is no error."""
    async with open_far_host(far_place, name=NAME) as host:
        async with host.link() as link:
            pid = link.hello.pid
        ended = await ask("end", NAME, place=far_place)
        again = await ask("end", NAME, place=far_place)
        await wait_gone(host.pid)
        assert pid is not None
        await wait_gone(pid)

    assert (None, None) == (ended["left"], again["left"])
    assert [] == list(far_place.iterdir())


async def test_what_a_killed_host_leaves_is_removed(far_place: Path) -> None:
    """A directory without a host is told as such, and ending the host removes it."""
    (far_place / DIRECTORY).mkdir()
    with socket.socket(socket.AF_UNIX) as deserted:
        deserted.bind(str(far_place / DIRECTORY / "host.sock"))
    (far_place / DIRECTORY / "host.log").write_text("Traceback\nMemoryError\n")
    left = await ask("look", NAME, place=far_place)
    done = await run(relay_errand(NAME), far_place)
    ended = await ask("end", NAME, place=far_place)

    assert (str(far_place / DIRECTORY), False, "MemoryError") == (left["left"], left["listens"], left["log"])
    assert 3 == done.returncode
    assert {"left": str(far_place / DIRECTORY)}.items() <= dict(read_answer(done.stderr.decode()) or {}).items()
    assert ended["left"] is None


async def test_relay_to_what_was_never_there_says_so(far_place: Path) -> None:
    """Where there is no directory of that name, that is told with how long the machine has been running."""
    done = await run(relay_errand(NAME), far_place)
    answer = read_answer(done.stderr.decode())

    assert (3, b"") == (done.returncode, done.stdout)
    assert answer is not None
    assert answer["left"] is None
    assert answer["uptime"] > 0


async def test_place_that_cannot_be_used_is_told(far_place: Path) -> None:
    """A survey says why no host could listen there, and leaves nothing behind where one could."""
    found = await ask("survey", place=far_place)

    assert (sys.executable, None) == (found["python"], found["problem"])
    assert ".".join(map(str, sys.version_info[:3])) == found["version"]
    assert [] == list(far_place.iterdir())


def install(place: Path, name: str, document: object) -> Path:
    """Install a kernel in a directory of Jupyter's."""
    folder = place / "kernels" / name
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(document))
    return folder


async def test_kernels_are_listed_with_what_stands_in_them_filled_in(private_place: Path, far_place: Path) -> None:
    """The first place wins, placeholders and variables are those of that machine, and a broken one takes none away."""
    first, user = private_place / "first", private_place / "user" / "jupyter"
    argv = ["prog", "{resource_dir}/x", "{connection_file}"]
    folder = install(first, "One", {"argv": argv, "env": {"A": "$B/a", "C": "$$$UNKNOWN"}, "display_name": "One"})
    install(user, "one", {"argv": ["other"]})
    install(user, "two", {"argv": ["two"], "interrupt_mode": "message", "metadata": {"debugger": True}})
    install(user, "broken", {"argv": "no list"})
    (user / "kernels" / "empty").mkdir()
    answer = await ask("kernelspecs", place=far_place, JUPYTER_PATH=str(first), XDG_DATA_HOME=str(user.parent), B="b")
    found = answer["kernelspecs"]

    assert ["prog", f"{folder}/x", "{connection_file}"] == found["one"]["argv"]
    assert {"A": "b/a", "C": "$$UNKNOWN"} == found["one"]["env"]
    assert ("message", {"debugger": True}) == (found["two"]["interrupt_mode"], found["two"]["metadata"])
    assert ["broken"] == list(answer["broken"])
    assert "argv must be a list of words" in answer["broken"]["broken"]


async def test_own_kernel_of_that_python_is_listed(private_place: Path, far_place: Path) -> None:
    """Where ipykernel is installed there is a `python3`, run by that very Python."""
    answer = await ask("kernelspecs", place=far_place, JUPYTER_DATA_DIR=str(private_place))

    assert sys.executable == answer["kernelspecs"]["python3"]["argv"][0]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"left": None, "uptime": 50.0}, "far was started anew 50 seconds ago, which ended all that ran there"),
        ({"left": "/tmp/k", "uptime": 300.0}, "far was started anew 5 minutes ago, which ended all that ran there"),
        ({"left": "/tmp/k", "uptime": 90000.0}, "its host was ended on far; the log in /tmp/k says nothing"),
        (
            {"left": "/tmp/k", "log": "MemoryError", "uptime": 90000.0},
            "its host was ended on far; the log in /tmp/k ends with: MemoryError",
        ),
        ({"left": None, "uptime": 90000.0}, "its host was ended on far, and has left nothing there"),
        ({}, "its host was ended on far, and has left nothing there"),
    ],
)
def test_what_is_left_says_why_a_host_is_gone(left: dict[str, object], words: str) -> None:
    """A machine that has run for less time than the kernel was started anew; a directory alone is a killed host's."""
    assert words == describe_gone(left, "far", 10_000.0)


@pytest.mark.parametrize("said", ["", "Welcome!\n", "kallichore: {\n", "kallichore: 7\n"])
def test_answer_that_is_none_is_not_taken_for_one(said: str) -> None:
    """What a login shell prints, or half of a line, is no answer."""
    assert read_answer(said) is None


def test_answer_is_found_behind_what_others_print() -> None:
    """A login shell may greet first, without an end of its line."""
    assert {"a": 1} == read_answer('Welcome!\nto you\nkallichore: {"a": 1}\nbye')
