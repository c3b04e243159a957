"""Reading a session's log after its server is gone: what is whole counts, what is missing is named.

Nothing is written here, so that a log can be looked at. Messages are not read before somebody asks for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from kallichore.state.records import Damage, Kind, read_records
from kallichore.state.replay import Replay, Run
from kallichore.state.session_log import SEGMENT_BYTES, SessionLog

PIECE_BYTES = 1 << 20
"""Bytes of messages that are read at a time."""

_NAME = re.compile(r"log-([0-9]{8,})")


@attrs.define
class _Source:
    """A file of the log, how many messages are in the files before it, and whether it begins with a snapshot."""

    path: Path
    place: int
    is_whole: bool = False
    whole_size: int | None = None
    """Its bytes, if all of them could be read."""


@attrs.frozen
class Recovered:
    """What a log has.

    Args:
        parts: The latest of each, by name.
        first: The number of the first message; `end` if there is none.
        end: The number that the next message will have.
        urgent: The numbers of urgent messages.
        problems: What is damaged or missing, in words.
        log: Goes on behind the last whole record: with a new file, unless the last one is whole.
    """

    parts: dict[str, bytes]
    first: int
    end: int
    urgent: list[range]
    problems: list[str]
    log: SessionLog
    _runs: Sequence[Run]
    _sources: Sequence[_Source]

    def messages(self) -> Iterator[tuple[int, list[bytes]]]:
        """Return the messages in pieces of about a megabyte, each with the number of its first.

        A number that is not the one behind the last of the piece before tells of a gap.
        """
        piece: list[bytes] = []
        first = size = 0
        for number, payloads in self._payloads():
            if piece and (number != first + len(piece) or size >= PIECE_BYTES):
                yield first, piece
                piece = []
            if not piece:
                first, size = number, 0
            piece += payloads
            size += sum(map(len, payloads))
        if piece:
            yield first, piece

    def _payloads(self) -> Iterator[tuple[int, list[bytes]]]:
        """Return the messages record by record."""
        runs = iter(self._runs)
        run = next(runs, None)
        for source in self._sources:
            place = source.place
            for record in read_records(_read(source.path)[0]):
                if isinstance(record, Damage):
                    continue
                stop = place + len(record.head.sizes)
                while run is not None and run.place < stop:
                    begin, end = max(run.place, place), min(run.place + run.count, stop)
                    if begin < end:
                        yield run.first + begin - run.place, record.messages(begin - place, end - place)
                    if run.place + run.count > stop:
                        break
                    run = next(runs, None)
                place = stop


def _read(path: Path) -> tuple[bytes, str | None]:
    """Return what is in a file, and in words why it could not be read."""
    try:
        return path.read_bytes(), None
    except OSError as error:
        return b"", f"{path}: {error.strerror}"


def recover(directory: Path, segment_bytes: int = SEGMENT_BYTES) -> Recovered:
    """Read what a session's log has, and go on with it.

    Args:
        directory: The session's.
        segment_bytes: Of the log that goes on: bytes beyond which a new segment begins.
    """
    replay = Replay()
    sources: list[_Source] = []
    problems: list[str] = []
    numbers = _segments_of(directory)
    for _, path in sorted(numbers.items()):
        sources.append(_Source(path, replay.place))
        replay.begin_file()
        problems += _read_segment(sources[-1], replay)
    if not numbers:
        problems.append(f"{directory}: there is no log")
    log = SessionLog.behind(
        replay,
        [(source.path, begin, source.is_whole) for source, begin in zip(sources, replay.begins, strict=True)],
        max(numbers, default=-1) + 1,
        sources[-1].whole_size if sources and sources[-1].is_whole else None,
        directory=directory,
        segment_bytes=segment_bytes,
    )
    urgent = [range(*each) for each in replay.urgent]
    return Recovered(replay.parts, replay.first, replay.end, urgent, problems, log, replay.runs, sources)


def _segments_of(directory: Path) -> dict[int, Path]:
    try:
        names = [(_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    except OSError:
        return {}
    return {int(name[1]): path for name, path in names if name}


def _read_segment(source: _Source, replay: Replay) -> list[str]:
    """Go on by what is in one file, and return in words what is damaged or missing."""
    path = source.path
    data, problem = _read(path)
    problems = [problem] if problem else []
    is_damaged = bool(problem)
    for record in read_records(data):
        if isinstance(record, Damage):
            is_damaged = True
            if not record.is_cut:
                problems.append(f"{path}: {record.size} bytes from byte {record.position} on are damaged")
            continue
        source.is_whole = source.is_whole or record.kind is Kind.SNAPSHOT
        problems += [f"{path}: {each}" for each in replay.take(record)]
    source.whole_size = None if is_damaged else len(data)
    if not replay.has_begun and not problems:
        # Later on such a file is what is left of a write that failed, and nothing was lost with it.
        problems.append(f"{path}: nothing in it is whole")
    return problems
