"""Why a kernel did not start: one word for programs, out of a documented list, and a hint for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiError
from kallichore.errors import HINTS, StartupReason
from kernels import REAL_TIME, body, open_client, scripted_argv

shells = pytest.mark.posix_only("shells around kernels")


def python(code: str) -> list[str]:
    """Return a command line that runs code."""
    return [sys.executable, "-S", "-c", f"import os, sys, time; {code}"]


async def reason_of(request: dict[str, Any]) -> str:
    """Return the reason of a start that fails; its hint goes with it."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", request)
        with trio.fail_after(REAL_TIME), pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")
    answer = refused.value.body
    assert HINTS[StartupReason(answer["reason"])] == answer["hint"]
    assert answer["hint"] in str(refused.value)
    return str(answer["reason"])


def make_file(path: Path, text: str, mode: int) -> str:
    """Write a file with a mode, and return its path."""
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.posix_only("permissions to execute, and interpreters in first lines")
async def test_program_that_cannot_be_run_is_told_apart(private_place: Path) -> None:
    """A file that is no program, and a program whose interpreter is not there, have their own reasons."""
    script = make_file(private_place / "kernel", "#!/no/such/interpreter\n", 0o700)
    binary = make_file(private_place / "binary", "\x7fELF?", 0o700)

    plain = make_file(private_place / "plain", "", 0o600)

    assert "not_executable" == await reason_of(body(argv=[plain]))
    assert "bad_interpreter" == await reason_of(body(argv=[script]))
    assert "bad_interpreter" == await reason_of(body(argv=[binary]))
    assert "bad_argument" == await reason_of(body(argv=["/bin/true", "a\0b"]))
    assert "no_argv" == await reason_of(body(argv=[]))


async def test_directory_that_is_closed_since_the_plan_is_named(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system refuses is the directory, not the program; the error says which."""
    shut = private_place / "shut"
    shut.write_text("")
    monkeypatch.setattr("kallichore.server.server.can_enter", lambda _: True)
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(working_directory=str(shut)))
        with pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")

    assert "no_directory" == refused.value.body["reason"]
    assert f"in the directory {shut}: " in str(refused.value)


async def test_program_that_is_gone_since_the_creation_is_not_found(private_place: Path) -> None:
    """The creation looks for the program; it may be gone by the time of the start."""
    script = Path(make_file(private_place / "kernel.exe", "", 0o700))
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=[str(script)]))
        script.unlink()
        with pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")

    assert "not_found" == refused.value.body["reason"]


@pytest.mark.parametrize(
    ("request_members", "reason"),
    [
        ({"argv": python("sys.exit(3)")}, "exited"),
        pytest.param(
            {"argv": python("os.kill(os.getpid(), 9)")}, "killed", marks=pytest.mark.posix_only("an end by a signal")
        ),
        ({"argv": python("time.sleep(60)"), "connection_timeout": 1}, "not_connected"),
        pytest.param(
            {"startup_environment": "command", "startup_environment_arg": "exit 4"}, "startup_failed", marks=shells
        ),
        pytest.param(
            {"startup_environment": "script", "startup_environment_arg": "/no/such/script"},
            "script_missing",
            marks=shells,
        ),
        ({"argv": python("time.sleep(60)"), "connection_timeout": 1, "protocol_version": "5.5"}, "not_registered"),
    ],
)
async def test_start_that_fails_has_a_reason(request_members: dict[str, Any], reason: str) -> None:
    """What did not happen on the way from the process to its answer is named."""
    assert reason == await reason_of(body(**{"argv": list(scripted_argv()), **request_members}))


async def test_channels_that_never_answered_are_named() -> None:
    """A kernel that binds none of its sockets is told with their names, and for how long they were waited for."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=python("time.sleep(60)"), connection_timeout=1))
        with pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")

    message = refused.value.body["error"]["message"]
    assert all(name in message for name in ("shell", "iopub", "stdin", "control", "1 seconds"))


async def test_second_start_is_told_apart() -> None:
    """A start of what runs is another matter than one that fails."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        with pytest.raises(ApiError) as refused:
            await client.call("POST", "/sessions/s/start")

    assert "running_already" == refused.value.body["reason"]


def test_every_reason_has_a_hint() -> None:
    """None is without a word for people."""
    assert set(StartupReason) == set(HINTS)
