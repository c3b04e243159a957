"""When a limit of memory is near: once for each crossing."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.kernel.memory_alarm import CLEAR, NEAR, MemoryAlarm, MemoryLimit

LIMIT = MemoryLimit(4_000_000_000, "control group /jobs (memory.max)", "beyond that somebody is killed")


@pytest.mark.parametrize(("used", "warns"), [(0, False), (3_599_999_999, False), (3_600_000_000, True), (2**40, True)])
def test_warning_comes_at_ninety_percent(used: int, warns: bool) -> None:
    """Less than nine tenths of a limit is no news; that, and more than all of it, is."""
    assert warns == (MemoryAlarm(LIMIT).measure(used) is not None)


def test_warning_says_how_much_of_what_and_what_happens_beyond() -> None:
    """Use, share and limit are there in figures, and what sets the limit and what follows in words."""
    expected = (
        "Memory is running out: 3,700 MB (92%) of the 4,000 MB that control group /jobs (memory.max) allows are in "
        "use; beyond that somebody is killed"
    )

    assert expected == MemoryAlarm(LIMIT).measure(3_700_000_000)


def test_use_that_sways_is_one_crossing() -> None:
    """Once it was near the limit, it is so until it is clearly below; then it can come near again."""
    alarm = MemoryAlarm(LIMIT)
    shares = [0.89, 0.91, 0.89, 0.81, 0.79, 0.85, 0.9]

    assert [False, True, True, True, False, False, True] == [
        alarm.measure(round(share * LIMIT.most)) is not None for share in shares
    ]


@given(st.lists(st.integers(0, 2**50)), st.integers(0, 2**40))
def test_any_use_of_any_limit_can_be_measured(uses: list[int], most: int) -> None:
    """Whatever the figures, nothing is raised; a warning comes from 90 % on, and none below 80 %."""
    alarm = MemoryAlarm(MemoryLimit(most, "", ""))
    for used in uses:
        warns = alarm.measure(used) is not None
        if most and not CLEAR * most <= used < NEAR * most:
            assert (used >= NEAR * most) == warns
