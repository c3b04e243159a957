"""One job in Slurm as its session sees it: what it waits for, how it is met, and what is said when it is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from kallichore.engines import slurm_job
from kallichore.engines.engine import Waiting
from kallichore.engines.slurm_answers import JobFacts, QueuedJob
from kallichore.engines.slurm_commands import SlurmSilentError, command_environment, run_slurm
from kallichore.engines.slurm_job import SUBMITTED, LostJob, SlurmJob, Way, ask_facts, is_news, waiting_of
from kallichore.engines.slurm_watch import View
from kallichore.errors import HostGoneError
from kallichore.kernel.ending import Ending

pytestmark = pytest.mark.posix_only("Slurm")

PENDING = QueuedJob("17", "PENDING", "Resources", None, 3600.0, 900.0, 100.0, ("main",), "x")
RUNNING = attrs.evolve(PENDING, state="RUNNING", reason="None", node="node1")
RESOURCES = "Resources: waiting for nodes to become free"
SILENCE = "Slurm does not answer: Socket timed out"
TERMINATED = Ending(1, -1, "SIGTERM")


class FakeWay:
    """A host that calls when it is told to, and a Slurm that says what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, is_new: bool = True) -> None:
        self._calls, self.calls = trio.open_memory_channel[socket.socket](10)
        self.told: list[Waiting | None] = []
        self.hurries = 0
        self.cancelled: list[str] = []
        self.left = 0
        self.facts: list[JobFacts | None] = []
        way = Way(self.calls.receive, self._hurry, "login1:7777", is_new)
        self.job = SlurmJob("17", way, self.told.append, 50.0, self._leave)
        monkeypatch.setattr(slurm_job, "ask_facts", self._ask_facts)
        monkeypatch.setattr(slurm_job, "cancel_job", self._cancel)

    @contextmanager
    def call(self) -> Iterator[socket.socket]:
        """Have the host call; yield its end."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._calls.send_nowait(ours)
            yield theirs

    def _hurry(self) -> None:
        self.hurries += 1

    def _leave(self) -> None:
        self.left += 1

    async def _ask_facts(self, job_id: str) -> JobFacts | None:
        await trio.lowlevel.checkpoint()
        return self.facts.pop(0) if len(self.facts) > 1 else self.facts[0]

    async def _cancel(self, job_id: str) -> bool:
        await trio.lowlevel.checkpoint()
        self.cancelled.append(job_id)
        return True


def put_programs(place: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """Put programs of the test's own, which are shell, before those of Slurm's."""
    for name, text in programs.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> FakeWay:
    return FakeWay(monkeypatch)


@pytest.mark.parametrize(
    ("view", "waiting"),
    [
        (View(), Waiting(SUBMITTED, 50.0)),
        (View(PENDING, 3), Waiting(RESOURCES, 100.0, 900.0, 3)),
        (View(PENDING, 3, silence=SILENCE), Waiting(SILENCE, 100.0)),
        (View(silence=SILENCE), Waiting(SILENCE, 50.0)),
        (View(RUNNING), None),
        (View(RUNNING, silence=SILENCE), None),
    ],
)
def test_what_a_job_waits_for_follows_from_what_is_known(view: View, waiting: Waiting | None) -> None:
    """A job that waits has a reason and a time since when, told by Slurm or not; one that runs has none."""
    assert waiting == waiting_of(view, 50.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Waiting("a", 1.0, 1000.0, 2), False),
        (Waiting("a", 1.0, 1059.0, 2), False),
        (Waiting("a", 1.0, 1060.0, 2), True),
        (Waiting("a", 1.0, None, 2), True),
        (Waiting("a", 1.0, 1000.0, 1), True),
        (Waiting("b", 1.0, 1000.0, 2), True),
        (None, True),
    ],
)
def test_small_shifts_are_no_news(now: Waiting | None, expected: bool) -> None:
    """Another reason or place is told, and an expected start that has moved by a minute; each second is not."""
    assert expected == is_news(Waiting("a", 1.0, 1000.0, 2), now)
    assert not is_news(None, None)
    assert not is_news(Waiting("a", 1.0), Waiting("a", 1.0))


async def test_first_call_is_waited_for_as_long_as_it_takes(
    way: FakeWay, autojump_clock: trio.testing.MockClock
) -> None:
    """A job may wait for days until its host calls; then nothing is waited for, and it is known where it runs."""
    way.job.take(View(PENDING, 1))
    async with trio.open_nursery() as nursery:
        found: list[socket.socket] = []

        async def connect() -> None:
            found.append(await way.job.connect())

        nursery.start_soon(connect)
        await trio.sleep(3 * 86400)
        assert found == []
        way.job.take(View(RUNNING))
        with way.call():
            await trio.testing.wait_all_tasks_blocked()
            # What squeue had said before it ran comes late.
            way.job.take(View(PENDING, 1))

    assert [Waiting(RESOURCES, 100.0, 900.0, 1), None] == way.told
    assert (way.job.name, way.job.node) == ("in job 17 on node1", "node1")
    assert way.cancelled == []


async def test_host_that_never_calls_is_said_and_ended(way: FakeWay, autojump_clock: trio.testing.MockClock) -> None:
    """A new job that runs and does not call says so, and is ended after five minutes: nothing is lost by that."""
    way.job.take(View(RUNNING))
    with pytest.raises(HostGoneError) as caught:
        await way.job.connect()

    assert [Waiting("it runs on node1, and has not called login1:7777 yet", 100.0)] == way.told
    assert way.cancelled == ["17"]
    assert caught.value.message == (
        "Job 17 ran on node1 for 5 minutes without a call of its host, and was ended: can node1 reach login1:7777?"
    )


async def test_job_that_is_found_again_is_never_ended_for_silence(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """A job of a server before may be cut off while its kernel computes: it is waited for without a limit."""
    way = FakeWay(monkeypatch, is_new=False)
    way.job.take(View(RUNNING))
    with trio.move_on_after(86400) as scope:
        await way.job.connect()

    assert scope.cancelled_caught
    assert way.cancelled == []


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (View(RUNNING), "job 17 is on node1, and its host has not called again"),
        (View(RUNNING, silence=SILENCE), f"its host has not called again, and {SILENCE}"),
        (
            View(attrs.evolve(RUNNING, state="SUSPENDED")),
            "job 17 is on node1, which is SUSPENDED, and its host has not called again",
        ),
    ],
)
async def test_host_that_is_cut_off_is_told_again_and_again(
    way: FakeWay, autojump_clock: trio.testing.MockClock, view: View, words: str
) -> None:
    """Who waits for a host to call again hears every ten seconds what is known, and Slurm is asked each time."""
    with way.call():
        (await way.job.connect()).close()
    way.job.take(view)
    before = way.hurries
    with pytest.raises(OSError) as caught:
        await way.job.connect()

    assert words == caught.value.strerror
    assert way.hurries == before + 1
    assert None not in way.told


async def test_job_that_is_over_is_no_host_any_more(way: FakeWay) -> None:
    """When Slurm says that a job has ended, nobody waits for its host, and the reason is said once."""
    way.facts = [JobFacts("TIMEOUT", "TimeLimit", time_limit="1:00:00")]
    with way.call():
        (await way.job.connect()).close()
    way.job.take(View(attrs.evolve(RUNNING, state="TIMEOUT")))
    with pytest.raises(HostGoneError) as caught:
        await way.job.connect()

    assert caught.value.message == "Job 17 ran into its time limit of 1:00:00"
    assert await way.job.explain(None) == ""


async def test_job_that_ended_without_a_server_is_no_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is found again, and has ended, had a host: that is told, and no hint for a start that failed."""
    way = FakeWay(monkeypatch, is_new=False)
    way.facts = [JobFacts("COMPLETED", node="node1")]
    way.job.take(View(attrs.evolve(RUNNING, state="COMPLETED")))
    with pytest.raises(HostGoneError) as caught:
        await way.job.connect()

    assert caught.value.message == "Job 17 ended with exit code 0 on node1"


