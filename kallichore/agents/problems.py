"""Why a tool cannot do what an agent asked for: codes that programs read, words that agents read. [pure]"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from kallichore.errors import KallichoreError


class Problem(StrEnum):
    """The codes. Those of the first group are what Positron's agents know; the others are ours."""

    SESSION_NOT_FOUND = "SESSION_NOT_FOUND"
    SESSION_NOT_VISIBLE = "SESSION_NOT_VISIBLE"
    NO_SESSION_SELECTED = "NO_SESSION_SELECTED"
    RUNTIME_BUSY = "RUNTIME_BUSY"
    SESSION_IS_CALLER = "SESSION_IS_CALLER"
    SESSION_NOT_READY = "SESSION_NOT_READY"
    SEND_FAILED = "SEND_FAILED"
    CHANNEL_CLOSED = "CHANNEL_CLOSED"
    INTERRUPT_FAILED = "INTERRUPT_FAILED"
    POSITRON_DISCONNECTED = "POSITRON_DISCONNECTED"
    NO_WORKSPACE = "NO_WORKSPACE"
    POSITRON_NOT_RUNNING = "POSITRON_NOT_RUNNING"

    INVALID_ARGUMENTS = "INVALID_ARGUMENTS"
    COMMAND_FAILED = "COMMAND_FAILED"
    COMMAND_TIMED_OUT = "COMMAND_TIMED_OUT"
    START_FAILED = "START_FAILED"
    SERVER_REFUSED = "SERVER_REFUSED"


class ToolError(KallichoreError):
    """A tool cannot do what it was asked for. An agent is told so in the tool's result, to try something else.

    Args:
        problem: The code.
        message: What was attempted, why it failed, and what to do instead.
        facts: More members of the answer, such as the sessions that could have been meant.
    """

    def __init__(self, problem: Problem, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.code = str(problem)
        self.facts = facts
