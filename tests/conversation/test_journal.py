"""The journal: every message once and in order, or an honest count of those that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kallichore.conversation import journal as journal_module
from kallichore.conversation.journal import FORGET_AT_LEAST, Batch, Journal, Offsets, Overflow, Shift
from kallichore.session.overflow_file import OverflowFile

PLENTY = 1 << 20


@attrs.define
class MemoryOverflow:
    """An overflow in memory, which can be full like a disk.

    Args:
        is_full: Whether it takes nothing more.
    """

    is_full: bool = False
    data: bytes = attrs.field(default=b"", init=False)

    @property
    def size(self) -> int:
        """How many bytes of messages it holds."""
        return len(self.data)

    def push(self, payload: bytes) -> bool:
        """Add a message at the end, unless it is full."""
        if not self.is_full:
            self.data += payload
        return not self.is_full

    def read(self, skip: int, sizes: Sequence[int]) -> list[bytes]:
        """Return messages of these sizes."""
        ends = list(accumulate(sizes, initial=skip))
        return [self.data[start:end] for start, end in pairwise(ends)]

    def drop(self, size: int) -> None:
        """Forget the first bytes."""
        assert size <= len(self.data)
        self.data = self.data[size:]

    def cut(self, size: int) -> None:
        """Forget the last bytes."""
        assert size <= len(self.data)
        self.data = self.data[: len(self.data) - size]


def journal_of(
    *payloads: bytes, memory: int = PLENTY, file: int = PLENTY, keep: int = 0, overflow: Overflow | None = None
) -> Journal:
    """Return a journal to which these messages were appended."""
    journal = Journal(memory, file, overflow or MemoryOverflow(), keep)
    for payload in payloads:
        journal.extend([payload])
    return journal


def read_all(journal: Journal, position: int = 0) -> list[bytes]:
    """Return all messages from a position on, read batch by batch."""
    payloads: list[bytes] = []
    while position < journal.end:
        batch = journal.read(position, PLENTY, 1000)
        payloads += batch.payloads
        position = batch.next_position
    return payloads


def test_messages_are_numbered_from_zero() -> None:
    """The first message has number 0, the next 1; the end is the number to come."""
    journal = journal_of()
    journal.extend([b"a", b"b"])

    assert journal.end == 2
    assert Batch([b"a", b"b"], 2, 0) == journal.read(0, 100, 10)


def test_batch_holds_what_was_appended() -> None:
    """A reader gets the messages in order, and where to read on."""
    assert journal_of(b"a", b"b", b"c").read(1, PLENTY, 10) == Batch([b"b", b"c"], 3, 0)


def test_reading_forgets_nothing() -> None:
    """A message that was read but not released is read again: its delivery may have failed."""
    journal = journal_of(b"a", b"b")

    assert [journal.read(0, PLENTY, 10), journal.read(0, PLENTY, 10)] == [Batch([b"a", b"b"], 2, 0)] * 2


def test_reader_at_the_end_gets_nothing() -> None:
    """Where nothing is new a batch is empty and leads nowhere."""
    assert journal_of(b"a").read(1, PLENTY, 10) == Batch([], 1, 0)


def test_batch_is_bounded_by_count() -> None:
    """A batch has no more messages than asked for."""
    assert journal_of(b"a", b"b", b"c").read(0, PLENTY, 2) == Batch([b"a", b"b"], 2, 0)


def test_batch_is_bounded_by_bytes() -> None:
    """A batch ends before the message that would make it too large."""
    assert journal_of(b"aa", b"bb", b"cc").read(0, 5, 10) == Batch([b"aa", b"bb"], 2, 0)


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_batch_may_have_just_as_many_bytes_as_asked_for(memory: int) -> None:
    """In memory and in the overflow, and it is read in its turn."""
    batch = journal_of(b"aa", b"bb", b"cc", memory=memory).read(0, 4, 10)

    assert batch == Batch([b"aa", b"bb"], 2, 0)
    assert not batch.is_ahead


def test_exits_are_old_once_another_kernel_starts() -> None:
    """Not before, and not the exit of one that ends before it has said anything."""
    journal = journal_of()
    journal.note_exit(0)
    first = journal.old_exits
    journal.extend([b"exited"])
    journal.note_start()
    journal.note_exit(1)

    assert (first, journal.old_exits) == (set(), {0})


@pytest.mark.parametrize("memory", [PLENTY, 0])
def test_message_larger_than_a_batch_comes_alone(memory: int) -> None:
    """What is larger than the bound is delivered all the same, by itself."""
    assert journal_of(b"aaaa", b"b", memory=memory).read(0, 3, 10) == Batch([b"aaaa"], 1, 0)


def test_released_messages_are_forgotten() -> None:
    """What was delivered takes no space."""
    journal = journal_of(b"aa", b"b")
    journal.release(1)

    assert (journal.first, journal.needed, journal.memory_bytes, read_all(journal, 1)) == (1, 1, 1, [b"b"])


def test_release_of_what_is_gone_changes_nothing() -> None:
    """To release the same again, less, or more than there is, is harmless."""
    journal = journal_of(b"a", b"b", b"c")
    journal.release(2)
    journal.release(1)

    assert (journal.first, read_all(journal, 2)) == (2, [b"c"])

    journal.release(9)

    assert (journal.first, journal.needed) == (3, 3)


@pytest.mark.parametrize("memory", [PLENTY, 3])
def test_latest_released_messages_are_kept_for_those_who_come_back(memory: int) -> None:
    """Within its own limit, what everybody has can be read again; what is still needed does not count."""
    journal = journal_of(*(b"%d" % number for number in range(8)), memory=memory, keep=2)
    journal.release(6)

    assert (journal.first, read_all(journal, 4)) == (4, [b"4", b"5", b"6", b"7"])
    assert journal.read(0, PLENTY, 10).missed == 4


def test_kept_messages_make_room_before_needed_ones_move_out() -> None:
    """Memory is for what is still needed: what is only kept goes first, and is no loss."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", memory=4, keep=4, overflow=overflow)
    journal.release(2)
    journal.extend([b"cc"])

    assert (journal.first, journal.dropped, overflow.data) == (1, 0, b"")


