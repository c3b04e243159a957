"""The queue of bytes that were read and not looked at: nothing is lost, and it counts what it holds."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.zeromq.unread import PIECE, Budget, UnreadBytes

SIZES = st.integers(1, PIECE) | st.integers(1, 100) | st.sampled_from([PIECE, PIECE - 1, PIECE // 2])


@given(st.lists(SIZES | st.none(), max_size=30))
def test_bytes_come_out_in_their_order_and_are_counted(steps: list[int | None]) -> None:
    """Whatever is put in and taken: the same bytes, no piece above its size, and the budget knows what is between."""
    budget = Budget(1)
    queue = UnreadBytes(budget)
    came, out = b"", b""
    for number, size in enumerate(steps):
        if size is not None:
            data = bytes([number]) * size
            came += data
            queue.put(data)
        elif queue.pieces:
            piece = queue.take()
            assert 0 < len(piece) <= PIECE
            out += piece

        assert len(came) - len(out) == budget.used
        assert bool(budget.used) == bool(queue.pieces)
    while queue.pieces:
        out += queue.take()

    assert (came, 0) == (out, budget.used)


def test_driblets_come_out_together() -> None:
    """As much as one piece is; what does not fit whole stays for the next."""
    queue = UnreadBytes(Budget(PIECE))
    sizes = [PIECE // 2, PIECE // 2, 1, PIECE, 1]
    for size in sizes:
        queue.put(bytes(size))

    assert [PIECE, 1, PIECE, 1] == [len(queue.take()) for _ in range(4)]


@pytest.mark.parametrize(("waiting", "expected"), [(9, True), (10, False), (11, False)])
def test_queue_has_room_below_its_limit(waiting: int, expected: bool) -> None:
    """From the limit on nothing more may come."""
    queue = UnreadBytes(Budget(10))
    queue.put(bytes(waiting))

    assert expected is queue.has_room


def test_limit_is_one_for_all_and_an_empty_queue_has_room() -> None:
    """A queue that is full stops the others growing too, but each may hold something: a reply passes a flood."""
    budget = Budget(10)
    full, other = UnreadBytes(budget), UnreadBytes(budget)
    full.put(bytes(10))
    empty_has_room = other.has_room
    other.put(b"x")

    assert (True, False, False) == (empty_has_room, other.has_room, full.has_room)


def test_queue_that_is_cleared_gives_back_what_it_held() -> None:
    """And nothing of the others'."""
    budget = Budget(10)
    gone, other = UnreadBytes(budget), UnreadBytes(budget)
    gone.put(bytes(3))
    gone.put(bytes(4))
    other.put(bytes(2))
    gone.clear()

    assert (2, False, True) == (budget.used, bool(gone.pieces), gone.has_room)
