"""The official TypeScript SDK in Node as an agent: beside an IDE over HTTP, and alone over standard streams."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import trio

from kallichore.agents.tools import ALONE, IN_WINDOW
from kernels import REAL_TIME, body, ipykernel_argv, open_client, open_started
from node_programs import install, needs_node

NODE = Path(__file__).with_name("node")

SAME = {
    "result": {"text/plain": "42"},
    "failed": "ZeroDivisionError",
    "content": [["text", None], ["image", "image/png"]],
    "refused": [True, "INVALID_ARGUMENTS"],
    "unknown": -32602,
    "progress": "on it\n",
    "cancelled": True,
    "after": {"text/plain": "6"},
    "history": ["Ada"],
}
"""What an agent is told on both ways."""


async def run_agent(*arguments: str) -> dict[str, Any]:
    """Run the program, and return what each of its steps said."""
    packages = await trio.to_thread.run_sync(install, NODE)
    with trio.fail_after(REAL_TIME * 2):
        done = await trio.run_process(
            ["node", str(NODE / "agent.cjs"), *arguments],
            env={**os.environ, "NODE_PATH": str(packages)},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(line) for line in done.stdout.decode().splitlines())


@needs_node
async def test_agent_beside_an_ide() -> None:
    """Tools are listed and called, outputs, errors and images come back, prints are told meanwhile, and a call that is
    cancelled leaves nothing running; the agent ends its session.
    """
    async with open_client(transport="tcp", token="tok") as client:
        given = await client.call("POST", "/mcp/workspaces", {"display_name": "work"})
        request = {**body(workspace_id=given["workspace_id"]), "argv": list(ipykernel_argv())}
        async with open_started(client, request):
            told = await run_agent("http", given["url"], given["token"])

    assert told == {"server": "positron", "tools": [tool.name for tool in IN_WINDOW], **SAME}


@needs_node
async def test_agent_alone() -> None:
    """The same over standard streams, with a session that the agent starts, and a large output that it reads whole."""
    told = await run_agent("stdio", sys.executable, "-m", "kallichore.cli.kcclient", "mcp")
    alone = {"server": "kallichore", "started": "s", "whole": 100_001, "templates": 1}

    assert told == {"tools": [tool.name for tool in ALONE], **alone, **SAME}
