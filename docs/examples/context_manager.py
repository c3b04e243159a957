"""The server as a block: it listens when the block begins and has ended when the block has."""

from __future__ import annotations

import trio

import kallichore
from kallichore.client.address import from_url
from kallichore.client.api_client import ApiClient


async def main() -> None:
    async with kallichore.serve() as server:
        client = ApiClient(from_url(str(server.address), server.token))
        status = await client.call("GET", "/status")
        print("sessions:", status["sessions"])
        print("same process:", status["server_id"] == server.server.server_id)
    try:
        await client.call("GET", "/status")
    except OSError:
        print("nobody listens there any more")


trio.run(main)
