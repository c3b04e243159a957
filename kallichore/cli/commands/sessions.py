"""Commands about sessions: what there is, and what becomes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import click

from kallichore.cli import escapes
from kallichore.cli.amounts import size, span
from kallichore.cli.ending import WrongUseError, run_to_exit, say
from kallichore.cli.exit_codes import FAILED
from kallichore.cli.installed import find_kernel, list_kernels
from kallichore.cli.options import (
    json_option,
    kernel_option,
    new_kernel,
    new_session_options,
    pass_target,
    session_option,
    spares_option,
)
from kallichore.cli.show import print_json
from kallichore.cli.tables import print_table, progress
from kallichore.cli.target import Target, choose_session
from kallichore.client.api_client import session_path
from kallichore.client.server import Summary
from kallichore.errors import KallichoreError


@click.command()
@json_option
@pass_target
def kernels(target: Target, as_json: bool) -> None:
    """List the installed kernels: the server's if one is named, else this machine's."""

    async def act() -> int:
        specs = await list_kernels(await target.named_server())
        if as_json:
            print_json({name: attrs.asdict(spec) for name, spec in specs.items()})
            return 0
        if not specs:
            say("No kernels are installed; to get one: python -m pip install ipykernel")
            return FAILED
        rows = [(spec.name, spec.display_name, spec.language, spec.resource_dir) for spec in specs.values()]
        print_table(("Name", "Kernel", "Language", "Where"), rows)
        return 0

    run_to_exit(act)


@click.command("list")
@click.option("--warm", is_flag=True, help="List the kernels that are kept ready before anybody asks for them.")
@json_option
@pass_target
def list_(target: Target, warm: bool, as_json: bool) -> None:
    """List the server's sessions, or the kernels that are kept ready."""

    async def act() -> None:
        if warm:
            await _list_warm(target, as_json)
            return
        sessions = await (await target.server()).sessions()
        if as_json:
            print_json({"total": len(sessions), "sessions": [session.told for session in sessions]})
            return
        now = datetime.now(UTC)
        columns = {
            "Age": [span(_seconds(session.started, now)) for session in sessions],
            "Idle": [span(_seconds(session.idle_since, now)) for session in sessions],
            "Memory": [size(session.memory_bytes) for session in sessions],
        }
        columns["Where"] = [(session.told.get("place") or {}).get("node") or "" for session in sessions]
        columns["Waits for"] = [_pending(session) for session in sessions]
        if any("cull" in session.told for session in sessions):
            columns["Ends"] = [_end(session.told.get("cull"), now) for session in sessions]
        # A column of which the server's API has nothing is left out.
        columns = {title: cells for title, cells in columns.items() if any(cells)}
        rows = [(*_row(session), *cells) for session, *cells in zip(sessions, *columns.values(), strict=True)]
        print_table(("Session", "Kernel", "Status", "Process", "Client", "Queued", *columns), rows)

    run_to_exit(act)


async def _list_warm(target: Target, as_json: bool) -> None:
    server = await target.kallichore("kernels that are kept ready")
    answer = await server.client.call("GET", "/warm")
    if as_json:
        print_json(answer)
        return
    now = datetime.now(UTC)
    rows = [
        (
            kernel.get("kernel") or "",
            kernel.get("session_id") or "everybody",
            kernel["status"],
            str(kernel.get("process_id") or ""),
            span(_seconds(datetime.fromisoformat(kernel["started"]), now)),
            size(kernel.get("memory_bytes")),
            kernel["working_directory"],
        )
        for kernel in answer["kernels"]
    ]
    print_table(("Kernel", "For", "Status", "Process", "Age", "Memory", "Where"), rows)
    if problem := answer.get("problem"):
        say(f"The latest that ended by itself: {problem}")


def _row(session: Summary) -> tuple[str, ...]:
    return (
        session.session_id,
        session.display_name,
        session.status,
        str(session.process_id or ""),
        "connected" if session.is_connected else "",
        str(session.queued or ""),
    )


def _pending(session: Summary) -> str:
    """Return why a session's kernel has no machine yet, or cannot be reached on its own; empty if neither is so."""
    pending, lost = session.told.get("pending"), session.told.get("connection_lost")
    if pending is not None:
        place = "" if pending.get("position") is None else f", {pending['position']} in the queue"
        return f"a machine: {pending['reason']}{place}"
    return "" if lost is None else f"a connection: {lost['reason']}".removesuffix(": ")


def _seconds(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else (now - since).total_seconds()


def _end(cull: dict[str, Any] | None, now: datetime) -> str:
    """Return when a session's kernel will be ended because it is idle, or what keeps it from that."""
    if cull is None:
        return "never"
    if (deadline := cull.get("deadline")) is None:
        return f"not now ({cull['held_by'].replace('_', ' ')})"
    from kallichore.conversation.culling import span as span_in_words

    return f"in {span_in_words(max(0, round((datetime.fromisoformat(deadline) - now).total_seconds())))}"


def _tell_id(session_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"session_id": session_id})
    else:
        click.echo(escapes.one_line(session_id))


