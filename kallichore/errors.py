"""Every error that Kallichore raises on purpose, as one tree.

The tree answers "whose doing was it?", since that decides who has to act::

    KallichoreError
    ├── ConfigurationError            the launcher's: a setting that cannot work
    │   ├── StateDirectoryInUseError  another server has the state directory
    │   └── StateVersionError         a newer Kallichore wrote the state directory
    ├── RequestError                  the caller's: HTTP 400 unless noted
    │   ├── BadBodyError              plain text: the body does not fit its schema
    │   ├── BadPathError              plain text: the path does not decode
    │   ├── BadQueryError             plain text: a query parameter is out of range
    │   ├── UnauthorizedError         401
    │   ├── SessionNotFoundError      KS-1, 404
    │   ├── SessionExistsError        KS-0
    │   ├── SessionNotCreatedError    KS-9
    │   ├── SessionRunningError       KS-2
    │   ├── SessionNotRunningError    KS-3
    │   ├── ProcessNotFoundError      KS-4
    │   ├── InterruptError            KS-10
    │   ├── NoProcessError            KS-12
    │   ├── KernelNotFoundError       KS-19, or a kernelspec that is not installed
    │   ├── ValueRangeError           "400": a configuration value out of range
    │   ├── ChannelSocketError        "socket_path_too_long", "domain_socket_error"
    │   ├── SessionNotReadyError      "session_not_ready": it was never started
    │   ├── NoSuchPathError           "no_such_path", 404: the API has nothing there
    │   ├── WorkspaceNotFoundError    "no_such_workspace", 404
    │   ├── McpListenerError          "mcp_listener_failed", "mcp_not_installed"
    │   └── ExecuteError              "session_not_ready", "channel_closed", "timeout" (408)
    ├── StartupError                  the kernel's: KS-5 to KS-8, KS-13 to KS-17, and KS-2; HTTP 500
    │   └── AdoptionError             the same for a kernel that somebody else started
    ├── ConnectionInfoError           the machine's: KS-18, HTTP 500
    ├── StateDamagedError             the machine's: a file of the state directory does not say what it has to
    ├── ExecutionCancelledError       somebody's: an interrupt, for one, dropped it while it waited for its turn
    ├── ExecutionTimeoutError         the caller's: the time that it gave is up
    ├── KernelDiedError               the kernel's: it ended while somebody waited for it
    ├── HostGoneError                 somebody's: the program beside a kernel is not there any more, nor is its kernel
    └── HostRefusedError              somebody's: who is there is not our host, or does not take us for its server

The codes (KS-n) are part of the HTTP API and never change their meaning; the texts are for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

__all__ = [
    "HINTS",
    "AdoptionError",
    "BadBodyError",
    "BadPathError",
    "BadQueryError",
    "ChannelSocketError",
    "ConfigurationError",
    "ConnectionInfoError",
    "ExecuteError",
    "ExecutionCancelledError",
    "ExecutionTimeoutError",
    "HostGoneError",
    "HostRefusedError",
    "InterruptError",
    "KallichoreError",
    "KernelDiedError",
    "KernelNotFoundError",
    "McpListenerError",
    "NoProcessError",
    "NoSuchPathError",
    "ProcessNotFoundError",
    "RequestError",
    "SessionExistsError",
    "SessionNotCreatedError",
    "SessionNotFoundError",
    "SessionNotReadyError",
    "SessionNotRunningError",
    "SessionRunningError",
    "StartupError",
    "StartupReason",
    "StateDamagedError",
    "StateDirectoryInUseError",
    "StateVersionError",
    "UnauthorizedError",
    "ValueRangeError",
    "WorkspaceNotFoundError",
    "innermost",
    "lone_error",
]


class KallichoreError(Exception):
    """The root of all errors that Kallichore raises on purpose.

    Args:
        message: What was attempted and why it failed, for a person to read.
        details: More of the same, where there is more: output, a cause, a way out.
    """

    code: str = ""
    http_status: int = 500

    def __init__(self, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message if self.details is None else f"{self.message}\n{self.details}"


class ConfigurationError(KallichoreError):
    """The server was asked to run in a way that cannot work; the message names the setting and the fix."""


class StateDirectoryInUseError(ConfigurationError):
    """Another server has the state directory.

    Args:
        message: Which directory, which process has it, and what can be done.
        pid: The other server's process; None if it is not known.
        address: Where the other server answers; None if it is not known.
    """

    def __init__(self, message: str, pid: int | None, address: str | None) -> None:
        super().__init__(message)
        self.pid = pid
        self.address = address


class StateVersionError(ConfigurationError):
    """The state directory is of a version that this Kallichore does not know; the message names both."""


class StateDamagedError(KallichoreError):
    """A file of the state directory cannot be read, or is not what it has to be; the message names it and the place."""


class RequestError(KallichoreError):
    """The caller asked for something that cannot be done now, or not like this."""

    http_status = 400


class BadBodyError(RequestError):
    """The request's body is missing, is not JSON, or does not fit its schema."""


