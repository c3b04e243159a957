"""A server inside a Trio program: HTTP for others, and the same sessions for this program."""

from __future__ import annotations

import trio

import kallichore


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(kallichore.run, kallichore.ServerConfig())
        print(f"listening on {server.address.transport}, sessions: {len(server.sessions)}")

        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("analysis"))
        info = await session.start()
        print(f"{info['language_info']['name']} is {session.status}")

        async with session.execute("print(6 * 7)") as execution:
            async for message in execution:
                if message["header"]["msg_type"] == "stream":
                    print(message["content"]["text"], end="")
        # Ends the kernel, the listener and the private directory.
        nursery.cancel_scope.cancel()
    print("nothing is left")


trio.run(main)
