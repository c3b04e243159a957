"""Kernels in jobs of a real Slurm: placed, reached, explained, ended; and what waits or cannot be says why."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from hosts import STDOUT, connect_all, read_line, read_to_end, tell
from kallichore.engines import slurm
from kallichore.engines.engine import EngineServices, Waiting
from kallichore.errors import ConfigurationError, EngineError, HostGoneError
from plain_kernel import lines
from slurm_cluster import Cluster, can_limit_memory, open_cluster, use, why_not
from slurm_jobs import OWNER, PATIENCE, ending_of, open_desk, open_slurm, order, start, until

pytestmark = [
    pytest.mark.posix_only("Slurm"),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}"),
]

SILENT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster whose nodes are on this machine; it is gone after the last test."""
    place = Path(tempfile.mkdtemp(prefix="ks-", dir="/tmp"))
    # Slurm's key need not be found by others, and the rest may be read.
    place.chmod(0o755)
    try:
        with open_cluster(place) as cluster:
            yield cluster
    finally:
        shutil.rmtree(place)


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give a test the cluster, and see that it leaves nothing in the queue or on the nodes."""
    yield from use(running_cluster, monkeypatch)


Replace = Callable[[str, str], Path]


@pytest.fixture
def replace(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Replace:
    """Put a program of the test's own before one of Slurm's; it is shell, and $REAL is the real one."""
    folder = private_place / "programs"
    folder.mkdir()
    path = os.environ["PATH"]

    def put(name: str, text: str) -> Path:
        real = shutil.which(name, path=path)
        file = folder / name
        file.write_text(f"#!/bin/sh\nREAL={real}\nHERE={private_place}\n{text}\n")
        file.chmod(0o755)
        return private_place

    monkeypatch.setenv("PATH", f"{folder}:{path}")
    return put


async def test_kernel_runs_in_a_job(cluster: Cluster) -> None:
    """A kernel in a job is talked to as one beside the server: its ports are there, and its job is known by name."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        await connect_all(started.link)
        tell(started.link, "print 3 10")

        assert lines(3, 10).split() == [await read_line(started.link, STDOUT) for _ in range(3)]
        await until(lambda: started.job.node is not None)
        assert started.job.node in cluster.nodes
        assert started.job.name == f"in job {started.job.job_id} on {started.job.node}"
        assert cluster.state(started.job.job_id, "JobName") == started.ticket["name"]
        assert started.told[-1] is None
        assert started.job.time_left is not None
        assert 3500 < started.job.time_left <= 3600
        job_id = started.job.job_id
        tell(started.link, "exit 0")
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()

    assert cluster.state(job_id) == "COMPLETED"


async def test_kernel_has_the_environment_of_a_login(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel has what its user's login and the setup set, and what the session asks; nothing of the server's."""
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    monkeypatch.setenv("SBATCH_PARTITION", "none")
    monkeypatch.setenv("SLURM_JOB_ID", "999999")
    (cluster.place / "home" / ".profile").write_text("export FROM_LOGIN=yes\n")
    wanted = order(("/bin/sh", "-c", "env; echo WHERE=$(pwd)"), setup=['export FROM_SETUP="of $FROM_LOGIN"'])
    async with open_slurm(cluster) as engine, start(engine, wanted) as started:
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()
        variables = set((await read_to_end(started.link, STDOUT)).decode().splitlines())
        job_id = started.job.job_id
    (cluster.place / "home" / ".profile").unlink()

    names = {each.partition("=")[0] for each in variables}
    assert "SLURM_EXPORT_ENV=ALL" in variables
    assert {"FROM_LOGIN=yes", "FROM_SETUP=of yes", f"SLURM_JOB_ID={job_id}", f"WHERE={cluster.place}/home"} <= variables
    assert {"SECRET_OF_THE_SERVER", "SBATCH_PARTITION", "SLURM_TIME_FORMAT"} & names == set()


async def test_job_that_waits_says_why(cluster: Cluster) -> None:
    """While a job waits its reason is told, and since when; then it runs, and nothing more is told of waiting."""
    async with open_slurm(cluster) as engine, trio.open_nursery() as nursery:
        told: list[Waiting | None] = []

        async def release() -> None:
            await until(lambda: told and told[-1] is not None and told[-1].reason.startswith("JobHeldUser"))
            cluster.run("scontrol", "release", cluster.jobs()[0])

        nursery.start_soon(release)
        async with start(engine, order(extra=["--hold"]), told=told) as started:
            waited = [each for each in told if each is not None]
            await until(lambda: started.job.node in cluster.nodes)

    assert told[-1] is None
    assert "JobHeldUser: held by its user; `scontrol release` lets it go" in [each.reason for each in waited]
    assert {True} == {abs(each.since - waited[0].since) < 10 for each in waited}


@pytest.mark.engines
async def test_place_in_line_and_expected_start_are_told(cluster: Cluster) -> None:
    """A job behind others is told its place among them, and when Slurm expects it to begin."""
    large = ("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=60", "--wrap=sleep 60", "--output=/dev/null")
    held = [cluster.run(*large).strip(), cluster.run(*large).strip()]
    try:
        await until(lambda: cluster.state(held[0]) == "RUNNING" and cluster.state(held[1]) == "PENDING")
        async with open_slurm(cluster) as engine:
            told: list[Waiting | None] = []
            wanted = order(cpus=60)
            async with engine.open_job(wanted, engine.ticket(wanted), told.append, is_new=True) as job:
                await until(lambda: told and told[-1] is not None and told[-1].expected_start is not None)
                await job.end()
    finally:
        cluster.run("scancel", *held)

    assert told[-1] is not None
    assert told[-1].position == 2
    assert told[-1].reason == "Priority: other jobs of its partition come before it"
    assert told[-1].expected_start > told[-1].since


async def test_what_slurm_refuses_is_said_at_once(cluster: Cluster) -> None:
    """A job that cannot be is refused in Slurm's words, and none is left."""
    async with open_slurm(cluster) as engine:
        for options, words in (
            ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
            ({"memory": "900G"}, "Memory specification can not be satisfied"),
            ({"gres": "gpu:1"}, "Invalid generic resource (gres) specification"),
        ):
            wanted = order(**options)
            with pytest.raises(EngineError) as caught:
                async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True):
                    pass

            assert f"Slurm refuses the job: {words}" in caught.value.message


