"""The way to the host of a kernel, wherever that is."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs

from kallichore.engines.host_socket import connect_to_host


@attrs.frozen
class Reach:
    """How a connection to a host comes about.

    Attributes:
        connect: Returns a new one: a socket that does not block, whose other end is the host. Where it cannot be had
            now that is an `OSError`, whose text is told to people; `HostGoneError` where there is no host any more,
            with what is known of that. Cancelling it closes what was begun.
        name: Where that is, in words that follow a verb: ``in /some/directory``, ``of job 17``.
        tell: Called when a connection was cut, with the reason as far as one is known, and with None when another took
            its place; None here where a connection lasts as long as its host, so that none is opened again.
    """

    connect: Callable[[], Awaitable[socket.socket]]
    name: str
    tell: Callable[[str | None], None] | None = None


def beside(directory: Path) -> Reach:
    """Return the way to a host on this machine.

    Args:
        directory: The session's directory, in which the host listens.
    """
    return Reach(partial(connect_to_host, directory), f"in {directory}")
