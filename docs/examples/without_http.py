"""Sessions without any listener: `open_server` and `Session.run`."""

from __future__ import annotations

import trio

import kallichore


async def main() -> None:
    async with kallichore.open_server() as server:
        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("scratch"))
        await session.start()

        await session.run("x = 20")
        answer = await session.run("print('adding'); x + 22")
        print(f"[{answer.execution_count}] printed {answer.text!r}, result {answer.result}")

        failed = await session.run("1 / 0")
        if failed.error is not None:
            print(f"{failed.status}: {failed.error.name}: {failed.error.message}")

        try:
            await session.run("import time; time.sleep(600)", time_limit=0.5)
        except kallichore.ExecutionTimeoutError as error:
            print(error)

        # Each piece of output when it comes:
        await session.run("for n in 1, 2: print(n)", on_output=lambda output: print(output, end=""))


trio.run(main)
