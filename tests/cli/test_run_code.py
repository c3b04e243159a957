"""kcclient exec with people and pipes: questions, passwords, the end of input, odd letters, other programs."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from command import COMMAND, Ended, kcclient
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import LONG_SLEEP, REAL_TIME, body, open_client, open_started, scripted_argv


@pytest.fixture
def installed_kernel(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the scripted kernel."""
    folder = private_place / "jupyter" / "kernels" / "scripted"
    folder.mkdir(parents=True)
    spec = {"argv": scripted_argv(), "display_name": "Scripted", "language": "script"}
    (folder / "kernel.json").write_text(json.dumps({**spec, "interrupt_mode": "message"}))
    monkeypatch.setenv("JUPYTER_PATH", str(private_place / "jupyter"))


@pytest.fixture(params=["here", "there"])
async def options(
    request: pytest.FixtureRequest, installed_kernel: None, private_place: Path
) -> AsyncIterator[list[str]]:
    """Return the options with which exec runs code in a server of its own, or in one that runs."""
    if request.param == "here":
        yield []
        return
    file = private_place / "server.json"
    async with serve(ServerConfig(connection_file=file)):
        yield ["-c", str(file)]


@pytest.mark.parametrize("loop", [False, True])
async def test_question_at_the_end_of_the_input_is_an_error(options: list[str], loop: bool) -> None:
    """One line answers one question; the next is EOFError as in Python, also in a loop that would ask for ever."""
    code = "while True: print('got', input('? '))" if loop else "print('got', input('? '))\nprint('got', input('? '))"
    ended = await kcclient(*options, "exec", code, stdin=b"yes")

    # The second question comes over another socket than the output before it, and may be there first.
    assert (1, ended.out) in [(ended.code, out) for out in ("? got yes\n? ", "? ? got yes\n")]
    assert "EOFError" in ended.err


async def test_code_from_standard_input_leaves_no_answers(options: list[str]) -> None:
    """What was read as code is no answer."""
    ended = await kcclient(*options, "exec", "-", stdin=b"input('? ')")

    assert (1, "? ") == (ended.code, ended.out)
    assert "EOFError" in ended.err


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "caf? end\n"),
        pytest.param(
            {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "caf? end\n",
            marks=pytest.mark.posix_only("variables that set the locale"),
        ),
        ({"PYTHONIOENCODING": "utf-8"}, "café end\n"),
    ],
)
async def test_letters_that_the_output_lacks_are_replaced(
    installed_kernel: None, environment: dict[str, str], shown: str
) -> None:
    """All else is shown, and the exit code is the code's; arguments and standard input are UTF-8 in any locale."""
    argument = await kcclient("exec", "-k", "scripted", "print café end", **environment)
    piped = await kcclient("exec", "-k", "scripted", "-", stdin="print café end".encode(), **environment)

    assert [Ended(0, shown, "")] * 2 == [argument, piped]


async def test_halves_of_letters_are_replaced(installed_kernel: None) -> None:
    """A lone surrogate, which JSON can carry, and bytes that are no UTF-8 stop nothing."""
    ended = await kcclient("exec", r"print('a\udc80b')")
    piped = await kcclient("exec", "-k", "scripted", "-", stdin=b"print caf\xe9")

    assert (0, "caf�\n") == (piped.code, piped.out)
    assert (0, "") == (ended.code, ended.err)
    assert ended.out.startswith("a")
    assert ended.out.endswith("b\n")


async def test_output_of_other_programs_is_shown(options: list[str]) -> None:
    """What comes through the kernel's pipes rather than its messages, on both streams, without an end of line too."""
    code = "stdout one\nstderr two\nraw stdout 7468726565"
    ended = await kcclient(*options, "exec", "-k", "scripted", code)

    assert Ended(0, "one\nthree", "two\n") == ended


async def test_output_of_other_programs_is_shown_by_execute(private_place: Path) -> None:
    """In a session that is there, what was printed before is left out, and what comes behind the reply is not."""
    file = private_place / "server.json"
    async with open_client(connection_file=file) as client:
        async with open_started(client, body()):
            pass
        before = await kcclient("-c", str(file), "execute", "--code", "stdout before")
        ended = await kcclient("-c", str(file), "execute", "--wait", "--code", "stdout one\nraw stdout 74776f")

    assert Ended(0, "", "") == before
    assert (0, "one\ntwo", "") == (ended.code, ended.out.removeprefix("before\n"), ended.err)


