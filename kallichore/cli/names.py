"""What a shell offers at Tab for a session or a kernel: what there is, if it is told at once."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import click
import trio
from click.shell_completion import CompletionItem

PATIENCE = 1.0
"""Seconds that Tab may take."""


def _target(context: click.Context) -> Any:
    """Return the server that is named so far: what comes before Tab is not run, only read."""
    from kallichore.cli.target import TOKEN_VARIABLE, Target, token_for

    given = context.find_root().params
    url = given.get("url") or os.environ.get("KALLICHORE_URL")
    file = given.get("connection_file") or os.environ.get("KALLICHORE_CONNECTION_FILE")
    file = None if given.get("url") else file
    other_token = token_for(url, os.environ.get(TOKEN_VARIABLE))
    return Target(url, Path(os.path.expanduser(file)) if file else None, given.get("token"), other_token)


def _ask(find: Callable[[], Awaitable[Iterable[CompletionItem]]], incomplete: str) -> list[CompletionItem]:
    async def ask() -> list[CompletionItem]:
        with trio.move_on_after(PATIENCE):
            return [item for item in await find() if str(item.value).startswith(incomplete)]
        return []

    try:
        return trio.run(ask)
    except Exception:  # a shell at Tab wants no error
        return []


def complete_session(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the server's sessions, each with its kernel and status."""

    async def find() -> list[CompletionItem]:
        sessions = await (await _target(context).server()).sessions()
        return [
            CompletionItem(session.session_id, help=f"{session.display_name}, {session.status}") for session in sessions
        ]

    return _ask(find, incomplete)


def complete_kernel(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the kernels that can be started."""

    async def find() -> list[CompletionItem]:
        from kallichore.cli.installed import list_kernels

        kernels = await list_kernels(await _target(context).named_server())
        return [CompletionItem(name, help=spec.display_name) for name, spec in kernels.items()]

    return _ask(find, incomplete)
