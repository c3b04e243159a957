"""Commands for coding agents."""

from __future__ import annotations

from importlib.util import find_spec

import click

from kallichore.cli.ending import WrongUseError, run_to_exit
from kallichore.cli.options import pass_target
from kallichore.cli.target import Target


@click.command()
@pass_target
def mcp(target: Target) -> None:
    """Offer kernels to a coding agent, over MCP on standard input and output.

    Nothing has to be running: there is a private server, which ends with the agent, unless a running one is named.
    This is what to put into an agent's configuration: the command kcclient, with the argument mcp.
    """

    async def act() -> None:
        if find_spec("mcp") is None:
            raise WrongUseError("This needs the package mcp; to get it: python -m pip install 'kallichore[mcp]'")
        from kallichore.cli.agent.serving import serve_agent

        await serve_agent(target)

    run_to_exit(act)


COMMANDS = (mcp,)
