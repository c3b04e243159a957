"""Numbers in a row are told by two."""

from __future__ import annotations

from hypothesis import given, strategies as st

from kallichore.conversation.runs import numbers_in, runs_of


@given(st.lists(st.integers(0, 9)))
def test_numbers_come_back_in_their_order(numbers: list[int]) -> None:
    """Whatever they are, be they twice the same."""
    assert numbers == list(numbers_in(runs_of(numbers)))


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))
def test_numbers_in_a_row_are_one_run(first: int, one: int, other: int) -> None:
    """However many; a gap begins another."""
    numbers = [*range(first, first + one), *range(first + one + 1, first + one + 1 + other)]

    assert ((first, first + one),) == runs_of(numbers[:one])
    assert ((first, first + one), (first + one + 1, first + one + 1 + other)) == runs_of(numbers)


def test_no_numbers_are_no_runs() -> None:
    """Nothing is told."""
    assert runs_of([]) == ()
