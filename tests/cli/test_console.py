"""kcclient console: a kernel in a terminal, driven through one."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import open_channel
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import LONG_SLEEP, REAL_TIME, address_of, body, execute, is_kernel, open_started, receive_until

KCCLIENT = [sys.executable, "-m", "kallichore.cli.kcclient"]

COMMAND = [*KCCLIENT, "console"]

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
def open_terminal(
    private_place: Path, *options: str, command: Sequence[str] = COMMAND
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """Run a console in a terminal of its own."""
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "XDG_STATE_HOME": str(private_place / "state"), "COLUMNS": "120"}
    process = subprocess.Popen(
        [*command, *options], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
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


@pytest.mark.posix_only("a terminal")
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
        terminal.run(f"print('be' 'gun'); import time; {LONG_SLEEP}")
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


@pytest.mark.posix_only("a terminal")
def test_images_are_files_and_a_dead_kernel_is_explained(private_place: Path) -> None:
    """A picture is shown as its path; a kernel that dies says why, and exit is the end."""
    draw = "from IPython.display import display; display({'image/svg+xml': '<svg/>'}, raw=True)"
    with open_terminal(private_place, "-k", "python3") as (terminal, process):
        terminal.run(draw)
        path = re.search(r"/\S+\.svg", terminal.wait_for(".svg\n"))
        assert path is not None
        image = Path(path[0]).read_text()
        terminal.run("import os; os.kill(os.getpid(), 9)")
        said = terminal.wait_for("%restart")
        terminal.next_is(2)
        terminal.run("1")
        again = terminal.wait_for("%restart to start it again, or exit.")
        terminal.next_is(2)
        terminal.run("exit")
        code = process.wait(LIMIT)

    assert ("<svg/>", 0) == (image, code)
    assert "SIGKILL" in said
    # A private server's log, and the commands for a server, are no help here.
    assert "kcclient restart" not in said + again
    assert "KS-" not in said + again


@pytest.mark.parametrize(("code", "said", "exit_code"), [("x = 5\nprint(x * 2)\n", "10\n", 0), ("1 / 0\n", "", 1)])
def test_code_from_a_pipe_is_run(code: str, said: str, exit_code: int) -> None:
    """Without a terminal there is no prompt: what comes in is run, and the exit code tells of errors."""
    ended = subprocess.run(COMMAND, input=code, capture_output=True, text=True, timeout=LIMIT, check=False)

    assert (said, exit_code) == (ended.stdout, ended.returncode)


# In sessions of a server


@pytest.mark.posix_only("a terminal")
async def test_console_joins_who_is_there(private_place: Path) -> None:
    """Whoever has the session keeps it, and sees what the console does."""
    options = ["-c", str(private_place / "server.json"), "console", "-s", "s"]

    def work() -> int:
        with open_terminal(private_place, *options, command=KCCLIENT) as (terminal, process):
            terminal.run("print from the console")
            terminal.wait_for("from the console\n")
            terminal.wait_for("In [2]: ")
            terminal.type("\x04")
            return process.wait(LIMIT)

    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        async with open_started(ApiClient(address_of(server)), body()) as channel:
            code = await trio.to_thread.run_sync(work)
            said = await execute(channel, "print mine")

    assert 0 == code
    assert [] == list(filter(is_kernel("clientDisconnected"), said))
    assert ["from the console\n", "mine\n"] == [
        message["content"]["text"] for message in said if "text" in message.get("content", {})
    ]


@pytest.mark.posix_only("a terminal")
async def test_displaced_console_says_by_whom_and_can_come_back(private_place: Path) -> None:
    """At its prompt, it is told at once; Enter takes the session back, and tells the other."""
    options = ["-c", str(private_place / "server.json"), "console", "-s", "s", "--take-over"]
    here, displaced = trio.Event(), trio.Event()

    def work(token: trio.lowlevel.TrioToken) -> int:
        with open_terminal(private_place, *options, command=KCCLIENT) as (terminal, process):
            terminal.wait_for("In [1]: ")
            trio.from_thread.run_sync(here.set, trio_token=token)
            terminal.wait_for("Another client connected to this session: the test")
            terminal.wait_for("Enter takes the session back")
            terminal.type("\r")
            trio.from_thread.run(displaced.wait, trio_token=token)
            terminal.run("print again")
            terminal.wait_for("again\n")
            terminal.wait_for("In [2]: ")
            terminal.type("\x04")
            return process.wait(LIMIT)

    codes: list[int] = []
    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        client = ApiClient(address_of(server))
        async with open_started(client, body()):
            pass
        with trio.fail_after(2 * REAL_TIME):
            async with trio.open_nursery() as nursery:

                async def run_console() -> None:
                    token = trio.lowlevel.current_trio_token()
                    codes.append(await trio.to_thread.run_sync(work, token))

                nursery.start_soon(run_console)
                await here.wait()
                async with open_channel(client.address, "s", name="the test") as channel:
                    said = await receive_until(channel, is_kernel("clientDisconnected"))
                displaced.set()

    assert [0] == codes
    assert "this session: kcclient console of " in said[-1]["clientDisconnected"]


@pytest.mark.posix_only("a terminal")
async def test_person_chooses_among_sessions(private_place: Path) -> None:
    """At a terminal, by number or by name; anything else is asked again."""
    options = ["-c", str(private_place / "server.json"), "kill"]

    def work() -> tuple[str, int]:
        with open_terminal(private_place, *options, command=KCCLIENT) as (terminal, process):
            terminal.wait_for("1  a (Scripted, idle)")
            terminal.wait_for("Which session [1-2]? ")
            terminal.type("3\r")
            terminal.wait_for("Which session [1-2]? ")
            terminal.type("2\r")
            return terminal.wait_for("b: killed"), process.wait(LIMIT)

    async with serve(ServerConfig(connection_file=private_place / "server.json")) as server:
        client = ApiClient(address_of(server))
        async with open_started(client, body("a")), open_started(client, body("b")) as channel:
            _, code = await trio.to_thread.run_sync(work)
            await receive_until(channel, is_kernel("exited"))
            statuses = [session.status.value for session in server.sessions]

    assert 0 == code
    assert ["idle", "exited"] == statuses
