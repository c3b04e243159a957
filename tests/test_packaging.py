"""The project's files agree: what is required, what is pinned, what is tested, what is documented."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import kallichore

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
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
    """One line of the README runs code in a kernel, another one the tests; both use the pinned versions."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv")]

    assert [line.rpartition("/")[2].split()[0] for line in lines] == ["kcclient", "python"]
    assert [line for line in lines if "-c requirements/constraints.txt" not in line] == []
