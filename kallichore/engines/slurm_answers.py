"""What Slurm's programs say, read. [pure]

Times are asked for as seconds since 1970 (``SLURM_TIME_FORMAT=%s``), so that no time zone comes into it. Everything was
seen with Slurm 22.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import attrs

QUEUE_FORMAT = "%i|%T|%r|%N|%L|%S|%V|%P|%j"
"""What ``squeue`` is to tell of a job. The name is last."""

PLACE_FORMAT = "%i|%P|%Q"
"""What it is to tell of all that wait, ours or not."""

PENDING_STATES = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})
"""A job has no node yet, or one that is not ready."""

OVER_STATES = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("REVOKED", "TIMEOUT", "LAUNCH_FAILED"),
    }
)
"""A job has ended for good. All other states are of one that has a node: it runs, stands still, or is ending."""

_PLACE = re.compile(r"(?:^|\s)([A-Z][A-Za-z0-9/:*]*)=")
"""Where a member begins in ``scontrol show job --oneliner``: values have blanks, and are not quoted."""

_UNITS = {"": 20, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}


@attrs.frozen
class QueuedJob:
    """What ``squeue`` tells of a job.

    Attributes:
        job_id: Its number.
        state: In Slurm's word: ``PENDING``.
        reason: Why it is that, in Slurm's word.
        node: Where it is; None while it is nowhere.
        time_left: Seconds until its time limit; None without one.
        start: When it begins, or is expected to, in seconds since 1970; None where that is not known.
        submitted: When it came, in seconds since 1970.
        partitions: Where it may run.
        name: Its name.
    """

    job_id: str
    state: str
    reason: str
    node: str | None
    time_left: float | None
    start: float | None
    submitted: float | None
    partitions: tuple[str, ...]
    name: str

    @property
    def is_pending(self) -> bool:
        """Whether it waits for a node."""
        return self.state in PENDING_STATES

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in OVER_STATES


def read_queue(text: str) -> list[QueuedJob]:
    """Read what ``squeue --format`` said; a line that is none is passed over."""
    jobs = []
    for line in text.splitlines():
        words = line.strip().split("|")
        if len(words) == QUEUE_FORMAT.count("|") + 1 and words[0]:
            job_id, state, reason, node, left, start, submitted, partitions, name = words
            jobs.append(
                QueuedJob(
                    job_id,
                    state,
                    reason,
                    node or None,
                    read_duration(left),
                    _read_time(start),
                    _read_time(submitted),
                    tuple(filter(None, partitions.split(","))),
                    name,
                )
            )
    return jobs


def read_duration(text: str) -> float | None:
    """Return the seconds of ``1-02:03:04``, ``03:04`` and the like; None for what is no time, as ``UNLIMITED``."""
    days, dash, rest = text.partition("-") if "-" in text else ("0", "", text)
    fields = rest.split(":")
    if not all(field.isdigit() for field in (days, *fields)) or len(fields) > 3:
        return None
    if dash:
        fields += ["0"] * (3 - len(fields))
    else:
        fields = ["0"] * (3 - len(fields)) + fields
    hours, minutes, seconds = map(int, fields)
    return int(days) * 86400.0 + hours * 3600 + minutes * 60 + seconds


def _read_time(text: str) -> float | None:
    """Return seconds since 1970; None for ``N/A``."""
    return float(text) if text.isdigit() else None


def read_places(text: str) -> dict[str, list[str]]:
    """Return the jobs that wait, by partition, the next first; from what `PLACE_FORMAT` told of them."""
    waiting: dict[str, list[tuple[int, int, str]]] = {}
    for line in text.splitlines():
        job_id, _, rest = line.strip().partition("|")
        partitions, _, priority = rest.partition("|")
        number = re.match(r"\d+", job_id)
        # One that is held, which is a priority of zero, is in no line.
        if number and priority.strip("0").isdigit():
            for partition in partitions.split(","):
                waiting.setdefault(partition, []).append((-int(priority), int(number[0]), job_id))
    return {partition: [job_id for _, _, job_id in sorted(jobs)] for partition, jobs in waiting.items()}


def position(job: QueuedJob, lines: Mapping[str, list[str]]) -> int | None:
    """Return a job's place in the best of its lines, 1 for the next; None where it is in none."""
    places = [lines[name].index(job.job_id) + 1 for name in job.partitions if job.job_id in lines.get(name, ())]
    return min(places, default=None)


