"""The bridge's tools: those of the workspace's endpoint, each call one request there.

The protocol's version of 2026-07-28 needs no session, so there is nothing to set up anew when the IDE was restarted,
and to cancel a call is to close its connection.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar
from urllib.parse import urlencode, urlsplit

import attrs
import h11
import mcp_types as types
import trio

from kallichore._version import __version__
from kallichore.agents.answers import Image, ToolAnswer
from kallichore.agents.problems import Problem, ToolError
from kallichore.agents.protocol import Caller, Resource
from kallichore.agents.tools import IN_WINDOW, Tool
from kallichore.cli.bridge.discovery import Discovery
from kallichore.cli.bridge.workspaces import Endpoint
from kallichore.client.address import Address, from_url
from kallichore.client.api_client import ApiError
from kallichore.client.event_stream import open_events
from kallichore.errors import ConfigurationError

logger = logging.getLogger(__name__)

CONNECT_PATIENCE = 5.0
"""Seconds that a connection may take."""

REFUSALS = (401, 403, 404, 503)
"""Statuses of requests that no handler has seen: the IDE was restarted, or its workspace is another by now."""

TRY_AGAIN = 1.0
"""Seconds after a refusal, for an IDE that is just coming back."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts to be present; each is twice the one before."""

VERSION = "2026-07-28"

_GONE = (ConnectionError, h11.RemoteProtocolError, trio.BrokenResourceError)

INSTRUCTIONS = """\
These are the sessions of the Positron workspace that you work in, and its window. They are reached when a tool is \
called: if it says POSITRON_NOT_RUNNING or NO_WORKSPACE, the user has to open the workspace in Positron."""


class _RefusedError(Exception):
    """No handler has seen the request, for the reason that this says."""


@attrs.define(eq=False)
class BridgeToolbox:
    """See `kallichore.agents.protocol.Toolbox`.

    Args:
        discovery: Finds the workspace.
    """

    discovery: Discovery
    name: ClassVar[str] = "positron"
    title: ClassVar[str] = "Positron sessions"
    instructions: ClassVar[str] = INSTRUCTIONS
    tools: ClassVar[Sequence[Tool]] = IN_WINDOW
    resource_template: ClassVar[str | None] = None
    _met: trio.Event = attrs.field(factory=trio.Event, init=False)
    _agent: dict[str, str] = attrs.field(factory=dict, init=False)

    def meet(self, name: str | None, version: str | None) -> None:
        """Note who the agent is."""
        self._agent = {key: value for key, value in (("name", name), ("version", version)) if value}
        self._met.set()

    async def read(self, uri: str) -> Resource | None:
        """Return nothing: there are no resources."""
        await trio.lowlevel.checkpoint()
        return None

    async def call(self, tool: str, arguments: Mapping[str, Any], caller: Caller) -> ToolAnswer:
        """Have the endpoint do what a tool does.

        Raises:
            ToolError: There is no workspace, or it cannot be reached.
        """
        try:
            return await self._call_at(self.discovery.find(), tool, arguments, caller)
        except _RefusedError as refusal:
            logger.info("Refused: %s; looking for the workspace again", refusal)
        await trio.sleep(TRY_AGAIN)
        try:
            return await self._call_at(self.discovery.find(), tool, arguments, caller)
        except _RefusedError as refusal:
            raise ToolError(
                Problem.POSITRON_NOT_RUNNING, f"Positron does not answer ({refusal}); is it open?"
            ) from None

    async def _call_at(self, endpoint: Endpoint, tool: str, arguments: Mapping[str, Any], caller: Caller) -> ToolAnswer:
        address, path = _locate(endpoint)
        body = self._request(tool, arguments)
        headers = [("mcp-protocol-version", VERSION), ("mcp-method", "tools/call"), ("mcp-name", tool)]
        has_begun = False
        try:
            async with open_events(address, path, body, headers, CONNECT_PATIENCE) as events:
                has_begun = True
                async for event in events:
                    message = json.loads(event.data)
                    if "id" in message:
                        return _as_answer(message)
                    if message.get("method") == "notifications/progress":
                        await caller.report(str(message.get("params", {}).get("message", "")))
        except ApiError as error:
            if error.status in REFUSALS:
                raise _RefusedError(str(error)) from error
            return _as_answer(error.body if isinstance(error.body, dict) else {})
        except _GONE as error:
            if not has_begun and isinstance(error, ConnectionRefusedError | ConnectionError):
                raise _RefusedError(str(error)) from error
            raise ToolError(Problem.CHANNEL_CLOSED, f"Positron went away during the call: {error}") from error
        raise ToolError(Problem.CHANNEL_CLOSED, "Positron went away during the call")

    def _request(self, tool: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        agent = {"name": "kcserver mcp-stdio", "version": __version__, **self._agent}
        meta = {
            types.PROTOCOL_VERSION_META_KEY: VERSION,
            types.CLIENT_INFO_META_KEY: agent,
            types.CLIENT_CAPABILITIES_META_KEY: {},
            "progressToken": 1,
        }
        params = {"name": tool, "arguments": dict(arguments), "_meta": meta}
        return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}

    async def be_present(self) -> None:
        """Show the agent to the workspace, for ever: its window lists it."""
        await self._met.wait()
        pause = FIRST_PAUSE
        while True:
            with suppress(ToolError, ApiError, ConfigurationError, *_GONE):
                address, path = _locate(self.discovery.find())
                facts = {**self._agent, "pid": os.getppid(), "cwd": str(self.discovery.wanted.directory)}
                query = urlencode(facts)
                async with open_events(
                    address, f"{path}/presence?{query}", connect_patience=CONNECT_PATIENCE
                ) as events:
                    pause = FIRST_PAUSE
                    async for _ in events:
                        pass
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _locate(endpoint: Endpoint) -> tuple[Address, str]:
    """Return the address and path of an endpoint.

    Raises:
        ToolError: ``NO_WORKSPACE``, it has none.
    """
    try:
        return from_url(endpoint.url, endpoint.token), urlsplit(endpoint.url).path
    except ConfigurationError as error:
        raise ToolError(Problem.NO_WORKSPACE, str(error)) from error


def _as_answer(message: Mapping[str, Any]) -> ToolAnswer:
    """Return what a tool answered, or the error that came in its place."""
    result = message.get("result")
    if not isinstance(result, dict):
        error = message.get("error")
        words = error.get("message") if isinstance(error, dict) else "no answer"
        raise ToolError(Problem.SERVER_REFUSED, f"Positron refused the call: {words}")
    content = result.get("content") or []
    images = tuple(Image(block["mimeType"], block["data"]) for block in content if block.get("type") == "image")
    members = result.get("structuredContent")
    if not isinstance(members, dict):
        members = {"text": "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")}
    return ToolAnswer(members, images, is_error=bool(result.get("isError")))
