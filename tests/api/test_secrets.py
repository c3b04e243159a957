"""No header of a request is logged by anybody, at any level: the token would be among them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from abuse import Victim, rest_of, run_victim
from kallichore.api.operations import OPERATIONS
from kernels import body

MARK = "mark-of-a-header"


def heads(server: Victim) -> list[bytes]:
    """Return one request of each kind, all with the token and a mark in their headers."""
    named = (f"{name}: {MARK}" for name in ("X-Mark", "Cookie", "Referer", "User-Agent"))
    said = (*named, "Connection: close")
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    opening = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {MARK}")
    requests = [
        server.head(operation.method, operation.path.replace("{session_id}", "s"), *said, "Content-Length: 2") + b"{}"
        for operation in OPERATIONS
        if operation.operation_id != "shutdown-server"
    ]
    return [
        *requests,
        server.head("GET", "/nowhere", *said),
        server.head("BREW", "/status", *said),
        server.head("GET", "/sessions/s/channels", "Connection: Upgrade", *said[:-1], *opening) + b"\x88\x80\0\0\0\0",
        server.head("GET", "/sessions/s/channels", "Connection: Upgrade", *said[:-1], *opening[:2]),
        server.head("GET", "/sessions/s/channels?attach=wrong", "Connection: Upgrade", *said[:-1], *opening),
        server.head("GET", "/sessions/s/channels", "Connection: Upgrade", *said[:-1], *opening) + b"\xff" * 20,
        server.head("GET", "/status", *h2c),
        server.head("GET", "/status", *said).replace(b"HTTP/1.1", b"HTTP/9.9"),
        server.head("GET", "/status", *said).replace(b"HTTP/1.1", b"HTTP/1.0"),
        server.head("GET", "/status", *said).replace(b"X-Mark:", b"X Mark:"),
        server.head("GET", "/status", *said, " folded: x"),
        server.head("GET", "/status", *said).replace(b"Host: 127", b"Host: evil.com@127"),
        server.head("GET", "/status", *said).replace(b"Host: 127", b"Host: 8.8.8.8, 127"),
        server.head("GET", "/sessions", *said).replace(b"Bearer ", b"Bearer wrong-"),
        server.head("GET", "/sessions", *said).replace(b"Bearer ", b"Basic "),
        server.head("PUT", "/sessions", *said, "Content-Length: x"),
        server.head("PUT", "/sessions", *said, "Transfer-Encoding: chunked") + b"zz\r\n",
        server.head("PUT", "/sessions", *said, f"Content-Length: {1 << 62}"),
        server.head("GET", "/status")[:-2] + b"X-Long: " + b"x" * 300_000 + b"\r\n\r\n",
        server.head("GET", "/status") + server.head("GET", "/sessions", *said),
    ]


def http_2(server: Victim) -> bytes:
    """Return a request in HTTP/2 with the token."""
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    named = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/sessions")]
    client.send_headers(1, [*named, ("authorization", f"Bearer {server.token}"), ("x-mark", MARK)], end_stream=True)
    return client.data_to_send()


@pytest.mark.parametrize("level", ["trace", "debug"])
def test_no_header_is_logged(level: str, lasting_place: Path) -> None:
    """One request of each kind, right and wrong: neither the token nor another header is in any output."""
    with tempfile.TemporaryFile() as console, run_victim(stdout=console, stderr=subprocess.STDOUT) as server:
        assert server.ask("POST", "/server_configuration", {"log_level": level})[0] == 200
        assert server.ask("PUT", "/sessions", body("s", argv=[]))[0] == 200
        for data in [*heads(server), http_2(server), server.head("GET", "/status") + http_2(server)]:
            with server.connect() as connection:
                connection.settimeout(2)
                try:
                    connection.sendall(data)
                    connection.shutdown(1)
                    rest_of(connection)
                except OSError:
                    pass  # It was refused before it had all come, or is not closed.
        logged = json.loads(server.ask("GET", "/logs")[1])
        file = server.log.read_text()
        console.seek(0)
        printed = console.read().decode()
        token = server.token

    assert "get_session(s)" in file
    for output in (file, printed, json.dumps(logged)):
        assert token not in output
        assert MARK not in output
