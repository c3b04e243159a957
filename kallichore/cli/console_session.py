"""Which session a console works with: one that is there, or a new one that goes with it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from kallichore.cli.answers import Nobody
from kallichore.cli.dialogue import Dialogue, DisplacedError, open_dialogue, own_name
from kallichore.cli.ending import say
from kallichore.cli.execution import attend
from kallichore.cli.images import ImageFiles, find_display
from kallichore.cli.installed import find_kernel
from kallichore.cli.places import open_session, silence_server
from kallichore.cli.show import Printer
from kallichore.cli.sink import Sink
from kallichore.cli.target import choose_session
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.client.server import NewKernel, Server
from kallichore.kernel.kernelspecs import KernelSpec

WAY_OUT = "type %restart to start it again, or exit"

NewKernelOf = Callable[[KernelSpec], NewKernel]


async def run_console(
    server: Server | None, session_id: str | None, kernel: str | None, wanted: NewKernelOf, *, takes_over: bool
) -> int:
    """Run a console to its end and return the exit code.

    Args:
        server: The server; None for a private one inside this process.
        session_id: A session of it; None for the one that there is, if no kernel is named.
        kernel: The kernel of a new session, which is deleted at the end.
        wanted: Returns what is to be started of it.
        takes_over: Whether another client of the session is to be displaced.

    Raises:
        ApiError: The server refused.
        KernelNotFoundError: The kernel is not installed.
    """
    # Before anything else reads what is typed.
    images = ImageFiles(show=find_display())
    if server is None:
        spec = await find_kernel(None, kernel)
        async with _open_private_server() as private, open_session(private, wanted(spec)) as session_id:
            return await _run(private, session_id, images)
    if kernel is not None or (session_id is None and not await server.sessions()):
        spec = await find_kernel(server, kernel)
        async with open_session(server, wanted(spec)) as session_id:
            return await _run(server, session_id, images)
    return await _run(server, await choose_session(server, session_id), images, takes_over=takes_over)


@asynccontextmanager
async def _open_private_server() -> AsyncIterator[Server]:
    # Only here is the server needed.
    from kallichore.config import ServerConfig
    from kallichore.embed import serve

    silence_server()
    async with serve(ServerConfig(resource_sample_interval_ms=0)) as server:
        address = Address(host="127.0.0.1", port=server.address.port, token=server.token)
        yield KallichoreServer(ApiClient(address))


async def _run(server: Server, session_id: str, images: ImageFiles, *, takes_over: bool = False) -> int:
    printer = Printer(images)
    is_terminal = sys.stdin.isatty()
    count = 1
    while True:
        async with open_dialogue(
            server, session_id, printer.show_output, takes_over=takes_over,
            way_out=WAY_OUT if is_terminal else "", name=own_name("console"),
        ) as dialogue:  # fmt: skip
            if not is_terminal:
                return await _run_input(dialogue, printer)
            from kallichore.cli.console import Console

            console = Console(dialogue, printer, count)
            try:
                return await console.run()
            except DisplacedError as error:
                count = console.count
                say(f"\n{error}")
        if not await _comes_back():
            return 0
        takes_over = True


async def _run_input(dialogue: Dialogue, printer: Printer) -> int:
    """Run what comes from standard input, and return the exit code."""
    data = await trio.to_thread.run_sync(sys.stdin.buffer.read)
    sink = Sink(printer)
    outcome = await attend(dialogue, data.decode("utf-8", "replace"), sink.take, answers=Nobody())
    await dialogue.wait_late_output()
    return outcome.exit_code


async def _comes_back() -> bool:
    """Ask a person whose session was taken over whether to take it back."""
    from kallichore.cli.answers import END_OF_INPUT, standard_input

    answer = await standard_input(sys.stderr).answer({"prompt": "Enter takes the session back, Ctrl-D ends: "})
    return answer != END_OF_INPUT
