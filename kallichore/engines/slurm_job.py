"""One session's job in Slurm: where it is, how its host is reached, why it ended, and its end.

The host calls its server (``dial`` of `kallichore.engines.host_program`), so what Slurm tells is only needed for
people, and to know that nobody will call any more. A kernel that runs is not bothered by a Slurm that does not answer.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio
import trio_util

from kallichore.engines.engine import Waiting
from kallichore.engines.slurm_answers import SACCT_FIELDS, JobFacts, read_account, read_job
from kallichore.engines.slurm_commands import SlurmSilentError, run_slurm
from kallichore.engines.slurm_pace import LEAST
from kallichore.engines.slurm_watch import View
from kallichore.engines.slurm_words import (
    can_never_run,
    describe_wait,
    explain,
    explain_end,
    explain_start,
    is_unknown_job,
)
from kallichore.errors import HostGoneError
from kallichore.kernel.ending import Ending

SUBMITTED = "Slurm has it, and has said nothing more yet"

SHIFT = 60.0
"""Seconds by which an expected start has to change to be told anew: Slurm reckons it again each half a minute."""

CALL_PATIENCE = 20.0
"""Seconds that a job may run before it is told that its host has not called: a login's environment takes some."""

CALL_LIMIT = 300.0
"""Seconds after which a job whose host has never called is ended, so that nodes are not held for nothing."""

TELL_AFTER = 10.0
"""Seconds after which it is told that a host has not called again after its connection was cut."""

EXPLAIN_LIMIT, EXPLAIN_PAUSE = 6.0, 0.5
"""Seconds in which Slurm may say why a job ended, and between two questions: a kernel may be gone a moment before Slurm
has written down what it did."""

ACCOUNTED = "now-30days"
"""Since when accounting is asked for a job whose number is not known."""

ENDING_PATIENCE = 2.0
"""Seconds in which a job that Slurm told to end may have ended, as one does whose host is let go at once: who cancelled
it is known then. A host that is not waits for its server longer than that."""

RELEASE_PATIENCE = 3.0
"""Seconds in which a host that was let go ends by itself, so that its job is one that was completed."""

CANCEL_LIMIT = 4.0
"""Seconds for ``scancel``; Slurm's daemons take it from there."""

FROM_OUTSIDE = {"SIGTERM", "SIGKILL"}
"""Signals with which Slurm ends jobs."""


def user_name(uid: int) -> str:
    """Return a user's name, or the number in words where nobody here has it."""
    if sys.platform == "win32":
        raise NotImplementedError
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


async def ask_facts(job_id: str) -> JobFacts | None:
    """Return what Slurm still knows of a job; None if that is nothing.

    Raises:
        SlurmSilentError: It does not answer.
    """
    said = await run_slurm("scontrol", "show", "job", "--oneliner", job_id)
    facts = read_job(said.output)
    if facts is not None and facts.state not in ("CANCELLED", "COMPLETING"):
        return facts
    # Who cancelled it is known to accounting alone, where there is any; and all, when the controller has forgotten. Why
    # a job is ending accounting may know as well, and the controller says so only when it has ended.
    with suppress(SlurmSilentError):
        accounted = await ask_account(f"--jobs={job_id}")
        if accounted is not None and (facts is None or accounted.is_over):
            return accounted
    if facts is None and said.code and not is_unknown_job(said.complaint):
        raise SlurmSilentError(None, f"Slurm does not answer: {said.complaint.strip()}")
    return facts


async def ask_account(*which: str) -> JobFacts | None:
    """Return what accounting knows of a job; None if that is nothing, or there is none.

    Args:
        which: Arguments of ``sacct`` that name it.

    Raises:
        SlurmSilentError: It does not answer.
    """
    wanted = ("--allocations", "--noheader", "--parsable2", f"--format={SACCT_FIELDS}")
    return read_account((await run_slurm("sacct", *wanted, *which)).output)


async def cancel_job(job_id: str) -> bool:
    """End a job; return whether Slurm has taken that in. One that has ended is no error."""
    try:
        said = await run_slurm("scancel", "--quiet", job_id, limit=CANCEL_LIMIT)
    except SlurmSilentError:
        return False
    return not said.code or is_unknown_job(said.complaint)


def waiting_of(view: View, since: float) -> Waiting | None:
    """Return why a job waits; None if it does not.

    Args:
        view: What is known of it.
        since: When it came, in seconds since 1970, where Slurm has not told that.
    """
    job = view.job
    if job is not None and not job.is_pending:
        return None
    if job is not None and job.submitted is not None:
        since = job.submitted
    if view.silence is not None:
        return Waiting(view.silence, since)
    if job is None:
        return Waiting(SUBMITTED, since)
    return Waiting(describe_wait(job), since, job.start, view.position)


