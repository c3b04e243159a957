"""A log that is damaged: what can be saved is, the rest is named, and no message comes out under another's number."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kallichore.state.records import MAGIC
from kallichore.state.recovery import Recovered, recover
from kallichore.state.session_log import Commit, SessionLog
from log_history import SEGMENTS, STEPS, History, Step, messages_of


def build(place: str, steps: list[Step], segment_bytes: int) -> History:
    """Return the history of a log in which this was done, and which is closed."""
    history = History(Path(place), segment_bytes)
    for step in steps:
        history.take(step)
    history.log.close()
    return history


def check(history: History) -> Recovered:
    """Read what is there, see that nothing of it is wrong, go on with it, and read it again."""
    recovered = recover(history.directory, history.segment_bytes)
    found = messages_of(recovered)
    states = [state for _, _, state in history.places]

    assert any(found.items() <= state.payloads().items() for state in states)
    for name, part in recovered.parts.items():
        assert part in {state.parts.get(name) for state in [*states, history.state]}

    recovered.log.commit(Commit(recovered.end, [b"behind"], parts={"new": b"1"}))
    recovered.log.close()
    again = recover(history.directory)

    assert {**found, recovered.end: b"behind"} == messages_of(again)
    assert {**recovered.parts, "new": b"1"} == again.parts
    return recovered


@given(STEPS, SEGMENTS, st.floats(0, 1), st.floats(0, 1), st.integers(1, 255))
def test_one_byte_that_turned_is_named(
    steps: list[Step], segment_bytes: int, which: float, where: float, change: int
) -> None:
    """Whichever byte turns: nothing that comes out is wrong, and the damage is named."""
    with tempfile.TemporaryDirectory() as place:
        history = build(place, steps, segment_bytes)
        files = history.files()
        path = files[round(which * (len(files) - 1))]
        data = bytearray(path.read_bytes())
        data[round(where * (len(data) - 1))] ^= change
        path.write_bytes(data)
        recovered = check(history)

        assert [problem for problem in recovered.problems if str(path) in problem]


@given(STEPS, SEGMENTS, st.floats(0, 1), st.floats(0, 1))
def test_file_that_is_cut_gives_nothing_wrong(
    steps: list[Step], segment_bytes: int, which: float, where: float
) -> None:
    """Whichever file is cut: nothing that comes out is wrong, and what is missing before others is named."""
    with tempfile.TemporaryDirectory() as place:
        history = build(place, steps, segment_bytes)
        files = history.files()
        path = files[round(which * (len(files) - 1))]
        size = path.stat().st_size
        os.truncate(path, round(where * size))
        recovered = check(history)

        assert recovered.problems or path == files[-1] or path.stat().st_size == size


@given(STEPS, SEGMENTS, st.floats(0, 1))
def test_file_that_is_missing_gives_nothing_wrong(steps: list[Step], segment_bytes: int, which: float) -> None:
    """Whichever file is gone: nothing that comes out is wrong, and what is missing between others is named."""
    with tempfile.TemporaryDirectory() as place:
        history = build(place, steps, segment_bytes)
        files = history.files()
        path = files[round(which * (len(files) - 1))]
        path.unlink()
        recovered = check(history)

        assert recovered.problems or path in (files[0], files[-1])


def log_of(directory: Path, *commits: Commit) -> list[int]:
    """Write a log in one file, and return where each of its commits ends."""
    log = SessionLog.create(directory)
    ends = []
    for commit in commits:
        log.commit(commit)
        ends.append((directory / "log-00000000").stat().st_size)
    log.close()
    return ends


def turn(path: Path, position: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_what_follows_a_damaged_commit_is_used(tmp_path: Path) -> None:
    """A damaged commit costs its own messages, and the gap is named by its numbers."""
    ends = log_of(tmp_path, Commit(0, [b"a"]), Commit(1, [b"b", b"c"]), Commit(3, [b"d"], parts={"queue": b"[]"}))
    path = tmp_path / "log-00000000"
    turn(path, ends[1] - 1)
    recovered = recover(tmp_path)

    assert ({0: b"a", 3: b"d"}, {"queue": b"[]"}, 4) == (messages_of(recovered), recovered.parts, recovered.end)
    assert [
        f"{path}: {ends[1] - ends[0]} bytes from byte {ends[0]} on are damaged",
        f"{path}: 1 commit before this is missing",
        f"{path}: messages 1 to 2 are missing",
    ] == recovered.problems


def test_messages_whose_numbers_are_not_certain_are_given_up(tmp_path: Path) -> None:
    """Where messages were taken back in what is damaged, those before could have any number: none comes out."""
    ends = log_of(tmp_path, Commit(0, [b"a", b"b", b"c"]), Commit(2, [b"d"], taken_back=[(0, 1)]), Commit(3, [b"e"]))
    path = tmp_path / "log-00000000"
    turn(path, ends[1] - 1)
    recovered = recover(tmp_path)

    assert {3: b"e"} == messages_of(recovered)
    assert f"{path}: messages 0 to 2 are given up: their numbers are not certain" == recovered.problems[-1]


def test_beginning_of_a_record_in_a_message_is_no_record(tmp_path: Path) -> None:
    """A message may have the bytes that records begin with, and be damaged, or cut."""
    ends = log_of(tmp_path, Commit(0, [b"a"]), Commit(1, [MAGIC * 20]), Commit(2, [b"c"]))
    turn(tmp_path / "log-00000000", ends[0] + 30)

    assert {0: b"a", 2: b"c"} == messages_of(recover(tmp_path))


@pytest.mark.parametrize("missing", ["everything", "the directory"])
def test_log_that_is_not_there_is_named(tmp_path: Path, missing: str) -> None:
    """Without any file there is nothing to save, which is said."""
    directory = tmp_path if missing == "everything" else tmp_path / "gone"
    recovered = recover(directory)

    assert ({}, 0, 0, [f"{directory}: there is no log"]) == (
        *(recovered.parts, recovered.first),
        *(recovered.end, recovered.problems),
    )


def test_log_that_was_never_whole_is_named(tmp_path: Path) -> None:
    """A server may be killed while it begins a log."""
    log_of(tmp_path)
    path = tmp_path / "log-00000000"
    os.truncate(path, 10)

    assert [f"{path}: nothing in it is whole"] == recover(tmp_path).problems


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """What is in the place of a file and is none costs only that file."""
    log_of(tmp_path, Commit(0, [b"a"]))
    (tmp_path / "log-00000001").mkdir()
    recovered = recover(tmp_path)

    assert ({0: b"a"}, [f"{tmp_path / 'log-00000001'}: Is a directory"]) == (messages_of(recovered), recovered.problems)
