"""One execution, attended: its messages shown, its questions asked, Ctrl-C and the time limit passed on to the code.

Where the kernel is makes no difference here: see `Kernel`.
"""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import attrs
import trio

from kallichore.cli import exit_codes
from kallichore.cli.answers import Answering, Questions, open_questions
from kallichore.cli.ending import say_error

Message = dict[str, Any]

END_PATIENCE = 5.0
"""Seconds that code which was interrupted may take to end."""


class Kernel(Protocol):
    """A kernel that code can be run in, one execution after another."""

    def run(self, code: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Run code; yield what iterates over its messages until it is over.

        What processes print past the kernel is among them, as messages of type ``stream``.

        Raises:
            KernelDiedError: The kernel ended, or had ended before.
        """

    async def answer(self, value: str) -> None:
        """Answer the kernel's question."""

    async def interrupt(self) -> None:
        """Interrupt what it runs."""


@attrs.frozen
class Outcome:
    """What became of an execution: the exit code, what that means in a word, and the content of the reply."""

    exit_code: int
    status: str
    reply: dict[str, Any]


@attrs.define(eq=False)
class _Attended:
    """One execution while it lasts."""

    kernel: Kernel
    show: Callable[[Message], None]
    limit: float
    ends_at_second: bool
    reply: dict[str, Any] = attrs.field(factory=dict, init=False)
    has_begun: bool = attrs.field(default=False, init=False)
    """Whether the kernel is at it. Before that, an interrupt would be for somebody else's code."""
    is_interrupted: bool = attrs.field(default=False, init=False)
    is_late: bool = attrs.field(default=False, init=False)

    def take(self, message: Message, questions: Questions) -> None:
        """Take in a message."""
        content = message["content"]
        match message["header"]["msg_type"]:
            case "status":
                self.has_begun = True
            case "execute_reply":
                self.reply = content
            case "input_request":
                questions.ask(content)
        self.show(message)

    async def stop(self, questions: Questions) -> None:
        """Interrupt the code, and its question, and wait for its end; for a while, or not at all if it did not begin.

        Cancelled when it ends.
        """
        questions.give_up()
        if self.has_begun:
            await self.kernel.interrupt()
            await trio.sleep(END_PATIENCE)

    async def keep_time(self, questions: Questions, scope: trio.CancelScope) -> None:
        """End the code when its time is up."""
        await trio.sleep(self.limit)
        self.is_late = True
        say_error(f"The time is up: the code had {self.limit:.3g} s")
        await self.stop(questions)
        scope.cancel()

    async def watch_signals(
        self, questions: Questions, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let Ctrl-C interrupt the code, at a question as well, and the second one end us."""
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                if not self.has_begun or (self.is_interrupted and self.ends_at_second):
                    raise KeyboardInterrupt
                self.is_interrupted = True
                questions.give_up()
                await self.kernel.interrupt()

    def outcome(self) -> Outcome:
        """Return what became of it."""
        if self.is_late:
            return Outcome(exit_codes.TIME_IS_UP, "timeout", self.reply)
        exit_code = exit_codes.of_reply(self.reply)
        if exit_code == exit_codes.INTERRUPTED or (exit_code and self.is_interrupted):
            return Outcome(exit_codes.INTERRUPTED, "interrupted", self.reply)
        return Outcome(exit_code, "ok" if exit_code == exit_codes.WORKED else "error", self.reply)


async def attend(
    kernel: Kernel,
    code: str,
    show: Callable[[Message], None],
    *,
    limit: float = math.inf,
    answers: Answering | None = None,
    ends_at_second: bool = True,
) -> Outcome:
    """Run code, show what it says and answer what it asks, until it is over.

    The first Ctrl-C interrupts the code. Cancelling leaves; what runs goes on.

    Args:
        kernel: Where it is run.
        code: What is run.
        show: Is given each message.
        limit: Seconds that it may take; then it is interrupted.
        answers: Who answers; None for standard input.
        ends_at_second: Whether a second Ctrl-C ends us, rather than interrupt once more.

    Raises:
        KernelDiedError: The kernel ended.
        KeyboardInterrupt: Of a second Ctrl-C, or the first while the code waits for its turn.
    """
    attended = _Attended(kernel, show, limit, ends_at_second)
    async with open_questions(kernel.answer, answers) as questions, _open_watch(attended, questions):
        async with kernel.run(code) as messages:
            async for message in messages:
                attended.take(message, questions)
    return attended.outcome()


@asynccontextmanager
async def _open_watch(attended: _Attended, questions: Questions) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(attended.watch_signals, questions)
        nursery.start_soon(attended.keep_time, questions, nursery.cancel_scope)
        yield
        nursery.cancel_scope.cancel()
