"""``kcclient run``: the cells of a file, one after another, until all are done or one fails."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.cli import escapes, exit_codes
from kallichore.cli.answers import Answering
from kallichore.cli.cells import Cell, NotANotebookError, split_script
from kallichore.cli.ending import WrongUseError, say_error
from kallichore.cli.execution import Kernel, Outcome, attend
from kallichore.cli.show import print_json
from kallichore.cli.sink import Sink, result_of

NOTEBOOK = ".ipynb"

WORKED = Outcome(exit_codes.WORKED, "ok", {})
"""What becomes of a file without code."""


@attrs.define
class Job:
    """A file's cells, and the notebook that they are of, if a notebook is what was read or is to be written."""

    cells: list[Cell]
    notebook: Any = None
    kernel: str | None = None
    """The kernel that the file asks for."""


def read_job(name: str) -> Job:
    """Read a file of code, or a notebook; ``-`` is standard input.

    Raises:
        WrongUseError: It cannot be read, or is no notebook though its name says so.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongUseError(f"{name} is not UTF-8 text; kcclient run takes scripts and notebooks") from error
    except OSError as error:
        raise WrongUseError(f"Could not read {name}: {error.strerror}") from error
    if not name.endswith(NOTEBOOK):
        return Job(split_script(text))
    from kallichore.cli.notebook import kernel_name, read_notebook

    try:
        notebook, cells = read_notebook(text)
    except NotANotebookError as error:
        raise WrongUseError(f"{name} is no notebook: {error}") from error
    return Job(cells, notebook, kernel_name(notebook))


async def run_job(
    kernel: Kernel, job: Job, sink: Sink, *, limit: float, answers: Answering | None, shows_bar: bool
) -> int:
    """Run the cells in order; stop at the first that fails, or asks for the end. Return the exit code.

    The outputs are in the job's notebook as far as it came, also if this is cancelled or the kernel dies.

    Args:
        kernel: Where they are run.
        job: What is run.
        sink: Takes the messages.
        limit: Seconds for all of them.
        answers: Who answers questions; None for standard input.
        shows_bar: Whether a bar on standard error shows how far it is.
    """
    deadline, outcome, results, done = trio.current_time() + limit, WORKED, [], 0
    with _open_bar(job.cells, shown=shows_bar) as cells:
        for cell in cells:
            sink.begin()
            try:
                left = max(0.0, deadline - trio.current_time())
                outcome = await attend(kernel, cell.source, sink.take, limit=left, answers=answers)
            finally:
                _keep(job, cell, sink)
            if sink.outputs is not None:
                results.append(result_of(outcome, sink.outputs))
            if outcome.exit_code or exit_codes.wants_exit(outcome.reply):
                break
            done += 1
    if outcome.exit_code and len(job.cells) > 1 and sink.printer is not None:
        say_error(f"Stopped at cell {done + 1} of {len(job.cells)}: {escapes.one_line(job.cells[done].title)}")
    if sink.outputs is not None and sink.printer is None:
        print_json({"status": outcome.status, "exit_code": outcome.exit_code, "cells": results})
    return outcome.exit_code


def _keep(job: Job, cell: Cell, sink: Sink) -> None:
    """Put what a cell put out into the notebook."""
    if job.notebook is not None and sink.outputs is not None and cell.place is not None:
        target = job.notebook.cells[cell.place]
        target.outputs, target.execution_count = sink.outputs.latest, sink.outputs.count


@contextmanager
def _open_bar(cells: Sequence[Cell], *, shown: bool) -> Iterator[Iterator[Cell]]:
    """Yield the cells; a bar on standard error shows how many are done."""
    if not shown:
        yield iter(cells)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task("", total=len(cells))

        def advance() -> Iterator[Cell]:
            for cell in cells:
                progress.update(task, description=escapes.one_line(cell.title))
                yield cell
                progress.advance(task)
            progress.update(task, description="done")

        yield advance()


@contextmanager
def open_output(path: Path | None, job: Job) -> Iterator[None]:
    """Write a job's notebook to a file at the end of a block, however that ends; in one piece, or not at all.

    Raises:
        WrongUseError: There can be no file of that name; said before anything is run.
    """
    if path is None:
        yield
        return
    from kallichore.cli.notebook import to_text

    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise WrongUseError(f"Could not write {path}: it is a directory, or in one that is not there or closed")
    try:
        yield
    finally:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
        ) as file:
            file.write(to_text(job.notebook))
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(file.name, mode)
        os.replace(file.name, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def limit_of(seconds: float | None) -> float:
    """Return a time limit; infinite where none was given."""
    return math.inf if seconds is None else seconds
