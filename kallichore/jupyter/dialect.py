"""How a client of a Jupyter server's kernel WebSocket is spoken to. [pure]

What the kernel publishes goes to all; replies and questions go to the front end that asked. News of ours become what
Jupyter has for them: a dead kernel is a ``status``, and why it died a ``stream``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any, Literal

import attrs
import msgspec
from pybase64 import b64decode

from kallichore.attach.frames import BINARY, LARGE, TEXT, head
from kallichore.conversation.journal import Batch
from kallichore.wire.client_messages import ClientMessage, ClientMessageError
from kallichore.wire.deep_json import members_of
from kallichore.wire.envelope import UNREADABLE, EnvelopeError, decode, encode
from kallichore.wire.envelope_parts import EnvelopeReader
from kallichore.wire.jupyter_frames import (
    V1,
    JupyterFrameError,
    Parts,
    read_default,
    read_v1,
    write_default,
    write_v1,
)

MOST_ASKED = 10_000
"""Requests of a front end whose answers are still known to be its own; more than any has open at a time."""

OUR_OUTPUT = "[kallichore] "
"""How lines begin that the server itself adds to what a kernel's process prints."""

FROM_CLIENTS = ("shell", "control", "stdin")

_IOPUB = "iopub"

_pack_plain = Struct("<7Q").pack
"""A message without buffers in the subprotocol begins with these: how many offsets there are, and where what is."""

_CHANNEL_AT = 7 * 8
_HEADER_AT = _CHANNEL_AT + len(_IOPUB)

_NOTHING = msgspec.Raw(b"{}")


class _Status(msgspec.Struct, gc=False):
    status: str
    reason: str | None = None


class _Told(msgspec.Struct, gc=False):
    """What the journal has: a kernel's message, or news of the session."""

    kind: str
    header: msgspec.Raw = _NOTHING
    parent_header: msgspec.Raw = _NOTHING
    channel: str = ""
    content: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING
    buffers: list[str] = []  # msgspec makes a new one each time
    status: _Status | None = None
    output: tuple[str, str] | None = None


class _Id(msgspec.Struct, gc=False):
    msg_id: Any = None


class _Session(msgspec.Struct, gc=False):
    session: str = ""


_decode_told = msgspec.json.Decoder(_Told).decode
_decode_id = msgspec.json.Decoder(_Id).decode
_decode_session = msgspec.json.Decoder(_Session).decode


@attrs.define(eq=False)
class Asked:
    """The ids of what a front end asked: the answers to that are for it alone."""

    _ids: dict[str, None] = attrs.field(factory=dict, init=False)

    def add(self, msg_id: str) -> None:
        """Note a request; of very many the oldest are forgotten."""
        self._ids[msg_id] = None
        if len(self._ids) > MOST_ASKED:
            del self._ids[next(iter(self._ids))]

    def __contains__(self, msg_id: object) -> bool:
        return msg_id in self._ids


