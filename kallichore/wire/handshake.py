"""How a kernel registers itself (JEP 66, protocol versions from 5.5).

The kernel is given a registration file instead of a connection file, chooses its own ports, and tells us them in one
signed ``handshake_request`` on the registration socket.
"""

from __future__ import annotations

import msgspec

from kallichore.wire.client_messages import Sender
from kallichore.wire.envelope import UNREADABLE, EnvelopeError, decode_header, encode
from kallichore.wire.frames import MessageParts


class KernelPorts(msgspec.Struct, frozen=True):
    """The five ports of a kernel, each 0 to 65535."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int


class HandshakeError(ValueError):
    """A message on the registration socket is not a usable ``handshake_request``; the text says why."""


def read_request(parts: MessageParts) -> KernelPorts:
    """Read a kernel's ``handshake_request``.

    Raises:
        HandshakeError: It is another message, or a port is missing or out of range.
    """
    try:
        header = decode_header(parts.header)
    except EnvelopeError as error:
        raise HandshakeError(str(error)) from error
    if header.msg_type != "handshake_request":
        raise HandshakeError(f"expected a handshake_request, got {header.msg_type}")
    try:
        ports = msgspec.json.decode(parts.content, type=KernelPorts)
    except UNREADABLE as error:
        raise HandshakeError(f"bad handshake_request: {error}") from error
    for name in ports.__struct_fields__:
        if not 0 <= getattr(ports, name) <= 65535:
            raise HandshakeError(f"bad handshake_request: {name} {getattr(ports, name)} is not a port")
    return ports


def make_reply(request_header: bytes | None, sender: Sender, msg_id: str, date: str, error: str | None) -> MessageParts:
    """Return the ``handshake_reply``: accepted, or refused with a reason so that the kernel can say why it ends.

    Args:
        request_header: The header that is answered; None where it could not be read.
        sender: The session's fields for the headers.
        msg_id: A new message id.
        date: Now, UTC, ISO 8601.
        error: Why the request is refused; None if it is accepted.
    """
    header = sender.stamp({"msg_id": msg_id, "msg_type": "handshake_reply"}, date)
    content = {"status": "ok", "capabilities": {}}
    if error is not None:
        content = {"status": "error", "error": error, "capabilities": {}}
    return MessageParts(encode(header), request_header or b"{}", b"{}", encode(content), [])
