"""Named pipes for Windows, with the same contract as the other listeners.

What Windows does is behind `PipeSystem`, so that the listener and the stream run in tests over an in-memory double; the
real system is `kallichore.transport.windows_pipes`, on Trio's overlapped I/O. A pipe has one instance for each client:
the next instance is made before the present one is handed out, so that a client always finds one to connect to.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import attrs
import trio

from kallichore.errors import ConfigurationError

logger = logging.getLogger(__name__)

READ_SIZE = 1 << 16

BUSY_PATIENCE = 30.0
BUSY_PAUSE = 0.05
"""A pipe whose instances are all taken frees one within moments, where its server is not very busy: half a minute, as
in Node, with a look every 50 ms."""

PLACES = 16
"""How many instances wait for clients; each is no more than a handle. So many clients may come at the same moment, and
there are some that open a pipe once, and fail where all instances are taken."""

SCARCITY_PAUSE = 0.1
"""Seconds until the next try where the system refused to have a client wait, as Trio does it with sockets."""


class PipeBusyError(OSError):
    """All instances of a pipe are taken."""


class PipeSystem(Protocol):
    """What the operating system does with pipes; handles are numbers."""

    def create_instance(self, name: str, *, first: bool) -> int:
        """Make an instance of a pipe for one client of this machine and user; raises `OSError`."""

    async def wait_client(self, handle: int) -> None:
        """Wait until a client has connected to an instance, be it that it is gone already; raises `OSError`."""

    def open_client(self, name: str) -> int:
        """Connect to a pipe; raises `PipeBusyError`, or `OSError` if there is none."""

    async def read(self, handle: int, most: int) -> bytes:
        """Return what arrived, nothing at the end; raises `OSError`."""

    async def write(self, handle: int, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; raises `OSError`."""

    def close(self, handle: int) -> None:
        """Close a handle; what waits on it fails."""


class _NoSocket:
    """Stands where HTTP servers look for a connection's addresses: a pipe has none."""

    family = -1

    def getpeername(self) -> None:
        return None

    getsockname = getpeername


class PipeStream(trio.abc.Stream):
    """One connection over a pipe."""

    def __init__(self, system: PipeSystem, handle: int) -> None:
        self.socket = _NoSocket()
        self._system = system
        self._handle: int | None = handle
        self._sending = trio.Lock()

    def _open_handle(self) -> int:
        if self._handle is None:
            raise trio.ClosedResourceError("this pipe is closed")
        return self._handle

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what arrived, nothing once the other side has closed."""
        handle = self._open_handle()
        try:
            data = await self._system.read(handle, max_bytes or READ_SIZE)
        except OSError as error:
            self._open_handle()
            raise trio.BrokenResourceError(str(error)) from error
        # A pipe that we close ends for the task of ours that reads from it, too; the data before that are the caller's.
        if not data:
            self._open_handle()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        async with self._sending:
            handle = self._open_handle()
            try:
                await self._system.write(handle, data)
            except OSError as error:
                self._open_handle()
                raise trio.BrokenResourceError(str(error)) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nobody else sends."""
        async with self._sending:
            self._open_handle()

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._system.close(handle)
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class PipeListener(trio.abc.Listener[PipeStream]):
    """Hands out the connections of clients, one after another. What goes wrong with one client ends nothing."""

    _system: PipeSystem
    _name: str
    _waiting: int | None
    """The instance that clients find; None while the system has none to give."""
    _closed: bool = attrs.field(default=False, init=False)

    async def accept(self) -> PipeStream:
        """Wait for a client. Cancelling leaves the pipe as it is.

        Raises:
            trio.ClosedResourceError: The listener is closed.
        """
        while True:
            waiting = await self._instance()
            try:
                await self._system.wait_client(waiting)
            except OSError as error:
                self._check_open()
                logger.debug("A client of %s came to nothing: %s", self._name, error)
                self._renew()
                self._system.close(waiting)
                await trio.sleep(SCARCITY_PAUSE)
                continue
            self._check_open()
            self._renew()
            return PipeStream(self._system, waiting)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this listener is closed")

    async def _instance(self) -> int:
        """Return the instance that waits for a client, with patience while the system has none to give."""
        while True:
            self._check_open()
            if self._waiting is not None:
                return self._waiting
            await trio.sleep(SCARCITY_PAUSE)
            if not self._closed:
                self._renew()

    def _renew(self) -> None:
        """Put a new instance in the place of the one that was waiting."""
        self._waiting = None
        try:
            self._waiting = self._system.create_instance(self._name, first=False)
        except OSError as error:
            logger.error("%s cannot be connected to for now: %s", self._name, error)

    async def aclose(self) -> None:
        """Close the instance that waits; connections that were handed out go on. Idempotent."""
        self._closed = True
        if self._waiting is not None:
            handle, self._waiting = self._waiting, None
            self._system.close(handle)
        await trio.lowlevel.checkpoint()


def this_system() -> PipeSystem:
    """Return the pipes of this operating system.

    Raises:
        ConfigurationError: It has none.
    """
    if sys.platform == "win32":
        from kallichore.transport.windows_pipes import WindowsPipes

        return WindowsPipes()
    raise ConfigurationError("Named pipes exist on Windows only; use the socket or tcp transport")


@asynccontextmanager
async def open_pipe_listeners(name: str, system: PipeSystem | None = None) -> AsyncIterator[list[PipeListener]]:
    """Listen on a pipe in several places, so that clients may come at the same time; see `open_pipe_listener`."""
    system = system or this_system()
    async with AsyncExitStack() as stack:
        places = [open_pipe_listener(name, system, first=number == 0) for number in range(PLACES)]
        yield [await stack.enter_async_context(place) for place in places]


@asynccontextmanager
async def open_pipe_listener(
    name: str, system: PipeSystem | None = None, *, first: bool = True
) -> AsyncIterator[PipeListener]:
    r"""Listen on a pipe such as ``\\.\pipe\name``; closed on leaving.

    Args:
        name: The pipe.
        system: Whose pipes; this system's by default.
        first: The name has to be free, as it has to be for a server's first listener.

    Raises:
        ConfigurationError: Another server has the name, or there are no named pipes here.
    """
    system = system or this_system()
    try:
        waiting = system.create_instance(name, first=first)
    except OSError as error:
        raise ConfigurationError(f"Could not listen on {name}: {error.strerror or error}") from error
    async with PipeListener(system, name, waiting) as listener:
        yield listener


async def connect_named_pipe(name: str, system: PipeSystem | None = None) -> PipeStream:
    """Connect to a pipe, with patience while all its instances are taken.

    Raises:
        OSError: There is no such pipe, or it stayed busy.
    """
    system = system or this_system()
    deadline = trio.current_time() + BUSY_PATIENCE
    while True:
        try:
            return PipeStream(system, system.open_client(name))
        except PipeBusyError:
            if trio.current_time() >= deadline:
                raise
        await trio.sleep(BUSY_PAUSE)
