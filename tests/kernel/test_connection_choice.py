"""Over what a kernel is connected, and whether encrypted: the session's word, else the server's."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.config import ENCRYPTION_POLICIES, KERNEL_TRANSPORTS, ServerConfig
from kallichore.errors import StartupError
from kallichore.kernel.connection_choice import (
    ConnectionChoice,
    check_encryption,
    choose_connection,
    encrypts,
    is_private,
)
from kallichore.models.bodies import ConnectionInfo, KernelTransport, NewSession, TransportEncryption

ABLE = {"supported_encryption": ("curve",)}


def choice(server: dict[str, Any], platform: str = "linux", **members: Any) -> ConnectionChoice:
    """Return what is chosen where the server can encrypt."""
    request = NewSession(session_id="s", **{"argv": ("kernel",), **members})
    return choose_connection(request, ServerConfig(**server), platform, lambda: True)


def test_policies_are_those_of_the_api() -> None:
    """The server's setting and the session's member have the same words."""
    assert list(ENCRYPTION_POLICIES) == [policy.value for policy in TransportEncryption]
    assert list(KERNEL_TRANSPORTS) == [transport.value for transport in KernelTransport]


@given(
    st.sampled_from(ENCRYPTION_POLICIES),
    st.none() | st.sampled_from(ENCRYPTION_POLICIES),
    st.sampled_from(KERNEL_TRANSPORTS),
    st.none() | st.sampled_from(KERNEL_TRANSPORTS),
    st.sampled_from([None, (), ("curve",), ("other", "curve"), ("other",)]),
    st.booleans(),
)
def test_what_is_chosen_is_what_was_asked_for(
    policy: str, own_policy: str | None, transport: str, own_transport: str | None, able: Any, has_argv: bool
) -> None:
    """The session's word counts before the server's; a kernel is encrypted as its policy says, or refused."""
    asked, means = own_policy or policy, own_transport or transport
    says_that_it_can = "curve" in (able or ())
    server = {"transport_encryption": policy, "kernel_transport": transport}
    members = {"argv": ("kernel",) if has_argv else (), "supported_encryption": able}
    own = {"transport_encryption": own_policy, "kernel_transport": own_transport}
    if asked == "required" and has_argv and not says_that_it_can:
        with pytest.raises(StartupError, match="transport_encryption is required"):
            choice(server, **members, **own)
        return
    encrypts = asked == "required" or (asked == "auto" and means == "tcp" and says_that_it_can)

    assert ConnectionChoice(KernelTransport(means), encrypts) == choice(server, **members, **own)


def test_kernel_that_registers_itself_has_tcp_in_the_clear() -> None:
    """There is no place for keys in a registration file (JEP 66); what asks for more is refused."""
    registers = {"protocol_version": "5.5", **ABLE}

    assert ConnectionChoice(KernelTransport.TCP, False) == choice({"transport_encryption": "auto"}, **registers)
    for server in ({"transport_encryption": "required"}, {"kernel_transport": "ipc"}):
        with pytest.raises(StartupError, match=f"{next(iter(server))} is .*JEP 66"):
            choice(server, **registers)


def test_windows_has_no_unix_sockets() -> None:
    """What asks for them there is refused, and told what works."""
    with pytest.raises(StartupError, match="kernel_transport is ipc, which does not work on Windows; use tcp"):
        choice({}, "win32", kernel_transport="ipc")


def test_server_that_cannot_encrypt_does_not_claim_to() -> None:
    """Where libzmq lacks it, auto goes without, and required is refused."""
    request = NewSession(session_id="s", argv=("kernel",), **ABLE)

    assert not choose_connection(request, ServerConfig(transport_encryption="auto"), "linux", lambda: False).encrypts
    with pytest.raises(StartupError, match="built without CurveZMQ"):
        choose_connection(request, ServerConfig(transport_encryption="required"), "linux", lambda: False)


@pytest.mark.parametrize(("key", "is_taken"), [("k" * 40, True), (None, False)])
def test_adopted_kernel_has_to_have_keys_where_they_are_required(key: str | None, is_taken: bool) -> None:
    """Connection information without them is refused."""
    ports = dict.fromkeys(("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port"), 1)
    info = ConnectionInfo(**ports, signature_scheme="hmac-sha256", key="", transport="tcp", ip="::1")
    request = NewSession(session_id="s", argv=(), transport_encryption="required")
    info, refused = attrs.evolve(info, curve_publickey=key), False
    try:
        check_encryption(request, ServerConfig(), info)
    except StartupError as error:
        refused = error.code == "KS-6"

    assert is_taken != refused


@pytest.mark.parametrize(("policy", "expected"), [("disabled", False), ("auto", False), ("required", None)])
def test_host_beside_a_kernel_carries_nothing_encrypted(policy: str, expected: bool | None) -> None:
    """Where a host is, `auto` leaves it in the clear, and `required` is refused with the member that helps."""
    request = NewSession(session_id="s", argv=("kernel",), supported_encryption=("curve",))
    config = ServerConfig(transport_encryption=policy)
    if expected is None:
        with pytest.raises(StartupError, match="create it with `durable` false"):
            choose_connection(request, config, "linux", lambda: True, has_host=True)
    else:
        assert expected == choose_connection(request, config, "linux", lambda: True, has_host=True).encrypts


def test_kernel_elsewhere_is_refused_where_encryption_to_the_kernel_is_required() -> None:
    """The reason is its engine's, and nothing is proposed that would not help."""
    request = NewSession(
        session_id="s", argv=("kernel",), supported_encryption=("curve",), engine={"kind": "ssh", "host": "far"}
    )

    with pytest.raises(StartupError, match="on another machine") as refused:
        choose_connection(request, ServerConfig(transport_encryption="required"), "linux", lambda: True, has_host=True)

    assert "durable" not in str(refused.value)


@pytest.mark.parametrize(
    ("policy", "able", "expected"),
    [("disabled", ABLE, False), ("auto", ABLE, True), ("auto", {}, False), ("required", ABLE, True)],
)
def test_whether_a_session_would_encrypt_is_known_before(policy: str, able: dict[str, Any], expected: bool) -> None:
    """It is what would be chosen for its kernels."""
    request = NewSession(session_id="s", argv=("kernel",), **able)

    assert expected == encrypts(request, ServerConfig(transport_encryption=policy), "linux", lambda: True)


def test_session_whose_kernel_cannot_be_connected_does_not_encrypt() -> None:
    """What is refused when a kernel is started is no reason to refuse the session."""
    request = NewSession(session_id="s", argv=("kernel",))

    assert not encrypts(request, ServerConfig(transport_encryption="required"), "linux", lambda: True)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        *(({"ip": ip}, True) for ip in ("127.0.0.1", "127.1.2.3", "localhost", "::1")),
        *(({"ip": ip}, False) for ip in ("10.0.0.7", "0.0.0.0", "172.17.0.2", "127.example.org")),
        ({"ip": "10.0.0.7", "curve_publickey": "k"}, True),
        ({"ip": "/some/path", "transport": "ipc"}, True),
    ],
)
def test_connection_that_others_can_read_is_told_from_one_that_they_cannot(
    members: dict[str, Any], expected: bool
) -> None:
    """What is encrypted, or stays on the machine, is private."""
    ports = dict.fromkeys(("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port"), 1)
    usual = {"key": "", "signature_scheme": "hmac-sha256", "transport": "tcp"}

    assert expected == is_private(ConnectionInfo(**{**ports, **usual, **members}))
