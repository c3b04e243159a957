"""How long a kernel is not listened to, so that clients can take what it said."""

from __future__ import annotations

import pytest

from kallichore.session.life import LARGE, MOST_LARGE, SLOWEST, patience_for


@pytest.mark.parametrize(
    ("sizes", "counted"),
    [
        ([LARGE], LARGE),
        ([10 * LARGE], 10 * LARGE),
        ([2 * LARGE, 100, LARGE], 3 * LARGE + 100),
        ([2 * LARGE, 100, 100], 0),
        ([LARGE - 1], 0),
        ([100], 0),
        ([100, 100 * LARGE], 0),
        ([LARGE] * MOST_LARGE, MOST_LARGE * LARGE),
        ([LARGE] * (MOST_LARGE + 1), 0),
    ],
)
def test_clients_are_waited_for_by_the_size_of_what_is_large(sizes: list[int], counted: int) -> None:
    """Small messages wait for nobody: the kernel's queue is short for them. The bytes of the last frames count."""
    batch = [[b"topic", bytes(size)] for size in sizes]

    assert counted / SLOWEST == patience_for(batch)
