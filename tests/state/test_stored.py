"""A state directory that was written by an earlier Kallichore: what was in it is still understood."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kallichore.state.directory import open_state_directory
from kallichore.state.recovery import recover
from kallichore.state.session_record import SessionRecord
from log_history import messages_of, urgent_of

pytestmark = pytest.mark.posix_only("on Windows kernels end with their server")

STORED = Path(__file__).parent / "version-1"


def test_directory_of_version_1_is_understood(tmp_path: Path) -> None:
    """Session, messages, parts and numbers are what they were when it was stored (`store.py`)."""
    place = tmp_path / "state"
    shutil.copytree(STORED, place)
    place.chmod(0o700)
    with open_state_directory(place, "") as directory:
        (session,) = directory.sessions()
        record, recovered = SessionRecord.read(session), recover(session)

        assert directory.directory_of("python-1") == session

    assert ("python-1", "0123", "4567", 1_800_000_000.5, 1234, "b007", {"positions": {"1": 20}}) == (
        *(record.session_id, record.key, record.secret, record.created),
        *(record.host_pid, record.boot_id, record.facts),
    )
    assert {0: b'{"b":2}', 1: b"", 2: b'{"d":4}', 3: b'{"e":5}', 4: b'{"f":6}', 7: b'{"g":7}'} == messages_of(recovered)
    assert ({"queue": b"[2]"}, {0, 4}, 8, []) == (
        *(recovered.parts, urgent_of(recovered)),
        *(recovered.end, recovered.problems),
    )
