"""The record of a session: read as it was written, or named as damaged."""

from __future__ import annotations

import stat
from pathlib import Path
from unittest import mock

import pytest

from kallichore.errors import StateDamagedError
from kallichore.state.session_record import SessionRecord

RECORD = SessionRecord(
    session_id="s/1 é",
    request={"argv": ["python"], "env": [], "timeout": None},
    key="key",
    secret="00ff",
    created=1.5,
    host_pid=7,
    boot_id="boot",
    facts={"positions": {"1": 12}},
)


def test_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Everything comes back, and the file is for its owner only."""
    RECORD.write(tmp_path)

    assert RECORD == SessionRecord.read(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "session.json").stat().st_mode)


def test_record_does_not_show_its_secret() -> None:
    """A log line with a record in it gives nobody the host's secret."""
    assert "00ff" not in repr(RECORD)


def test_record_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A full disk costs the new record, and leaves nothing half-written."""
    RECORD.write(tmp_path)
    with mock.patch("kallichore.state.whole_file.os.replace", side_effect=OSError), pytest.raises(OSError):
        SessionRecord("s", {}, "", "", 0.0).write(tmp_path)

    assert RECORD == SessionRecord.read(tmp_path)
    assert ["session.json"] == [path.name for path in tmp_path.iterdir()]


def test_every_cut_of_a_record_is_named(tmp_path: Path) -> None:
    """A record that is cut anywhere is damaged, in words that name the file."""
    RECORD.write(tmp_path)
    path = tmp_path / "session.json"
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(StateDamagedError, match=r"session\.json is damaged"):
            SessionRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"request": {}, "key": "", "secret": "", "created": 0}', "session_id"),
        (b'{"session_id": "s", "request": {}, "key": "", "secret": "", "created": "now"}', r"\$.created"),
        (b"[]", "Expected `object`"),
        (b'{"session_id": "\xff"}', "damaged"),
    ],
    ids=["missing", "type", "array", "utf-8"],
)
def test_record_that_says_something_else_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    """What is missing or wrong in a record is named by its field."""
    (tmp_path / "session.json").write_bytes(data)
    with pytest.raises(StateDamagedError, match=words):
        SessionRecord.read(tmp_path)


def test_record_that_is_missing_is_named(tmp_path: Path) -> None:
    """A session's directory without a record says which file is missing."""
    with pytest.raises(StateDamagedError, match=r"Could not read .*session.json: No such file"):
        SessionRecord.read(tmp_path)
