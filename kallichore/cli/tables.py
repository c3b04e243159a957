"""Tables for people and for pipes: no line is broken, so a path can be copied and ``grep`` finds what it looks for.

A terminal that is too narrow wraps lines itself, and knows that they are one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from kallichore.cli import escapes
from kallichore.cli.show import print_json


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, the titles first; nothing in it acts on a terminal."""
    from rich.cells import cell_len

    lines = [list(titles), *([escapes.one_line(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    first, *others = format_table(titles, rows)
    click.echo(first if "NO_COLOR" in os.environ else click.style(first, bold=True))
    for line in others:
        click.echo(line)


def print_members(answer: dict[str, Any], as_json: bool) -> None:
    """Print an object of the API, as a table of names and values or as JSON."""
    if as_json:
        print_json(answer)
    else:
        print_table(("Name", "Value"), [(name, str(value)) for name, value in answer.items()])


def progress(text: str, *, quiet: bool) -> AbstractContextManager[Any]:
    """Return a block that shows a spinner on a terminal's standard error while it runs."""
    if quiet or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(escapes.one_line(text))
