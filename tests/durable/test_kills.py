"""A server that is killed at any step of what it does: the next one goes on, and clients notice a pause at most."""

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
}
"""What a server does, as `fragile` has it, and when it can be killed at it."""

COUNTS = {
    "create": (1,),
    "record": (1, 2, 3),
    "segment": (1, 2, 3, 5, 9),
    "commit": (1, 2, 3, 5, 8, 12, 18, 26, 40, 60),
    "flush": (1, 2, 3, 5, 8, 12, 18),
    "confirm": (1, 4, 9),
    "forget": (1, 3),
    "remove": (1,),
}
"""The how-manieth time, where it is not the first two: each is passed before the life is over."""

GRID = [
    (point, moment, str(count))
    for point, moments in STEPS.items()
    for moment in moments
    for count in COUNTS.get(point, (1, 2))
]

QUICK = [
    [("create", "after", "1"), ("host", "after", "1"), ("commit", "within", "20"), ("end", "before", "1")],
    [("host", "before", "1"), ("flush", "before", "9"), ("confirm", "after", "3"), ("release", "after", "1")],
    [("record", "within", "2"), ("flush", "after", "6"), ("segment", "after", "3"), ("remove", "within", "1")],
]
"""Servers that die one after another in a life: a step of each part of it."""

LIVES = [
    pytest.param(faults, is_numbered, id="+".join(map("-".join, faults)) + "-" + KINDS[is_numbered], marks=marks)
    for number, faults in enumerate(QUICK)
    for is_numbered in (True, False)
    # Each takes ten seconds.
    for marks in [() if is_numbered == bool(number % 2) else pytest.mark.durability]
]


async def live(place: Path, is_numbered: bool, *faults: tuple[str, str, str]) -> Life:
    """Go through a session's life with servers that die at these steps, and see that nothing is left of it."""
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


@pytest.mark.parametrize(("faults", "is_numbered"), LIVES)
async def test_life_with_several_servers(
    private_place: Path, faults: list[tuple[str, str, str]], is_numbered: bool
) -> None:
    """All is said and done once and in order, whichever servers die at whichever steps of it; nothing is left."""
    life = await live(private_place, is_numbered, *faults)

    assert outline(life) == EXPECTED
    assert life.deaths == len(faults)
    assert life.exits().count(3) == 1


@pytest.mark.durability
@pytest.mark.parametrize("is_numbered", [True, False], ids=["numbered", "compatible"])
@pytest.mark.parametrize("fault", GRID, ids="-".join)
async def test_each_step(private_place: Path, fault: tuple[str, str, str], is_numbered: bool) -> None:
    """The same for each step alone."""
    life = await live(private_place, is_numbered, fault)

    assert outline(life) == EXPECTED
    assert life.deaths == 1
    assert life.exits().count(3) == 1
