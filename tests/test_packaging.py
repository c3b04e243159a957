"""The project's files agree: what is required, what is pinned, what is tested, what is documented."""

from __future__ import annotations

import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kallichore

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = ("api/page/index.html", "api/page/rapidoc-min.js", "api/page/RAPIDOC-LICENSE.txt")
"""The files of the page at ``/docs``."""

DASHBOARD = (
    "dashboard/static/index.html",
    "dashboard/static/app.js",
    "dashboard/static/style.css",
    "dashboard/static/HTM-LICENSE.txt",
)
"""Some of the dashboard's files."""

HOST = ("host/dial.py", "host/errands.py", "host/host.py", "host/relay.py")
"""Programs that are found as files."""

REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
WANTED = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]


def _pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pinned}


def _lower_bound(requirement: Requirement) -> str:
    return next(bound.version for bound in requirement.specifier if bound.operator == ">=")


def _without_zeros(version: str) -> str:
    return re.sub(r"(\.0)+$", "", version)


@pytest.mark.parametrize("requirement", REQUIRED, ids=lambda requirement: requirement.name)
def test_lower_bound_is_the_version_that_is_tested(requirement: Requirement) -> None:
    """What pyproject.toml admits at least is what `nox -s lowest` installs."""
    tested = _pins("lowest.txt")[canonicalize_name(requirement.name)]

    assert _without_zeros(_lower_bound(requirement)) == _without_zeros(tested)


@pytest.mark.parametrize("requirement", [*REQUIRED, *WANTED], ids=lambda requirement: requirement.name)
def test_constraint_is_admitted(requirement: Requirement) -> None:
    """Everything that is required, and everything for tests and development, is pinned to a version that fits."""
    assert _pins("constraints.txt")[canonicalize_name(requirement.name)] in requirement.specifier


def test_version_is_in_one_place() -> None:
    """The version is read from kallichore/_version.py, also by the build."""
    assert "version" in PROJECT["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", kallichore.__version__)


def test_commands_of_the_readme_are_one_line_each() -> None:
    """One line of the README runs code in a kernel, one the tests, and one opens the documentation; all of them use the
    pinned versions, and the documentation itself says the same of itself.
    """
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]

    starts = [line.rpartition(".venv/bin/")[2].split()[:3] for line in lines]
    assert [["kcclient", "exec"], ["python", "-m", "pytest"], ["python", "-m", "webbrowser"]] == [
        start[:2] if start[0] == "kcclient" else start for start in starts
    ]
    assert lines[2] in (ROOT / "docs" / "index.md").read_text()
    assert [line for line in lines if "-c requirements/constraints.txt" not in line] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel, made from this tree."""
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(place.glob("*.whl"))


def test_wheel_has_what_is_not_code(wheel: Path) -> None:
    """The wheel says that it has types, and has the API's description, the page that shows it, the dashboard, and the
    program that is run beside kernels.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert set() == {f"kallichore/{name}" for name in ("py.typed", "kallichore.json", *HOST, *PAGE, *DASHBOARD)} - names


def test_examples_are_typed_against_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """Where only the wheel is installed, a strict type checker knows all that the examples use of it."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    there = subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(there)
    # What the wheel requires is where it is for these tests. Being behind, a kallichore there is not what is found.
    Path(there, "required.pth").write_text("\n".join(site.getsitepackages()))
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "examples")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "examples"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert (0, "") == (checked.returncode, checked.stderr), checked.stdout
