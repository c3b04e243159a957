"""The frames of one message (messaging spec, "The wire protocol").

A message is: any number of identities (a ROUTER's addresses, or an iopub topic), the delimiter, the signature,
four JSON parts, and any number of raw buffers. Identities mean nothing to us and are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kallichore.wire.signing import Signer

DELIMITER = b"<IDS|MSG>"

AFTER_DELIMITER = 5
"""Frames that a message cannot do without: the signature, header, parent header, metadata, content."""


WRONG_SIGNATURE = "the signature does not fit the message and our key"

Frames = list[bytes]
"""A message as it came."""


class MessageParts(NamedTuple):
    """A verified message, its JSON still as bytes."""

    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    buffers: Sequence[bytes]


class FramesError(ValueError):
    """These frames are not a message: too few of them, or the signature is not theirs."""


def locate(frames: Frames) -> int:
    """Return where a message's signature is, behind which there are at least the four parts.

    Raises:
        FramesError: There is no delimiter, or there are too few frames behind it.
    """
    try:
        start = frames.index(DELIMITER) + 1
    except ValueError:
        raise FramesError("there is no <IDS|MSG> delimiter") from None
    if len(frames) - start < AFTER_DELIMITER:
        count = len(frames) - start
        raise FramesError(f"{count} frames follow the delimiter, a message has at least {AFTER_DELIMITER}")
    return start


def split(frames: Frames, signer: Signer) -> MessageParts:
    """Take a message apart and check its signature. `kallichore.wire.envelope` does so in fewer steps.

    Raises:
        FramesError: There is no delimiter, there are too few frames behind it, or the signature is wrong.
    """
    start = locate(frames)
    end = start + AFTER_DELIMITER
    if not signer.verify(frames[start], frames[start + 1 : end]):
        raise FramesError(WRONG_SIGNATURE)
    header, parent_header, metadata, content = frames[start + 1 : end]
    return MessageParts(header, parent_header, metadata, content, frames[end:])


def join(parts: MessageParts, signer: Signer) -> Frames:
    """Return the frames that carry a message, signed. No identities: a kernel's ROUTER adds its own."""
    signature = signer.sign(parts[:4])
    return [DELIMITER, signature, *parts[:4], *parts.buffers]
