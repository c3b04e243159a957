"""The frames of one message (messaging spec, "The wire protocol").

A message is: any number of identities (a ROUTER's addresses, or an iopub topic), the delimiter, the signature,
four JSON parts, and any number of raw buffers. Identities mean nothing to us and are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from kallichore.wire.signing import Signer

DELIMITER = b"<IDS|MSG>"

AFTER_DELIMITER = 5
"""Frames that a message cannot do without: the signature, header, parent header, metadata, content."""


Frames = list[bytes | memoryview]
"""A message as it came; buffers without a copy."""


class MessageParts(NamedTuple):
    """A verified message, its JSON still as bytes."""

    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    buffers: Sequence[bytes | memoryview]


class FramesError(ValueError):
    """These frames are not a message: too few of them, or the signature is not theirs."""


def split(frames: Sequence[bytes | memoryview], signer: Signer) -> MessageParts:
    """Take a message apart and check its signature.

    A kernel that sends too few frames may have its next message glued to them by our reader (see
    `kallichore.zeromq.sockets`); so where the signature does not fit, a later delimiter is looked for before
    the frames are given up.

    Raises:
        FramesError: There is no delimiter, there are too few frames behind it, or the signature is wrong.
    """
    start = -1
    reason = "there is no <IDS|MSG> delimiter"
    while True:
        try:
            start = frames.index(DELIMITER, start + 1)
        except ValueError:
            raise FramesError(reason) from None
        # Behind the first delimiter these are bytes; behind another, what looked like buffers was made bytes below.
        signed = cast("Sequence[bytes]", frames[start + 2 : start + 1 + AFTER_DELIMITER])
        if len(signed) != AFTER_DELIMITER - 1:
            reason = f"{len(frames) - start - 1} frames follow the delimiter, a message has at least {AFTER_DELIMITER}"
        elif not signer.verify(cast("bytes", frames[start + 1]), signed):
            reason = "the signature does not fit the message and our key"
        else:
            return MessageParts._make((*signed, frames[start + 1 + AFTER_DELIMITER :]))
        frames = list(map(bytes, frames))


def join(parts: MessageParts, signer: Signer) -> Frames:
    """Return the frames that carry a message, signed. No identities: a kernel's ROUTER adds its own."""
    signature = signer.sign(parts[:4])
    return [DELIMITER, signature, *parts[:4], *parts.buffers]
