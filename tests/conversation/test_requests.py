"""Who has to be answered, and with what where the kernel never will."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.conversation.requests import (
    ABORTED,
    MOST_OPEN,
    Requests,
    answer_at_the_end,
    failure,
    reply_type,
    stops_on_error,
    write_answer,
)
from kallichore.wire.client_messages import ClientMessage, make

DEEP = b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"


def request(msg_id: str, msg_type: str = "execute_request", channel: str = "shell", **header: Any) -> ClientMessage:
    """Return a client's request, perhaps with more in its header."""
    message = make(msg_type, msg_id, {"code": "1"}, channel)
    message.header.update(header)
    return message


def with_content(msg_type: str, content: bytes) -> ClientMessage:
    """Return a request with this content, whatever that is."""
    return ClientMessage("a", msg_type, "shell", {"msg_id": "a", "msg_type": msg_type}, None, content)


@pytest.mark.parametrize(
    ("msg_type", "channel", "expected"),
    [
        ("execute_request", "shell", "execute_reply"),
        ("shutdown_request", "control", "shutdown_reply"),
        ("comm_info_request", "shell", "comm_info_reply"),
        ("comm_msg", "shell", None),
        ("input_reply", "stdin", None),
        ("execute_request", "stdin", None),
        ("execute_request", "iopub", None),
        ("request", "shell", None),
        ("odd_request_more", "shell", None),
    ],
)
def test_requests_of_shell_and_control_have_replies(msg_type: str, channel: str, expected: str | None) -> None:
    """A reply has its request's name; what is no request, or was sent where there are no replies, has none."""
    assert reply_type(request("a", msg_type, channel)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"code":"1"}', True),
        (b'{"stop_on_error":true}', True),
        (b'{"stop_on_error":false}', False),
        (b'{"silent":true}', False),
        (b'{"silent":false}', True),
        (b'{"silent":true,"stop_on_error":true}', False),
        (b'{"stop_on_error":"yes"}', True),
        (b"[]", True),
        (DEEP, True),
    ],
)
def test_failure_stops_what_waits_unless_the_request_says_otherwise(content: bytes, expected: bool) -> None:
    """The default is to stop, also where a request cannot be read; a silent one stops nothing, as in ipykernel."""
    assert stops_on_error(with_content("execute_request", content)) is expected


def test_failure_names_what_happened() -> None:
    """A client shows it like an error of the code's."""
    assert failure("KernelDied", "it did") == {
        "status": "error",
        "ename": "KernelDied",
        "evalue": "it did",
        "traceback": ["KernelDied: it did"],
    }


@pytest.mark.parametrize(
    ("has_begun", "expected"), [(True, failure("KernelDied", "it exited")), (False, {"status": "aborted"})]
)
def test_kernel_that_ended_answers_by_what_it_had_begun(has_begun: bool, expected: dict[str, Any]) -> None:
    """What it was at work on failed; what it never began was aborted, as ipykernel says."""
    assert answer_at_the_end(request("a"), has_begun, "it exited") == expected


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize(
    ("content", "restart"),
    [
        (b'{"restart":true}', True),
        (b'{"restart":false}', False),
        (b"{}", False),
        (b'{"restart":1}', False),
        (DEEP, False),
    ],
)
def test_shutdown_is_answered_with_success(content: bytes, restart: bool, has_begun: bool) -> None:
    """Many kernels just end; what was asked for has happened, and the reply says what was asked for."""
    answer = answer_at_the_end(with_content("shutdown_request", content), has_begun, "why")

    assert answer == {"status": "ok", "restart": restart}


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_answer_is_a_reply_and_an_idle_for_the_request(channel: str) -> None:
    """The reply comes on the request's channel, the idle on iopub, both with its header as their parent."""
    headers = iter([{"msg_id": "1"}, {"msg_id": "2"}])
    asked: list[str] = []

    def write_header(msg_type: str) -> dict[str, Any]:
        asked.append(msg_type)
        return next(headers)

    message = request("a", "inspect_request", channel, username="Ada")
    reply, idle = map(json.loads, write_answer(message, ABORTED, write_header))
    common = {"kind": "jupyter", "parent_header": message.header, "metadata": {}, "buffers": []}

    assert message.header["username"] == "Ada"
    assert asked == ["inspect_reply", "status"]
    assert reply == {**common, "header": {"msg_id": "1"}, "channel": channel, "content": {"status": "aborted"}}
    assert idle == {**common, "header": {"msg_id": "2"}, "channel": "iopub", "content": {"execution_state": "idle"}}


@given(st.lists(st.tuples(st.sampled_from(["add", "replied", "take"]), st.sampled_from("abc"))))
def test_request_is_open_from_when_it_was_sent_until_it_has_a_reply(steps: list[tuple[str, str]]) -> None:
    """It is answered once: by the kernel, or in its place."""
    requests, expected = Requests(), dict[str, ClientMessage]()
    for step, msg_id in steps:
        message = request(msg_id)
        if step == "add":
            requests.add(message)
            expected[msg_id] = message
        elif step == "replied":
            requests.replied(msg_id)
            expected.pop(msg_id, None)
        else:
            assert requests.take(message) == (msg_id in expected)

            expected.pop(msg_id, None)

        assert list(requests) == list(expected.values())


def test_open_requests_can_be_answered_while_they_are_gone_through() -> None:
    """Who answers each takes it."""
    requests = Requests()
    for msg_id in "abc":
        requests.add(request(msg_id))

    assert [requests.take(message) for message in requests] == [True, True, True]
    assert list(requests) == []


def test_what_has_no_reply_is_not_owed_one() -> None:
    """Comm messages come and go."""
    requests = Requests()
    requests.add(request("a", "comm_msg"))

    assert list(requests) == []
    assert not requests.is_beside("a")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (request("a"), False),
        (request("a", channel="control"), True),
        (request("a", "comm_msg", subshell_id="s"), True),
        (request("a", subshell_id="s"), True),
        (request("a", subshell_id=None), False),
    ],
)
def test_what_goes_to_control_or_a_subshell_is_beside_until_it_ended(message: ClientMessage, expected: bool) -> None:
    """Its reply does not end that: an idle follows."""
    requests = Requests()
    requests.add(message)
    requests.replied("a")
    before = requests.is_beside("a")
    requests.ended("a")
    requests.ended("a")

    assert (before, requests.is_beside("a")) == (expected, False)


def test_oldest_requests_are_forgotten_beyond_a_bound() -> None:
    """A kernel that answers nothing does not fill the memory."""
    requests = Requests()
    for number in range(MOST_OPEN):
        requests.add(request(str(number), "usage_request", "control"))
    before = (next(iter(requests)).msg_id, len(list(requests)), requests.is_beside("0"))
    requests.add(request("last", "usage_request", "control"))
    after = (next(iter(requests)).msg_id, len(list(requests)), requests.is_beside("0"))

    assert before == ("0", MOST_OPEN, True)
    assert after == ("1", MOST_OPEN, False)
    assert (requests.is_beside("1"), requests.is_beside("last")) == (True, True)
