"""Kallichore: a supervisor for Jupyter kernels, for programs on Trio.

In three steps: `open_server` (or `serve`, which listens as well), `Server.create_session`, `Session.run`::

    async with kallichore.open_server() as server:
        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("analysis"))
        await session.start()
        result = await session.run("6 * 7")
        print(result.result)

The names in ``__all__`` are for other programs; the modules below are the package's own business, but for
``kallichore.client``, which talks to a server in another process. Every error is a `KallichoreError`.
"""

# Names are imported when they are first used: the command lines start faster without what they do not need. What only
# this file needs has an underscore, as completion shows all other names.
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from kallichore._version import __version__

if _TYPE_CHECKING:
    from kallichore.config import ServerConfig
    from kallichore.conversation.run_result import Display, Printed, RunResult
    from kallichore.embed import RunningServer, run, serve
    from kallichore.errors import (
        AdoptionError,
        ConfigurationError,
        ConnectionInfoError,
        ExecutionCancelledError,
        ExecutionTimeoutError,
        InterruptError,
        KallichoreError,
        KernelDiedError,
        KernelNotFoundError,
        NoProcessError,
        ProcessNotFoundError,
        RequestError,
        SessionExistsError,
        SessionNotCreatedError,
        SessionNotFoundError,
        SessionNotReadyError,
        SessionNotRunningError,
        SessionRunningError,
        StartupError,
        StartupReason,
        StateDamagedError,
        StateDirectoryInUseError,
        StateVersionError,
        ValueRangeError,
    )
    from kallichore.kernel.kernelspecs import KernelSpec, find_kernelspec, list_kernelspecs
    from kallichore.models.bodies import ExecutionError, NewSession, RestartSession
    from kallichore.server import Server, open_server
    from kallichore.session.executions import Execution
    from kallichore.session.session import Session

__all__ = [
    "AdoptionError",
    "ConfigurationError",
    "ConnectionInfoError",
    "Display",
    "Execution",
    "ExecutionCancelledError",
    "ExecutionError",
    "ExecutionTimeoutError",
    "InterruptError",
    "KallichoreError",
    "KernelDiedError",
    "KernelNotFoundError",
    "KernelSpec",
    "NewSession",
    "NoProcessError",
    "Printed",
    "ProcessNotFoundError",
    "RequestError",
    "RestartSession",
    "RunResult",
    "RunningServer",
    "Server",
    "ServerConfig",
    "Session",
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
    "ValueRangeError",
    "__version__",
    "find_kernelspec",
    "list_kernelspecs",
    "open_server",
    "run",
    "serve",
]

_HOMES = {
    "config": ("ServerConfig",),
    "conversation.run_result": ("Display", "Printed", "RunResult"),
    "embed": ("RunningServer", "run", "serve"),
    "kernel.kernelspecs": ("KernelSpec", "find_kernelspec", "list_kernelspecs"),
    "models.bodies": ("ExecutionError", "NewSession", "RestartSession"),
    "server": ("Server", "open_server"),
    "session.executions": ("Execution",),
    "session.session": ("Session",),
}
"""Where the public names live that are not errors."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kallichore' has no attribute {name!r}")
    return getattr(_import_module(f"kallichore.{_HOME_OF.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
