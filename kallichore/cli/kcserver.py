"""The ``kcserver`` command: a server as a process, ended by signals.

Starting is what people wait for, so the arguments are read before anything large is imported, and the collector is off
while modules are loaded (measured: `python -m benchmarks`).
"""

from __future__ import annotations

import gc
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from kallichore._version import __version__
from kallichore.cli import escapes
from kallichore.cli.launch import Launch, forget_token_file, read_command_line
from kallichore.cli.logs import Console, keep_standard_streams, set_level, set_up_logging
from kallichore.errors import ConfigurationError, innermost
from kallichore.kernel.terminal import drop_controlling_terminal

if TYPE_CHECKING:
    from kallichore.embed import RunningServer
    from kallichore.server import Server

logger = logging.getLogger("kallichore")

BANNER = rf"""
  |_/ _ || o  _ |_  _  _ _
  | \(_|||_|_(_ | |(_)| (/_  {__version__}
  Jupyter kernels, supervised. MIT licence.
"""


def _fail(error: ConfigurationError) -> int:
    text = f"Error: {escapes.lines(str(error))}\n"
    try:
        os.write(2, text.encode("utf-8", "replace"))
    except OSError:
        return 1
    return 1


def main() -> int:
    """Run kcserver and return its exit code: 0 after any ordinary end, 1 if it cannot run, 2 for bad arguments."""
    keep_standard_streams()
    if sys.argv[1:2] == ["mcp-stdio"]:
        from kallichore.cli.bridge.command import main as bridge

        return bridge(sys.argv[2:])
    console = Console()
    try:
        return _run(read_command_line(sys.argv[1:], os.environ, say=console.put), console)
    except ConfigurationError as error:
        logger.debug("Could not run: %s", error)
        return _fail(error)
    except (Exception, BaseExceptionGroup):
        # Not left to the interpreter: what it says would be queued for a console that is not written to any more.
        logger.critical("Crashed", exc_info=True)
        return 1
    finally:
        console.flush()


def _run(launch: Launch, console: Console) -> int:
    if launch.bad_level is not None:
        console.put(f"Unknown log level {escapes.one_line(repr(launch.bad_level))}; using info")
    set_up_logging(launch.config.log_level, launch.config.log_file, console)
    if launch.token_file is not None and (problem := forget_token_file(launch.token_file)):
        logger.warning("Could not delete the token file %s: %s", launch.token_file, problem)
    _name_process()
    drop_controlling_terminal()
    _allow_many_files()
    gc.disable()
    import trio

    from kallichore.cli.freed_memory import keep_freed_memory, return_freed_memory
    from kallichore.embed import run

    gc.enable()
    gc.freeze()
    if launch.replaces:
        from kallichore.cli.replacing import hand_over

        hand_over(launch.config.state_directory)

    running: list[RunningServer] = []

    async def serve_until_signalled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_obey_signals, running, nursery.cancel_scope)
            if give_back := keep_freed_memory():
                nursery.start_soon(return_freed_memory, give_back)
            await run(launch.config, on_listening=_announcer(launch, console, running))
            nursery.cancel_scope.cancel()

    try:
        trio.run(serve_until_signalled)
    except BaseExceptionGroup as group:
        problems = group.split(ConfigurationError)
        if problems[0] is None or problems[1] is not None:
            raise
        raise innermost(problems[0]) from group
    for server in running:
        _tell_what_is_left(server.server, console)
    return 0


def _tell_what_is_left(server: Server, console: Console) -> None:
    """Say that kernels go on, and how to come back to them or end them."""
    number, directory = server.kernels_left, server.config.state_directory
    if not number or directory is None:
        return
    kernels = "1 kernel goes on" if number == 1 else f"{number} kernels go on"
    if server.is_handed_over:
        console.put(f"{kernels} with the next server")
        return
    place = shlex.quote(escapes.one_line(str(directory)))
    console.put(f"{kernels} without a server{_until(server.config.abandon_after)}")
    console.put(f"To come back to {'it' if number == 1 else 'them'}: kcserver --state-dir {place}")
    console.put(f"To end {'it' if number == 1 else 'them'}: kcclient sessions end --state-dir {place} --all")