def test_release_can_be_taken_back() -> None:
    """What turns out not to have arrived is needed again, and moves out of memory rather than being lost."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", memory=4, keep=4, overflow=overflow)
    journal.release(2)
    journal.release(0)
    journal.extend([b"cc"])

    assert (read_all(journal, 0), overflow.data) == ([b"aa", b"bb", b"cc"], b"aa")


@pytest.mark.parametrize(
    ("keep", "numbers", "left"),
    [(0, [1, 2], [b"", b""]), (2, [1, 2], [b"", b""]), (3, [1], [b"", b"ccc"]), (5, [], [b"bb", b"ccc"])],
)
def test_what_nobody_waits_for_is_emptied_where_it_is(keep: int, numbers: list[int], left: list[bytes]) -> None:
    """Others before and behind it stay, its bytes count no more, and the latest of it are kept."""
    journal = journal_of(b"a", b"bb", b"ccc", b"dddd", keep=keep)
    emptied = journal.empty([1, 2])

    assert numbers == emptied
    assert [b"a", *left, b"dddd"] == list(journal.read(0, 100, 100).payloads)
    assert 5 + sum(map(len, left)) == journal.memory_bytes


def test_journal_overflows_and_releases_with_empty_messages_among_others() -> None:
    """What is moved to the overflow is found there again, and nothing is counted twice."""
    journal = journal_of(b"aaaa", b"bbbb", b"cccc", memory=12)
    journal.empty([1])
    journal.extend([b"dddd", b"eeeeee"])
    said = read_all(journal)
    journal.release(3)

    assert [b"aaaa", b"", b"cccc", b"dddd", b"eeeeee"] == said
    assert ([b"dddd", b"eeeeee"], 10) == (read_all(journal, 3), journal.memory_bytes)


def test_what_has_left_memory_is_not_emptied() -> None:
    """It is in a file, where nothing is changed."""
    journal = journal_of(b"aaa", b"bbb", memory=4)

    assert ([], [1]) == (journal.empty([0]), journal.empty([1]))
    assert [b"aaa", b""] == read_all(journal)


def test_everything_released_is_nothing_undelivered() -> None:
    """With all delivered the journal is empty and goes on counting."""
    journal = journal_of(b"a", b"b")
    journal.release(2)

    assert (journal.first, journal.end, journal.memory_bytes) == (2, 2, 0)


def test_older_messages_move_out_of_memory() -> None:
    """Beyond the memory limit the oldest go to the overflow, in order, and are read from there."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", b"cc", memory=3, overflow=overflow)

    assert (overflow.data, journal.memory_bytes) == (b"aabb", 2)
    assert read_all(journal) == [b"aa", b"bb", b"cc"]


