"""What Slurm says is put into words: why a job waits, why it never runs, and why it ended."""

from __future__ import annotations

import attrs
import pytest

from kallichore.engines.slurm_answers import JobFacts, QueuedJob
from kallichore.engines.slurm_words import (
    can_never_run,
    describe_refusal,
    describe_wait,
    explain,
    explain_end,
    explain_start,
    is_no_answer,
    is_unknown_job,
)

PENDING = QueuedJob("17", "PENDING", "None", None, 3600.0, None, 1.0, ("main",), "x")
LIMIT = 100 << 20


def name_of(uid: int) -> str:
    return {0: "root"}[uid]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", "None: Slurm has not looked at it yet"),
        ("Resources", "Resources: waiting for nodes to become free"),
        ("JobHeldUser", "JobHeldUser: held by its user; `scontrol release` lets it go"),
        ("ReqNodeNotAvail, UnavailableNodes:node1", "ReqNodeNotAvail, UnavailableNodes:node1: nodes that it asks for"),
        ("Nodes required for job are DOWN, DRAINED", "Nodes required for job are DOWN, DRAINED"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reason_to_wait_is_told_in_words(reason: str, words: str) -> None:
    """Slurm's own word comes first, then what it means; what is not known here is told as it came."""
    job = attrs.evolve(PENDING, reason=reason)

    assert describe_wait(job).startswith(words)
    assert not can_never_run(job)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("PartitionTimeLimit", "its time limit is beyond that of its partition"),
        ("PartitionConfig", "its partition does not allow this many nodes, or this much time or memory"),
        ("BadConstraints", "no node has what it asks for"),
        ("InvalidAccount", "there is no such account, or not for this user"),
        ("DependencyNeverSatisfied", "what it depends on has ended in another way than it wants"),
        ("QOSMaxMemoryPerJob", "its quality of service allows no job of this size"),
        ("QOSMaxGRESPerJob", "its quality of service allows no job of this size"),
        ("AssocMaxCpuPerJobLimit", "its account allows no job of this size"),
        ("QOSMinGRES", None),
    ],
)
def test_what_never_runs_is_told_from_what_waits(reason: str, words: str | None) -> None:
    """A job that asks for what it cannot have never runs, however long it waits; limits that others use up may end."""
    job = attrs.evolve(PENDING, reason=reason)

    assert can_never_run(job) == (words is not None)
    assert describe_wait(job) == (reason if words is None else f"{reason}: {words}")


@pytest.mark.parametrize("reason", ["QOSMaxJobsPerUserLimit", "AssocMaxJobsLimit", "QOSGrpCpuLimit", "AssocGrpGRES"])
def test_limits_that_are_used_up_are_waited_for(reason: str) -> None:
    """What counts all of somebody's jobs together is free again when some of them end."""
    assert not can_never_run(attrs.evolve(PENDING, reason=reason))


def test_job_that_runs_waits_for_nothing() -> None:
    """The reason of a job that has a node says nothing of waiting."""
    assert not can_never_run(attrs.evolve(PENDING, state="FAILED", reason="BadConstraints"))
    assert describe_wait(attrs.evolve(PENDING, state="CONFIGURING", node="node2")) == (
        "CONFIGURING: node2 is being made ready"
    )
    assert describe_wait(attrs.evolve(PENDING, state="REQUEUE_HOLD", reason="odd")) == "REQUEUE_HOLD, odd"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (JobFacts("OUT_OF_MEMORY", "OutOfMemory", memory=LIMIT), "ran into its memory limit of 105 MB"),
        (JobFacts("OUT_OF_MEMORY"), "ran into its memory limit"),
        (JobFacts("PREEMPTED", node="node2"), "was preempted: another job came before it on node2"),
        (JobFacts("RUNNING", is_preempted=True), "was preempted: another job came before it"),
        (JobFacts("TIMEOUT", "TimeLimit", time_limit="1:00:00"), "ran into its time limit of 1:00:00"),
        (JobFacts("COMPLETING", "TimeLimit"), "ran into its time limit"),
        (JobFacts("NODE_FAIL", "NodeDown", node="n"), "lost its node: Slurm has no word from n any more"),
        (JobFacts("BOOT_FAIL"), "could not begin, as its node did not boot"),
        (JobFacts("DEADLINE"), "could not end before its deadline"),
        (JobFacts("CANCELLED", by_uid=0), "was cancelled by root"),
        (JobFacts("CANCELLED"), "was cancelled"),
        (JobFacts("REVOKED"), "was revoked: another cluster of the federation has it"),
        (
            JobFacts("FAILED", "JobLaunchFailure", exit_signal=9, memory=LIMIT, node="node1"),
            "was killed on node1, for its memory, which is limited to 105 MB, or by somebody who may",
        ),
        (JobFacts("FAILED", exit_code=1), ""),
        (JobFacts("COMPLETED", is_preempted=True), ""),
        (JobFacts("COMPLETED"), ""),
        (JobFacts("RUNNING"), ""),
    ],
)
def test_end_is_explained(facts: JobFacts, words: str) -> None:
    """What Slurm did to a job is half a sentence; where it did nothing there is none."""
    assert words == explain(facts, name_of=name_of)


