"""Requests to Jupyter's API as its clients send them, and kernels that are installed for tests of it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kernels import scripted_argv

TOKEN = "t0ken"

LINKS = sys.platform != "win32"
"""Whether everybody may make symbolic links: on Windows they take a privilege, and in Wine they lead nowhere."""


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    body: Any
    headers: dict[str, str]


@attrs.frozen
class Client:
    """Sends requests as they are; each on a connection of its own, as gateways do."""

    server: RunningServer

    async def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        """Send a request and return the answer, its body read if that is JSON."""
        port = self.server.address.port
        assert port is not None
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        fields = {"host": f"127.0.0.1:{port}", "authorization": f"token {TOKEN}", **headers}
        lines = [(name.replace("_", "-"), value) for name, value in fields.items() if value]
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method=method, target=target, headers=[*lines, ("content-length", str(len(data))), ("connection", "close")]
        )
        sent = [connection.send(request), connection.send(h11.Data(data)), connection.send(h11.EndOfMessage())]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"".join(part or b"" for part in sent))
            return await _read_answer(connection, stream)


async def _read_answer(connection: h11.Connection, stream: trio.abc.Stream) -> Answer:
    status, headers, content = 0, {}, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status, headers = event.status_code, {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            content += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            is_json = headers.get("content-type") == "application/json"
            return Answer(status, json.loads(content) if is_json else content, headers)


def install_kernels(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a scripted kernel, one that does not start, and no other that tests would wait for."""
    folder = private_place / "jupyter" / "kernels"
    documents = {
        "script": {"argv": list(scripted_argv()), "display_name": "Scripted", "language": "script"},
        "broken": {"argv": list(scripted_argv("exit-at-start=3")), "display_name": "Broken", "language": "script"},
    }
    for name, document in documents.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "kernel.json").write_text(json.dumps({**document, "interrupt_mode": "message"}))
    (folder / "script" / "logo-64x64.png").write_bytes(b"\x89PNG")
    (private_place / "secret").write_text("secret")
    if LINKS:
        (folder / "script" / "logo-svg.svg").symlink_to(private_place / "secret")
    monkeypatch.setenv("JUPYTER_PATH", str(private_place / "jupyter"))
    return folder


@asynccontextmanager
async def open_jupyter(**settings: Any) -> AsyncIterator[Client]:
    """Run a server and yield a client of its Jupyter API."""
    async with serve(ServerConfig(token=TOKEN, **settings)) as server:
        yield Client(server)
