"""The ``kcclient`` command: run code, and look after a server's sessions, from a terminal or a script.

Exit codes: 0 when all went well, 1 when the code raised an error or the server refused, 2 for bad arguments.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import click
import h11
import trio
from click.core import ParameterSource

from kallichore._version import __version__
from kallichore.cli import escapes
from kallichore.cli.show import Printer, print_json, to_json
from kallichore.client.address import DEFAULT_URL, Address, from_connection_document, from_url
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import ChannelClosedError, make_message, open_channel
from kallichore.errors import KallichoreError, innermost
from kallichore.kernel.kernelspecs import find_kernelspec, list_kernelspecs
from kallichore.transport.connection_file import read_connection_file

CANNOT = 1

NO_ANSWER = (h11.RemoteProtocolError, trio.BrokenResourceError)
"""What comes of a server that ends while it is asked, and of something else that listens at its address."""


@attrs.frozen
class Target:
    """The server that the options name, if they name one. A connection file counts first; it needs no token."""

    url: str | None
    connection_file: Path | None
    token: str | None

    @property
    def is_named(self) -> bool:
        """Whether a running server was named."""
        return self.url is not None or self.connection_file is not None

    def address(self) -> Address:
        """Return the server's address; without options, the usual one."""
        if self.connection_file is not None:
            address = from_connection_document(read_connection_file(self.connection_file))
            return address if self.token is None else attrs.evolve(address, token=self.token)
        return from_url(self.url or DEFAULT_URL, self.token)

    def client(self) -> ApiClient:
        """Return a client of the server."""
        return ApiClient(self.address())


def run_to_exit(act: Callable[[], Awaitable[int | None]]) -> None:
    """Run an async command to the exit code that it returns; what fails is said on standard error."""
    try:
        code = trio.run(act)
    except (KeyboardInterrupt, BaseExceptionGroup, KallichoreError, OSError, *NO_ANSWER) as error:
        code = _complain(innermost(error))
    sys.exit(code or 0)


def _complain(error: BaseException) -> int:
    match error:
        case KeyboardInterrupt():
            return 130
        case KallichoreError():
            output = getattr(error, "output", None)
            _say_error(f"{error}\n{output}" if output else str(error))
        case BrokenPipeError():
            # Whoever read our output has seen enough. Nothing is left to be written at the end of the process.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 0
        case ConnectionError():
            _say_error(f"{error}; is it running? To start one: kcserver --connection-file FILE")
        case OSError():
            _say_error(str(error))
        case _ if isinstance(error, NO_ANSWER):
            _say_error(f"The server ended, or is no Kallichore server: {error}")
        case _:
            raise error
    return CANNOT


def _say_error(text: str) -> None:
    click.echo(f"Error: {escapes.lines(text)}", err=True)


async def first_session(client: ApiClient, session_id: str | None) -> str:
    """Return the session to act on: the one that was named, else the server's first.

    Raises:
        ApiError: There is none.
    """
    if session_id is not None:
        return session_id
    sessions = (await client.call("GET", "/sessions"))["sessions"]
    if not sessions:
        raise ApiError("The server has no sessions; make one with: kcclient start", 404, None)
    return str(sessions[0]["session_id"])


def read_code(code: str) -> str:
    """Return code that was given as an argument, or comes from standard input for ``-``.

    Code is UTF-8, whatever the locale takes it for; what is none is replaced.
    """
    data = sys.stdin.buffer.read() if code == "-" else os.fsencode(code)
    return data.decode("utf-8", "replace")


def session_members(timeout: int) -> dict[str, Any]:
    """Return what a new session has besides its kernel: it starts here, and may take ``timeout`` seconds, 0 for any."""
    try:
        directory = os.getcwd()
    except OSError as error:
        click.echo(f"The current directory is gone or closed ({error.strerror}); the kernel starts elsewhere", err=True)
        directory = os.path.expanduser("~")
    return {"working_directory": directory, "connection_timeout": timeout or -1}


