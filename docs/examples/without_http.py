"""Sessions without any listener: `open_server` and `Session.execute`."""

from __future__ import annotations

import trio

import kallichore


async def run_cell(session: kallichore.Session, code: str) -> str:
    """Run code; return what it printed and its result."""
    said: list[str] = []
    async with session.execute(code) as execution:
        async for message in execution:
            content = message["content"]
            match message["header"]["msg_type"]:
                case "stream":
                    said.append(content["text"])
                case "execute_result":
                    said.append(content["data"]["text/plain"])
    assert execution.reply is not None
    return f"[{execution.reply['execution_count']}] {''.join(said)}"


async def main() -> None:
    async with kallichore.open_server() as server:
        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("scratch"))
        await session.start()
        print(await run_cell(session, "x = 20"))
        print(await run_cell(session, "x + 22"))


trio.run(main)
