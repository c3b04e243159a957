"""Commands that run code: ``exec``, ``execute`` and ``run``."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import click

from kallichore.cli.ending import WrongUseError, run_to_exit, say
from kallichore.cli.exit_codes import WORKED
from kallichore.cli.installed import find_kernel
from kallichore.cli.names import complete_kernel, complete_session
from kallichore.cli.options import (
    images_option,
    json_option,
    kernel_option,
    limit_option,
    new_kernel,
    new_session_options,
    pass_target,
    read_code,
    session_option,
    take_over_option,
)
from kallichore.cli.target import Target, choose_session
from kallichore.client.server import NewKernel, Server


def make_sink(as_json: bool, images: Path | None) -> Any:
    """Return what takes the messages of one execution: it prints them, or one JSON document at the end."""
    from kallichore.cli.images import ImageFiles, find_display
    from kallichore.cli.show import Printer
    from kallichore.cli.sink import Sink

    if not as_json:
        return Sink(Printer(ImageFiles(images, find_display())))
    from kallichore.cli.notebook import Outputs

    return Sink(outputs=Outputs())


def asking(as_json: bool) -> Any:
    """Return who answers questions: standard input, asked on standard error where standard output has a document."""
    from kallichore.cli.answers import standard_input

    return standard_input(sys.stderr if as_json else None)


def open_own(server: Server | None, kernel: NewKernel, sink: Any) -> AbstractAsyncContextManager[Any]:
    """Return a block with a kernel of the command's own: on a server, or in this process."""
    from kallichore.cli.places import open_here, open_new

    return open_here(kernel) if server is None else open_new(server, kernel, sink.take_output)


@click.command("exec")
@kernel_option
@click.option("-c", "--code", metavar="CODE", help="What to run, also if a file has that name.")
@limit_option
@images_option
@json_option
@new_session_options()
@click.argument("argument", metavar="[CODE|FILE|-]", required=False)
@pass_target
def exec_(
    target: Target, kernel: str | None, argument: str | None, code: str | None, limit: float | None,
    images: Path | None, as_json: bool, cwd: str | None, env: tuple[str, ...], start_timeout: int, engine: str | None,
) -> None:  # fmt: skip
    """Run code in a new kernel and leave nothing behind; '-' reads it from standard input.

    The kernel is supervised by a private server inside this command, unless a running server is named.
    """
    text = read_code(argument, code)

    async def act() -> int:
        from kallichore.cli.execution import attend
        from kallichore.cli.run_file import limit_of

        server = await target.named_server()
        wanted = new_kernel(await find_kernel(server, kernel), cwd, env, start_timeout, engine=engine)
        sink = make_sink(as_json, images)
        async with open_own(server, wanted, sink) as place:
            sink.begin()
            outcome = await attend(place, text, sink.take, limit=limit_of(limit), answers=asking(as_json))
        sink.print_result(outcome)
        return outcome.exit_code

    run_to_exit(act)


