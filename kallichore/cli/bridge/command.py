"""The command ``kcserver mcp-stdio``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import trio

from kallichore.errors import innermost


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of its options."""
    parser = argparse.ArgumentParser(
        prog="kcserver mcp-stdio",
        description="Connect an agent that speaks MCP over standard input and output to a Positron workspace.",
        allow_abbrev=False,
    )
    parser.add_argument("--connections", metavar="DIR", type=Path, help="where Positron wrote connections.json")
    parser.add_argument("--workspace", metavar="ID", help="the workspace; else the one that contains this directory")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the bridge until the agent is gone, and return its exit code."""
    options = make_parser().parse_args(arguments)
    if find_spec("mcp") is None:
        print("Error: this needs the package mcp: python -m pip install 'kallichore[mcp]'", file=sys.stderr)
        return 1
    level = _level(os.environ.get("RUST_LOG", "info"))
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s %(message)s")
    try:
        trio.run(_serve, options.connections, options.workspace)
    except (KeyboardInterrupt, BaseExceptionGroup) as error:
        if not isinstance(innermost(error), KeyboardInterrupt):
            raise
    return 0


def _level(wish: str) -> int:
    """Return the level of ``RUST_LOG``, as far as it is a plain one."""
    name = next((part for part in wish.split(",") if "=" not in part), "info").strip()
    known = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "off": "CRITICAL"}
    return int(getattr(logging, known.get(name.lower(), "INFO")))


async def _serve(connections: Path | None, workspace_id: str | None) -> None:
    from kallichore.agents.protocol import make_protocol_server
    from kallichore.agents.standard_streams import serve_standard_streams
    from kallichore.cli.agent.serving import cancel_at_signal
    from kallichore.cli.bridge.discovery import Discovery
    from kallichore.cli.bridge.toolbox import BridgeToolbox
    from kallichore.cli.bridge.workspaces import Wanted

    wanted = Wanted(workspace_id, Path.cwd(), os.environ)
    toolbox = BridgeToolbox(Discovery(wanted, connections))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_signal, nursery.cancel_scope)
        nursery.start_soon(toolbox.be_present)
        await serve_standard_streams(make_protocol_server(toolbox))
        nursery.cancel_scope.cancel()
