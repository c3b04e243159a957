"""Slurm's own programs, run in a way that tells a refusal from silence.

They are how a cluster's users speak to it, with whatever authentication it has. A controller that does not answer is no
news of any job, so it is an error of its own here (`SlurmSilentError`), and each program gets so much time and no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs
import trio

from kallichore.engines.slurm_words import describe_refusal, is_no_answer

LIMIT = 40.0
"""Seconds that a program may take. They give up by themselves after 10 or 20 where nobody answers; a file system that
hangs has no such limit."""

PREFIXES = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SINFO_", "SACCT_")
"""Beginnings of variables that are options of these programs, or say of a job that we are in it: a server that runs in
a job of its own is not to give its options to others."""

KEPT = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"}
"""How the cluster is found, and who we are there."""


class SlurmSilentError(OSError):
    """Slurm did not answer, so nothing is known; the text says what its program said."""


@attrs.frozen
class Said:
    """What a program said.

    Attributes:
        code: Its exit code.
        output: What it printed.
        complaint: What it complained of.
    """

    code: int
    output: str
    complaint: str


def command_environment(program: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for one of Slurm's programs: it finds the cluster, and says nothing else.

    Args:
        program: Its name.
        environment: The server's.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(PREFIXES) or name in KEPT}
    # Times without a time zone. What sbatch has of such names goes to the job.
    return kept if program == "sbatch" else {**kept, "SLURM_TIME_FORMAT": "%s"}


async def run_slurm(program: str, *arguments: str, given: bytes = b"", limit: float = LIMIT) -> Said:
    """Run one of Slurm's programs. Cancelling ends it; what it has told Slurm by then is done.

    Args:
        program: Its name.
        arguments: Its arguments.
        given: What it reads.
        limit: Seconds that it may take.

    Raises:
        SlurmSilentError: Slurm did not answer, or the program could not be run.
    """
    said = None
    try:
        with trio.move_on_after(limit):
            said = await trio.run_process(
                [program, *arguments],
                stdin=given,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd="/",
                env=command_environment(program, os.environ),
            )
    except OSError as error:
        raise SlurmSilentError(error.errno, f"{program} cannot be run: {error.strerror or error}") from error
    if said is None:
        raise SlurmSilentError(None, f"Slurm does not answer: {program} had not ended after {limit:g} s")
    complaint = said.stderr.decode(errors="replace")
    if said.returncode and is_no_answer(complaint):
        raise SlurmSilentError(None, f"Slurm does not answer: {describe_refusal(complaint)}")
    return Said(said.returncode, said.stdout.decode(errors="replace"), complaint)
