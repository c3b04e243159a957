"""From a session's request to what is launched: command line, environment, directory. [pure]

Whether files exist is asked through arguments, so that a plan can be read and tested without a disk.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b

import attrs

from kallichore.errors import StartupError, StartupReason
from kallichore.kernel.environment import apply_actions
from kallichore.kernel.program_path import find_program
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
    handles: tuple[int, ...] = ()
    """On Windows, what the kernel inherits besides its input and output."""
    moved_to: str | None = None
    """The session's own directory, where the one that it had last cannot be entered any more."""


@attrs.frozen(kw_only=True)
class Surroundings:
    """What a plan depends on besides the request: the machine, as questions.

    Attributes:
        environment: What every kernel's environment starts from.
        home: The user's home directory, for ``~``.
        platform: As ``sys.platform``.
        exists, is_file: Whether a path is there, and is a file.
        is_directory: Whether a path is a directory that may be entered.
    """

    environment: Mapping[str, str]
    home: str
    platform: str
    exists: Check
    is_file: Check
    is_directory: Check

    def expand(self, path: str) -> str:
        """Return ``path`` with a leading ``~`` replaced by the home directory."""
        separators = ("/", "\\") if self.platform == "win32" else ("/",)
        return self.home + path[1:] if path[:1] == "~" and path[1:2] in ("", *separators) else path


def make_launch_plan(
    request: NewSession,
    *,
    actions: Iterable[VarAction],
    connection_file: str,
    working_directory: str,
    surroundings: Surroundings,
    inherited: Mapping[str, str] | None = None,
    handles: Iterable[int] = (),
) -> LaunchPlan:
    """Plan a kernel's launch.

    Args:
        request: What the session was created with.
        actions: The environment actions in force.
        connection_file: Path of the connection or registration file.
        working_directory: The session's directory now; one that cannot be entered gives way to the one that the
            session was created with, and that to the server's own.
        surroundings: The machine.
        inherited: Variables that are added before the actions.
        handles: What such variables speak of.

    Raises:
        StartupError: ``KS-5``: there is no ``argv``, or the startup script is no file.
    """
    if not request.argv:
        raise StartupError(
            "KS-5",
            f"Session {request.session_id} has no argv to start; it can only adopt a kernel",
            reason=StartupReason.NO_ARGV,
        )
    environment = kernel_environment(actions, surroundings, inherited)
    argv = [argument.replace(CONNECTION_FILE, connection_file) for argument in request.argv]
    if surroundings.platform == "win32":
        # Windows would look in the server's PATH.
        argv[0] = _find(argv[0], environment, surroundings, working_directory) or argv[0]
    warnings: list[str] = []
    directory, moved_to = _choose_directory((working_directory, request.working_directory), surroundings, warnings)
    mode = _mode(request, surroundings)
    argument = request.startup_environment_arg
    if mode is StartupEnvironment.SCRIPT and argument:
        argument = _find_script(argument, moved_to or working_directory, surroundings)
    elif mode is not request.startup_environment:
        warnings.append(f"Windows has no startup environments; {request.startup_environment.value} is ignored")
    elif mode is StartupEnvironment.NONE and argument:
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
        handles=tuple(handles),
        moved_to=moved_to,
    )


def make_provisioned_plan(
    request: NewSession,
    *,
    actions: Iterable[VarAction],
    working_directory: str,
    surroundings: Surroundings,
    inherited: Mapping[str, str] | None = None,
) -> LaunchPlan:
    """Plan the launch of a kernel that a provisioner starts: its command line is for that to fill in and to run.

    Args:
        request: What the session was created with.
        actions: The environment actions in force.
        working_directory: The session's directory now, where the kernel will be: it may not be on this machine.
        surroundings: The machine.
        inherited: Variables that are added before the actions.
    """
    assert request.kernel_provisioner is not None
    name = request.kernel_provisioner.provisioner_name
    is_ignored = request.startup_environment is not StartupEnvironment.NONE
    text = f"The provisioner {name!r} knows no startup environments; {request.startup_environment.value} is ignored"
    return LaunchPlan(
        argv=request.argv,
        program=request.argv[0] if request.argv else name,
        environment=kernel_environment(actions, surroundings, inherited),
        working_directory=surroundings.expand(working_directory) or None,
        warnings=(text,) if is_ignored else (),
    )


def kernel_environment(
    actions: Iterable[VarAction], surroundings: Surroundings, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the variables that a kernel is started with, before any shell has changed them."""
    base = {**surroundings.environment, **(inherited or {})}
    return apply_actions(base, actions, upper_case=surroundings.platform == "win32")


def _mode(request: NewSession, surroundings: Surroundings) -> StartupEnvironment:
    return StartupEnvironment.NONE if surroundings.platform == "win32" else request.startup_environment


def _choose_directory(
    wanted: tuple[str, str], surroundings: Surroundings, warnings: list[str]
) -> tuple[str | None, str | None]:
    """Return where the kernel starts, None for the server's own directory; and that once more if it is another than
    the first that was wanted. What cannot be entered is warned about.
    """
    first, own = wanted
    for place in dict.fromkeys(wanted):
        directory = surroundings.expand(place)
        if surroundings.is_directory(directory):
            if place == first:
                return directory, None
            warnings.append(f"{first} is no directory that can be entered; the kernel starts in {directory}")
            return directory, directory
    if first or own:
        warnings.append(f"{first or own} is no directory that can be entered; the kernel starts in the server's own")
    return None, None


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


def missing_program(request: NewSession, surroundings: Surroundings, current_directory: str) -> str | None:
    """Return the program of a session that cannot be started as it is nowhere; None if it is there, or may be.

    A bare name is looked up where the kernel will: in the PATH that the session gets. Behind a shell only an absolute
    path can be judged: the user's profile, or the startup command, may set PATH and change the directory.

    Args:
        request: What the session is created with.
        surroundings: The machine.
        current_directory: The server's own, for a session that has none.
    """
    program = request.argv[0]
    shell = choose_shell(surroundings.environment.get("SHELL"), surroundings.exists)
    if _mode(request, surroundings) is not StartupEnvironment.NONE and shell and not posixpath.isabs(program):
        return None
    environment = kernel_environment(request.env, surroundings)
    directory = request.working_directory or current_directory
    return None if _find(program, environment, surroundings, directory) else program


def _find(program: str, environment: Mapping[str, str], surroundings: Surroundings, directory: str) -> str | None:
    return find_program(
        program,
        environment,
        directory=surroundings.expand(directory),
        platform=surroundings.platform,
        is_file=surroundings.is_file,
    )


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
