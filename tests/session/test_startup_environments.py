"""Startup environments from end to end: real shells, kernels behind them, and what a client of the API is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import make_execute_request
from kernels import (
    REAL_TIME,
    body,
    execute,
    has_ended,
    is_done,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
)

pytestmark = pytest.mark.posix_only("shells around kernels")

ALWAYS = ("bash", "sh", "dash")
SHELLS = (*ALWAYS, "zsh", "fish", "csh", "tcsh")

LOGIN_FILES = {
    "bash": ".bash_profile",
    "zsh": ".zprofile",
    "fish": "fish/config.fish",
    "csh": ".cshrc",
    "tcsh": ".tcshrc",
    "sh": ".profile",
    "dash": ".profile",
}
"""What a login shell reads of its user's. (csh is told ``-d``, which leaves it at the file that it always reads.)"""

INTERACTIVE_FILES = {**LOGIN_FILES, "zsh": ".zshrc", "sh": ".shinit", "dash": ".shinit"}
"""What a login shell reads that is interactive as well. (bash leaves its ``.bashrc`` to the profile, as usual.)"""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, private_place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a shell the server's own, and return its name; its user has no startup files yet."""
    path = shutil.which(request.param)
    if path is None and request.param not in ALWAYS:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv("SHELL", path or "")
    for variable in ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(private_place))
    monkeypatch.setenv("ENV", str(private_place / ".shinit"))
    # Without one, zsh would ask its new user questions.
    (private_place / ".zshrc").touch()
    return str(request.param)


only_bash = pytest.mark.parametrize("shell", ["bash"], indirect=True)


def set_variable(shell: str, name: str = "KALLICHORE_TEST", value: str = "a b") -> str:
    """Return how a variable is set for the shell's children."""
    if shell == "fish":
        return f"set -gx {name} '{value}'"
    return f"setenv {name} '{value}'" if "csh" in shell else f"export {name}='{value}'"


def staged(mode: str, argument: str | None, *behaviours: str, **members: Any) -> dict[str, Any]:
    """Return the body of a session whose kernel starts in a startup environment."""
    return body("s", *behaviours, startup_environment=mode, startup_environment_arg=argument, **members)


async def fail_to_start(client: ApiClient, request: dict[str, Any]) -> Any:
    """Create a session, start it in vain, and return the body of the answer."""
    await client.call("PUT", "/sessions", request)
    with trio.fail_after(REAL_TIME), pytest.raises(ApiError) as info:
        await client.call("POST", session_path("s", "start"))
    assert info.value.status == 500
    described = await client.call("GET", session_path("s"))
    assert described["status"] == "exited"
    assert "process_id" not in described
    return info.value.body


# Starts that succeed


@pytest.mark.parametrize("mode", ["command", "script"])
async def test_what_runs_before_sets_what_the_kernel_sees(shell: str, mode: str, private_place: Path) -> None:
    """A command's or script's variable reaches the kernel, its output the client, and the markers nobody.

    What it prints last has no line ending, so that a marker follows it in the same line.
    """
    argument = f"{set_variable(shell)}; echo one line; printf unfinished"
    if mode == "script":
        script = private_place / "it's a $script"
        script.write_text(argument.replace("; ", "\n") + "\n")
        argument = str(script)
    async with open_client() as client, open_started(client, staged(mode, argument)) as channel:
        messages = await execute(channel, "env KALLICHORE_TEST")
        log = await client.call("GET", session_path("s", "logs"))
    outputs = [message["output"][1] for message in messages if "output" in message]

    assert text_of(messages) == "a b"
    assert "one line\n" in outputs
    assert "unfinished" in outputs
    assert "KALLICHORE_STARTUP" not in json.dumps([messages, log])


@pytest.mark.parametrize(("mode", "argument"), [("shell", None), ("command", "true")])
async def test_kernel_is_the_process_that_is_signalled(shell: str, mode: str, argument: str | None) -> None:
    """The kernel has the session's process id and leads its group; no shell is left that would get its signals."""
    request = staged(mode, argument, interrupt_mode="signal")
    async with open_client() as client, open_started(client, request) as channel:
        pid = (await client.call("GET", session_path("s")))["process_id"]
        own_pid, group, _ = (await run_code(channel, "pid")).split()
        assert (pid, pid) == (int(own_pid), int(group))
        msg_id = await channel.send(make_execute_request("sleep 600"))
        await receive_until(channel, is_type("execute_input", msg_id))
        await client.call("POST", session_path("s", "interrupt"))
        reply = next(filter(is_type("execute_reply"), await receive_until(channel, is_done(msg_id))))
        status = await trio.Path(f"/proc/{pid}/status").read_text()

    assert reply["content"]["ename"] == "KeyboardInterrupt"
    # Interactive shells ignore signals that a kernel has to end by, and what is ignored is inherited.
    unheard = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigBlk"))]
    deadly = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    assert [] == [number.name for number in deadly for mask in unheard if mask >> (number - 1) & 1]


