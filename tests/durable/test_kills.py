"""A server that is killed at any step of what it does: the next one goes on, and clients notice nothing but the pause."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable.scenario import EXPECTED, Life, outline
from durable.servers import open_servers, wait_nothing_left

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")

KINDS = {True: "numbered", False: "compatible"}

STEPS: dict[str, tuple[str, ...]] = {
    "create": ("before", "after"),
    "record": ("before", "within", "after"),
    "segment": ("before", "after"),
    "host": ("before", "after"),
    "commit": ("before", "within", "after"),
    "flush": ("before", "after"),
    "confirm": ("before", "after"),
    "forget": ("before", "after"),
    "conclude": ("before", "after"),
    "release": ("before", "after"),
    "end": ("before", "after"),
    "remove": ("before", "within", "after"),
    "lock": ("before", "after"),
}
"""What a server does, as `fragile` has it, and when it can be killed at it."""

COUNTS = {"commit": (1, 2, 3, 5, 8, 12, 18, 26, 40, 60), "flush": (1, 2, 3, 5, 8, 12, 18), "create": (1,), "remove": (1,), "lock": (1,),
   "segment": (1,2,3,5,9), "record": (1,2,3,4), "confirm": (1,4,9), "forget": (1,3)}

GRID = [
    (point, moment, str(count))
    for point, moments in STEPS.items()
    for moment in moments
    for count in COUNTS.get(point, (1, 2))
]


async def live(place: Path, is_numbered: bool, *faults: tuple[str, str, str]) -> Life:
    async with open_servers(place) as servers:
        life = Life(servers, is_numbered, {"journal_memory": 1 << 16, "journal_file": 0, "journal_keep": 0})
        try:
            await life.run(faults)
            left = await wait_nothing_left(servers)
            sessions = servers.sessions()
            await servers.client.call("POST", "/shutdown")
            code = await servers.wait()
        finally:
            print(servers.log[-6000:], outline(life))
    assert [left, sessions, code] == [[], [], 0]
    return life


async def test_life_without_a_fault(private_place: Path) -> None:
    """What the other tests compare with."""
    life = await live(private_place, True)

    assert outline(life) == EXPECTED
    assert life.exits() == [0, 3]


@pytest.mark.parametrize("fault", GRID, ids="-".join)
async def test_grid(private_place: Path, fault: tuple[str, str, str]) -> None:
    """X."""
    life = await live(private_place, hash(fault) % 2 == 0, fault)

    assert outline(life) == EXPECTED
    assert life.deaths == 1
    assert life.exits().count(3) == 1
