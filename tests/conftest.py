"""What holds for every test: a private place for files and sockets, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


def _children() -> dict[int, str]:
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            found[child.pid] = " ".join(child.cmdline()) or child.name()
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True, scope="session")
def lasting_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have pytest choose the place of its ``tmp_path`` before the first test's private one is in force."""
    tmp_path_factory.getbasetemp()


@pytest.fixture(autouse=True)
def private_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a test its own temporary and runtime directory, and see that it leaves neither processes nor files.

    The path is short, since Unix sockets are made below it.
    """
    before = _children()
    place = Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield place
    left = {path.name for path in place.iterdir()} - {"jupyter"}
    shutil.rmtree(place)
    running = {pid: line for pid, line in _children().items() if pid not in before}

    assert running == {}, f"processes left behind: {running}"
    assert {name for name in left if name.startswith("k")} == set(), f"files left behind: {left}"


def open_descriptors() -> int:
    """Return how many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
