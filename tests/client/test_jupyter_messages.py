"""Frames of a Jupyter server's WebSocket, as a client reads and writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.client.channel_client import make_execute_request, make_message
from kallichore.client.jupyter_messages import end_news, read_frame, write_frame
from kallichore.wire.envelope import EnvelopeError
from kallichore.wire.jupyter_frames import JupyterFrameError, Parts, read_default, read_v1, write_default, write_v1

JSON = st.dictionaries(st.text(), st.none() | st.integers(-(2**53), 2**53) | st.text())


def published(msg_type: str, content: dict[str, Any], channel: str = "iopub", *, is_v1: bool = True) -> str | bytes:
    """Return a server's frame."""
    header = json.dumps({"msg_id": "m", "msg_type": msg_type}).encode()
    parts = Parts(channel, header, b"{}", b"{}", json.dumps(content).encode())
    return b"".join(write_v1(parts)) if is_v1 else b"".join(write_default(parts)).decode()


@pytest.mark.parametrize("is_v1", [True, False])
@given(
    content=JSON, metadata=JSON, parent=JSON, buffers=st.lists(st.binary()), channel=st.sampled_from(["shell", "iopub"])
)
def test_message_is_the_same_behind_either_framing(
    is_v1: bool, content: Any, metadata: Any, parent: Any, buffers: list[bytes], channel: str
) -> None:
    """What is sent is what is read, buffers in base64 as on our own channels; a parent that is empty is none."""
    header = {"msg_id": "m", "msg_type": "comm_msg", "session": "s"}
    documents = (json.dumps(each).encode() for each in (header, parent, metadata, content))
    frame = read_frame(b"".join(write_v1(Parts(channel, *documents, buffers))), is_v1=True)[0]
    again = read_frame(write_frame(frame, "s", is_v1=is_v1), is_v1=is_v1)

    assert [{**frame, "kind": "jupyter"}] == again
    assert (header, parent or None, channel, content, metadata) == (
        frame["header"], frame["parent_header"], frame["channel"], frame["content"], frame["metadata"],
    )  # fmt: skip


def test_request_names_the_clients_session_and_has_a_parent_that_is_an_object() -> None:
    """As Jupyter's own clients write it: text in the default framing, binary in v1."""
    request = make_execute_request("1")
    text, binary = (write_frame(request, "mine", is_v1=is_v1) for is_v1 in (False, True))
    assert isinstance(binary, bytes)

    assert isinstance(text, str)
    for parts in (read_default(text), read_v1(binary)):
        assert ("mine", b"{}", "shell") == (json.loads(parts.header)["session"], parts.parent_header, parts.channel)


@pytest.mark.parametrize("is_v1", [True, False])
@pytest.mark.parametrize(
    ("msg_type", "content", "reason"),
    [
        ("status", {"execution_state": "dead"}, "the server says that it is dead"),
        ("status", {"execution_state": "restarting"}, "it died, and the server starts it again"),
        ("shutdown_reply", {"restart": True}, "somebody restarted it"),
        ("shutdown_reply", {"restart": False}, "somebody had it end"),
    ],
)
def test_end_of_a_kernel_is_told_as_our_own_channels_do(
    is_v1: bool, msg_type: str, content: dict[str, Any], reason: str
) -> None:
    """Behind the message that says so."""
    message, *news = read_frame(published(msg_type, content, is_v1=is_v1), is_v1=is_v1)

    assert (msg_type, content) == (message["header"]["msg_type"], message["content"])
    assert end_news(reason) == news


@pytest.mark.parametrize(
    ("msg_type", "content", "channel"),
    [
        ("status", {"execution_state": "idle"}, "iopub"),
        ("status", {}, "iopub"),
        ("shutdown_reply", {"restart": False}, "control"),
        ("stream", {"name": "stdout", "text": "dead"}, "iopub"),
    ],
)
def test_other_messages_tell_no_end(msg_type: str, content: dict[str, Any], channel: str) -> None:
    """Nor does the reply to who asked for it: what the kernel publishes is for all."""
    assert 1 == len(read_frame(published(msg_type, content, channel), is_v1=True))


@pytest.mark.parametrize(("payload", "is_v1"), [(b"", True), (b"\1" * 40, True), ("{", False), ("[]", False)])
def test_what_is_no_message_is_an_error(payload: str | bytes, is_v1: bool) -> None:
    """Of any length."""
    with pytest.raises((JupyterFrameError, EnvelopeError)):
        read_frame(payload, is_v1=is_v1)


def test_input_reply_goes_to_the_channel_for_answers() -> None:
    """The channel is in the frame."""
    frame = write_frame(make_message("input_reply", {"value": "x"}, "stdin"), "s", is_v1=False)

    assert "stdin" == json.loads(frame)["channel"]
