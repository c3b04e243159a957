"""What only some servers need is imported for the first who needs it: together it would be an eighth of every start."""

from __future__ import annotations

import sys

import trio

from kernels import REAL_TIME

PROGRAM = """
import sys, trio, kallichore, kallichore.embed

async def main():
    async with kallichore.open_server() as server:
        server.create_session(kallichore.NewSession(session_id="s", argv=(sys.executable, "{connection_file}")))
        print(*sys.modules)

trio.run(main)
"""

RARE = {
    *("engines.beside_host", "engines.elsewhere", "engines.host_link", "engines.provisioner", "zeromq.hosted_socket"),
    *("state.session_log", "state.recovery", "session.keeper", "session.vault", "session.elsewhere"),
    *("session.warm_kernel", "session.warm_kernelspecs", "jupyter.app"),
}


async def test_server_imports_only_what_its_sessions_need() -> None:
    """Neither what outlives a server, nor kernels elsewhere or kept ready, nor Jupyter's routes."""
    with trio.fail_after(REAL_TIME):
        ran = await trio.run_process([sys.executable, "-c", PROGRAM], capture_stdout=True)
    loaded = {name.removeprefix("kallichore.") for name in ran.stdout.decode().split()}

    assert {"session.supervisor", "jupyter.side"} <= loaded
    assert not RARE & loaded