pass_target = click.make_pass_decorator(Target)
session_option = click.option("-s", "--session-id", help="The session; the server's first if left out.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
timeout_option = click.option(
    "--timeout", type=click.IntRange(0), default=30, show_default=True, metavar="SECONDS",
    help="How long the kernel may take to start and answer; 0 for no limit, as long as its process lives.",
)  # fmt: skip
kernel_option = click.option("-k", "--kernel", default="python3", show_default=True, help="An installed kernel.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-u", "--url", envvar="KALLICHORE_URL", help=f"The server: http://host:port or unix:/path [{DEFAULT_URL}]."
)
@click.option(
    "-c",
    "--connection-file",
    type=click.Path(path_type=Path),
    envvar="KALLICHORE_CONNECTION_FILE",
    help="The server's connection file.",
)
@click.option("-t", "--token", envvar="KALLICHORE_TOKEN", help="The server's bearer token.")
@click.version_option(__version__, "-V", "--version", prog_name="kcclient", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, url: str | None, connection_file: Path | None, token: str | None) -> None:
    """Run code in supervised Jupyter kernels, and look after the sessions of a server."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A letter that the terminal lacks is no reason to lose all that follows.
            stream.reconfigure(errors="replace")
    typed = {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if {"url", "connection_file"} <= typed:
        raise click.UsageError("--url and --connection-file are two ways to name the server; give one of them")
    if "url" in typed:
        connection_file = None
    elif connection_file is not None and "token" not in typed:
        # The file's own is right; one in the environment is for a URL.
        token = None
    context.obj = Target(url, connection_file, token)


@main.command("exec")
@kernel_option
@timeout_option
@click.argument("code")
@pass_target
def exec_(target: Target, kernel: str, timeout: int, code: str) -> None:
    """Run CODE in a new kernel and leave nothing behind; '-' reads it from standard input.

    The kernel is supervised by a private server inside this command, unless a running server is named.
    """
    from kallichore.cli.run_code import run_here, run_there

    text = read_code(code)

    async def act() -> int:
        spec, members = find_kernelspec(kernel), session_members(timeout)
        if target.is_named:
            return await run_there(target.address(), spec, text, members)
        return await run_here(spec, text, members)

    run_to_exit(act)


@main.command()
@json_option
def kernels(as_json: bool) -> None:
    """List the kernels that are installed on this machine."""
    specs = list_kernelspecs()
    if as_json:
        print_json({name: attrs.asdict(spec) for name, spec in specs.items()})
        return
    if not specs:
        click.echo("No kernels are installed; to get one: python -m pip install ipykernel", err=True)
        sys.exit(CANNOT)
    _print_table(
        ("Name", "Kernel", "Language", "Where"),
        [(spec.name, spec.display_name, spec.language, spec.resource_dir) for spec in specs.values()],
    )


def _print_table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(escapes.one_line, row))
    # Names are names, those with brackets and colons too.
    Console(markup=False, emoji=False).print(table)


@main.command("list")
@json_option
@pass_target
def list_(target: Target, as_json: bool) -> None:
    """List the server's sessions."""

    async def act() -> None:
        answer = await target.client().call("GET", "/sessions")
        if as_json:
            print_json(answer)
            return
        _print_table(
            ("Session", "Kernel", "Status", "Process", "Client", "Queued"),
            [
                (
                    session["session_id"],
                    session["display_name"],
                    session["status"],
                    str(session.get("process_id", "")),
                    "connected" if session["connected"] else "",
                    str(session["execution_queue"]["length"] or ""),
                )
                for session in answer["sessions"]
            ],
        )

    run_to_exit(act)


def _show_members(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        _print_table(("", ""), [(name, str(value)) for name, value in answer.items()])


@main.command()
@json_option
@pass_target
def status(target: Target, as_json: bool) -> None:
    """Show how the server is."""

    async def act() -> None:
        _show_members(await target.client().call("GET", "/status"), as_json)

    run_to_exit(act)


@main.command()
@json_option
@pass_target
def configuration(target: Target, as_json: bool) -> None:
    """Show the settings that can change while the server runs."""

    async def act() -> None:
        _show_members(await target.client().call("GET", "/server_configuration"), as_json)

    run_to_exit(act)


@main.command("idle-timeout-hours")
@click.option("--hours", type=int, required=True, help="Hours without activity; 0 for 30 seconds, -1 for never.")
@pass_target
def idle_timeout_hours(target: Target, hours: int) -> None:
    """Set after how many idle hours the server ends."""

    async def act() -> None:
        await target.client().call("POST", "/server_configuration", {"idle_shutdown_hours": hours})
        click.echo("The server never ends by itself" if hours < 0 else f"Idle shutdown: {hours} hours")

    run_to_exit(act)


async def _create(client: ApiClient, kernel: str, session_id: str | None, timeout: int) -> str:
    """Create a session for an installed kernel and return its id."""
    from kallichore.models.converter import unstructure

    spec = find_kernelspec(kernel)
    new_id = session_id or f"{spec.name}-{secrets.token_hex(4)}"
    await client.call("PUT", "/sessions", unstructure(spec.new_session(new_id, **session_members(timeout))))
    return new_id


def _tell_id(session_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"session_id": session_id})
    else:
        click.echo(escapes.one_line(session_id))


@main.command()
@kernel_option
@timeout_option
@click.option("-s", "--session-id", help="The new session's id; a random one if left out.")
@json_option
@pass_target
def create(target: Target, kernel: str, timeout: int, session_id: str | None, as_json: bool) -> None:
    """Create a session without starting its kernel."""

    async def act() -> None:
        _tell_id(await _create(target.client(), kernel, session_id, timeout), as_json)

    run_to_exit(act)


@main.command()
@kernel_option
@timeout_option
@click.option("-s", "--session-id", help="The session's id; a random one if left out.")
@json_option
@pass_target
def start(target: Target, kernel: str, timeout: int, session_id: str | None, as_json: bool) -> None:
    """Create a session, unless there is one of this id, and start its kernel."""

    async def act() -> None:
        client = target.client()
        sessions = (await client.call("GET", "/sessions"))["sessions"]
        if session_id in [session["session_id"] for session in sessions]:
            chosen = str(session_id)
        else:
            chosen = await _create(client, kernel, session_id, timeout)
        with _progress(f"Starting {chosen}", quiet=as_json):
            await client.call("POST", session_path(chosen, "start"))
        _tell_id(chosen, as_json)

    run_to_exit(act)


def _progress(text: str, *, quiet: bool) -> Any:
    """Return a block that shows a spinner on a terminal's standard error while it runs."""
    from contextlib import nullcontext

    from rich.console import Console

    console = Console(stderr=True)
    return nullcontext() if quiet or not console.is_terminal else console.status(escapes.one_line(text))


@main.command()
@session_option
@pass_target
def info(target: Target, session_id: str | None) -> None:
    """Show everything about a session, as JSON."""

    async def act() -> None:
        client = target.client()
        print_json(await client.call("GET", session_path(await first_session(client, session_id))))

    run_to_exit(act)


@main.command()
@session_option
@click.option("--code", required=True, help="What to run; '-' reads it from standard input.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the end and print what the kernel says.")
@pass_target
def execute(target: Target, session_id: str | None, code: str, wait: bool) -> None:
    """Run code in a session that exists already."""
    from kallichore.cli import run_code
    from kallichore.client.channel_client import make_execute_request, send_and_leave

    text = read_code(code)

    async def act() -> int:
        address = target.address()
        client = ApiClient(address)
        name = await first_session(client, session_id)
        await run_code.check_kernel(client, name, must_be_started=wait)
        if not wait:
            await send_and_leave(address, name, make_execute_request(text, allow_stdin=False))
            return 0
        printer = Printer()
        async with open_channel(address, name, since=0) as channel:
            await run_code.execute(channel, text, printer, lambda: run_code.has_exited(client, name))
            await run_code.show_late_output(channel, printer)
        return int(printer.failed)

    run_to_exit(act)


@main.command()
@click.option("-s", "--session-id", help="A session of the server; without it, its first, or a new one with -k.")
@click.option("-k", "--kernel", help="An installed kernel for a new session, which ends with the console.")
@timeout_option
@pass_target
def console(target: Target, session_id: str | None, kernel: str | None, timeout: int) -> None:
    """Work with a kernel in the terminal: a session's of a server, else one of this command's own.

    Where standard input is no terminal, what comes from it is run.
    """
    from kallichore.cli.console_session import run_console

    def run() -> Awaitable[int]:
        address = target.address() if target.is_named else None
        return run_console(address, session_id, kernel, session_members(timeout))

    run_to_exit(run)


@main.command("connect")
@session_option
@pass_target
def connect(target: Target, session_id: str | None) -> None:
    """Print every message of a session as a line of JSON, until it ends (also: listen)."""

    async def act() -> None:
        address = target.address()
        name = await first_session(ApiClient(address), session_id)
        if sys.stdout.isatty():
            click.echo(f"Listening to {escapes.one_line(name)}", err=True)
        async with open_channel(address, name) as channel:
            try:
                while True:
                    print(to_json(await channel.receive()), flush=True)
            except ChannelClosedError as error:
                click.echo(escapes.lines(str(error)), err=True)

    run_to_exit(act)


main.add_command(connect, "listen")


@main.command()
@click.option("-s", "--session-id", help="What this session's kernel prints, rather than the server's log.")
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


def _act_on_session(name: str, method: str, operation: str, done: str, doc: str) -> None:
    """Add a command that is one request about one session."""

    @main.command(name, help=doc)
    @session_option
    @json_option
    @pass_target
    def command(target: Target, session_id: str | None, as_json: bool) -> None:
        async def act() -> None:
            client = target.client()
            chosen = await first_session(client, session_id)
            body: dict[str, Any] | None = {} if operation == "restart" else None
            with _progress(f"{name} {chosen}", quiet=as_json or operation != "restart"):
                await client.call(method, session_path(chosen, operation), body)
            if as_json:
                print_json({"session_id": chosen, "result": done})
            else:
                click.echo(f"{escapes.one_line(chosen)}: {done}")

        run_to_exit(act)


_act_on_session("interrupt", "POST", "interrupt", "interrupted", "Interrupt what a session runs.")
_act_on_session("restart", "POST", "restart", "restarted", "Restart a session's kernel.")
_act_on_session("kill", "POST", "kill", "killed", "Kill a session's kernel, with all that it started.")
_act_on_session("delete", "DELETE", "", "deleted", "Delete a session whose kernel has exited.")


@main.command()
@click.option("-s", "--session-id", help="End this session's kernel rather than the server.")
@pass_target
def shutdown(target: Target, session_id: str | None) -> None:
    """End the server with all its kernels, or one session's kernel."""
    from kallichore.cli.run_code import check_kernel, has_exited

    async def act() -> None:
        address = target.address()
        if session_id is None:
            await ApiClient(address).call("POST", "/shutdown")
            click.echo("The server is shutting down")
            return
        client = ApiClient(address)
        await check_kernel(client, session_id)
        async with open_channel(address, session_id) as channel:
            await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
            with trio.move_on_after(10) as waiting:
                # An earlier kernel's end may come first, if nobody has heard of it.
                while not ("exited" in await channel.receive() and await has_exited(client, session_id)):
                    pass
        outcome = "asked to shut down" if waiting.cancelled_caught else "exited"
        click.echo(f"{escapes.one_line(session_id)}: {outcome}")

    run_to_exit(act)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete kcclient's arguments: eval "$(kcclient completion bash)"."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "kcclient", "_KCCLIENT_COMPLETE").source())


if __name__ == "__main__":
    main()