@click.command()
@kernel_option
@new_session_options("--timeout")
@spares_option
@click.option("-s", "--session-id", help="The new session's id; a random one if left out.")
@json_option
@pass_target
def create(
    target: Target, kernel: str | None, cwd: str | None, env: tuple[str, ...], start_timeout: int, engine: str | None,
    spares: int | None, session_id: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Create a session without starting its kernel."""

    async def act() -> None:
        server = await target.kallichore("sessions without a kernel that runs; kcclient start makes one with it")
        spec = await find_kernel(server, kernel)
        _tell_id(await server.create(new_kernel(spec, cwd, env, start_timeout, spares, engine), session_id), as_json)

    run_to_exit(act)


@click.command()
@kernel_option
@new_session_options("--timeout")
@spares_option
@click.option("-s", "--session-id", help="The session's id; a random one if left out.")
@json_option
@pass_target
def start(
    target: Target, kernel: str | None, cwd: str | None, env: tuple[str, ...], start_timeout: int, engine: str | None,
    spares: int | None, session_id: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Create a session, unless there is one of this id, and start its kernel."""

    async def act() -> None:
        server = await (target.server() if spares is None else target.kallichore("kernels that are kept ready"))
        given = [("-k", kernel), ("--cwd", cwd), ("--env", env), ("--spares", spares is not None), ("--engine", engine)]
        # Some servers do not tell which sessions there are, so it is only asked where one is named.
        known = [] if session_id is None else await server.sessions()
        sessions = {session.session_id: session for session in known}
        if session_id in sessions:
            _check_startable(sessions[session_id], given)
            chosen = str(session_id)
            with progress(f"Starting {chosen}", quiet=as_json):
                await server.start_again(chosen)
        else:
            wanted = new_kernel(await find_kernel(server, kernel), cwd, env, start_timeout, spares, engine)
            with progress(f"Starting {session_id or wanted.name}", quiet=as_json):
                chosen = await server.start_new(wanted, session_id)
        _tell_id(chosen, as_json)

    run_to_exit(act)


def _check_startable(session: Summary, given: list[tuple[str, Any]]) -> None:
    """See that a session that is there can be started as it is.

    Raises:
        KallichoreError: Its kernel runs.
        WrongUseError: It was to be another session.
    """
    name = session.session_id
    if session.status not in ("uninitialized", "exited"):
        raise KallichoreError(f"The kernel of session {name} runs already; for a fresh one: kcclient restart -s {name}")
    if options := [option for option, value in given if value]:
        raise WrongUseError(
            f"There is a session {name} already, and {options[0]} is for new ones; choose another -s, or: "
            f"kcclient delete -s {name}"
        )


@click.command()
@session_option
@pass_target
def info(target: Target, session_id: str | None) -> None:
    """Show everything about a session, as JSON."""

    async def act() -> None:
        server = await target.server()
        print_json(await server.describe(await choose_session(server, session_id)))

    run_to_exit(act)


@click.command()
@session_option
@click.option("-n", "--tail", type=click.IntRange(1), help="Only the last so many of what ran.")
@json_option
@pass_target
def history(target: Target, session_id: str | None, tail: int | None, as_json: bool) -> None:
    """Show what ran in a session lately, and what came of it, in short."""

    async def act() -> None:
        server = await target.kallichore("history of what ran")
        name = await choose_session(server, session_id)
        entries = (await server.client.call("GET", session_path(name, "history")))[-(tail or 0) :]
        if as_json:
            print_json(entries)
            return
        for entry in entries:
            _show_entry(entry)

    run_to_exit(act)


def _show_entry(entry: dict[str, Any]) -> None:
    time = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    error = entry.get("error")
    click.echo(click.style(f"# {time}", dim=True))
    click.echo(escapes.lines(entry["input"].rstrip("\n")))
    outputs = [entry["output"].rstrip("\n"), f"{error['name']}: {error['message']}" if error else ""]
    for text in filter(None, outputs):
        click.echo("".join(f"    {line}\n" for line in escapes.lines(text).splitlines()), nl=False)
    if entry.get("truncated"):
        click.echo("    (cut)")


def _act_on_session(name: str, done: str, doc: str) -> click.Command:
    """Return a command that is one operation on one session."""

    @click.command(name, help=doc)
    @session_option
    @json_option
    @pass_target
    def command(target: Target, session_id: str | None, as_json: bool) -> None:
        async def act() -> None:
            server = await target.server()
            chosen = await choose_session(server, session_id)
            operations = {
                "interrupt": server.interrupt,
                "restart": server.restart,
                "kill": server.kill,
                "delete": server.delete,
            }
            with progress(f"{name} {chosen}", quiet=as_json or name != "restart"):
                await operations[name](chosen)
            if as_json:
                print_json({"session_id": chosen, "result": done})
            else:
                click.echo(f"{escapes.one_line(chosen)}: {done}")

        run_to_exit(act)

    return command


COMMANDS = (
    *(kernels, list_, create, start, info, history),
    _act_on_session("interrupt", "interrupted", "Interrupt what a session runs."),
    _act_on_session("restart", "restarted", "Restart a session's kernel."),
    _act_on_session("kill", "killed", "Kill a session's kernel, with all that it started."),
    _act_on_session("delete", "deleted", "Delete a session whose kernel has exited."),
)
