"""What a kernel prints: lines as they come, whatever the bytes, and a bounded record of the start."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.output import LONGEST_LINE, RECORD_HEAD, RECORD_TAIL, LineSplitter, StartupRecord
from kallichore.kernel.shell_wrapper import BEGIN_MARKER, SUCCESS_MARKER

PLAIN = LaunchPlan(argv=("/bin/R",), program="/bin/R", environment={}, working_directory=None)
STAGED = LaunchPlan(
    argv=("/bin/bash", "-i"),
    program="/bin/R",
    environment={},
    working_directory=None,
    shell="/bin/bash",
    stage="command",
    stage_argument="module load R",
)


def lines_of(*pieces: bytes) -> list[str]:
    """Return all lines of a stream that arrives in these pieces."""
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()


def record_of(*lines: str) -> StartupRecord:
    """Return the record of a start that printed these lines."""
    record = StartupRecord()
    for line in lines:
        record.add(line)
    return record


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([], []),
        ([b""], []),
        ([b"\n"], ["\n"]),
        ([b"a\nb\n"], ["a\n", "b\n"]),
        ([b"a\n\nb"], ["a\n", "\n", "b"]),
        ([b"on", b"e\ntw", b"o"], ["one\n", "two"]),
        ([b"a\r\nb\rc\x0c\xe2\x80\xa8d\n"], ["a\r\n", "b\rc\x0c\u2028d\n"]),
        ([b"caf\xc3", b"\xa9\n"], ["café\n"]),
        ([b"caf\xe9\n", b"\xff"], ["caf\ufffd\n", "\ufffd"]),
        ([b"\xc3"], ["\ufffd"]),
    ],
)
def test_stream_is_split_at_newlines_only(pieces: list[bytes], lines: list[str]) -> None:
    """Lines keep their endings, pieces are joined within characters too, and what is not UTF-8 is replaced."""
    assert lines == lines_of(*pieces)


def test_output_of_a_start_has_plain_ends_of_lines() -> None:
    """Lines of Windows' programs, which end in two characters, are lines like others; what rewrites a line stays."""
    assert "one\n50%\r100%\nlast" == record_of("one\r\n", "50%\r100%\n", "last\r\n").text


def test_lines_are_told_as_soon_as_they_end() -> None:
    """A line does not wait for the next one, an unfinished one waits for its end."""
    splitter = LineSplitter()

    assert splitter.feed(b"one\ntw") == ["one\n"]
    assert splitter.feed(b"o\n") == ["two\n"]
    assert splitter.finish() == []


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """Wherever a stream is cut, the same lines come out, and together they are the text."""
    pieces = [data[start:end] for start, end in pairwise([0, *sorted(cuts), len(data) + 200])]

    assert lines_of(*pieces) == lines_of(data)
    assert "".join(lines_of(*pieces)) == data.decode(errors="replace")


def test_line_without_an_end_is_passed_on_in_pieces() -> None:
    """A line longer than the limit does not gather in memory, and nothing of it is lost."""
    pieces = [b"x" * 1000] * 200
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)]

    assert max(map(len, lines)) <= LONGEST_LINE + 1000
    assert "".join(lines + splitter.finish()) == "x" * 200_000


def test_markers_are_noticed_and_kept_from_others() -> None:
    """Marker lines tell how far a start got and are in nobody's output; lines that only contain one are output."""
    record = StartupRecord()
    begin, success = f"{BEGIN_MARKER}\n", f"  {SUCCESS_MARKER}\r\n"
    shown = [
        (line, record.add(line), record.began, record.succeeded)
        for line in ("before\n", f"echo {BEGIN_MARKER}\n", begin, "during\n", success, "after\n")
    ]

    assert shown == [
        ("before\n", True, False, False),
        (f"echo {BEGIN_MARKER}\n", True, False, False),
        (begin, False, True, False),
        ("during\n", True, True, False),
        (success, False, True, True),
        ("after\n", True, True, True),
    ]
    assert record.text == f"before\necho {BEGIN_MARKER}\nduring\nafter"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], ""),
        (["a\n"], "a"),
        (["a\n", "\n", "b"], "a\n\nb"),
        (["out without an end", "err\n"], "out without an end\nerr"),
    ],
)
def test_record_is_the_output_line_by_line(lines: list[str], text: str) -> None:
    """Lines are kept in order of arrival, without the final newline."""
    assert record_of(*lines).text == text


def test_record_keeps_the_head_and_the_tail_within_bounds() -> None:
    """Of much output the beginning and the end are kept, and a note says how much is missing in between."""
    lines = [f"line {number:05}\n" for number in range(20_000)]
    kept = record_of(*lines).text.split("\n")
    note = next(place for place, line in enumerate(kept) if line.startswith("[..."))
    missing = len("".join(lines)) - sum(len(line) + 1 for line in kept if kept[note] != line)

    assert [line + "\n" for line in kept[:note]] == lines[:note]
    assert [line + "\n" for line in kept[note + 1 :]] == lines[-(len(kept) - note - 1) :]
    assert kept[note] == f"[... {missing} characters left out ...]"
    assert RECORD_HEAD + RECORD_TAIL - 100 < sum(map(len, kept)) + len(kept) < RECORD_HEAD + RECORD_TAIL + 100


def test_last_line_is_kept_however_long() -> None:
    """How it ended is what a person wants to know, even if it is one long line."""
    record = record_of("x" * RECORD_HEAD, "dropped\n", "y" * (RECORD_TAIL + 1))

    assert record.text.split("\n")[1:] == ["[... 8 characters left out ...]", "y" * (RECORD_TAIL + 1)]


@pytest.mark.parametrize(
    ("stage", "words"),
    [("exit", "ended before it answered"), ("sockets", "on its sockets"), ("handshake", "did not register")],
)
def test_diagnosis_of_a_plain_start_names_the_kernel(stage: str, words: str) -> None:
    """Without a startup environment there is only the kernel to blame."""
    diagnosis = record_of("hello\n").diagnose(PLAIN, stage)

    assert diagnosis.startswith("The kernel /bin/R ")
    assert words in diagnosis


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        ([], "The shell ended before the startup command could run."),
        ([BEGIN_MARKER], "The startup command failed, so the kernel was not started."),
        (
            [BEGIN_MARKER, SUCCESS_MARKER],
            "The startup command succeeded. The kernel /bin/R ended before it answered.",
        ),
    ],
)
def test_diagnosis_of_a_staged_start_names_the_stage(lines: list[str], last: str) -> None:
    """With a startup environment the markers tell whether the shell, the command or the kernel failed."""
    diagnosis = record_of(*lines).diagnose(STAGED, "exit").split("\n")

    assert diagnosis == ["Shell: /bin/bash", "Startup command: module load R", last]
