"""A kernel's message taken out of the envelope that our own clients get, for those who are spoken to otherwise.

The journal has each message once, in our envelope (`kallichore.wire.envelope`). To read that as JSON costs ten times
what it takes to look where its parts begin: 5 µs for a small message, and 30 ms for 10 MB in base64. What is found that
way is checked: a part that is not a JSON document by itself was cut in the wrong place, and then nothing is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
from pybase64 import b64decode

from kallichore.wire.envelope import UNREADABLE
from kallichore.wire.jupyter_frames import Parts

_BEGINNING = b'{"kind":"jupyter","header":'
_PARENT = b',"parent_header":'
_CHANNEL = b',"channel":"'
_CONTENT = b'","content":'
_METADATA = b',"metadata":'
_BUFFERS = b',"buffers":'
_FIRST_BUFFER = b',"buffers":["'
_END_OF_BUFFERS = b'"]}'
_NO_BUFFERS = b',"buffers":[]}'
_PLAIN_END = b',"metadata":{},"buffers":[]}'

LONGEST_HEADER = 4096
"""Bytes within which a header is looked for; a longer one is read as JSON."""

LARGE = 1 << 18
"""Bytes from which on a content is not copied."""

_START = len(_BEGINNING)
_LIMIT = _START + LONGEST_HEADER

_NOWHERE = b"{}{}"
"""What stands in no JSON."""

_check = msgspec.json.Decoder(msgspec.Raw).decode


class EnvelopeReader:
    """Takes apart the envelopes of one session.

    Most messages have the parent and the channel of the one before, so these are remembered.

    Attributes:
        channel: Of the latest message; empty if that could not be read.
        parent: Its parent header.
    """

    def __init__(self) -> None:
        self.channel, self.parent = "", b""
        self._between = _NOWHERE
        """What stood between the header and the content of the message before."""

    def read_plain(self, payload: bytes) -> tuple[bytes, bytes] | None:
        """Return a message's header and content if it has the channel and the parent of the one before, and neither
        metadata nor buffers, as nearly all that there are many of. None if it has not, or is none.
        """
        # Not at once for what is between: a search for something that long takes four times as long.
        end = payload.find(_PARENT, _START, _LIMIT)
        if not payload.startswith(self._between, end) or not payload.endswith(_PLAIN_END):
            return None
        if not payload.startswith(_BEGINNING):
            return None
        header = payload[_START:end]
        try:
            _check(header)
        except UNREADABLE:
            return None
        return header, payload[end + len(self._between) : -len(_PLAIN_END)]

    def read(self, payload: bytes, known: Sequence[bytes] = ()) -> Parts | None:
        """Return a message's parts; None if this is no kernel's message, or has to be read as JSON.

        Args:
            payload: The envelope.
            known: Its buffers, where they are known: then they are not decoded again.
        """
        if not payload.startswith(_BEGINNING):
            return None
        try:
            end = self._read_between(payload)
            header = payload[_START:end]
            _check(header)
            content = end + len(self._between)
            if payload.endswith(_PLAIN_END):
                return Parts(self.channel, header, self.parent, b"{}", _piece(payload, content))
            buffers_at, buffers = _find_buffers(payload, known) if known else _read_buffers(payload)
            metadata_at = payload.rindex(_METADATA, content, buffers_at)
            metadata = payload[metadata_at + len(_METADATA) : buffers_at]
            _check(metadata)
        except (ValueError, *UNREADABLE):
            return None
        return Parts(self.channel, header, self.parent, metadata, payload[content:metadata_at], buffers)

    def _read_between(self, payload: bytes) -> int:
        """Take in what stands between the header and the content, and return where it begins."""
        self.channel, self._between = "", _NOWHERE
        parent_at = payload.index(_PARENT, _START, _LIMIT)
        channel_at = payload.index(_CHANNEL, parent_at)
        content_at = payload.index(_CONTENT, channel_at)
        parent = payload[parent_at + len(_PARENT) : channel_at]
        _check(parent)
        self._between = payload[parent_at : content_at + len(_CONTENT)]
        self.parent = b"{}" if parent == b"null" else parent
        self.channel = payload[channel_at + len(_CHANNEL) : content_at].decode()
        return parent_at


def _piece(payload: bytes, content: int) -> bytes:
    """Return the content of a plain message; a view of it where it is large."""
    end = len(payload) - len(_PLAIN_END)
    if end - content < LARGE:
        return payload[content:end]
    # It does for bytes wherever it is put into a frame, and is sent from where it is.
    return cast("bytes", memoryview(payload)[content:end])


def _find_buffers(payload: bytes, known: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
    """Return where the member of buffers that are known begins, and these.

    Raises:
        ValueError: It is not there.
    """
    # Four letters for three bytes or fewer; "," stands between two of them.
    size = sum((len(buffer) + 2) // 3 * 4 for buffer in known) + len(b'","') * (len(known) - 1)
    at = len(payload) - len(_END_OF_BUFFERS) - size - len(_FIRST_BUFFER)
    if payload[at : at + len(_FIRST_BUFFER)] != _FIRST_BUFFER:
        raise ValueError("other buffers")
    return at, known


def _read_buffers(payload: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Return where the buffers' member begins, and the buffers. From the end, since base64 has no quotes.

    Raises:
        ValueError: They are not there.
    """
    if payload.endswith(_NO_BUFFERS):
        return len(payload) - len(_NO_BUFFERS), ()
    if not payload.endswith(_END_OF_BUFFERS):
        raise ValueError("no buffers at the end")
    view, end, buffers = memoryview(payload), len(payload) - len(_END_OF_BUFFERS), []
    while True:
        start = payload.rindex(b'"', 0, end) + 1
        buffers.append(b64decode(view[start:end], validate=True))
        if payload[start - 2 : start - 1] == b"[":
            break
        # "," stands between two of them.
        end = start - len(b'","')
    at = start - len(b'["') - len(_BUFFERS)
    if payload[at : at + len(_BUFFERS)] != _BUFFERS:
        raise ValueError("no buffers at the end")
    return at, tuple(reversed(buffers))
