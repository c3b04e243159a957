"""Clients that cost next to nothing, so that what is measured is the server: they count what comes and parse nothing.

One for WebSockets as the Kallichore API has them, one for Jupyter's, and one that speaks to the kernel itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import socket
import struct
import time
from typing import Any, NamedTuple

import zmq

CHUNK = 1 << 18
"""Bytes that are received at once; a frame that is longer is received into a buffer of its own size."""

LARGE = 1 << 16
"""A frame from this size on is a large output; a smaller one is looked at for being the end."""

PATIENCE = 100.0
"""Seconds for one execution, beyond which the benchmark fails rather than waits for what was lost."""


class Received(NamedTuple):
    """What came for one execution."""

    messages: int
    size: int
    large_until: float
    """When the last large message had come, by `time.perf_counter`."""


class Address(NamedTuple):
    """Where a server listens: a port of this machine, or a Unix socket."""

    port: int = 0
    path: str = ""

    def connect(self) -> socket.socket:
        """Return a connection."""
        if self.path:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            connection.connect(self.path)
            return connection
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request on a connection of its own and return the decoded answer."""
        request = http.client.HTTPConnection("127.0.0.1", self.port or None)
        request.sock = self.connect()
        try:
            data = None if body is None else json.dumps(body)
            request.request(method, path, data, {"Content-Type": "application/json"})
            answer = request.getresponse()
            text = answer.read()
            assert answer.status < 400, (answer.status, text)
            return json.loads(text) if text else None
        finally:
            request.close()


class WebSocketChannel:
    """A session's channels by the Kallichore API."""

    protocol = ""
    path = ""
    """Where the server's API has this kernel."""

    def __init__(self, address: Address, path: str) -> None:
        self.socket = address.connect()
        self._rest = self._shake_hands(path)
        """The beginning of a frame that has not come whole."""

    def _shake_hands(self, path: str) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
        lines += [f"Sec-WebSocket-Protocol: {self.protocol}"] if self.protocol else []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            data = self.socket.recv(CHUNK)
            assert data, "the server closed the connection"
            buffer += data
        head, _, rest = buffer.partition(b"\r\n\r\n")
        assert b" 101 " in head.split(b"\r\n")[0], head
        assert self.protocol.encode() in head, head
        return rest

    def receive(self) -> list[bytes | bytearray]:
        """Receive once; return the messages that are now complete. A large frame is waited for to its end."""
        # No byte is copied more than three times, however long the frames are and however they arrive.
        data = self.socket.recv(CHUNK)
        assert data, "the server closed the connection"
        buffer, position, messages = self._rest + data, 0, []
        while (available := len(buffer) - position) >= 2:
            size, start = buffer[position + 1], position + 2
            if size == 126 and available >= 4:
                (size,) = struct.unpack_from("!H", buffer, start)
                start += 2
            elif size == 127 and available >= 10:
                (size,) = struct.unpack_from("!Q", buffer, start)
                start += 8
            elif size > 125:
                break
            head, end = buffer[position], start + size
            if end > len(buffer) and size <= CHUNK:
                break
            payload = buffer[start:end] if end <= len(buffer) else self._read_rest(buffer[start:], size)
            position = end
            if head & 0x8:
                self._on_control(head, payload)
            else:
                messages.append(payload)
        self._rest = buffer[position:]
        return messages

    def _read_rest(self, beginning: bytes, size: int) -> bytearray:
        payload, position = bytearray(size), len(beginning)
        payload[:position] = beginning
        view = memoryview(payload)
        while position < size:
            count = self.socket.recv_into(view[position:])
            assert count, "the server closed the connection"
            position += count
        return payload

    def _on_control(self, head: int, payload: bytes | bytearray) -> None:
        assert head != 0x88, f"the server closed the channel: {payload!r}"
        if head == 0x89:
            self._send(0x8A, bytes(payload))

    def _send(self, head: int, payload: bytes) -> None:
        # The mask is zero, which leaves the payload as it is.
        size = len(payload)
        length = struct.pack("!BB", head, 0x80 | size) if size < 126 else struct.pack("!BBH", head, 0x80 | 126, size)
        self.socket.sendall(length + b"\0\0\0\0" + payload)

    def send_execute(self, code: str) -> bytes:
        """Send an execute_request and return its id."""
        header, content = execute_request(code)
        self.send(header, content)
        return header["msg_id"].encode()

    def send(self, header: Any, content: Any) -> None:
        """Send a message on shell."""
        message = {"header": header, "channel": "shell", "content": content, "metadata": {}, "buffers": []}
        self._send(0x81, json.dumps(message).encode())

    def run(self, code: str) -> Received:
        """Execute code and wait until it is done."""
        return self.wait_done(self.send_execute(code))

    def wait_done(self, msg_id: bytes) -> Received:
        """Wait until both the reply and the idle of an execution have come."""
        missing, deadline = 2, time.perf_counter() + PATIENCE
        count, size, large_until = 0, 0, 0.0
        while missing:
            # Also where pings come still.
            assert time.perf_counter() < deadline, "the execution does not end"
            for payload in self.receive():
                count, size = count + 1, size + len(payload)
                if len(payload) >= LARGE:
                    large_until = time.perf_counter()
                elif (b'"idle"' in payload or b'"execute_reply"' in payload) and msg_id in payload:
                    missing -= 1
        return Received(count, size, large_until)

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


