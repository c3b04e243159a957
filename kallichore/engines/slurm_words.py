"""What Slurm says of a job, in words for people: why it waits, why it never runs, why it ended. [pure]

Slurm's own word stays in front, since that is what its manual and a cluster's administrators know. Everything was seen
with Slurm 22.05; what other versions call otherwise is there as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kallichore.engines.slurm_answers import JobFacts, QueuedJob

REASONS = {
    "None": "Slurm has not looked at it yet",
    "Resources": "waiting for nodes to become free",
    "Priority": "other jobs of its partition come before it",
    "Dependency": "waiting for the jobs that it depends on",
    "BeginTime": "its begin time is still to come",
    "Licenses": "waiting for licenses",
    "JobHeldUser": "held by its user; `scontrol release` lets it go",
    "JobHeldAdmin": "held by an administrator",
    "Reservation": "waiting for its reservation to begin",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "NodeDown": "a node that it needs is down",
    "ReqNodeNotAvail": "nodes that it asks for are not available now",
    "Prolog": "its node is being prepared",
    "Cleaning": "an earlier run of it is being cleaned up",
    "JobArrayTaskLimit": "too many of its kind run",
    "AssocGrpCpuLimit": "its account uses all the processors that it may",
    "AssocGrpMemLimit": "its account uses all the memory that it may",
    "AssocGrpGRES": "its account uses all the GPUs, or the like, that it may",
    "AssocMaxJobsLimit": "its user has as many jobs as its account may",
    "QOSMaxJobsPerUserLimit": "its user has as many jobs as its quality of service allows",
    "QOSMaxCpuPerUserLimit": "its user has all the processors that its quality of service allows",
    "QOSMaxMemoryPerUser": "its user has all the memory that its quality of service allows",
    "QOSMaxGRESPerUser": "its user has all the GPUs, or the like, that its quality of service allows",
    "QOSGrpCpuLimit": "its quality of service has all its processors in use",
    "BurstBufferResources": "waiting for a burst buffer",
    "MaxMemPerLimit": "waiting for its memory",
}
"""Why a job waits that may run one day."""

HOPELESS = {
    # Also for a time limit beyond the partition's, which later versions call by its own name.
    "PartitionConfig": "its partition does not allow this many nodes, or this much time or memory",
    "PartitionNodeLimit": "it asks for more nodes than its partition allows",
    "PartitionTimeLimit": "its time limit is beyond that of its partition",
    "BadConstraints": "no node has what it asks for",
    "InvalidAccount": "there is no such account, or not for this user",
    "InvalidQOS": "there is no such quality of service, or not for this account",
    "AccountNotAllowed": "its partition is not for its account",
    "QOSNotAllowed": "its partition is not for its quality of service",
    "QOSTimeLimit": "its quality of service has used its time",
    "AssociationJobLimit": "its account allows no such job",
    "AssociationTimeLimit": "its account allows no such time limit",
    "AssociationResourceLimit": "its account allows no job of this size",
    "QOSJobLimit": "its quality of service allows no such job",
    "QOSResourceLimit": "its quality of service allows no job of this size",
    "QOSMaxWallDurationPerJobLimit": "its time limit is beyond that of its quality of service",
    "AssocMaxWallDurationPerJobLimit": "its time limit is beyond that of its account",
    "DependencyNeverSatisfied": "what it depends on has ended in another way than it wants",
    "ReservationDeleted": "its reservation is gone",
    "JobHoldMaxRequeue": "Slurm could not start it, as often as it tried",
    "launch failed requeued held": "Slurm could not start it on its node",
    "user env retrieval failed requeued held": "the environment of a login could not be had on its node in time",
    "FrontEndDown": "its front end is down",
    "InactiveLimit": "its time to do nothing is up",
}
"""Why a job waits that never runs, whatever else ends: it has to be asked for in another way."""

_LIMIT_OF_ONE_JOB = re.compile(r"(?P<whose>QOS|Assoc)(Max|Min)\w*(PerJob|PerNode|CPUMinutesPerJob)(Limit)?")
"""What an account or a quality of service allows one job, however empty the cluster is."""

_SPEAKER = re.compile(r"^(\w+: )?(\w+ )?(error|fatal|allocation failure): (?=\S)")
"""What stands before each line of a complaint: ``sbatch: error:``, ``slurm_load_jobs error:``."""

_PYTHON = "is there no such Python on {node}? The option python names another"
EXIT_CODES = {2: _PYTHON, 126: _PYTHON, 127: _PYTHON}
"""Exit codes of scripts whose first line names what is not there, as env and Slurm tell it."""


def hopeless(reason: str) -> str | None:
    """Return in words why a job never runs; None if it may."""
    if reason in HOPELESS:
        return HOPELESS[reason]
    match = _LIMIT_OF_ONE_JOB.fullmatch(reason)
    if match:
        whose = "account" if match["whose"] == "Assoc" else "quality of service"
        return f"its {whose} allows no job of this size"
    return None


def can_never_run(job: QueuedJob) -> bool:
    """Whether a job waits for what cannot come."""
    return job.is_pending and hopeless(job.reason) is not None


def describe_reason(reason: str) -> str:
    """Return why a job waits, in Slurm's word and in others: ``Resources: waiting for nodes to become free``."""
    # Some name nodes behind it.
    word = reason.partition(",")[0]
    words = hopeless(reason) or REASONS.get(word)
    return f"{reason}: {words}" if words else reason


