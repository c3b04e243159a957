"""A person's answers to a kernel's questions: lines of standard input, read when they are wanted.

No wait for standard input is for ever: when a question is interrupted, the read is left behind in its thread, and the
line that it brings is the next question's. The descriptor itself is read. A thread that waits in ``sys.stdin`` holds
its lock, and the interpreter could not end.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol, TextIO

import attrs
import trio

from kallichore.cli import escapes

READ_SIZE = 1 << 16

END_OF_INPUT = "\x04"
"""What answers a question that nobody can answer: jupyter_client's consoles send it, and kernels raise EOFError."""


@attrs.define(eq=False)
class Answers:
    """The lines of a descriptor, one for each question.

    Args:
        descriptor: Where they come from.
        encoding: How they are written; what does not fit is replaced.
        shown_on: Where the questions are shown; None for standard output.
    """

    descriptor: int = 0
    encoding: str = "utf-8"
    shown_on: TextIO | None = None
    _data: bytes = attrs.field(default=b"", init=False)
    _at_end: bool = attrs.field(default=False, init=False)
    _is_reading: bool = attrs.field(default=False, init=False)
    _read: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def answer(self, question: dict[str, Any]) -> str:
        """Show the prompt of an ``input_request`` and return the answer; what answers a password is not shown.

        Cancelling gives the question up, and leaves the terminal as it was.
        """
        prompt = escapes.coloured(str(question.get("prompt", "")))
        if not question.get("password"):
            self.show(prompt)
            line = await self.next_line()
        elif sys.platform == "win32" and os.isatty(self.descriptor):
            self.show(prompt)
            return await trio.to_thread.run_sync(getpass.getpass, "", abandon_on_cancel=True)
        else:
            # Nobody may see the prompt, and type, before the terminal is silent.
            with self._hidden():
                self.show(prompt)
                line = await self.next_line()
        return END_OF_INPUT if line is None else line

    def show(self, text: str) -> None:
        """Show something at once."""
        stream = self.shown_on or sys.stdout
        stream.write(text)
        stream.flush()

    async def next_line(self) -> str | None:
        """Return the next line without its end; None at the end of the input. Cancelling loses nothing."""
        while b"\n" not in self._data and not self._at_end:
            await self._read_more()
        if not self._data:
            # A terminal's Ctrl-D ends one question; it is asked again for the next.
            self._at_end = not os.isatty(self.descriptor)
            return None
        line, _, self._data = self._data.partition(b"\n")
        return line.removesuffix(b"\r").decode(self.encoding, "replace")

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Have a terminal not show what is typed, while a block runs; nothing changes where there is none."""
        if sys.platform == "win32" or not os.isatty(self.descriptor):
            yield
            return
        import termios

        before = termios.tcgetattr(self.descriptor)
        silent = list(before)
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(self.descriptor, termios.TCSADRAIN, silent)
        try:
            yield
            # The Enter was not shown either.
            self.show("\n")
        finally:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)

    async def _read_more(self) -> None:
        if not self._is_reading:
            self._is_reading, self._read = True, trio.Event()
            # The thread is nobody's: it may wait for ever, and must not keep the program from ending.
            trio.lowlevel.start_thread_soon(
                partial(os.read, self.descriptor, READ_SIZE), partial(self._deliver, trio.lowlevel.current_trio_token())
            )
        await self._read.wait()

    def _deliver(self, token: trio.lowlevel.TrioToken, outcome: Any) -> None:
        """Hand over what the thread has read; in that thread."""
        try:
            token.run_sync_soon(self._take, outcome)
        except trio.RunFinishedError:
            pass

    def _take(self, outcome: Any) -> None:
        try:
            data = outcome.unwrap()
        except OSError:
            # Closed, or a terminal that is gone.
            data = b""
        self._data += data
        self._at_end = not data
        self._is_reading = False
        self._read.set()


def standard_input(shown_on: TextIO | None = None) -> Answers:
    """Return the answers that come from standard input; none where that is closed, or is nothing to read from."""
    try:
        return Answers(sys.stdin.fileno(), sys.stdin.encoding, shown_on)
    except (AttributeError, OSError, ValueError):
        return Answers(-1, shown_on=shown_on)


class Answering(Protocol):
    """Who answers a kernel's questions."""

    async def answer(self, question: dict[str, Any]) -> str:
        """Return the answer to an ``input_request`` with this content."""

    def show(self, text: str) -> None:
        """Show something where the questions are."""


class Nobody:
    """Answers nothing: what standard input had was the code."""

    async def answer(self, question: dict[str, Any]) -> str:
        """Say that the input has ended."""
        return END_OF_INPUT

    def show(self, text: str) -> None:
        """There is nobody to show it to."""


Reply = Callable[[str], Awaitable[None]]


@attrs.define(eq=False)
class Questions:
    """A kernel's questions, each asked in a task of its own, so that the kernel is heard meanwhile; one at a time.

    Made by `open_questions`.
    """

    _nursery: trio.Nursery
    _reply: Reply
    _answers: Answering
    _open: trio.CancelScope | None = attrs.field(default=None, init=False)

    def ask(self, content: dict[str, Any]) -> None:
        """Begin to ask what an ``input_request`` asks for; an earlier question is given up."""
        self.give_up()
        self._open = trio.CancelScope()
        self._nursery.start_soon(self._ask, content, self._open)

    async def _ask(self, content: dict[str, Any], scope: trio.CancelScope) -> None:
        with scope:
            answer = await self._answers.answer(content)
            self._open = None
            await self._reply(answer)

    def give_up(self) -> None:
        """Let the open question be: the kernel does not wait for its answer any more."""
        if self._open is not None:
            self._open.cancel()
            self._open = None
            # What comes next begins a line of its own.
            self._answers.show("\n")


@asynccontextmanager
async def open_questions(reply: Reply, answers: Answering | None = None) -> AsyncIterator[Questions]:
    """Ask a person what a kernel wants to know, while a block runs.

    Args:
        reply: Sends an answer to the kernel.
        answers: Who answers; None for standard input.
    """
    async with trio.open_nursery() as nursery:
        yield Questions(nursery, reply, answers or standard_input())
        nursery.cancel_scope.cancel()
