"""The frames of a message: what is joined comes apart again, and what is no message is refused in words."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.wire.frames import DELIMITER, FramesError, MessageParts, join, split
from kallichore.wire.signing import Signer

SIGNER = Signer("key")
PARTS = MessageParts(b'{"msg_id":"1"}', b"{}", b'{"m":0}', b'{"code":"1"}', [])

frames = st.binary(max_size=40)
parts = st.builds(MessageParts, frames, frames, frames, frames, st.lists(frames, max_size=4))
signers = st.sampled_from([SIGNER, Signer("")])


@given(parts, signers, st.lists(frames.filter(lambda frame: frame != DELIMITER), max_size=3))
def test_joined_message_comes_apart_as_it_was(message: MessageParts, signer: Signer, identities: list[bytes]) -> None:
    """Any four parts and any buffers survive the way to the frames and back, behind any number of identities."""
    assert message == split([*identities, *join(message, signer)], signer)


def test_frames_are_those_of_the_messaging_specification() -> None:
    """The delimiter, the signature, the four parts and the buffers follow each other; buffers are not signed."""
    message = PARTS._replace(buffers=[b"first", b""])

    assert DELIMITER == b"<IDS|MSG>"
    assert join(message, SIGNER) == [DELIMITER, SIGNER.sign(PARTS[:4]), *PARTS[:4], b"first", b""]


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        ([], "no <IDS|MSG> delimiter"),
        ([b"identity", b"{}"], "no <IDS|MSG> delimiter"),
        ([DELIMITER], "0 frames follow the delimiter"),
        ([b"identity", *join(PARTS, SIGNER)[:-1]], "4 frames follow the delimiter"),
        (join(PARTS, Signer("another key")), "the signature does not fit"),
        (join(PARTS, Signer("")), "the signature does not fit"),
    ],
)
def test_error_says_what_is_wrong_with_the_frames(received: list[bytes], reason: str) -> None:
    """Frames that are no message are refused with the reason."""
    with pytest.raises(FramesError, match=reason):
        split(received, SIGNER)


@pytest.mark.parametrize("changed", range(4))
def test_change_of_any_signed_part_is_noticed(changed: int) -> None:
    """A message of which one part was altered on the way is refused."""
    received = join(PARTS, SIGNER)
    received[2 + changed] += b" "

    with pytest.raises(FramesError, match="signature"):
        split(received, SIGNER)


def test_delimiter_among_the_buffers_is_a_buffer() -> None:
    """A buffer that looks like a delimiter does not end the message."""
    message = PARTS._replace(buffers=[DELIMITER, b"more"])

    assert split(join(message, SIGNER), SIGNER) == message


@given(st.lists(st.one_of(frames, st.just(DELIMITER)), max_size=12))
def test_garbage_is_refused_and_nothing_else(received: list[bytes]) -> None:
    """Whatever the frames, they are refused with the one error: nobody else knows the key."""
    with pytest.raises(FramesError):
        split(received, SIGNER)