@click.command()
@session_option
@click.option("-c", "--code", metavar="CODE", help="What to run, also if a file has that name.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the end and print what the kernel says.")
@take_over_option
@limit_option
@images_option
@json_option
@click.argument("argument", metavar="[CODE|FILE|-]", required=False)
@pass_target
def execute(
    target: Target, session_id: str | None, argument: str | None, code: str | None, wait: bool, take_over: bool,
    limit: float | None, images: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run code in a session that exists already; '-' reads it from standard input.

    Others who are connected stay, and what the session has to tell them stays theirs.
    """
    text = read_code(argument, code)
    needing = {"--json": as_json, "--timeout": limit, "--images": images, "--take-over": take_over}
    if not wait and (given := [option for option, value in needing.items() if value]):
        raise click.UsageError(f"{given[0]} needs --wait: without it, nothing is heard of the code")

    async def act() -> int:
        from kallichore.cli.dialogue import check_kernel, own_name
        from kallichore.cli.execution import attend
        from kallichore.cli.places import open_existing
        from kallichore.cli.run_file import limit_of
        from kallichore.client.channel_client import make_execute_request

        server = await target.server()
        name = await choose_session(server, session_id)
        await check_kernel(server, name, must_be_started=wait)
        if not wait:
            await server.send_and_leave(name, make_execute_request(text, allow_stdin=False))
            return 0
        sink = make_sink(as_json, images)
        opened = open_existing(server, name, sink.take_output, takes_over=take_over, name=own_name("execute"))
        async with opened as place:
            sink.begin()
            outcome = await attend(place, text, sink.take, limit=limit_of(limit), answers=asking(as_json))
        sink.print_result(outcome)
        return outcome.exit_code

    run_to_exit(act)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "-k", "--kernel", shell_complete=complete_kernel,
    help="An installed kernel.  [default: the notebook's own, or python3]",
)  # fmt: skip
@click.option(
    "-s", "--session-id", shell_complete=complete_session, help="Run it in this session, rather than in a new kernel."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.ipynb",
    help="Write a notebook with the outputs, rather than print them.",
)  # fmt: skip
@limit_option
@images_option
@json_option
@new_session_options()
@pass_target
def run(
    target: Target, file: str, kernel: str | None, session_id: str | None, output: Path | None, limit: float | None,
    images: Path | None, as_json: bool, cwd: str | None, env: tuple[str, ...], start_timeout: int, engine: str | None,
) -> None:  # fmt: skip
    """Run a script or a notebook: its cells in order, up to the first that fails.

    A script is one cell, or as many as lines that begin with '# %%' make of it. A notebook (.ipynb) runs in the kernel
    that it names. Without -s it is a new kernel, of which nothing is left behind.
    """
    from kallichore.cli.run_file import read_job

    if session_id is not None and (kernel is not None or cwd is not None or env):
        raise click.UsageError("-s names a session that is there; -k, --cwd and --env are for new ones")

    async def act() -> int:
        job = read_job(file)
        if session_id is not None:
            return await _run_in_session(target, session_id, job, output, limit, images, as_json)
        server = await target.named_server()
        spec = await find_kernel(server, kernel or job.kernel)
        wanted = new_kernel(spec, cwd, env, start_timeout, engine=engine)
        sink = _prepare(job, output, images, as_json, (spec.name, spec.display_name, spec.language))
        return await _run(job, output, limit, sink, as_json, lambda: open_own(server, wanted, sink))

    run_to_exit(act)


async def _run_in_session(
    target: Target, session_id: str, job: Any, output: Path | None, limit: float | None, images: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    from kallichore.cli.places import open_existing

    server = await target.server()
    session = await server.describe(session_id)
    sink = _prepare(job, output, images, as_json, ("", session["display_name"], session["language"]))
    opened = lambda: open_existing(server, session_id, sink.take_output)  # noqa: E731
    return await _run(job, output, limit, sink, as_json, opened)


def _prepare(job: Any, output: Path | None, images: Path | None, as_json: bool, kernel: tuple[str, str, str]) -> Any:
    """Return the sink of a job, which gets a notebook if one is to be written."""
    sink = make_sink(as_json, images)
    if output is not None:
        from kallichore.cli.notebook import Outputs, clear, new_notebook
        from kallichore.cli.run_file import NOTEBOOK

        if output.suffix != NOTEBOOK:
            raise WrongUseError(f"-o writes a notebook, so {output} has to end with {NOTEBOOK}")
        if job.notebook is None:
            job.notebook, job.cells = new_notebook(job.cells, kernel)
        clear(job.notebook)
        sink.outputs, sink.errors_only = sink.outputs or Outputs(), True
    return sink


async def _run(job: Any, output: Path | None, limit: float | None, sink: Any, as_json: bool, opened: Any) -> int:
    from kallichore.cli.run_file import limit_of, open_output, run_job

    prints = sink.printer is not None and not sink.errors_only
    shows_bar = sys.stderr.isatty() and not (prints and sys.stdout.isatty())
    with open_output(output, job):
        if not job.cells:
            say("There is no code in it")
            return WORKED
        async with opened() as place:
            return await run_job(place, job, sink, limit=limit_of(limit), answers=asking(as_json), shows_bar=shows_bar)


COMMANDS = (exec_, execute, run)
