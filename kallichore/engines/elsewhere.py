"""Kernels on other machines, by whatever engine: placed there, or found again, and talked to through their hosts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio
import trio_util

from kallichore.engines.attaching import Attachment, attach
from kallichore.engines.beside_host import KILL, HostedOutput, describe_told_end
from kallichore.engines.engine import Job, Waiting
from kallichore.engines.held_job import HeldJob
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.placement import Placement
from kallichore.engines.reach import Reach
from kallichore.errors import (
    EngineError,
    HostGoneError,
    HostRefusedError,
    KallichoreError,
    StartupError,
    StartupReason,
    lone_error,
)
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.resources import Usage
from kallichore.wire.channels import OUTPUTS
from kallichore.wire.host_frames import Frame, HostFacts, HostFailure

KILL_PATIENCE = 10.0
"""Seconds that a host may take to say that a kernel which was killed has ended. Then its job is ended: a network that
is down is no reason to keep somebody waiting who wants to be rid of a kernel."""

EXPLAIN_PATIENCE = 8.0
"""Seconds that an engine may take to say why a job ended."""

RELEASE_PATIENCE = 2.0
"""Seconds that a host may take to go when it was let go, before its job is ended."""

AGAIN_TRIES = 3
"""How often a host is asked to start a kernel anew: it may not have heard of it when its connection was cut."""

LOOK_EVERY = 10.0
"""Seconds between two looks at where a job is and how much time it has left."""


@attrs.frozen(kw_only=True)
class Follower:
    """Who wants to know what becomes of a kernel elsewhere.

    Attributes:
        tell_waiting: Called as `Engine.open_job` says.
        tell_cut: Called as `Reach.tell` says.
        tell_place: Called when it is known where the job is, and now and then: the job, its machine, and when the
            engine will end it, in seconds since 1970, or None.
        unwanted: Set when nobody wants the kernel any more, or another server is to have it.
        is_left: Whether another server is to have it.
        is_restarting: Whether another kernel is to follow it, in its place.
    """

    tell_waiting: Callable[[Waiting | None], None]
    tell_cut: Callable[[str | None], None]
    tell_place: Callable[[str, str | None, float | None], None]
    unwanted: trio.Event
    is_left: Callable[[], bool]
    is_restarting: Callable[[], bool]


@attrs.define(eq=False)
class ProcessElsewhere:
    """A kernel on another machine, whose parent is a host. Its owner must `wait` for it, or leave it to a server."""

    link: HostLink
    job: Job
    is_here: bool = attrs.field(default=False, init=False)
    stdout: HostedOutput = attrs.field(init=False)
    stderr: HostedOutput = attrs.field(init=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    """How it ended, once that is known."""
    killed: trio.Event = attrs.field(factory=trio.Event, init=False)
    given_up: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when its end is waited for no longer."""
    _before: tuple[float, HostFacts] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.stdout, self.stderr = (HostedOutput(self.link, OUTPUTS[name]) for name in ("stdout", "stderr"))

    @property
    def pid(self) -> int:
        """Its process id over there."""
        return self.link.hello.pid or 0

    def is_stopped(self) -> bool:
        """Whether it was stopped, when its host was asked last."""
        return self.link.facts is not None and bool(self.link.facts.is_stopped)

    def read_directory(self) -> str | None:
        """Return the directory that it was in when its host was asked last, and ask again."""
        self.link.ask()
        return None if self.link.facts is None else self.link.facts.directory

    def sample(self) -> Usage | None:
        """Return what it and its descendants used when its host was asked last, and ask again."""
        self.link.ask()
        facts, now = self.link.facts, trio.current_time()
        if facts is None or facts.memory is None:
            return None
        before, percent = self._before, 0
        if before is None or before[1] is not facts:
            self._before = now, facts
        if before is not None and before[1] is not facts and now > before[0]:
            used = (facts.cpu_seconds or 0.0) - (before[1].cpu_seconds or 0.0)
            percent = max(0, round(100 * used / (now - before[0])))
        return Usage(percent, facts.memory, facts.threads or 0)

    def send_signal_to_group(self, number: int) -> None:
        """Send a signal to the kernel and to everything in its group: now, or when its host can be reached again.

        Raises:
            ProcessLookupError: It has ended.
        """
        if self.ending is not None or self.link.ended.is_set() or self.link.lost.is_set():
            raise ProcessLookupError(f"process {self.pid} has ended")
        self.link.signal(number)

    def kill(self) -> None:
        """Kill the kernel and everything in its group.

        Raises:
            ProcessLookupError: It has ended.
        """
        self.send_signal_to_group(KILL)
        self.killed.set()

    def kill_or_give_up(self) -> None:
        """Kill the kernel and everything in its group; one that cannot be reached is not waited for long."""
        try:
            self.kill()
        except ProcessLookupError:
            pass

    async def wait(self) -> Ending:
        """Wait for the end. Cancelling leaves the process as it is."""
        if self.ending is None:
            await trio_util.wait_any(self.link.ended.wait, self.link.lost.wait, self.given_up.wait)
            told = self.link.ending
            if told is None:
                ending = self._describe_lost()
            else:
                ending = describe_told_end(told, self.pid, killed_by_us=self.killed.is_set())
            explanation = ""
            with trio.move_on_after(EXPLAIN_PATIENCE):
                explanation = await self.job.explain(None if told is None else ending)
            self.ending = attrs.evolve(ending, explanation=explanation)
        return self.ending

    def _describe_lost(self) -> Ending:
        if self.link.replaced:
            text = "was taken over by another server"
        elif self.given_up.is_set():
            text = f"could not be reached {self.job.name}, which was ended"
        else:
            text = f"was lost: {self.link.why_lost}" if self.link.why_lost else "was lost with the host beside it"
        return Ending(self.pid, ENDED_BY_SIGNAL, lost=text)


