"""What Slurm's programs say is read as they say it; the texts are Slurm 22.05's, and what is none of it is no news."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.slurm_answers import (
    JobFacts,
    QueuedJob,
    oldest,
    position,
    read_account,
    read_duration,
    read_job,
    read_job_id,
    read_places,
    read_queue,
)

QUEUE = """\
5|PENDING|Resources||30:00|1795765670|1795762070|main|lab.kc-1
6|PENDING|Priority||1-00:20:00|N/A|1795762070|main,low|lab.kc-2
3|RUNNING|None|node2|59:56|1795762070|1795762070|main|lab.kc-3
4|COMPLETING|None|node1|UNLIMITED|1795762070|1795762070|main|with|bars
slurm_load_jobs: something else
"""

PREEMPTED = (
    "JobId=23 JobName=kal-low UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901740 Nice=0 Account=(null) "
    "QOS=(null) JobState=PREEMPTED Reason=None Dependency=(null) Requeue=0 Restarts=0 BatchFlag=1 Reboot=0 "
    "ExitCode=0:15 RunTime=00:00:19 TimeLimit=01:00:00 TimeMin=N/A SubmitTime=2026-11-27T06:50:37 Deadline=N/A "
    "PreemptEligibleTime=2026-11-27T06:50:38 PreemptTime=2026-11-27T06:50:57 SuspendTime=None Partition=low "
    "AllocNode:Sid=localhost:7646 ReqNodeList=(null) ExcNodeList=(null) NodeList=node2 BatchHost=node2 NumNodes=1 "
    "NumCPUs=2 ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=1G,node=1,billing=2 MinMemoryCPU=512M StdOut=/dev/null Power= "
)
OUT_OF_MEMORY = (
    "JobId=20 JobName=kal-oom JobState=OUT_OF_MEMORY Reason=OutOfMemory Dependency=(null) ExitCode=0:125 "
    "TimeLimit=1-00:00:00 PreemptTime=None NodeList=node1 TRES=cpu=1,mem=100M,node=1,billing=1"
)
HELD = (
    "JobId=7 JobName=x JobState=PENDING Reason=Nodes required for job are DOWN, DRAINED or reserved Dependency=(null) "
    "ExitCode=0:0 TimeLimit=UNLIMITED PreemptTime=None NodeList=(null) TRES=cpu=1,mem=1.50G,node=1 "
    "Comment=JobState=COMPLETED"
)


def test_queue_is_read() -> None:
    """Each line of squeue is a job; what is no line of it is passed over."""
    expected = [
        QueuedJob("5", "PENDING", "Resources", None, 1800.0, 1795765670.0, 1795762070.0, ("main",), "lab.kc-1"),
        QueuedJob("6", "PENDING", "Priority", None, 87600.0, None, 1795762070.0, ("main", "low"), "lab.kc-2"),
        QueuedJob("3", "RUNNING", "None", "node2", 3596.0, 1795762070.0, 1795762070.0, ("main",), "lab.kc-3"),
    ]

    assert expected == read_queue(QUEUE)


@pytest.mark.parametrize(
    ("state", "is_pending", "is_over"),
    [
        ("PENDING", True, False),
        ("CONFIGURING", True, False),
        ("REQUEUE_HOLD", True, False),
        ("RUNNING", False, False),
        ("SUSPENDED", False, False),
        ("COMPLETING", False, False),
        ("COMPLETED", False, True),
        ("OUT_OF_MEMORY", False, True),
        ("NODE_FAIL", False, True),
        ("A_NEW_ONE", False, False),
    ],
)
def test_state_tells_where_a_job_is(state: str, is_pending: bool, is_over: bool) -> None:
    """A job waits for a node, has one, or has ended; of a state that nobody knows here it is not said that it ended."""
    job = QueuedJob("1", state, "None", None, None, None, None, (), "x")

    assert (is_pending, is_over) == (job.is_pending, job.is_over)
    assert is_over == JobFacts(state).is_over


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:05", 5.0),
        ("59:56", 3596.0),
        ("1:00:00", 3600.0),
        ("1-00:00:00", 86400.0),
        ("2-12", 216000.0),
        ("2-12:30", 217800.0),
        ("00:05:00", 300.0),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
        ("1:2:3:4", None),
    ],
)
def test_duration_is_read(text: str, seconds: float | None) -> None:
    """Days, hours, minutes and seconds are told apart by where they stand; what is no time is None."""
    assert seconds == read_duration(text)


@given(st.integers(0, 10**8))
def test_every_duration_is_read(seconds: int) -> None:
    """Whatever time is left, it is read as it was written."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"

    assert float(seconds) == read_duration(f"{days}-{clock}" if days else clock)


