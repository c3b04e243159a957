"""What goes wrong and how a program hears of it; what a cancellation stops and what goes on."""

from __future__ import annotations

import os
import signal
import sys

import trio

import kallichore


async def start_badly(server: kallichore.Server) -> None:
    """A kernel that does not start says why."""
    argv = (sys.executable, "-c", "print('no such luck'); raise SystemExit(3)", "{connection_file}")
    session = server.create_session(kallichore.NewSession(session_id="broken", argv=argv))
    try:
        await session.start()
    except kallichore.StartupError as error:
        print(f"{error.code}, exit code {error.exit_code}, it printed {error.output!r}")


async def stop_waiting(session: kallichore.Session) -> None:
    """Leaving the block stops listening. The code goes on until somebody interrupts it."""
    with trio.move_on_after(1):
        async with session.execute("import time; time.sleep(600)") as execution:
            async for _ in execution:
                pass
    print("waited long enough; the kernel is", session.status)
    session.interrupt()


async def lose_kernel(session: kallichore.Session) -> None:
    """A kernel that dies ends the iteration with an error."""
    try:
        async with session.execute("import time; time.sleep(600)") as execution:
            async for message in execution:
                if message["header"]["msg_type"] == "execute_input" and session.process_id is not None:
                    os.kill(session.process_id, signal.SIGKILL)
    except kallichore.KernelDiedError as error:
        print(type(error).__name__, "the kernel is", session.status)


async def main() -> None:
    async with kallichore.open_server() as server:
        await start_badly(server)
        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("main"))
        await session.start()
        await stop_waiting(session)
        await lose_kernel(session)


trio.run(main)
