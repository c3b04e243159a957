"""Clients' messages: to the kernel byte for byte, with the session's own fields in the header, or refused in words."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.wire.client_messages import (
    ClientMessage,
    ClientMessageError,
    Sender,
    kernel_message,
    make,
    parse,
    to_kernel,
)
from kallichore.wire.envelope import encode

SENDER = Sender("our session", "our user", "5.3")
DATE = "2024-05-01T12:00:00.000000Z"
STAMP = {"session": "our session", "username": "our user", "version": "5.3", "date": DATE}
HEADER = {"msg_id": "1", "msg_type": "execute_request"}
MESSAGE: dict[str, Any] = {
    "header": HEADER,
    "parent_header": None,
    "channel": "shell",
    "content": {"code": "1"},
    "metadata": {},
    "buffers": [],
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def text_of(content: str = "{}", **members: Any) -> str:
    """Return a text frame with this content, as written, and other members in place of the usual ones."""
    others = {name: value for name, value in {**MESSAGE, **members}.items() if name != "content"}
    return f'{{"content":{content},{json.dumps(others)[1:]}'


@given(
    json_values,
    json_values,
    st.lists(st.binary(max_size=20), max_size=3),
    st.sampled_from(["shell", "control", "stdin"]),
)
def test_message_is_read_as_it_was_written(content: Any, metadata: Any, buffers: list[bytes], channel: str) -> None:
    """Any JSON and any buffers are taken over, and shown again as the API has them."""
    document = {
        **MESSAGE,
        "channel": channel,
        "content": content,
        "metadata": metadata,
        "buffers": [b64encode(buffer).decode() for buffer in buffers],
    }
    message = parse(json.dumps(document))

    assert (message.msg_id, message.msg_type, message.channel) == ("1", "execute_request", channel)
    assert message.buffers == tuple(buffers)
    assert message.as_body() == document


@pytest.mark.parametrize(
    "content", ['{"b" : 1,\n"a":[1.0, 1E5, 123456789012345678901234567890, 1e999]}', '"\\u00fc\\/"', '"ü😀"', "null"]
)
def test_content_goes_to_the_kernel_byte_for_byte(content: str) -> None:
    """White space, order, long numbers and escapes stay as the client wrote them."""
    parts = to_kernel(parse(text_of(content)), SENDER, DATE)

    assert parts.content == content.encode()


def test_header_gets_the_sessions_fields_and_keeps_unknown_ones() -> None:
    """Session, user name, version and date are the server's in both headers; what else is in them stays."""
    header = {**HEADER, "session": "forged", "subshell_id": "sub", "date": None}
    parent = {"msg_id": "0", "msg_type": "input_request", "extra": [1]}
    parts = to_kernel(parse(text_of(header=header, parent_header=parent)), SENDER, DATE)

    assert json.loads(parts.header) == {**header, **STAMP}
    assert json.loads(parts.parent_header) == {**parent, **STAMP}


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("member", ["content", "metadata"])
def test_content_that_is_too_deep_to_be_read_goes_to_the_kernel_as_it_is(member: str) -> None:
    """What is not looked at need not be read."""
    message = parse(text_of().replace(f'"{member}":', f'"{member}":{DEEP},"other":', 1))

    assert (getattr(message, member), message.as_body()[member]) == (
        DEEP.encode(),
        "[10000 bytes, nested too deep to be shown]",
    )


def test_envelope_that_is_too_deep_and_lacks_something_is_refused_by_name() -> None:
    """The depth of one member is no excuse for another that is missing."""
    with pytest.raises(ClientMessageError, match="metadata"):
        parse(text_of(DEEP).replace('"metadata"', '"other"'))


@pytest.mark.parametrize("members", [{"parent_header": None}, {"parent_header": {}}, {}])
def test_absent_parent_header_goes_out_as_the_empty_object(members: dict[str, Any]) -> None:
    """The messaging specification has an empty object where there is no parent."""
    document = {name: value for name, value in MESSAGE.items() if name != "parent_header"}
    message = parse(json.dumps({**document, **members}))

    assert message.parent_header is None
    assert to_kernel(message, SENDER, DATE).parent_header == b"{}"


def test_unknown_members_are_ignored() -> None:
    """Members that the API does not name do no harm, nor do copies of the ids beside the header."""
    assert parse(text_of(kind="jupyter", msg_id=3, msg_type="other")) == parse(text_of())