def test_facts_of_a_job_are_read() -> None:
    """What scontrol knows of a job's end: also in values with blanks, and whatever its user wrote as a comment."""
    assert JobFacts("PREEMPTED", "None", 0, 15, "1:00:00", 1 << 30, "node2", True) == read_job(PREEMPTED)
    assert JobFacts("OUT_OF_MEMORY", "OutOfMemory", 0, 125, "1-00:00:00", 100 << 20, "node1") == read_job(OUT_OF_MEMORY)
    reason = "Nodes required for job are DOWN, DRAINED or reserved"
    assert JobFacts("PENDING", reason, 0, 0, None, 3 << 29, None) == read_job(HELD)
    assert read_job("slurm_load_jobs error: Invalid job id specified\n") is None
    assert read_job("") is None


def test_facts_of_accounting_are_read() -> None:
    """What sacct knows: also who cancelled a job, which nobody else tells."""
    by_root = "CANCELLED by 0|0:15|01:00:00|billing=1,cpu=1,mem=2G,node=1|node1\n"

    assert JobFacts("CANCELLED", "", 0, 15, "1:00:00", 2 << 30, "node1", by_uid=0) == read_account(by_root)
    waited = "CANCELLED by 1000|0:0|UNLIMITED|cpu=1|None assigned\n"
    assert JobFacts("CANCELLED", by_uid=1000) == read_account(waited)
    assert JobFacts("PREEMPTED", is_preempted=True) == read_account("PREEMPTED|0:0|Partition_Limit||\n")
    assert read_account("") is None
    assert read_account("Slurm accounting storage is disabled\n") is None


def test_place_in_line_is_by_priority_then_by_age() -> None:
    """A job's place is counted in each partition that it may run in, and the best counts; one that is held has none."""
    places = read_places("9|main|10\n8|main,low|10\n7|low|99\n12_[1-4]|main|50\n3|main|0\nnonsense\n")

    assert {"main": ["12_[1-4]", "8", "9"], "low": ["7", "8"]} == places
    job = read_queue("8|PENDING|Priority||1:00|N/A|1|main,low|x")[0]
    assert position(job, places) == 2
    assert position(job, {}) is None


@pytest.mark.parametrize(
    ("said", "job_id"),
    [("17\n", "17"), ("17;cluster\n", "17"), ("Welcome to the cluster\n17\n", "17"), ("", None), ("what?\n", None)],
)
def test_number_of_a_new_job_is_read(said: str, job_id: str | None) -> None:
    """sbatch prints a number, with a cluster's name behind it or a site's greeting before; else it is not known."""
    assert job_id == read_job_id(said)


def test_of_two_jobs_of_a_name_the_first_that_lives_counts() -> None:
    """Where a name is there twice, the same one is chosen each time: the oldest that has not ended, or the oldest."""
    two = read_queue(
        "10|PENDING|None||1:00|N/A|1|main|x\n9|PENDING|None||1:00|N/A|1|main|x\n8|FAILED|None||1:00|N/A|1|main|x"
    )

    assert oldest(two).job_id == "9"
    assert oldest(two[2:]).job_id == "8"
