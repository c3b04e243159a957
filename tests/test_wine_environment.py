"""The run under Wine: where there is no Wine it says so, and what its environment is made of decides where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("POSIX only: it starts Wine", allow_module_level=True)

from windows import wine


@pytest.mark.parametrize(
    ("apt_get", "user", "reason"),
    [
        (None, 0, "there is no apt-get"),
        ("/usr/bin/apt-get", 1000, "as root: apt-get install"),
        ("/usr/bin/apt-get", 0, "apt-get update failed"),
    ],
)
def test_missing_wine_is_told_in_the_last_line(
    apt_get: str | None,
    user: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is tried then, and the exit code is one of its own, so that nobody takes it for success."""

    def refuse(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(100, command)

    monkeypatch.setattr(wine, "WINE", tmp_path / "wine64")
    monkeypatch.setattr(shutil, "which", lambda _: apt_get)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(sys, "argv", ["wine.py", "--short"])
    code = wine.main()
    last = capsys.readouterr().out.splitlines()[-1]

    assert wine.NO_WINE == code
    assert last.startswith("Windows was not tried: ")
    assert reason in last


def test_environment_of_other_inputs_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constraint that changes makes a new environment, and the same inputs find the one that is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, again = wine.cache_place(), wine.cache_place()
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(wine.CONSTRAINTS.read_text() + "more==1\n")
    monkeypatch.setattr(wine, "CONSTRAINTS", constraints)

    assert first == again
    assert first != wine.cache_place()
    assert tmp_path in first.parents


def test_environment_that_is_in_use_stays(tmp_path: Path) -> None:
    """One of other inputs is removed only if nobody runs in it."""
    used, unused = tmp_path / "used", tmp_path / "unused"
    unused.mkdir()
    with wine.locked(used):
        for place in (used, unused):
            wine.remove_unused(place)

    assert [True, False] == [used.exists(), unused.exists()]
