"""Whether a process is stopped: asked of real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from kallichore.kernel.stopped import is_stopped


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that waits for its standard input to end."""
    code = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], number: signal.Signals, what: int, came: Callable[[int], bool]) -> None:
    """Send a signal, and wait until the system says that it did what it does."""
    process.send_signal(number)
    _, status = os.waitpid(process.pid, what)

    assert came(status)


def test_process_is_stopped_from_the_signal_to_its_continuation(process: subprocess.Popen[bytes]) -> None:
    """One that waits for something is not stopped; SIGSTOP stops it, and SIGCONT lets it go on."""
    before = is_stopped(process.pid)
    wait_for(process, signal.SIGSTOP, os.WUNTRACED, os.WIFSTOPPED)
    during = is_stopped(process.pid)
    wait_for(process, signal.SIGCONT, os.WCONTINUED, os.WIFCONTINUED)

    assert (before, during, is_stopped(process.pid)) == (False, True, False)


def test_process_that_is_gone_is_not_stopped(process: subprocess.Popen[bytes]) -> None:
    """Neither while nobody has waited for it, nor afterwards."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    zombie = is_stopped(process.pid)
    process.wait()

    assert (zombie, is_stopped(process.pid)) == (False, False)
