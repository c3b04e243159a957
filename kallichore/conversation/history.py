"""What ran in a session, with its output in short: for people and agents who come later. [pure]

One entry for each execution that is not silent, whoever sent it; output is attached by its parent's id as it streams
by. Everything is bounded, whatever a kernel prints. Source: the API's history, as Positron's agents read it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import attrs
import msgspec

from kallichore.models.bodies import ExecutionError, ExecutionHistoryEntry
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import UNREADABLE, KernelMessage

MOST_ENTRIES = 100
MOST_BYTES = 4096
"""UTF-8 bytes that are kept of the input, of the output, and of an error; the API's own figures."""
LARGE = 1 << 17
"""Bytes of a message from which on its text is not read whole."""
MOST_NAME, MOST_MESSAGE = 256, 2048


class _Request(msgspec.Struct):
    code: str
    silent: bool = False


class _Error(msgspec.Struct):
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []
    status: str = "error"


class _Attribution(msgspec.Struct, frozen=True):
    source: str | None = None
    agent_name: str | None = None


class _Metadata(msgspec.Struct):
    attribution: _Attribution | None = None


_NOBODY = _Attribution()

_read_request = msgspec.json.Decoder(_Request).decode
_read_text = msgspec.json.Decoder(str).decode
_read_error = msgspec.json.Decoder(_Error).decode
_read_metadata = msgspec.json.Decoder(_Metadata).decode


def _read_piece(piece: bytes, first: int, last: int) -> str:
    """Return the text of a piece cut out of a JSON string, without what the cut took half of.

    Args:
        piece: The characters and escapes, up to 12 bytes of which (a pair of surrogates) may be halves.
        first: 1 if the piece may begin with a half, else 0.
        last: -1 if it may end with one, else 0.
    """
    for cut in range(13):
        try:
            return _read_text(b'"%s"' % piece[first * cut : len(piece) + last * cut])
        except UNREADABLE:
            pass
    return ""


class SavedText(msgspec.Struct, omit_defaults=True):
    """A clipping as JSON: its halves are bytes, as each may end in the middle of a character."""

    head: bytes = b""
    tail: bytes = b""
    dropped: int = 0


class SavedEntry(msgspec.Struct, omit_defaults=True):
    """An entry as JSON, without the newest half of its output: that changes with each line."""

    msg_id: str
    timestamp: int
    input: SavedText
    output: bytes = b""
    source: str | None = None
    agent: str | None = None
    error: ExecutionError | None = None
    error_truncated: bool = False


class EntryChange(NamedTuple):
    """What is to be saved of an entry."""

    place: int
    """Its number among all that there ever were."""
    entry: SavedEntry | None = None
    """The entry; None for nothing new."""
    tail: SavedText | None = None
    """The newest half of its output; None for nothing new."""
    is_gone: bool = False
    """Whether it is to be forgotten."""


