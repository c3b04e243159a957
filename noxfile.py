"""What a developer runs: `nox -l` lists it. CI takes lint and types from here, in its own environment."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]

CONSTRAINTS = ("-c", "requirements/constraints.txt")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests, or those that are named after `--`."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml admits."""
    session.install("-c", "requirements/lowest.txt", "-e", ".[tests]")
    session.run("pytest", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types for each system: the code of the others cannot run here."""
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    for platform in ("linux", "darwin", "win32"):
        session.run("mypy", "--platform", platform)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style; flake8 only for its rules on async code, of which ruff has a part."""
    session.install(*CONSTRAINTS, "-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("flake8", ".")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Run the benchmarks; arguments after `--` go to them."""
    session.install(*CONSTRAINTS, "-e", ".[benchmarks,tests]")
    session.run("python", "-m", "benchmarks", *session.posargs)
