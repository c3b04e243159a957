"""What the records of a session's log add up to: its parts, and which messages there are under which numbers. [pure]

Each record says how many commits were before it, and how often messages were taken back, which changes the numbers of
those behind. So it is noticed when some are missing, and where the numbers of messages are not certain any more these
are given up: a message never comes out under a number that is another's.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kallichore.state.records import Head, Kind, Numbers, Record


def moved(number: int, gone: Sequence[Numbers]) -> int:
    """Return what a number becomes when messages with these numbers are taken back."""
    return number - sum(max(0, min(number, stop) - start) for start, stop in gone)


def clipped(numbers: Sequence[Numbers], end: int) -> list[Numbers]:
    """Return those of the numbers that are before ``end``."""
    return [(start, min(stop, end)) for start, stop in numbers if start < min(stop, end)]


def take_out(ranges: list[Numbers], gone: Numbers) -> None:
    """Take numbers out of ranges, which are in order; those behind move down."""
    start, stop = gone
    behind: list[Numbers] = []
    while ranges and ranges[-1][1] > start:
        behind.append(ranges.pop())
    for begin, end in reversed(behind):
        for low, high in ((begin, min(end, start)), (max(begin, stop) - stop + start, end - stop + start)):
            if low < high:
                add_range(ranges, (low, high))


def add_range(ranges: list[Numbers], added: Numbers) -> None:
    """Add a range behind others."""
    if ranges and ranges[-1][1] == added[0]:
        ranges[-1] = (ranges[-1][0], added[1])
    else:
        ranges.append(added)


@attrs.frozen
class Run:
    """Messages whose numbers follow each other, and which do so in the files.

    Args:
        first: The number of the first.
        place: How many messages are before it in the files, whatever became of them.
        count: How many they are.
    """

    first: int
    place: int
    count: int

    @property
    def stop(self) -> int:
        """The number behind the last."""
        return self.first + self.count

    def part(self, start: int, stop: int) -> Run:
        """Return those of its messages that have numbers from ``start`` up to ``stop``."""
        start, stop = max(start, self.first), min(stop, self.stop)
        return Run(start, self.place + start - self.first, max(0, stop - start))


@attrs.define
class Replay:
    """The state that records lead to, one after the other."""

    parts: dict[str, bytes] = attrs.field(factory=dict, init=False)
    end: int = attrs.field(default=0, init=False)
    """The number that the next message will have."""
    serial: int = attrs.field(default=0, init=False)
    """How many commits there were."""
    generation: int = attrs.field(default=0, init=False)
    """How many times messages were taken back."""
    runs: list[Run] = attrs.field(factory=list, init=False)
    urgent: list[Numbers] = attrs.field(factory=list, init=False)
    place: int = attrs.field(default=0, init=False)
    """How many messages are in the records so far."""
    begins: list[int] = attrs.field(factory=list, init=False)
    """For each file, the number of its first message."""
    has_begun: bool = attrs.field(default=False, init=False)
    """Whether there was a record."""

    @property
    def first(self) -> int:
        """The number of the first message; `end` if there is none."""
        return self.runs[0].first if self.runs else self.end

    def begin_file(self) -> None:
        """Note that the next records are in another file."""
        self.begins.append(self.end)

    def take(self, record: Record) -> list[str]:
        """Go on by one record, and return in words what is missing before it."""
        head = record.head
        place, self.place = self.place, self.place + len(head.sizes)
        problems = self._compare(record)
        self.serial, self.generation = head.serial + 1, head.generation
        for gone in head.taken_back:
            self._take_back(gone)
        self._take_parts(record)
        if head.sizes:
            self._add_run(Run(head.first, place, len(head.sizes)))
        self.end = head.first + len(head.sizes)
        for each in head.urgent:
            add_range(self.urgent, each)
        return problems

    def _compare(self, record: Record) -> list[str]:
        """Give up what does not fit a record any more, and return in words what is missing before it."""
        head = record.head
        if not self.has_begun:
            self.has_begun = True
            return [] if record.kind is Kind.SNAPSHOT else ["what was before this is missing"]
        problems: list[str] = []
        is_certain = head.generation == self.generation and head.serial >= self.serial
        if head.serial != self.serial:
            missing = abs(head.serial - self.serial)
            problems.append(
                "1 commit before this is missing" if missing == 1 else f"{missing} commits before this are missing"
            )
            if is_certain and self._end_before(head) < head.first:
                problems.append(f"messages {self._end_before(head)} to {head.first - 1} are missing")
        if not is_certain or self._end_before(head) > head.first:
            if self.runs:
                problems.append(f"messages {self.first} to {self.end - 1} are given up: their numbers are not certain")
            self.runs.clear()
            self.urgent.clear()
        return problems

    def _end_before(self, head: Head) -> int:
        """Return the end after what the record takes back."""
        end = self.end
        for gone in head.taken_back:
            end = moved(end, gone)
        return end

    def _take_parts(self, record: Record) -> None:
        if record.kind is Kind.SNAPSHOT:
            self.parts.clear()
        for name, part in record.parts().items():
            if part:
                self.parts[name] = part
            else:
                self.parts.pop(name, None)

    def _add_run(self, run: Run) -> None:
        last = self.runs[-1] if self.runs else None
        if last is not None and (last.stop, last.place + last.count) == (run.first, run.place):
            self.runs[-1] = Run(last.first, last.place, last.count + run.count)
        else:
            self.runs.append(run)

    def _take_back(self, gone: Sequence[Numbers]) -> None:
        self.generation += 1
        self.begins = [moved(each, gone) for each in self.begins]
        for start, stop in reversed(gone):
            take_out(self.urgent, (start, stop))
            behind: list[Run] = []
            while self.runs and self.runs[-1].stop > start:
                behind.append(self.runs.pop())
            for run in reversed(behind):
                before, after = run.part(0, start), run.part(stop, run.stop)
                for each in (before, attrs.evolve(after, first=after.first - stop + start)):
                    if each.count:
                        self._add_run(each)