@asynccontextmanager
async def place_elsewhere(
    held: HeldJob,
    follower: Follower,
    directory: str | None,
    *,
    positions: Mapping[int, int] = {},
    unaccepted: Sequence[Frame] = (),
) -> AsyncIterator[Placement]:
    """Reach the kernel of a job, or have its host start another one after that. Leaving the block leaves both running,
    unless the kernel has ended: then the job is ended with it, but for a kernel that is to follow in its place.

    It may take days until there is a machine; that ends as soon as the kernel is `Follower.unwanted`.

    Args:
        held: The job.
        follower: Who is told.
        directory: Where a kernel that is started anew begins.
        positions: Of one that is found, up to where its bytes were taken in.
        unaccepted: Of one that is found, what the server before sent and does not know to have arrived.

    Raises:
        StartupError: ``KS-5``: the kernel's program could not be started, or somebody else's host is there; ``KS-16``:
            nobody wants it any more.
        HostGoneError: Its job has ended, or can never run.
    """
    job, secret = held.job, held.order.secret
    reach = Reach(job.connect, job.name, follower.tell_cut)
    is_kept = False
    try:
        attachment = await _attach(reach, secret, positions, follower.unwanted)
        if held.is_used:
            attachment = await _start_again(attachment, reach, secret, follower, directory)
        held.is_used = True
        follower.tell_waiting(None)
        async with open_link(reach, secret, positions, unaccepted, attachment) as link:
            failed = link.hello.failed
            if failed is None:
                async with _open_process(link, job, follower) as process:
                    yield Placement(process, link)
            is_kept = follower.is_left() or (follower.is_restarting() and not link.lost.is_set())
            if not is_kept:
                await _let_go(link)
        if failed is not None:
            raise StartupError("KS-5", _why(failed, job), reason=StartupReason.NOT_FOUND)
    except (KallichoreError, BaseExceptionGroup) as error:
        raise as_start(error) from error
    finally:
        if follower.is_left():
            with trio.CancelScope(shield=True):
                await held.leave()
        elif not is_kept:
            with trio.CancelScope(shield=True):
                await held.end()


async def _start_again(
    attachment: Attachment, reach: Reach, secret: bytes, follower: Follower, directory: str | None
) -> Attachment:
    """Have a host start a kernel in the place of one that has ended, and return a connection that knows of it.

    Raises:
        HostGoneError: The host does not do that, as it is about to end.
    """
    for _ in range(AGAIN_TRIES):
        if attachment.hello.ended is None and attachment.hello.failed is None:
            return attachment
        async with open_link(reach, secret, attachment=attachment) as link:
            link.start_again(directory)
            await link.lost.wait()
        attachment = await _attach(reach, secret, {}, follower.unwanted)
    if attachment.hello.ended is None:
        return attachment
    attachment.connection.close()
    raise HostGoneError("its job is about to end")


def as_start(error: BaseException) -> BaseException:
    """Return what went wrong as who asked for the start is to know it, out of the groups of nurseries around it."""
    alone = lone_error(error, None, trio.Cancelled) if isinstance(error, BaseExceptionGroup) else error
    if isinstance(alone, EngineError | HostRefusedError):
        return StartupError("KS-5", alone.message, alone.details, reason=StartupReason.NO_MACHINE)
    return alone


async def _attach(reach: Reach, secret: bytes, positions: Mapping[int, int], unwanted: trio.Event) -> Attachment:
    """Wait for the job to run and its host to be reached, for as long as somebody wants it."""
    async with trio_util.move_on_when(unwanted.wait):
        return await attach(reach, secret, positions)
    raise StartupError("KS-16", "The start was given up before the kernel had a machine", reason=StartupReason.GIVEN_UP)


async def _let_go(link: HostLink) -> None:
    """Have a host end whose kernel is over, and give it time to hear that."""
    link.release()
    link.flush()
    with trio.move_on_after(RELEASE_PATIENCE):
        await link.lost.wait()


def _why(failed: HostFailure, job: Job) -> str:
    where = "" if failed.filename is None else f" {failed.filename}"
    return f"Could not start{where} {job.name}: {failed.message}"


@asynccontextmanager
async def _open_process(link: HostLink, job: Job, follower: Follower) -> AsyncIterator[ProcessElsewhere]:
    process = ProcessElsewhere(link, job)

    async def follow_place() -> None:
        async for _ in trio_util.periodic(LOOK_EVERY):
            ends = None if job.time_left is None else time.time() + job.time_left
            follower.tell_place(job.name, job.node, ends)

    async def end_what_cannot_be_reached() -> None:
        await process.killed.wait()
        with trio.move_on_after(KILL_PATIENCE):
            await trio_util.wait_any(link.ended.wait, link.lost.wait)
            return
        await job.end()
        process.given_up.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow_place)
        nursery.start_soon(end_what_cannot_be_reached)
        yield process
        nursery.cancel_scope.cancel()
