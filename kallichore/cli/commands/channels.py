"""Commands that stay at a session: ``console`` and ``connect``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from kallichore.cli import escapes
from kallichore.cli.ending import run_to_exit, say
from kallichore.cli.names import complete_session
from kallichore.cli.options import (
    kernel_option,
    new_kernel,
    new_session_options,
    pass_target,
    session_option,
    take_over_option,
)
from kallichore.cli.show import to_json
from kallichore.cli.target import Target, choose_session
from kallichore.client.server import NewKernel

if TYPE_CHECKING:
    from kallichore.kernel.kernelspecs import KernelSpec


@click.command()
@click.option(
    "-s", "--session-id", shell_complete=complete_session,
    help="A session of the server. If left out it is its only one, or you are asked; a new one if there is none.",
)  # fmt: skip
@kernel_option
@take_over_option
@new_session_options("--timeout")
@pass_target
def console(
    target: Target, session_id: str | None, kernel: str | None, take_over: bool, cwd: str | None,
    env: tuple[str, ...], start_timeout: int, engine: str | None,
) -> None:  # fmt: skip
    """Work with a kernel in the terminal: a session's of a server, else one of this command's own.

    -k is for a new session, which ends with the console. Others who are connected stay. Where standard input is no
    terminal, what comes from it is run.
    """
    from kallichore.cli.console_session import run_console

    if session_id is not None and kernel is not None:
        raise click.UsageError("-s names a session that is there, -k the kernel of a new one; give one of them")

    async def run() -> int:
        def wanted(spec: KernelSpec) -> NewKernel:
            return new_kernel(spec, cwd, env, start_timeout, engine=engine)

        server = await target.server() if target.is_named or session_id is not None else None
        return await run_console(server, session_id, kernel, wanted, takes_over=take_over)

    run_to_exit(run)


@click.command("connect")
@session_option
@click.option("--share", "attach", flag_value="share", default=True, help="Join those who are connected (the default).")
@click.option("--watch", "attach", flag_value="watch", help="Join them, and leave all to who comes next.")
@click.option("--take-over", "attach", flag_value="takeover", help="Displace the client that has the session.")
@click.option(
    "--since", type=click.IntRange(0), metavar="NUMBER",
    help="Begin behind the message with this number, 0 for all that is there; each comes with its number, as seq.",
)  # fmt: skip
@pass_target
def connect(target: Target, session_id: str | None, attach: str, since: int | None) -> None:
    """Print every message of a session as a line of JSON, until it ends (also: listen).

    What was not delivered to anybody yet comes first, and counts as delivered then, unless with --watch.
    """

    async def act() -> None:
        from kallichore.cli.dialogue import own_name
        from kallichore.client.websocket import ChannelClosedError

        server = await target.server()
        name = await choose_session(server, session_id)
        if sys.stdout.isatty():
            say(f"Listening to {escapes.one_line(name)}")
        async with server.open_channel(name, since=since, attach=attach, name=own_name("connect")) as channel:
            try:
                while True:
                    print(to_json(await channel.receive()), flush=True)
            except ChannelClosedError as error:
                say(str(error))

    run_to_exit(act)


COMMANDS = (console, connect)