async def test_what_never_runs_is_ended_in_words(cluster: Cluster) -> None:
    """A job that Slurm takes, and can never run, is not waited for: why is said, and it is taken out of the queue."""
    async with open_slurm(cluster) as engine:
        wanted = order(partition="short", time="60")
        async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True) as job:
            with trio.fail_after(PATIENCE), pytest.raises(HostGoneError) as caught:
                await job.connect()

    assert "can never run: Partition" in caught.value.message
    assert cluster.jobs() == []


async def test_start_that_fails_says_what_would_help(cluster: Cluster) -> None:
    """Where there is no such Python on a node, that is what is said; what a job prints is where it was wanted."""
    output = cluster.place / "job.out"
    async with open_slurm(cluster) as engine:
        wanted = order(python="python9", output=str(output))
        async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True) as job:
            with trio.fail_after(PATIENCE), pytest.raises(HostGoneError) as caught:
                await job.connect()

            assert f"ended with exit code 127 before its host could call: is there no such Python on {job.node}?" in (
                caught.value.message
            )
    assert "python9: not found" in output.read_text().replace("command ", "")


@pytest.mark.engines
async def test_signal_reaches_the_kernel_alone(cluster: Cluster) -> None:
    """An interrupt goes through the link to the kernel and its group, and Slurm has nothing to say of that."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        await connect_all(started.link)
        started.link.signal(signal.SIGINT)
        started.link.flush()
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()

        assert started.link.ending is not None
        assert started.link.ending.signal == signal.SIGINT
        assert await started.job.explain(ending_of(started.link)) == ""


async def test_job_cancelled_from_outside_says_so(cluster: Cluster) -> None:
    """Who cancels a job in Slurm's own way ends the kernel, and that it was cancelled is what is said."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        await connect_all(started.link)
        cluster.run("scancel", started.job.job_id)
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()

        assert await started.job.explain(ending_of(started.link)) == "was cancelled"
        started.link.release()
        started.link.flush()
        assert await started.job.explain(None) == "was cancelled"


async def test_job_cancelled_while_it_waits_says_so(cluster: Cluster) -> None:
    """Who cancels a job before it runs ends the wait for it."""
    async with open_slurm(cluster) as engine:
        wanted = order(extra=["--hold"])
        async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True) as job:
            cluster.run("scancel", cluster.jobs()[0])
            with trio.fail_after(PATIENCE), pytest.raises(HostGoneError) as caught:
                await job.connect()

    assert "was cancelled" in caught.value.message


@pytest.mark.skipif(not can_limit_memory(), reason="no control groups of version 1 here that limit memory")
async def test_memory_beyond_the_limit_is_explained(cluster: Cluster) -> None:
    """A kernel that needs more memory than its job was given: the limit and its peak are said."""
    greedy = ("python3", "-c", "import time; time.sleep(1)\nall = []\nwhile True: all.append(bytearray(1 << 22))")
    async with open_slurm(cluster) as engine, start(engine, order(greedy, memory="80M")) as started:
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()
        words = await started.job.explain(ending_of(started.link))

    assert words.startswith("ran into its memory limit of 84 MB; its kernel had ")


