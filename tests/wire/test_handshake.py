"""A kernel's registration (JEP 66): five ports or a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.wire.client_messages import Sender
from kallichore.wire.frames import MessageParts
from kallichore.wire.handshake import HandshakeError, KernelPorts, make_reply, read_request

HEADER = b'{"msg_id":"1","msg_type":"handshake_request"}'
PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 65535}
SENDER = Sender("session", "user", "5.3")
DATE = "2024-05-01T12:00:00.000000Z"


def request_with(content: Any, header: bytes = HEADER) -> MessageParts:
    """Return a request with this content."""
    return MessageParts(header, b"{}", b"{}", json.dumps(content).encode(), [])


@pytest.mark.parametrize("others", [{}, {"protocol_version": "5.5", "pid": [1]}])
def test_request_tells_the_five_ports(others: dict[str, Any]) -> None:
    """The ports are read by name, whatever else the kernel tells."""
    assert read_request(request_with({**others, **PORTS})) == KernelPorts(**PORTS)


@pytest.mark.parametrize("port", sorted(PORTS))
@pytest.mark.parametrize("value", [-1, 65536, 1.5, "80", None, True, 1 << 70])
def test_port_that_is_none_is_refused_by_name(port: str, value: Any) -> None:
    """A port is an integer from 0 to 65535; the error says which one is not."""
    with pytest.raises(HandshakeError, match=port):
        read_request(request_with({**PORTS, port: value}))


@pytest.mark.parametrize("missing", sorted(PORTS))
def test_missing_port_is_refused_by_name(missing: str) -> None:
    """A kernel must tell all five ports."""
    with pytest.raises(HandshakeError, match=missing):
        read_request(request_with({name: port for name, port in PORTS.items() if name != missing}))


def test_other_message_is_refused_by_its_type() -> None:
    """Only a handshake_request is one."""
    with pytest.raises(HandshakeError, match="expected a handshake_request, got kernel_info_request"):
        read_request(request_with(PORTS, b'{"msg_id":"1","msg_type":"kernel_info_request"}'))


def test_document_nested_without_end_is_refused() -> None:
    """A content too deep to read is refused like any other that does not fit."""
    content = b'{"deep":' + b"[" * 100_000

    with pytest.raises(HandshakeError):
        read_request(MessageParts(HEADER, b"{}", b"{}", content, []))


ports = st.integers(0, 65535) | st.sampled_from([-1, 65536, 1 << 70, True, 1.0, "1", None])


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(PORTS, ports)), st.dictionaries(st.text(max_size=5), ports))
def test_request_is_five_ports_or_refused(told: dict[str, Any], others: dict[str, Any]) -> None:
    """Integers in their range for all five names are accepted, and nothing else is."""
    content = {**others, **told}
    fits = all(type(content.get(name)) is int and 0 <= content[name] <= 65535 for name in PORTS)
    try:
        accepted = read_request(request_with(content))
    except HandshakeError:
        accepted = None

    assert accepted == (KernelPorts(**{name: content[name] for name in PORTS}) if fits else None)


@given(st.binary(max_size=40), st.binary(max_size=40), st.booleans())
def test_garbage_is_refused(header: bytes, content: bytes, is_request: bool) -> None:
    """Whatever arrives, the one error is raised."""
    with pytest.raises(HandshakeError):
        read_request(MessageParts(HEADER if is_request else header, b"{}", b"{}", content, []))


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (None, {"status": "ok", "capabilities": {}}),
        ("no port", {"status": "error", "error": "no port", "capabilities": {}}),
    ],
)
def test_reply_says_whether_and_why_not(error: str | None, content: dict[str, Any]) -> None:
    """The reply accepts or gives the reason, in the session's name, and its parent is the request byte for byte."""
    reply = make_reply(HEADER, SENDER, "2", DATE, error)

    assert json.loads(reply.content) == content
    assert (reply.parent_header, reply.metadata, list(reply.buffers)) == (HEADER, b"{}", [])
    assert json.loads(reply.header) == {
        "msg_id": "2",
        "msg_type": "handshake_reply",
        "session": "session",
        "username": "user",
        "date": DATE,
        "version": "5.3",
    }


def test_reply_to_an_unreadable_request_has_no_parent() -> None:
    """Where the request's header could not be read, the parent is the empty object."""
    assert make_reply(None, SENDER, "2", DATE, "unreadable").parent_header == b"{}"