def _until(abandon_after: float) -> str:
    if not abandon_after:
        return ""
    from kallichore.conversation.culling import span

    return f", for {span(abandon_after)}"


def _announcer(launch: Launch, console: Console, running: list[RunningServer]) -> Callable[[RunningServer], None]:
    """Return what is called when the server listens: it says so, in the order that the spec gives."""

    def announce(server: RunningServer) -> None:
        from kallichore.cli.log_feed import LineLogHandler

        running.append(server)
        logging.getLogger().addHandler(LineLogHandler(server.server.log.append))
        server.server.set_log_level = set_level
        config, address = launch.config, server.address
        if address.port is not None:
            logger.info("Port %d was %s", address.port, "chosen" if config.port else "assigned by the system")
        logger.info("Transport %s at %s", address.transport, address)
        match address.transport:
            case "tcp":
                console.put(f"Listening at 127.0.0.1:{address.port}")
            case "socket":
                console.put(f"Listening on Unix socket: {escapes.one_line(str(address.socket_path))}")
            case _:
                console.put(f"Listening on named pipe: {address.named_pipe}")
        if server.token is None:
            logger.warning("Authentication is off: everybody on this machine can run code here")
        elif launch.token_is_generated and config.connection_file is None and config.handshake_socket is None:
            logger.info("Use this auth token: %s", server.token)
        console.put(BANNER)
        if address.port is not None and sys.stdout.isatty():
            # For a person to open or to paste. It is not logged, as the token stands in it.
            url = f"http://127.0.0.1:{address.port}{config.base_url.rstrip('/')}"
            fragment = f"#token={quote(server.token, safe='')}" if server.token else ""
            console.put(f"Dashboard: {url}/{fragment}")
            if config.jupyter:
                token = f" --GatewayClient.auth_token={server.token}" if server.token else ""
                console.put(f"For JupyterLab: jupyter lab --gateway-url={url}{token}")
        if config.connection_file is not None:
            logger.info("Connection file: %s", config.connection_file)
        logger.debug("Starting")
        interval = config.resource_sample_interval_ms
        logger.info("Resource usage is sampled %s", f"every {interval} ms" if interval else "never")
        hours = config.idle_shutdown_hours
        if hours is None:
            logger.debug("No idle shutdown")
        else:
            logger.info("Idle shutdown after %s", f"{hours} hours" if hours else "30 seconds")
        if config.cull_idle_after:
            from kallichore.conversation.culling import span

            logger.info("Kernels are ended that nobody has used for %s", span(config.cull_idle_after))

    return announce


async def _obey_signals(running: list[RunningServer], scope: object) -> None:
    """End the server on SIGINT, SIGTERM and what a terminal that closes sends: the first in order, a second one at
    once.
    """
    import trio

    numbers = {signal.SIGINT, signal.SIGTERM}
    if sys.platform == "win32":
        # Ctrl-Break, a console window that is closed, the end of the user's session.
        numbers.add(signal.SIGBREAK)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup it is ignored from the start, and that is to be respected.
        numbers.add(signal.SIGHUP)
    with trio.open_signal_receiver(*numbers) as signals:
        async for number in signals:
            name = signal.Signals(number).name
            if not running:
                assert isinstance(scope, trio.CancelScope)
                scope.cancel()
            elif running[0].server.shutdown_requested.is_set():
                logger.info("%s: hurrying", name)
                running[0].hurry()
            else:
                running[0].request_exit(name)


def _name_process() -> None:
    """Be called ``kcserver`` on Linux, where clients look for that name in /proc. It is the main thread's.

    The command line stays as it is: to write another one there would take the place where the environment is, in which
    tools look for what a process was started with.
    """
    if sys.platform == "linux":
        # Where there is no /proc, nobody looks there.
        with suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as name:
            name.write(b"kcserver")


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: a session has some ten, and 1,024 is a common limit."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
