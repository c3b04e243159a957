"""What a command needs of a server, whichever API it is reached by.

There are two: `kallichore.client.kallichore_server`, and `kallichore.client.jupyter_server` for every server that has
only Jupyter's API. `kallichore.client.finding` tells which one an address is of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from kallichore.client.address import Address
from kallichore.errors import KallichoreError

if TYPE_CHECKING:
    from kallichore.models.bodies import NewSession


class NoSuchThingError(KallichoreError):
    """A server's API has nothing like what a command is about; the message says what it lacks."""


@attrs.frozen
class NewKernel:
    """A kernel that is to be started, and how.

    Args:
        name: What it is installed as.
        directory: Where it is to start, as given; None for wherever is usual.
        variables: What its environment is to have besides.
        start_timeout: Seconds that it may take to start and answer; 0 for any.
        make_request: Returns what a Kallichore server is asked for a session with this id.
    """

    name: str
    directory: str | None
    variables: Mapping[str, str]
    start_timeout: int
    make_request: Callable[[str], NewSession]


@attrs.frozen
class Summary:
    """A session in few words.

    Args:
        told: All that the server told, for programs.
        started: When it was created; None where that is not told, as all below.
        idle_since: Since when its kernel has had nothing to do; None while it has.
        memory_bytes: What its kernel has, with all that it started.
    """

    session_id: str
    display_name: str
    status: str
    is_connected: bool
    told: Mapping[str, Any]
    process_id: int | None = None
    queued: int = 0
    started: datetime | None = None
    idle_since: datetime | None = None
    memory_bytes: int | None = None


@attrs.frozen
class Installed:
    """The kernels that a server can start: what their kernel.json says, by name, and which is the usual one."""

    specs: Mapping[str, Mapping[str, Any]]
    default: str | None = None


class Channel(Protocol):
    """A session's channels, open: messages of Jupyter's as dicts, and news of the session, of ``kind`` ``kernel``."""

    async def send(self, message: dict[str, Any]) -> str:
        """Send a message and return its ``msg_id``.

        Raises:
            ChannelClosedError: The channels are closed.
        """

    async def receive(self) -> dict[str, Any]:
        """Wait for the next message. Cancelling loses nothing.

        Raises:
            ChannelClosedError: The channels are closed.
        """


class Server(Protocol):
    """A server. What it refuses is an `ApiError`, and an `OSError` where nobody listens."""

    @property
    def address(self) -> Address:
        """Where it is."""

    async def sessions(self) -> list[Summary]:
        """Return its sessions."""

    async def describe(self, session_id: str) -> dict[str, Any]:
        """Return all about a session, ``display_name`` and ``language`` of its kernel among it."""

    async def session_status(self, session_id: str) -> str:
        """Return what a session's kernel does, in a word: ``exited`` if it is gone."""

    async def has_exited(self, session_id: str) -> bool:
        """Return whether the end that a channel told is that of the kernel which is there now."""

    async def installed(self) -> Installed | None:
        """Return the kernels that it can start; None if it does not tell."""

    async def status(self) -> dict[str, Any]:
        """Return how the server is."""

    async def start_new(self, kernel: NewKernel, session_id: str | None = None) -> str:
        """Start a kernel in a new session, and return the session's id once the kernel answers.

        Args:
            kernel: The kernel.
            session_id: The session's id; None for any.
        """

    async def start_again(self, session_id: str) -> None:
        """Start the kernel of a session that is there and has none that runs."""

    def open_new(self, kernel: NewKernel) -> AbstractAsyncContextManager[str]:
        """Return a block with a kernel of its own, in a new session, whose id it yields; ended and deleted afterwards.

        That is so also if the block is cancelled.
        """

    async def interrupt(self, session_id: str) -> None:
        """Interrupt what a session's kernel runs."""

    async def restart(self, session_id: str) -> None:
        """Restart a session's kernel and wait until it answers. Channels of this server's that are open stay so."""

    async def kill(self, session_id: str) -> None:
        """Kill a session's kernel. Channels that are open tell when it has ended."""

    async def delete(self, session_id: str) -> None:
        """Delete a session."""

    async def shut_down_kernel(self, session_id: str) -> str:
        """Ask a session's kernel to end, wait for that a while, and return in words what came of it."""

    async def shut_down(self) -> None:
        """End the server with all its kernels."""

    def open_channel(
        self, session_id: str, *, since: int | None = None, attach: str | None = None, name: str | None = None
    ) -> AbstractAsyncContextManager[Channel]:
        """Return a block in which a session's channels are open; see `kallichore.client.channel_client.open_channel`.

        Raises:
            NoSuchThingError: The server has no such way to be there.
        """

    async def send_and_leave(self, session_id: str, message: dict[str, Any]) -> None:
        """Send a message to a session and leave what is said about it to others."""
