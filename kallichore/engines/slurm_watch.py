"""What Slurm says of all our jobs, asked in one question for all of them.

Who follows a job is called back with each `View` of it that differs from the one before: what ``squeue`` said, that
Slurm does not know it any more, or that Slurm does not answer, in which case what was known stays so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from kallichore.engines.slurm_answers import (
    PLACE_FORMAT,
    QUEUE_FORMAT,
    QueuedJob,
    position,
    read_places,
    read_queue,
)
from kallichore.engines.slurm_commands import SlurmSilentError, run_slurm
from kallichore.engines.slurm_pace import LEAST, next_pause, places_pause
from kallichore.engines.slurm_words import describe_refusal, is_unknown_job


@attrs.frozen
class View:
    """What is known of a job.

    Attributes:
        job: What ``squeue`` said last; None before it has said anything.
        position: Its place among those that wait, 1 for the next; None where that is not known.
        is_gone: Whether Slurm has answered that it knows no such job.
        silence: Why nothing newer is known, in words; None while Slurm answers.
    """

    job: QueuedJob | None = None
    position: int | None = None
    is_gone: bool = False
    silence: str | None = None


@attrs.define(eq=False)
class _Follower:
    job_id: str
    take: Callable[[View], None]
    view: View = View()


async def ask_queue(*arguments: str) -> list[QueuedJob]:
    """Ask for jobs, also those that ended a short time ago.

    Args:
        arguments: Which.

    Raises:
        SlurmSilentError: Slurm does not answer.
    """
    said = await run_slurm("squeue", "--noheader", "--states=all", f"--format={QUEUE_FORMAT}", *arguments)
    if said.code and not is_unknown_job(said.complaint):
        # Whatever it is, nothing is known of any job by that.
        raise SlurmSilentError(None, f"Slurm does not answer: {describe_refusal(said.complaint)}")
    return read_queue(said.output)


async def ask_jobs(job_ids: Sequence[str]) -> list[QueuedJob]:
    """Ask for jobs by their numbers; what Slurm does not know any more is not among the answer.

    Raises:
        SlurmSilentError: Slurm does not answer.
    """
    return await ask_queue(f"--jobs={','.join(job_ids)}")


async def ask_places(partitions: Sequence[str]) -> dict[str, list[str]]:
    """Ask who waits in some partitions; return their jobs by partition, the next first.

    Raises:
        SlurmSilentError: Slurm does not answer.
    """
    of_these = f"--partition={','.join(partitions)}"
    said = await run_slurm("squeue", "--noheader", "--states=PENDING", of_these, f"--format={PLACE_FORMAT}")
    return read_places(said.output)


class SharedQuestion:
    """One question for all who ask it at about the same time: all sessions that a server finds again when it starts, or
    that were being submitted when Slurm did not answer.

    Args:
        ask: Asks it; `SlurmSilentError` where nobody answers.
    """

    def __init__(self, ask: Callable[[], Awaitable[Sequence[QueuedJob]]]) -> None:
        self._ask = ask
        self._asking = trio.Lock()
        self._asked_at = float("-inf")
        self._answer: Sequence[QueuedJob] | SlurmSilentError = ()

    async def ask(self) -> Sequence[QueuedJob]:
        """Return the answer to a question that was put after this was called. Cancelling leaves it to the others.

        Raises:
            SlurmSilentError: Nobody answered.
        """
        wanted_at = trio.current_time()
        async with self._asking:
            if self._asked_at < wanted_at:
                asked_at = trio.current_time()
                try:
                    self._answer = await self._ask()
                except SlurmSilentError as error:
                    self._answer = error
                self._asked_at = asked_at
            answer = self._answer
        if isinstance(answer, SlurmSilentError):
            raise SlurmSilentError(None, answer.strerror)
        return answer


class QueueWatch:
    """Follows jobs. `run` asks, in a task of its own, and only while there is somebody who follows one.

    Args:
        ask: Returns what there is of jobs with these numbers; `SlurmSilentError` where nobody answers.
        places: Returns who waits in these partitions.
    """

    def __init__(
        self,
        ask: Callable[[Sequence[str]], Awaitable[Sequence[QueuedJob]]],
        places: Callable[[Sequence[str]], Awaitable[dict[str, list[str]]]] = ask_places,
    ) -> None:
        self._ask, self._ask_places = ask, places
        self._followers: list[_Follower] = []
        self._hurry = trio.Event()
        self._changed_at = self._places_at = float("-inf")
        self._places: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"<QueueWatch of {len(self._followers)} jobs>"

    @contextmanager
    def follow(self, job_id: str, take: Callable[[View], None]) -> Iterator[None]:
        """Have a function called with what is known of a job, whenever that changes.

        Args:
            job_id: The job's number.
            take: The function. It must not wait, and not fail.
        """
        follower = _Follower(job_id, take)
        self._followers.append(follower)
        self._changed_at = trio.current_time()
        self.hurry()
        try:
            yield
        finally:
            self._followers.remove(follower)

    def hurry(self) -> None:
        """Ask as soon as may be: somebody has noticed that something has changed."""
        self._hurry.set()

    async def run(self) -> None:
        """Ask again and again. Cancelling loses nothing."""
        while True:
            if not self._followers:
                await self._hurry.wait()
            self._hurry = trio.Event()
            await self._ask_once()
            await trio.sleep(LEAST)
            is_waiting = any(each.view.job is None or each.view.job.is_pending for each in self._followers)
            pause = next_pause(trio.current_time() - self._changed_at, is_waiting=is_waiting)
            with trio.move_on_after(pause - LEAST):
                await self._hurry.wait()

    async def _ask_once(self) -> None:
        # One who comes while the question is out is no job that Slurm does not know.
        asked = [each for each in self._followers if not each.view.is_gone]
        if not asked:
            return
        try:
            jobs = {job.job_id: job for job in await self._ask(sorted({each.job_id for each in asked}))}
        except SlurmSilentError as error:
            for each in asked:
                self._show(each, attrs.evolve(each.view, silence=error.strerror))
            return
        await self._look_at_places([job for job in jobs.values() if job.state == "PENDING"])
        for each in asked:
            job = jobs.get(each.job_id)
            if job is None:
                self._show(each, attrs.evolve(each.view, is_gone=True, silence=None))
            else:
                self._show(each, View(job, position(job, self._places) if job.is_pending else None))

    async def _look_at_places(self, jobs: Sequence[QueuedJob]) -> None:
        now = trio.current_time()
        if not jobs or now < self._places_at + places_pause(now - self._changed_at):
            return
        self._places_at = now
        try:
            self._places = await self._ask_places(sorted({name for job in jobs for name in job.partitions}))
        except SlurmSilentError:
            # Nobody has to know them.
            self._places = {}

    def _show(self, follower: _Follower, view: View) -> None:
        before, follower.view = follower.view, view
        if follower not in self._followers or view == before:
            return
        if before.job is None or view.job is None or before.job.state != view.job.state:
            self._changed_at = trio.current_time()
        follower.take(view)