async def test_waiting_is_told_and_has_a_limit(
    private_place: Path, installed_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that never answers: what is waited for is said after a while, and the time is what --timeout gives."""
    folder = private_place / "jupyter" / "kernels" / "never"
    folder.mkdir(parents=True)
    spec = {"argv": scripted_argv("never-bind"), "display_name": "Never", "language": "script"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    ended = await kcclient("exec", "--start-timeout", "4", "-k", "never", "print x")

    assert (1, "") == (ended.code, ended.out)
    said = "Waiting for the kernel never to start and answer, for 4 seconds at most; --start-timeout "
    assert ended.note.startswith(said)
    assert "within 4 seconds" in ended.err


async def test_timeout_is_the_sessions(private_place: Path, installed_kernel: None) -> None:
    """Zero is no limit; a session that is created has the time that was given."""
    file = private_place / "server.json"
    async with serve(ServerConfig(connection_file=file)) as server:
        for number, timeout in enumerate(("0", "77")):
            await kcclient("-c", str(file), "create", "-k", "scripted", "-s", f"{number}", "--timeout", timeout)
        await kcclient("-c", str(file), "create", "-k", "scripted", "-s", "2")

    assert [-1, 77, 30] == [session.request.connection_timeout for session in server.sessions]


@pytest.mark.posix_only("Windows keeps a directory that somebody is in")
async def test_deleted_current_directory_is_told(
    private_place: Path, installed_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory is gone the kernel starts in the home directory."""
    monkeypatch.setenv("HOME", str(private_place))
    gone = private_place / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    ended = await kcclient("exec", "-k", "scripted", "cwd")

    assert (0, str(private_place)) == (ended.code, ended.out)
    assert "The current directory is gone" in ended.err


# At a terminal


class Screen:
    """A terminal with a command in it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.shown = ""

    def type(self, keys: str) -> None:
        """Type some keys."""
        os.write(self._descriptor, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until some text is shown; nothing of it counts twice."""
        deadline = time.monotonic() + REAL_TIME
        begin = len(self.shown)
        while text not in self.shown[begin:]:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown, but: {self.shown!r}"
            self.shown += os.read(self._descriptor, 65536).decode("utf-8", "replace")

    def read_rest(self) -> None:
        """Read what is shown until the end."""
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:
                return
            if not data:
                return
            self.shown += data.decode("utf-8", "replace")


@contextmanager
def open_screen(*arguments: str) -> Iterator[tuple[Screen, subprocess.Popen[bytes]]]:
    """Run kcclient in a terminal of its own."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Screen(ours), process
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
@pytest.mark.parametrize("where", ["here", "there"])
async def test_password_is_not_shown(where: str, installed_kernel: None, private_place: Path) -> None:
    """What is typed at getpass reaches the code, and nobody's screen; another question's answer is shown."""
    code = "secret Password: \ninput Name: "
    file = private_place / "server.json"
    async with serve(ServerConfig(connection_file=file)):
        options = ["-c", str(file)] if where == "there" else []
        screen, exit_code = await trio.to_thread.run_sync(_type_both, options, code)

    # The scripted kernel prints what it is told, and a question may overtake that.
    assert (0, sorted(["Password:", "open-sesame", "Name:", "Ada", "Ada"])) == (exit_code, sorted(screen.split()))


def _type_both(options: list[str], code: str) -> tuple[str, int]:
    with open_screen(*options, "exec", "-k", "scripted", code) as (screen, process):
        screen.wait_for("Password: ")
        screen.type("open-sesame\n")
        screen.wait_for("Name: ")
        screen.type("Ada\n")
        code_ = process.wait(REAL_TIME)
        screen.read_rest()
    return screen.shown, code_


@pytest.mark.posix_only("a terminal")
@pytest.mark.parametrize("ask", ["input('? ')", "__import__('getpass').getpass('? ')"])
def test_ctrl_c_at_a_question_interrupts_at_once(ask: str) -> None:
    """No Enter is needed: the code is interrupted, and the exit code is that of Ctrl-C."""
    with open_screen("exec", f"print('be' 'gun'); {ask}") as (screen, process):
        screen.wait_for("? ")
        screen.type("half an answer\x03")
        code = process.wait(REAL_TIME)
        screen.read_rest()

    assert 130 == code
    assert "KeyboardInterrupt" in screen.shown


@pytest.mark.posix_only("a terminal")
def test_code_that_goes_on_after_an_interrupt_can_ask_again() -> None:
    """The next line is the next question's answer."""
    code = (
        "try:\n    input('first? ')\nexcept KeyboardInterrupt:\n    print('inter' 'rupted')\n"
        "print('got', input('second? '))"
    )
    with open_screen("exec", code) as (screen, process):
        screen.wait_for("first? ")
        screen.type("\x03")
        screen.wait_for("second? ")
        screen.type("yes\n")
        exit_code = process.wait(REAL_TIME)
        screen.read_rest()

    assert 0 == exit_code
    assert "interrupted" in screen.shown
    assert "got yes" in screen.shown


@pytest.mark.posix_only("a terminal")
def test_second_ctrl_c_ends_the_command() -> None:
    """Code that hears no interrupt keeps nobody."""
    code = (
        "import signal, time; signal.signal(signal.SIGINT, lambda *_: print('he' 'ard', flush=True))\n"
        f"print('be' 'gun', flush=True); {LONG_SLEEP}"
    )
    with open_screen("exec", code) as (screen, process):
        screen.wait_for("begun")
        screen.type("\x03")
        screen.wait_for("heard")
        screen.type("\x03")
        exit_code = process.wait(REAL_TIME)

    assert 128 + signal.SIGINT == exit_code


@pytest.mark.posix_only("a terminal")
def test_partial_lines_are_shown_in_time(installed_kernel: None, private_place: Path) -> None:
    """The beginning of a line, of the code or of a program that it runs, is seen while the code goes on."""
    go = private_place / "go"
    with open_screen("exec", "-k", "scripted", f"raw stdout 70617274\nafter {go}\nstdout ial") as (screen, process):
        screen.wait_for("part")
        go.touch()
        exit_code = process.wait(REAL_TIME)
        screen.read_rest()

    assert (0, "partial") == (exit_code, screen.shown.strip())