@pytest.mark.parametrize(
    ("sacct", "words"),
    [
        ("echo 'TIMEOUT|0:15|08:00:00|cpu=1|node1'", "The job lab.kc-1 ran into its time limit of 8:00:00"),
        ("echo 'RUNNING|0:0|08:00:00|cpu=1|node1'", "Slurm knows no job lab.kc-1 any more"),
        ("exit 1", "Slurm knows no job lab.kc-1 any more"),
    ],
)
async def test_job_that_the_controller_forgot_may_be_known_to_accounting(
    private_place: Path, monkeypatch: pytest.MonkeyPatch, sacct: str, words: str
) -> None:
    """A server that comes back after days is told why its job ended, where the cluster has accounting."""
    put_programs(private_place, monkeypatch, sacct=sacct)
    with pytest.raises(HostGoneError) as caught:
        await LostJob("lab.kc-1").connect()

    assert words == caught.value.message


async def test_job_that_slurm_forgot_is_no_host_any_more(way: FakeWay) -> None:
    """When Slurm does not know a job any more that is what is said."""
    way.facts = [None]
    way.job.take(View(is_gone=True))
    with pytest.raises(HostGoneError) as caught:
        await way.job.connect()

    assert caught.value.message == "Slurm does not know job 17 any more"


async def test_end_is_explained_when_slurm_knows_it(way: FakeWay, autojump_clock: trio.testing.MockClock) -> None:
    """A kernel may be gone a moment before its job is; what Slurm says then is waited for, for a few seconds."""
    way.facts = [JobFacts("RUNNING"), JobFacts("COMPLETING"), JobFacts("CANCELLED", by_uid=0)]
    assert await way.job.explain(TERMINATED) == "was cancelled by root"
    way.facts = [JobFacts("COMPLETING")]
    assert await way.job.explain(TERMINATED) == "was cancelled"
    way.facts = [JobFacts("COMPLETING", is_preempted=True)]
    assert await way.job.explain(TERMINATED) == "was preempted: another job came before it"
    way.facts = [JobFacts("RUNNING")]
    began = trio.current_time()
    assert await way.job.explain(TERMINATED) == ""
    assert trio.current_time() - began == slurm_job.EXPLAIN_LIMIT


