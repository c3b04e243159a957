"""What holds for every test: a private place for files and sockets, a time limit, and nothing left behind."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
import pytest
from hypothesis import HealthCheck, settings

ON_WINDOWS = sys.platform == "win32"

# jsonschema reads 38 grammars for the format of an IRI, which no schema here has, wherever Jupyter's servers are
# installed: 2.5 s in each worker. Without the module it does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

EXAMPLES = 20 if ON_WINDOWS else 50
"""How many examples Hypothesis tries: each run tries others. What is pure is the same on Windows, where tests run under
Wine and take long."""

# How long an example takes, or to think of one, says more about what else runs on the machine than about us.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=EXAMPLES)
settings.load_profile("untimed")

TEST_LIMIT = 600 if ON_WINDOWS else 120
"""Seconds after which a test has failed. The longest needs a quarter of it; waits in tests have limits of their own.
Under Wine a kernel takes ten seconds to start, a minute on a busy machine, and there it is the end of all tests."""

LONG_LIMIT = 1800
"""The same for a test that is run by itself because it takes minutes."""

LONG = ("benchmarks", "durability", "engines")
"""The markers of such tests."""

LAST_MOMENT = 2.0
"""Seconds that a kernel's own children get to end after their parent was killed: their end is not ours to wait for."""


TERMINAL = pytest.StashKey[int]()
"""Standard error as it was before pytest had it: otherwise nobody sees what is said at the end of the process."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known by which a test says that Windows, or Wine, has nothing like what it is about."""
    config.stash[TERMINAL] = os.dup(2)
    config.addinivalue_line("markers", "posix_only(reason): what is tested does not exist on Windows")
    config.addinivalue_line("markers", "not_in_wine(reason): what is tested exists on Windows, and not in Wine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out on Windows what is for POSIX systems only, and what Wine lacks, with the reason that the test gives."""
    for item in items if ON_WINDOWS else ():
        if marker := item.get_closest_marker("posix_only"):
            item.add_marker(pytest.mark.skip(reason=f"POSIX only: {marker.args[0]}"))
        if _in_wine() and (marker := item.get_closest_marker("not_in_wine")):
            item.add_marker(pytest.mark.skip(reason=f"not in Wine: {marker.args[0]}"))


def _in_wine() -> bool:
    """Whether this Windows is Wine, which says so where its programs may ask."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


def pytest_sessionstart() -> None:
    """Have the usual signals: a shell that runs tests in the background hands down some as ignored, and nohup does."""
    if ON_WINDOWS:
        return
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        # What is handled is not ignored in the processes that we start, and does not end this one.
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def lasting_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Fix pytest's own temporary directory before a test's private one could take its place, and go with that test.

    It is the first fixture and ends last: by then what wider fixtures started has to be gone, zombies included.
    """
    yield tmp_path_factory.getbasetemp()

    assert _child_processes() == {}, "processes left behind by the test run"


@pytest.fixture(autouse=True)
def private_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a test its own temporary and runtime directory, and see that it leaves neither processes nor files.

    The path is short, since Unix sockets are made below it and their paths are limited to 104 bytes. It is also how
    the test's processes are known: they inherit it, even those whose parent has ended.
    """
    before = set(_child_processes())
    place = Path(tempfile.mkdtemp(prefix="kt-", dir=None if ON_WINDOWS else "/tmp"))
    for variable in ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(place))
    # Without this, tempfile would go on with the directory that it found first.
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield place
    children = {pid: line for pid, line in _child_processes().items() if pid not in before}
    strays = _ended_soon(place)
    # Only what the software makes: what a test itself writes here goes with the place.
    names = (name for _, folders, files in os.walk(place) for name in (*folders, *files))
    files = sorted(name for name in names if name.startswith(("kc-", "kallichore-")))
    for pid in {*children, *strays}:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    shutil.rmtree(place, ignore_errors=True)

    assert {**strays, **children} == {}, "processes left behind"
    assert files == [], "files left behind"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """End a test that hangs, and show where it hangs. On Windows, where no signal reaches it, that ends the run."""
    if sys.platform == "win32":
        faulthandler.dump_traceback_later(TEST_LIMIT, exit=True, file=item.config.stash[TERMINAL])
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
    earlier = signal.signal(signal.SIGALRM, _fail_late_test)
    signal.alarm(LONG_LIMIT if any(map(item.get_closest_marker, LONG)) else TEST_LIMIT)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def open_descriptors() -> int:
    """Return how many file descriptors this process has open."""
    if sys.platform == "win32":
        return psutil.Process().num_handles()
    return len(os.listdir("/proc/self/fd"))


def _fail_late_test(_signal: int, _frame: FrameType | None) -> None:
    # Straight to the terminal: pytest has sys.stderr.
    faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
    pytest.fail("the test took too long")


def _ended_soon(place: Path) -> dict[int, str]:
    """Return the processes of a test that do not end in their last moment."""
    deadline = time.monotonic() + LAST_MOMENT
    while (strays := _processes_at(place)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return strays


def _child_processes() -> dict[int, str]:
    """Return this process's own children and their command lines; a child nobody waited for is one of them."""
    if ON_WINDOWS:
        return {child.pid: _line_on_windows(child) for child in psutil.Process().children()}
    return {pid: _command_line(pid) for pid in _pids() if _parent_of(pid) == os.getpid()}


def _processes_at(place: Path) -> dict[int, str]:
    """Return the processes that have inherited a test's directory."""
    if ON_WINDOWS:
        # Nobody may look into another process there. Kernels are in jobs, and tests/windows looks at those.
        return {}
    mark = f"TMPDIR={place}\0".encode()
    return {pid: _command_line(pid) for pid in _pids() if mark in _read(pid, "environ")}


def _line_on_windows(process: psutil.Process) -> str:
    with suppress(psutil.Error, OSError):
        return " ".join(process.cmdline())
    return "(unknown)"


def _pids() -> list[int]:
    # Not psutil: this runs twice for every test, and takes a quarter of the time.
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _parent_of(pid: int) -> int:
    # The name, in parentheses, may contain anything; the state and the parent come after it.
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _command_line(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip() or "(zombie)"


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
