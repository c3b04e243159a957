"""Messages on a Jupyter server's kernel WebSocket, in both of its framings and both directions. [pure]

The *default* framing is a JSON object in a text frame, or, where there are buffers, a binary frame: 32-bit big-endian
offsets, that object, the buffers. ``v1.kernel.websocket.jupyter.org`` is a binary frame with 64-bit little-endian
offsets and a message's parts as they are on the wire to the kernel, so that nothing has to be built or read again
(jupyter_server, "WebSocket kernel wire protocols").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from kallichore.wire.deep_json import DeepJsonError, members_of
from kallichore.wire.envelope import UNREADABLE, EnvelopeError, decode

V1 = "v1.kernel.websocket.jupyter.org"
"""The name of the subprotocol."""

CHANNELS = ("shell", "control", "stdin", "iopub")

MOST_PARTS = 1 << 16
"""Parts of a message at most, against frames that say they have billions."""


class JupyterFrameError(ValueError):
    """A frame is not a message; the text says what is wrong with it."""


class Parts(msgspec.Struct, frozen=True, gc=False):
    """One message: its channel, its four JSON documents as bytes, and its buffers."""

    channel: str
    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    buffers: Sequence[bytes] = ()


class _Ids(msgspec.Struct, gc=False):
    msg_id: Any = ""
    msg_type: Any = ""


class _Object(msgspec.Struct, gc=False):
    """A message of the default framing, without its buffers."""

    header: msgspec.Raw
    content: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    parent_header: msgspec.Raw = msgspec.Raw(b"{}")
    channel: str | None = None


_decode_object = msgspec.json.Decoder(_Object).decode
_decode_ids = msgspec.json.Decoder(_Ids).decode
_encode = msgspec.json.encode


def write_v1(parts: Parts) -> list[bytes]:
    """Return the pieces of a binary frame's payload."""
    pieces = [parts.channel.encode(), parts.header, parts.parent_header, parts.metadata, parts.content, *parts.buffers]
    count = len(pieces) + 1
    offset = 8 * (count + 1)
    offsets = [offset]
    for piece in pieces:
        offset += len(piece)
        offsets.append(offset)
    return [struct.pack(f"<{count + 1}Q", count, *offsets), *pieces]


def read_v1(frame: bytes) -> Parts:
    """Read a binary frame's payload.

    Raises:
        JupyterFrameError: It is no message.
    """
    offsets = _read_offsets(frame, "<Q", least=6)
    if offsets[-1] != len(frame):
        raise JupyterFrameError(f"the last offset is {offsets[-1]}, but the frame has {len(frame)} bytes")
    pieces = [frame[start:end] for start, end in pairwise(offsets)]
    channel = pieces[0].decode("utf-8", "replace")
    return Parts(channel, pieces[1], pieces[2], pieces[3], pieces[4], tuple(pieces[5:]))


def write_default(parts: Parts) -> list[bytes]:
    """Return the pieces of a payload: of a text frame if there are no buffers, else of a binary one."""
    if not parts.buffers:
        return [b"".join((*_open_object(parts), b',"buffers":[]}'))]
    pieces = [b"".join((*_open_object(parts), b"}")), *parts.buffers]
    count = len(pieces)
    offset = 4 * (count + 1)
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    if offsets[-1] >= 1 << 32:
        raise JupyterFrameError("a message of more than 4 GiB has no default framing")
    return [struct.pack(f">{count + 1}I", count, *offsets), *pieces]


def _open_object(parts: Parts) -> tuple[bytes, ...]:
    # Clients in Python read the copies of msg_id and msg_type that stand beside the header.
    try:
        ids = _decode_ids(parts.header)
    except UNREADABLE:
        ids = _Ids()
    return (
        b'{"msg_id":',
        _encode(ids.msg_id),
        b',"msg_type":',
        _encode(ids.msg_type),
        b',"channel":',
        _encode(parts.channel),
        b',"header":',
        parts.header,
        b',"parent_header":',
        parts.parent_header,
        b',"metadata":',
        parts.metadata,
        b',"content":',
        parts.content,
    )


def read_default(frame: str | bytes) -> Parts:
    """Read a text frame's payload, or a binary frame's. What names no channel is for the shell.

    Raises:
        JupyterFrameError: It is no message.
    """
    if isinstance(frame, str):
        return _read_object(frame.encode("utf-8", "replace"), ())
    offsets = [*_read_offsets(frame, ">I", least=1), len(frame)]
    document, *buffers = (frame[start:end] for start, end in pairwise(offsets))
    return _read_object(document, tuple(buffers))


def _read_object(document: bytes, buffers: Sequence[bytes]) -> Parts:
    try:
        found = _decode_object(document)
    except RecursionError:
        found = _read_deep_object(document)
    except UNREADABLE as error:
        raise JupyterFrameError(f"the message is no such JSON: {error}") from error
    parent = bytes(found.parent_header)
    return Parts(
        found.channel or "shell",
        bytes(found.header),
        b"{}" if parent == b"null" else parent,
        bytes(found.metadata),
        bytes(found.content),
        buffers,
    )


def _read_deep_object(document: bytes) -> _Object:
    """Read a message that is nested deeper than readers go: its documents travel as bytes anyway."""
    try:
        members = {name.strip(b'"').decode(): value for name, value in members_of(document).items()}
        channel = decode(members.pop("channel", b"null"))
    except (DeepJsonError, EnvelopeError, UnicodeError) as error:
        raise JupyterFrameError(f"the message is no such JSON: {error}") from error
    documents = {name: msgspec.Raw(members[name]) for name in _Object.__struct_fields__ if name in members}
    if "header" not in documents:
        raise JupyterFrameError("the message has no header")
    return _Object(**documents, channel=channel if isinstance(channel, str) else None)


def _read_offsets(frame: bytes, number: str, *, least: int) -> tuple[int, ...]:
    """Return the offsets at the beginning of a frame, having seen that they follow each other within it."""
    size = struct.calcsize(number)
    if len(frame) < size:
        raise JupyterFrameError(f"a frame of {len(frame)} bytes has no number of offsets")
    (count,) = struct.unpack_from(number, frame)
    if not least <= count <= MOST_PARTS:
        raise JupyterFrameError(f"it says that it has {count} offsets; there are at least {least}")
    begin = size * (count + 1)
    if len(frame) < begin:
        raise JupyterFrameError(f"it says that it has {count} offsets, but it ends before the last")
    offsets: tuple[int, ...] = struct.unpack_from(f"{number[0]}{count}{number[1]}", frame, size)
    if offsets[0] < begin or offsets[-1] > len(frame) or any(a > b for a, b in pairwise(offsets)):
        raise JupyterFrameError(f"its offsets are {list(offsets[:8])}; they must ascend from {begin} to {len(frame)}")
    return offsets
