"""What the benchmarks share: a server as a process of its own, and a client that costs next to nothing."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

SCRIPTED = Path(__file__).parents[1] / "tests" / "scripted_kernel.py"


@contextmanager
def run_kcserver(*options: str) -> Iterator[tuple[str, int, float]]:
    """Run kcserver on TCP without token; yield base URL, process id, and the seconds from exec to the first status."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "connection.json"
        began = time.perf_counter()
        command = [sys.executable, "-m", "kallichore.cli.kcserver", "--transport", "tcp", "--token", "none"]
        process = subprocess.Popen([*command, "--connection-file", str(file), *options], stdout=subprocess.DEVNULL)
        try:
            while not file.exists():
                assert process.poll() is None, "kcserver ended"
                time.sleep(0.002)
            base = json.loads(file.read_text())["base_path"]
            call(base, "GET", "/status")
            yield base, process.pid, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def call(base: str, method: str, path: str, body: Any = None) -> Any:
    """Send a request and return the decoded answer."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(base + path, data, method=method)) as answer:
        return json.loads(answer.read())


def start_session(base: str, session_id: str, argv: list[str]) -> None:
    """Create and start a session."""
    body = {
        "session_id": session_id,
        "display_name": "",
        "language": "",
        "username": "",
        "input_prompt": "",
        "continuation_prompt": "",
        "argv": argv,
        "session_mode": "console",
        "working_directory": "",
        "env": [],
        "interrupt_mode": "message",
        "startup_environment": "none",
    }
    call(base, "PUT", "/sessions", body)
    call(base, "POST", f"/sessions/{session_id}/start")


class RawChannel:
    """A WebSocket client that only counts frames, so that what is measured is the server."""

    def __init__(self, base: str, path: str) -> None:
        host, _, port = base.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(65536)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert b" 101 " in head.split(b"\r\n")[0], head

    def send(self, message: Any) -> None:
        """Send a message, masked with zeros."""
        payload = json.dumps(message).encode()
        length = struct.pack("!BBH", 0x81, 0x80 | 126, len(payload))
        self.socket.sendall(length + b"\0\0\0\0" + payload)

    def execute(self, code: str) -> str:
        """Send an execute_request and return its id."""
        msg_id = secrets.token_hex(8)
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        header = {"msg_id": msg_id, "msg_type": "execute_request"}
        self.send({"header": header, "channel": "shell", "content": content, "metadata": {}, "buffers": []})
        return msg_id

    def frames(self) -> Iterator[bytes]:
        """Yield the payloads of frames as they come; control frames too."""
        buffer, position = self.buffer, 0
        while True:
            while len(buffer) - position >= 2:
                size, start = buffer[position + 1], position + 2
                if size == 126 and len(buffer) - position >= 4:
                    (size,) = struct.unpack_from("!H", buffer, start)
                    start += 2
                elif size == 127 and len(buffer) - position >= 10:
                    (size,) = struct.unpack_from("!Q", buffer, start)
                    start += 8
                elif size > 125:
                    break
                if len(buffer) < start + size:
                    break
                position = start + size
                self.buffer = buffer[position:] if position == len(buffer) else self.buffer
                yield buffer[start:position]
            data = self.socket.recv(1 << 20)
            assert data, "the server closed the connection"
            buffer, position = buffer[position:] + data, 0

    def until_idle(self, msg_id: str) -> int:
        """Receive up to the idle of a request; return how many frames there were."""
        needle = msg_id.encode()
        for count, frame in enumerate(self.frames(), 1):
            if b'"idle"' in frame and needle in frame and b'"execution_state"' in frame:
                self.buffer = b""
                return count
        raise AssertionError
