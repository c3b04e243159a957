"""The contract of a kernel that is placed somewhere: a process to watch and signal, and the way to its sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from kallichore.kernel.ending import Ending
from kallichore.kernel.resources import Usage
from kallichore.models.bodies import ConnectionInfo
from kallichore.wire.frames import Frames

if TYPE_CHECKING:
    from kallichore.engines.host_link import HostLink


class Process(Protocol):
    """A kernel's process, with everything that it started; see `kallichore.kernel.process` for what each does."""

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too; 0 where it is no process of this machine, or nobody knows."""

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """What it prints."""

    @property
    def stderr(self) -> trio.abc.ReceiveStream:
        """What it complains about."""

    def send_signal_to_group(self, number: int) -> None:
        """Send a signal to the kernel and to everything in its group. Raises `ProcessLookupError` if it has ended."""

    def kill(self) -> None:
        """Kill them. Raises `ProcessLookupError`, or `PermissionError` where they are another user's."""

    def kill_or_give_up(self) -> None:
        """Kill them; where they may not be signalled, wait for the end no longer."""

    async def wait(self) -> Ending:
        """Wait for the end. Cancelling leaves the process as it is."""

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, so that the system can be asked about it by its number."""

    def is_stopped(self) -> bool:
        """Whether it exists and is stopped."""

    def read_directory(self) -> str | None:
        """Return the directory that it is in; None where that cannot be told."""

    def sample(self) -> Usage | None:
        """Return what it uses, where it is not here: the sampler sees to those that are."""


def _nothing() -> None:
    pass


@attrs.frozen
class Placement:
    """Where a kernel is.

    Attributes:
        process: Its process.
        link: The stream to the host beside it; None where it is the server's own child.
        note_end: To be called as soon as the process has ended.
        said: What it published before anybody listened, oldest first.
        info: Where its sockets are, where whoever placed it knows that; None where the session has to find out.
    """

    process: Process
    link: HostLink | None = None
    note_end: Callable[[], None] = _nothing
    said: Sequence[Frames] = ()
    info: ConnectionInfo | None = None
