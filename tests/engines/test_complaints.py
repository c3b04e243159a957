"""Lines for a log: one at most in a while, and all are counted."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, strategies as st

from kallichore.engines.complaints import INTERVAL, Complaints


def test_those_that_are_not_written_are_counted() -> None:
    """The first is written; those of the next minute are told as a number by the one behind it."""
    complaints = Complaints()
    said = [complaints.add("no", now) for now in (5.0, 6.0, 64.9, 65.0, 125.0)]

    assert ["no", None, None, "no (and 2 more since the last such line)", "no"] == said


@given(st.lists(st.floats(0, 1000), max_size=40).map(sorted))
def test_none_is_lost_and_lines_are_apart(times: list[float]) -> None:
    """Whenever they come, lines are a minute apart, and they account for all but what is still to be told."""
    complaints = Complaints()
    said = [(now, complaints.add("no", now)) for now in times]
    written = [(now, text) for now, text in said if text is not None]
    told = sum(1 + int((re.findall(r"\d+", text) or ["0"])[0]) for _, text in written)
    last = next((place for place in reversed(range(len(said))) if said[place][1] is not None), -1)

    assert last + 1 == told
    assert all(later[0] - earlier[0] >= INTERVAL for earlier, later in pairwise(written))
