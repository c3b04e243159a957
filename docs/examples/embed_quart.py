"""Sessions inside a Quart-Trio app: one nursery holds the kernels and the web server."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

import kallichore
from kallichore.client.address import from_url
from kallichore.client.api_client import send_request


def create_app(session: kallichore.Session) -> QuartTrio:
    """Return an app with one route: it runs the code that it is sent."""
    app = QuartTrio(__name__)

    @app.post("/run")
    async def run() -> dict[str, Any]:
        code = (await request.get_data()).decode()
        async with session.execute(code) as execution:
            said = [message["content"]["text"] async for message in execution if "text" in message["content"]]
        return {"said": said, "reply": execution.reply}

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
        answer = await send_request(from_url(addresses[0]), "POST", "/run", b"print('hello from the kernel')")
        print(answer.status, answer.json()["said"], answer.json()["reply"]["status"])
        stop.set()


trio.run(main)
