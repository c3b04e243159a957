"""Code in, result out: what ``POST /sessions/{session_id}/execute`` does with an execution.

For scripts and agents, which want one call and one answer rather than channels. The request takes its turn behind those
of everybody else, and a connected client sees it all. Source: newer-api 4 of our specification.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import attrs
import trio

from kallichore.errors import (
    ExecuteError,
    ExecutionCancelledError,
    ExecutionTimeoutError,
    KernelDiedError,
    StartupError,
)
from kallichore.models.bodies import ExecuteOutput, ExecuteReply, ExecuteRequest, Status
from kallichore.session.executions import open_execution
from kallichore.session.run_call import next_message
from kallichore.session.session import Session

START_PATIENCE = 30.0
"""Seconds that a kernel which is starting may take until it is ready."""

SILENCE = 2.0
"""Seconds without a message after which those who are streamed to hear that it still goes on: a client that is gone is
noticed when it is written to, and then a request that waits for its turn is taken out of the queue."""

NOT_READY = (Status.UNINITIALIZED, Status.OFFLINE, Status.EXITED)


@attrs.define
class ReplyCollector:
    """Puts the answer together from the messages of one execution, as they come. [pure]"""

    _output: list[ExecuteOutput] = attrs.field(factory=list, init=False)
    _stream: tuple[str, list[str]] = attrs.field(factory=lambda: ("", []), init=False)
    """The stream that was printed to last, and what was in pieces: a hundred thousand are joined once."""
    _data: dict[str, str] | None = attrs.field(default=None, init=False)
    _count: int = attrs.field(default=0, init=False)

    def take(self, message: dict[str, Any]) -> None:
        """Take in one message; kinds that the answer has no place for are passed over."""
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                self._take_stream(str(content.get("name")), str(content.get("text", "")))
            case "display_data":
                self._end_stream()
                metadata = content.get("metadata") or {}
                output = ExecuteOutput(type="display_data", data=_as_strings(content.get("data")), metadata=metadata)
                self._output.append(output)
            case "error":
                self._end_stream()
                self._output.append(ExecuteOutput(type="error", **_error_members(content)))
            case "execute_result":
                self._data = _as_strings(content.get("data"))
                self._count = _count_of(content)

    def _take_stream(self, name: str, text: str) -> None:
        if name != self._stream[0]:
            self._end_stream()
            self._stream = name, []
        self._stream[1].append(text)

    def _end_stream(self) -> None:
        name, pieces = self._stream
        if pieces:
            self._output.append(ExecuteOutput(type="stream", stream_name=name, text="".join(pieces)))
        self._stream = "", []

    def finish(self, reply: dict[str, Any]) -> ExecuteReply:
        """Return the answer, given the content of the ``execute_reply``."""
        self._end_stream()
        status = reply.get("status")
        return ExecuteReply(
            status="ok" if status == "ok" else "error",
            execution_count=_count_of(reply) or self._count,
            output=tuple(self._output),
            data=self._data,
            **({} if status == "ok" else _error_members(reply) if status == "error" else _unfinished(status)),
        )


def _as_strings(data: Any) -> dict[str, str]:
    """Return a MIME bundle with what is not a string as JSON text."""
    bundle = data if isinstance(data, dict) else {}
    return {kind: value if isinstance(value, str) else json.dumps(value) for kind, value in bundle.items()}


def _error_members(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "error_name": str(content.get("ename", "")),
        "error_message": str(content.get("evalue", "")),
        "error_traceback": tuple(map(str, content.get("traceback") or ())),
    }


def _unfinished(status: Any) -> dict[str, Any]:
    """Say as an error that the code did not run to its end: ``aborted``, bash_kernel's ``abort``, or no status."""
    text = f"The kernel replied with the status {status!r}: the code did not run to its end"
    return {"error_name": "ExecutionAborted", "error_message": text, "error_traceback": ()}


def _count_of(content: dict[str, Any]) -> int:
    count = content.get("execution_count")
    return count if isinstance(count, int) else 0


async def execute_code(session: Session, request: ExecuteRequest) -> ExecuteReply:
    """Execute code and return what came of it, errors of the code included.

    Cancelling takes a request that waits out of the queue; one that runs goes on.

    Raises:
        ExecuteError: There is no result: no kernel, a kernel that ended, or the time was up.
    """
    last: Any = None
    async with aclosing(stream_execution(session, request)) as messages:
        async for message in messages:
            last = message
    assert isinstance(last, ExecuteReply)
    return last


async def stream_execution(
    session: Session, request: ExecuteRequest
) -> AsyncGenerator[dict[str, Any] | ExecuteReply | None, None]:
    """Execute code; yield the kernel's messages as they come, and at last the answer; None where there is `SILENCE`.

    See `execute_code`.
    """
    seconds = request.timeout_seconds
    limited = seconds is not None and seconds > 0
    deadline = trio.current_time() + seconds if limited and seconds is not None else float("inf")
    await wait_until_ready(session, deadline)
    content = {name: getattr(request, name) for name in ("silent", "store_history", "stop_on_error")}
    members = {name: value for name, value in content.items() if value is not None}
    if request.attribution is not None:
        members["attribution"] = attrs.asdict(request.attribution)
    collector = ReplyCollector()
    try:
        async with open_execution(session, request.code, **members) as execution:
            while True:
                with trio.move_on_after(SILENCE) as silence:
                    message = await next_message(execution, deadline)
                if silence.cancelled_caught:
                    yield None  # noqa: ASYNC119  # callers close it, see aclosing
                    continue
                if message is None:
                    break
                collector.take(message)
                yield message  # noqa: ASYNC119  # the same
            yield collector.finish(execution.reply or {})  # noqa: ASYNC119  # the same
    except ExecutionTimeoutError as error:
        raise ExecuteError(error.message, "timeout") from error
    except (KernelDiedError, ExecutionCancelledError) as error:
        raise ExecuteError(error.message, "channel_closed") from error


async def wait_until_ready(session: Session, deadline: float) -> None:
    """Wait until a session can be given code. Cancelling changes nothing.

    Raises:
        ExecuteError: It has no kernel and none on its way, its start failed, or takes too long.
    """
    if session.status in NOT_READY and not session.is_changing:
        text = f"Session {session.session_id} is {session.status.value}; start or restart it first"
        raise ExecuteError(text, "session_not_ready")
    with trio.move_on_at(deadline) as total, trio.move_on_after(START_PATIENCE) as patience:
        try:
            await session.wait_ready()
        except StartupError as error:
            raise ExecuteError(error.message, "session_not_ready", error.details) from error
    if total.cancelled_caught:
        raise ExecuteError(f"The kernel of session {session.session_id} was not ready in time", "timeout")
    if patience.cancelled_caught:
        text = f"The kernel of session {session.session_id} still starts after {START_PATIENCE:g} seconds"
        raise ExecuteError(text, "session_not_ready")