def describe_wait(job: QueuedJob) -> str:
    """Return why a job has no node that is ready."""
    if job.state == "CONFIGURING":
        return f"{job.state}: {job.node or 'its node'} is being made ready"
    return describe_reason(job.reason if job.state == "PENDING" else f"{job.state}, {job.reason}")


def explain(
    facts: JobFacts, *, peak: int | None = None, was_killed_for_memory: bool = False, name_of: Callable[[int], str]
) -> str:
    """Return why a job ended, in half a sentence that follows "its job"; empty where Slurm knows nothing of it.

    Args:
        facts: What Slurm tells.
        peak: The most memory that the kernel had, in bytes.
        was_killed_for_memory: Whether the host saw that.
        name_of: Returns a user's name.
    """
    if facts.state == "OUT_OF_MEMORY" or facts.reason == "OutOfMemory" or was_killed_for_memory:
        return _explain_memory(facts.memory, peak)
    if facts.state == "PREEMPTED" or (facts.is_preempted and facts.state != "COMPLETED"):
        return f"was preempted: another job came before it{_on(facts.node)}"
    if facts.state == "TIMEOUT" or facts.reason == "TimeLimit":
        return f"ran into its time limit of {facts.time_limit}" if facts.time_limit else "ran into its time limit"
    if facts.state == "NODE_FAIL" or facts.reason == "NodeDown":
        return f"lost its node: Slurm has no word from {facts.node or 'it'} any more"
    if facts.state == "BOOT_FAIL":
        return f"could not begin, as {facts.node or 'its node'} did not boot"
    if facts.state == "DEADLINE":
        return "could not end before its deadline"
    if facts.state in ("CANCELLED", "COMPLETING"):
        # Slurm has told it to end, and does not say more of that before it has.
        return "was cancelled" if facts.by_uid is None else f"was cancelled by {name_of(facts.by_uid)}"
    if facts.state == "REVOKED":
        return "was revoked: another cluster of the federation has it"
    if facts.state == "FAILED" and facts.exit_signal == 9:
        # Without control groups Slurm says no more of a job that had too much memory than of one that somebody killed.
        given = "" if facts.memory is None else f", which is limited to {megabytes(facts.memory)}"
        return f"was killed{_on(facts.node)}, for its memory{given}, or by somebody who may"
    return ""


def explain_end(facts: JobFacts, *, name_of: Callable[[int], str]) -> str:
    """Return how a job ended of which nobody else knows, in half a sentence that follows "its job"."""
    said = explain(facts, name_of=name_of)
    if said:
        return said
    if facts.exit_signal:
        return f"was ended{_on(facts.node)} by signal {facts.exit_signal}"
    return f"ended with exit code {facts.exit_code}{_on(facts.node)}"


def explain_start(facts: JobFacts, *, name_of: Callable[[int], str]) -> str:
    """Return why a job ended before its host could call, in half a sentence that follows "its job"."""
    said = explain(facts, name_of=name_of)
    if said:
        return said
    where = facts.node or "its node"
    if facts.state in ("FAILED", "COMPLETED") and not facts.exit_signal:
        hint = EXIT_CODES.get(facts.exit_code, "the option output names a file for what it prints")
        return f"ended with exit code {facts.exit_code} before its host could call: {hint.format(node=where)}"
    if facts.exit_signal:
        return f"was ended on {where} by signal {facts.exit_signal} before its host could call"
    return f"ended as {facts.state} before its host could call"


def _explain_memory(limit: int | None, peak: int | None) -> str:
    given = "" if limit is None else f" of {megabytes(limit)}"
    used = "" if peak is None else f"; its kernel had {megabytes(peak)} at most"
    return f"ran into its memory limit{given}{used}"


def _on(node: str | None) -> str:
    return f" on {node}" if node else ""


def megabytes(amount: int) -> str:
    """Return an amount of memory for people."""
    return f"{amount / 1e6:,.0f} MB"


def describe_refusal(text: str) -> str:
    """Return what ``sbatch`` said when it took a job for impossible, without the names of programs before it."""
    lines = [_SPEAKER.sub("", line.strip()).removeprefix("Batch job submission failed: ") for line in text.splitlines()]
    return "; ".join(filter(None, dict.fromkeys(lines))) or "it does not say why"


UNREACHABLE = (
    *("Socket timed out", "Unable to contact slurm controller", "Connection refused", "Connection timed out"),
    *("Communication connection failure", "Zero Bytes were transmitted", "Slurm temporarily unable to accept job"),
    *("Transport endpoint is not connected", "No route to host", "Connection reset", "Broken pipe"),
    *("in standby mode", "Slurm backup controller", "Protocol authentication error", "Munge", "munge"),
    *("Unable to establish controller machine", "Unable to establish configuration source"),
    *("Unexpected message received", "Message receive failure", "Error in socket", "temporarily"),
)
"""What programs say when it was the controller that did not answer, and nothing is said of the job."""


def is_no_answer(text: str) -> bool:
    """Tell whether a program failed because Slurm did not answer; whether it did what it was told is open then."""
    return any(words in text for words in UNREACHABLE)


def is_unknown_job(text: str) -> bool:
    """Tell whether ``squeue`` or ``scontrol`` failed because Slurm knows no such job any more."""
    return "Invalid job id specified" in text
