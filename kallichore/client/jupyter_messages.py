"""A Jupyter server's WebSocket frames as the messages that our own channels have. [pure]

What Jupyter has for a kernel's end is put into our words, ``status`` and ``exited`` of ``kind`` ``kernel``: a status
``dead`` or ``restarting``, which the server says in the kernel's place, and the farewell that a kernel publishes when
somebody has it end. None of these is told to those whose requests are lost by it.
"""

from __future__ import annotations

from typing import Any

from pybase64 import b64decode, b64encode

from kallichore.wire.envelope import decode, encode
from kallichore.wire.jupyter_frames import Parts, read_default, read_v1, write_default, write_v1

Message = dict[str, Any]


def write_frame(message: Message, session: str, *, is_v1: bool) -> str | bytes:
    """Return the payload of the frame with which a message is sent: text, or binary.

    Args:
        message: As our own channels take it.
        session: The id of the client's session, which its headers name.
        is_v1: Whether the subprotocol ``v1.kernel.websocket.jupyter.org`` was chosen.
    """
    parts = Parts(
        message["channel"],
        encode({**message["header"], "session": session}),
        encode(message["parent_header"] or {}),
        encode(message["metadata"]),
        encode(message["content"]),
        [b64decode(buffer) for buffer in message["buffers"]],
    )
    if is_v1:
        return b"".join(write_v1(parts))
    payload = b"".join(write_default(parts))
    return payload if parts.buffers else payload.decode()


def read_frame(payload: str | bytes, *, is_v1: bool) -> list[Message]:
    """Return the message of a frame, and the news that follow from it.

    Raises:
        JupyterFrameError: It is no message.
        EnvelopeError: A part of it is not JSON.
    """
    parts = read_v1(payload) if is_v1 and isinstance(payload, bytes) else read_default(payload)
    message = {
        "kind": "jupyter",
        "header": decode(parts.header),
        "parent_header": decode(parts.parent_header) or None,
        "channel": parts.channel,
        "content": decode(parts.content),
        "metadata": decode(parts.metadata),
        "buffers": [b64encode(buffer).decode() for buffer in parts.buffers],
    }
    reason = _end_in(message)
    return [message] if reason is None else [message, *end_news(reason)]


def end_news(reason: str) -> list[Message]:
    """Return the news that a kernel has ended."""
    return [
        {"kind": "kernel", "status": {"status": "exited", "reason": reason}},
        {"kind": "kernel", "exited": None},
    ]


def _end_in(message: Message) -> str | None:
    """Return why the kernel has ended, if a message says so."""
    content = message["content"]
    match message["channel"], message["header"].get("msg_type"):
        case "iopub", "status" if content.get("execution_state") == "dead":
            return "the server says that it is dead"
        case "iopub", "status" if content.get("execution_state") == "restarting":
            return "it died, and the server starts it again"
        case "iopub", "shutdown_reply":
            return "somebody restarted it" if content.get("restart") else "somebody had it end"
    return None
