"""When what a kernel is started from is another one: files and directories, as installers change them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kallichore.kernel.installation import find_installation

EARLIER = 1_000_000_000
"""A date in the past: what is written now has another, however coarse the clock of the files is."""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return a place where a program and packages are installed, and which has a directory to start in."""
    for folder in ("bin", "lib/python3.11/site-packages", "conda-meta", "work"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin" / "kernel").write_text("program")
    (tmp_path / "bin" / "kernel").chmod(0o755)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr")
    for path in (*tmp_path.rglob("*"), tmp_path):
        os.utime(path, (EARLIER, EARLIER))
    return tmp_path


def replace_program(prefix: Path) -> None:
    """Install another program in the place of this one."""
    (prefix / "new").write_text("another")
    (prefix / "new").rename(prefix / "bin" / "kernel")


def make_directory_again(prefix: Path) -> None:
    """Delete the directory, and make another of its name."""
    (prefix / "work").rename(prefix / "gone")
    (prefix / "work").mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "another program": replace_program,
    "no program": lambda prefix: (prefix / "bin" / "kernel").unlink(),
    "a package": lambda prefix: (prefix / "lib/python3.11/site-packages/numpy").mkdir(),
    "a conda package": lambda prefix: (prefix / "conda-meta" / "numpy.json").write_text("{}"),
    "another environment": lambda prefix: (prefix / "pyvenv.cfg").write_text("home = /opt"),
    "another directory": make_directory_again,
    "no directory": lambda prefix: shutil.rmtree(prefix / "work"),
}

NO_CHANGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda prefix: None,
    "a file in the directory": lambda prefix: (prefix / "work" / "notes.txt").write_text("x"),
    "a file beside": lambda prefix: (prefix / "README").write_text("x"),
}


@pytest.mark.parametrize(
    ("change", "is_noticed"),
    [(name, True) for name in CHANGES] + [(name, False) for name in NO_CHANGES],
)
def test_what_matters_to_a_kernel_is_noticed(prefix: Path, change: str, is_noticed: bool) -> None:
    """Its program, the packages beside it and its directory; not the files that people have in that."""
    installation = find_installation(str(prefix / "bin" / "kernel"), {}, str(prefix / "work"))
    before = installation.look()
    {**CHANGES, **NO_CHANGES}[change](prefix)

    assert is_noticed is (before != installation.look())


@pytest.mark.posix_only("programs without an ending")
def test_program_is_looked_up_where_the_kernel_would_be(prefix: Path) -> None:
    """A bare name is the one in the PATH of the kernel's environment."""
    installation = find_installation("kernel", {"PATH": str(prefix / "bin")}, str(prefix))
    before = installation.look()
    replace_program(prefix)

    assert before != installation.look()


def test_program_that_is_nowhere_is_looked_at_all_the_same() -> None:
    """What cannot be found is as it was."""
    installation = find_installation("no such program", {"PATH": "/nowhere"}, "/no/such/directory")

    assert installation.look() == installation.look()
