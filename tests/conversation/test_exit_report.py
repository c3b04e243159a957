"""Why a kernel ended: what the report says of it. That everybody gets it is tested in tests/session."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kallichore.conversation.exit_report import MOST_CODE, Circumstances, make_exit_report, running_request
from kallichore.kernel.ending import Ending
from kallichore.models.bodies import ExitCause, KernelExit


def report_of(ending: Ending, **known: Any) -> KernelExit:
    """Return the report of an ending, with nothing else known by default."""
    defaults: dict[str, Any] = {"requested_by": None, "running": None, "memory_bytes": None, "last_words": ()}
    return make_exit_report(Circumstances(ending, datetime(2026, 1, 1, tzinfo=UTC), **{**defaults, **known}))


@pytest.mark.parametrize(
    ("ending", "requested_by", "cause", "words"),
    [
        (Ending(7, 3), None, ExitCause.EXITED, "exited with code 3"),
        (Ending(7, -1073741819), None, ExitCause.EXITED, "crashed with code 0xC0000005 (access violation)"),
        (Ending(7, 0), "restart", ExitCause.REQUESTED, "on request (restart)"),
        (Ending(7, -1, "SIGSEGV"), None, ExitCause.SIGNAL, "SIGSEGV"),
        (Ending(7, -1, "SIGKILL"), None, ExitCause.KILLED_FROM_OUTSIDE, "most often that is for memory"),
        (Ending(7, -1, "SIGKILL", out_of_memory=True), None, ExitCause.OUT_OF_MEMORY, "ran out of memory"),
        (Ending(7, -1, "SIGKILL", killed_by_us=True), "kill", ExitCause.REQUESTED, "on request (kill)"),
    ],
)
def test_cause_is_told_in_one_word_and_in_words(
    ending: Ending, requested_by: str | None, cause: ExitCause, words: str
) -> None:
    """What ended the kernel is told apart: itself, a signal, memory, somebody outside, or whoever asked."""
    report = report_of(ending, requested_by=requested_by)

    assert cause is report.cause
    assert words in report.text


def test_report_names_what_could_not_be_ended() -> None:
    """It is left, and somebody else has to see to it."""
    report = report_of(Ending(7, 0, survivors="Not permitted to end process 8 (sudo)"), requested_by="shutdown")

    assert "Not permitted to end process 8 (sudo)" in report.text


@pytest.mark.parametrize("runs", [True, False])
def test_report_says_why_where_what_asked_does_not_say_it_all(runs: bool) -> None:
    """And then what ran is told as well: it was ended in the middle of that."""
    running = running_request("m", "loop()", 7200) if runs else None
    report = report_of(Ending(7, 0), requested_by="cull_idle_after", why="It was ended because", running=running)
    rest = ". It had been running `loop()` for 7200.0 s" if runs else ""

    assert (
        report.text == f"Kernel process 7 exited with code 0 on request (cull_idle_after). It was ended because{rest}"
    )
    assert ExitCause.REQUESTED is report.cause


def test_report_names_what_ran_and_the_memory() -> None:
    """Where memory is suspected, the figures are there; the code that ran is cut to its first line."""
    ending = Ending(7, -1, "SIGKILL", peak_memory_bytes=3_000_000_000)
    running = running_request("m", "x = load()\nmore", 12.34)
    report = report_of(ending, running=running, memory_bytes=1_000_000_000, last_words=["a\n", "b\n"])

    assert "`x = load() …` for 12.3 s" in report.text
    assert "1,000 MB when last looked at and 3,000 MB at its peak" in report.text
    assert ("a\n", "b\n") == report.last_words


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x", "x"),
        (" x\n", "x"),
        ("x" * MOST_CODE, "x" * MOST_CODE),
        ("x" * MOST_CODE + "y", "x" * MOST_CODE + " …"),
        ("x\ny", "x …"),
    ],
)
def test_code_is_cut_to_a_line(code: str, expected: str) -> None:
    """With a sign that there is more, if there is; the time is told in tenths of a second."""
    running = running_request("m", code, 12.34)

    assert (running.msg_id, running.code, running.seconds) == ("m", expected, 12.3)


def test_whole_report_is_in_sentences() -> None:
    """What happened, who did it, what ran, and the memory."""
    running = running_request("m", "x", 1)
    report = report_of(Ending(7, -1, "SIGKILL", out_of_memory=True), running=running, memory_bytes=2_000_000)
    text = report.text

    assert text.endswith(". It had been running `x` for 1.0 s. Its memory was 2 MB when last looked at")


def test_memory_is_told_only_where_it_may_be_the_reason() -> None:
    """Not of a kernel that just exited, nor where it is not known."""
    exited = report_of(Ending(7, 3), memory_bytes=2_000_000)
    unknown = report_of(Ending(7, -1, "SIGKILL"))

    assert "memory was" not in exited.text + unknown.text
    assert exited.memory_bytes == 2_000_000
