"""How much time a Slurm job has left is known between two answers of Slurm as well."""

from __future__ import annotations

import socket

import attrs
import pytest
import trio
import trio.testing

from kallichore.engines.slurm_answers import QueuedJob
from kallichore.engines.slurm_job import SlurmJob, Way
from kallichore.engines.slurm_watch import View

RUNNING = QueuedJob("7", "RUNNING", "None", "node1", 60.0, None, None, ("main",), "a")


async def no_call() -> socket.socket:
    """Wait for ever: no host calls here."""
    await trio.sleep_forever()
    raise AssertionError("not for ever")


@pytest.fixture
def job() -> SlurmJob:
    """Return a job of which nothing is known."""
    return SlurmJob("7", Way(no_call, lambda: None, "here:1", is_new=True), lambda _: None, 0.0, lambda: None)


async def test_time_left_goes_by_between_two_answers(job: SlurmJob, autojump_clock: trio.testing.MockClock) -> None:
    """Twenty seconds after Slurm said that a minute is left, it is forty seconds, and a minute later nothing."""
    job.take(View(RUNNING))
    await trio.sleep(20)
    after_twenty = job.time_left
    await trio.sleep(60)

    assert (pytest.approx(40.0), 0.0) == (after_twenty, job.time_left)


async def test_silence_of_slurm_gives_no_more_time(job: SlurmJob, autojump_clock: trio.testing.MockClock) -> None:
    """That Slurm does not answer is no new word of how much time is left."""
    view = View(RUNNING)
    job.take(view)
    await trio.sleep(20)
    job.take(attrs.evolve(view, silence="Slurm does not answer"))

    assert pytest.approx(40.0) == job.time_left


async def test_job_without_limit_and_one_that_is_over_have_no_time_left(
    job: SlurmJob, autojump_clock: trio.testing.MockClock
) -> None:
    """There is nothing to count down to."""
    job.take(View(attrs.evolve(RUNNING, time_left=None)))
    without = job.time_left
    job.take(View(RUNNING))
    job.take(View(attrs.evolve(RUNNING, state="COMPLETED")))

    assert (None, None) == (without, job.time_left)
