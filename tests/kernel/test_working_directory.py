"""Where a process is, as the system tells it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kallichore.kernel.working_directory import read_working_directory


def test_own_directory_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The directory follows the process, and symbolic links are resolved."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")

    assert read_working_directory(os.getpid()) == str((tmp_path / "real").resolve())


def test_directory_of_another_process_is_read_as_long_as_it_runs(tmp_path: Path) -> None:
    """A child's directory is its own; once it is gone, there is none to tell."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"ready\n")
        child.stdin.flush()
        child.stdout.readline()
        while_running = read_working_directory(child.pid)

    assert while_running == str(tmp_path.resolve())
    assert read_working_directory(child.pid) is None
