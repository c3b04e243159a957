"""What stands beside the endpoint: the server's card, and the presence of agents, as an ASGI app has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import trio

from kallichore._version import __version__
from kallichore.agents.tools import IN_WINDOW
from kallichore.mcp.access import Place
from kallichore.mcp.workspace import Workspace

STILL_HERE = 15.0
"""Seconds after which an agent that holds its presence open hears that it still is."""

PROTOCOL_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
"""What is spoken, as the package ``mcp`` has it; a test holds the two together."""

LONGEST_FACT = 1000
"""Characters of what an agent tells about itself."""

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def make_card(url: str) -> tuple[bytes, str]:
    """Return a workspace's card and its ETag. There is nothing in it that is not public."""
    card = {
        "name": "positron",
        "title": "Positron sessions",
        "version": __version__,
        "description": "Run code in the sessions of a Positron workspace, and use its window.",
        "protocolVersions": list(PROTOCOL_VERSIONS),
        "remotes": [
            {"type": "streamable-http", "url": url, "authentication": {"required": True, "schemes": ["bearer"]}}
        ],
        "tools": [{"name": tool.name, "description": tool.description} for tool in IN_WINDOW],
    }
    content = json.dumps(card, indent=1).encode()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def answer_card(url: str, headers: Mapping[str, str], send: Send) -> None:
    """Answer a request for a card.

    Args:
        url: The workspace's address.
        headers: The request's, by their names in lower case.
        send: Sends the answer.
    """
    content, tag = make_card(url)
    tags = {each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")}
    is_known = tag in tags or "*" in tags
    fields = [
        (b"content-type", b"application/mcp-server-card+json"),
        (b"etag", tag.encode()),
        (b"cache-control", b"no-cache"),
        *([] if is_known else [(b"content-length", str(len(content)).encode())]),
    ]
    await send({"type": "http.response.start", "status": 304 if is_known else 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if is_known else content, "more_body": False})


def read_facts(query: str, session_id: str | None) -> dict[str, Any]:
    """Return what an agent tells about itself in its presence's query, as members of `McpClient`."""
    given = {name: value[:LONGEST_FACT] for name, value in parse_qsl(query) if value}
    pid = given.get("pid", "")
    return {
        "name": given.get("name"),
        "version": given.get("version"),
        "working_directory": given.get("cwd"),
        "session_id": session_id,
        "pid": int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 else None,
    }


async def hold_presence(workspace: Workspace, place: Place, query: str, send: Send) -> None:
    """Show an agent among the workspace's clients for as long as it holds this open, or the workspace is there.

    Cancelling it, which is what comes of an agent that is gone, ends that.
    """
    number = workspace.add_client(read_facts(query, place.session_id), datetime.now(UTC))
    if number is None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    removed = trio.Event()

    def look() -> None:
        if workspace.is_removed:
            removed.set()

    workspace.watchers.add(look)
    try:
        fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        while not removed.is_set():
            await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
            with trio.move_on_after(STILL_HERE):
                await removed.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        workspace.watchers.discard(look)
        workspace.remove_client(number)
