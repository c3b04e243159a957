"""What a client at a WebSocket is told, and how what it says is read: the API's own way, and room for another's.

The session, its journal and what was delivered are the same for all clients. A dialect only words it: it makes the
frames of messages, and reads the frames of requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import attrs

from kallichore.attach.frames import text_frame, text_frames
from kallichore.conversation.journal import Batch
from kallichore.wire.client_messages import ClientMessage, ClientMessageError, kernel_message, parse


class Dialect(Protocol):
    """How one client is spoken to."""

    @property
    def subprotocol(self) -> str | None:
        """The WebSocket subprotocol that is chosen (RFC 6455, 1.9); None for none."""

    @property
    def goes_by_numbers(self) -> bool:
        """Whether the client says itself what it has: then its answers to pings only free memory."""

    def frames(self, batch: Batch) -> list[bytes]:
        """Return two parts of frames for each message, such as head and payload; empty for what it is not told."""

    def live(self, payload: bytes) -> bytes:
        """Return the frame of a message that only matters now; empty where it is not told."""

    def lost(self, count: int) -> bytes:
        """Return the frame that tells how many messages were dropped."""

    def farewell(self, reason: str | None) -> bytes:
        """Return the frame that tells one who was displaced why; empty where it is not told."""

    def read(self, data: str | bytes) -> ClientMessage:
        """Return what the client says in a text message or a binary one.

        Raises:
            ClientMessageError: That is no message; the connection goes on.
        """


@attrs.frozen
class KallichoreDialect:
    """The API's own: messages as the journal has them, in text frames.

    Args:
        goes_by_numbers: Whether it is told the messages' numbers.
        subprotocol: The subprotocol that is chosen.
    """

    goes_by_numbers: bool
    subprotocol: str | None = None

    def frames(self, batch: Batch) -> list[bytes]:
        return text_frames(_numbered(batch) if self.goes_by_numbers else batch.payloads)

    def live(self, payload: bytes) -> bytes:
        return text_frame(payload)

    def lost(self, count: int) -> bytes:
        return text_frame(kernel_message("messagesLost", count))

    def farewell(self, reason: str | None) -> bytes:
        return text_frame(kernel_message("clientDisconnected", reason))

    def read(self, data: str | bytes) -> ClientMessage:
        if isinstance(data, bytes):
            raise ClientMessageError("it is in a binary frame; the API's messages are text")
        return parse(data)


def _numbered(batch: Batch) -> Iterator[bytes]:
    """Return the messages of a batch with their numbers, counted from 1, as their last member ``seq``."""
    first = batch.next_position - len(batch.payloads) + 1
    numbered = enumerate(batch.payloads, first)
    return (payload and b'%s,"seq":%d}' % (payload[:-1], number) for number, payload in numbered)
