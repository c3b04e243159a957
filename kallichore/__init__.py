"""Kallichore: a supervisor for Jupyter kernels.

The rooms, each depending only on those before it: ``wire`` (Jupyter's protocol), ``models`` (the HTTP bodies),
``zeromq``, ``kernel`` (one process), ``session`` (one kernel over all its restarts), ``attach`` (its clients),
``server``, ``api`` (HTTP), and ``embed``, which wires them. ``transport`` is where the server listens, ``client`` and
``cli`` are programs.

Public names are imported when they are first used: the command lines start faster without what they do not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kallichore._version import __version__

if TYPE_CHECKING:
    from kallichore.config import ServerConfig
    from kallichore.embed import RunningServer, run, serve
    from kallichore.errors import KallichoreError, KernelDiedError, StartupError
    from kallichore.kernel.kernelspecs import find_kernelspec, list_kernelspecs
    from kallichore.models.bodies import NewSession
    from kallichore.server import Server, open_server
    from kallichore.session.session import Session

__all__ = [
    "KallichoreError",
    "KernelDiedError",
    "NewSession",
    "RunningServer",
    "Server",
    "ServerConfig",
    "Session",
    "StartupError",
    "__version__",
    "find_kernelspec",
    "list_kernelspecs",
    "open_server",
    "run",
    "serve",
]

_HOMES = {
    "KallichoreError": "errors",
    "KernelDiedError": "errors",
    "NewSession": "models.bodies",
    "RunningServer": "embed",
    "Server": "server",
    "ServerConfig": "config",
    "Session": "session.session",
    "StartupError": "errors",
    "find_kernelspec": "kernel.kernelspecs",
    "list_kernelspecs": "kernel.kernelspecs",
    "open_server": "server",
    "run": "embed",
    "serve": "embed",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kallichore' has no attribute {name!r}")
    return getattr(import_module(f"kallichore.{_HOMES[name]}"), name)
