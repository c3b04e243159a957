"""Running code to its end, for a program that wants what came of it: `Session.run`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any

import trio

from kallichore.conversation.run_result import Output, ResultCollector, RunResult
from kallichore.errors import ExecutionTimeoutError, InterruptError
from kallichore.session.executions import Execution

if TYPE_CHECKING:
    from kallichore.session.session import Session


async def collect_result(
    opening: AbstractAsyncContextManager[Execution],
    time_limit: float | None,
    on_output: Callable[[Output], None] | None,
) -> RunResult:
    """Open an execution, hear it to its end, and return what came of it.

    Args:
        opening: Opens it.
        time_limit: Seconds until it is given up, its wait for its turn included; None for as long as it takes.
        on_output: Is called with each output when it comes.

    Raises:
        ExecutionTimeoutError: The time was up.
        KernelDiedError: The kernel ended.
        ExecutionCancelledError: It was dropped from the queue.
    """
    deadline = float("inf") if time_limit is None else trio.current_time() + time_limit
    collector = ResultCollector()
    async with opening as execution:
        while (message := await next_message(execution, deadline)) is not None:
            output = collector.take(message)
            if output is not None and on_output is not None:
                on_output(output)
    return collector.finish(execution.reply or {}, dropped=execution.dropped)


async def next_message(execution: Execution, deadline: float) -> dict[str, Any] | None:
    """Return the next message of an execution, or None at its end. At the deadline the execution is given up.

    Raises:
        ExecutionTimeoutError: The deadline has come.
        KernelDiedError: The kernel ended.
        ExecutionCancelledError: It was dropped from the queue.
    """
    with trio.move_on_at(deadline):
        try:
            return await execution.__anext__()
        except StopAsyncIteration:
            return None
    up = "The time that was given for the execution is up"
    raise ExecutionTimeoutError(give_up(execution.session, execution.msg_id, up))


def give_up(session: Session, msg_id: str, why: str) -> str:
    """Take a request that waits out of the queue, interrupt one that runs, and leave everybody else's alone; return
    what was done.

    Args:
        session: Whose.
        msg_id: The request.
        why: Why nobody wants it any more, in words.
    """
    queue = session.conversation.queue
    if session.conversation.withdraw(msg_id):
        return f"{why}; it was still waiting for its turn, and will not run"
    if queue.active_id == msg_id:
        with suppress(InterruptError):
            session.interrupt()
            return f"{why}; it was interrupted"
    return why
