"""Hosts on this machine: each a program that is started here and goes on without us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from kallichore.engines.engine import KEEP_LIMIT
from kallichore.engines.host_program import read_failure, read_ready
from kallichore.engines.host_socket import HOST_SOCKET
from kallichore.host import HOST_PROGRAM

HOST_LOG = "host.log"
"""The name of the file, in the session's directory, that has what went wrong in the host itself."""

PATIENCE = 5.0
"""Seconds that a host may take to say what became of it after nobody wants it any more."""


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

    The host is no child of ours, so nobody has to wait for it: the same holds for the server that starts it and for
    those that come later. Whether the kernel could be started is told to who attaches. Cancelling ends the host, and
    with it the kernel.

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
    if sys.platform == "win32":
        raise OSError("Hosts need process groups and Unix sockets, which Windows does not have")
    document = {
        "secret": secret.hex(),
        "socket": HOST_SOCKET,
        "argv": list(argv),
        "environment": dict(environment),
        "directory": working_directory,
        "abandon_after": abandon_after,
        "keep_limit": keep_limit,
    }
    process = await _open_program(directory)
    said = bytearray()
    try:
        await _tell(process, json.dumps(document).encode())
        await _listen(process, said)
        await process.wait()
        ready = read_ready(bytes(said))
        if ready is None:
            raise OSError(f"The host could not be started: {read_failure(bytes(said)) or _read_log(directory)}")
        return ready.pid
    except BaseException:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(PATIENCE):
                await _listen(process, said)
            await _end(process, said)
        raise
    finally:
        await trio.aclose_forcefully(_stdout(process))


async def _open_program(directory: Path) -> trio.Process:
    if sys.platform == "win32":
        raise NotImplementedError
    log = os.open(directory / HOST_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", str(HOST_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=directory,
            start_new_session=True,
        )
    finally:
        os.close(log)


async def _tell(process: trio.Process, document: bytes) -> None:
    """Tell a host what to do. One that has ended by then is noticed by what it says."""
    assert process.stdin is not None
    async with process.stdin:
        with suppress(trio.BrokenResourceError):
            await process.stdin.send_all(document)


def _stdout(process: trio.Process) -> trio.abc.ReceiveStream:
    assert process.stdout is not None
    return process.stdout


async def _listen(process: trio.Process, said: bytearray) -> None:
    """Add what a host says, up to its end; that comes when it listens, or cannot."""
    with suppress(trio.ClosedResourceError):
        async for data in _stdout(process):
            said += data


async def _end(process: trio.Process, said: bytearray) -> None:
    """End a host that nobody will know of: with it goes its kernel."""
    if sys.platform == "win32":
        raise NotImplementedError
    process.kill()
    await process.wait()
    ready = read_ready(bytes(said))
    if ready is not None:
        with suppress(ProcessLookupError):
            os.kill(ready.pid, signal.SIGKILL)


def _read_log(directory: Path) -> str:
    """Return the last line of what a host that did not say anything has written."""
    lines = (directory / HOST_LOG).read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it ended without a word"
