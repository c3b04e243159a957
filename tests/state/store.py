"""Makes the stored state directory that `test_stored.py` reads: ``python tests/state/store.py DIRECTORY``.

It is made once for each version of the format, and kept: what was written by a Kallichore of then has to be read for as
long as the version is known.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kallichore.state.directory import VERSION, open_state_directory
from kallichore.state.session_log import Commit, SessionLog
from kallichore.state.session_record import SessionRecord


def store(path: Path) -> None:
    """Make a directory with one session, whose log is in several files."""
    with open_state_directory(path, "http://127.0.0.1:1") as directory:
        with directory.create("python-1"):
            pass
        session = directory.directory_of("python-1")
        SessionRecord(
            session_id="python-1",
            request={"session_id": "python-1", "argv": ["python", "-m", "ipykernel_launcher"]},
            key="0123",
            secret="4567",
            created=1_800_000_000.5,
            host_pid=1234,
            boot_id="b007",
            facts={"positions": {"1": 20}},
        ).write(session)
        log = SessionLog.create(session, segment_bytes=150)
        log.commit(Commit(0, [b'{"a":1}', b'{"b":2}', b"", b'{"d":4}'], [(1, 2)], {"queue": b"[1]", "held": b"[]"}))
        log.commit(Commit(4, [b'{"e":5}'], parts={"held": b""}))
        log.commit(Commit(4, [b'{"f":6}'], [(4, 5)], {"queue": b"[2]"}, [(0, 1)]))
        log.commit(Commit(7, [b'{"g":7}']))
        log.close()
    (path / "lock").unlink()


if __name__ == "__main__":
    store(Path(sys.argv[1]) / f"version-{VERSION}")
