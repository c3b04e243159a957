"""What a kernel used lately: kept in steps, for some minutes, and never more than that."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, strategies as st

from kallichore.conversation.usage_record import KEPT, MOST, STEP, UsageRecord

EMPTY = {"time": [], "memory_bytes": [], "cpu_percent": []}

EARLY = 1_800_000_000_000


def record_of(*times: int) -> UsageRecord:
    """Return a record of samples that were taken at these times, each with figures of its own."""
    record = UsageRecord()
    for number, time in enumerate(times):
        record.add(time, 1000 + number, number)
    return record


def test_nothing_is_kept_of_nothing() -> None:
    """Where nothing was sampled the record is empty."""
    record = UsageRecord()

    assert (0, EMPTY) == (len(record), record.columns(EARLY))


def test_samples_come_back_with_their_figures() -> None:
    """Each sample has its time, its memory and its CPU, oldest first."""
    record = UsageRecord()
    record.add(EARLY, 1 << 40, 250)
    record.add(EARLY + STEP, 5, 0)
    expected = {"time": [EARLY, EARLY + STEP], "memory_bytes": [1 << 40, 5], "cpu_percent": [250, 0]}

    assert expected == record.columns(EARLY + STEP)
    assert 2 == len(record)


def test_what_comes_too_soon_is_left_out() -> None:
    """Of samples that follow each other faster than the step, the first of each step stays."""
    assert [0, STEP, 2 * STEP + 1] == record_of(0, 1, STEP - 1, STEP, 2 * STEP - 1, 2 * STEP + 1).columns(0)["time"]


def test_what_is_old_is_not_told() -> None:
    """After some minutes a sample is history: also where no other has come since, as when sampling was turned off."""
    record = record_of(EARLY, EARLY + STEP)

    assert [EARLY, EARLY + STEP] == record.columns(EARLY + KEPT)["time"]
    assert {"time": [EARLY + STEP], "memory_bytes": [1001], "cpu_percent": [1]} == record.columns(EARLY + KEPT + 1)
    assert EMPTY == record.columns(EARLY + STEP + KEPT + 1)


def test_clock_that_was_put_back_begins_a_new_record() -> None:
    """What was kept with times that are still to come is forgotten, and later samples are kept as ever."""
    record = record_of(EARLY + 50 * STEP, EARLY, EARLY + STEP)

    assert [EARLY, EARLY + STEP] == record.columns(EARLY + STEP)["time"]
    assert [0, STEP] == record_of(0, STEP, STEP).columns(0)["time"]


@given(st.lists(st.integers(0, 3 * STEP), max_size=3 * MOST))
def test_record_is_bounded_and_in_steps(pauses: list[int]) -> None:
    """However samples come, no more are kept than there are steps in the time, and no two are nearer than a step."""
    now, record = EARLY, UsageRecord()
    for pause in pauses:
        now += pause
        record.add(now, 0, 0)
    times = record.columns(now)["time"]

    assert len(record) <= MOST
    assert all(later - earlier >= STEP for earlier, later in pairwise(times))


def test_as_many_are_kept_as_fit() -> None:
    """With a sample in each step, the record is full, and the newest are in it."""
    count = MOST + 10
    record = record_of(*(EARLY + number * STEP for number in range(count)))
    columns = record.columns(EARLY + count * STEP)

    assert MOST == len(record)
    assert list(range(10, count)) == columns["cpu_percent"]
