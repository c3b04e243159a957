"""Startup environments in real shells: every argument arrives as it was, and the kernel is the process we started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kallichore.kernel.output import StartupRecord
from kallichore.kernel.shell_wrapper import choose_shell, wrap
from kallichore.models.bodies import StartupEnvironment

SHELLS = ("bash", "sh", "dash", "zsh", "csh", "tcsh", "fish")

# It ends by itself, so that what is captured is all there is.
PROGRAM = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getpid(), os.environ.get('KALLICHORE_TEST')]))"

ARGUMENTS = [
    "plain",
    "",
    "two words",
    "it's",
    '"quoted"',
    "back\\slash \\\\ \\n",
    "$HOME `id` $(id)",
    "~",
    "#no comment",
    "bang! !! !x",
    "line\nbreak",
    "* ? [a] {b,c} (d) <e> |f| ;g &",
    "é ü 漢字 🎉",
    "-x",
    "a=b",
    "%s %%",
    "tab\there",
]

SET_VARIABLE = {"csh": "setenv KALLICHORE_TEST 'a b'", "fish": "set -gx KALLICHORE_TEST 'a b'"}
SET_VARIABLE["tcsh"] = SET_VARIABLE["csh"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, private_place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a shell's path; sh and bash are everywhere, the others where they are installed."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"{request.param} is not installed")
    # Nobody's own startup files.
    for variable in ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(private_place))
    (private_place / ".zshrc").touch()
    return str(path)


def launch(argv: tuple[str, ...]) -> tuple[Any, StartupRecord, int, int]:
    """Run a command line; return what the program printed, the record of the start, the exit code and our child."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, _ = process.communicate(timeout=20)
    record = StartupRecord()
    lines = [line for line in output.decode().splitlines() if record.add(line)]
    found = json.loads(lines[-1]) if lines and lines[-1].startswith("[") else None
    return found, record, process.returncode, process.pid


def program(*arguments: str) -> list[str]:
    """Return the command line of a program that tells how it was started."""
    return [sys.executable, "-c", PROGRAM, *arguments]


@pytest.mark.parametrize("mode", [StartupEnvironment.NONE, StartupEnvironment.SHELL])
def test_every_argument_arrives_as_it_was(shell: str, mode: StartupEnvironment) -> None:
    """Quotes, blanks, wildcards, history marks and line breaks are nothing to the shell; the shell itself is gone."""
    wrapped = wrap(program(*ARGUMENTS), mode, None, shell)
    found, _, code, pid = launch(wrapped.argv)

    assert ([ARGUMENTS, pid, None], 0) == (found, code)


def test_command_runs_before_the_kernel_in_the_same_shell(shell: str) -> None:
    """What the command sets is there, also if it ends in a comment; the kernel takes the shell's place."""
    name = os.path.basename(shell)
    command = SET_VARIABLE.get(name, "export KALLICHORE_TEST='a b'") + ("" if "csh" in name else " # a comment")
    wrapped = wrap(program(*ARGUMENTS), StartupEnvironment.COMMAND, command, shell)
    found, record, code, pid = launch(wrapped.argv)

    assert ([ARGUMENTS, pid, "a b"], 0) == (found, code)
    assert (record.began, record.succeeded) == (True, True)


def test_script_is_sourced(shell: str, private_place: Path) -> None:
    """A script needs no execute permission, may have an odd name, and what it sets is there."""
    script = private_place / "it's a $script!.sh"
    script.write_text(SET_VARIABLE.get(os.path.basename(shell), "export KALLICHORE_TEST='a b'") + "\n")
    wrapped = wrap(program(), StartupEnvironment.SCRIPT, str(script), shell)
    found, record, code, pid = launch(wrapped.argv)

    assert ([[], pid, "a b"], 0) == (found, code)
    assert (record.began, record.succeeded) == (True, True)


@pytest.mark.parametrize("command", ["false", "no-such-command-at-all", "sh -c 'exit 7'"])
def test_command_that_fails_keeps_the_kernel_from_starting(shell: str, command: str) -> None:
    """The record tells that the command began and did not succeed, and the kernel never ran."""
    wrapped = wrap(program(), StartupEnvironment.COMMAND, command, shell)
    found, record, code, _ = launch(wrapped.argv)

    assert (found, record.began, record.succeeded) == (None, True, False)
    assert code != 0


def test_command_that_ends_the_shell_keeps_the_kernel_from_starting(shell: str) -> None:
    """An ``exit`` in the command is the end of everything."""
    wrapped = wrap(program(), StartupEnvironment.COMMAND, "exit 3", shell)
    found, record, code, _ = launch(wrapped.argv)

    assert (found, record.succeeded, code) == (None, False, 3)


def test_command_that_is_no_shell_code_keeps_the_kernel_from_starting(shell: str) -> None:
    """A syntax error ends the shell before the kernel."""
    wrapped = wrap(program(), StartupEnvironment.COMMAND, "( ( '", shell)
    found, record, _, _ = launch(wrapped.argv)

    assert (found, record.succeeded) == (None, False)


def test_macos_library_path_reaches_the_kernel(shell: str) -> None:
    """What a login shell of macOS loses is set again inside of it."""
    telling = ["env"]
    wrapped = wrap(telling, StartupEnvironment.SHELL, None, shell, library_path="/a b:/it's")
    output = subprocess.run(wrapped.argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=True).stdout

    assert b"DYLD_LIBRARY_PATH=/a b:/it's" in output.splitlines()


@pytest.mark.parametrize(
    ("mode", "argument", "word"),
    [
        (StartupEnvironment.SHELL, "ignored", "takes no argument"),
        (StartupEnvironment.COMMAND, None, "has no argument"),
        (StartupEnvironment.SCRIPT, "", "has no argument"),
    ],
)
def test_argument_that_does_not_fit_the_mode_is_a_warning(
    mode: StartupEnvironment, argument: str | None, word: str
) -> None:
    """The kernel gets a login shell, and the log says why."""
    wrapped = wrap(["k"], mode, argument, "/bin/bash")

    assert ("/bin/bash", "--login", "-c", "exec k") == wrapped.argv
    assert word in (wrapped.warning or "")


@pytest.mark.parametrize(
    ("server_shell", "there", "chosen"),
    [
        ("/bin/zsh", {"/bin/zsh", "/bin/bash"}, "/bin/zsh"),
        ("/nowhere", {"/bin/bash", "/bin/sh"}, "/bin/bash"),
        ("", {"/bin/sh"}, "/bin/sh"),
        (None, set(), None),
    ],
)
def test_shell_is_the_servers_or_the_next_best(server_shell: str | None, there: set[str], chosen: str | None) -> None:
    """SHELL where it is there, then bash, then sh; without any the kernel runs bare."""
    shell = choose_shell(server_shell, there.__contains__)

    assert chosen == shell
    assert (("k",) == wrap(["k"], StartupEnvironment.SHELL, None, shell).argv) == (chosen is None)
