"""How much of clients' messages is held: one sum for all, and nothing is left in it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.attach.gathering import Gathering
from kallichore.session.intake import LARGEST_MESSAGE, MOST_HELD, Intake, TooMuchError


def test_largest_message_of_widgets_fits() -> None:
    """2,000 MB in base64 is less than a message may have, and a message less than a server holds."""
    assert 2000 * (1 << 20) * 4 // 3 < LARGEST_MESSAGE < MOST_HELD


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.booleans()), max_size=40))
def test_sum_is_that_of_all_senders(steps: list[tuple[int, int, bool]]) -> None:
    """What is held is what the senders' portions are; what would be too much is refused and not counted."""
    intake = Intake(most=100)
    with intake.open() as a, intake.open() as b, intake.open() as c, intake.open() as d:
        portions = [a, b, c, d]
        for number, size, clears in steps:
            before = intake.held
            try:
                portions[number].add(size)
            except TooMuchError:
                assert before + size > 100
                assert before == intake.held
            if clears:
                portions[number].clear()
            assert sum(portion.size for portion in portions) == intake.held <= 100

    assert intake.held == 0


def test_pieces_become_a_message() -> None:
    """While it comes it counts, its every piece; when it is whole it does not."""
    intake = Intake()
    with intake.open() as portion:
        gathering = Gathering(portion)
        told = [gathering.add("a", False), gathering.add("", False)]
        while_it_comes = intake.held
        told += [gathering.add("b", True), gathering.add("c", True)]
        after = intake.held

    assert [None, None, "ab", "c"] == told
    assert while_it_comes > 1
    assert after == 0


def test_nothing_is_taken_behind_a_refusal() -> None:
    """What came is given up at once, and the rest of the message is not taken for one."""
    intake = Intake(most=1000)
    with intake.open() as other, intake.open() as portion:
        other.add(900)
        gathering = Gathering(portion)
        gathering.add("x", False)
        with pytest.raises(TooMuchError):
            gathering.add("x" * 100, False)
        held = intake.held
        rest = [gathering.add("x", False), gathering.add("x", True), gathering.add("y", True)]

    assert (900, [None] * 3, 1) == (held, rest, intake.refused)


def test_a_message_that_says_too_much_of_itself_counts_as_refused() -> None:
    """It is refused before anything of it is held."""
    intake = Intake()
    with intake.open() as portion:
        gathering = Gathering(portion)
        with pytest.raises(TooMuchError):
            gathering.refuse()
        told = gathering.add("x", True)

    assert (None, 0, 1) == (told, intake.held, intake.refused)
