"""Connection and registration files: the members that kernels look for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from kallichore.models.bodies import ConnectionInfo
from kallichore.models.converter import parse_body
from kallichore.wire.connection_info import PORT_NAMES, connection_document, registration_document, to_file
from kallichore.wire.curve_keys import CurveKeys

SHARED = {"transport": "tcp", "ip": "127.0.0.1", "key": "secret", "signature_scheme": "hmac-sha256"}


def test_connection_file_names_the_five_ports_in_order() -> None:
    """Ports are dealt out in the order of their names, beside the members of the messaging specification."""
    document = connection_document([1, 2, 3, 4, 5], "secret")

    assert document == {**SHARED, "control_port": 1, "shell_port": 2, "stdin_port": 3, "hb_port": 4, "iopub_port": 5}
    assert list(document)[:5] == list(PORT_NAMES)


def test_connection_file_has_the_keys_of_a_kernel_that_is_to_encrypt() -> None:
    """Both are there, as jupyter_client writes them, and the sockets may be files."""
    document = connection_document(range(1, 6), "secret", "/run/kc", "ipc", CurveKeys("public", "private"))

    assert ("ipc", "/run/kc") == (document["transport"], document["ip"])
    assert ("public", "private") == (document["curve_publickey"], document["curve_secretkey"])


@pytest.mark.parametrize("count", [4, 6])
def test_connection_file_needs_exactly_five_ports(count: int) -> None:
    """A port too few or too many is a mistake."""
    with pytest.raises(ValueError):
        connection_document(range(count), "secret")


def test_registration_file_names_the_registration_port() -> None:
    """A registration file (JEP 66) has one port, and no others."""
    assert registration_document(7, "secret") == {**SHARED, "registration_port": 7}


@given(st.lists(st.integers(0, 65535), min_size=5, max_size=5), st.text(max_size=40), st.text(max_size=15))
def test_written_file_is_the_connection_that_kernels_read(ports: list[int], key: str, ip: str) -> None:
    """Any ports, key and address come back from the file, and the server's own reader takes them as well."""
    document = connection_document(ports, key, ip)
    written = to_file(document)
    info, ignored = parse_body(ConnectionInfo, written)

    assert json.loads(written) == document
    assert ([getattr(info, name) for name in PORT_NAMES], info.key, info.ip, ignored) == (ports, key, ip, ())


@pytest.mark.parametrize("document", [connection_document(range(5), "clé"), registration_document(1, "k", "10.0.0.1")])
def test_file_is_json_in_ascii(document: dict[str, object]) -> None:
    """What is written reads back the same, whatever encoding the kernel's language opens files with."""
    written = to_file(document)

    assert json.loads(written.decode("ascii")) == document
