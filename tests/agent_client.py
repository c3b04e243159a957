"""An agent, as the official Python client of MCP is one: for tests of what agents get."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx2
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import Implementation


@attrs.frozen
class Told:
    """What a tool answered."""

    members: dict[str, Any]
    content: list[Any]
    is_error: bool

    @property
    def code(self) -> str | None:
        """The code of the error, if it is one."""
        return self.members["error"]["code"] if self.is_error else None


@attrs.frozen
class Agent:
    """Calls tools."""

    session: ClientSession

    async def call(self, tool: str, **arguments: Any) -> Told:
        """Call a tool and return what it answered."""
        result = await self.session.call_tool(tool, arguments)
        return Told(result.structured_content, result.content, result.is_error)


@asynccontextmanager
async def open_command(*arguments: str, name: str = "tester", **environment: str) -> AsyncIterator[Agent]:
    """Start a command of ours that is an MCP server on its standard streams, and be its agent."""
    command = StdioServerParameters(command=sys.executable, args=["-m", *arguments], env={**os.environ, **environment})
    async with (
        stdio_client(command) as streams,
        ClientSession(*streams, client_info=Implementation(name=name, version="1")) as session,
    ):
        await session.initialize()
        yield Agent(session)


@asynccontextmanager
async def open_endpoint(url: str, token: str, name: str = "tester") -> AsyncIterator[Agent]:
    """Be the agent of an endpoint."""
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=100) as http,
        streamable_http_client(url, http_client=http) as streams,
        ClientSession(*streams[:2], client_info=Implementation(name=name, version="1")) as session,
    ):
        await session.initialize()
        yield Agent(session)