@attrs.frozen
class JobFacts:
    """What ``scontrol`` or ``sacct`` tells of one job.

    Attributes:
        state: In Slurm's word.
        reason: In Slurm's word; empty where it does not say.
        exit_code: The batch script's.
        exit_signal: By which signal it ended; 0 for none.
        time_limit: As Slurm writes it, without leading zeros; None where there is none.
        memory: Bytes that it was given; None where that is not limited, or not known.
        node: Where it was.
        is_preempted: Whether it has to make way.
        by_uid: The number of the user who cancelled it, where that is told.
    """

    state: str
    reason: str = ""
    exit_code: int = 0
    exit_signal: int = 0
    time_limit: str | None = None
    memory: int | None = None
    node: str | None = None
    is_preempted: bool = False
    by_uid: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in OVER_STATES


def read_job(text: str) -> JobFacts | None:
    """Read what ``scontrol show job --oneliner`` said of one job; None if that is nothing."""
    words = _PLACE.split(text)
    members: dict[str, str] = {}
    for name, value in zip(words[1::2], words[2::2], strict=True):
        # What users can write, as a comment, comes later.
        members.setdefault(name, value.strip())
    if "JobState" not in members:
        return None
    code, number = _read_exit(members.get("ExitCode", ""))
    node = members.get("NodeList", "")
    return JobFacts(
        members["JobState"].split(",")[0],
        members.get("Reason", ""),
        code,
        number,
        _read_limit(members.get("TimeLimit", "")),
        _read_memory(members.get("AllocTRES", ""))
        or _read_memory(members.get("TRES", ""))
        or _read_memory(members.get("ReqTRES", "")),
        node if node not in ("", "(null)") else None,
        members.get("PreemptTime", "None") not in ("None", "Unknown", ""),
    )


SACCT_FIELDS = "State,ExitCode,Timelimit,ReqTRES,NodeList"


def read_account(text: str) -> JobFacts | None:
    """Read what ``sacct --parsable2`` said of one job with `SACCT_FIELDS`; None if that is nothing."""
    words = text.strip().splitlines()[-1].split("|") if text.strip() else []
    if len(words) != SACCT_FIELDS.count(",") + 1 or not words[0]:
        return None
    state, _, by = words[0].partition(" by ")
    code, number = _read_exit(words[1])
    node = words[4] if not words[4].startswith("None") else None
    by_uid = int(by) if by.isdigit() else None
    memory = _read_memory(words[3])
    return JobFacts(state, "", code, number, _read_limit(words[2]), memory, node or None, state == "PREEMPTED", by_uid)


def _read_exit(text: str) -> tuple[int, int]:
    code, _, number = text.partition(":")
    return (int(code), int(number)) if code.isdigit() and number.isdigit() else (0, 0)


def _read_limit(text: str) -> str | None:
    if read_duration(text) is None:
        return None
    return text.lstrip("0").removeprefix(":").lstrip("0") if text.startswith("00:") else text.lstrip("0")


def _read_memory(resources: str) -> int | None:
    """Return the bytes of ``cpu=1,mem=512M,node=1``."""
    match = re.search(r"(?:^|,)mem=(\d+(?:\.\d+)?)([KMGTP]?)", resources)
    return int(float(match[1]) * (1 << _UNITS[match[2]])) if match else None


def read_job_id(text: str) -> str | None:
    """Return the number that ``sbatch --parsable`` printed, without the cluster's name; None if there is none."""
    # What a site's own plugin has to say comes before it.
    words = text.split()
    number = words[-1].partition(";")[0] if words else ""
    return number if number.isdigit() else None


def oldest(jobs: Iterable[QueuedJob]) -> QueuedJob:
    """Return the job of several of one name that counts: the first that has not ended, or the first."""
    return min(jobs, key=lambda job: (job.is_over, int(job.job_id) if job.job_id.isdigit() else 0))