@pytest.mark.parametrize("missing", ["header", "channel", "content", "metadata", "buffers"])
def test_missing_member_is_refused_by_name(missing: str) -> None:
    """All members but the parent header are required."""
    document = {name: value for name, value in MESSAGE.items() if name != missing}

    with pytest.raises(ClientMessageError, match=missing):
        parse(json.dumps(document))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"channel": "nowhere"}, r"\$.channel"),
        ({"channel": 1}, r"\$.channel"),
        ({"header": []}, r"\$.header"),
        ({"header": {"msg_id": "1"}}, "header needs the strings msg_id and msg_type"),
        ({"header": {"msg_id": 1, "msg_type": "t"}}, "header needs the strings msg_id and msg_type"),
        ({"parent_header": {"msg_id": "1"}}, "parent_header needs the strings msg_id and msg_type"),
        ({"parent_header": "x"}, r"\$.parent_header"),
        ({"buffers": None}, r"\$.buffers"),
        ({"buffers": [1]}, r"\$.buffers"),
        ({"buffers": ["?"]}, "buffers: not base64"),
        ({"buffers": ["YQ"]}, "buffers: not base64"),
        ({"buffers": ["YQ==\n"]}, "buffers: not base64"),
        ({"buffers": ["é"]}, "buffers: not base64"),
    ],
)
def test_misfit_is_refused_with_its_place(members: dict[str, Any], reason: str) -> None:
    """The error says which member does not fit."""
    with pytest.raises(ClientMessageError, match=reason):
        parse(text_of(**members))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"text"',
        text_of() + "x",
        text_of("NaN"),
        text_of("Infinity"),
        text_of('"\\ud800"'),
        text_of("[" * 100_000),
        text_of() + "\ud800",
        b"\xff" + text_of().encode(),
        text_of(header={"msg_id": "X", "msg_type": "t"}).encode().replace(b"X", b"\xff"),
    ],
)
def test_what_is_no_strict_json_is_refused(text: str | bytes) -> None:
    """A kernel never gets to see what a strict reader would not take."""
    with pytest.raises(ClientMessageError):
        parse(text)


@given(st.binary(max_size=60) | st.text(st.characters(codec=None), max_size=60))
def test_garbage_is_refused(text: str | bytes) -> None:
    """Whatever arrives, the one error is raised."""
    with pytest.raises(ClientMessageError):
        parse(text)


@given(st.sampled_from(sorted(MESSAGE)), json_values)
def test_any_value_of_a_member_is_taken_or_refused(member: str, value: Any) -> None:
    """A member of any kind leads to a message for the kernel or to the one error."""
    try:
        message = parse(encode({**MESSAGE, member: value}))
    except ClientMessageError:
        return
    parts = to_kernel(message, SENDER, DATE)

    assert [type(json.loads(part)) for part in parts[:2]] == [dict, dict]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ('{"code":"1","x":1e999}', {"code": "1", "x": None}),
        ('{"code":"1","x":' + "9" * 5000 + "}", {"code": "1", "x": None}),
    ],
)
def test_number_beyond_python_can_be_shown(content: str, shown: dict[str, Any]) -> None:
    """A number that Python has no room for goes to the kernel as it is, and does not spoil a list of sessions."""
    message = parse(text_of(content))

    assert message.as_body()["content"] == shown
    assert to_kernel(message, SENDER, DATE).content == content.encode()


@pytest.mark.parametrize(
    ("msg_type", "content", "expected"),
    [
        ("execute_request", {"code": "1"}, True),
        ("execute_request", {"code": ""}, True),
        ("execute_request", {}, False),
        ("execute_request", {"code": 1}, False),
        ("execute_request", ["code"], False),
        ("kernel_info_request", {"code": "1"}, False),
    ],
)
def test_execution_is_a_request_with_code(msg_type: str, content: Any, expected: bool) -> None:
    """Only an execute_request with a string of code takes part in the execution queue."""
    assert parse(text_of(json.dumps(content), header={"msg_id": "1", "msg_type": msg_type})).is_execution is expected


def test_servers_own_message_is_like_a_clients() -> None:
    """A message that is made here has what a client would have to send."""
    message = make("shutdown_request", "7", {"restart": False}, "control")

    assert message == ClientMessage(
        "7",
        "shutdown_request",
        "control",
        {"msg_id": "7", "msg_type": "shutdown_request"},
        None,
        b'{"restart":false}',
    )


@pytest.mark.parametrize("value", [{"status": "busy", "reason": "ü"}, None, 3, ["a"]])
def test_news_of_the_session_has_one_member_beside_its_kind(value: Any) -> None:
    """A message of kind kernel is an object of two members."""
    assert json.loads(kernel_message("status", value)) == {"kind": "kernel", "status": value}
