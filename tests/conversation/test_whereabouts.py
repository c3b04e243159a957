"""Where a kernel is is told when it changes, and only then."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from kallichore.conversation.whereabouts import SAME_END, Whereabouts

NOON = 1_800_000_000.0


@attrs.define
class Listener:
    """Hears what is told."""

    told: list[tuple[str, Any]] = attrs.field(factory=list)
    whereabouts: Whereabouts = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.whereabouts = Whereabouts(lambda member, value: self.told.append((member, value)))

    def ends(self) -> list[Any]:
        """Return the ends that were told."""
        return [value.get("ends") for member, value in self.told if member == "place"]


@pytest.fixture
def listener() -> Listener:
    """Return somebody who listens."""
    return Listener()


def test_end_that_is_reckoned_anew_is_told_once(listener: Listener) -> None:
    """An end that comes out a little different at each look, either way, is the one that was told."""
    for shift in (0.0, 0.000_02, 1.0, -1.0, SAME_END - 0.1, 0.1 - SAME_END):
        listener.whereabouts.note_place("slurm", "in job 7", "node1", NOON + shift)

    assert ["2027-01-15T08:00:00Z"] == listener.ends()


@pytest.mark.parametrize("shift", [SAME_END, -SAME_END, 3600.0])
def test_end_that_moves_is_told(listener: Listener, shift: float) -> None:
    """Who gives a job more time, or less, is noticed."""
    listener.whereabouts.note_place("slurm", "in job 7", "node1", NOON)
    listener.whereabouts.note_place("slurm", "in job 7", "node1", NOON + shift)

    assert 2 == len(listener.ends())


def test_end_does_not_creep(listener: Listener) -> None:
    """Small steps count from the end that was told, so that they add up to one that is told."""
    for step in range(4):
        listener.whereabouts.note_place("slurm", "in job 7", "node1", NOON + step * SAME_END / 2)

    assert 2 == len(listener.ends())


def test_end_that_comes_or_goes_is_told(listener: Listener) -> None:
    """A limit that a job gets, or loses, is a change."""
    for ends in (None, NOON, None):
        listener.whereabouts.note_place("slurm", "in job 7", "node1", ends)

    assert [None, "2027-01-15T08:00:00Z", None] == listener.ends()


def test_other_machine_is_told_with_the_same_end(listener: Listener) -> None:
    """What changed besides the end is told, whether the end moved a little or not."""
    listener.whereabouts.note_place("slurm", "in job 7", None, NOON)
    listener.whereabouts.note_place("slurm", "in job 7", "node1", NOON + 1)

    assert [None, "node1"] == [value.get("node") for _, value in listener.told]
    assert 1 == len(set(listener.ends()))