@pytest.mark.parametrize(
    ("mode", "argument", "files"),
    [("shell", None, LOGIN_FILES), ("command", "true", LOGIN_FILES), ("command", "true", INTERACTIVE_FILES)],
    ids=["shell", "login", "interactive"],
)
async def test_users_own_startup_files_are_read(
    shell: str, mode: str, argument: str | None, files: dict[str, str], private_place: Path
) -> None:
    """A login shell has what the user's profile sets; before a command it has what their rc file sets as well.

    Such a file may print what it likes; here it is a line that does not end.
    """
    file = private_place / files[shell]
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"printf 'from the file'\n{set_variable(shell)}\n")
    async with open_client() as client, open_started(client, staged(mode, argument)) as channel:
        messages = await execute(channel, "env KALLICHORE_TEST")

    assert text_of(messages) == "a b"
    assert "KALLICHORE_STARTUP" not in json.dumps(messages)


@only_bash
@pytest.mark.parametrize("working_directory", ["", "work", "~/work"])
async def test_script_is_found_from_the_working_directory(
    shell: str, working_directory: str, private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script's relative path counts from the session's directory, itself relative or from home, or the server's."""
    monkeypatch.chdir(private_place)
    folder = private_place / working_directory.removeprefix("~/")
    folder.mkdir(exist_ok=True)
    (folder / "setup").write_text(set_variable(shell) + "\n")
    # A bare name would be looked for here first.
    trap = private_place / "bin"
    trap.mkdir()
    (trap / "setup").write_text(set_variable(shell, value="the wrong one") + "\n")
    monkeypatch.setenv("PATH", f"{trap}{os.pathsep}{os.environ['PATH']}")
    request = staged("script", "setup", working_directory=working_directory)
    async with open_client() as client, open_started(client, request) as channel:
        assert await run_code(channel, "env KALLICHORE_TEST\nprint \ncwd") == f"a b\n{folder}"


# Starts that fail


async def test_failure_before_the_kernel_is_told_from_one_of_the_kernel(shell: str, private_place: Path) -> None:
    """The diagnosis names shell and command, and says that it failed, or that it succeeded and the kernel failed."""
    no_kernel = private_place / "no-kernel"
    async with open_client() as client:
        failed = await fail_to_start(client, staged("command", f"echo {no_kernel}; false"))
        await client.call("DELETE", session_path("s"))
        succeeded = await fail_to_start(client, staged("command", "printf unfinished", "exit-at-start=4"))
    path = os.environ["SHELL"]
    first, second = (answer["error"]["details"].splitlines() for answer in (failed, succeeded))

    assert [f"Shell: {path}", f"Startup command: echo {no_kernel}; false"] == first[:2]
    assert first[2:] == ["The startup command failed, so the kernel was not started."]
    assert (failed["error"]["code"], failed["exit_code"] != 0) == ("KS-8", True)
    assert str(no_kernel) in failed["output"]
    assert "last words" not in failed["output"]
    assert second[2].startswith("The startup command succeeded. The kernel ")
    assert (succeeded["error"]["code"], succeeded["exit_code"]) == ("KS-8", 4)
    assert {"unfinished", "last words on stdout"} <= set(succeeded["output"].splitlines())
    assert "KALLICHORE_STARTUP" not in json.dumps([failed, succeeded])


async def test_script_that_fails_keeps_the_kernel_from_starting(shell: str, private_place: Path) -> None:
    """What the last line of a script says counts, and the diagnosis names the script."""
    script = private_place / "setup"
    script.write_text("echo trying\nfalse\n")
    async with open_client() as client:
        answer = await fail_to_start(client, staged("script", str(script)))

    assert f"Startup script: {script}\nThe startup script failed" in answer["error"]["details"]
    assert "trying" in answer["output"]


async def test_script_that_is_missing_fails_the_start_before_any_process() -> None:
    """A missing script is KS-5, names the path, and has neither exit code nor output."""
    async with open_client() as client:
        answer = await fail_to_start(client, staged("script", "/no/such/script"))

    assert not {"exit_code", "output"} & answer.keys()
    assert answer["error"]["code"] == "KS-5"
    assert "/no/such/script" in answer["error"]["message"]


@only_bash
async def test_shell_that_ends_in_its_own_startup_file_is_told(shell: str, private_place: Path) -> None:
    """A user's rc file that ends the shell is not blamed on the command, which never ran."""
    (private_place / ".bash_profile").write_text("exit 3\n")
    async with open_client() as client:
        answer = await fail_to_start(client, staged("command", "echo never"))

    assert answer["exit_code"] == 3
    assert "The shell ended before the startup command could run." in answer["error"]["details"]
    assert "never" not in answer["output"]


@only_bash
@pytest.mark.parametrize(
    ("hanging", "late"),
    [("command", "startup command"), (".bash_profile", "shell's own startup")],
    ids=["command", "shell"],
)
async def test_what_does_not_end_in_time_is_ended_and_told(
    shell: str, hanging: str, late: str, private_place: Path
) -> None:
    """A command or an rc file that hangs is no failure of theirs yet: time was up, and nothing of them is left."""
    hang = "echo $$; while :; do sleep 600; done"
    if hanging == ".bash_profile":
        (private_place / ".bash_profile").write_text(hang + "\n")
    command = hang if hanging == "command" else "true"
    async with open_client(terminate_grace=0.5) as client:
        answer = await fail_to_start(client, staged("command", command, connection_timeout=1))
    pid = next(int(line) for line in answer["output"].splitlines() if line.isdigit())

    assert (answer["error"]["code"], answer["exit_code"]) == ("KS-7", 130)
    assert f"The {late} did not end in time, so the kernel was not started." in answer["error"]["details"]
    assert has_ended(pid)