def test_journal_within_its_memory_leaves_the_overflow_alone() -> None:
    """A session that stays within memory needs no file."""
    overflow = MemoryOverflow()
    journal_of(b"aa", b"b", memory=3, overflow=overflow)

    assert overflow.data == b""


def test_release_reaches_through_the_overflow_into_memory() -> None:
    """Delivered messages are forgotten wherever they are."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", b"c", b"d", memory=2, overflow=overflow)
    journal.release(3)

    assert (overflow.data, journal.memory_bytes, journal.first) == (b"", 1, 3)


def test_oldest_are_dropped_when_all_is_full() -> None:
    """Beyond both limits the oldest messages go, and a reader is told how many."""
    journal = journal_of(b"aa", b"bb", b"cc", b"dd", memory=2, file=4)

    assert (journal.read(0, PLENTY, 10), journal.dropped) == (Batch([b"bb", b"cc"], 3, 1), 1)


def test_reader_behind_the_gap_misses_nothing() -> None:
    """A reader that has what was dropped is told of no gap."""
    journal = journal_of(b"aa", b"bb", b"cc", b"dd", memory=2, file=4)

    assert journal.read(1, PLENTY, 10).missed == 0


def test_release_behind_the_gap_is_harmless() -> None:
    """A batch may be delivered after its messages were dropped: what is newer stays."""
    journal = journal_of(b"aa", b"bb", memory=2, file=2)
    journal.extend([b"cc"])
    journal.release(1)

    assert (journal.first, journal.needed, read_all(journal, 1)) == (1, 1, [b"bb", b"cc"])


def test_message_larger_than_everything_is_a_gap() -> None:
    """A message that fits nowhere is dropped with all before it, so that the gap is one, and counted."""
    journal = journal_of(b"a", b"b" * 9, b"c", memory=2, file=4)

    assert (journal.read(0, PLENTY, 10), journal.dropped) == (Batch([b"c"], 3, 2), 2)


def test_gap_with_nothing_behind_it_is_told_too() -> None:
    """Where all is gone, a reader still learns how many it misses, and then there is nothing more to say."""
    journal = journal_of(b"a" * 9, memory=2, file=4)
    batch = journal.read(0, PLENTY, 10)

    assert (journal.end, batch) == (1, Batch([], 1, 1))


def test_disk_that_is_full_is_a_gap() -> None:
    """What the overflow does not take is dropped and counted; later messages follow in order."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", memory=2, overflow=overflow)
    overflow.is_full = True
    journal.extend([b"cc"])
    overflow.is_full = False
    journal.extend([b"dd"])

    assert journal.read(0, PLENTY, 10) == Batch([b"cc"], 3, 2)
    assert read_all(journal, 3) == [b"dd"]


