"""A person's answers: line by line, given up without a trace, and never waited for at the end of the program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.cli.answers import END_OF_INPUT, Answers, Questions, open_questions

LIMIT = 20.0


class Typing:
    """What is typed, and who reads it."""

    def __init__(self, reading: int, writing: int) -> None:
        self.answers = Answers(reading)
        self.reading, self._writing = reading, writing
        self._closed = False

    def type(self, data: bytes) -> None:
        """Type something."""
        os.write(self._writing, data)

    def end(self) -> None:
        """Type nothing more, ever."""
        if not self._closed:
            os.close(self._writing)
            self._closed = True


@pytest.fixture
def typing() -> Iterator[Typing]:
    """Return a pipe for input."""
    typing = Typing(*os.pipe())
    yield typing
    typing.end()
    os.close(typing.reading)


@pytest.fixture
def terminal() -> Iterator[Typing]:
    """Return a terminal for input."""
    import pty

    ours, theirs = pty.openpty()
    terminal = Typing(theirs, ours)
    yield terminal
    terminal.end()
    os.close(theirs)


def echoes(descriptor: int) -> bool:
    """Return whether a terminal shows what is typed."""
    import termios

    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


async def test_each_question_has_the_next_line(typing: Typing, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that come at once are answers one after the other; the last needs no end; then the input has ended."""
    typing.type(b"one\r\n\ntw")
    typing.type("o é\nlast".encode())
    typing.end()
    with trio.fail_after(LIMIT):
        answers = [await typing.answers.answer({"prompt": f"{number}? "}) for number in range(6)]

    assert answers == ["one", "", "two é", "last", END_OF_INPUT, END_OF_INPUT]
    assert capsys.readouterr().out == "0? 1? 2? 3? 4? 5? "


@pytest.mark.parametrize(
    ("encoding", "data", "answer"),
    [("latin-1", b"caf\xe9\n", "café"), ("utf-8", b"caf\xe9\n", "caf�"), ("ascii", "é\n".encode(), "��")],
)
async def test_what_does_not_fit_the_encoding_is_replaced(
    typing: Typing, encoding: str, data: bytes, answer: str
) -> None:
    """A kernel gets text in any case."""
    typing.type(data)
    with trio.fail_after(LIMIT):
        assert await Answers(typing.reading, encoding).next_line() == answer


@pytest.mark.posix_only("a terminal")
@pytest.mark.parametrize("password", [False, True])
async def test_password_is_hidden_at_a_terminal_while_it_is_typed(terminal: Typing, password: bool) -> None:
    """The terminal shows no password, all else, and after the answer everything."""
    during = []
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            during.append(await terminal.answers.answer({"prompt": "? ", "password": password}))

        nursery.start_soon(answer)
        await wait_all_tasks_blocked()
        during.append(echoes(terminal.reading))
        terminal.type(b"secret\n")

    assert during == [not password, "secret"]
    assert echoes(terminal.reading)


@pytest.mark.posix_only("a terminal")
async def test_question_that_is_given_up_leaves_the_terminal_as_it_was(terminal: Typing) -> None:
    """Cancelled at a password, it shows what is typed again, and the next line is the next question's."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(terminal.answers.answer, {"prompt": "? ", "password": True})
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    shown = echoes(terminal.reading)
    terminal.type(b"for the next\n")
    with trio.fail_after(LIMIT):
        answer = await terminal.answers.answer({})

    assert (shown, answer) == (True, "for the next")


@pytest.mark.posix_only("a terminal")
async def test_end_of_a_terminals_input_is_for_one_question(terminal: Typing) -> None:
    """Ctrl-D ends one answer; people go on typing."""
    terminal.type(b"\x04")
    with trio.fail_after(LIMIT):
        first = await terminal.answers.answer({})
        terminal.type(b"again\n")
        second = await terminal.answers.answer({})

    assert (first, second) == (END_OF_INPUT, "again")


async def test_password_comes_from_a_pipe_as_it_is(typing: Typing) -> None:
    """Without a terminal there is nothing to hide it from."""
    typing.type(b"secret\n")
    with trio.fail_after(LIMIT):
        assert await typing.answers.answer({"password": True}) == "secret"


async def test_closed_input_has_ended() -> None:
    """Where there is no standard input, nobody answers."""
    with trio.fail_after(LIMIT):
        assert await Answers(-1).answer({}) == END_OF_INPUT


async def test_next_question_takes_the_place_of_the_open_one(typing: Typing) -> None:
    """A kernel that asks again does not wait for the earlier answer; one line answers once."""
    replies: list[str] = []
    replied = trio.Event()

    async def reply(answer: str) -> None:
        replies.append(answer)
        replied.set()

    async with trio.open_nursery() as nursery:
        questions = Questions(nursery, reply, typing.answers)
        for prompt in ("first? ", "second? "):
            questions.ask({"prompt": prompt})
            await wait_all_tasks_blocked()
        typing.type(b"yes\n")
        with trio.fail_after(LIMIT):
            await replied.wait()
        questions.give_up()

    assert replies == ["yes"]


@pytest.mark.posix_only("a terminal")
async def test_open_question_ends_with_the_execution(terminal: Typing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving does not wait for Enter."""

    async def reply(answer: str) -> None:
        raise AssertionError(answer)

    monkeypatch.setattr("kallichore.cli.answers.standard_input", lambda: terminal.answers)
    with trio.fail_after(LIMIT):
        async with open_questions(reply) as questions:
            questions.ask({"prompt": "? ", "password": True})
            await wait_all_tasks_blocked()

    assert echoes(terminal.reading)


def test_program_ends_while_a_read_is_left_behind() -> None:
    """A thread that still waits for input keeps nobody from ending."""
    code = (
        "import trio; from kallichore.cli.answers import standard_input\n"
        "async def main():\n"
        "    answers = standard_input()\n"
        "    with trio.move_on_after(0.1): await answers.answer({})\n"
        "trio.run(main); print('over')"
    )
    process: Any
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        code = process.wait(LIMIT)
        out, err = process.stdout.read(), process.stderr.read()

    assert (code, out, err) == (0, "over\n", "")
