"""The log of a session: after a kill at any moment it has what was committed, all of it, under the right numbers."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kallichore.state.recovery import PIECE_BYTES, recover
from kallichore.state.session_log import Commit, SessionLog
from log_history import SEGMENTS, STEPS, History, Step, full_disk, messages_of, urgent_of


def check(history: History, cut: int) -> None:
    """Kill the server, and see that everything is there."""
    recovered = history.kill(cut)
    state = history.state
    found = messages_of(recovered)
    needed = {number for number, message in state.messages.items() if message.identity not in history.forgotten}
    urgent = {number for number in found if number in state.messages and state.messages[number].is_urgent}

    assert (state.parts, state.end, []) == (recovered.parts, recovered.end, recovered.problems)
    assert needed <= found.keys()
    assert {number: payload for number, payload in state.payloads().items() if number in found} == found
    assert urgent == urgent_of(recovered) & found.keys()
    assert min(found, default=state.end) == recovered.first


@given(st.lists(st.tuples(STEPS, st.floats(0, 1)), max_size=3), SEGMENTS)
def test_log_cut_anywhere_has_all_up_to_the_last_whole_commit(
    lives: list[tuple[list[Step], float]], segment_bytes: int
) -> None:
    """Whatever was committed, taken back, forgotten or refused by a full disk, and wherever the last file is cut: what
    is read is the state after the last whole commit, and a log that goes on from there can be cut and read again.
    """
    with tempfile.TemporaryDirectory() as place:
        history = History(Path(place), segment_bytes)
        for steps, share in lives:
            for step in steps:
                history.take(step)
            size, least = history.files()[-1].stat().st_size, history.smallest_cut()
            check(history, least + round(share * (size - least)))
        history.log.close()


def test_log_without_a_kill_has_everything(tmp_path: Path) -> None:
    """What is read is what was written: messages, urgent ones, parts."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a", b"", b"c"], [(1, 3)], {"queue": b"[]", "talk": b"1"}))
    log.commit(Commit(3, [b"d"], parts={"talk": b""}))
    log.close()
    recovered = recover(tmp_path)

    assert ({"queue": b"[]"}, 0, 4, [range(1, 3)], []) == (
        *(recovered.parts, recovered.first, recovered.end),
        *(recovered.urgent, recovered.problems),
    )
    assert [(0, [b"a", b"", b"c", b"d"])] == list(recovered.messages())


def test_what_is_taken_back_leaves_no_gap(tmp_path: Path) -> None:
    """Messages that are taken back are gone, and those behind them move down."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a", b"b", b"c", b"d", b"e"], [(3, 5)]))
    log.commit(Commit(3, [b"f"], taken_back=[(1, 2), (4, 5)]))
    log.close()
    recovered = recover(tmp_path)

    assert ([(0, [b"a", b"c", b"d", b"f"])], [range(2, 3)]) == (list(recovered.messages()), recovered.urgent)


def test_numbers_that_are_left_out_are_a_gap(tmp_path: Path) -> None:
    """A piece of messages ends where numbers are missing, and the next begins behind them."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a"]))
    log.commit(Commit(5, [b"f"]))
    log.close()

    assert [(0, [b"a"]), (5, [b"f"])] == list(recover(tmp_path).messages())


def test_number_that_is_taken_is_refused(tmp_path: Path) -> None:
    """A commit of messages with numbers that others have changes nothing."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a"]))
    with pytest.raises(ValueError, match="the next message has number 1, not 0"):
        log.commit(Commit(0, [b"b"]))
    log.close()

    assert {0: b"a"} == messages_of(recover(tmp_path))


def test_full_disk_leaves_a_gap_and_nothing_else(tmp_path: Path) -> None:
    """The messages of commits that do not fit are missing; their parts and numbers are known once there is room."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a", b"b", b"c"], parts={"queue": b"1"}))
    with full_disk(40), pytest.raises(OSError, match="No space left"):
        log.commit(Commit(2, [b"d"], parts={"queue": b"2"}, taken_back=[(0, 1)]))
    log.commit(Commit(3, [b"e"]))
    log.close()
    recovered = recover(tmp_path)

    assert ([(0, [b"b", b"c"]), (3, [b"e"])], {"queue": b"2"}, []) == (
        list(recovered.messages()),
        recovered.parts,
        recovered.problems,
    )


