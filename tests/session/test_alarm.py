"""An alarm rings at its time, sooner when somebody says so, and never otherwise."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
from trio.testing import MockClock

from kallichore.session.alarm import Alarm


@attrs.define
class Bell:
    """Notes when an alarm rang, in seconds since it was made."""

    alarm: Alarm = attrs.field(factory=Alarm)
    rung: list[float] = attrs.field(factory=list)
    then: Callable[[], None] = lambda: None
    """What is done at each ring."""
    _began: float = attrs.field(factory=trio.current_time)

    def set(self, seconds: float | None) -> None:
        """Set the alarm, in seconds since the bell was made."""
        self.alarm.set(None if seconds is None else self._began + seconds)

    def ring(self) -> None:
        """Note it."""
        self.rung.append(round(trio.current_time() - self._began, 6))
        self.then()

    async def run_for(self, seconds: float) -> None:
        """Run the alarm for so long."""
        with trio.move_on_after(seconds):
            await self.alarm.run(self.ring)


async def test_alarm_rings_once_at_its_time(autojump_clock: MockClock) -> None:
    """Not again, as nobody has set it again."""
    bell = Bell()
    bell.set(5)
    await bell.run_for(100)

    assert bell.rung == [5]


async def test_alarm_that_nobody_set_does_not_ring(autojump_clock: MockClock) -> None:
    """No time is no time."""
    bell = Bell()
    bell.set(None)
    await bell.run_for(100)

    assert bell.rung == []


@pytest.mark.parametrize("later", [9, None])
async def test_earliest_time_counts(autojump_clock: MockClock, later: float | None) -> None:
    """A later one does not put it off, and is not kept: whoever rings sets the next."""
    bell = Bell()
    for seconds in (7, 5, later):
        bell.set(seconds)
    await bell.run_for(100)

    assert bell.rung == [5]


async def test_time_can_be_moved_while_it_is_waited_for(autojump_clock: MockClock) -> None:
    """Sooner; and set where there was none."""
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.run_for, 100)
        await trio.sleep(1)
        bell.set(50)
        bell.set(20)
        bell.set(30)

    assert bell.rung == [20]


async def test_ring_may_set_the_next(autojump_clock: MockClock) -> None:
    """It goes on like that."""
    bell = Bell()
    bell.then = lambda: bell.set(3 * len(bell.rung) + 1) if len(bell.rung) < 3 else None
    bell.set(1)
    await bell.run_for(100)

    assert bell.rung == [1, 4, 7]


async def test_time_that_is_over_rings_at_once(autojump_clock: MockClock) -> None:
    """Whoever looked too late is not forgotten."""
    bell = Bell()
    await trio.sleep(10)
    bell.set(5)
    await bell.run_for(100)

    assert bell.rung == [10]


async def test_cancelled_alarm_keeps_its_time(autojump_clock: MockClock) -> None:
    """Who waits again is rung at it."""
    bell = Bell()
    bell.set(5)
    await bell.run_for(3)
    before = bell.rung[:]
    await bell.run_for(100)

    assert (before, bell.rung) == ([], [5])