class JupyterChannel(WebSocketChannel):
    """A kernel's channels as JupyterLab opens them: with the protocol in which Jupyter's servers parse no content."""

    protocol = "v1.kernel.websocket.jupyter.org"

    def send(self, header: Any, content: Any) -> None:
        """Send a message on shell."""
        parts = [b"shell", *(json.dumps(part).encode() for part in (header, {}, {}, content))]
        offsets = [8 * (len(parts) + 2)]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
        self._send(0x82, b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *parts]))


class ZeroMQChannel:
    """A kernel's own sockets, without any server: what the others are compared with."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.key = info["key"].encode()
        self.context = zmq.Context()
        self.shell, self.iopub = self.context.socket(zmq.DEALER), self.context.socket(zmq.SUB)
        self.iopub.subscribe(b"")
        for channel in (self.shell, self.iopub):
            channel.rcvhwm = 0
            # The kernel does not listen yet. The default of 100 ms would be most of what is measured.
            channel.reconnect_ivl = 5
        self.shell.connect(f"tcp://127.0.0.1:{info['shell_port']}")
        self.iopub.connect(f"tcp://127.0.0.1:{info['iopub_port']}")

    def wait_ready(self) -> None:
        """Wait until the kernel answers and what it publishes arrives."""
        while True:
            self._send("kernel_info_request", {})
            self.shell.recv_multipart()
            while self.iopub.poll(20):
                if b'"idle"' in self.iopub.recv_multipart()[-1]:
                    return

    def _send(self, msg_type: str, content: Any) -> bytes:
        header = make_header(msg_type)
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        signature = hmac.new(self.key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        self.shell.send_multipart([b"<IDS|MSG>", signature, *parts])
        return header["msg_id"].encode()

    def run(self, code: str) -> Received:
        """Execute code and wait until it is done: both the reply and the idle have come."""
        msg_id = self._send("execute_request", execute_request(code)[1])
        count, size, large_until = 1, 0, 0.0
        while True:
            frames = self.iopub.recv_multipart()
            count, length = count + 1, sum(map(len, frames))
            size += length
            if length >= LARGE:
                large_until = time.perf_counter()
            elif b'"idle"' in frames[6] and msg_id in frames[4]:
                break
        while msg_id not in self.shell.recv_multipart()[3]:
            pass
        return Received(count, size, large_until)

    def close(self) -> None:
        """Close the sockets."""
        self.context.destroy(linger=0)


def make_header(msg_type: str) -> dict[str, str]:
    """Return a header with all that Jupyter's servers insist on."""
    header = {"msg_id": secrets.token_hex(16), "msg_type": msg_type, "session": "bench", "username": "bench"}
    return {**header, "version": "5.3", "date": "2026-01-01T00:00:00.000000Z"}


def execute_request(code: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return an execute_request's header and content."""
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return make_header("execute_request"), content
