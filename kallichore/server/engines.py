"""The engines of a server, with what they need of it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from kallichore.config import ServerConfig
from kallichore.engines.engine import EngineServices
from kallichore.engines.registry import Engines
from kallichore.server.hosts_desk import run_desk


@asynccontextmanager
async def open_engines(config: ServerConfig, directory: Path) -> AsyncIterator[Engines]:
    """Have engines at hand for a block: they are there until it is over, whoever is cancelled.

    Errors of the block come out in a group.

    Args:
        config: The server's settings.
        directory: A private directory.

    Raises:
        ConfigurationError: It cannot be listened for hosts.
    """
    async with trio.open_nursery() as nursery:
        engines = Engines(config.profiles, nursery)
        try:
            desk = await engines.start(partial(run_desk, config))
            owner = _owner(directory if config.state_directory is None else config.state_directory)
            engines.services = EngineServices(directory=directory, owner=owner, desk=desk)
            yield engines
        finally:
            engines.close()


def _owner(directory: Path) -> str:
    """Return by what jobs of a server in this directory are known to engines, which others use as well."""
    return hashlib.sha256(f"{socket.gethostname()}:{directory}".encode("utf-8", "surrogateescape")).hexdigest()[:10]
