"""A client of a running server: create a session over HTTP, run code over its channels, leave, and come back.

Usage: python http_client.py [CONNECTION_FILE]. Without a connection file it runs a server for itself.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

import kallichore
from kallichore.client.address import Address, from_connection_document, from_url
from kallichore.client.api_client import ApiClient, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, open_channel
from kallichore.models.converter import unstructure
from kallichore.transport.connection_file import read_connection_file


@asynccontextmanager
async def open_address() -> AsyncIterator[Address]:
    """Yield the server's address: the one in the connection file, or that of a server of our own."""
    if len(sys.argv) > 1:
        yield from_connection_document(read_connection_file(Path(sys.argv[1])))
        return
    async with kallichore.serve() as server:
        yield from_url(str(server.address), server.token)


async def print_output(channel: ChannelClient, msg_id: str) -> None:
    """Print what an execution says, until the kernel is idle again: the last message on the channel of outputs."""
    while True:
        message = await channel.receive()
        if message["kind"] != "jupyter" or (message["parent_header"] or {}).get("msg_id") != msg_id:
            continue
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                print(content["text"], end="", flush=True)
            case "status" if content["execution_state"] == "idle":
                return


async def main() -> None:
    async with open_address() as address:
        client = ApiClient(address)
        python = kallichore.find_kernelspec("python3")
        # The members of the body are those of `newSession` in the API's description.
        created = await client.call("PUT", "/sessions", unstructure(python.new_session("remote")))
        name = created["session_id"]
        info = await client.call("POST", session_path(name, "start"))
        print("started:", info["language_info"]["name"])

        async with open_channel(address, name) as channel:
            code = "import time; time.sleep(0.5); print('said while nobody listened')"
            msg_id = await channel.send(make_execute_request(code))
        print("connected:", (await client.call("GET", session_path(name)))["connected"])

        async with open_channel(address, name) as channel:
            await print_output(channel, msg_id)

        await client.call("POST", session_path(name, "kill"))


trio.run(main)
