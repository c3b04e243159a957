"""Slurm is asked for all jobs in one question: soon after a change, seldom without one, and never for nobody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs
import trio
import trio.testing
from hypothesis import given, strategies as st

from kallichore.engines.slurm_answers import QueuedJob
from kallichore.engines.slurm_commands import SlurmSilentError
from kallichore.engines.slurm_pace import FIRST, LONGEST_RUNNING, LONGEST_WAITING, next_pause
from kallichore.engines.slurm_watch import QueueWatch, SharedQuestion, View

PENDING = QueuedJob("1", "PENDING", "Resources", None, 3600.0, 900.0, 1.0, ("main",), "x")
RUNNING = attrs.evolve(PENDING, state="RUNNING", node="node1")


class FakeSlurm:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.jobs: dict[str, QueuedJob] = {}
        self.is_silent = False
        self.line = ["1"]
        self.asked: list[tuple[float, tuple[str, ...]]] = []
        self.looks = 0

    async def ask(self, job_ids: Sequence[str]) -> list[QueuedJob]:
        self.asked.append((trio.current_time(), tuple(job_ids)))
        await trio.sleep(0.1)
        if self.is_silent:
            raise SlurmSilentError(None, "Slurm does not answer: Socket timed out")
        return [self.jobs[each] for each in job_ids if each in self.jobs]

    async def places(self, partitions: Sequence[str]) -> dict[str, list[str]]:
        await trio.lowlevel.checkpoint()
        self.looks += 1
        if not self.line:
            raise SlurmSilentError(None, "no")
        return dict.fromkeys(partitions, self.line)

    def put(self, *jobs: QueuedJob) -> None:
        self.jobs.update({job.job_id: job for job in jobs})

    @contextmanager
    def follow(self, watch: QueueWatch, job_id: str) -> Iterator[list[View]]:
        views: list[View] = []
        with watch.follow(job_id, views.append):
            yield views


def make(nursery: trio.Nursery) -> tuple[FakeSlurm, QueueWatch]:
    slurm = FakeSlurm()
    watch = QueueWatch(slurm.ask, slurm.places)
    nursery.start_soon(watch.run)
    return slurm, watch


@given(st.floats(0, 1e7), st.booleans())
def test_pause_grows_with_what_stays_true(unchanged: float, is_waiting: bool) -> None:
    """Slurm is asked the less often the longer nothing has changed, and never less often than people can wait for."""
    pause = next_pause(unchanged, is_waiting=is_waiting)

    assert FIRST <= pause <= (LONGEST_WAITING if is_waiting else LONGEST_RUNNING)
    assert pause <= next_pause(unchanged + 60, is_waiting=is_waiting)
    assert next_pause(0, is_waiting=is_waiting) == FIRST


async def test_nobody_is_asked_for_nobody(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Without a job there is no question, and none any more when the last one is gone."""
    slurm, watch = make(nursery)
    await trio.sleep(100)
    assert slurm.asked == []
    slurm.put(RUNNING)
    with slurm.follow(watch, "1"):
        await trio.sleep(10)
    asked = len(slurm.asked)
    await trio.sleep(1000)

    assert asked >= 2
    assert len(slurm.asked) <= asked + 1


