"""Sessions inside a Quart-Trio app: one nursery holds the kernels and the web server."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

import kallichore
from kallichore.client.address import from_url
from kallichore.client.api_client import send_request

TIME_LIMIT = 10.0


def create_app(session: kallichore.Session) -> QuartTrio:
    """Return an app with one route: it runs the code that it is sent."""
    app = QuartTrio(__name__)

    @app.post("/run")
    async def run() -> dict[str, Any]:
        code = str(await request.get_data(as_text=True))
        result = await session.run(code, time_limit=TIME_LIMIT)
        return {
            "status": result.status,
            "text": result.text,
            "result": dict(result.result.data) if result.result else None,
            "displays": [dict(display.data) for display in result.displays],
            "error": attrs.asdict(result.error) if result.error else None,
        }

    @app.errorhandler(kallichore.KernelDiedError)
    async def answer_death(error: kallichore.KernelDiedError) -> tuple[dict[str, Any], int]:
        """Say how the kernel ended, and have a new one for who asks next."""
        await session.restart()
        return {"status": "died", "reason": error.message}, 503

    @app.errorhandler(kallichore.ExecutionTimeoutError)
    async def answer_late(error: kallichore.ExecutionTimeoutError) -> tuple[dict[str, Any], int]:
        return {"status": "timeout", "reason": error.message}, 504

    return app


async def main() -> None:
    async with kallichore.open_server() as server, trio.open_nursery() as nursery:
        python = kallichore.find_kernelspec("python3")
        session = server.create_session(python.new_session("web"))
        await session.start()

        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.accesslog = config.errorlog = None
        stop = trio.Event()
        app = create_app(session)
        addresses = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))

        # What a browser would do:
        for code in ("print('hello'); 6 * 7", "import os; os.kill(os.getpid(), 9)", "'alive again'"):
            answer = await send_request(from_url(addresses[0]), "POST", "/run", code.encode())
            body = answer.json()
            print(answer.status, body["status"], body.get("text"), body.get("result"))
        stop.set()


trio.run(main)
