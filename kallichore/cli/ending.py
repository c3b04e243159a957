"""How a command ends: an async command run to its exit code, and what fails said in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

import click
import h11
import trio

from kallichore.cli import escapes, exit_codes
from kallichore.errors import KallichoreError, innermost

NO_ANSWER = (h11.RemoteProtocolError, trio.BrokenResourceError)
"""What comes of a server that ends while it is asked, and of something else that listens at its address."""


class WrongUseError(KallichoreError):
    """A command line that cannot be meant; the message says how it is done right."""


def run_to_exit(act: Callable[[], Awaitable[int | None]]) -> None:
    """Run an async command to the exit code that it returns; what fails is said on standard error."""
    try:
        code = trio.run(act)
    except (KeyboardInterrupt, BaseExceptionGroup, KallichoreError, OSError, *NO_ANSWER) as error:
        code = _complain(innermost(error))
    sys.exit(code or exit_codes.WORKED)


def _complain(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt():
            return exit_codes.INTERRUPTED
        case WrongUseError():
            say_error(str(error))
            return exit_codes.WRONG_USE
        case KallichoreError():
            output = getattr(error, "output", None)
            say_error(f"{error}\n{output}" if output else str(error))
        case BrokenPipeError():
            # Whoever read our output has seen enough. Nothing is left to be written at the end of the process.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return exit_codes.WORKED
        case ConnectionError():
            say_error(f"{error}; is it running? To start one: kcserver --connection-file FILE")
        case OSError():
            say_error(str(error))
        case _ if isinstance(error, NO_ANSWER):
            say_error(f"The server ended, or is no Kallichore server: {error}")
        case _:
            raise error
    return exit_codes.FAILED


def say_error(text: str) -> None:
    """Say on standard error what went wrong."""
    click.echo(f"Error: {escapes.lines(text)}", err=True)


def say(text: str) -> None:
    """Say something on standard error, beside what a command prints."""
    click.echo(escapes.lines(text), err=True)
