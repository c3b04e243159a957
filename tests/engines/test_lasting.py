"""Tasks that outlast cancellations: once they have started, and not while they start."""

from __future__ import annotations

import pytest
import trio

from kallichore.engines.lasting import start_lasting


async def _last(  # noqa: ASYNC128  # by `start_lasting`
    ended: list[str], task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    with trio.CancelScope() as scope:
        start_lasting(scope, task_status, scope)
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")


async def test_task_that_lasts_is_ended_by_its_scope_alone(autojump_clock: trio.testing.MockClock) -> None:
    """Who cancels its nursery does not reach it; who has its scope does."""
    ended: list[str] = []
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_last, ended)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

        assert [] == ended
        scope.cancel()
    assert ["ended"] == ended


@pytest.mark.parametrize("way", ["starter", "nursery"])
async def test_task_whose_start_is_cancelled_ends(autojump_clock: trio.testing.MockClock, way: str) -> None:
    """Who was cancelled while it starts one is not kept waiting for ever."""
    ended: list[str] = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as starting:
                (starting if way == "starter" else nursery.cancel_scope).cancel()
                await nursery.start(_last, ended)
            nursery.cancel_scope.cancel()

    assert ["ended"] == ended
