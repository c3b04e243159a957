"""From a session's request to what is launched: command line, environment, directory. [pure]

Whether files exist is asked through arguments, so that a plan can be read and tested without a disk. Seam: a launcher
other than a local process (a provisioner, a batch system) would take the same plan.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b

import attrs

from kallichore.errors import StartupError, StartupReason
from kallichore.kernel.environment import apply_actions
from kallichore.kernel.shell_wrapper import choose_shell, wrap
from kallichore.models.bodies import NewSession, StartupEnvironment, VarAction

CONNECTION_FILE = "{connection_file}"

Check = Callable[[str], bool]


@attrs.frozen(kw_only=True)
class LaunchPlan:
    """What to launch. ``program`` is the kernel's own, ``argv`` has a shell around it where one is wanted."""

    argv: tuple[str, ...]
    program: str
    environment: dict[str, str] = attrs.field(repr=False)
    working_directory: str | None
    shell: str | None = None
    stage: str | None = None
    stage_argument: str | None = None
    warnings: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Surroundings:
    """What a plan depends on besides the request: the machine, as questions.

    Attributes:
        environment: What every kernel's environment starts from.
        home: The user's home directory, for ``~``.
        platform: As ``sys.platform``.
        exists, is_file, is_directory: Whether a path is there, and what.
    """

    environment: Mapping[str, str]
    home: str
    platform: str
    exists: Check
    is_file: Check
    is_directory: Check

    def expand(self, path: str) -> str:
        """Return ``path`` with a leading ``~`` replaced by the home directory."""
        return self.home + path[1:] if path == "~" or path.startswith("~/") else path


def make_launch_plan(
    request: NewSession,
    *,
    actions: Iterable[VarAction],
    connection_file: str,
    working_directory: str,
    surroundings: Surroundings,
    inherited: Mapping[str, str] | None = None,
) -> LaunchPlan:
    """Plan a kernel's launch.

    Args:
        request: What the session was created with.
        actions: The environment actions in force.
        connection_file: Path of the connection or registration file.
        working_directory: The session's directory now; one that is no directory gives way to the server's own.
        surroundings: The machine.
        inherited: Variables that are added before the actions.

    Raises:
        StartupError: ``KS-5``: there is no ``argv``, or the startup script is no file.
    """
    if not request.argv:
        raise StartupError(
            "KS-5",
            f"Session {request.session_id} has no argv to start; it can only adopt a kernel",
            reason=StartupReason.NO_ARGV,
        )
    on_windows = surroundings.platform == "win32"
    environment = apply_actions({**surroundings.environment, **(inherited or {})}, actions, upper_case=on_windows)
    argv = [argument.replace(CONNECTION_FILE, connection_file) for argument in request.argv]
    directory: str | None = surroundings.expand(working_directory)
    warnings: list[str] = []
    if not surroundings.is_directory(str(directory)):
        if working_directory:
            warnings.append(f"{working_directory} is no directory; the kernel starts in the server's own")
        directory = None
    mode = StartupEnvironment.NONE if on_windows else request.startup_environment
    argument = request.startup_environment_arg
    if mode is StartupEnvironment.SCRIPT and argument:
        argument = _find_script(argument, working_directory, surroundings)
    elif mode is StartupEnvironment.NONE and argument and not on_windows:
        warnings.append("A startup environment of mode none takes no argument; it is ignored")
    shell = choose_shell(surroundings.environment.get("SHELL"), surroundings.exists)
    library_path = environment.get("DYLD_LIBRARY_PATH") if surroundings.platform == "darwin" else None
    wrapped = wrap(argv, mode, argument, shell, library_path=library_path)
    if wrapped.warning:
        warnings.append(wrapped.warning)
    return LaunchPlan(
        argv=wrapped.argv,
        program=argv[0],
        environment=environment,
        working_directory=directory,
        shell=wrapped.shell,
        stage=wrapped.stage,
        stage_argument=argument if wrapped.stage else None,
        warnings=tuple(warnings),
    )


def _find_script(script: str, working_directory: str, surroundings: Surroundings) -> str:
    """Return what the shell is to source."""
    script = surroundings.expand(script)
    path = posixpath.join(surroundings.expand(working_directory), script)
    if not surroundings.is_file(path):
        raise StartupError(
            "KS-5", f"The startup script {path} is not there, or is no file", reason=StartupReason.SCRIPT_MISSING
        )
    # Relative to the server's own directory, and the shell starts in the session's; a bare name it would look for in
    # PATH.
    return path if posixpath.isabs(path) else f"./{script}"


def find_program(program: str, *, search_path: str, separator: str, is_file: Check, directory: str) -> str | None:
    """Return where a kernel's program is, or None.

    Args:
        program: An absolute path; a bare name, looked up in ``search_path``; or a path with a slash, relative to
            ``directory``. The execute permission is not looked at.
        search_path: The server's ``PATH``.
        separator: What separates its entries.
        is_file: Whether a path is a regular file.
        directory: The session's working directory.
    """
    if not program:
        return None
    if "/" in program or ("\\" in program and separator == ";"):
        path = posixpath.join(directory, program)
        return path if is_file(path) else None
    suffixes = ("", ".exe") if separator == ";" else ("",)
    candidates = (
        posixpath.join(entry, program + suffix)
        for entry in search_path.split(separator)
        if entry
        for suffix in suffixes
    )
    return next((path for path in candidates if is_file(path)), None)


def uses_handshake(protocol_version: str) -> bool:
    """Whether a kernel of this protocol version registers itself (JEP 66): from 5.5 on. Unparsable means no."""
    major, _, minor = protocol_version.partition(".")
    if not (re.fullmatch(r"[0-9]+", major) and re.fullmatch(r"[0-9]+", minor)):
        return False
    return (int(major), int(minor)) >= (5, 5)


def safe_name(session_id: str) -> str:
    """Return a short name for files and sockets of a session: at most 24 characters, its own, harmless anywhere."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", session_id)[:11].strip("-")
    digest = blake2b(session_id.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{readable}-{digest}" if readable else digest
