"""The records of a session's log, as bytes: each tells where it ends and whether it is whole. [pure]

A server may be killed in the middle of a write, a disk may fill up, and a byte may turn: reading never trusts what it
finds. Whatever follows a damaged record is found again by the bytes that each record begins with. Messages and parts
are JSON text, in which those bytes do not occur.

A record is a header, a head in MessagePack that tells what is in it, and behind that the parts and messages
themselves, as they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Annotated, TypeAlias

import attrs
import msgspec

MAGIC = b"\xffKR\x01"
"""What each record begins with."""

_HEADER = struct.Struct(">4sBIQI")
"""The magic, the kind, how long the head is, how long head and contents are, and their CRC32."""

_CHECK = struct.Struct(">I")
"""The CRC32 of the header itself: a record that the end of the file cuts is told from one whose length is damaged."""

HEADER_SIZE = _HEADER.size + _CHECK.size

LARGE = 1 << 16
"""Bytes of contents that are written as they are; smaller ones are joined, as one write costs more than a copy."""

Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]

Numbers: TypeAlias = tuple[Natural, Natural]
"""Numbers of messages: the first, and the one behind the last."""


class Kind(IntEnum):
    """What a commit is written as."""

    SNAPSHOT = 1
    """With all parts there are: what was before is not needed to read it, except for its messages."""
    CHANGES = 2
    """With the parts that changed."""


class Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a record says of itself, and of what is behind the head: the parts, then the messages.

    Args:
        serial: How many commits were before it.
        generation: How many times messages were taken back before it.
        first: The number of its first message, or of the next one if it has none.
        sizes: Of its messages.
        names: Of its parts.
        part_sizes: Of its parts. Among changes, an empty one is gone.
        urgent: The numbers of its urgent messages.
        taken_back: What is taken back before its messages are added, one after another; each time the numbers in
            ascending order, as they were until then.
    """

    serial: Natural
    generation: Natural
    first: Natural
    sizes: Sequence[Natural] = ()
    names: Sequence[str] = ()
    part_sizes: Sequence[Natural] = ()
    urgent: Sequence[Numbers] = ()
    taken_back: Sequence[Sequence[Numbers]] = ()


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Head).decode


def encode(kind: int, head: Head, contents: Sequence[bytes]) -> list[bytes]:
    """Return a record as bytes to be written one behind the other.

    Args:
        kind: What it is.
        head: What it says, sizes included.
        contents: Its parts and messages, in the order of the head's sizes.
    """
    encoded = _encode_head(head)
    length = len(encoded) + sum(head.part_sizes) + sum(head.sizes)
    if length < LARGE:
        body = b"".join((encoded, *contents))
        return [_header(kind, len(encoded), length, zlib.crc32(body)) + body]
    pieces = _gather([encoded, *contents])
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return [_header(kind, len(encoded), length, crc), *pieces]


def _header(kind: int, head_size: int, length: int, crc: int) -> bytes:
    header = _HEADER.pack(MAGIC, kind, head_size, length, crc)
    return header + _CHECK.pack(zlib.crc32(header))


def _gather(contents: list[bytes]) -> list[bytes]:
    """Return the same bytes in few pieces, without copying what is large."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for each in contents:
        if len(each) < LARGE:
            small.append(each)
            continue
        pieces += [b"".join(small), each]
        small = []
    return [*pieces, b"".join(small)]


@attrs.frozen
class Record:
    """A whole record, as it was read.

    Args:
        kind: What it is.
        head: What it says of itself.
        contents: Its parts and messages.
    """

    kind: Kind
    head: Head
    contents: memoryview

    def parts(self) -> dict[str, bytes]:
        """Return its parts by their names."""
        bounds = pairwise(accumulate(self.head.part_sizes, initial=0))
        pieces = (bytes(self.contents[begin:end]) for begin, end in bounds)
        return dict(zip(self.head.names, pieces, strict=True))

    def messages(self, start: int, stop: int) -> list[bytes]:
        """Return some of its messages, by their places among them."""
        sizes = self.head.sizes
        begin = sum(self.head.part_sizes) + sum(sizes[:start])
        bounds = pairwise(accumulate(sizes[start:stop], initial=begin))
        return [bytes(self.contents[begin:end]) for begin, end in bounds]


@attrs.frozen
class Damage:
    """Bytes that are no record.

    Args:
        position: Where they begin.
        size: How many they are.
        is_cut: Whether they are the beginning of a record, at the end of the file: of a write that was cut short.
    """

    position: int
    size: int
    is_cut: bool


def read_records(data: bytes) -> Iterator[Record | Damage]:
    """Return what is in a file, from its beginning to its end."""
    view = memoryview(data)
    position = 0
    while position < len(data):
        found = _record_at(view, position)
        if isinstance(found, tuple):
            record, position = found
            yield record
            continue
        behind = _next_record(data, view, position + 1)
        yield Damage(position, behind - position, found and behind == len(data))
        position = behind


def _next_record(data: bytes, view: memoryview, position: int) -> int:
    """Return where the next whole record begins; the end if there is none."""
    while (position := data.find(MAGIC, position)) != -1:
        if isinstance(_record_at(view, position), tuple):
            return position
        position += len(MAGIC)
    return len(data)


def _record_at(view: memoryview, position: int) -> tuple[Record, int] | bool:
    """Return the record that begins here and where it ends; if there is none, whether this is the beginning of one."""
    header = view[position : position + HEADER_SIZE]
    if len(header) < HEADER_SIZE:
        return header[: len(MAGIC)] == MAGIC[: len(header)]
    magic, kind, head_size, length, crc = _HEADER.unpack_from(header)
    if magic != MAGIC or (zlib.crc32(header[: _HEADER.size]),) != _CHECK.unpack_from(header, _HEADER.size):
        return False
    behind = position + HEADER_SIZE + length
    if behind > len(view):
        return True
    body = view[position + HEADER_SIZE : behind]
    if zlib.crc32(body) != crc:
        return False
    try:
        record = Record(Kind(kind), _decode_head(body[:head_size]), body[head_size:])
    except (msgspec.MsgspecError, ValueError):
        return False
    return (record, behind) if _is_consistent(record) else False


def _is_consistent(record: Record) -> bool:
    """Whether what a record says of itself fits what is in it."""
    head = record.head
    contents = sum(head.sizes) + sum(head.part_sizes)
    return contents == len(record.contents) and len(head.names) == len(head.part_sizes)