class BadPathError(RequestError):
    """A percent-escape of the request's path does not decode to UTF-8."""


class BadQueryError(RequestError):
    """A query parameter does not have a value that it can have."""


class UnauthorizedError(RequestError):
    """The bearer token is missing or wrong."""

    code = "unauthorized"
    http_status = 401


class NoSuchPathError(RequestError):
    """The API has no operation at this path."""

    code = "no_such_path"
    http_status = 404


class WorkspaceNotFoundError(RequestError):
    """No workspace with this id is registered for agents."""

    code = "no_such_workspace"
    http_status = 404


class McpListenerError(RequestError):
    """Agents cannot be served: nothing can be listened on, or what serves them is not installed."""

    def __init__(self, message: str, code: str = "mcp_listener_failed") -> None:
        super().__init__(message)
        self.code = code


class SessionNotFoundError(RequestError):
    """There is no session with this id."""

    code = "KS-1"
    http_status = 404


class SessionExistsError(RequestError):
    """A session with this id exists already."""

    code = "KS-0"


class SessionNotCreatedError(RequestError):
    """The machine did not give what a session needs from the start."""

    code = "KS-9"


class SessionRunningError(RequestError):
    """The session's kernel has not exited, so the session cannot be deleted."""

    code = "KS-2"


class SessionNotRunningError(RequestError):
    """The session's kernel has exited already."""

    code = "KS-3"


class ProcessNotFoundError(RequestError):
    """The kernel's process is gone, or could not be signalled; the details say which."""

    code = "KS-4"


class SessionNotReadyError(RequestError):
    """The session has no kernel to run code in: it was never started."""

    code = "session_not_ready"


class InterruptError(RequestError):
    """There is nothing to interrupt, or the interrupt could not be sent."""

    code = "KS-10"


class NoProcessError(RequestError):
    """The session has no process of this server: never started, or adopted."""

    code = "KS-12"


class KernelNotFoundError(RequestError):
    """The kernel's program, or its kernelspec, is not on this machine."""

    code = "KS-19"


class ValueRangeError(RequestError):
    """A configuration value is out of its range."""

    code = "400"


class NothingToHandOverError(RequestError):
    """The server's sessions end with it."""

    code = "400"


class ChannelSocketError(RequestError):
    """The socket for a session's channels could not be made.

    Args:
        message: What was attempted and why it failed.
        code: ``socket_path_too_long`` or ``domain_socket_error``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ExecuteError(RequestError):
    """Code that was sent over HTTP has no result; its own errors are results."""

    def __init__(self, message: str, code: str, details: str | None = None) -> None:
        super().__init__(message, details)
        self.code = code
        self.http_status = 408 if code == "timeout" else 400


class StartupReason(StrEnum):
    """Why a kernel did not start, for programs to act on; `HINTS` says to people what they can do."""

    RUNNING_ALREADY = "running_already"
    STARTING_ALREADY = "starting_already"
    NO_ARGV = "no_argv"
    NOT_FOUND = "not_found"
    NOT_EXECUTABLE = "not_executable"
    BAD_INTERPRETER = "bad_interpreter"
    NO_DIRECTORY = "no_directory"
    BAD_ARGUMENT = "bad_argument"
    NO_RESOURCES = "no_resources"
    SCRIPT_MISSING = "script_missing"
    STARTUP_FAILED = "startup_failed"
    EXITED = "exited"
    KILLED = "killed"
    NOT_CONNECTED = "not_connected"
    NOT_UNDERSTOOD = "not_understood"
    SILENT = "silent"
    NOT_REGISTERED = "not_registered"
    NO_MACHINE = "no_machine"
    GIVEN_UP = "given_up"
    SHUTTING_DOWN = "shutting_down"
    BAD_CONNECTION = "bad_connection"
    FAILED = "failed"


HINTS = {
    StartupReason.RUNNING_ALREADY: "Restart the session to have a new kernel.",
    StartupReason.STARTING_ALREADY: "Wait for that to be done.",
    StartupReason.NO_ARGV: "Create the session with an argv, or adopt a running kernel.",
    StartupReason.NOT_FOUND: "Is the kernel's environment still where argv says? See `kcclient kernels`.",
    StartupReason.NOT_EXECUTABLE: "Name a program, not a directory, and give it execute permission.",
    StartupReason.BAD_INTERPRETER: "The program is there, but not what its first line names: reinstall it.",
    StartupReason.NO_DIRECTORY: "The working directory is gone, or may not be entered; restart in another one.",
    StartupReason.BAD_ARGUMENT: "Look for zero bytes in argv and env, and for variables without a proper name.",
    StartupReason.NO_RESOURCES: "The machine has no processes, descriptors, memory or disk space left for this user.",
    StartupReason.SCRIPT_MISSING: "Check the path of the startup script.",
    StartupReason.STARTUP_FAILED: "Run the startup command or script in a shell of your own, and see its exit code.",
    StartupReason.EXITED: "What it printed says why; often a module is missing in the kernel's environment.",
    StartupReason.KILLED: "SIGKILL from outside is most often for memory; SIGSEGV is a fault of native code.",
    StartupReason.NOT_CONNECTED: "Does argv pass {connection_file} on? A slow one needs a longer connection_timeout.",
    StartupReason.NOT_UNDERSTOOD: "Does the kernel sign with the key of its connection file, and send four JSON parts?",
    StartupReason.SILENT: "It may hang in its startup files: start it with fewer of them.",
    StartupReason.NOT_REGISTERED: "Does the kernel know JEP 66? If not, give a protocol_version below 5.5.",
    StartupReason.NO_MACHINE: "See `kcclient engines`, which tries each profile, and what the engine's own tools say.",
    StartupReason.GIVEN_UP: "Start it again.",
    StartupReason.SHUTTING_DOWN: "Start a server.",
    StartupReason.BAD_CONNECTION: "Change transport_encryption or kernel_transport, or use a kernel that can encrypt.",
    StartupReason.FAILED: "The server's log says more.",
}
"""What people can do about each."""

_REASONS = {
    "KS-2": StartupReason.RUNNING_ALREADY,
    "KS-6": StartupReason.NOT_CONNECTED,
    "KS-7": StartupReason.NOT_CONNECTED,
    "KS-8": StartupReason.EXITED,
    "KS-13": StartupReason.STARTING_ALREADY,
    "KS-14": StartupReason.EXITED,
    "KS-16": StartupReason.SHUTTING_DOWN,
    "KS-17": StartupReason.NOT_REGISTERED,
}


class StartupError(KallichoreError):
    """A kernel could not be started, restarted or adopted.

    Args:
        code: The API's code: ``KS-5`` and so on.
        message: What was attempted and why it failed.
        details: Which stage failed: the shell, the startup command, the kernel.
        exit_code: The process's exit code, -1 if a signal ended it, the OS error number if it could not be
            spawned, 130 if its sockets could not be reached; None where there was no process.
        output: What the kernel printed while it started, both streams in order of arrival; None where there
            was no process.
        reason: Why, in one of a few words; by default the one that the code mostly stands for.
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: str | None = None,
        *,
        exit_code: int | None = None,
        output: str | None = None,
        reason: StartupReason | None = None,
    ) -> None:
        super().__init__(message, details)
        self.code = code
        self.exit_code = exit_code
        self.output = output
        self.reason = reason or _REASONS.get(code, StartupReason.FAILED)

    @property
    def hint(self) -> str:
        """What people can do about it."""
        return HINTS[self.reason]


