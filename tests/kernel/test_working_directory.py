"""Where a process is, as the system tells it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kallichore.kernel.working_directory import can_enter, read_working_directory


def test_own_directory_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The directory follows the process, and symbolic links are resolved."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")

    assert read_working_directory(os.getpid()) == str((tmp_path / "real").resolve())


@pytest.fixture
def stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Put this process into a directory of a test that may go away, and return it."""
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def test_deleted_directory_is_not_told(stays: Path) -> None:
    """Linux's " (deleted)" behind the path is nobody's directory."""
    stays.rmdir()

    assert read_working_directory(os.getpid()) is None


def test_directory_that_was_made_anew_is_told(stays: Path) -> None:
    """The process is still in the deleted one, but the path is right."""
    stays.rmdir()
    stays.mkdir()

    assert read_working_directory(os.getpid()) == str(stays)


def test_directory_that_a_file_took_the_place_of_is_not_told(stays: Path) -> None:
    """What is there now is no directory."""
    stays.rmdir()
    stays.write_text("")

    assert read_working_directory(os.getpid()) is None


def test_name_may_end_like_that_of_a_deleted_one(stays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that is called so is told, also beside one that is called as if it had been it; deleted it is not."""
    odd = stays / "data (deleted)"
    odd.mkdir()
    (stays / "data").mkdir()
    monkeypatch.chdir(odd)
    there = read_working_directory(os.getpid())
    odd.rmdir()

    assert there == str(odd)
    assert read_working_directory(os.getpid()) is None


def test_moved_directory_is_told_under_its_new_name(stays: Path) -> None:
    """A directory that was renamed is still there."""
    new = stays.with_name("moved")
    stays.rename(new)

    assert read_working_directory(os.getpid()) == str(new)


def test_only_a_directory_that_may_be_entered_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, nothing, and a closed directory cannot; root is asked as anybody else, by the system's own answer."""
    (tmp_path / "file").write_text("")
    (tmp_path / "shut").mkdir()
    answer = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "shut" not in str(path) and answer(path, mode))

    assert can_enter(str(tmp_path))
    assert [can_enter(str(tmp_path / name)) for name in ("file", "none", "shut", "none/x", "file/x")] == [False] * 5
    assert not can_enter("")


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
