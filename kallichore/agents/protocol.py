"""A toolbox as an MCP server: the official package speaks the protocol, with all its versions, and we answer.

Making it imports the package ``mcp``, an extra, which takes a second or more; so only who serves agents imports this.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import attrs
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError

from kallichore._version import __version__
from kallichore.agents.answers import Budget, ToolAnswer, answer_error
from kallichore.agents.problems import ToolError
from kallichore.agents.tools import Tool
from kallichore.models.bodies import Attribution

logger = logging.getLogger(__name__)

LARGEST_REPORT = 2048
"""Bytes of a report on how things go; the whole is in the answer."""

_Context = ServerRequestContext[Any, Any]


@attrs.frozen
class Caller:
    """Who calls a tool.

    Args:
        name: The agent's name, as it told it.
        version: Its version.
        request: The HTTP request by which the call came; None over standard streams.
        report: Tells the agent how things go, where it asked for that.
    """

    name: str | None
    version: str | None
    request: Any
    report: Callable[[str], Awaitable[None]]

    def attribution(self, tool: str, workspace_id: str | None = None) -> Attribution:
        """Return what the session's other clients, and its history, are told of code that this caller has run."""
        return Attribution(
            source="agent", agent_name=self.name, agent_version=self.version, workspace_id=workspace_id, tool=tool
        )


@attrs.frozen
class Resource:
    """The whole of something: its address, MIME type, and text or base64."""

    uri: str
    mime_type: str
    text: str | None = None
    blob: str | None = None


class Toolbox(Protocol):
    """What an MCP server of ours offers."""

    name: ClassVar[str]
    title: ClassVar[str]
    instructions: ClassVar[str]
    tools: ClassVar[Sequence[Tool]]
    resource_template: ClassVar[str | None]
    """The address of its resources, with names in braces; None if it has none."""

    def meet(self, name: str | None, version: str | None) -> None:
        """Note who the agent is; called before anything else, and again and again."""

    async def call(self, tool: str, arguments: Mapping[str, Any], caller: Caller) -> ToolAnswer:
        """Do what a tool does. Its arguments have been checked. Cancelling it means that nobody waits any more.

        Raises:
            ToolError: It cannot.
        """

    async def read(self, uri: str) -> Resource | None:
        """Return a resource; None if there is none."""


def make_protocol_server(toolbox: Toolbox) -> Server[Any]:
    """Return the MCP server of a toolbox."""
    tools = {tool.name: tool for tool in toolbox.tools}

    async def list_tools(context: _Context, params: Any) -> types.ListToolsResult:
        caller = _caller_of(context)
        toolbox.meet(caller.name, caller.version)
        return types.ListToolsResult(tools=[_as_type(tool) for tool in toolbox.tools])

    async def call_tool(context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            known = ", ".join(tools)
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name[:100]!r}; there are: {known}")
        arguments = params.arguments or {}
        try:
            tool.check(arguments)
            caller = _caller_of(context)
            toolbox.meet(caller.name, caller.version)
            return _as_result(await toolbox.call(tool.name, arguments, caller))
        except ToolError as error:
            return _as_result(answer_error(error.code, error.message, error.facts))

    async def list_resources(context: _Context, params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[])

    async def list_templates(context: _Context, params: Any) -> types.ListResourceTemplatesResult:
        assert toolbox.resource_template is not None
        template = types.ResourceTemplate(
            name="output", title="The whole of an output", uri_template=toolbox.resource_template
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(context: _Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        found = await toolbox.read(str(params.uri))
        if found is None:
            uri = str(params.uri)[:200]
            raise MCPError(types.INVALID_PARAMS, f"There is no resource {uri!r}, or not any more", {"uri": uri})
        contents: types.TextResourceContents | types.BlobResourceContents
        if found.text is not None:
            contents = types.TextResourceContents(uri=found.uri, mime_type=found.mime_type, text=found.text)
        else:
            contents = types.BlobResourceContents(uri=found.uri, mime_type=found.mime_type, blob=found.blob or "")
        return types.ReadResourceResult(contents=[contents])

    has_resources = toolbox.resource_template is not None
    return Server(
        toolbox.name,
        version=__version__,
        title=toolbox.title,
        instructions=toolbox.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources if has_resources else None,
        on_list_resource_templates=list_templates if has_resources else None,
        on_read_resource=read_resource if has_resources else None,
    )


def _as_type(tool: Tool) -> types.Tool:
    hints = types.ToolAnnotations(read_only_hint=tool.reads_only, open_world_hint=not tool.reads_only)
    return types.Tool(name=tool.name, description=tool.description, input_schema=tool.input_schema, annotations=hints)


def _as_result(answer: ToolAnswer) -> types.CallToolResult:
    content: list[types.ContentBlock] = [
        types.TextContent(text=json.dumps(answer.members, ensure_ascii=False, indent=1))
    ]
    content += [types.ImageContent(data=image.data, mime_type=image.mime_type) for image in answer.images]
    content += [
        types.ResourceLink(uri=link.uri, name=link.name, mime_type="text/plain", size=link.size)
        for link in answer.links
    ]
    return types.CallToolResult(content=content, structured_content=dict(answer.members), is_error=answer.is_error)


def _caller_of(context: _Context) -> Caller:
    params = context.session.client_params
    info = None if params is None else params.client_info
    count = 0

    async def report(message: str) -> None:
        nonlocal count
        count += 1
        await context.session.report_progress(count, None, Budget().fit(message, LARGEST_REPORT))

    return Caller(
        name=None if info is None else info.name,
        version=None if info is None else info.version,
        request=context.request,
        report=report,
    )
