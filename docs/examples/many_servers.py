"""Two servers in one process: each has its own sessions, token, address and directory."""

from __future__ import annotations

import trio

import kallichore


async def main() -> None:
    python = kallichore.find_kernelspec("python3")
    async with kallichore.serve() as one, kallichore.serve() as other:
        print("different addresses:", one.address != other.address)
        print("different tokens:", one.token != other.token)
        session = one.create_session(python.new_session("same-name"))
        other.create_session(python.new_session("same-name"))
        await session.start()
        for server in (one, other):
            print([f"{session.session_id}: {session.status}" for session in server.sessions])


trio.run(main)
