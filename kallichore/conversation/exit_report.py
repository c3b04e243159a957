"""Why a kernel ended, out of what is known about it. [pure]"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import attrs

from kallichore.kernel.ending import Ending
from kallichore.models.bodies import ExitCause, KernelExit, RunningRequest

LAST_WORDS = 10
"""Lines of standard error that are kept."""

MOST_CODE = 80
"""Characters of the first line of the code that was running."""


@attrs.frozen
class Circumstances:
    """What was known of a kernel when its process ended.

    Args:
        ending: How the process ended.
        time: When.
        requested_by: What asked it to end; None if nothing did.
        running: What it was executing.
        memory_bytes: The memory of its process tree when it was last looked at.
        last_words: The last lines that it wrote to standard error.
        why: Why it was asked to end, in a sentence, where what asked does not say it all.
    """

    ending: Ending
    time: datetime
    requested_by: str | None
    running: RunningRequest | None
    memory_bytes: int | None
    last_words: Sequence[str]
    why: str = ""


def make_exit_report(known: Circumstances) -> KernelExit:
    """Return the report, in parts for programs and in words for people."""
    ending = known.ending
    cause = _cause(known)
    return KernelExit(
        text=_in_words(known, cause),
        cause=cause,
        time=known.time,
        process_id=ending.pid,
        exit_code=ending.code,
        signal=ending.signal,
        requested_by=known.requested_by,
        running=known.running,
        memory_bytes=known.memory_bytes,
        peak_memory_bytes=ending.peak_memory_bytes,
        last_words=tuple(known.last_words),
    )


def running_request(msg_id: str, code: str, seconds: float) -> RunningRequest:
    """Return what a kernel executes, its code cut to a line."""
    first, _, more = code.strip().partition("\n")
    if len(first) > MOST_CODE or more:
        first = first[:MOST_CODE] + " …"
    return RunningRequest(msg_id=msg_id, code=first, seconds=round(seconds, 1))


def _cause(known: Circumstances) -> ExitCause:
    ending = known.ending
    if known.requested_by is not None:
        return ExitCause.REQUESTED
    if ending.out_of_memory:
        return ExitCause.OUT_OF_MEMORY
    if ending.signal == "SIGKILL" and not ending.killed_by_us:
        return ExitCause.KILLED_FROM_OUTSIDE
    return ExitCause.EXITED if ending.signal is None else ExitCause.SIGNAL


def _in_words(known: Circumstances, cause: ExitCause) -> str:
    # One that is not of this machine, or never was there, has no number.
    subject = f"Kernel process {known.ending.pid}" if known.ending.pid else "The kernel"
    sentences = [f"{subject} {known.ending.describe()}"]
    if known.requested_by is not None:
        sentences[0] += f" on request ({known.requested_by})"
    if known.ending.explanation:
        sentences.append(f"Its job {known.ending.explanation}")
    if known.ending.survivors is not None:
        sentences.append(known.ending.survivors)
    if cause is ExitCause.KILLED_FROM_OUTSIDE:
        sentences.append("The signal came from outside this server; most often that is for memory")
    if known.why:
        sentences.append(known.why)
    if known.running is not None and (known.requested_by is None or known.why):
        sentences.append(f"It had been running `{known.running.code}` for {known.running.seconds:.1f} s")
    amounts = [(known.memory_bytes, "when last looked at"), (known.ending.peak_memory_bytes, "at its peak")]
    memory = [f"{amount / 1e6:,.0f} MB {when}" for amount, when in amounts if amount is not None]
    if memory and cause in (ExitCause.OUT_OF_MEMORY, ExitCause.KILLED_FROM_OUTSIDE):
        sentences.append("Its memory was " + " and ".join(memory))
    return ". ".join(sentences)
