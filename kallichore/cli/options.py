"""Options and arguments that several commands have, and what is made of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from kallichore.cli.ending import WrongUseError, say
from kallichore.cli.names import complete_kernel, complete_session
from kallichore.cli.target import Target
from kallichore.client.server import NewKernel
from kallichore.config import MOST_WARM

Command = TypeVar("Command", bound=Callable[..., Any])

pass_target = click.make_pass_decorator(Target)

session_option = click.option(
    "-s", "--session-id", shell_complete=complete_session,
    help="The session. If left out it is the server's only one, or you are asked.",
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

limit_option = click.option(
    "--timeout", "limit", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="How long the code may run; then it is interrupted, and the exit code is 124.",
)  # fmt: skip

images_option = click.option(
    "--images", "images", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
    help="Where images are put; a temporary folder if left out.",
)  # fmt: skip

spares_option = click.option(
    "--spares", type=click.IntRange(0, MOST_WARM), metavar="N",
    help="Keep N kernels like its own ready, so that a restart need not wait for a start.",
)  # fmt: skip

take_over_option = click.option(
    "--take-over", is_flag=True, help="Displace the client that has the session, rather than join it."
)


def kernel_option(function: Command) -> Command:
    """Add the option for a new session's kernel."""
    return click.option(
        "-k", "--kernel", shell_complete=complete_kernel, help="An installed kernel.  [default: python3]"
    )(function)


def new_session_options(*names: str) -> Callable[[Command], Command]:
    """Return what adds the options of a new session: where it starts, with which variables, and how long it may take.

    Args:
        names: Other names of ``--start-timeout``.
    """
    options = (
        click.option(
            "--cwd", type=click.Path(), metavar="FOLDER", help="Where its kernel starts; here if left out."
        ),
        click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for its kernel; may be repeated."),
        click.option(
            "--start-timeout", *names, "start_timeout", type=click.IntRange(0), default=30, show_default=True,
            metavar="SECONDS",
            help="How long the kernel may take to start and answer; 0 for no limit, as long as its process lives.",
        ),
        click.option(
            "--engine", metavar="PROFILE",
            help="Where it runs: a profile of the server's, see kcclient engines; local for its own machine.",
        ),
    )  # fmt: skip

    def add(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def new_kernel(
    spec: Any,
    cwd: str | None,
    env: tuple[str, ...],
    start_timeout: int,
    spares: int | None = None,
    engine: str | None = None,
) -> NewKernel:
    """Return a kernel that is to be started.

    Args:
        spec: Its `KernelSpec`; its own variables come first.
        cwd: Where it is to start.
        env: ``NAME=VALUE`` each.
        start_timeout: Seconds, 0 for any.
        spares: How many like it are to be ready for its restarts.
        engine: The profile of the engine that runs it; None for where its kernelspec says.

    Raises:
        WrongUseError: A variable has no name or no value.
    """
    pairs = [text.partition("=") for text in env]
    for name, sign, value in pairs:
        if not name or not sign:
            raise WrongUseError(f"--env {name + sign + value!r} has to be NAME=VALUE")

    def make_request(session_id: str) -> Any:
        from kallichore.models.bodies import VarAction, VarActionType

        spec_there = spec if engine is None else attrs.evolve(spec, engine=_engine(engine))
        if spec_there.engine is not None:
            # Another machine has directories of its own.
            directory = cwd or ""
        else:
            directory = _current_directory() if cwd is None else os.path.abspath(cwd)
        request = spec_there.new_session(
            session_id, working_directory=directory, connection_timeout=start_timeout or -1
        )
        variables = (VarAction(VarActionType.REPLACE, name, value) for name, _, value in pairs)
        return attrs.evolve(request, env=(*request.env, *variables), spares=spares)

    return NewKernel(spec.name, cwd, {name: value for name, _, value in pairs}, start_timeout, make_request)


def _engine(profile: str) -> dict[str, str] | None:
    return None if profile == "local" else {"profile": profile}


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        say(f"The current directory is gone or closed ({error.strerror}); the kernel starts elsewhere")
        return os.path.expanduser("~")


def read_code(argument: str | None, code: str | None) -> str:
    """Return the code that a command is to run.

    Code is UTF-8, whatever the locale takes it for; what is none is replaced.

    Args:
        argument: Code, the name of a file of it, or ``-`` for standard input.
        code: What is code in any case; ``-`` is standard input here, too.

    Raises:
        click.UsageError: There is none, or there are two.
    """
    if argument is not None and code is not None:
        raise click.UsageError("The code was given twice, as an argument and with -c; give one of them")
    text = argument if code is None else code
    if text is None:
        raise click.UsageError("There is no code: give it as an argument or with -c, or '-' for standard input")
    if text == "-":
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    if code is None and _is_file(text):
        return Path(text).read_bytes().decode("utf-8", "replace")
    return os.fsencode(text).decode("utf-8", "replace")


def _is_file(text: str) -> bool:
    try:
        return os.path.isfile(text)
    except (OSError, ValueError):
        return False
