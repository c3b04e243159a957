"""Commands that windows are asked to run, when they do not answer as they should: in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kallichore.agents.problems import ToolError
from kallichore.mcp.channel_frames import CommandReply
from kallichore.mcp.commands import CHANNEL_PATIENCE, REPLY_PATIENCE, run_command
from kallichore.mcp.workspace import Workspace


async def outcome(workspace: Workspace) -> tuple[object, float]:
    """Return what comes of a command, and after how many seconds."""
    began = trio.current_time()
    try:
        result = await run_command(workspace, "c", [], (None, None))
    except ToolError as error:
        return error.code, trio.current_time() - began
    return result, trio.current_time() - began


async def test_no_window_is_said_after_its_patience(autojump_clock: MockClock) -> None:
    """Without a window the answer is POSITRON_DISCONNECTED when one could have been back, and not before."""
    assert await outcome(Workspace("w", "W", "")) == ("POSITRON_DISCONNECTED", CHANNEL_PATIENCE)


async def test_window_that_never_answers_is_not_waited_for(autojump_clock: MockClock) -> None:
    """A window that is there and says nothing is given up in its time, and nothing is kept of the call."""
    workspace = Workspace("w", "W", "")
    workspace.open_window()

    assert await outcome(workspace) == ("COMMAND_TIMED_OUT", REPLY_PATIENCE)
    assert not workspace._calls
    assert not workspace.watchers


async def test_window_that_comes_in_time_is_asked(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A window that is loaded anew while an agent waits gets the command."""
    workspace = Workspace("w", "W", "")

    async def come() -> None:
        await trio.sleep(10)
        window = workspace.open_window()
        await wait_all_tasks_blocked()
        workspace.hear(window, CommandReply(next(iter(workspace._calls)), True, "done"))

    nursery.start_soon(come)

    assert await outcome(workspace) == ("done", 10)


async def test_last_window_that_goes_fails_the_command(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """When the only window closes in the middle, the agent hears so at once."""
    workspace = Workspace("w", "W", "")
    window = workspace.open_window()

    async def go() -> None:
        await trio.sleep(3)
        workspace.close_window(window, datetime.now(UTC))

    nursery.start_soon(go)

    assert await outcome(workspace) == ("POSITRON_DISCONNECTED", 3)


@pytest.mark.parametrize("is_connected", [True, False])
async def test_cancelled_wait_leaves_nothing(
    autojump_clock: MockClock, nursery: trio.Nursery, is_connected: bool
) -> None:
    """An agent that does not wait any more leaves no watcher and no call behind."""
    workspace = Workspace("w", "W", "")
    if is_connected:
        workspace.open_window()
    nursery.start_soon(outcome, workspace)
    await wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await wait_all_tasks_blocked()

    assert (len(workspace._calls), len(workspace.watchers)) == (0, 0)