@attrs.define(eq=False)
class JupyterDialect:
    """One front end's way.

    Args:
        is_v1: Whether it is spoken to in the subprotocol ``v1.kernel.websocket.jupyter.org``.
        takes_buffers: Whether it can read binary frames; else it is sent a message without its buffers.
        asked: What it asked.
        is_dead: Tells whether the kernel is gone, and no other on its way in its place.
        write_header: Makes the header of a message of this type, for what is said in the kernel's place.
        buffers_of: Returns the buffers of a message, where they are still known as they came.
    """

    is_v1: bool
    takes_buffers: bool
    asked: Asked
    is_dead: Callable[[], bool]
    write_header: Callable[[str], dict[str, Any]]
    buffers_of: Callable[[bytes], Sequence[bytes]] = lambda _: ()
    _reader: EnvelopeReader = attrs.field(factory=EnvelopeReader, init=False)
    _our_session: bytes = attrs.field(init=False)
    """How a header says that a message was said in the kernel's place."""
    _said: str = attrs.field(default="", init=False)
    """The server's latest line about the kernel."""
    _latest_header: bytes = attrs.field(default=b"{}", init=False)
    goes_by_numbers: Literal[False] = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._our_session = b'"session":%s' % encode(self.write_header("status")["session"])

    @property
    def subprotocol(self) -> str | None:
        """The one that is chosen, if any."""
        return V1 if self.is_v1 else None

    # What it is told

    def frames(self, batch: Batch) -> list[bytes]:
        """Return two parts for each message: a frame's head and payload, or its beginning and what of it is large.

        Both are empty for what is another's.
        """
        parts: list[bytes] = []
        for payload in batch.payloads:
            if self.is_v1 and (spliced := self._splice(payload)) is not None:
                parts += spliced
                continue
            frames = self._frames_of(payload) if payload else []
            parts += frames if len(frames) == 2 else (b"", b"".join(frames))
        return parts

    def _splice(self, payload: bytes) -> tuple[bytes, bytes] | None:
        """Return the frame of a small message that is published and like the one before, in half the time.

        None if it is another.
        """
        reader = self._reader
        if len(payload) >= LARGE or reader.channel != _IOPUB or (plain := reader.read_plain(payload)) is None:
            return None
        header, content = plain
        if self._our_session in header:
            return None
        self._latest_header, parent = header, reader.parent
        parent_at = _HEADER_AT + len(header)
        metadata_at = parent_at + len(parent)
        content_at = metadata_at + len(b"{}")
        length = content_at + len(content)
        offsets = _pack_plain(6, _CHANNEL_AT, _HEADER_AT, parent_at, metadata_at, content_at, length)
        return head(BINARY, length) + offsets, b"iopub%b%b{}%b" % (header, parent, content)

    def live(self, payload: bytes) -> bytes:
        """Return the frames of a message that only matters now."""
        return b"".join(self._frames_of(payload))

    def lost(self, count: int) -> bytes:
        """Return the frame that tells how many messages were dropped."""
        text = f"{OUR_OUTPUT}{count} messages of this kernel were dropped, as nobody had taken them\n"
        return b"".join(self._frame(self._stream(text)))

    def farewell(self, _reason: str | None) -> bytes:
        """Return nothing: an empty close frame is what Jupyter has."""
        return b""

    def _frames_of(self, payload: bytes) -> list[bytes]:
        parts = self._reader.read(payload, self.buffers_of(payload))
        if parts is None:
            told = _read_told(payload)
            if told.kind != "jupyter":
                return [part for parts in self._news(told) for part in self._frame(parts)]
            parts = _parts_of(told)
        if self._our_session in parts.header:
            parts = msgspec.structs.replace(parts, header=encode(self._in_its_place(decode(parts.header))))
        else:
            self._latest_header = parts.header
        if parts.channel != _IOPUB and not self._is_mine(parts.parent_header):
            return []
        return self._frame(parts)

    def _in_its_place(self, header: dict[str, Any]) -> dict[str, Any]:
        """Return the header of what was said in the kernel's place, with the kernel's session if that has one.

        Front ends would take another one for a new kernel.
        """
        try:
            session = _decode_session(self._latest_header).session
        except UNREADABLE:
            session = ""
        return {**header, "session": session} if session else header

    def _is_mine(self, parent: bytes) -> bool:
        try:
            return _decode_id(parent).msg_id in self.asked
        except (TypeError, *UNREADABLE):
            return False

    def _frame(self, parts: Parts) -> list[bytes]:
        """Return a frame in two parts."""
        if self.is_v1:
            return _framed(BINARY, write_v1(parts))
        if parts.buffers and not self.takes_buffers:
            parts = msgspec.structs.replace(parts, buffers=())
        return _framed(BINARY if parts.buffers else TEXT, write_default(parts))

    def _news(self, told: _Told) -> list[Parts]:
        if told.output is not None and told.output[1].startswith(OUR_OUTPUT):
            self._said = told.output[1]
            return [self._stream(self._said)]
        if told.status is None or told.status.status != "exited" or not self.is_dead():
            return []
        why = f"{OUR_OUTPUT}{told.status.reason or 'The kernel is not running'}\n"
        reason = [] if why == self._said else [self._stream(why)]
        return [*reason, self._publish("status", {"execution_state": "dead"})]

    def _stream(self, text: str) -> Parts:
        return self._publish("stream", {"name": "stderr", "text": text})

    def _publish(self, msg_type: str, content: dict[str, Any]) -> Parts:
        """Return a message in the kernel's place."""
        return Parts("iopub", encode(self._in_its_place(self.write_header(msg_type))), b"{}", b"{}", encode(content))

    # What it says

    def read(self, data: str | bytes) -> ClientMessage:
        """Return what it says.

        Raises:
            ClientMessageError: It is no message, or for no channel.
        """
        if self.is_v1 and isinstance(data, str):
            raise ClientMessageError(f"it is text; messages of {V1} are binary")
        try:
            parts = read_v1(data) if self.is_v1 and isinstance(data, bytes) else read_default(data)
        except JupyterFrameError as error:
            raise ClientMessageError(str(error)) from error
        message = to_client_message(parts)
        self.asked.add(message.msg_id)
        return message


