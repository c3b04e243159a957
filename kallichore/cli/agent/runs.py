"""Runs of code for an agent, on a server: each a task that goes on while the agent looks elsewhere."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import attrs
import h11
import trio

from kallichore.agents.problems import Problem, ToolError
from kallichore.cli.agent.output_log import OutputLog
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.event_stream import open_events
from kallichore.conversation.run_result import ResultCollector, RunResult

GONE = (OSError, h11.RemoteProtocolError, trio.BrokenResourceError)
"""What comes of a server that is not there any more."""

LAST_WORDS = 2.0
"""Seconds that code which was interrupted may take to say so."""

PROBLEMS = {
    "KS-1": Problem.SESSION_NOT_FOUND,
    "session_not_ready": Problem.SESSION_NOT_READY,
    "send_failed": Problem.SEND_FAILED,
}
"""What the API's codes are to agents; all others say that the channel was closed."""


@attrs.define(eq=False)
class Run:
    """One run.

    Attributes:
        number: Its number, from 1 on, in its session.
        first: The number that its first output has.
        done: Set when it is over.
        changed: Set, and made anew, whenever it puts something out.
        problem: Why there is no result, once it is over without one.
        is_executing: Whether the kernel has begun with it.
        was_interrupted: Whether somebody was asked to interrupt it.
        was_late: Whether its time was up.
    """

    log: OutputLog
    number: int
    began: float = attrs.field(factory=trio.current_time)
    first: int = attrs.field(init=False)
    done: trio.Event = attrs.field(factory=trio.Event, init=False)
    changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    problem: ToolError | None = attrs.field(default=None, init=False)
    is_executing: bool = attrs.field(default=False, init=False)
    was_interrupted: bool = attrs.field(default=False, init=False)
    was_late: bool = attrs.field(default=False, init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _collector: ResultCollector = attrs.field(factory=ResultCollector, init=False)
    _reply: dict[str, Any] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.first = self.log.latest + 1

    @property
    def session_id(self) -> str:
        """In which session."""
        return self.log.session_id

    def result(self) -> RunResult:
        """Return what came of it, so far."""
        return self._collector.finish(self._reply)

    def take(self, message: dict[str, Any]) -> str | None:
        """Take in a message of the kernel; return the text that it printed, if it did."""
        msg_type, content = message["header"]["msg_type"], message.get("content") or {}
        if msg_type == "execute_reply":
            self._reply = content
        elif msg_type in ("status", "execute_input"):
            self.is_executing = True
        self.log.take(self.number, message)
        self._collector.take(message)
        self._note_change()
        return str(content.get("text", "")) if msg_type == "stream" else None

    def end(self) -> None:
        """Note that it is over."""
        if self.problem is None:
            self.log.end(self.number, f"run {self.number} ended: {self.result().status}")
        else:
            self.log.end(self.number, f"run {self.number} ended: {self.problem.message}")
        self.done.set()
        self._note_change()

    def _note_change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


async def follow(run: Run, address: Address, request: dict[str, Any], report: Callable[[str], Awaitable[None]]) -> None:
    """Have the server run code, and take in what comes of it, up to the end.

    Cancelling withdraws a run that waits for its turn; one that runs goes on at the server.

    Args:
        run: Takes it in.
        address: The server.
        request: The API's ``executeRequest``.
        report: Is given what is printed.
    """
    try:
        with run.scope:
            async with open_events(address, session_path(run.session_id, "execute"), request) as events:
                async for event in events:
                    if event.name == "reply":
                        return
                    if event.name == "error":
                        _note_refusal(run, json.loads(event.data), "The run failed")
                        return
                    if text := run.take(json.loads(event.data)):
                        await report(text)
            run.problem = ToolError(Problem.CHANNEL_CLOSED, "The server ended during the run")
    except ApiError as error:
        _note_refusal(run, error.body if isinstance(error.body, dict) else {}, error.message)
    except GONE as error:
        run.problem = ToolError(Problem.CHANNEL_CLOSED, f"The server cannot be reached: {error}")
    finally:
        if run.scope.cancelled_caught and run.problem is None:
            run.problem = ToolError(Problem.CHANNEL_CLOSED, "The run was withdrawn before it began")
        run.end()


def _note_refusal(run: Run, error: dict[str, Any], words: str) -> None:
    code, message = error.get("code"), str(error.get("message", words))
    run.was_late = code == "timeout"
    run.problem = ToolError(PROBLEMS.get(str(code), Problem.CHANNEL_CLOSED), message)


async def stop(run: Run, client: ApiClient) -> None:
    """End a run that nobody waits for any more: withdraw it from the queue, or interrupt it and hear its last words.

    What others run is left alone.
    """
    if not run.is_executing:
        run.scope.cancel()
        with trio.CancelScope(shield=True):
            await run.done.wait()
        return
    run.was_interrupted = True
    with suppress(ApiError, *GONE):
        await client.call("POST", session_path(run.session_id, "interrupt"))
    with trio.move_on_after(LAST_WORDS):
        await run.done.wait()
