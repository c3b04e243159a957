"""Hosts on this machine: each a program that is started here and goes on without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from kallichore.engines.host_socket import HOST_SOCKET
from kallichore.host import HOST_PROGRAM

KEEP_LIMIT = 64 << 20
"""Bytes that a host keeps of what its kernel sent and no server has confirmed: some ten seconds of a flood."""

HOST_LOG = "host.log"
"""The name of the file, in the session's directory, that has what went wrong in the host itself."""


async def start_host(
    directory: Path,
    secret: bytes,
    argv: Sequence[str],
    environment: Mapping[str, str],
    working_directory: str | None,
    *,
    abandon_after: float,
    keep_limit: int = KEEP_LIMIT,
) -> int:
    """Start a host, which starts a kernel, and return the host's process id when it listens.

    Whether the kernel could be started is told to who attaches. Cancelling ends a host that does not listen yet.

    Args:
        directory: The session's own directory, which exists and is private.
        secret: What a server proves that it is the session's.
        argv: The kernel's program and arguments.
        environment: The kernel's whole environment.
        working_directory: Where the kernel starts; None for ``directory``.
        abandon_after: Seconds without a server after which the host ends its kernel and itself; 0 for never.
        keep_limit: Bytes to be kept at most.

    Raises:
        OSError: The host could not be started; the text says why.
    """
    raise NotImplementedError
