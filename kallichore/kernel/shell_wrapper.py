"""The command line that starts a kernel inside a shell. [pure]

A login shell gives a kernel the environment that a terminal would have; a command or a script before it (``conda
activate``, ``module load``) gives it another, and runs as if it were typed into a new terminal: in a login shell that
is interactive, since ``conda`` and the like are functions that either kind of startup file may define.

Each wrapper ends in ``exec``, so that the process that we watch and signal is the kernel and not a shell in front of
it. For command and script two marker lines tell how far the shell got.

The quoting is right for every argument in each family of shells: POSIX (sh, bash, dash, zsh, ksh and unknown ones), csh
and tcsh, and fish. The user's command is passed on word for word, on lines of its own, so that it may end in a comment
(where the shell has comments in commands; csh has not).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import attrs

from kallichore.models.bodies import StartupEnvironment

BEGIN_MARKER = "KALLICHORE_STARTUP_BEGIN"
SUCCESS_MARKER = "KALLICHORE_STARTUP_SUCCESS"

FALLBACK_SHELLS = ("/bin/bash", "/bin/sh")

_LOGIN_FLAGS = {"bash": "--login", "zsh": "--login", "csh": "-d", "tcsh": "-d"}
_OTHER_LOGIN_FLAG = "-l"


@attrs.frozen
class _Dialect:
    """How a family of shells writes things."""

    quote: Callable[[str], str]
    stages: str
    """The template with a command before the kernel."""
    source: str
    set_variable: str
    evaluate: str = "{command}"


def _quote_csh(text: str) -> str:
    # History expansion reaches into single quotes, and a line cannot end inside them.
    quoted = text.replace("'", "'\\''").replace("!", "\\!").replace("\n", "\\\n")
    return f"'{quoted}'"


def _quote_fish(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


_POSIX = _Dialect(
    quote=shlex.quote,
    stages="echo '{begin}' && {{ {command}\n}} && echo '{success}' && {kernel}",
    source=". {path}",
    set_variable="export {name}={value} && {kernel}",
)
# csh knows no grouping that stays in the same shell, and goes on with the next line after an `exit`: so it is all one
# line, and the command is evaluated.
_CSH = _Dialect(
    quote=_quote_csh,
    stages="echo '{begin}' && {command} && echo '{success}' && {kernel}",
    source="source {path}",
    set_variable="setenv {name} {value} && {kernel}",
    evaluate="eval {quoted}",
)
_FISH = _Dialect(
    quote=_quote_fish,
    stages="echo '{begin}'; and begin\n{command}\nend; and echo '{success}'; and {kernel}",
    source="source {path}",
    set_variable="set -gx {name} {value}; and {kernel}",
)
_DIALECTS = {"csh": _CSH, "tcsh": _CSH, "fish": _FISH}


@attrs.frozen
class Wrapped:
    """A command line, and what is known of how it starts."""

    argv: tuple[str, ...]
    shell: str | None = None
    """The shell in front of the kernel, if there is one."""
    stage: str | None = None
    """``command`` or ``script`` where one runs before the kernel, between marker lines."""
    warning: str | None = None


def choose_shell(server_shell: str | None, exists: Callable[[str], bool]) -> str | None:
    """Return the shell for startup environments: the server's own, else bash, else sh; None if there is none.

    Args:
        server_shell: ``SHELL`` of the server's environment; a session's environment does not matter.
        exists: Whether a path is there.
    """
    candidates = (server_shell, *FALLBACK_SHELLS)
    return next((shell for shell in candidates if shell and exists(shell)), None)


def wrap(
    argv: Sequence[str],
    mode: StartupEnvironment,
    argument: str | None,
    shell: str | None,
    *,
    library_path: str | None = None,
) -> Wrapped:
    """Return the command line that starts ``argv`` in a startup environment.

    Args:
        argv: The kernel's own command line.
        mode: The startup environment.
        argument: The command, or the script's absolute path; without one the kernel gets a login shell.
        shell: The shell's path; None if there is none, and then the kernel runs without.
        library_path: ``DYLD_LIBRARY_PATH`` for the kernel; macOS takes it away when a login shell starts.
    """
    if mode is StartupEnvironment.NONE or shell is None:
        missing = mode is not StartupEnvironment.NONE
        return Wrapped(tuple(argv), warning="There is no shell; the kernel starts without" if missing else None)
    name = PurePosixPath(shell).name
    dialect = _DIALECTS.get(name, _POSIX)
    kernel = "exec " + " ".join(dialect.quote(word) for word in argv)
    if library_path is not None:
        value = dialect.quote(library_path)
        kernel = dialect.set_variable.format(name="DYLD_LIBRARY_PATH", value=value, kernel=kernel)
    login = _LOGIN_FLAGS.get(name, _OTHER_LOGIN_FLAG)
    if mode is StartupEnvironment.SHELL:
        warning = "A startup environment of mode shell takes no argument; it is ignored" if argument else None
        return Wrapped((shell, login, "-c", kernel), shell, warning=warning)
    if not argument:
        warning = f"The startup environment of mode {mode.value} has no argument; the kernel gets a login shell"
        return Wrapped((shell, login, "-c", kernel), shell, warning=warning)
    quoted = dialect.quote(argument)
    if mode is StartupEnvironment.COMMAND:
        command = dialect.evaluate.format(command=argument, quoted=quoted)
    else:
        command = dialect.source.format(path=quoted)
    script = dialect.stages.format(begin=BEGIN_MARKER, success=SUCCESS_MARKER, command=command, kernel=kernel)
    return Wrapped((shell, login, "-i", "-c", script), shell, mode.value)
