"""What records add up to: which messages there are under which numbers, whatever was taken back or is missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.state.records import Head, Kind, Numbers, Record
from kallichore.state.replay import Replay, Run, add_range, clipped, moved, take_out


def record(
    serial: int,
    first: int,
    count: int = 0,
    *,
    generation: int = 0,
    kind: Kind = Kind.CHANGES,
    parts: dict[str, bytes] | None = None,
    urgent: Sequence[Numbers] = (),
    taken_back: Sequence[Sequence[Numbers]] = (),
) -> Record:
    """Return a record with so many messages of one byte."""
    parts = parts or {}
    sizes = [*map(len, parts.values())]
    head = Head(serial, generation, first, [1] * count, [*parts], sizes, urgent, taken_back)
    return Record(kind, head, memoryview(b"".join(parts.values()) + bytes(count)))


def first_record(count: int = 0, **more: object) -> Record:
    """Return what a log begins with."""
    return record(0, 0, count, kind=Kind.SNAPSHOT, **more)  # type: ignore[arg-type]


def replay_of(*records: Record) -> Replay:
    """Return what these records lead to, nothing of which is missing."""
    replay = Replay()
    problems = [problem for each in records for problem in replay.take(each)]

    assert problems == []
    return replay


# Numbers


@pytest.mark.parametrize(
    ("number", "gone", "expected"),
    [
        (1, [], 1),
        (1, [(5, 6)], 1),
        (5, [(5, 6)], 5),
        (6, [(5, 6)], 5),
        (7, [(2, 4)], 5),
        (3, [(2, 5)], 2),
        (9, [(0, 2), (3, 4), (8, 20)], 5),
    ],
)
def test_number_moves_down_by_what_is_gone_before_it(number: int, gone: list[Numbers], expected: int) -> None:
    """What is itself gone becomes the number of what follows."""
    assert moved(number, gone) == expected


def test_numbers_end_where_they_are_cut() -> None:
    """Those behind are left out."""
    assert clipped([(0, 2), (2, 5), (5, 9)], 4) == [(0, 2), (2, 4)]
    assert clipped([(0, 2), (4, 5)], 4) == [(0, 2)]
    assert clipped([(0, 4)], 4) == [(0, 4)]


@pytest.mark.parametrize(
    ("ranges", "added", "expected"),
    [
        ([], (0, 1), [(0, 1)]),
        ([(0, 2)], (2, 3), [(0, 3)]),
        ([(0, 2)], (3, 4), [(0, 2), (3, 4)]),
        ([(0, 2), (4, 6), (8, 9)], (9, 12), [(0, 2), (4, 6), (8, 12)]),
    ],
)
def test_range_that_follows_the_last_is_one_with_it(
    ranges: list[Numbers], added: Numbers, expected: list[Numbers]
) -> None:
    """Another stands apart."""
    add_range(ranges, added)

    assert ranges == expected


numbers = st.sets(st.integers(0, 20))
spans = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: (min(pair), max(pair)))


@given(numbers, spans)
def test_what_is_taken_out_of_ranges_is_gone(there: set[int], gone: Numbers) -> None:
    """What is behind it moves down, and no range is empty or could be one with the next."""
    ranges: list[Numbers] = []
    for number in sorted(there):
        add_range(ranges, (number, number + 1))
    take_out(ranges, gone)
    left = {moved(number, [gone]) for number in there if not gone[0] <= number < gone[1]}

    assert [number for each in ranges for number in range(*each)] == sorted(left)
    assert all(first < stop for first, stop in ranges)
    assert all(stop < first for (_, stop), (first, _) in pairwise(ranges))


# Records


@attrs.define
class Model:
    """A log that remembers each message by its place among all that were ever written."""

    numbers: dict[int, int] = attrs.field(factory=dict)
    """The places by the numbers that they have now."""
    urgent: set[int] = attrs.field(factory=set)
    end: int = 0
    place: int = 0
    generation: int = 0

    def take_back(self, gone: Sequence[Numbers]) -> None:
        """Forget messages, and move those behind them down."""
        lost = {number for each in gone for number in range(*each)}
        self.numbers = {moved(at, gone): place for at, place in self.numbers.items() if at not in lost}
        self.urgent = {moved(at, gone) for at in self.urgent - lost}
        self.end = moved(self.end, gone)
        self.generation += 1

    def add(self, first: int, count: int, urgent: Sequence[Numbers]) -> None:
        """Add messages."""
        self.numbers.update(zip(range(first, first + count), range(self.place, self.place + count), strict=True))
        self.urgent.update(number for each in urgent for number in range(*each))
        self.place += count
        self.end = first + count


gaps, counts = st.integers(0, 3), st.integers(0, 5)


@attrs.frozen
class Step:
    """A commit: what is taken back before it, how many numbers are left out, and its messages."""

    taken_back: list[tuple[int, int]]
    """Each time, the first number and how many; as far as there are so many."""
    gap: int
    count: int
    is_urgent: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=2),
        st.integers(0, 3),
        st.integers(0, 5),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


@given(STEPS)
def test_messages_have_the_numbers_that_they_were_given(steps: list[Step]) -> None:
    """Whatever is added with gaps, is urgent, and is taken back, once or more often in one record."""
    replay, model = Replay(), Model()
    for serial, step in enumerate(steps):
        generation, taken_back = model.generation, []
        for first, count in step.taken_back:
            taken_back.append(clipped([(first, first + count), (first + count + 1, first + 2 * count)], model.end))
            model.take_back(taken_back[-1])
        first, count = model.end + step.gap, step.count
        urgent = [(first, first + 1)] if count and step.is_urgent else []
        model.add(first, count, urgent)
        kind = Kind.CHANGES if serial else Kind.SNAPSHOT

        assert [] == replay.take(
            record(serial, first, count, generation=generation, kind=kind, urgent=urgent, taken_back=taken_back)
        )
    found = {run.first + at: run.place + at for run in replay.runs for at in range(run.count)}

    assert found == model.numbers
    assert [number for each in replay.urgent for number in range(*each)] == sorted(model.urgent)
    assert (replay.end, replay.place, replay.generation) == (model.end, model.place, model.generation)
    assert replay.first == min(found, default=model.end)


def test_log_without_records_begins_with_nothing() -> None:
    """Whoever goes on with it writes the first commit of all."""
    replay = Replay()

    assert (replay.first, replay.end, replay.serial, replay.generation, replay.place) == (0, 0, 0, 0, 0)
    assert (replay.has_begun, replay.parts, replay.runs, replay.urgent, replay.begins) == (False, {}, [], [], [])


def test_messages_in_a_row_are_one_run() -> None:
    """However many records they are in; where some are gone, or a number is left out, another begins."""
    replay = replay_of(
        first_record(2),
        record(1, 2, 3),
        record(2, 6, 1),
        record(3, 5, 1, taken_back=[[(3, 5)]]),
    )

    assert replay.runs == [Run(0, 0, 3), Run(4, 5, 2)]
    assert replay.serial == 4


def test_snapshot_has_all_parts_and_changes_those_that_changed() -> None:
    """Among changes an empty part is gone; what a snapshot does not have is no more."""
    replay = replay_of(
        first_record(parts={"a": b"1", "b": b"2"}),
        record(1, 0, parts={"a": b"", "c": b"3", "never": b""}),
    )

    assert replay.parts == {"b": b"2", "c": b"3"}

    replay.take(record(2, 0, kind=Kind.SNAPSHOT, parts={"c": b"4"}))

    assert replay.parts == {"c": b"4"}


def test_files_begin_where_their_first_messages_are_by_now() -> None:
    """What is taken back before them moves them down."""
    replay = Replay()
    replay.begin_file()
    replay.take(first_record(5))
    replay.begin_file()
    replay.take(record(1, 4, 1, taken_back=[[(1, 2)]]))
    replay.begin_file()

    assert replay.begins == [0, 4, 5]


# What is missing


def test_log_that_begins_in_the_middle_says_so() -> None:
    """Its parts are not complete; its messages have their numbers."""
    replay = Replay()

    assert replay.take(record(4, 7, 2, generation=2)) == ["what was before this is missing"]
    assert (replay.runs, replay.end, replay.serial, replay.generation) == ([Run(7, 0, 2)], 9, 5, 2)


@pytest.mark.parametrize(
    ("serial", "first", "told"),
    [
        (2, 3, ["1 commit before this is missing"]),
        (4, 3, ["3 commits before this are missing"]),
        (2, 4, ["1 commit before this is missing", "messages 3 to 3 are missing"]),
        (4, 9, ["3 commits before this are missing", "messages 3 to 8 are missing"]),
    ],
)
def test_commits_that_are_missing_are_counted(serial: int, first: int, told: list[str]) -> None:
    """And the numbers of their messages are told, if they had any. What is there keeps its own."""
    replay = replay_of(first_record(3, urgent=[(1, 2)]))

    assert replay.take(record(serial, first, 1)) == told
    assert {run.first: run.count for run in replay.runs} == ({0: 4} if first == 3 else {0: 3, first: 1})
    assert replay.urgent == [(1, 2)]


def test_what_a_record_takes_back_is_no_gap() -> None:
    """What is missing before it is told by the numbers that are left."""
    replay = replay_of(first_record(3))

    assert replay.take(record(2, 2, 1, taken_back=[[(0, 1)]])) == ["1 commit before this is missing"]
    assert replay.runs == [Run(0, 1, 3)]


@pytest.mark.parametrize(
    ("serial", "first", "generation"),
    [(2, 5, 1), (2, 2, 0), (0, 3, 0)],
    ids=["taken back meanwhile", "numbers that are taken", "an earlier commit"],
)
def test_messages_whose_numbers_are_not_certain_are_given_up(serial: int, first: int, generation: int) -> None:
    """Rather than that one comes out under another's number; what follows is certain."""
    replay = replay_of(first_record(3, urgent=[(1, 2)]))
    told = replay.take(record(serial, first, 2, generation=generation, urgent=[(first, first + 1)]))

    assert told == ["1 commit before this is missing", "messages 0 to 2 are given up: their numbers are not certain"]
    assert (replay.runs, replay.urgent, replay.end) == ([Run(first, 3, 2)], [(first, first + 1)], first + 2)


def test_nothing_is_said_to_be_given_up_where_nothing_was() -> None:
    """Messages are taken back that there were none of."""
    replay = replay_of(first_record(parts={"a": b"1"}))

    assert replay.take(record(2, 5, 1, generation=1)) == ["1 commit before this is missing"]
    assert (replay.runs, replay.parts) == ([Run(5, 0, 1)], {"a": b"1"})
