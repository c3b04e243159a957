"""Commands about the server: how it is, how it is set, what it logs, and its end."""

from __future__ import annotations

import json

import click
import trio

from kallichore.cli import escapes
from kallichore.cli.ending import run_to_exit
from kallichore.cli.names import complete_session
from kallichore.cli.options import json_option, pass_target
from kallichore.cli.tables import print_members
from kallichore.cli.target import Target
from kallichore.client.api_client import ApiClient, session_path

SHUTDOWN_PATIENCE = 10.0
"""Seconds that a kernel which was asked to end is waited for."""


@click.command()
@json_option
@pass_target
def status(target: Target, as_json: bool) -> None:
    """Show how the server is."""

    async def act() -> None:
        print_members(await target.client().call("GET", "/status"), as_json)

    run_to_exit(act)


@click.command()
@json_option
@pass_target
def configuration(target: Target, as_json: bool) -> None:
    """Show the settings that can change while the server runs."""

    async def act() -> None:
        print_members(await target.client().call("GET", "/server_configuration"), as_json)

    run_to_exit(act)


@click.command("idle-timeout-hours")
@click.option("--hours", type=int, required=True, help="Hours without activity; 0 for 30 seconds, -1 for never.")
@pass_target
def idle_timeout_hours(target: Target, hours: int) -> None:
    """Set after how many idle hours the server ends."""

    async def act() -> None:
        await target.client().call("POST", "/server_configuration", {"idle_shutdown_hours": hours})
        click.echo("The server never ends by itself" if hours < 0 else f"Idle shutdown: {hours} hours")

    run_to_exit(act)


@click.command()
@click.option(
    "-s", "--session-id", shell_complete=complete_session,
    help="What this session's kernel prints, rather than the server's log.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come, until Ctrl-C or the end.")
@click.option("-n", "--tail", type=click.IntRange(0), help="Only the last so many of the lines there are.")
@json_option
@pass_target
def logs(target: Target, session_id: str | None, follow: bool, tail: int | None, as_json: bool) -> None:
    """Print what the server logs, or what a session's kernel prints outside of its messages."""
    from kallichore.cli.show import show_log_line
    from kallichore.client.event_stream import open_events

    path = "/logs" if session_id is None else session_path(session_id, "logs")
    path += "" if tail is None else f"?tail={tail}"

    async def act() -> None:
        if follow:
            async with open_events(target.address(), path) as events:
                async for event in events:
                    show_log_line(json.loads(event.data), as_json)
            return
        for line in (await target.client().call("GET", path))["lines"]:
            show_log_line(line, as_json)

    run_to_exit(act)


@click.command()
@click.option(
    "-s", "--session-id", shell_complete=complete_session, help="End this session's kernel rather than the server."
)
@pass_target
def shutdown(target: Target, session_id: str | None) -> None:
    """End the server with all its kernels, or one session's kernel."""

    async def act() -> None:
        if session_id is None:
            await target.client().call("POST", "/shutdown")
            click.echo("The server is shutting down")
        else:
            outcome = await _shut_down_kernel(target, target.client(), session_id)
            click.echo(f"{escapes.one_line(session_id)}: {outcome}")

    run_to_exit(act)


async def _shut_down_kernel(target: Target, client: ApiClient, session_id: str) -> str:
    """Ask a kernel to end, wait for that a while, and return what came of it."""
    from kallichore.cli.dialogue import check_kernel, has_exited
    from kallichore.client.channel_client import make_message, open_channel

    await check_kernel(client, session_id)
    async with open_channel(target.address(), session_id, attach="visit") as channel:
        await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
        with trio.move_on_after(SHUTDOWN_PATIENCE) as waiting:
            # An earlier kernel's end may come first, from a server that knows no visitors.
            while not ("exited" in await channel.receive() and await has_exited(client, session_id)):
                pass
    return "asked to shut down" if waiting.cancelled_caught else "exited"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete kcclient's arguments: eval "$(kcclient completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "kcclient", "_KCCLIENT_COMPLETE").source())


COMMANDS = (status, configuration, idle_timeout_hours, logs, shutdown, completion)
