"""A server as a process of its own, for tests that try to break it: what happens to it does not happen to the test."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import attrs
import psutil

LIMIT = 30.0
"""Seconds after which an answer, or an end, is not waited for any longer."""

AT_ONCE = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which closing a socket resets its connection."""


@attrs.define
class Victim:
    """A running kcserver."""

    process: psutil.Popen
    port: int
    token: str
    log: Path

    @property
    def authorization(self) -> dict[str, str]:
        """The header with the token."""
        return {"Authorization": f"Bearer {self.token}"}

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """Return the head of a request that has the token."""
        named = [f"Host: 127.0.0.1:{self.port}", *(f"{name}: {value}" for name, value in self.authorization.items())]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *named, *lines, "", ""]).encode()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Send a request with the token on a connection of its own; return status and body, whatever they are."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request(method, path, raw, {**self.authorization, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def check(self) -> None:
        """See that the server lives and answers."""
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        assert self.ask("GET", "/status")[0] == 200

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask for the status again and again while a block runs, and once more after it: it has to be there."""
        over, failures = threading.Event(), []

        def watch() -> None:
            try:
                while not over.is_set():
                    self.check()
                    over.wait(0.02)
            except (AssertionError, OSError) as error:
                failures.append(error)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        assert failures == []
        self.check()

    def wait_kernels(self) -> None:
        """Wait until no kernel runs."""
        deadline = time.monotonic() + LIMIT
        while json.loads(self.ask("GET", "/status")[1])["active"]:
            assert time.monotonic() < deadline, "kernels are left"
            # A server is asked again, as there is no event for it.
            time.sleep(0.01)

    def open_descriptors(self) -> int:
        """Return how many files and sockets the server has open; on Windows how many handles, of whatever kind."""
        return int(self.process.num_handles() if sys.platform == "win32" else self.process.num_fds())

    def wait_descriptors(self, most: int) -> None:
        """Wait until the server has not more open files and sockets than before."""
        deadline = time.monotonic() + LIMIT
        while (now := self.open_descriptors()) > most:
            assert time.monotonic() < deadline, f"{now - most} are left of {self.process.net_connections('all')}"
            # The system is asked again, which has no event for it either.
            time.sleep(0.01)


def answer_of(connection: socket.socket) -> HTTPResponse:
    """Read one response, whatever it is."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer


def rest_of(connection: socket.socket) -> bytes:
    """Read up to the end of a connection, be it an orderly one or a reset."""
    data = b""
    try:
        while more := connection.recv(1 << 16):
            data += more
    except ConnectionResetError:
        pass
    return data


def reset(connection: socket.socket) -> None:
    """Close a connection by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    connection.close()


@contextmanager
def run_victim(**options: Any) -> Iterator[Victim]:
    """Run a kcserver on TCP. At the end it is asked to end, and has to, and has no failure of its own in its log.

    Args:
        options: Other than the usual for `subprocess.Popen`.
    """
    with tempfile.TemporaryDirectory(prefix="abuse-") as folder:
        file, log = Path(folder, "connection.json"), Path(folder, "log")
        command = [sys.executable, "-m", "kallichore.cli.kcserver", "--transport", "tcp", "--log-file", str(log)]
        process = psutil.Popen(
            [*command, "--connection-file", str(file)],
            **{
                **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
                "env": {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR"), folder)},
                **options,
            },
        )
        try:
            while not file.exists():
                assert process.poll() is None, "kcserver ended"
                # Launchers look for the file again and again, too.
                time.sleep(0.01)
            document = json.loads(file.read_text())
            victim = Victim(process, int(document["base_path"].rpartition(":")[2]), document["bearer_token"], log)
            yield victim
            victim.check()
            if sys.platform == "win32":
                # What a signal is elsewhere would end it there and then.
                assert victim.ask("POST", "/shutdown")[0] == 200
            else:
                process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
            # Trio's own are about connections for which there was no descriptor; it accepts them later.
            text = log.read_text()
            assert text.count("Traceback") == text.count("; retrying in"), text[text.find("Traceback") - 500 :][:10_000]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
