"""What a developer runs: `nox -l` lists it. CI takes lint and types from here, in its own environment."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]

CONSTRAINTS = ("-c", "requirements/constraints.txt")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests, or those that are named after `--`."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("pytest", "-n", "3", "--dist", "worksteal", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml admits."""
    session.install("-c", "requirements/lowest.txt", "-e", ".[tests]")
    session.run("pytest", "-n", "3", "--dist", "worksteal", *session.posargs)


@nox.session(python="3.11")
def lab(session: nox.Session) -> None:
    """Use JupyterLab and Notebook 7 in a Chromium, and JupyterLab's library in Node; both are Debian's packages."""
    session.install(*CONSTRAINTS, "-e", ".[lab,tests]")
    session.run("pytest", "-m", "", "tests/jupyter/test_lab.py", "tests/jupyter/test_services.py", *session.posargs)


@nox.session(python="3.11")
def agents(session: nox.Session) -> None:
    """Serve the official TypeScript SDK, and pass the protocol's own conformance suite; both run in Node, from npm."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    programs = ("tests/agents/test_typescript.py", "tests/mcp_room/test_conformance.py")
    session.run("pytest", "-m", "", *programs, *session.posargs)


@nox.session(python="3.11")
def dashboard(session: nox.Session) -> None:
    """Use the dashboard in a Chromium, as people and as hostile outputs would; that is Debian's package."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("pytest", "-m", "browser", "tests/dashboard", *session.posargs)


@nox.session(python="3.11")
def soak(session: nox.Session) -> None:
    """Have sessions live and die for ten minutes, and see that nothing is left; arguments after `--` go to it."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session(python="3.11")
def durability(session: nox.Session) -> None:
    """Kill servers at each step and at random moments, and count what is lost; an hour. Arguments after `--` go on."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("pytest", "-m", "durability", *session.posargs)


@nox.session(python="3.11")
def engines(session: nox.Session) -> None:
    """Have kernels on real clusters and machines, which are made for it of Debian's packages; as root."""
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("pytest", "-m", "engines", "tests/engines", *session.posargs)


@nox.session(python="3.11")
def mutants(session: nox.Session) -> None:
    """Change the pure modules by one operator or line at a time, and list what no test notices; a quarter of an hour.

    That is enough for one change in four, chosen by chance. Names of modules after `--` have all of theirs tried.
    """
    session.install(*CONSTRAINTS, "-e", ".[tests]")
    session.run("python", "tests/mutants.py", *(session.posargs or ["--sample", "900"]))


@nox.session
def windows(session: nox.Session) -> None:
    """Run what can be run of the tests on a Windows Python under Wine; `--short` and pytest's arguments go after `--`.

    Wine is Debian's; see tests/windows/wine.py.
    """
    session.install(*CONSTRAINTS, "pip", "uv")
    session.run("python", "tests/windows/wine.py", *session.posargs)


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
    # Its command line would fill a page.
    session.run("flake8", *_asynchronous_files(), log=False)
    _lint_description(session)


def _asynchronous_files() -> list[str]:
    """Return what flake8's rules are about: it takes half a second for a file, and half of them have nothing async."""
    files = Path().glob("[!.]*/**/*.py")
    return sorted(str(file) for file in files if re.search(r"^ *async (def|for|with) ", file.read_text(), re.MULTILINE))


def _lint_description(session: nox.Session) -> None:
    """Check kallichore.json with what others check theirs with; both are programs of Node."""
    if shutil.which("npx") is None:
        session.warn("kallichore.json was not checked with redocly and spectral: there is no Node here (npx)")
        return
    ours = {"external": True, "env": {"REDOCLY_TELEMETRY": "off"}}
    session.run("npx", "--yes", "@redocly/cli@2.77.0", "lint", "--extends", "recommended", "kallichore.json", **ours)
    session.run("npx", "--yes", "@stoplight/spectral-cli@6.16.3", "lint", "kallichore.json", **ours)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known weaknesses: in the versions that we pin (asks PyPI about each), and by pattern in our own code."""
    session.install(*CONSTRAINTS, "-e", ".[audit]")
    session.run("bandit", "--quiet", "--recursive", "--configfile", "pyproject.toml", "kallichore")
    # All that is pinned is in the file, so nothing has to be resolved; what nothing is known about is a failure.
    session.run("pip-audit", "--strict", "--disable-pip", "--no-deps", "-r", "requirements/constraints.txt")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python="3.11")
def bench(session: nox.Session) -> None:
    """Try the programs that measure, run the guard of the pure path and one round of the comparison.

    Arguments after `--` go to the latter.
    """
    session.install(*CONSTRAINTS, "-e", ".[benchmarks,tests]")
    session.run("pytest", "-m", "benchmarks", "tests/test_benchmarks.py")
    session.run("python", "-m", "benchmarks.pure_path", "--check")
    session.run("python", "-m", "benchmarks", *(session.posargs or ["--rounds", "1"]))


@nox.session
def package(session: nox.Session) -> None:
    """Build the source distribution and the wheel, check both, and run what the wheel installs."""
    session.install(*CONSTRAINTS, ".[packaging]")
    made = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--outdir", str(made), silent=True)
    files = sorted(map(str, made.iterdir()))
    session.run("twine", "check", "--strict", *files)
    wheel = next(file for file in files if file.endswith(".whl"))
    session.run("check-wheel-contents", wheel)
    session.install("--force-reinstall", "--no-deps", wheel)
    session.run("kcserver", "--version")
    session.run("kcclient", "exec", "print(6 * 7)")


@nox.session
def binary(session: nox.Session) -> None:
    """Make one self-contained kcserver and try it: how it starts, a kernel in it, what is left of it."""
    session.install(*CONSTRAINTS, ".[packaging]")
    session.run("python", "packaging/build_binary.py")
    suffix = ".exe" if sys.platform == "win32" else ""
    session.run("python", "packaging/check_binary.py", str(Path("dist", f"kcserver{suffix}").resolve()))


@nox.session(python="3.11")
def constraints(session: nox.Session) -> None:
    """Renew requirements/constraints.txt: the newest of everything for the oldest Python, which needs most."""
    session.install("--upgrade", "-e", ".[audit,benchmarks,dev,docs,lab,packaging,tests]")
    frozen = session.run("python", "-m", "pip", "freeze", "--exclude-editable", silent=True)
    file = Path("requirements/constraints.txt")
    head = [line for line in file.read_text().splitlines() if line.startswith("#")]
    file.write_text("\n".join([*head, *sorted(str(frozen).splitlines(), key=str.lower)]) + "\n")
