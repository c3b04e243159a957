"""Running a command in a window: waited for, within its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio

from kallichore.agents.problems import Problem, ToolError
from kallichore.mcp.channel_frames import CommandReply
from kallichore.mcp.workspace import WindowsGone, Workspace

CHANNEL_PATIENCE = 15.0
"""Seconds that a window may take to be there: one that is loaded anew is back by then."""

REPLY_PATIENCE = 45.0
"""Seconds that it has to answer."""


async def run_command(
    workspace: Workspace, command_id: str, arguments: Sequence[Any], agent: tuple[str | None, str | None]
) -> Any:
    """Have a window run a command and return its result. Cancelling stops waiting; what the window does goes on.

    Raises:
        ToolError: There is no window, it went away, it did not answer in time, or the command failed.
    """
    await _wait_for_window(workspace)
    replied, replies = trio.Event(), []

    def take(reply: CommandReply | WindowsGone) -> None:
        replies.append(reply)
        replied.set()

    call = workspace.ask(command_id, arguments, agent, REPLY_PATIENCE, take)
    if call is None:
        raise _disconnected(f"There is no Positron window to run {command_id[:100]}")
    try:
        with trio.move_on_after(REPLY_PATIENCE):
            await replied.wait()
    finally:
        workspace.give_up(call)
    match replies:
        case [CommandReply(ok=True, result=result)]:
            return result
        case [CommandReply(reason=reason, message=message)]:
            words = message or f"The command failed: {reason or 'error'}"
            raise ToolError(Problem.COMMAND_FAILED, words, reason=reason or "error")
        case [WindowsGone()]:
            raise _disconnected(f"The Positron window went away while it ran {command_id[:100]}")
    raise ToolError(
        Problem.COMMAND_TIMED_OUT, f"The Positron window did not answer within {REPLY_PATIENCE:.0f} s; it may still run"
    )


async def _wait_for_window(workspace: Workspace) -> None:
    changed = trio.Event()

    def look() -> None:
        if workspace.is_connected or workspace.is_removed:
            changed.set()

    look()
    workspace.watchers.add(look)
    try:
        with trio.move_on_after(CHANNEL_PATIENCE):
            await changed.wait()
    finally:
        workspace.watchers.discard(look)


def _disconnected(words: str) -> ToolError:
    return ToolError(
        Problem.POSITRON_DISCONNECTED, f"{words}. Sessions can still be used: execute_code needs no window"
    )
