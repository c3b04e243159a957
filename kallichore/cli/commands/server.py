"""Commands about the server: how it is, how it is set, what it logs, and its end."""

from __future__ import annotations

import json

import click

from kallichore.cli import escapes
from kallichore.cli.ending import run_to_exit, say
from kallichore.cli.exit_codes import FAILED
from kallichore.cli.names import complete_session
from kallichore.cli.options import json_option, pass_target
from kallichore.cli.show import print_json
from kallichore.cli.tables import print_members, print_table, progress
from kallichore.cli.target import Target
from kallichore.client.api_client import session_path


@click.command()
@json_option
@pass_target
def status(target: Target, as_json: bool) -> None:
    """Show how the server is."""

    async def act() -> None:
        print_members(await (await target.server()).status(), as_json)

    run_to_exit(act)


@click.command()
@json_option
@pass_target
def configuration(target: Target, as_json: bool) -> None:
    """Show the settings that can change while the server runs."""

    async def act() -> None:
        server = await target.kallichore("settings that can change")
        print_members(await server.client.call("GET", "/server_configuration"), as_json)

    run_to_exit(act)


@click.command("idle-timeout-hours")
@click.option("--hours", type=int, required=True, help="Hours without activity; 0 for 30 seconds, -1 for never.")
@pass_target
def idle_timeout_hours(target: Target, hours: int) -> None:
    """Set after how many idle hours the server ends."""

    async def act() -> None:
        server = await target.kallichore("settings that can change")
        await server.client.call("POST", "/server_configuration", {"idle_shutdown_hours": hours})
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
        server = await target.kallichore("logs to show")
        if follow:
            async with open_events(server.address, path) as events:
                async for event in events:
                    show_log_line(json.loads(event.data), as_json)
            return
        for line in (await server.client.call("GET", path))["lines"]:
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
        server = await target.server()
        if session_id is None:
            await server.shut_down()
            click.echo("The server is shutting down")
        else:
            from kallichore.cli.dialogue import check_kernel

            await check_kernel(server, session_id)
            outcome = await server.shut_down_kernel(session_id)
            click.echo(f"{escapes.one_line(session_id)}: {outcome}")

    run_to_exit(act)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete kcclient's arguments: eval "$(kcclient completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "kcclient", "_KCCLIENT_COMPLETE").source())


@click.command()
@json_option
@pass_target
def engines(target: Target, as_json: bool) -> None:
    """Check the profiles by which the server starts kernels on other machines; exit with 1 if one cannot be used."""

    async def act() -> int:
        server = await target.kallichore("engines")
        with progress("Trying each profile", quiet=as_json):
            answer = await server.client.call("GET", "/engines")
        profiles = answer["profiles"]
        problems = {name: profile["problems"] for name, profile in profiles.items()}
        if as_json:
            print_json(answer)
        elif not profiles:
            say("The server has no profiles; kcserver --config FILE names a file of them")
        else:
            rows = [(name, profiles[name]["kind"], "; ".join(told) or "ok") for name, told in problems.items()]
            print_table(("Profile", "Engine", "State"), rows)
        return FAILED if any(problems.values()) else 0

    run_to_exit(act)


COMMANDS = (status, configuration, engines, idle_timeout_hours, logs, shutdown, completion)
