"""How clients find the server: a connection file, or a document handed over on the launcher's own socket.

Both hold the token, so the file is readable by its owner only; it is written whole and then renamed, since launchers
read it as soon as it is there, and removed at the end, since the address in it dies with the server.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.errors import ConfigurationError
from kallichore.transport.held_files import PATIENCE, when_free
from kallichore.transport.private_files import make_private

HANDSHAKE_PATIENCE = 10.0
"""Seconds that a launcher may take to accept the handshake; it is listening before it starts us."""


@attrs.frozen(kw_only=True)
class ServerAddress:
    """Where a server listens; the members that do not apply to its transport are None."""

    transport: str
    port: int | None = None
    base_path: str | None = None
    socket_path: str | None = None
    named_pipe: str | None = None

    def __str__(self) -> str:
        return self.base_path or self.socket_path or self.named_pipe or self.transport


def connection_document(
    address: ServerAddress, *, server_path: str, bearer_token: str | None, log_path: Path | None, server_id: str
) -> dict[str, Any]:
    """Return what clients are told; ``bearer_token`` and ``log_path`` are null where there is none."""
    members = attrs.asdict(address)
    ordered = {name: members[name] for name in ("port", "base_path", "socket_path", "named_pipe", "transport")}
    return {
        **{name: value for name, value in ordered.items() if value is not None},
        "server_path": server_path,
        "server_pid": os.getpid(),
        "bearer_token": bearer_token,
        "log_path": None if log_path is None else str(log_path),
        "server_id": server_id,
    }


@asynccontextmanager
async def open_connection_file(path: Path, document: dict[str, Any]) -> AsyncIterator[None]:
    """Write the connection file; on leaving it is removed, if it is still ours.

    A file that somebody else has open (on Windows, a virus scanner) is waited for. Cancelled while writing, nothing is
    left; the removal cannot be cancelled, and takes `PATIENCE` at most.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        ours = await _write_whole(path, json.dumps(document, indent=2))
    except OSError as error:
        raise ConfigurationError(f"Could not write the connection file {path}: {error.strerror}") from error
    try:
        yield
    finally:
        with trio.CancelScope(deadline=trio.current_time() + PATIENCE, shield=True):
            await _remove(path, ours)


async def _write_whole(path: Path, text: str) -> int:
    """Put a new file in the place of ``path`` and return its number. Nothing is left of it if that fails."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        ours = _fill(descriptor, temporary, text)
        await when_free(partial(os.replace, temporary, path))
    except BaseException:
        with trio.CancelScope(deadline=trio.current_time() + PATIENCE, shield=True):
            await _remove(temporary, None)
        raise
    return ours


def _fill(descriptor: int, path: Path, text: str) -> int:
    """Write into a new file of ours and close it; return its number."""
    with open(descriptor, "w", encoding="utf-8") as file:
        # Before the token is in it.
        make_private(path)
        file.write(text)
        return os.fstat(file.fileno()).st_ino


async def _remove(path: Path, number: int | None) -> None:
    """Remove a file, if it is still the one of this number; None for any."""

    def remove() -> None:
        if number is None or path.stat().st_ino == number:
            path.unlink()

    with suppress(OSError):
        await when_free(remove)


def read_connection_file(path: Path) -> dict[str, Any]:
    """Return a server's connection document.

    Raises:
        ConfigurationError: The file is not there, or is not a connection file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"Could not read the connection file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not a connection file: {error}") from error
    if not isinstance(document, dict) or "transport" not in document:
        raise ConfigurationError(f"{path} is not a connection file: it names no transport")
    return document


async def send_handshake(path: str, document: dict[str, Any]) -> None:
    """Tell the launcher that listens at ``path`` how to reach the server: one JSON document, once.

    Raises:
        ConfigurationError: Nobody listens there, or the document was not taken.
    """
    # The launcher takes a missing log path for "no log"; null is for the file.
    members = {name: value for name, value in document.items() if name != "log_path" or value is not None}
    try:
        with trio.fail_after(HANDSHAKE_PATIENCE):
            async with await _connect(path) as stream:
                await stream.send_all(json.dumps(members).encode() + b"\n")
                if isinstance(stream, trio.SocketStream):
                    await stream.send_eof()
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        raise ConfigurationError(f"The handshake on {path} failed: {str(error) or 'nobody took it'}") from error


async def _connect(path: str) -> trio.abc.Stream:
    if sys.platform == "win32":
        from kallichore.transport.named_pipe import connect_named_pipe

        return await connect_named_pipe(path)
    return await trio.open_unix_socket(path)
