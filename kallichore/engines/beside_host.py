"""Kernels with a host beside them, which outlive their server: started with one, or found again by the next server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs
import trio
import trio_util

from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.local import HOST_LOG, start_host
from kallichore.engines.placement import Placement
from kallichore.engines.reach import beside
from kallichore.errors import HostGoneError, HostRefusedError, StartupError
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.here import ProcessHere
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.process import signal_name
from kallichore.kernel.spawn import startup_error
from kallichore.kernel.survivors import describe_survivors
from kallichore.wire.channels import OUTPUTS
from kallichore.wire.host_frames import Frame, HostEnding

LAST_WORDS = 2000
"""Characters of a host's log that are told when it did not start: a traceback's end."""

HOST_GONE = "was ended with the host beside it, which is gone: somebody killed it, or the machine did"

KILL = 9
"""SIGKILL, which Windows does not know, and hosts have."""

TAKEN = "was taken over by another server"


class HostedOutput(trio.abc.ReceiveStream):
    """What a hosted kernel prints, as a stream.

    Args:
        link: The stream to its host.
        number: Which of the host's channels this is.
    """

    def __init__(self, link: HostLink, number: int) -> None:
        self._link, self._channel = link, link.channels[number]
        self.given = self._channel.position - sum(map(len, self._channel.pieces))
        """The position behind what was received."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next piece, however large; empty at the end. Cancelling loses nothing."""
        while not self._channel.pieces:
            if self._channel.ended or self._link.lost.is_set():
                return b""
            await self._channel.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        piece = self._channel.pieces.popleft()
        self.given += len(piece)
        return piece

    async def aclose(self) -> None:
        """Do nothing: the pipe is the host's."""
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class HostedProcess(ProcessHere):
    """A kernel whose parent is a host. Its owner must `wait` for it, or leave it to another server."""

    link: HostLink
    stdout: HostedOutput = attrs.field(init=False)
    stderr: HostedOutput = attrs.field(init=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    """How it ended, once that is known."""
    _killed_by_us: bool = attrs.field(default=False, init=False)
    _given_up: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.stdout, self.stderr = (HostedOutput(self.link, OUTPUTS[name]) for name in ("stdout", "stderr"))

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self.link.hello.pid or 0

    def send_signal_to_group(self, number: int) -> None:
        """Send a signal to the kernel and to everything in its group.

        Raises:
            ProcessLookupError: It has ended.
            PermissionError: All of it is another user's.
        """
        if sys.platform == "win32":
            raise NotImplementedError
        if self.ending is not None or self.link.ended.is_set() or self.link.lost.is_set():
            raise ProcessLookupError(f"process {self.pid} has ended")
        os.killpg(self.pid, 0)
        self.link.signal(number)

    def kill(self) -> None:
        """Kill the kernel and everything in its group.

        Raises:
            ProcessLookupError: It has ended.
            PermissionError: All of it is another user's.
        """
        if sys.platform == "win32":
            raise NotImplementedError
        self.send_signal_to_group(signal.SIGKILL)
        self._killed_by_us = True

    def kill_or_give_up(self) -> None:
        """Kill the kernel and everything in its group; where it may not be signalled, wait for its end no longer."""
        try:
            self.kill()
        except ProcessLookupError:
            pass
        except PermissionError:
            self._given_up.set()

    async def wait(self) -> Ending:
        """Wait for the end. Cancelling leaves the process as it is."""
        if self.ending is None:
            await trio_util.wait_any(self.link.ended.wait, self.link.lost.wait, self._given_up.wait)
            self.ending = self._describe_end()
        return self.ending

    def _describe_end(self) -> Ending:
        if sys.platform == "win32":
            raise NotImplementedError
        ending = self.link.ending
        if self._given_up.is_set() and ending is None:
            return Ending(self.pid, ENDED_BY_SIGNAL, survivors=describe_survivors(self.pid), given_up=True)
        if ending is None:
            if self.link.replaced:
                return Ending(self.pid, ENDED_BY_SIGNAL, lost=TAKEN)
            # The host's guardian ends them, unless it was killed as well.
            end_group(self.pid)
            return Ending(self.pid, ENDED_BY_SIGNAL, lost=HOST_GONE)
        return describe_told_end(ending, self.pid, killed_by_us=self._killed_by_us)


def describe_told_end(told: HostEnding, pid: int, *, killed_by_us: bool) -> Ending:
    """Return how a kernel's process ended, as its host tells it.

    Args:
        told: What the host says.
        pid: The process.
        killed_by_us: Whether it was killed from here.
    """
    peak = None if told.peak_kib is None else told.peak_kib * 1024
    is_kill = told.signal == KILL and not killed_by_us
    if told.signal is None:
        return Ending(pid, told.code or 0, killed_by_us=killed_by_us, peak_memory_bytes=peak)
    return Ending(
        pid,
        ENDED_BY_SIGNAL,
        signal_name(told.signal),
        out_of_memory=is_kill and told.memory_kill,
        killed_by_us=killed_by_us,
        peak_memory_bytes=peak,
    )


def end_group(pid: int) -> None:
    """Kill a process group, if it is there and ours."""
    if sys.platform != "win32":
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


@asynccontextmanager
async def place_beside_host(
    plan: LaunchPlan, directory: Path, secret: bytes, *, abandon_after: float
) -> AsyncIterator[Placement]:
    """Start a kernel with a host beside it. Leaving the block leaves both running, unless the kernel has ended.

    Args:
        plan: What to start.
        directory: The session's own, in which the host listens.
        secret: What the host and its servers know of each other.
        abandon_after: Seconds without a server after which the host ends the kernel; 0 for never.

    Raises:
        StartupError: ``KS-5``, there is no process.
    """
    try:
        await release_host(directory, secret)
        await start_host(
            *(directory, secret, plan.argv, plan.environment, plan.working_directory or os.getcwd()),
            abandon_after=abandon_after,
        )
    except OSError as error:
        raise startup_error(plan, error) from error
    except HostRefusedError as error:
        raise startup_error(plan, OSError(error.message)) from error
    async with AsyncExitStack() as stack:
        try:
            link = await stack.enter_async_context(open_link(beside(directory), secret))
        except (HostGoneError, HostRefusedError) as error:
            text = f"The host of {plan.argv[0]} was gone before its server had reached it: {_last_words(directory)}"
            raise StartupError("KS-5", text) from error
        failed = link.hello.failed
        if failed is None:
            yield _placement(link)
        else:
            link.release()
            await link.lost.wait()
    if failed is not None:
        raise startup_error(plan, OSError(failed.errno, failed.message, failed.filename))


def _last_words(directory: Path) -> str:
    """Return what a host has said of what went wrong in it."""
    try:
        return (directory / HOST_LOG).read_text("utf-8", "replace")[-LAST_WORDS:].strip() or "it did not say why"
    except OSError:
        return "it did not say why"


async def release_host(directory: Path, secret: bytes) -> None:
    """Let a host go that is there still though its kernel's end was written down, and wait until it listens no more.

    A server may be killed before it lets go of one, and one that was let go needs a moment: two cannot listen in the
    same place. A kernel that it has nevertheless is killed.

    Raises:
        HostRefusedError: Somebody else listens there.
    """
    with suppress(HostGoneError):
        async with open_link(beside(directory), secret) as link:
            link.release()
            link.flush()
            await link.lost.wait()


@asynccontextmanager
async def find_beside_host(
    directory: Path, secret: bytes, positions: Mapping[int, int], unaccepted: Sequence[Frame]
) -> AsyncIterator[Placement]:
    """Take over a kernel from the server that had it before.

    Args:
        directory: The session's own.
        secret: What the host and its servers know of each other.
        positions: Up to where that server has taken down what came, for each channel.
        unaccepted: What it sent, and does not know whether it arrived.

    Raises:
        HostGoneError: No host is there any more.
    """
    async with open_link(beside(directory), secret, positions, unaccepted) as link:
        yield _placement(link)


def _placement(link: HostLink) -> Placement:
    return Placement(HostedProcess(link), link)
