"""The page that tells how to configure agents: each of its configurations starts what it says it does."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from kallichore.agents.tools import ALONE, IN_WINDOW
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import REAL_TIME

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "agents.md").read_text()

READERS = {"json": json.loads, "toml": tomllib.loads}

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

ADDED = re.search(r"`claude mcp add (\w+) -- ([^`]+)`", PAGE)


def commands() -> Iterable[tuple[str, list[str]]]:
    """Return the servers that the page configures: the name of each, and its command line."""
    for kind, text in BLOCKS:
        if kind in READERS:
            document: dict[str, Any] = READERS[kind](text)
            # JSON has the one name, TOML the other.
            ((key, servers),) = document.items()
            assert key == {"json": "mcpServers", "toml": "mcp_servers"}[kind]
            for name, server in servers.items():
                assert {"command", "args"} == server.keys()
                yield name, [server["command"], *server["args"]]
    assert ADDED is not None
    yield ADDED[1], ADDED[2].split()


COMMANDS = list(commands())


def test_page_has_a_configuration_for_each_way() -> None:
    """In JSON and in TOML alone, at a server that is named, beside Positron, and by a command of Claude Code's."""
    alone = ("kallichore", ["kcclient", "mcp"])
    assert COMMANDS == [
        alone,
        alone,
        ("kallichore", ["kcclient", "-c", "/path/to/kc.json", "mcp"]),
        ("positron", ["kcserver", "mcp-stdio", "--connections", "DIR"]),
        alone,
    ]


@pytest.mark.parametrize(("name", "command"), [each for at, each in enumerate(COMMANDS) if each not in COMMANDS[:at]])
async def test_configuration_starts_its_server(name: str, command: list[str], private_place: Path) -> None:
    """The command that is configured is installed, and the official client finds the tools there."""
    file = private_place / "kc.json"
    places = {"/path/to/kc.json": str(file), "DIR": str(private_place)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program, *arguments = (places.get(word, word) for word in command)
    parameters = StdioServerParameters(command=program, args=arguments, env={**os.environ, "PATH": path})
    with trio.fail_after(REAL_TIME):
        async with (
            serve(ServerConfig(connection_file=file)),
            stdio_client(parameters) as streams,
            ClientSession(*streams) as agent,
        ):
            told = await agent.initialize()
            tools = [tool.name for tool in (await agent.list_tools()).tools]

    assert told.server_info.name == name
    assert tools == [tool.name for tool in {"kallichore": ALONE, "positron": IN_WINDOW}[name]]


async def test_program_of_the_page_runs(private_place: Path) -> None:
    """What the page shows of an agent's day prints what came of it."""
    (program,) = [text for kind, text in BLOCKS if kind == "python"]
    with trio.fail_after(REAL_TIME):
        done = await trio.run_process([sys.executable, "-c", program], cwd=private_place, capture_stdout=True)

    assert done.stdout == b"42\n"