@pytest.mark.parametrize(
    "ending",
    [
        Ending(1, 0),
        Ending(1, 7),
        Ending(1, -1, "SIGSEGV"),
        Ending(1, -1, "SIGKILL", killed_by_us=True),
    ],
)
async def test_own_end_of_a_kernel_is_none_of_slurms(way: FakeWay, ending: Ending) -> None:
    """Where a kernel ended by itself, or by its session, Slurm is not asked, and nothing is said."""
    assert await way.job.explain(ending) == ""


async def test_kernel_killed_in_its_job_is_explained_by_its_host_alone(way: FakeWay) -> None:
    """A job fails because its kernel did: Slurm's guess at why is worth less than the host's word."""
    way.facts = [JobFacts("FAILED", exit_signal=9, memory=1 << 30)]

    assert await way.job.explain(Ending(1, -1, "SIGKILL")) == ""
    assert (
        await way.job.explain(None)
        == "was killed, for its memory, which is limited to 1,074 MB, or by somebody who may"
    )


async def test_end_waits_for_a_host_that_goes_by_itself(way: FakeWay, autojump_clock: trio.testing.MockClock) -> None:
    """A job whose host was let go has completed; one that has not after three seconds is cancelled."""
    with way.call():
        (await way.job.connect()).close()
    way.job.take(View(RUNNING))
    began = trio.current_time()
    await way.job.end()
    assert (way.cancelled, trio.current_time() - began) == (["17"], slurm_job.RELEASE_PATIENCE)
    way.job.take(View(attrs.evolve(RUNNING, state="COMPLETED")))
    await way.job.end()

    assert way.cancelled == ["17"]
    assert way.left == 0


