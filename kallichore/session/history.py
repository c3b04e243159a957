"""What ran in a session, with its output in short: for people and agents who come later. [pure]

One entry for each execution that is not silent, whoever sent it; output is attached by its parent's id as it streams
by. Everything is bounded, whatever a kernel prints. Source: the API's history, as Positron's agents read it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import attrs
import msgspec

from kallichore.models.bodies import ExecutionError, ExecutionHistoryEntry
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import UNREADABLE, KernelMessage

MOST_ENTRIES = 100
MOST_BYTES = 4096
"""UTF-8 bytes that are kept of the input, of the output, and of an error; the API's own figures."""
MOST_NAME, MOST_MESSAGE = 256, 2048


class _Request(msgspec.Struct):
    code: str
    silent: bool = False


class _Stream(msgspec.Struct):
    text: str


class _Bundle(msgspec.Struct):
    data: dict[str, Any]


class _Error(msgspec.Struct):
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []
    status: str = "error"


class _Attribution(msgspec.Struct):
    source: str | None = None
    agent_name: str | None = None


class _Metadata(msgspec.Struct):
    attribution: _Attribution | None = None


_read_request = msgspec.json.Decoder(_Request).decode
_read_stream = msgspec.json.Decoder(_Stream).decode
_read_bundle = msgspec.json.Decoder(_Bundle).decode
_read_error = msgspec.json.Decoder(_Error).decode
_read_metadata = msgspec.json.Decoder(_Metadata).decode


@attrs.define
class Clipping:
    """Text of which the first half and the newest half are kept, so that endless output takes bounded memory."""

    most_bytes: int = MOST_BYTES
    _head: bytes = attrs.field(default=b"", init=False)
    _tail: deque[bytes] = attrs.field(factory=deque, init=False)
    _tail_bytes: int = attrs.field(default=0, init=False)
    _dropped: int = attrs.field(default=0, init=False)

    def add(self, text: str) -> None:
        """Add text at the end."""
        data = text.encode("utf-8", "replace")
        room = self.most_bytes - self._newest_bytes - len(self._head)
        if room > 0 and not self._tail:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
            while self._tail_bytes - len(self._tail[0]) >= self._newest_bytes:
                gone = len(self._tail.popleft())
                self._tail_bytes -= gone
                self._dropped += gone

    @property
    def _newest_bytes(self) -> int:
        return self.most_bytes // 2

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
    timestamp: int
    source: str | None
    agent: str | None
    input: Clipping = attrs.field(factory=Clipping)
    output: Clipping = attrs.field(factory=Clipping)
    error: ExecutionError | None = None
    error_truncated: bool = False

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
        entry = _Entry(timestamp, attribution.source, attribution.agent_name)
        entry.input.add(content.code)
        self._entries[request.msg_id] = entry
        if len(self._entries) > MOST_ENTRIES:
            self._entries.popitem(last=False)

    def hear(self, message: KernelMessage) -> None:
        """Take in a message of the kernel."""
        entry = None if message.parent is None else self._entries.get(message.parent.msg_id)
        if entry is None:
            return
        try:
            match message.header.msg_type:
                case "stream":
                    entry.output.add(_read_stream(message.content).text)
                case "execute_result" | "display_data":
                    entry.output.add(_in_words(_read_bundle(message.content).data) + "\n")
                case "error" | "execute_reply":
                    _note_error(entry, _read_error(message.content))
        except UNREADABLE:
            pass

    def entries(self, latest: int = MOST_ENTRIES) -> tuple[ExecutionHistoryEntry, ...]:
        """Return the ``latest`` entries, oldest first."""
        entries = list(self._entries.values())
        return tuple(entry.as_body() for entry in entries[len(entries) - min(latest, len(entries)) :])


def _attribution_of(request: ClientMessage) -> _Attribution:
    try:
        return _read_metadata(request.metadata).attribution or _Attribution()
    except UNREADABLE:
        return _Attribution()


def _in_words(data: dict[str, Any]) -> str:
    text = data.get("text/plain")
    if isinstance(text, list):
        text = "".join(map(str, text))
    return text if isinstance(text, str) else "[" + ", ".join(data) + "]"


def _note_error(entry: _Entry, error: _Error) -> None:
    """Keep an error; a reply's counts only where no message came before."""
    if error.status != "error" or entry.error is not None:
        return
    name, message = _first_bytes(error.ename, MOST_NAME), _first_bytes(error.evalue, MOST_MESSAGE)
    room = MOST_BYTES - len(name.encode()) - len(message.encode())
    traceback = _last_lines(error.traceback, room)
    entry.error = ExecutionError(name=name, message=message, traceback=tuple(traceback))
    entry.error_truncated = [name, message, traceback] != [error.ename, error.evalue, error.traceback]


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
