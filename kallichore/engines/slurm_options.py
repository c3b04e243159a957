"""What a session or a profile may ask of Slurm, and what follows from that for ``sbatch``. [pure]

Each option is one of sbatch's, under a name that people know from there. What has no name here goes into ``extra``.
Nothing of this is secret: other users of a cluster see a job's options and its name, and never its script.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.models import converter

DEFAULT_PYTHON = "python3"

OWNER_DIGITS = 10
"""Digits by which jobs of one server are known: two servers of a user are never taken for each other, and a name stays
short enough for ``squeue``."""

MOST_LABEL = 40
"""Characters of a label in a job's name."""

_TIME = re.compile(r"\d+|\d+:\d\d?|\d+:\d\d?:\d\d?|\d+-\d\d?(:\d\d?){0,2}")
_MEMORY = re.compile(r"\d+[KMGT]?", re.IGNORECASE)
_PROGRAM = re.compile(r"[A-Za-z0-9_/.][A-Za-z0-9_/.+-]*")
_EXTRA = re.compile(r"--[a-z][a-z0-9-]*(=.*)?")
_NAME = re.compile(r".*\.kc-(?P<owner>[0-9a-f]{10})-[0-9a-f]{16}")

OURS = {
    "chdir": "a session's working_directory is what counts",
    "error": "the option output is for both",
    "export": "a kernel's environment is the session's env",
    "export-file": "a kernel's environment is the session's env",
    "get-user-env": "a kernel has the environment of a login on its node",
    "input": "the host reads nothing",
    "job-name": "jobs are found again by their names",
    "array": "one session is one job",
    "nodes": "a kernel is on one node",
    "ntasks": "a kernel is one task; the option cpus is for its threads",
    "ntasks-per-node": "a kernel is one task; the option cpus is for its threads",
    "no-requeue": "a job that has ended does not begin anew",
    "requeue": "a job that has ended does not begin anew",
    "parsable": "it is given already",
    "propagate": "limits of the server are none of the job's",
    "test-only": "`kcclient engines` tries a profile",
    "wait": "nobody waits for sbatch",
    "wait-all-nodes": "a kernel is on one node",
    "wrap": "the script is the host",
    "help": "it is no option of a job",
    "usage": "it is no option of a job",
    "version": "it is no option of a job",
    "quiet": "what Slurm says is told to people",
    "uid": "a server submits for its own user",
    "gid": "a server submits for its own user",
}
"""Options of sbatch that would break what is relied on here, and what is to be said of each."""


@attrs.frozen
class SlurmOptions:
    """What is asked of Slurm. What is None is left to Slurm.

    Attributes:
        partition: As in ``sbatch --partition``; several, with commas, for the first that has room.
        account: Whose share it counts against.
        qos: The quality of service.
        time: The time limit, as Slurm has it: ``30`` minutes, ``8:00:00``, ``2-00:00:00``.
        memory: The memory on the node: ``4G``.
        cpus: Processors.
        gpus: How many GPUs.
        gres: Generic resources, ``gpu:a100:2``.
        constraint: Features that the node has.
        reservation: Of which reservation.
        nodelist: Of which nodes.
        extra: More options, each as ``--name=value``.
        python: A Python 3.8 or later there: the host's, not the kernel's.
        setup: Lines of bash that come first, as ``module load anaconda``; the kernel has what they set.
        server: What nodes call the server's machine, where that is not the address of ``--listen-hosts``.
        output: A file there for what the job itself prints, which tells why one ended before it could call; sbatch's
            patterns, as ``%j``, are known. By default nothing is written.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    memory: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    gres: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    nodelist: str | None = None
    extra: tuple[str, ...] = ()
    python: str = DEFAULT_PYTHON
    setup: tuple[str, ...] = ()
    server: str | None = None
    output: str | None = None


EXPORTED = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH=/usr/local/bin:/usr/bin:/bin")
"""What a job's login begins with, as every login does."""

ARGUMENTS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time": "time",
    "memory": "mem",
    "cpus": "cpus-per-task",
    "gpus": "gpus-per-node",
    "gres": "gres",
    "constraint": "constraint",
    "reservation": "reservation",
    "nodelist": "nodelist",
}
"""What our options are called by sbatch."""