def to_client_message(parts: Parts) -> ClientMessage:
    """Return what a front end says as a message to the kernel, its headers as they are.

    Raises:
        ClientMessageError: A part is not JSON, the ids are missing, or the channel is none of a client's.
    """
    if parts.channel not in FROM_CLIENTS:
        raise ClientMessageError(f"its channel is {parts.channel!r}; clients speak on {', '.join(FROM_CLIENTS)}")
    header = _object(parts.header, "header")
    parent = {} if parts.parent_header == b"null" else _object(parts.parent_header, "parent_header")
    for document, where in ((parts.content, "content"), (parts.metadata, "metadata")):
        _check(document, where)
    msg_id, msg_type = header.get("msg_id"), header.get("msg_type")
    if not isinstance(msg_id, str) or not isinstance(msg_type, str):
        raise ClientMessageError("its header needs the strings msg_id and msg_type")
    return ClientMessage(
        msg_id,
        msg_type,
        parts.channel,
        header,
        parent or None,
        parts.content,
        parts.metadata,
        tuple(parts.buffers),
        keeps_header=True,
    )


def _object(document: bytes, where: str) -> dict[str, Any]:
    try:
        value = decode(document)
    except EnvelopeError as error:
        raise ClientMessageError(f"its {where} is {error}") from error
    if not isinstance(value, dict):
        raise ClientMessageError(f"its {where} is no object")
    return value


def _check(document: bytes, where: str) -> None:
    try:
        decode(document)
    except EnvelopeError as error:
        try:
            members_of(document)
        except ValueError:
            raise ClientMessageError(f"its {where} is {error}") from error


def _framed(opcode: int, pieces: list[bytes]) -> list[bytes]:
    """Return a frame in two parts: what is last and large is not copied once more."""
    length = sum(map(len, pieces))
    if len(pieces[-1]) >= LARGE:
        return [b"".join([head(opcode, length), *pieces[:-1]]), pieces[-1]]
    return [head(opcode, length), b"".join(pieces)]


def _read_told(payload: bytes) -> _Told:
    try:
        return _decode_told(payload)
    except RecursionError:
        return _read_deep(payload)


def _parts_of(told: _Told) -> Parts:
    parent = bytes(told.parent_header)
    buffers = [b64decode(buffer) for buffer in told.buffers]
    return Parts(
        told.channel,
        bytes(told.header),
        b"{}" if parent == b"null" else parent,
        bytes(told.metadata),
        bytes(told.content),
        buffers,
    )


def _read_deep(payload: bytes) -> _Told:
    """Read a message that is nested deeper than readers go: its documents travel as bytes anyway."""
    members = {name.strip(b'"').decode(): value for name, value in members_of(payload).items()}
    header, parent, content, metadata = (
        msgspec.Raw(members[name]) for name in ("header", "parent_header", "content", "metadata")
    )
    channel, buffers = decode(members["channel"]), decode(members["buffers"])
    return _Told("jupyter", header, parent, channel, content, metadata, buffers)