@attrs.define
class Clipping:
    """Text of which the first half and the newest half are kept, so that endless output takes bounded memory."""

    most_bytes: int = MOST_BYTES
    _newest_bytes: int = attrs.field(init=False)
    _room: int = attrs.field(init=False)
    """Bytes that still belong to the first half."""
    _head: bytes = attrs.field(default=b"", init=False)
    _tail: deque[bytes] = attrs.field(factory=deque, init=False)
    _tail_bytes: int = attrs.field(default=0, init=False)
    _dropped: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._newest_bytes = self.most_bytes // 2
        self._room = self.most_bytes - self._newest_bytes

    def add(self, text: str) -> None:
        """Add text at the end."""
        if not self._room and len(text) <= self._newest_bytes:
            self._add_newest(text.encode("utf-8", "replace"))
            return
        if len(text) > 4 * self.most_bytes:
            # Of so much only the ends stay; what is between them is but counted.
            first, between, last = (
                text[: self.most_bytes],
                text[self.most_bytes : -self.most_bytes],
                text[-self.most_bytes :],
            )
            self.add(first)
            self._dropped += len(between) if between.isascii() else len(between.encode("utf-8", "replace"))
            self.add(last)
            return
        data = text.encode("utf-8", "replace")
        if self._room:
            self._head += data[: self._room]
            data, self._room = data[self._room :], max(0, self._room - len(data))
        if data:
            self._add_newest(data)

    def _add_newest(self, data: bytes) -> None:
        tail = self._tail
        tail.append(data)
        size = self._tail_bytes + len(data)
        while size - len(tail[0]) >= self._newest_bytes:
            gone = len(tail.popleft())
            size -= gone
            self._dropped += gone
        self._tail_bytes = size

    def add_literal(self, literal: bytes | memoryview) -> None:
        """Add much text at the end, given as a JSON string: its ends are read, what is between them is counted."""
        # As much as that many characters may take, escaped.
        end = 6 * self.most_bytes
        if len(literal) <= 2 * end:
            self.add(_read_text(literal))
            return
        self.add(_read_piece(bytes(literal[1:end]), 0, -1))
        self._dropped += len(literal) - 2 * end
        self.add(_read_piece(bytes(literal[-end:-1]), 1, 0))

    @property
    def head(self) -> bytes:
        """The first half, which stays as it is once it is full."""
        return self._head

    def save_tail(self) -> SavedText:
        """Return the newest half alone, for `load`."""
        kept = b"".join(self._tail)[-self._newest_bytes :]
        return SavedText(b"", kept, self._dropped + self._tail_bytes - len(kept))

    def load(self, head: bytes, tail: SavedText) -> None:
        """Become what was saved."""
        self._head, self._room = head, max(0, self.most_bytes - self._newest_bytes - len(head))
        self._tail, self._tail_bytes = deque([tail.tail] if tail.tail else []), len(tail.tail)
        self._dropped = tail.dropped

    @property
    def is_truncated(self) -> bool:
        """Whether anything was left out."""
        return self._dropped + self._tail_bytes > self._newest_bytes

    def text(self) -> str:
        """Return what is kept, with a note in the place of what is not."""
        tail = b"".join(self._tail)
        if not self.is_truncated:
            return (self._head + tail).decode()
        # The cuts may be in the middle of a character: what is left of it goes as well.
        newest = tail[-self._newest_bytes :]
        while newest[:1] and newest[0] & 0xC0 == 0x80:
            newest = newest[1:]
        oldest = self._head.decode("utf-8", "ignore")
        missing = self._dropped + len(tail) - len(newest) + len(self._head) - len(oldest.encode())
        return f"{oldest}\n[... {missing} bytes left out ...]\n{newest.decode()}"


@attrs.define
class _Entry:
    place: int
    timestamp: int
    source: str | None
    agent: str | None
    input: Clipping = attrs.field(factory=Clipping)
    output: Clipping = attrs.field(factory=Clipping)
    error: ExecutionError | None = None
    error_truncated: bool = False
    saved_head: int = -1
    """How much of the output's first half is saved; -1 if the entry itself is to be saved again."""

    def change(self, msg_id: str) -> EntryChange:
        """Return what is to be saved of it, which then counts as saved."""
        entry, tail = None, self.output.save_tail()
        if self.saved_head != len(self.output.head):
            self.saved_head = len(self.output.head)
            code = self.input.save_tail()
            code.head = self.input.head
            entry = SavedEntry(
                msg_id,
                self.timestamp,
                code,
                self.output.head,
                self.source,
                self.agent,
                self.error,
                self.error_truncated,
            )
        return EntryChange(self.place, entry, tail if tail.tail or tail.dropped else None)

    def as_body(self) -> ExecutionHistoryEntry:
        return ExecutionHistoryEntry(
            input=self.input.text(),
            output=self.output.text(),
            error=self.error,
            timestamp=self.timestamp,
            source=self.source,
            agent=self.agent,
            truncated=self.input.is_truncated or self.output.is_truncated or self.error_truncated,
        )