def is_news(before: Waiting | None, now: Waiting | None) -> bool:
    """Tell whether people want to know; not of each second by which Slurm moves what it expects."""
    if before is None or now is None:
        return before is not now
    starts = before.expected_start, now.expected_start
    is_moved = None in starts or abs(starts[0] - starts[1]) >= SHIFT  # type: ignore[operator]
    same = (before.reason, before.position) == (now.reason, now.position)
    return not same or (is_moved and starts[0] != starts[1])


@attrs.frozen
class Way:
    """How a host is met.

    Attributes:
        next_call: Waits for the next connection of it.
        hurry: Has Slurm asked soon.
        server: Where it is to call, for people.
        is_new: Whether it cannot have been there before: if it never calls, nothing is lost by its end.
    """

    next_call: Callable[[], Awaitable[socket.socket]]
    hurry: Callable[[], None]
    server: str
    is_new: bool


class LostJob:
    """A job of which Slurm knows nothing any more; see `kallichore.engines.engine.Job`.

    Args:
        job_name: What Slurm knew it by.
    """

    node: str | None = None
    time_left: float | None = None

    def __init__(self, job_name: str) -> None:
        self.name = f"in the job {job_name}"
        self._job_name = job_name

    async def connect(self) -> socket.socket:
        """Raise `HostGoneError`, with what accounting knows."""
        facts = None
        with trio.move_on_after(EXPLAIN_LIMIT), suppress(SlurmSilentError):
            facts = await ask_account(f"--name={self._job_name}", f"--starttime={ACCOUNTED}")
        if facts is None or not facts.is_over:
            raise HostGoneError(f"Slurm knows no job {self._job_name} any more")
        raise HostGoneError(f"The job {self._job_name} {explain_end(facts, name_of=user_name)}")

    async def explain(self, ending: Ending | None) -> str:
        """Return nothing: nobody knows."""
        await trio.lowlevel.checkpoint()
        return ""

    async def end(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()


class SlurmJob:
    """A host in a batch job. Made by `kallichore.engines.slurm.SlurmEngine.open_job`.

    Args:
        job_id: The job's number.
        way: How its host is met.
        tell: Is told why it waits.
        submitted: When it came, in seconds since 1970, until Slurm tells.
        leave: Has it ended later, where Slurm does not take that in now.

    Attributes:
        name: What it is called.
        node: Where it runs; None while it has no node.
    """

    def __init__(
        self,
        job_id: str,
        way: Way,
        tell: Callable[[Waiting | None], None],
        submitted: float,
        leave: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.name = f"in job {job_id}"
        self.node: str | None = None
        self._ends: float | None = None
        """When its time limit is, by the clock of `trio.current_time`."""
        self._way, self._tell, self._leave = way, tell, leave
        self._submitted = submitted
        self._told: Waiting | None = None
        self._view = View()
        self._has_called = self._is_ended_by_us = False
        self._is_explained = False
        """Whether who wanted a connection was told why there is none any more."""
        self._placed, self._over = trio.Event(), trio.Event()

    def __repr__(self) -> str:
        state = self._view.job.state if self._view.job else "not seen yet"
        return f"<SlurmJob {self.job_id} {state} on {self.node}>"

    # What Slurm says

    @property
    def time_left(self) -> float | None:
        """Seconds until its time limit; None without one. Slurm is asked seldom, so it is not what was told last."""
        return None if self._ends is None else max(0.0, self._ends - trio.current_time())

    def take(self, view: View) -> None:
        """Take in what is known of it now."""
        job, before, self._view = view.job, self._view.job, view
        if job is not None and not job.is_pending:
            self.node = job.node
            if job is not before:
                left = None if job.is_over else job.time_left
                self._ends = None if left is None else trio.current_time() + left
            self.name = f"in job {self.job_id} on {self.node}" if self.node else f"in job {self.job_id}"
            self._placed.set()
        if view.is_gone or (job is not None and (job.is_over or can_never_run(job))):
            self._over.set()
        elif not self._placed.is_set() and not self._has_called:
            self._say(waiting_of(view, self._submitted))

    def _say(self, waiting: Waiting | None) -> None:
        if is_news(self._told, waiting):
            self._told = waiting
            self._tell(waiting)

    # The way to its host

    async def connect(self) -> socket.socket:
        """Wait for a call of its host; see `kallichore.engines.engine.Job.connect`."""
        self._way.hurry()
        calls: list[socket.socket] = []

        async def take_call() -> None:
            calls.append(await self._way.next_call())

        try:
            if self._has_called:
                with trio.move_on_after(TELL_AFTER):
                    await trio_util.wait_any(take_call, self._over.wait)
            else:
                await trio_util.wait_any(take_call, self._over.wait, self._miss_first_call)
        except BaseException:
            for call in calls:
                call.close()
            raise
        if calls:
            self._has_called = True
            self._say(None)
            # Which node it is on may not be known yet.
            self._way.hurry()
            return calls[0]
        if self._over.is_set():
            words = await self._describe_over()
            self._is_explained = True
            raise HostGoneError(words)
        if self._has_called:
            raise OSError(errno.ETIMEDOUT, self._describe_silence())
        await self.end()
        limit = f"{CALL_LIMIT / 60:.0f} minutes"
        raise HostGoneError(
            f"Job {self.job_id} ran on {self.node} for {limit} without a call of its host, and was ended: "
            f"can {self.node} reach {self._way.server}?"
        )

    async def _miss_first_call(self) -> None:
        """Return when the job has run for so long that its host will not call any more."""
        await self._placed.wait()
        self._say(None)
        await trio.sleep(CALL_PATIENCE)
        job = self._view.job
        submitted = self._submitted if job is None or job.submitted is None else job.submitted
        self._say(Waiting(f"it runs on {self.node}, and has not called {self._way.server} yet", submitted))
        if not self._way.is_new:
            # It may have been cut off with a kernel that computes on.
            await trio.sleep_forever()
        await trio.sleep(CALL_LIMIT - CALL_PATIENCE)

    def _describe_silence(self) -> str:
        """Return why its host has not called again, as far as that is known."""
        if self._view.silence is not None:
            return f"its host has not called again, and {self._view.silence}"
        job = self._view.job
        state = "" if job is None or job.state == "RUNNING" else f", which is {job.state}"
        return f"job {self.job_id} is on {self.node}{state}, and its host has not called again"

    async def _describe_over(self) -> str:
        """Return why nobody will call, in a sentence without a full stop."""
        job = self._view.job
        if job is not None and can_never_run(job):
            await self.end()
            return f"Job {self.job_id} can never run: {describe_wait(job)}"
        facts = None
        with trio.move_on_after(EXPLAIN_LIMIT), suppress(SlurmSilentError):
            facts = await ask_facts(self.job_id)
        if facts is None:
            return f"Slurm does not know job {self.job_id} any more"
        # One that is found again may have called a server before.
        is_start = self._way.is_new and not self._has_called
        words = (explain_start if is_start else explain_end)(facts, name_of=user_name)
        return f"Job {self.job_id} {words}"

    # Its end

    async def explain(self, ending: Ending | None) -> str:
        """Return why it ended, as far as Slurm had to do with it; see `kallichore.engines.engine.Job.explain`."""
        is_told = self._is_ended_by_us or self._is_explained
        if is_told or (ending is not None and not _is_from_outside(ending)):
            return ""
        facts = None
        began = trio.current_time()
        with trio.move_on_after(EXPLAIN_LIMIT), suppress(SlurmSilentError):
            # Only the controller knows when it will know.
            while not _is_settled(  # noqa: ASYNC110
                facts := await ask_facts(self.job_id), ending, trio.current_time() - began
            ):
                await trio.sleep(EXPLAIN_PAUSE)
        if facts is None:
            return ""
        if ending is None:
            return explain(facts, name_of=user_name)
        if facts.state == "FAILED":
            # As the host did, which knows more.
            return ""
        return explain(
            facts,
            peak=ending.peak_memory_bytes,
            was_killed_for_memory=ending.out_of_memory,
            name_of=user_name,
        )

    async def end(self) -> None:
        """End it; see `kallichore.engines.engine.Job.end`. What Slurm does not take in now is left to a sweep."""
        self._is_ended_by_us = True
        if self._has_called and not self._over.is_set():
            with trio.move_on_after(RELEASE_PATIENCE):
                while not self._over.is_set():
                    self._way.hurry()
                    with trio.move_on_after(LEAST):
                        await self._over.wait()
        job = self._view.job
        if not self._view.is_gone and (job is None or not job.is_over):
            is_taken = False
            try:
                is_taken = await cancel_job(self.job_id)
            finally:
                if not is_taken:
                    self._leave()


def _is_from_outside(ending: Ending) -> bool:
    """Whether Slurm may have had to do with an end."""
    return ending.out_of_memory or (not ending.killed_by_us and ending.signal in FROM_OUTSIDE)


def _is_settled(facts: JobFacts | None, ending: Ending | None, waited: float) -> bool:
    """Whether Slurm has said all that it will say of an end.

    Args:
        facts: What it said.
        ending: What the host told; None where it could not.
        waited: Seconds since the first question.
    """
    if facts is None or facts.is_over or facts.is_preempted or facts.reason == "TimeLimit":
        return True
    if ending is None:
        return False
    return ending.out_of_memory or (facts.state == "COMPLETING" and waited >= ENDING_PATIENCE)