def test_no_file_is_a_bounded_memory() -> None:
    """With a file limit of zero the oldest are dropped at the memory limit."""
    overflow = MemoryOverflow()
    journal = journal_of(b"aa", b"bb", b"cc", memory=4, file=0, overflow=overflow)

    assert (journal.read(0, PLENTY, 10), overflow.data) == (Batch([b"bb", b"cc"], 3, 1), b"")


# Numbers that are forgotten


@pytest.mark.parametrize(
    ("count", "first", "remembered"),
    [
        (FORGET_AT_LEAST, FORGET_AT_LEAST - 1, FORGET_AT_LEAST),
        (FORGET_AT_LEAST, FORGET_AT_LEAST, 0),
        (2 * FORGET_AT_LEAST, FORGET_AT_LEAST, 2 * FORGET_AT_LEAST),
        (2 * FORGET_AT_LEAST + 1, FORGET_AT_LEAST + 1, FORGET_AT_LEAST),
    ],
)
def test_numbers_are_forgotten_when_they_are_many_and_most(count: int, first: int, remembered: int) -> None:
    """Each such step moves the rest."""
    offsets = Offsets()
    offsets.extend([b"x"] * count)
    offsets.forget(first)

    assert len(offsets) == remembered


def test_sizes_are_known_behind_what_was_forgotten() -> None:
    """Of the messages that are left, each by its number, and after a second step too."""
    offsets = Offsets()
    sizes = [number % 7 for number in range(4 * FORGET_AT_LEAST)]
    added = offsets.extend([b"x" * size for size in sizes])
    for first in (3 * FORGET_AT_LEAST, 4 * FORGET_AT_LEAST - 10):
        offsets.forget(first)
    end = len(sizes)
    more = offsets.extend([b"12345", b""])

    assert (sum(sizes), 5) == (added, more)
    assert sum(sizes[-3:]) + 5 == offsets.between(end - 3, end + 2)
    assert [*sizes[-3:], 5, 0] == offsets.sizes(end - 3, end + 2, 1000)
    assert sizes[-3:] == offsets.sizes(end - 3, end, 1000)
    assert sizes[-3:-1] == offsets.sizes(end - 3, end, sum(sizes[-3:-1]))
    assert end - 2 == offsets.cut(end - 9, end, sum(sizes[-2:]))
    assert end - 1 == offsets.cut(end - 9, end, sum(sizes[-2:]) - 1)
    assert end - 9 == offsets.cut(end - 9, end, 1000)


@pytest.mark.parametrize("memory", [PLENTY, 50])
@pytest.mark.parametrize("keep", [0, 25])
def test_journal_goes_on_where_many_numbers_were_forgotten(memory: int, keep: int) -> None:
    """Messages come in their order, in memory and from the overflow, and the space for them is counted right."""
    overflow = MemoryOverflow()
    journal = Journal(memory, PLENTY, overflow, keep)
    payloads = [b"%d" % (number % 1000) for number in range(5 * FORGET_AT_LEAST)]
    for start in range(0, len(payloads), 100):
        journal.extend(payloads[start : start + 100])
        journal.release(start + 50)

        assert journal.memory_bytes + overflow.size == sum(map(len, payloads[journal.first : start + 100]))
        assert payloads[start + 50 : start + 100] == read_all(journal, start + 50)
        assert sum(map(len, payloads[journal.first : start + 50])) <= keep
    assert len(journal._offsets) < 3 * FORGET_AT_LEAST


