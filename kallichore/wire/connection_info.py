"""The two files with which a kernel is told how to meet us: connection file and registration file.

The file itself, its place and its permissions are `kallichore.session.kernel_files`' business.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kallichore.wire.curve_keys import CurveKeys

PORT_NAMES = ("control_port", "shell_port", "stdin_port", "hb_port", "iopub_port")
"""The five ports of a connection file, in the order in which reserved ports are dealt out."""


def connection_document(
    ports: Sequence[int], key: str, ip: str = "127.0.0.1", transport: str = "tcp", keys: CurveKeys | None = None
) -> dict[str, Any]:
    """Return the members of a connection file (messaging spec, "Connection files"; JEP 145).

    Args:
        ports: The five, in the order of `PORT_NAMES`.
        key: What signs messages.
        ip: The address; for ``ipc`` what the sockets' paths begin with, before a hyphen and the port.
        transport: ZeroMQ's transport, ``tcp`` or ``ipc``.
        keys: With what the kernel is to encrypt; None for not at all.
    """
    document = {
        **dict(zip(PORT_NAMES, ports, strict=True)),
        "signature_scheme": "hmac-sha256",
        "key": key,
        "transport": transport,
        "ip": ip,
    }
    if keys is not None:
        document.update(curve_publickey=keys.public, curve_secretkey=keys.secret)
    return document


def registration_document(port: int, key: str, ip: str = "127.0.0.1") -> dict[str, Any]:
    """Return the members of a registration file (JEP 66)."""
    return {"transport": "tcp", "signature_scheme": "hmac-sha256", "ip": ip, "key": key, "registration_port": port}


def to_file(document: dict[str, Any]) -> bytes:
    """Return a document as it is written to a file."""
    return json.dumps(document, indent=2).encode()