def test_memory_is_explained_with_what_the_host_saw() -> None:
    """The limit is Slurm's, the peak the host's; that it was for memory, either may have seen."""
    expected = "ran into its memory limit of 105 MB; its kernel had 99 MB at most"

    assert expected == explain(
        JobFacts("RUNNING", memory=LIMIT), peak=99_000_000, was_killed_for_memory=True, name_of=name_of
    )


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            JobFacts("FAILED", "NonZeroExitCode", 127, node="node1"),
            (
                "ended with exit code 127 before its host could call: is there no such Python on node1? "
                "The option python names another"
            ),
        ),
        (
            JobFacts("FAILED", "NonZeroExitCode", 1),
            "ended with exit code 1 before its host could call: the option output names a file for what it prints",
        ),
        (JobFacts("FAILED", exit_signal=11), "was ended on its node by signal 11 before its host could call"),
        (JobFacts("A_NEW_ONE"), "ended as A_NEW_ONE before its host could call"),
        (JobFacts("CANCELLED", by_uid=0), "was cancelled by root"),
    ],
)
def test_start_that_failed_is_explained(facts: JobFacts, words: str) -> None:
    """Where the host never called, the exit code is all that tells, and what would help is said."""
    assert words == explain_start(facts, name_of=name_of)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (JobFacts("COMPLETED", node="node1"), "ended with exit code 0 on node1"),
        (JobFacts("FAILED", "NonZeroExitCode", 7), "ended with exit code 7"),
        (JobFacts("FAILED", exit_signal=11, node="node1"), "was ended on node1 by signal 11"),
        (JobFacts("TIMEOUT", "TimeLimit", time_limit="1:00"), "ran into its time limit of 1:00"),
    ],
)
def test_end_that_nobody_saw_is_explained(facts: JobFacts, words: str) -> None:
    """Of a job that ended while no server was there, Slurm's account is all there is, the exit code included."""
    assert words == explain_end(facts, name_of=name_of)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            (
                "sbatch: error: CPU count per node can not be satisfied\n"
                "sbatch: error: Batch job submission failed: Requested node configuration is not available\n"
            ),
            "CPU count per node can not be satisfied; Requested node configuration is not available",
        ),
        (
            (
                "sbatch: error: invalid partition specified: nix\n"
                "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
            ),
            "invalid partition specified: nix; Invalid partition name specified",
        ),
        ("allocation failure: Requested node configuration is not available\n", "Requested node configuration is not"),
        ("slurm_load_jobs error: Invalid job id specified\n", "Invalid job id specified"),
        ("sbatch: lua: no jobs on Fridays\n", "sbatch: lua: no jobs on Fridays"),
        ("", "it does not say why"),
    ],
)
def test_refusal_is_told_in_slurms_words(said: str, words: str) -> None:
    """What a program complained of is told without the names of programs, each thing once."""
    assert describe_refusal(said).startswith(words)


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2": No such file or directory',
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
    ],
)
def test_silence_is_no_news(said: str) -> None:
    """That nobody answered is told from what was answered."""
    assert is_no_answer(said)
    assert not is_unknown_job(said)


@pytest.mark.parametrize("said", ["sbatch: error: invalid partition specified: nix", "Invalid job id specified", ""])
def test_answer_is_no_silence(said: str) -> None:
    """A refusal is an answer."""
    assert not is_no_answer(said)