@pytest.mark.engines
async def test_preempted_job_says_so(cluster: Cluster) -> None:
    """A job that has to make way for another is told from one that somebody ended."""
    async with open_slurm(cluster) as engine, start(engine, order(partition="low", cpus=60)) as started:
        await connect_all(started.link)
        other = cluster.run("sbatch", "--parsable", "-N2", "--cpus-per-task=60", "--wrap=sleep 60", "-o", "/dev/null")
        with trio.fail_after(PATIENCE):
            await started.link.ended.wait()
        words = await started.job.explain(ending_of(started.link))
        cluster.run("scancel", other.strip())

    assert words == f"was preempted: another job came before it on {started.job.node}"


async def test_unclear_submission_is_looked_up(cluster: Cluster, replace: Replace) -> None:
    """Where sbatch fails because nobody answered, and the job is there, it is found by its name: there is one job."""
    place = replace("sbatch", f'echo x >> $HERE/count; "$REAL" "$@" > /dev/null; echo "{SILENT}" >&2; exit 1')
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        assert [started.job.job_id] == cluster.jobs()
        assert (place / "count").read_text() == "x\n"
        assert "Slurm does not answer: Socket timed out on send/recv operation" in [
            each.reason for each in started.told if each is not None
        ]


@pytest.mark.engines
async def test_submission_that_came_to_nothing_is_repeated(
    cluster: Cluster, replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sbatch fails because nobody answered, and Slurm says later that there is no job, it is submitted again."""
    monkeypatch.setattr(slurm, "LOOK_PAUSE", 0.2)
    replace("sbatch", f'[ -e $HERE/tried ] && exec "$REAL" "$@"; touch $HERE/tried; echo "{SILENT}" >&2; exit 1')
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        assert [started.job.job_id] == cluster.jobs()


@pytest.mark.engines
async def test_submission_waits_for_slurm_to_answer(
    cluster: Cluster, replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody answers nothing is submitted again, and that is the end of nothing."""
    monkeypatch.setattr(slurm, "SILENCE_PAUSE", 0.2)
    place = replace("sbatch", f'"$REAL" "$@" > /dev/null; echo "{SILENT}" >&2; exit 1')
    replace(
        "squeue",
        'echo x >> $HERE/asked; [ -e $HERE/back ] && exec "$REAL" "$@"; '
        'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1',
    )
    asked = place / "asked"
    async with open_slurm(cluster) as engine, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await until(lambda: asked.exists() and len(asked.read_text().split()) > 3)
            (place / "back").touch()

        nursery.start_soon(come_back)
        async with start(engine, order()) as started:
            assert [started.job.job_id] == cluster.jobs()


async def test_submission_that_is_given_up_leaves_no_job(
    cluster: Cluster, replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who cancels a start while sbatch runs has no job in the end, though Slurm had it."""
    monkeypatch.setattr(slurm, "LEFT_PAUSE", 0.1)
    place = replace("sbatch", '"$REAL" "$@"; touch $HERE/done; exec sleep 60')
    async with open_slurm(cluster) as engine, trio.open_nursery() as nursery:
        wanted = order(extra=["--hold"])

        async def submit() -> None:
            async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True):
                pass

        nursery.start_soon(submit)
        await until((place / "done").exists)
        assert len(cluster.jobs()) == 1
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(lambda: cluster.jobs() == [])


async def test_submission_that_ends_with_its_server_is_for_the_next(cluster: Cluster, replace: Replace) -> None:
    """A server that ends while sbatch runs leaves the job, which the next server finds by its ticket."""
    place = replace("sbatch", '"$REAL" "$@"; touch $HERE/done; exec sleep 60')
    async with open_desk(cluster) as desk:
        wanted = order(extra=["--hold"])
        async with open_slurm(cluster, desk) as engine, trio.open_nursery() as nursery:
            ticket = engine.ticket(wanted)

            async def submit() -> None:
                async with engine.open_job(wanted, ticket, lambda _: None, is_new=True):
                    pass

            nursery.start_soon(submit)
            await until((place / "done").exists)
            nursery.cancel_scope.cancel()
        async with open_slurm(cluster, desk) as engine:
            async with engine.open_job(wanted, ticket, lambda _: None, is_new=False) as job:
                assert cluster.jobs() == [job.name.rpartition(" ")[2]]
                await job.end()


@pytest.mark.engines
async def test_next_server_finds_the_job_again(cluster: Cluster) -> None:
    """A server that goes leaves its jobs as they are, and the next one finds them by their tickets."""
    async with open_desk(cluster) as desk:
        wanted = order()
        async with open_slurm(cluster, desk) as engine, start(engine, wanted, ends=False) as started:
            await connect_all(started.link)
            ticket, job_id, before = started.ticket, started.job.job_id, started.link.hello.pid
        async with open_slurm(cluster, desk) as engine, start(engine, wanted, ticket) as started:
            assert job_id == started.job.job_id
            assert before == started.link.hello.pid


async def test_job_that_is_not_there_is_no_job(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket of a job that Slurm does not know is no reason to submit one."""
    monkeypatch.setattr(slurm, "LOOK_PAUSE", 0.1)
    async with open_slurm(cluster) as engine:
        wanted = order()
        ticket = engine.ticket(wanted)
        async with engine.open_job(wanted, ticket, lambda _: None, is_new=False) as job:
            with pytest.raises(HostGoneError) as caught:
                await job.connect()

            assert await job.explain(None) == ""
            await job.end()

    assert caught.value.message == f"Slurm knows no job {ticket['name']} any more"


async def test_sweep_ends_what_nobody_claims(cluster: Cluster) -> None:
    """What an earlier server with the same state left is ended; another server's jobs and other people's are not."""
    async with open_desk(cluster) as desk, open_slurm(cluster, desk, "another") as other:
        async with open_slurm(cluster, desk) as engine:
            wanted = order(extra=["--hold"])
            async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True):
                left = cluster.jobs()
            foreign = cluster.run("sbatch", "--parsable", "--hold", "--wrap=true", "-o", "/dev/null").strip()
            tickets = [other.ticket(wanted), engine.ticket(wanted)]
            async with (
                other.open_job(wanted, tickets[0], lambda _: None, is_new=True) as theirs,
                engine.open_job(wanted, tickets[1], lambda _: None, is_new=True) as ours,
            ):
                before = set(cluster.jobs())
                await engine.sweep_once(is_full=False)
                assert before == set(cluster.jobs())
                await engine.sweep_once(is_full=True)
                assert before - set(left) == set(cluster.jobs())
                assert len(before - set(left)) == 3
                await ours.end()
                await theirs.end()
            cluster.run("scancel", foreign)


@pytest.mark.engines
async def test_second_job_of_a_name_is_swept(cluster: Cluster) -> None:
    """Where Slurm took in a submission twice, one of both is the session's, and the other is ended."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        twin = f"--job-name={started.ticket['name']}"
        cluster.run("sbatch", "--hold", twin, "--wrap=true", "-o", "/dev/null")
        assert len(cluster.jobs()) == 2
        await engine.sweep_once(is_full=True)
        await until(lambda: cluster.jobs() == [started.job.job_id])


async def test_job_that_cannot_be_ended_now_is_ended_later(
    cluster: Cluster, replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that Slurm does not take in is tried again until it does."""
    monkeypatch.setattr(slurm, "LEFT_PAUSE", 0.1)
    place = replace("scancel", '[ -e $HERE/back ] && exec "$REAL" "$@"; echo "Socket timed out" >&2; exit 1')
    async with open_slurm(cluster) as engine:
        wanted = order(extra=["--hold"])
        async with engine.open_job(wanted, engine.ticket(wanted), lambda _: None, is_new=True) as job:
            await job.end()
        assert len(cluster.jobs()) == 1
        (place / "back").touch()
        await until(lambda: cluster.jobs() == [])


async def test_profile_is_checked_by_slurm_itself(cluster: Cluster) -> None:
    """What is wrong with a profile is said before a session uses it; one that can be used has nothing wrong."""
    async with open_slurm(cluster) as engine:
        assert await engine.check({"partition": "main", "memory": "100M"}) == []
        assert await engine.check({"mem": "1"}) != []
        (refused,) = await engine.check({"partition": "nowhere"})
        assert refused.startswith("Slurm refuses such a job: ")
        assert await engine.kernelspecs({}) is None
    assert cluster.jobs() == []


async def test_nowhere_to_dial_in_is_said(cluster: Cluster) -> None:
    """Without an address for hosts no job is submitted: the setting that is missing is named."""

    def desk() -> None:
        raise ConfigurationError("no --listen-hosts")

    async with slurm.open_engine(EngineServices(cluster.place, OWNER, desk)) as engine:
        assert await engine.check({}) == ["no --listen-hosts"]
        with pytest.raises(EngineError) as caught:
            async with engine.open_job(order(), engine.ticket(order()), lambda _: None, is_new=True):
                pass

    assert caught.value.message == "no --listen-hosts"


async def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> None:
    """Where there is no Slurm, that is what is said."""
    async with open_slurm(cluster) as engine:
        monkeypatch.setenv("PATH", str(cluster.place))
        wrong = await engine.check({})
        with pytest.raises(EngineError) as caught:
            async with engine.open_job(order(), engine.ticket(order()), lambda _: None, is_new=True):
                pass
        monkeypatch.undo()

    assert wrong[0] == "Slurm's program sbatch is not on this machine"
    assert caught.value.message == "Slurm's program sbatch is not on this machine"
