"""The log of lines: bounded, numbered, and followed without polling."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kallichore.session.line_log import LineLog


def filled(count: int, most_bytes: int = 1 << 20) -> LineLog:
    """Return a log with lines of four characters, numbered in their text."""
    log = LineLog(most_bytes)
    for number in range(1, count + 1):
        log.append("stdout", f"{number:04}\n", "now")
    return log


@pytest.mark.parametrize(
    ("after", "tail", "texts", "missing"),
    [
        (0, None, ["0001", "0002", "0003"], 0),
        (1, None, ["0002", "0003"], 0),
        (3, None, [], 0),
        (9, None, [], 0),
        (0, 2, ["0002", "0003"], 0),
        (2, 2, ["0003"], 0),
        (0, 0, [], 0),
    ],
)
def test_lines_are_read_from_anywhere(after: int, tail: int | None, texts: list[str], missing: int) -> None:
    """A reader gets what is beyond a number, or the last few, without line endings."""
    found = filled(3).read(after, tail)

    assert (texts, missing) == ([line.text for line in found.lines], found.missing)


def test_oldest_lines_go_first_and_are_counted() -> None:
    """A full log drops its oldest, and tells a reader how many it missed."""
    found = filled(30, most_bytes=40).read(5)

    assert [f"{number:04}" for number in range(21, 31)] == [line.text for line in found.lines]
    assert 15 == found.missing


def test_one_endless_line_leaves_room_for_others() -> None:
    """A line takes a quarter of the log at most."""
    log = filled(3, most_bytes=40)
    log.append("stderr", "x" * 1000, "now")

    assert ["0001", "0002", "0003", "x" * 10] == [line.text for line in log.read().lines]


async def test_follower_wakes_for_each_line_and_at_the_end() -> None:
    """Whoever waits is woken by a line, and for good when the log is closed."""
    log, seen = LineLog(), []

    async def follow() -> None:
        after = 0
        while True:
            await log.wait_beyond(after)
            lines = log.read(after).lines
            if not lines:
                return
            after = lines[-1].number
            seen.extend(line.text for line in lines)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        for text in ("one", "two", "three"):
            await wait_all_tasks_blocked()
            log.append("stdout", text, "now")
        await wait_all_tasks_blocked()
        log.close()

    assert ["one", "two", "three"] == seen