def read_options(options: Mapping[str, Any]) -> SlurmOptions:
    """Return what is asked of Slurm.

    Args:
        options: The members of a session's ``engine`` besides ``kind`` and ``profile``.

    Raises:
        EngineError: An option is unknown, or has a value that it cannot have; all of them are named.
    """
    return converter.read_options(SlurmOptions, options, "engine", _problems)


def _problems(options: SlurmOptions) -> list[str]:
    problems = []
    for name in (*ARGUMENTS, "python", "server", "output"):
        value = getattr(options, name)
        if isinstance(value, str) and (not value or not value.isprintable()):
            problems.append(f"{name} must be a word, not {value!r}")
        elif isinstance(value, int) and value < 1:
            problems.append(f"{name} must be 1 or more, not {value}")
    if options.time is not None and not _TIME.fullmatch(options.time):
        problems.append(f'time must be as Slurm has it, "30" minutes, "8:00:00" or "2-00:00:00", not {options.time!r}')
    if options.memory is not None and not _MEMORY.fullmatch(options.memory):
        problems.append(f'memory must be a number with K, M, G or T, as "4G", not {options.memory!r}')
    if options.output is not None and not options.output.startswith("/"):
        problems.append(f"output must be an absolute path, not {options.output!r}")
    if not _PROGRAM.fullmatch(options.python):
        problems.append(f"python must be one program, not {options.python!r}")
    for line in options.setup:
        if "\0" in line or "\n" in line:
            problems.append(f"setup must be lines, not {line!r}")
    return problems + [problem for extra in options.extra for problem in _problems_of_extra(extra)]


def _problems_of_extra(extra: str) -> list[str]:
    if not _EXTRA.fullmatch(extra) or not extra.isprintable():
        return [f"extra must be options in full, as --name=value, not {extra!r}"]
    word = extra[2:].partition("=")[0]
    # sbatch takes the beginning of a name for the name.
    for name, reason in OURS.items():
        if name.startswith(word):
            return [f"extra cannot have {extra}, as --{name} is set here: {reason}"]
    for option, name in (*ARGUMENTS.items(), ("output", "output")):
        if name.startswith(word):
            return [f"extra cannot have {extra}: use the option {option}"]
    return []


def sbatch_arguments(options: SlurmOptions, name: str) -> list[str]:
    """Return the arguments with which ``sbatch`` takes a host from its standard input.

    Args:
        options: What is asked.
        name: The job's name.
    """
    asked = {argument: getattr(options, option) for option, argument in ARGUMENTS.items()}
    return [
        f"--job-name={name}",
        "--parsable",
        "--nodes=1",
        "--ntasks=1",
        # It would be another host, with another kernel.
        "--no-requeue",
        # The server's environment and limits are none of the kernel's business; the script gets those of a login.
        f"--export={','.join(EXPORTED)}",
        "--propagate=NONE",
        # A directory that is there on each node.
        "--chdir=/",
        "--input=/dev/null",
        f"--output={options.output or '/dev/null'}",
        *(f"--{argument}={value}" for argument, value in asked.items() if value is not None),
        *options.extra,
    ]


def owner_mark(owner: str) -> str:
    """Return the digits that stand for a server in the names of its jobs."""
    return hashlib.sha256(owner.encode()).hexdigest()[:OWNER_DIGITS]


def job_name(label: str, owner: str, token: bytes) -> str:
    """Return a job's name, which no other job has.

    Args:
        label: What people know it by; it comes first, since squeue shows the first letters.
        owner: Whose it is.
        token: 8 random bytes.
    """
    return f"{label[:MOST_LABEL]}.kc-{owner_mark(owner)}-{token.hex()}"


def is_job_of(name: str, owner: str) -> bool:
    """Tell whether a job is one of this server, by its name."""
    match = _NAME.fullmatch(name)
    return match is not None and match["owner"] == owner_mark(owner)


SCRIPT_END = "END_OF_THE_HOST"


def job_script(options: SlurmOptions, host: bytes) -> bytes:
    """Return the batch script: a few lines of bash that become the host.

    They are those of a login, so a kernel has the environment that its user has there. Slurm has a way of its own to
    get that (``--export=NONE``), but gives it two seconds, and puts a job aside where a node takes longer.

    Args:
        options: What is asked.
        host: The host's program.
    """
    lines = ["#!/bin/bash -l", *options.setup, f"exec '{options.python}' - <<'{SCRIPT_END}'"]
    return b"\n".join(["\n".join(lines).encode(), host.rstrip(b"\n"), SCRIPT_END.encode(), b""])