@attrs.define
class History:
    """The latest executions of one session, over all its kernels."""

    _entries: OrderedDict[str, _Entry] = attrs.field(factory=OrderedDict, init=False)
    _next_place: int = attrs.field(default=0, init=False)
    _changed: dict[int, str] | None = attrs.field(default=None, init=False)
    """The ids of what is to be saved, or was forgotten, by place; None where nobody saves it."""

    def begin(self, request: ClientMessage, timestamp: int) -> None:
        """Note an execution that is sent to the kernel now.

        Args:
            request: The ``execute_request``; what is silent, or is none, is not noted.
            timestamp: Milliseconds since the epoch.
        """
        if request.msg_type != "execute_request":
            return
        try:
            content = _read_request(request.content)
        except UNREADABLE:
            return
        if content.silent:
            return
        attribution = _attribution_of(request)
        self._forget(request.msg_id)
        entry = _Entry(self._next_place, timestamp, attribution.source, attribution.agent_name)
        self._next_place += 1
        entry.input.add(content.code)
        self._entries[request.msg_id] = entry
        if self._changed is not None:
            self._changed[entry.place] = request.msg_id
        if len(self._entries) > MOST_ENTRIES:
            self._forget(next(iter(self._entries)))

    def _forget(self, msg_id: str) -> None:
        entry = self._entries.pop(msg_id, None)
        if entry is not None and self._changed is not None:
            self._changed[entry.place] = msg_id

    def hear(self, message: KernelMessage) -> None:
        """Take in a message of the kernel."""
        parent = message.parent
        if parent is None or (entry := self._entries.get(parent.msg_id)) is None:
            return
        try:
            match message.header.msg_type:
                case "stream":
                    text = message.excerpt.text
                    if len(message.content) < LARGE:
                        entry.output.add(_read_text(text))
                    else:
                        entry.output.add_literal(memoryview(text))
                case "execute_result" | "display_data" if message.excerpt.data is not None:
                    entry.output.add(_in_words(message.excerpt.data) + "\n")
                case "execute_reply" if message.excerpt.status != "error":
                    return
                case "error" | "execute_reply":
                    if not _note_error(entry, _read_error(message.content)):
                        return
                case _:
                    return
        except UNREADABLE:
            return
        if self._changed is not None:
            self._changed[entry.place] = parent.msg_id

    def code_of(self, msg_id: str) -> str:
        """Return the code of an execution, shortened; empty if it is not known."""
        entry = self._entries.get(msg_id)
        return "" if entry is None else entry.input.text()

    def entries(self, latest: int = MOST_ENTRIES) -> tuple[ExecutionHistoryEntry, ...]:
        """Return the ``latest`` entries, oldest first."""
        entries = list(self._entries.values())
        return tuple(entry.as_body() for entry in entries[len(entries) - min(latest, len(entries)) :])

    # For another process

    def take_changes(self) -> Iterator[EntryChange]:
        """Yield what is to be saved since this was last called; at first, all that there is."""
        if self._changed is None:
            self._changed = {entry.place: msg_id for msg_id, entry in self._entries.items()}
        elif not self._changed:
            return
        changed, self._changed = self._changed, {}
        for place, msg_id in changed.items():
            entry = self._entries.get(msg_id)
            if entry is None or entry.place != place:
                yield EntryChange(place, is_gone=True)
            else:
                yield entry.change(msg_id)

    def load(self, entries: Mapping[int, SavedEntry], tails: Mapping[int, SavedText]) -> None:
        """Become what was saved, and count it as saved: entries, and what there is of their outputs' newest halves."""
        self._entries.clear()
        for place, saved in sorted(entries.items()):
            entry = _Entry(place, saved.timestamp, saved.source, saved.agent)
            entry.input.load(saved.input.head, saved.input)
            entry.output.load(saved.output, tails.get(place, SavedText()))
            entry.error, entry.error_truncated = saved.error, saved.error_truncated
            entry.saved_head = len(saved.output)
            self._entries[saved.msg_id] = entry
        self._next_place = max(entries, default=-1) + 1
        self._changed = {}


def _attribution_of(request: ClientMessage) -> _Attribution:
    if request.metadata == b"{}":
        return _NOBODY
    try:
        return _read_metadata(request.metadata).attribution or _NOBODY
    except UNREADABLE:
        return _NOBODY


def _in_words(data: dict[str, msgspec.Raw]) -> str:
    # Only this member is read: the others may be large.
    text = msgspec.json.decode(data["text/plain"]) if "text/plain" in data else None
    if isinstance(text, list):
        text = "".join(map(str, text))
    return text if isinstance(text, str) else "[" + ", ".join(data) + "]"


def _note_error(entry: _Entry, error: _Error) -> bool:
    """Keep an error, and tell whether it was; a reply's counts only where no message came before."""
    if error.status != "error" or entry.error is not None:
        return False
    name, message = _first_bytes(error.ename, MOST_NAME), _first_bytes(error.evalue, MOST_MESSAGE)
    room = MOST_BYTES - len(name.encode()) - len(message.encode())
    traceback = _last_lines(error.traceback, room)
    entry.error = ExecutionError(name=name, message=message, traceback=tuple(traceback))
    entry.error_truncated = [name, message, traceback] != [error.ename, error.evalue, error.traceback]
    entry.saved_head = -1
    return True


def _first_bytes(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _last_lines(lines: list[str], most: int) -> list[str]:
    """Return the last lines that fit: the end of a traceback says what happened."""
    kept: deque[str] = deque()
    for line in reversed(lines):
        data = line.encode("utf-8", "replace")
        if len(data) > most:
            if not kept:
                kept.appendleft(data[-most:].decode("utf-8", "ignore"))
            break
        most -= len(data)
        kept.appendleft(line)
    return list(kept)
