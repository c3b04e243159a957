"""The log of one session: what has to be known after its server was killed, in the order in which it happened.

It is a sequence of commits. Each is one record (`kallichore.state.records`), written to the system's page cache, which
a killed process does not take with it; nothing is forced to the disk. The log is in several files, *segments*, since a
file gives space back only as a whole. Each begins with a snapshot of all that is known, so that older ones can go.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from kallichore.state.records import Head, Kind, Numbers, encode
from kallichore.state.replay import Replay, clipped, moved

SEGMENT_BYTES = 1 << 24
"""Bytes of a segment, beyond which the next commit begins another."""

_SNAPSHOT, _CHANGES = int(Kind.SNAPSHOT), int(Kind.CHANGES)

_BINARY = getattr(os, "O_BINARY", 0)
"""Windows would write other ends of lines."""


@attrs.frozen
class Commit:
    """What happened together.

    Args:
        first: The number of the first of the messages: the next one, or a larger one where some are missing. Without
            messages, the number that the next will have, or less.
        payloads: Messages for clients, as they are sent.
        urgent: The numbers of urgent ones among them: first, and the one behind the last.
        parts: Those that changed, by name, as JSON. An empty one is gone.
        taken_back: The numbers of messages that are no more, in order. It is done before the messages are added; those
            behind move down.
    """

    first: int
    payloads: Sequence[bytes] = ()
    urgent: Sequence[Numbers] = ()
    parts: Mapping[str, bytes] = attrs.field(factory=dict)
    taken_back: Sequence[Numbers] = ()


@attrs.define
class _Segment:
    """One file, the number of its first message, and whether its snapshot is whole."""

    path: Path
    begin: int
    is_whole: bool = True


@attrs.define
class SessionLog:
    """A log that is written to. Made by `create`, or by `kallichore.state.recovery.recover`.

    Args:
        directory: The session's.
        segment_bytes: Bytes beyond which a new segment begins.
    """

    directory: Path
    segment_bytes: int = SEGMENT_BYTES
    _parts: dict[str, bytes] = attrs.field(factory=dict, init=False)
    _end: int = attrs.field(default=0, init=False)
    _serial: int = attrs.field(default=0, init=False)
    _generation: int = attrs.field(default=0, init=False)
    _unwritten: list[Sequence[Numbers]] = attrs.field(factory=list, init=False)
    """What was taken back by commits that could not be written."""
    _segments: list[_Segment] = attrs.field(factory=list, init=False)
    _forgotten: int = attrs.field(default=0, init=False)
    """What is before this number is needed by nobody."""
    _number: int = attrs.field(default=0, init=False)
    """The next segment's."""
    _descriptor: int | None = attrs.field(default=None, init=False)
    """The latest segment's. None where the next commit has to begin another."""
    _size: int = attrs.field(default=0, init=False)
    _whole_size: int | None = attrs.field(default=None, init=False)
    """The bytes of the latest segment, where another log wrote it and left it whole, so that it can be gone on with."""

    @classmethod
    def create(cls, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> SessionLog:
        """Begin a log.

        Raises:
            OSError: The first segment could not be written, or there is one.
        """
        log = cls(directory, segment_bytes)
        log.commit(Commit(0))
        return log

    @classmethod
    def behind(
        cls,
        replay: Replay,
        segments: Sequence[tuple[Path, int, bool]],
        number: int,
        whole_size: int | None = None,
        **places: Any,
    ) -> SessionLog:
        """Return a log that goes on where another ended. Nothing is written yet.

        Args:
            replay: What the other's records add up to.
            segments: Its files, each with the number of its first message, and whether its snapshot is whole.
            number: Of the first file that may be written.
            whole_size: The bytes of the last file, if that is whole: then it is gone on with, so that many servers in
                a row do not leave a file each.
            places: As for the log itself.
        """
        log = cls(**places)
        log._parts, log._end = dict(replay.parts), replay.end
        log._serial, log._generation = replay.serial, replay.generation
        log._segments, log._number = [_Segment(*each) for each in segments], number
        log._whole_size = whole_size
        return log

    def commit(self, commit: Commit) -> None:
        """Add what happened together; if the server is killed, all of it is there or nothing.

        Where it cannot be written, the file stays as it was. Its messages are missing from then on; its parts, and
        what it took back, are in the snapshot with which the next commit begins.

        Raises:
            OSError: It could not be written: the disk is full.
            ValueError: There are messages with these numbers.
        """
        gone = clipped(commit.taken_back, self._end) if commit.taken_back else ()
        end = moved(self._end, gone) if gone else self._end
        first = max(commit.first, end)
        if first > commit.first and commit.payloads:
            raise ValueError(f"the next message has number {end}, not {commit.first}")
        segments = len(self._segments)
        try:
            self._write(commit, first, gone)
        except BaseException:
            # Ctrl-C may come in the middle of it too: a record is written whole, or taken out again.
            self._leave_segment()
            if gone:
                self._unwritten.append(gone)
            self._note(commit, gone)
            self._end = end
            raise
        self._note(commit, gone)
        self._serial += 1
        self._end = first + len(commit.payloads)
        if len(self._segments) > segments:
            self.forget_before(self._forgotten)

    def _write(self, commit: Commit, first: int, gone: Sequence[Numbers]) -> None:
        if self._whole_size is not None:
            size, self._whole_size = self._whole_size, None
            self._descriptor = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND | _BINARY)
            self._size = size
        if self._descriptor is None or self._size >= self.segment_bytes:
            self._begin_segment(commit, first, gone)
        else:
            record = self._record(_CHANGES, commit, commit.parts, first, (gone,) if gone else ())
            self._size += _write_all(self._descriptor, record)

    def _record(
        self,
        kind: int,
        commit: Commit,
        parts: Mapping[str, bytes],
        first: int,
        taken_back: Sequence[Sequence[Numbers]],
    ) -> list[bytes]:
        generation = self._generation - len(self._unwritten)
        payloads, values = commit.payloads, [*parts.values()]
        sizes, part_sizes = [*map(len, payloads)], [*map(len, values)]
        head = Head(self._serial, generation, first, sizes, [*parts], part_sizes, commit.urgent, taken_back)
        return encode(kind, head, [*values, *payloads])

    def _note(self, commit: Commit, gone: Sequence[Numbers]) -> None:
        for name, part in commit.parts.items():
            if part:
                self._parts[name] = part
            else:
                self._parts.pop(name, None)
        if gone:
            self._generation += 1
            for segment in self._segments:
                segment.begin = moved(segment.begin, gone)
        if commit.taken_back:
            # What is forgotten may be beyond the end, where commits could not be written.
            self._forgotten = moved(self._forgotten, commit.taken_back)

    def _begin_segment(self, commit: Commit, first: int, gone: Sequence[Numbers]) -> None:
        """Begin a new file with a commit, and all that is known."""
        parts = {**self._parts, **commit.parts}
        taken_back = [*self._unwritten, *([gone] if gone else ())]
        record = self._record(_SNAPSHOT, commit, parts, first, taken_back)
        path = self.directory / f"log-{self._number:08d}"
        # A file that could not be written may be there still.
        self._number += 1
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o600)
        try:
            size = _write_all(descriptor, record)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        self._leave_segment()
        self._descriptor, self._size = descriptor, size
        self._segments.append(_Segment(path, self._end))
        self._unwritten.clear()

    def _leave_segment(self) -> None:
        """Write no more to the latest file. What was begun of a record is taken out of it."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            os.close(self._descriptor)
            self._descriptor = None

    def forget_before(self, number: int) -> None:
        """Note that the messages before this number are needed by nobody: files that have only such go."""
        self._forgotten = max(self._forgotten, number)
        while self._can_lose_first() and self._segments[1].begin <= self._forgotten:
            with suppress(OSError):
                self._segments[0].path.unlink()
            del self._segments[0]

    def _can_lose_first(self) -> bool:
        """Whether all that is known could be read without the first file."""
        return any(self._segments[index].is_whole for index in range(len(self._segments) - 1, 0, -1))

    def move(self, directory: Path) -> None:
        """Note that the session's directory has another name now."""
        self.directory = directory
        for segment in self._segments:
            segment.path = directory / segment.path.name

    def close(self) -> None:
        """Write no more. The files stay. Idempotent."""
        self._leave_segment()


def _write_all(descriptor: int, pieces: Sequence[bytes]) -> int:
    """Write pieces one behind the other, and return how many bytes they are.

    Raises:
        OSError: Not all could be written.
    """
    size = 0
    for piece in pieces:
        written = os.write(descriptor, piece)
        size += len(piece)
        while written < len(piece):
            # A disk with a little space left takes a part, and says why only when asked to take the rest.
            more = os.write(descriptor, memoryview(piece)[written:])
            if not more:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += more
    return size
