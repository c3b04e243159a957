"""Commands about a state directory: what it holds, with no server running, and the end of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kallichore.cli import escapes
from kallichore.cli.amounts import size, span
from kallichore.cli.ending import run_to_exit, say
from kallichore.cli.options import json_option
from kallichore.cli.show import print_json
from kallichore.cli.tables import print_table, progress
from kallichore.errors import KallichoreError, StateDirectoryInUseError

if TYPE_CHECKING:
    from kallichore.session.kept import KeptSession

Command = TypeVar("Command", bound=Callable[..., Any])

state_option = click.option(
    "--state-dir", "directory", type=click.Path(path_type=Path), metavar="DIR",
    help="The state directory, as kcserver was given it.",
)  # fmt: skip


@click.group(invoke_without_command=True)
@state_option
@json_option
@click.pass_context
def sessions(context: click.Context, directory: Path | None, as_json: bool) -> None:
    """Show the sessions that a state directory holds, whether or not a server has it."""
    context.obj = directory
    if context.invoked_subcommand is not None:
        return
    chosen = _chosen(directory)

    async def act() -> None:
        from kallichore.session.kept import look_at_kept

        kept, holder = look_at_kept(chosen), _holder_of(chosen)
        if as_json:
            print_json(
                {
                    "state_directory": str(chosen),
                    "server": holder,
                    "total": len(kept),
                    "sessions": [_as_json(session) for session in kept],
                }
            )
            return
        _show(kept, time.time())
        if holder is not None:
            say(f"{_words_of(holder)} has this directory; kcclient list asks it")
        elif kept:
            say(f"No server has this directory; to go on: kcserver --state-dir {chosen}")

    run_to_exit(act)


def _chosen(*directories: Path | None) -> Path:
    """Return the state directory that was named.

    Raises:
        click.UsageError: None was.
    """
    chosen = next((directory for directory in directories if directory is not None), None)
    if chosen is None:
        raise click.UsageError("Which state directory? Name it: --state-dir DIR, as kcserver was given it")
    return chosen.expanduser().absolute()


def _holder_of(directory: Path) -> dict[str, Any] | None:
    """Return the process id and the address of the server that has a state directory now."""
    from kallichore.state.directory import is_held, read_owner

    if not is_held(directory):
        return None
    pid, address = read_owner(directory)
    return {"process_id": pid, "address": address}


def _words_of(holder: dict[str, Any]) -> str:
    pid, address = holder["process_id"], holder["address"]
    return ("A server" if pid is None else f"The server with pid {pid}") + (f" at {address}" if address else "")


def _show(kept: list[KeptSession], now: float) -> None:
    titles = (
        *("Session", "Kernel", "Status", "Process", "Age", "Last activity", "Memory"),
        *("Queued", "Undelivered"),
    )
    print_table(titles, [_row(session, now) for session in kept])
    for session in kept:
        for problem in session.problems:
            say(f"{escapes.one_line(session.session_id)}: {problem}")


def _row(session: KeptSession, now: float) -> tuple[str, ...]:
    status = "damaged" if session.is_damaged else session.status or ""
    process = "" if session.process_id is None else str(session.process_id) if session.kernel_lives else "gone"
    active = "" if session.active_at is None else f"{span(now - session.active_at)} ago"
    return (
        *(session.session_id, session.display_name, status, process),
        *(span(None if session.created is None else now - session.created), active),
        *(size(session.memory_bytes), str(session.queue_length or ""), str(session.undelivered or "")),
    )


def _as_json(session: KeptSession) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "display_name": session.display_name,
        "status": session.status,
        "created": session.created,
        "active": session.active_at,
        "process_id": session.process_id,
        "kernel_lives": session.kernel_lives,
        "memory_bytes": session.memory_bytes,
        "queue_length": session.queue_length,
        "undelivered_messages": session.undelivered,
        "last_exit": session.last_exit,
        "damaged": session.is_damaged,
        "problems": list(session.problems),
        "directory": str(session.place),
    }


@sessions.command()
@click.argument("session_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "are_all", is_flag=True, help="All sessions of the directory.")
@click.option("--forget", is_flag=True, help="Remove what the directory has of them as well: they cannot be restarted.")
@state_option
@json_option
@click.pass_obj
def end(
    outer: Path | None, session_ids: tuple[str, ...], are_all: bool, forget: bool, directory: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """End the kernels of sessions that no server looks after, as a server would: asked first, then killed.

    What a kernel says last is kept, and so is how it ended: the next server has the sessions, without kernels.
    """
    if bool(session_ids) == are_all:
        raise click.UsageError("Which sessions? Name some, or give --all")
    chosen = _chosen(directory, outer)

    async def act() -> None:
        from kallichore.server.end_kept import end_kept
        from kallichore.session.kept import look_at_kept

        wanted = _pick(look_at_kept(chosen), session_ids, chosen, may_be_damaged=forget)
        results: list[dict[str, str]] = []

        def on_done(session: KeptSession, outcome: str) -> None:
            results.append({"session_id": session.session_id, "result": outcome})
            if not as_json:
                click.echo(f"{escapes.one_line(session.session_id)}: {outcome}")

        try:
            with progress("Ending kernels", quiet=as_json):
                await end_kept(chosen, wanted, on_done, forget=forget)
        except StateDirectoryInUseError as error:
            holder = _words_of({"process_id": error.pid, "address": error.address})
            raise KallichoreError(
                f"{holder} has {chosen}, and looks after its sessions; "
                "to end one there: kcclient kill -s ID, and kcclient delete -s ID; to end all: kcclient shutdown"
            ) from error
        if as_json:
            print_json({"total": len(results), "sessions": results})

    run_to_exit(act)


def _pick(
    kept: list[KeptSession], session_ids: tuple[str, ...], directory: Path, *, may_be_damaged: bool
) -> list[KeptSession]:
    """Return the sessions with these ids; all that are not damaged, or may be, if there are no ids.

    Raises:
        KallichoreError: There is no such session, or it is damaged.
    """
    by_id = {session.session_id: session for session in kept}
    for missing in (session_id for session_id in session_ids if session_id not in by_id):
        raise KallichoreError(
            f"There is no session {missing!r} in {directory}; to see which there are: "
            f"kcclient sessions --state-dir {directory}"
        )
    wanted = [by_id[session_id] for session_id in dict.fromkeys(session_ids)] if session_ids else kept
    damaged = [session for session in wanted if session.is_damaged and not may_be_damaged]
    if damaged and session_ids:
        raise KallichoreError(
            f"Session {damaged[0].session_id!r} is damaged: {damaged[0].problems[0]}; --forget removes it"
        )
    for session in damaged:
        say(f"{escapes.one_line(session.session_id)} is damaged, and stays; --forget removes it")
    return [session for session in wanted if session not in damaged]


COMMANDS = (sessions,)