async def test_end_that_is_given_up_is_done_later(way: FakeWay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cancels an end, or has no answer to it, leaves the job to the sweep."""

    async def never(_: str) -> bool:
        await trio.sleep_forever()
        return True

    monkeypatch.setattr(slurm_job, "cancel_job", never)
    with trio.move_on_after(0.01):
        await way.job.end()

    assert way.left == 1


async def test_program_that_hangs_is_a_slurm_that_does_not_answer(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of Slurm's gets so much time and no more; what is missing or fails for want of an answer is silence."""
    put_programs(private_place, monkeypatch, squeue="exec sleep 60", sacct="echo Munge encode failed >&2; exit 1")
    with pytest.raises(SlurmSilentError) as hung:
        await run_slurm("squeue", limit=0.1)
    with pytest.raises(SlurmSilentError) as mute:
        await run_slurm("sacct")
    with pytest.raises(SlurmSilentError) as missing:
        await run_slurm("no-such-program-of-slurm")

    assert hung.value.strerror == "Slurm does not answer: squeue had not ended after 0.1 s"
    assert mute.value.strerror == "Slurm does not answer: Munge encode failed"
    assert missing.value.strerror == "no-such-program-of-slurm cannot be run: No such file or directory"


def test_server_in_a_job_gives_its_options_to_nobody() -> None:
    """Variables that are options of Slurm's programs, or of a job that the server is in, are not handed on."""
    environment = {
        "PATH": "/bin",
        "SLURM_CONF": "/c",
        "SLURM_JOB_ID": "1",
        "SBATCH_ACCOUNT": "a",
        "SQUEUE_FORMAT": "%A",
    }

    assert {"PATH": "/bin", "SLURM_CONF": "/c"} == command_environment("sbatch", environment)
    assert {"PATH": "/bin", "SLURM_CONF": "/c", "SLURM_TIME_FORMAT": "%s"} == command_environment("squeue", environment)


UNKNOWN = "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1"
DISABLED = "echo Slurm accounting storage is disabled >&2; exit 1"
BY_ROOT = "echo 'CANCELLED by 0|0:15|01:00:00|cpu=1,mem=1G|node1'"
CANCELLED = JobFacts("CANCELLED", exit_signal=15, time_limit="1:00:00", memory=1 << 30, node="node1", by_uid=0)


@pytest.mark.parametrize(
    ("scontrol", "sacct", "expected"),
    [
        ("echo JobState=TIMEOUT Reason=TimeLimit", "exit 1", JobFacts("TIMEOUT", "TimeLimit")),
        ("echo JobState=CANCELLED", BY_ROOT, CANCELLED),
        ("echo JobState=COMPLETING", BY_ROOT, CANCELLED),
        ("echo JobState=COMPLETING", "echo 'RUNNING|0:0|1|cpu=1|node1'", JobFacts("COMPLETING")),
        ("echo JobState=CANCELLED", DISABLED, JobFacts("CANCELLED")),
        ("echo JobState=CANCELLED", "echo Socket timed out >&2; exit 1", JobFacts("CANCELLED")),
        (UNKNOWN, BY_ROOT, CANCELLED),
        (UNKNOWN, DISABLED, None),
    ],
)
async def test_accounting_knows_what_the_controller_does_not(
    private_place: Path, monkeypatch: pytest.MonkeyPatch, scontrol: str, sacct: str, expected: JobFacts | None
) -> None:
    """The controller is asked first; accounting, where there is any, knows who cancelled a job, and what is over."""
    put_programs(private_place, monkeypatch, scontrol=scontrol, sacct=sacct)

    assert expected == await ask_facts("17")


async def test_controller_that_does_not_answer_knows_nothing_of_a_job(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is not taken for the news that there is no such job."""
    put_programs(private_place, monkeypatch, scontrol="echo Socket timed out >&2; exit 1", sacct=BY_ROOT)
    with pytest.raises(SlurmSilentError):
        await ask_facts("17")
    put_programs(private_place, monkeypatch, scontrol="echo a plugin failed >&2; exit 1", sacct=DISABLED)
    with pytest.raises(SlurmSilentError) as caught:
        await ask_facts("17")

    assert caught.value.strerror == "Slurm does not answer: a plugin failed"