def test_write_that_is_taken_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes at a time gets all of them."""
    write = os.write
    monkeypatch.setattr("kallichore.state.session_log.os.write", lambda file, data: write(file, data[:7]))
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"message"]))
    log.close()

    assert {0: b"message"} == messages_of(recover(tmp_path))


def test_commit_that_is_interrupted_is_taken_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come when all is written and nobody knows it yet: what follows is read as if that had not been."""
    write = os.write

    def write_and_be_interrupted(descriptor: int, data: bytes) -> int:
        write(descriptor, data)
        raise KeyboardInterrupt

    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a"]))
    with monkeypatch.context() as interrupted:
        interrupted.setattr("kallichore.state.session_log.os.write", write_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.commit(Commit(1, [b"b"]))
    log.commit(Commit(2, [b"c"]))
    log.close()
    recovered = recover(tmp_path)

    assert ({0: b"a", 2: b"c"}, []) == (messages_of(recovered), recovered.problems)


def test_forgetting_after_a_torn_file_keeps_what_is_needed(tmp_path: Path) -> None:
    """A file that was torn at its beginning is no reason to let the one before it go, whatever is forgotten."""
    log = SessionLog.create(tmp_path, 1)
    log.commit(Commit(0, [b"a"], parts={"queue": b"[]"}))
    log.commit(Commit(1, [b"b"]))
    log.close()
    os.truncate(sorted(tmp_path.iterdir())[-1], 20)
    recovered = recover(tmp_path)
    recovered.log.forget_before(1)
    again = recover(tmp_path)

    assert ({"queue": b"[]"}, 1, []) == (again.parts, again.end, again.problems)


def test_files_with_nothing_that_is_needed_go(tmp_path: Path) -> None:
    """A long life takes no more space than what is needed of it, and its parts are not lost with the files."""
    log = SessionLog.create(tmp_path, 1000)
    log.commit(Commit(0, parts={"queue": b"[]"}))
    for number in range(1000):
        log.commit(Commit(number, [bytes(100)]))
        log.forget_before(number - 4)
    log.close()
    recovered = recover(tmp_path)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000
    assert ({"queue": b"[]"}, True, 1000) == (recovered.parts, recovered.first <= 995, recovered.end)


def test_large_messages_are_read_in_pieces(tmp_path: Path) -> None:
    """Messages come about a megabyte at a time, also those that were written without a copy."""
    payloads = [bytes([number]) * (PIECE_BYTES // 3) for number in range(10)]
    log = SessionLog.create(tmp_path)
    for number in range(0, 10, 2):
        log.commit(Commit(number, payloads[number : number + 2], parts={"queue": b"[]"}))
    log.close()
    pieces = list(recover(tmp_path).messages())

    assert payloads == [payload for _, piece in pieces for payload in piece]
    assert max(len(piece) for _, piece in pieces) <= 5


def test_log_is_for_its_owner_only(tmp_path: Path) -> None:
    """Nobody else reads what a session said, whatever the usual permissions are."""
    SessionLog.create(tmp_path).close()

    assert [0o600] == [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()]


def test_second_log_does_not_take_the_place_of_the_first(tmp_path: Path) -> None:
    """A directory with a log in it is not begun anew by mistake."""
    SessionLog.create(tmp_path).close()
    with pytest.raises(FileExistsError):
        SessionLog.create(tmp_path)


def test_log_can_be_read_without_going_on(tmp_path: Path) -> None:
    """To look at a log changes nothing in its directory."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"a"]))
    log.close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    recover(tmp_path).log.close()

    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_servers_in_a_row_leave_one_file(tmp_path: Path) -> None:
    """Each goes on with the file of the one before, so that a server which starts over and over fills no directory."""
    SessionLog.create(tmp_path).close()
    for number in range(5):
        log = recover(tmp_path).log
        log.commit(Commit(number, [b"%d" % number], parts={"count": b"%d" % number}))
        log.close()
    recovered = recover(tmp_path)

    assert 1 == len(list(tmp_path.iterdir()))
    assert [(0, [b"0", b"1", b"2", b"3", b"4"])] == list(recovered.messages())
    assert ({"count": b"4"}, []) == (recovered.parts, recovered.problems)


def test_file_that_a_kill_has_cut_is_not_gone_on_with(tmp_path: Path) -> None:
    """What is behind half a record could be taken for a part of it; so the next server begins another file."""
    log = SessionLog.create(tmp_path)
    log.commit(Commit(0, [b"one"]))
    log.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    log = recover(tmp_path).log
    log.commit(Commit(0, [b"two"]))
    log.close()

    assert file not in tmp_path.iterdir()
    assert [(0, [b"two"])] == list(recover(tmp_path).messages())
