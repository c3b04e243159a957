"""The journal: what a session has to tell its client, numbered, until it is delivered. [pure]

Messages that nobody takes wait here: in memory up to a limit, the older ones beyond it in an overflow (a file, see
`kallichore.session.overflow_file`), and when that is full too the oldest are dropped. Who reads on from a number that
is no longer there is told how many are missing: an honest gap, never a silent one.

What a kernel says comes in batches, and is added as such: 0.1 µs a message.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, takewhile
from typing import NamedTuple, Protocol

import attrs
import msgspec

from kallichore.conversation.runs import Runs


class SavedJournal(msgspec.Struct, omit_defaults=True):
    """What a journal knows of its messages, as JSON."""

    exits: tuple[int, ...] = ()
    latest_start: int = 0
    dropped: int = 0
    answered: tuple[tuple[int, int], ...] = ()
    emptied: Runs = ()


class Overflow(Protocol):
    """Where older messages go: a queue of bytes, first in, first out. The journal knows where each begins."""

    @property
    def size(self) -> int:
        """How many bytes of messages it holds."""

    def push(self, payload: bytes) -> bool:
        """Add a message at the end; False if it could not be kept (no space)."""

    def read(self, skip: int, sizes: Sequence[int]) -> list[bytes]:
        """Return messages of these sizes, behind ``skip`` bytes of others."""

    def drop(self, size: int) -> None:
        """Forget so many bytes at the start, which are whole messages."""

    def cut(self, size: int) -> None:
        """Forget so many bytes at the end, which are whole messages."""


class Batch(NamedTuple):
    """Messages to be delivered together."""

    payloads: Sequence[bytes]
    """Empty ones stand for messages that were delivered ahead of others, or to whom they answer."""
    next_position: int
    """Where to read on, and up to where to release once they are delivered."""
    missed: int
    """How many messages between the position that was asked for and the first of these were dropped."""
    is_ahead: bool = False
    """Whether these are urgent messages from beyond ``next_position``."""


FORGET_AT_LEAST = 4096
"""Messages that are forgotten in one step, as each such step moves the rest."""


class Offsets:
    """How many bytes of messages came before each number: a sum in one step, wherever it begins."""

    def __init__(self, first: int = 0) -> None:
        self._offsets = array("Q", [0])
        self._forgotten = first

    def __len__(self) -> int:
        """How many messages are remembered."""
        return len(self._offsets) - 1

    def extend(self, payloads: Sequence[bytes]) -> int:
        """Add messages, and return how many bytes they have."""
        before = self._offsets.pop()
        self._offsets.extend(accumulate(map(len, payloads), initial=before))
        return self._offsets[-1] - before

    def between(self, start: int, end: int) -> int:
        """Return the bytes of the messages from number ``start`` up to ``end``."""
        return self._offsets[end - self._forgotten] - self._offsets[start - self._forgotten]

    def sizes(self, start: int, end: int, most_bytes: int) -> list[int]:
        """Return the sizes of the messages from number ``start`` on: at least one, before ``end``, and about so many
        bytes in all.
        """
        offsets = self._offsets
        first = start - self._forgotten
        behind = bisect_right(offsets, offsets[first] + most_bytes, first + 1, end - self._forgotten + 1) - 1
        behind = max(behind, first + 1)
        return [offsets[index + 1] - offsets[index] for index in range(first, behind)]

    def cut(self, start: int, end: int, most_bytes: int) -> int:
        """Return the first number from which on up to ``end`` there are at most so many bytes; at least ``start``."""
        least = self._offsets[end - self._forgotten] - most_bytes
        return bisect_left(self._offsets, least, start - self._forgotten, end - self._forgotten) + self._forgotten

    def take_back(self, end: int) -> None:
        """Take back the messages from number ``end`` on."""
        del self._offsets[end - self._forgotten + 1 :]

    def replace(self, first: int, sizes: Sequence[int]) -> None:
        """Put other sizes in the place of those from number ``first`` to the end."""
        del self._offsets[first - self._forgotten + 1 :]
        before = self._offsets.pop()
        self._offsets.extend(accumulate(sizes, initial=before))

    def forget(self, first: int) -> None:
        """Forget what is before number ``first``, if that is much."""
        gone = first - self._forgotten
        if gone >= FORGET_AT_LEAST and gone > len(self) // 2:
            del self._offsets[:gone]
            self._forgotten = first


@attrs.frozen
class Shift:
    """What numbers have become after messages were taken back; see `Journal.take_back`.

    Args:
        gone: The numbers that these had, in order.
    """

    gone: tuple[range, ...]

    def __call__(self, number: int) -> int:
        """Return the number that the message with this number has now; if it is gone, that of the one behind it."""
        return number - sum(max(0, min(number, each.stop) - each.start) for each in self.gone)

    def has(self, number: int) -> bool:
        """Whether the message with this number is gone."""
        return any(number in each for each in self.gone)


@attrs.define
class Journal:
    """A bounded log of numbered messages; the first ever is number 0.

    Args:
        memory_limit: Bytes of messages in memory.
        file_limit: Bytes of messages in the overflow.
        overflow: Where older messages go.
        keep_limit: Bytes of messages that are kept although everybody has them: for those who come back and ask again.
    """

    memory_limit: int
    file_limit: int
    overflow: Overflow
    keep_limit: int
    end: int = attrs.field(default=0, init=False)
    """The number that the next message will have."""
    memory_bytes: int = attrs.field(default=0, init=False)
    dropped: int = attrs.field(default=0, init=False)
    """How many messages were dropped undelivered in all."""
    allowance: int = attrs.field(default=0, init=False)
    """Bytes that may be in memory beyond its limit: somebody is about to take them."""
    needed: int = attrs.field(default=0, init=False)
    """What is before this number is kept only for those who come back."""
    _answered: deque[tuple[int, int]] = attrs.field(factory=deque, init=False)
    """Of what nobody else waits for, and is there all the same, the numbers and sizes."""
    _answered_bytes: int = attrs.field(default=0, init=False)
    _emptied: list[tuple[int, int]] = attrs.field(factory=list, init=False)
    """The numbers of messages that `empty` has emptied, in runs."""
    _emptyings: int = attrs.field(default=0, init=False)
    """How often any of these may have changed."""
    _urgent: deque[int] = attrs.field(factory=deque, init=False)
    """The numbers of urgent messages that are still there."""
    exits: list[int] = attrs.field(factory=list, init=False)
    """The numbers of the messages that tell of a kernel's exit, of those that are still there and of the latest."""
    _latest_start: int = attrs.field(default=0, init=False)
    """The number of the first message about the latest kernel."""
    _memory: deque[bytes] = attrs.field(factory=deque, init=False)
    _overflowed: int = attrs.field(default=0, init=False)
    _offsets: Offsets = attrs.field(factory=Offsets, init=False)

    @property
    def first(self) -> int:
        """The number of the oldest message that is still there; `end` if there is none."""
        return self.end - len(self._memory) - self._overflowed

    def extend(self, payloads: Sequence[bytes], *, urgent: bool = False) -> None:
        """Add messages at the end; urgent ones may be read ahead of others, see `urgent_after`."""
        self._memory.extend(payloads)
        self.memory_bytes += self._offsets.extend(payloads)
        if urgent:
            self._urgent.extend(range(self.end, self.end + len(payloads)))
        self.end += len(payloads)
        if self.memory_bytes > self.memory_limit:
            self._make_room()

    def bytes_from(self, number: int) -> int:
        """Return the bytes of the messages from this number on, as far as they are still there."""
        return self._offsets.between(max(number, self.first), self.end)

    def allow(self, allowance: int) -> None:
        """Change the `allowance`; what does not fit into memory any more leaves it."""
        self.allowance = allowance
        self._make_room()

    def urgent_after(self, position: int) -> list[int]:
        """Return the numbers of the urgent messages from ``position`` on, in order."""
        while self._urgent and self._urgent[0] < max(self.needed, self.first):
            self._urgent.popleft()
        numbers = list(takewhile(lambda number: number >= position, reversed(self._urgent)))
        return numbers[::-1]

    def note_exit(self, number: int) -> None:
        """Note that the message with this number, the next one or a later one, tells of a kernel's exit."""
        # Another list, as it is compared with what it was.
        self.exits = [*(each for each in self.exits if each >= self.first), number]

    def note_start(self) -> None:
        """Note that a kernel starts: the exits of those before it are no news any more."""
        self._latest_start = self.end

    @property
    def old_exits(self) -> set[int]:
        """The numbers of messages that tell of the exit of a kernel before the latest."""
        return {number for number in self.exits if number < self._latest_start}

    def _make_room(self) -> None:
        """Move the oldest messages out of memory until it is within its limit."""
        while self.memory_bytes > self.memory_limit + self.allowance and self._memory:
            if self.first < self.needed:
                self._forget_before(self.first + 1)
                continue
            size = len(self._memory[0])
            while self._overflowed and self.overflow.size + size > self.file_limit:
                self._forget_before(self.first + 1)
                self.dropped += 1
            payload = self._memory.popleft()
            self.memory_bytes -= size
            if size <= self.file_limit and self.overflow.push(payload):
                self._overflowed += 1
            else:
                # What cannot be kept leaves a gap, and a gap has to be at the front: all that is older goes too.
                self.overflow.drop(self.overflow.size)
                self.dropped += self._overflowed + 1
                self._overflowed = 0
        self._offsets.forget(self.first)

    def _forget_before(self, number: int) -> None:
        overflowed = min(number - self.first, self._overflowed)
        if overflowed:
            self.overflow.drop(self._offsets.between(self.first, self.first + overflowed))
            self._overflowed -= overflowed
        self.memory_bytes -= self._offsets.between(self.first, number)
        for _ in range(number - self.first):
            self._memory.popleft()

    def read(self, position: int, max_bytes: int, max_messages: int) -> Batch:
        """Return messages from number ``position`` on: at least one if there is any, and about ``max_bytes`` in all."""
        memory = self._memory
        first_in_memory = self.end - len(memory)
        start = position if position >= first_in_memory else max(position, self.first)
        if start < first_in_memory:
            before = self._offsets.between(self.first, start)
            end = min(start + max_messages, first_in_memory)
            payloads = self.overflow.read(before, self._offsets.sizes(start, end, max_bytes))
        else:
            payloads, size = [], 0
            skip = start - first_in_memory
            # By index, which a deque finds from its nearer end: thousands that are kept may be in front.
            for index in range(skip, min(skip + max_messages, len(memory))):
                payload = memory[index]
                size += len(payload)
                if size > max_bytes and payloads:
                    break
                payloads.append(payload)
        return Batch(payloads, start + len(payloads), start - position)

    def empty(self, numbers: Sequence[int]) -> list[int]:
        """Note that nobody waits for these messages any more, though perhaps for some before them.

        The latest of them are kept all the same, `keep_limit` bytes; what has left memory is left where it is. Returns
        the numbers of those that are empty now.
        """
        first_in_memory = self.end - len(self._memory)
        for number in numbers:
            if number >= first_in_memory and (size := len(self._memory[number - first_in_memory])):
                self._answered.append((number, size))
                self._answered_bytes += size
        emptied: list[int] = []
        while self._answered_bytes > self.keep_limit:
            number, size = self._answered.popleft()
            self._answered_bytes -= size
            if number >= first_in_memory and self._memory[number - first_in_memory]:
                self._memory[number - first_in_memory] = b""
                self.memory_bytes -= size
                emptied.append(number)
        if emptied:
            first = min(emptied)
            sizes = [len(self._memory[index]) for index in range(first - first_in_memory, len(self._memory))]
            self._offsets.replace(first, sizes)
            self._note_emptied(emptied)
        self._emptyings += 1
        return emptied

    def _note_emptied(self, numbers: Iterable[int]) -> None:
        runs = [run for run in self._emptied if run[1] > self.first]
        for number in numbers:
            if runs and runs[-1][1] == number:
                runs[-1] = (runs[-1][0], number + 1)
            else:
                runs.append((number, number + 1))
        self._emptied = runs

    def release(self, position: int) -> None:
        """Note that everybody has the messages before number ``position``; the latest of them are kept all the same.

        A smaller number than before takes that back, as far as the messages are still there.
        """
        self.needed = min(position, self.end)
        if self.first < self.needed:
            self._forget_before(self._offsets.cut(self.first, self.needed, self.keep_limit))
            self._offsets.forget(self.first)

    def take_back(self, numbers: Iterable[range]) -> Shift:
        """Take out messages that nobody is to be told any more; those behind them get smaller numbers.

        So it is only for a journal of whose numbers nobody was told. Nothing is taken back where there is more between
        and behind these messages than fits into memory, as it would have to be written anew.

        Args:
            numbers: The numbers, in order; those that are not there any more are passed over.
        """
        clipped = (range(max(each.start, self.first), each.stop) for each in numbers)
        gone = tuple(each for each in clipped if each)
        if not gone:
            return Shift(())
        starts = [*(each.start for each in gone[1:]), self.end]
        stays = [range(each.stop, start) for each, start in zip(gone, starts, strict=True)]
        if sum(self._offsets.between(each.start, each.stop) for each in stays) > self.memory_limit:
            return Shift(())
        payloads = [payload for each in stays for payload in self._read_all(each)]
        self._cut(gone[0].start)
        shift = Shift(gone)
        self._urgent = deque(shift(number) for number in self._urgent if not shift.has(number))
        self.exits = [shift(number) for number in self.exits if not shift.has(number)]
        self._latest_start = shift(self._latest_start)
        self.needed = shift(self.needed)
        self.extend(payloads)
        return shift

    def _read_all(self, numbers: range) -> Iterator[bytes]:
        position = numbers.start
        while position < numbers.stop:
            batch = self.read(position, self.memory_limit, numbers.stop - position)
            yield from batch.payloads
            position = batch.next_position

    def _cut(self, end: int) -> None:
        """Forget what is from number ``end`` on."""
        first_in_memory = self.end - len(self._memory)
        for _ in range(self.end - max(end, first_in_memory)):
            self.memory_bytes -= len(self._memory.pop())
        if end < first_in_memory:
            self.overflow.cut(self._offsets.between(end, first_in_memory))
            self._overflowed -= first_in_memory - end
        self._offsets.take_back(end)
        self.end = end

    # For another process

    def marks(self) -> tuple[object, ...]:
        """Return what is equal as long as `save` returns the same, and takes less time."""
        return self.exits, self._latest_start, self.dropped, self._emptyings

    def save(self) -> SavedJournal:
        """Return what it knows of its messages, for `load`; the messages themselves are kept by others."""
        answered = tuple(self._answered)
        return SavedJournal(tuple(self.exits), self._latest_start, self.dropped, answered, tuple(self._emptied))

    def load(self, saved: SavedJournal) -> None:
        """Know what was saved of messages that `refill` is to bring."""
        self.exits, self._latest_start, self.dropped = list(saved.exits), saved.latest_start, saved.dropped
        self._answered = deque(saved.answered)
        self._answered_bytes = sum(size for _, size in saved.answered)
        self._emptied = list(saved.emptied)
        self._emptyings += 1

    def refill(self, number: int, payloads: Sequence[bytes], urgent: Iterable[range] = ()) -> None:
        """Take messages that an earlier process had, in order, behind `load`.

        Where numbers are missing, what is before them goes, too: a gap has to be at the front.

        Args:
            number: The number of the first; also where there is none, and the next is to have that number.
            payloads: The messages.
            urgent: The numbers of urgent ones, of these or others.
        """
        if number != self.end:
            lost = number - max(self.first, self.needed) if self.first < self.end else 0
            self.dropped += max(0, lost)
            self._forget_before(self.end)
            self._urgent.clear()
            self._offsets, self.end = Offsets(number), number
        behind = number + len(payloads)
        payloads = list(payloads)
        for first, emptied_to in self._emptied:
            for each in range(max(first, number), min(emptied_to, behind)):
                payloads[each - number] = b""
        self.extend(payloads)
        for numbers in urgent:
            self._urgent.extend(range(max(numbers.start, number), min(numbers.stop, behind)))
        if self.end >= self.needed:
            self.release(self.needed)
