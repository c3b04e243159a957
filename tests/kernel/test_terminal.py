"""The controlling terminal: whether there is one, and that it is let go of by who may."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kallichore.kernel import terminal

pty = pytest.importorskip("pty", reason="POSIX only: Windows has consoles")

LOOK = """
import os
from kallichore.kernel.terminal import drop_controlling_terminal, has_controlling_terminal
before = os.listdir("/dev/fd")
answers = has_controlling_terminal(), drop_controlling_terminal(), has_controlling_terminal()
print(*answers, before == os.listdir("/dev/fd"))
"""


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def look(*, behind_a_shell: bool, at_a_terminal: bool = True) -> str:
    """Return what a process in a session of its own finds: before, whether it let go, after, no descriptor left."""
    ours, theirs = pty.openpty()
    try:
        script = '"$@"; exit $?' if behind_a_shell else 'exec "$@"'
        ended = subprocess.run(
            ["/bin/sh", "-c", script, "sh", sys.executable, "-c", LOOK], stdin=theirs, stdout=subprocess.PIPE,
            start_new_session=True, preexec_fn=_take_terminal if at_a_terminal else None,
            text=True, check=True, timeout=30,
        )  # fmt: skip
        return ended.stdout.strip()
    finally:
        os.close(ours)
        os.close(theirs)


def test_who_was_started_at_a_terminal_lets_go_of_it() -> None:
    """A process that a shell started has the shell's terminal until it drops it."""
    assert "True True False True" == look(behind_a_shell=True)


def test_leader_of_a_session_keeps_its_terminal() -> None:
    """Everybody in the foreground would get SIGHUP, itself among them."""
    assert "True False True True" == look(behind_a_shell=False)


@pytest.mark.parametrize("behind_a_shell", [False, True])
def test_without_a_terminal_there_is_nothing_to_let_go_of(behind_a_shell: bool) -> None:
    """As in a container, a service, or an editor's background."""
    assert "False False False True" == look(behind_a_shell=behind_a_shell, at_a_terminal=False)


def test_what_cannot_be_told_is_taken_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then kernels are kept from it in the way that always works."""
    monkeypatch.setattr(terminal, "_TERMINAL", "/")

    assert terminal.has_controlling_terminal()
    assert not terminal.drop_controlling_terminal() or os.getsid(0) == os.getpid()
