"""Whole numbers in a row, told by the first and the number behind: a thousand of them take no more room than two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

Runs = tuple[tuple[int, int], ...]
"""Numbers in their order, each run of them as its first and the number behind its last."""


def runs_of(numbers: Sequence[int]) -> Runs:
    """Return numbers as runs, in the order that they have."""
    if not numbers:
        return ()
    first, behind = numbers[0], numbers[0] + len(numbers)
    if all(map(int.__eq__, numbers, range(first, behind))):
        return ((first, behind),)
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return tuple(runs)


def numbers_in(runs: Iterable[Sequence[int]]) -> Iterator[int]:
    """Yield the numbers that runs stand for."""
    for first, behind in runs:
        yield from range(first, behind)