async def test_hundred_jobs_are_one_question(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """All jobs that are followed are asked for together."""
    slurm, watch = make(nursery)
    taken: list[View] = []
    with ExitStack() as stack:
        for number in range(100):
            slurm.put(attrs.evolve(PENDING, job_id=str(number)))
            stack.enter_context(watch.follow(str(number), taken.append))
        await trio.sleep(0.5)

    assert [100] == [len(job_ids) for _, job_ids in slurm.asked]
    assert len(taken) == 100
    assert slurm.looks == 1


async def test_change_is_told_and_the_rest_is_not(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who follows a job is called when something is different, and not for each question."""
    slurm, watch = make(nursery)
    slurm.put(PENDING)
    with slurm.follow(watch, "1") as views:
        await trio.sleep(20)
        slurm.put(RUNNING)
        await trio.sleep(20)

    assert [View(PENDING, 1), View(RUNNING)] == views
    assert len(slurm.asked) > 5


async def test_questions_become_seldom(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """A job that runs for an hour is asked for twice a minute at last."""
    slurm, watch = make(nursery)
    slurm.put(RUNNING)
    with slurm.follow(watch, "1"):
        await trio.sleep(3600)
        before = len(slurm.asked)
        await trio.sleep(600)

    assert 18 <= len(slurm.asked) - before <= 21


async def test_hurry_is_one_question_at_once(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """Who has noticed something has it looked at soon; a hundred who do are one question, a second after the last."""
    slurm, watch = make(nursery)
    slurm.put(RUNNING)
    with slurm.follow(watch, "1"):
        await trio.sleep(3600)
        before, began = len(slurm.asked), trio.current_time()
        for _ in range(100):
            watch.hurry()
        await trio.sleep(0.5)
        watch.hurry()
        await trio.sleep(1)

    assert [True, True] == [moment - began < 1.5 for moment, _ in slurm.asked[before:]]


async def test_silence_is_no_end(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    """While Slurm does not answer what was known stays so, and why nothing newer is known is told once."""
    slurm, watch = make(nursery)
    slurm.put(RUNNING)
    with slurm.follow(watch, "1") as views:
        await trio.sleep(5)
        slurm.is_silent = True
        await trio.sleep(300)
        slurm.is_silent = False
        await trio.sleep(60)

    silence = "Slurm does not answer: Socket timed out"
    assert [View(RUNNING), View(RUNNING, silence=silence), View(RUNNING)] == views


async def test_job_that_slurm_does_not_know_is_gone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """An answer without the job says that there is none; it is told once, and what was known last stays."""
    slurm, watch = make(nursery)
    slurm.put(RUNNING)
    with slurm.follow(watch, "1") as views:
        await trio.sleep(5)
        del slurm.jobs["1"]
        await trio.sleep(300)

    assert [View(RUNNING), View(RUNNING, is_gone=True)] == views


async def test_who_comes_while_a_question_is_out_is_not_gone(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A job that is followed after a question has gone out is not taken for missing in its answer."""
    slurm, watch = make(nursery)
    slurm.put(RUNNING, attrs.evolve(RUNNING, job_id="2"))
    with slurm.follow(watch, "1"):
        await trio.sleep(0.05)
        with slurm.follow(watch, "2") as views:
            await trio.sleep(5)

    assert [View(attrs.evolve(RUNNING, job_id="2"))] == views


async def test_place_in_line_is_nothing_that_has_to_be_known(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Where the question for all who wait is not answered, the others are; it is asked once a minute at last."""
    slurm, watch = make(nursery)
    slurm.put(PENDING)
    slurm.line = []
    with slurm.follow(watch, "1") as views:
        await trio.sleep(600)
        looks = slurm.looks
        await trio.sleep(600)

    assert [View(PENDING)] == views
    assert 8 <= slurm.looks - looks <= 10


async def test_who_asks_while_a_question_is_out_shares_the_next(autojump_clock: trio.testing.MockClock) -> None:
    """A hundred who want to know at once are answered by two questions; none gets what was asked before it wanted."""
    asked: list[float] = []
    answers: list[tuple[float, float]] = []

    async def ask() -> list[QueuedJob]:
        asked.append(trio.current_time())
        await trio.sleep(1)
        return [attrs.evolve(PENDING, submitted=asked[-1])]

    question = SharedQuestion(ask)

    async def want(delay: float) -> None:
        await trio.sleep(delay)
        wanted = trio.current_time()
        (job,) = await question.ask()
        answers.append((wanted, job.submitted or 0.0))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(want, number / 200)

    assert len(asked) == 2
    assert len(answers) == 100
    assert {True} == {wanted <= begun for wanted, begun in answers}


async def test_silence_is_shared_too_and_is_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """Who shares a question that nobody answered is told so; the next one is put anew."""
    slurm = FakeSlurm()
    slurm.is_silent = True
    question = SharedQuestion(lambda: slurm.ask(["1"]))
    silences = 0

    async def want() -> None:
        nonlocal silences
        try:
            await question.ask()
        except SlurmSilentError:
            silences += 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(want)
    slurm.is_silent = False
    await trio.sleep(1)
    await question.ask()

    assert silences == 10
    assert len(slurm.asked) == 2
