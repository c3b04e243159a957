"""kcserver mcp-stdio, with the official client on one side and a server with a workspace on the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trio

from agent_client import open_command
from kallichore.client.api_client import ApiClient
from kernels import REAL_TIME, ask_until, body, open_client, open_started

BRIDGE = ("kallichore", "mcp-stdio")
TCP = {"transport": "tcp", "token": "tok"}


def write_connections(place: Path, given: dict[str, Any]) -> None:
    """Write what Positron would, of a workspace that contains the current directory."""
    folders = [str(Path.cwd())]
    (place / "w.json").write_text(json.dumps({"version": 1, "url": given["url"], "token": given["token"]}))
    entry = {"descriptor": "w.json", "folders": folders, "lastActive": 1}
    (place / "connections.json").write_text(json.dumps({"version": 1, "workspaces": {given["workspace_id"]: entry}}))


async def register(client: ApiClient) -> dict[str, Any]:
    """Register a workspace."""
    answer: dict[str, Any] = await client.call("POST", "/mcp/workspaces", {"display_name": "w"})
    return answer


async def test_agent_on_standard_streams_reaches_the_workspace(private_place: Path) -> None:
    """Positron need not run when the agent starts; once it does its sessions are used, with output as it comes, the
    agent is shown to the window, and after a restart under another address the next call finds it again.
    """
    reports: list[str] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reports.append(str(message))

    with trio.fail_after(REAL_TIME):
        async with open_command(*BRIDGE, "--connections", str(private_place)) as agent:
            tools = [tool.name for tool in (await agent.session.list_tools()).tools]
            nobody = await agent.call("list_sessions")
            async with open_client(**TCP) as client:
                given = await register(client)
                write_connections(private_place, given)
                async with open_started(client, body(workspace_id=given["workspace_id"])):
                    ran = await agent.session.call_tool("execute_code", {"code": "print hello"}, progress_callback=note)
                    wrong = await agent.call("execute_code", code="1", session_id="nobody")
                    clients: list[Any] = []
                    while not clients:
                        clients = (await client.call("GET", "/status"))["mcp"]["workspaces"][0]["clients"]
            gone = await agent.call("list_sessions")
            async with open_client(**TCP) as client:
                write_connections(private_place, await register(client))
                back = await agent.call("list_sessions")

    assert "execute_code" in tools
    assert nobody.code == "NO_WORKSPACE"
    assert (ran.structured_content["stdout"], reports) == ("hello\n", ["hello\n"])
    assert wrong.code == "SESSION_NOT_FOUND"
    assert clients[0]["name"] == "tester"
    assert gone.code == "POSITRON_NOT_RUNNING"
    assert back.members["sessions"] == []


async def test_variables_of_a_kernel_lead_to_its_workspace() -> None:
    """With the variables that kernels are given, no directory is needed; a call that is cancelled is interrupted."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            variables = {"POSITRON_MCP_URL": given["url"], "POSITRON_MCP_TOKEN": given["token"]}
            async with (
                open_started(client, body(workspace_id=given["workspace_id"])),
                open_command(*BRIDGE, **variables) as agent,
            ):
                sessions = (await agent.call("list_sessions")).members["sessions"]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: agent.call("execute_code", code="sleep 1000"))
                    await ask_until(client, lambda session: session["status"] == "busy")
                    nursery.cancel_scope.cancel()
                idle = await ask_until(client, lambda session: session["status"] == "idle")

    assert [session["session_id"] for session in sessions] == ["s"]
    assert idle["status"] == "idle"
