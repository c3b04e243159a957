"""What a session's log has to have, told by a model of it: what was written, and where it ends. For tests."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import attrs
import pytest
from hypothesis import strategies as st

from kallichore.state.recovery import Recovered, recover
from kallichore.state.session_log import Commit, SessionLog


@attrs.frozen
class Message:
    """A message that was committed: each has an identity, so that equal ones are told apart."""

    identity: int
    payload: bytes
    is_urgent: bool


@attrs.frozen
class State:
    """What is known after a commit."""

    messages: dict[int, Message] = attrs.field(factory=dict)
    parts: dict[str, bytes] = attrs.field(factory=dict)
    end: int = 0

    def payloads(self) -> dict[int, bytes]:
        """Return the messages by their numbers."""
        return {number: message.payload for number, message in self.messages.items()}


@attrs.frozen
class Step:
    """Something that is done with a log, in numbers that are taken as far as they go.

    Args:
        gap: How many numbers are left out before the messages.
        payloads: The messages.
        urgent: How many of them, from the first on, are urgent.
        parts: Those that changed.
        back: How far before the end each run of messages begins that is taken back, and how many they are.
        fails_after: How many bytes the disk takes, where it is full.
        forget: How far before the end that begins which is still needed; None where nothing is forgotten.
    """

    gap: int
    payloads: list[bytes]
    urgent: int
    parts: dict[str, bytes]
    back: list[tuple[int, int]]
    fails_after: int | None
    forget: int | None


STEPS = st.lists(
    st.builds(
        Step,
        gap=st.sampled_from([0, 0, 0, 0, 1, 5]),
        payloads=st.lists(st.binary(max_size=30), max_size=4),
        urgent=st.integers(0, 2),
        parts=st.dictionaries(st.sampled_from(["queue", "talk", "history:é"]), st.binary(max_size=20), max_size=2),
        back=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=2),
        fails_after=st.sampled_from([None, None, None, None, None, 0, 10, 30]),
        forget=st.sampled_from([None, None, None, None, 0, 3]),
    ),
    max_size=8,
)

SEGMENTS = st.sampled_from([1, 200, 500, 1 << 20])
"""Bytes of a segment: one for each commit, a few, or one for all."""


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Have a disk that takes so many bytes more, while a block runs."""
    left = room
    write = os.write

    def write_a_part(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[:left])
        left -= written
        return written

    with mock.patch("kallichore.state.session_log.os.write", write_a_part):
        yield


def ranges_of(back: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return ranges of numbers, in order and apart from each other, which begin so far before the end."""
    ranges: list[tuple[int, int]] = []
    for distance, size in sorted(back, reverse=True):
        start = max(end - distance, ranges[-1][1] if ranges else 0)
        stop = min(start + size, end)
        if start < stop:
            ranges.append((start, stop))
    return ranges


def without(messages: dict[int, Message], gone: Sequence[tuple[int, int]]) -> dict[int, Message]:
    """Return messages by the numbers that they have after some were taken back."""
    numbers = {number for start, stop in gone for number in range(start, stop)}
    return {
        number - sum(1 for each in numbers if each < number): message
        for number, message in messages.items()
        if number not in numbers
    }


@attrs.define
class History:
    """A log, and what it has to have at each place of its files."""

    directory: Path
    segment_bytes: int
    log: SessionLog = attrs.field(init=False)
    state: State = attrs.field(factory=State, init=False)
    places: list[tuple[str, int, State]] = attrs.field(factory=list, init=False)
    """The end of each commit, with what is known there."""
    forgotten: set[int] = attrs.field(factory=set, init=False)
    """The identities of messages that nobody needs."""
    count: int = attrs.field(default=0, init=False)

    least: tuple[str, int] = attrs.field(init=False)
    """What was written of which file before others were removed."""

    def __attrs_post_init__(self) -> None:
        self.log = SessionLog.create(self.directory, self.segment_bytes)
        self._note_place()
        self.least = self.places[0][:2]

    def files(self) -> list[Path]:
        """Return the files of the log, in order."""
        return sorted(self.directory.glob("log-*"))

    def _note_place(self) -> None:
        last = self.files()[-1]
        self.places.append((last.name, last.stat().st_size, self.state))

    def take(self, step: Step) -> None:
        """Do something with the log."""
        files = self.files()
        gone = ranges_of(step.back, self.state.end)
        end = self.state.end - sum(stop - start for start, stop in gone)
        first = end + step.gap
        urgent = min(step.urgent, len(step.payloads))
        ranges = [(first, first + urgent)] if urgent else []
        messages = without(self.state.messages, gone)
        parts = {name: part for name, part in {**self.state.parts, **step.parts}.items() if part}
        commit = Commit(first, step.payloads, ranges, step.parts, gone)
        if step.fails_after is None:
            self.log.commit(commit)
            for index, payload in enumerate(step.payloads):
                messages[first + index] = Message(self.count, payload, index < urgent)
                self.count += 1
            self.state = State(messages, parts, first + len(step.payloads))
            self._note_place()
        else:
            self._fail(commit, step.fails_after)
            # Nobody needs what was taken back, though the files do not say so yet.
            kept = {message.identity for message in messages.values()}
            self.forgotten |= {message.identity for message in self.state.messages.values()} - kept
            self.state = State(messages, parts, first + len(step.payloads))
        self._note_removal(files)
        if step.forget is not None:
            needed = self.state.end - step.forget
            self.log.forget_before(needed)
            self._note_removal(files)
            self.forgotten |= {each.identity for number, each in self.state.messages.items() if number < needed}

    def _fail(self, commit: Commit, room: int) -> None:
        before = self.contents()
        with full_disk(room), pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            self.log.commit(commit)
        assert before == self.contents()

    def contents(self) -> dict[str, bytes]:
        """Return what is in the files."""
        return {path.name: path.read_bytes() for path in self.files()}

    def _note_removal(self, before: list[Path]) -> None:
        """Note that files went: what was written until then was written before that."""
        last = self.files()[-1]
        if before != self.files()[: len(before)]:
            self.least = last.name, last.stat().st_size

    def smallest_cut(self) -> int:
        """Return how much of the last file a killed server has written at least."""
        name, size = self.least
        return size if self.files()[-1].name == name else 0

    def kill(self, cut: int) -> Recovered:
        """Have the server killed with its last write cut, and begin anew with what is there."""
        self.log.close()
        last = self.files()[-1]
        os.truncate(last, cut)
        self.places = [place for place in self.places if place[:2] <= (last.name, cut)]
        self.state = self.places[-1][2]
        recovered = recover(self.directory, self.segment_bytes)
        self.log = recovered.log
        return recovered


def messages_of(recovered: Recovered) -> dict[int, bytes]:
    """Return the messages that a log has, by their numbers."""
    found: dict[int, bytes] = {}
    for first, payloads in recovered.messages():
        for number, payload in enumerate(payloads, first):
            assert number not in found
            found[number] = payload
    return found


def urgent_of(recovered: Recovered) -> set[int]:
    """Return the numbers of the urgent messages."""
    return {number for numbers in recovered.urgent for number in numbers}
