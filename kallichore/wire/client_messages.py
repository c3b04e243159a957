"""What a client sends on its channel, and the ``kind: kernel`` messages that it is sent.

A client's content and metadata go to the kernel byte for byte and are signed as sent. Its header keeps members that
we do not know; session, username, version and date are the server's, as the API promises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec
from pybase64 import b64decode, b64encode

from kallichore.wire.deep_json import DeepJsonError, members_of
from kallichore.wire.envelope import UNREADABLE, EnvelopeError, decode, encode
from kallichore.wire.frames import MessageParts


class ClientMessageError(ValueError):
    """A client's text frame is not a Jupyter message; the text says what is wrong where."""


class _Execution(msgspec.Struct):
    code: str


class _Shallow(msgspec.Struct):
    """An envelope without what travels as bytes."""

    header: dict[str, Any]
    channel: Literal["shell", "control", "stdin", "iopub", "heartbeat", "registration"]
    buffers: list[str]
    parent_header: dict[str, Any] | None = None


class _Envelope(_Shallow, kw_only=True):
    content: msgspec.Raw
    metadata: msgspec.Raw


class ClientMessage(msgspec.Struct, frozen=True):
    """One Jupyter message on its way to the kernel."""

    msg_id: str
    msg_type: str
    channel: str
    header: dict[str, Any]
    parent_header: dict[str, Any] | None
    content: bytes
    metadata: bytes = b"{}"
    buffers: tuple[bytes, ...] = ()
    keeps_header: bool = False
    """Whether its headers say who sent it and when, as the client wrote them; else that is the session's to say."""

    def as_body(self) -> dict[str, Any]:
        """Return the message as the API shows it in an execution queue."""
        return {
            "header": self.header,
            "parent_header": self.parent_header,
            "channel": self.channel,
            "content": _shown(self.content),
            "metadata": _shown(self.metadata),
            "buffers": [b64encode(buffer).decode() for buffer in self.buffers],
        }

    @property
    def is_beside(self) -> bool:
        """Whether the kernel serves this beside its main shell: on control, or in a subshell (JEP 91)."""
        return self.channel == "control" or self.header.get("subshell_id") is not None

    @property
    def is_execution(self) -> bool:
        """Whether this is an ``execute_request`` with code for the main shell: what the execution queue is about."""
        if self.msg_type != "execute_request" or self.is_beside:
            return False
        try:
            _decode_execution(self.content)
        except UNREADABLE:
            return False
        return True


def _shown(document: bytes) -> Any:
    """Return what a document says, or that it is too deep to be shown."""
    try:
        return decode(document)
    except EnvelopeError:
        return f"[{len(document)} bytes, nested too deep to be shown]"


_decode_execution = msgspec.json.Decoder(_Execution).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_rest = msgspec.json.Decoder(_Shallow).decode


def _check_ids(header: dict[str, Any], where: str) -> tuple[str, str]:
    msg_id, msg_type = header.get("msg_id"), header.get("msg_type")
    if not isinstance(msg_id, str) or not isinstance(msg_type, str):
        raise ClientMessageError(f"{where} needs the strings msg_id and msg_type")
    return msg_id, msg_type


def parse(text: str | bytes) -> ClientMessage:
    """Read a client's text frame.

    Raises:
        ClientMessageError: It is not a Jupyter message; nothing is to be sent for it.
    """
    envelope = _read_envelope(text)
    msg_id, msg_type = _check_ids(envelope.header, "header")
    parent = envelope.parent_header or None
    if parent is not None:
        _check_ids(parent, "parent_header")
    return ClientMessage(
        msg_id,
        msg_type,
        envelope.channel,
        envelope.header,
        parent,
        bytes(envelope.content),
        bytes(envelope.metadata),
        _decode_buffers(envelope.buffers),
    )


def _read_envelope(text: str | bytes) -> _Envelope:
    try:
        return _decode_envelope(text)
    except RecursionError:
        return _read_deep_envelope(text.encode("utf-8", "replace") if isinstance(text, str) else text)
    except UNREADABLE as error:
        raise ClientMessageError(str(error)) from error


def _read_deep_envelope(text: bytes) -> _Envelope:
    """Read an envelope whose content or metadata are nested deeper than readers go; they travel as bytes anyway."""
    try:
        members = members_of(text)
        opaque = {name: msgspec.Raw(members.pop(b'"%s"' % name.encode())) for name in ("content", "metadata")}
        rest = _decode_rest(b"{%s}" % b",".join(name + b":" + value for name, value in members.items()))
    except KeyError as error:
        raise ClientMessageError(f"Object missing required field {error}") from error
    except (DeepJsonError, *UNREADABLE) as error:
        raise ClientMessageError(str(error)) from error
    return _Envelope(rest.header, rest.channel, rest.buffers, rest.parent_header, **opaque)


def _decode_buffers(buffers: list[str]) -> tuple[bytes, ...]:
    try:
        return tuple(b64decode(buffer, validate=True) for buffer in buffers)
    except ValueError as error:
        raise ClientMessageError(f"buffers: not base64: {error}") from error


def make(
    msg_type: str,
    msg_id: str,
    content: dict[str, Any],
    channel: str = "shell",
    metadata: Mapping[str, Any] | None = None,
) -> ClientMessage:
    """Return a message of the server's own, or of somebody in this process."""
    header = {"msg_id": msg_id, "msg_type": msg_type}
    return ClientMessage(msg_id, msg_type, channel, header, None, encode(content), encode(metadata or {}))


class Sender(msgspec.Struct, frozen=True):
    """Who the kernel is told a message comes from: the header fields that are the session's."""

    session: str
    username: str
    version: str

    def stamp(self, header: dict[str, Any], date: str) -> dict[str, Any]:
        """Return ``header`` with the session's own fields and the date (UTC, ISO 8601)."""
        return {
            **header,
            "session": self.session,
            "username": self.username,
            "date": date,
            "version": self.version,
        }


def to_kernel(message: ClientMessage, sender: Sender, date: str) -> MessageParts:
    """Return the parts to sign and send for ``message``."""
    parent = message.parent_header

    def written(header: dict[str, Any]) -> bytes:
        return encode({**sender.stamp({}, date), **header} if message.keeps_header else sender.stamp(header, date))

    return MessageParts(
        written(message.header),
        b"{}" if parent is None else written(parent),
        message.metadata,
        message.content,
        message.buffers,
    )


class _Parent(msgspec.Struct):
    msg_id: str = ""


class _Told(msgspec.Struct):
    """Of what a client is sent, what it belongs to."""

    parent_header: _Parent | None = None
    output: msgspec.Raw = msgspec.Raw(b"")


_decode_told = msgspec.json.Decoder(_Told).decode


def belongs_to(payload: bytes, requests: Collection[str]) -> bool | None:
    """Return whether what a client is sent belongs to one of these requests; None for what a process printed.

    That has no parent, whoever it was printed for.
    """
    try:
        told = _decode_told(payload)
    except UNREADABLE:
        return False
    if told.output != msgspec.Raw(b""):
        return None
    return told.parent_header is not None and told.parent_header.msg_id in requests


def kernel_message(member: str, value: Any) -> bytes:
    """Return a ``kind: kernel`` message: news of the session, in an object with one further member.

    Members: ``status``, ``output``, ``executionQueued``, ``workingDirChanged``, ``resourceUsage``,
    ``clientDisconnected``, ``exited``, ``handshakeCompleted``, and ours, ``messagesLost``.
    """
    return encode({"kind": "kernel", member: value})
