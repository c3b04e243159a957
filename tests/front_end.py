"""Front ends at a kernel's WebSocket in Jupyter's API, as tests have them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from kallichore.client.channel_client import make_message
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.jupyter.kernels import Kernels
from kallichore.session.session import Session
from kallichore.wire.jupyter_frames import V1, Parts, read_default, read_v1, write_v1
from kernels import REAL_TIME, scripted

TOKEN = "t0ken"


@attrs.frozen
class FrontEnd:
    """One WebSocket of a front end."""

    socket: WebSocketConnection
    session_id: str
    is_v1: bool

    async def ask(self, msg_type: str, content: dict[str, Any], channel: str = "shell") -> str:
        """Send a request and return its id."""
        message = make_message(msg_type, content, channel)
        header = {**message["header"], "session": self.session_id, "username": "me"}
        if self.is_v1:
            documents = (header, {}, {}, content)
            raw = (json.dumps(document).encode() for document in documents)
            await self.socket.send_message(b"".join(write_v1(Parts(channel, *raw))))
        else:
            text = json.dumps({"header": header, "metadata": {}, "content": content, "channel": channel})
            await self.socket.send_message(text)
        return str(header["msg_id"])

    async def execute(self, code: str) -> str:
        """Send an execution and return its id."""
        return await self.ask("execute_request", {"code": code})

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        data = await self.socket.get_message()
        parts = read_v1(bytes(data)) if self.is_v1 else read_default(data)
        names = ("header", "parent_header", "content")
        documents = {name: json.loads(getattr(parts, name)) for name in names}
        return {"channel": parts.channel, "buffers": parts.buffers, **documents}

    async def receive_until(self, msg_type: str, parent: str | None = None, **content: Any) -> list[dict[str, Any]]:
        """Return the messages up to one of this type, with this parent and content."""
        messages: list[dict[str, Any]] = []
        with trio.fail_after(REAL_TIME):
            while True:
                messages.append(latest := await self.receive())
                is_it = latest["header"]["msg_type"] == msg_type and content.items() <= latest["content"].items()
                if is_it and parent in (None, latest["parent_header"].get("msg_id")):
                    return messages

    async def receive_all(self, asked: str) -> list[dict[str, Any]]:
        """Return the messages up to the answer and the idle of an execution, in whichever order these come."""
        messages: list[dict[str, Any]] = []
        with trio.fail_after(REAL_TIME):
            missing = {"execute_reply", "idle"}
            while missing:
                messages.append(latest := await self.receive())
                if latest["parent_header"].get("msg_id") == asked:
                    missing -= {latest["header"]["msg_type"], latest["content"].get("execution_state")}
        return messages


def target_of(server: RunningServer, session: Session, session_id: str) -> str:
    """Return the path and query of a kernel's WebSocket."""
    kernel_id = Kernels(server.server, server.server.config).id_of(session)
    return f"/api/kernels/{kernel_id}/channels?token={TOKEN}&session_id={session_id}"


@asynccontextmanager
async def connect(
    server: RunningServer, session: Session, session_id: str = "a", *, is_v1: bool = False, **headers: str
) -> AsyncIterator[FrontEnd]:
    """Connect a front end to a session's kernel."""
    port = server.address.port
    assert port is not None
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            socket = await wrap_client_stream(
                nursery,
                stream,
                f"127.0.0.1:{port}",
                target_of(server, session, session_id),
                subprotocols=[V1] if is_v1 else None,
                extra_headers=fields,
                max_message_size=1 << 28,
            )
            assert socket.subprotocol == (V1 if is_v1 else None)
            yield FrontEnd(socket, session_id, is_v1)
            with trio.move_on_after(1):
                await socket.aclose()
            nursery.cancel_scope.cancel()
    except* LocalProtocolError:
        # trio-websocket stumbles over a ping while it closes.
        pass


@asynccontextmanager
async def open_kernel(*behaviours: str, **settings: Any) -> AsyncIterator[tuple[RunningServer, Session]]:
    """Run a server with a kernel."""
    async with serve(ServerConfig(token=TOKEN, **settings)) as server:
        session = server.create_session(scripted("s", *behaviours))
        await session.start()
        yield server, session


def texts_of(messages: list[dict[str, Any]]) -> list[str]:
    """Return what streams said."""
    return [each["content"]["text"] for each in messages if each["header"]["msg_type"] == "stream"]
