"""kcclient console: a kernel in a terminal, driven through one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "kallichore.cli.kcclient", "console"]

LIMIT = 30.0

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """A terminal with a console in it: types, and waits for what is shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._shown = ""
        self._prompt = 1

    def next_is(self, prompt: int) -> None:
        """Expect this number at the next prompt: not everything that is typed counts, and a restart counts anew."""
        self._prompt = prompt

    def type(self, keys: str) -> None:
        """Type some keys."""
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str) -> str:
        """Wait until some text is shown; return what was shown up to its end, without colours."""
        deadline = time.monotonic() + LIMIT
        while text not in self._shown:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown, but: {self._shown[-2000:]!r}"
            data = os.read(self._descriptor, 65536).decode("utf-8", "replace")
            if "\x1b[6n" in data:
                # Where is the cursor? A real terminal answers that.
                os.write(self._descriptor, b"\x1b[1;1R")
            self._shown += _ESCAPES.sub("", data)
        found, _, self._shown = self._shown.partition(text)
        return found + text

    def run(self, code: str) -> None:
        """Type code and Enter at the next prompt."""
        self.wait_for(f"In [{self._prompt}]: ")
        self._prompt += 1
        self.type(code + "\r")


@contextmanager
def open_terminal(private_place: Path, *options: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Run a console in a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(private_place / "state"), "COLUMNS": "120"}
    process = subprocess.Popen(
        [*COMMAND, *options], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_session_at_the_terminal(private_place: Path) -> None:
    """Results, several lines, completion, questions, errors, an explanation, an interrupt, a restart, and the end."""
    with open_terminal(private_place) as (terminal, process):
        terminal.run("x = 6 * 7; x")
        terminal.wait_for("42\n")
        terminal.run("def twice(y):")
        terminal.wait_for("...:")
        terminal.type("return 2 * y\r\r")
        terminal.wait_for("In [3]: ")
        terminal.type("twi\t")
        terminal.wait_for("twice")
        terminal.type("(x)\r")
        terminal.next_is(4)
        terminal.wait_for("84\n")
        terminal.run("print('hello ' + input('who? '))")
        terminal.wait_for("who? ")
        terminal.type("Ada\r")
        terminal.wait_for("hello Ada\n")
        terminal.run("1 / 0")
        terminal.wait_for("ZeroDivisionError: division by zero")
        terminal.run("twice?")
        terminal.wait_for("Signature")
        terminal.next_is(6)
        terminal.run("print('be' 'gun'); import time; time.sleep(60)")
        terminal.wait_for("begun\n")
        terminal.type("\x03")
        terminal.wait_for("KeyboardInterrupt")
        terminal.run("%restart")
        terminal.wait_for("The kernel is restarted")
        terminal.next_is(7)
        terminal.run("twice")
        terminal.wait_for("NameError")
        terminal.wait_for("In [2]: ")
        terminal.type("half a line\x03")
        # A Ctrl-D that comes between two prompts is the terminal's own, and nobody's: it waits for one that is new.
        terminal.next_is(2)
        terminal.run("'still ' 'here'")
        terminal.wait_for("'still here'")
        terminal.wait_for("In [3]: ")
        terminal.type("\x04")
        code = process.wait(LIMIT)

    history = private_place / "state" / "kallichore" / "console_history"
    assert 0 == code
    assert 0o600 == history.stat().st_mode & 0o777
    assert "+x = 6 * 7; x" in history.read_text()


def test_images_are_files_and_a_dead_kernel_is_explained(private_place: Path) -> None:
    """A picture is shown as its path; a kernel that dies says why, and exit is the end."""
    draw = "from IPython.display import display; display({'image/svg+xml': '<svg/>'}, raw=True)"
    with open_terminal(private_place, "-k", "python3") as (terminal, process):
        terminal.run(draw)
        path = re.search(r"/\S+\.svg", terminal.wait_for(".svg\n"))
        assert path is not None
        image = Path(path[0]).read_text()
        terminal.run("import os; os.kill(os.getpid(), 9)")
        terminal.wait_for("SIGKILL")
        terminal.wait_for("%restart")
        terminal.next_is(2)
        terminal.run("exit")
        code = process.wait(LIMIT)

    assert ("<svg/>", 0) == (image, code)


@pytest.mark.parametrize(("code", "said", "exit_code"), [("x = 5\nprint(x * 2)\n", "10\n", 0), ("1 / 0\n", "", 1)])
def test_code_from_a_pipe_is_run(code: str, said: str, exit_code: int) -> None:
    """Without a terminal there is no prompt: what comes in is run, and the exit code tells of errors."""
    ended = subprocess.run(COMMAND, input=code, capture_output=True, text=True, timeout=LIMIT, check=False)

    assert (said, exit_code) == (ended.stdout, ended.returncode)