class AdoptionError(StartupError):
    """A kernel that somebody else started could not be adopted; the API has no output to show for it."""


class ConnectionInfoError(KallichoreError):
    """No connection information could be made for the session: no free ports."""

    code = "KS-18"


class ExecutionCancelledError(KallichoreError):
    """An execution was dropped before the kernel had it: by an interrupt, a kill, or a shutdown."""


class ExecutionTimeoutError(KallichoreError):
    """Code ran, or waited for its turn, for longer than it was given; it was interrupted, or taken out of the queue."""


class KernelDiedError(KallichoreError):
    """The kernel ended, before or while somebody waited for its answer; the message says how it ended."""


class EngineError(RequestError):
    """An engine cannot do what is asked of it; the text says what, and what would help."""

    code = "400"


class HostGoneError(KallichoreError):
    """The host of a kernel, the program that is its parent, is not there: it was killed, or has done all it had to."""


class HostRefusedError(KallichoreError):
    """Who listens where a kernel's host should be does not know the session's secret, or speaks another version."""


def lone_error(
    group: BaseExceptionGroup[BaseException],
    raised: BaseException | None,
    passing: type[BaseException],
) -> BaseException:
    """Return what came out of a block, without the groups that the nurseries around it put about it.

    A single error stands for itself, whatever was cancelled because of it. Several stay the group that they are.

    Args:
        group: What came out of the nurseries.
        raised: What was raised in the block itself: where that is a group it is its author's, and stays.
        passing: The class of a cancellation, which is nobody's error.
    """
    leaves = list(_leaves(group))
    errors = [error for error in leaves if not isinstance(error, passing)]
    if raised is not None and _are_all_of(errors, raised, leaves):
        # Told by what is in it: a group is made anew on its way through a cancelled nursery.
        return raised
    if len(errors) > 1:
        return group
    return errors[0] if errors else leaves[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _are_all_of(errors: list[BaseException], raised: BaseException, leaves: list[BaseException]) -> bool:
    """Whether all of these errors, and nothing that is gone by now, were raised together."""
    own = {id(error) for error in _leaves(raised)}
    return {id(error) for error in errors} <= own <= {id(error) for error in leaves}


def innermost(error: BaseException) -> BaseException:
    """Return what went wrong first, out of the groups that nurseries wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
