"""Which API a server at an HTTP address is spoken to by."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import ApiError
from kallichore.client.finding import find_server
from kallichore.client.jupyter_server import JupyterServer
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import address_of

OURS = {"sessions": 0, "active": 0, "busy": False, "version": "1"}
JUPYTERS, MARKED = {"version": "2.21.1"}, {"version": "0.1", "kallichore": True}
GATEWAYS = {"reason": "Unauthorized", "message": "Unauthorized"}


@asynccontextmanager
async def answering(answers: Mapping[str, tuple[int, Any]]) -> AsyncIterator[Address]:
    """Serve answers by path; all others are a page that says 404."""

    async def reply(stream: trio.SocketStream) -> None:
        path = (await stream.receive_some()).decode().split()[1]
        status, value = answers.get(path, (404, None))
        body = b"<html>" if value is None else json.dumps(value).encode()
        await stream.send_all(f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, reply, 0, host="127.0.0.1"))
        yield Address(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("base_path", "answers", "kind", "path"),
    [
        ("", {"/api": (200, JUPYTERS)}, JupyterServer, ""),
        ("/a/b", {"/a/b/api": (200, JUPYTERS)}, JupyterServer, "/a/b"),
        ("", {"/api": (401, GATEWAYS)}, JupyterServer, ""),
        ("", {"/api": (200, MARKED)}, KallichoreServer, ""),
        ("/a", {"/a/api": (200, MARKED), "/status": (200, OURS)}, KallichoreServer, ""),
        # Behind a proxy: what is at the root is something else.
        ("/a", {"/a/api": (200, MARKED), "/status": (200, {})}, JupyterServer, "/a"),
        # The original, or ours without Jupyter's API.
        ("", {"/status": (200, OURS)}, KallichoreServer, ""),
        ("", {"/api": (401, {"code": "KS-1"}), "/status": (200, OURS)}, KallichoreServer, ""),
        ("/old", {"/status": (200, OURS)}, KallichoreServer, ""),
    ],
)
async def test_server_is_known_by_what_it_answers(
    base_path: str, answers: dict[str, tuple[int, Any]], kind: type, path: str
) -> None:
    """Ours is used where it is; Jupyter's where nothing else is, also if it does not let us in yet."""
    async with answering(answers) as address:
        server = await find_server(attrs.evolve(address, base_path=base_path))

    assert (kind, path) == (type(server), server.address.base_path)


async def test_what_is_neither_is_told_with_the_address() -> None:
    """A web server, or a Jupyter server whose path is another."""
    async with answering({"/api": (200, ["no"]), "/status": (200, {"ok": True})}) as address:
        with pytest.raises(ApiError) as failed:
            await find_server(attrs.evolve(address, base_path="/x"))

    assert (
        f"There is neither a Kallichore nor a Jupyter server at {address}/x: GET /x/api was answered with status 404; "
        "is the path right?"
    ) == str(failed.value)


@pytest.mark.parametrize("settings", [{}, {"jupyter": False}, {"base_url": "/base"}])
@pytest.mark.parametrize("token", ["right", "wrong"])
async def test_our_own_server_is_known_as_such(settings: dict[str, Any], token: str) -> None:
    """Whatever it serves besides, and whether or not the token is right: that it says itself."""
    async with serve(ServerConfig(token="right", **settings)) as server:
        address = attrs.evolve(address_of(server), token=token)
        found = [await find_server(each) for each in (address, attrs.evolve(address, base_path="/base"))]

    assert [KallichoreServer] * 2 == [type(each) for each in found]


async def test_sockets_are_a_kallichore_servers() -> None:
    """Without a question, so nobody has to listen there."""
    assert KallichoreServer is type(await find_server(Address(socket_path="/nobody.sock")))