def test_journal_that_drops_what_is_old_forgets_its_numbers() -> None:
    """Also where nobody ever reads."""
    journal = journal_of(memory=10, file=0)
    for _ in range(5 * FORGET_AT_LEAST // 100):
        journal.extend([b"x"] * 100)

    assert len(journal._offsets) < 2 * FORGET_AT_LEAST + 100
    assert read_all(journal, journal.first) == [b"x"] * 10


# Urgent messages, and exits


def test_urgent_messages_are_found_by_their_numbers() -> None:
    """From a position on, in order, as long as they are there and needed."""
    journal = journal_of(b"a", keep=PLENTY)
    for is_urgent in (True, False, True):
        journal.extend([b"b", b"c"], urgent=is_urgent)
    found = [journal.urgent_after(position) for position in (0, 1, 2, 3, 6, 7)]
    journal.release(2)

    assert [[1, 2, 5, 6], [1, 2, 5, 6], [2, 5, 6], [5, 6], [6], []] == found
    assert journal.urgent_after(0) == [2, 5, 6]


def test_urgent_messages_that_were_dropped_are_not_found() -> None:
    """They are in the gap."""
    journal = journal_of(memory=2, file=0)
    journal.extend([b"a", b"b", b"c"], urgent=True)

    assert journal.urgent_after(0) == [1, 2]


def test_exit_is_old_when_the_next_kernel_starts() -> None:
    """That of the latest kernel is not, nor that of one that could not be started."""
    journal = journal_of(b"output")
    journal.note_exit(1)
    journal.extend([b"exited"])
    first = journal.old_exits
    journal.note_start()
    journal.note_exit(journal.end + 1)
    journal.extend([b"starting", b"exited"])

    assert (set(), {1}, [1, 3]) == (first, journal.old_exits, journal.exits)


def test_exits_are_forgotten_with_their_messages() -> None:
    """A session may have many kernels."""
    journal = journal_of()
    for _ in range(3):
        journal.note_exit(journal.end)
        journal.extend([b"exited"])
    journal.release(1)
    journal.note_exit(journal.end)

    assert journal.exits == [1, 2, 3]


def taken_back(flags: Sequence[bool]) -> list[range]:
    """Return the numbers with a flag, in order, as ranges; some of one number, some of more."""
    return [range(number, number + 1) for number, flag in enumerate(flags) if flag]


def all_of(journal: Journal) -> list[bytes]:
    """Return all that is in a journal."""
    payloads: list[bytes] = []
    while len(payloads) < journal.end - journal.first:
        payloads += journal.read(journal.first + len(payloads), 1 << 10, 3).payloads
    return payloads


@given(
    sizes=st.lists(st.integers(0, 30), max_size=30),
    memory=st.sampled_from([20, 60, PLENTY]),
    file=st.sampled_from([0, 50, PLENTY]),
    data=st.data(),
)
def test_what_is_taken_back_was_never_there(sizes: list[int], memory: int, file: int, data: st.DataObject) -> None:
    """What stays is there in order, with its urgent messages and exits; what comes later follows it."""
    names = [(b"%d." % number * 30)[:size] for number, size in enumerate(sizes)]
    marks = data.draw(st.lists(st.sampled_from(["", "urgent", "exit"]), min_size=len(names), max_size=len(names)))
    gone = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    journal = journal_of(memory=memory, file=file)
    for name, mark in zip(names, marks, strict=True):
        if mark == "exit":
            journal.note_exit(journal.end)
        journal.extend([name], urgent=mark == "urgent")
    first, dropped = journal.first, journal.dropped
    stays = [number for number in range(first, len(names)) if not gone[number]]
    behind = sum(len(names[number]) for number in stays if True in gone[first : number + 1])
    shift = journal.take_back(taken_back(gone))
    if behind > memory:
        assert () == shift.gone
        return
    journal.extend([b"later"])

    assert [*(names[number] for number in stays), b"later"][-len(all_of(journal)) :] == all_of(journal)
    if journal.dropped == dropped:
        assert first == journal.first
        assert len(stays) + 1 == journal.end - journal.first
    remain = [number for number in stays if shift(number) >= journal.first]
    assert [first + stays.index(number) for number in remain] == [shift(number) for number in remain]
    urgent = [shift(number) for number in remain if marks[number] == "urgent"]
    assert urgent == journal.urgent_after(journal.first)
    exits = [shift(number) for number in stays if marks[number] == "exit"]
    assert exits == [number for number in journal.exits if number >= first]
    assert sum(map(len, all_of(journal))) == journal.memory_bytes + journal.overflow.size
    assert journal.memory_bytes <= memory
    assert journal.overflow.size <= file


def test_numbers_behind_what_is_gone_are_smaller() -> None:
    """Each number goes down by what is gone before it; one that is gone becomes that of the one behind."""
    shift = Shift((range(2, 4), range(6, 7)))

    assert [0, 1, 2, 2, 2, 3, 4, 4, 5] == [shift(number) for number in range(9)]
    assert [2, 3, 6] == [number for number in range(9) if shift.has(number)]


def test_latest_start_and_what_is_needed_follow() -> None:
    """An exit before the latest start is old news also after something between them is gone."""
    journal = journal_of(b"a", b"b")
    journal.release(1)
    journal.note_exit(2)
    journal.extend([b"exited", b"c"])
    journal.note_start()
    journal.extend([b"d"])
    journal.take_back([range(1, 2), range(3, 4)])

    assert ({1}, 1, 3) == (journal.old_exits, journal.needed, journal.end)
    journal.note_exit(3)
    journal.extend([b"exited"])
    assert {1} == journal.old_exits


def test_nothing_taken_back_changes_nothing() -> None:
    """Numbers that are gone already, and none at all, leave the journal alone."""
    journal = journal_of(b"a", b"b", b"c")
    journal.release(2)

    assert [()] * 3 == [journal.take_back(numbers).gone for numbers in ([], [range(1)], [range(2)])]
    assert [b"c"] == all_of(journal)


def test_more_than_fits_into_memory_is_not_written_anew() -> None:
    """A message before much that stays is left where it is; one before as much as fits is not."""
    journal = journal_of(b"gone", b"x" * 10, b"y" * 10, memory=20)
    assert (range(1),) == journal.take_back([range(1)]).gone

    journal = journal_of(b"gone", b"x" * 10, b"y" * 11, memory=20)
    assert () == journal.take_back([range(1)]).gone
    assert [b"gone", b"x" * 10, b"y" * 11] == all_of(journal)


class JournalMachine(RuleBasedStateMachine):
    """A reader that takes any batches at any time, and releases them when it likes, from a journal under pressure.

    The model is the list of all messages. What is still there must be the end of it, within the limits, and as much as
    they allow; what is gone was delivered, or is counted.
    """

    memory_limit = 40
    file_limit = 100
    keep_limit = 0

    def __init__(self) -> None:
        super().__init__()
        self.overflow = self.make_overflow()
        self.journal = Journal(self.memory_limit, self.file_limit, self.overflow, self.keep_limit)
        self.appended: list[bytes] = []
        self.position = 0
        self.delivered = 0
        self.missed = 0
        self.received: list[int] = []

    def make_overflow(self) -> Overflow:
        """Return the overflow that this journal has."""
        return MemoryOverflow()

    def disk_is_full(self) -> bool:
        """Return whether the overflow takes nothing."""
        return False

    def size(self, first: int, end: int | None = None) -> int:
        """Return the bytes of some messages."""
        return sum(map(len, self.appended[first:end]))

    @rule(sizes=st.lists(st.integers(0, 20) | st.sampled_from([41, 99, 101, 150]), min_size=1, max_size=12))
    def append(self, sizes: list[int]) -> None:
        """Messages come in, each with a text of its own; some are larger than a limit."""
        batch = [(b"%d." % number * size)[:size] for number, size in enumerate(sizes, len(self.appended))]
        first, dropped = self.journal.first, self.journal.dropped
        self.appended += batch
        self.journal.extend(batch)
        lost = range(max(first, self.journal.needed), self.journal.first)

        assert self.journal.end == len(self.appended)
        assert self.journal.dropped - dropped == len(lost)
        # From the latest that was lost on they were too many for memory, and for a disk that takes any.
        assert not lost or self.size(lost[-1]) > self.memory_limit
        assert not lost or self.disk_is_full() or self.size(lost[-1]) > self.file_limit

    @rule(max_bytes=st.integers(1, 200), max_messages=st.integers(1, 20))
    def read(self, max_bytes: int, max_messages: int) -> None:
        """The reader takes a batch and goes on behind it."""
        batch = self.journal.read(self.position, max_bytes, max_messages)
        first = self.position + batch.missed
        numbers = range(first, first + len(batch.payloads))

        assert list(batch.payloads) == [self.appended[number] for number in numbers]
        assert batch.next_position == numbers.stop
        assert len(batch.payloads) <= max_messages
        assert sum(map(len, batch.payloads)) <= max_bytes or len(batch.payloads) == 1
        assert batch.next_position > self.position or self.position == len(self.appended)

        self.received += numbers
        self.missed += batch.missed
        self.position = batch.next_position

    @precondition(lambda self: self.position)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Some of what was read is delivered; or less than before, where it turns out that it did not arrive."""
        self.delivered = data.draw(st.integers(0, self.position))
        first, dropped = self.journal.first, self.journal.dropped
        self.journal.release(self.delivered)
        kept = self.journal.first

        assert (self.journal.needed, self.journal.dropped) == (self.delivered, dropped)
        # Of what is delivered, the latest are kept, as many as the limit allows.
        assert kept >= first
        assert self.size(kept, self.delivered) <= self.keep_limit
        assert kept == first or self.size(kept - 1, self.delivered) > self.keep_limit

    @precondition(lambda self: self.position > self.delivered)
    @rule()
    def reconnect(self) -> None:
        """Another reader comes: it begins where the delivered messages end."""
        self.position = min(max(self.delivered, self.journal.first), self.position)
        self.received = [number for number in self.received if number < self.position]
        self.missed = self.position - len(self.received)

    @invariant()
    def every_number_is_received_or_missed(self) -> None:
        """Nothing comes twice, nothing out of order, nothing is gone without being counted."""
        assert self.received == sorted(set(self.received))
        assert len(self.received) + self.missed == self.position

    @invariant()
    def bounds_hold(self) -> None:
        """Neither memory nor the file ever holds more than its limit, and what they hold is what is not gone."""
        assert self.journal.memory_bytes <= self.memory_limit
        assert self.overflow.size <= self.file_limit
        assert self.journal.memory_bytes + self.overflow.size == sum(map(len, self.appended[self.journal.first :]))


class KeepingJournalMachine(JournalMachine):
    """The same with a journal that keeps some of what was delivered."""

    keep_limit = 30


class JournalOnAFullDiskMachine(KeepingJournalMachine):
    """The same with a disk that is full at times."""

    def make_overflow(self) -> Overflow:
        """Return an overflow that can be full."""
        self.disk = MemoryOverflow()
        return self.disk

    def disk_is_full(self) -> bool:
        """Return whether the overflow takes nothing."""
        return self.disk.is_full

    @rule()
    def fill_or_clear_the_disk(self) -> None:
        """Somebody else takes the last space, or gives it back."""
        self.disk.is_full = not self.disk.is_full


class ForgetfulJournalMachine(KeepingJournalMachine):
    """The same with a journal that forgets numbers all the time."""

    def __init__(self) -> None:
        super().__init__()
        journal_module.FORGET_AT_LEAST = 2

    def teardown(self) -> None:
        """Let it be as it was."""
        journal_module.FORGET_AT_LEAST = FORGET_AT_LEAST


class JournalInAFileMachine(KeepingJournalMachine):
    """The same with a real file."""

    @initialize()
    def begin_with_an_empty_file(self) -> None:
        """An overflow is empty at first."""
        assert self.overflow.size == 0

    def make_overflow(self) -> Overflow:
        """Return an overflow that keeps its messages in a file."""
        self.file = OverflowFile()
        return self.file

    def teardown(self) -> None:
        """Close the file."""
        self.file.close()


def bounded(machine: type[JournalMachine], most: int) -> Any:
    """Return the test of a machine, with so many runs."""
    machine.TestCase.settings = settings(machine.TestCase.settings, max_examples=most)
    return machine.TestCase


TestJournalMachine = bounded(JournalMachine, 50)
TestKeepingJournalMachine = bounded(KeepingJournalMachine, 50)
TestForgetfulJournalMachine = bounded(ForgetfulJournalMachine, 50)
TestJournalOnAFullDiskMachine = bounded(JournalOnAFullDiskMachine, 50)
# The file changes nothing that the journal decides; fewer runs are enough to see that it keeps what it is given.
TestJournalInAFileMachine = bounded(JournalInAFileMachine, 30)


def long_lived(*payloads: bytes) -> Journal:
    """Return a journal with these messages, behind so many that their beginnings were forgotten."""
    journal = journal_of()
    journal.extend([b"x"] * 5000)
    journal.release(5000)
    journal.extend(payloads)
    return journal


def test_what_follows_messages_that_were_taken_back_is_found_in_the_overflow() -> None:
    """Where it begins there is known by the sizes of all before it."""
    journal = long_lived(b"a", b"bbb", b"cc")
    shift = journal.take_back([range(5001, 5002)])
    journal.memory_limit = 0
    journal.extend([b"dddd", b"e"])

    assert read_all(journal, 5000) == [b"a", b"cc", b"dddd", b"e"]
    assert [shift(5000), shift(5002)] == [5000, 5001]


def test_what_follows_messages_that_are_empty_now_is_found_in_the_overflow() -> None:
    """They have their numbers still, and no bytes."""
    journal = long_lived(b"a", b"bbb", b"cc")
    emptied = journal.empty([5001])
    journal.memory_limit = 0
    journal.extend([b"dddd", b"e"])

    assert emptied == [5001]
    assert read_all(journal, 5000) == [b"a", b"", b"cc", b"dddd", b"e"]


def test_what_has_left_memory_is_not_emptied_and_nothing_in_its_place() -> None:
    """It was to be kept a while, and meanwhile moved out."""
    journal = journal_of(b"aa", b"bb", memory=4, keep=2)
    first = journal.empty([0])
    journal.extend([b"cc"])
    second = journal.empty([1])

    assert (first, second) == ([], [])
    assert read_all(journal) == [b"aa", b"bb", b"cc"]


def test_what_is_needed_follows_what_was_taken_back() -> None:
    """It is the same message as before."""
    journal = journal_of(b"a", b"b", b"c", keep=PLENTY)
    journal.release(2)
    journal.take_back([range(1)])

    assert (journal.needed, read_all(journal)) == (1, [b"b", b"c"])


# More in memory, for somebody who is about to take it


def test_allowance_keeps_more_in_memory() -> None:
    """Up to its size beyond the limit; what is more than that leaves memory, oldest first."""
    overflow = MemoryOverflow()
    journal = journal_of(memory=4, overflow=overflow)
    journal.allow(2)
    for payload in (b"aa", b"bb", b"cc"):
        journal.extend([payload])
    within = overflow.size
    journal.extend([b"d"])

    assert (0, 2) == (within, overflow.size)
    assert [b"aa", b"bb", b"cc", b"d"] == read_all(journal)


def test_allowance_that_ends_lets_memory_go_at_once() -> None:
    """Nobody takes it any more: it waits in the file, and nothing is lost."""
    overflow = MemoryOverflow()
    journal = journal_of(memory=4, overflow=overflow)
    journal.allow(100)
    journal.extend([b"aa", b"bb", b"cc", b"dd"])
    journal.allow(0)

    assert (4, 4) == (overflow.size, journal.memory_bytes)
    assert [b"aa", b"bb", b"cc", b"dd"] == read_all(journal)


def test_bytes_from_a_number_on() -> None:
    """Of what is still there, in memory or not."""
    journal = journal_of(b"aaaa", b"bbb", b"cc", b"d", memory=3)
    journal.release(1)

    assert [6, 6, 3, 1, 0] == [journal.bytes_from(number) for number in range(5)]
