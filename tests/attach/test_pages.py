"""Channels that a page in a browser opens: it can send no header, but a subprotocol that has the token in it."""

from __future__ import annotations

import base64

import pytest
import trio
from trio_websocket import open_websocket_url

from kallichore.client.address import Address
from kallichore.client.api_client import send_request
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import REAL_TIME, scripted

TOKEN = "to/ken+with=signs~"


def carrier(token: str) -> str:
    """Return the subprotocol that has a token in it."""
    return "kallichore.token." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


@pytest.mark.parametrize("base_url", ["/", "/behind/a/proxy"])
async def test_page_is_let_in_by_a_subprotocol(base_url: str) -> None:
    """With the token as one subprotocol, the other, our own, is chosen, and never the one that has the token."""
    async with serve(ServerConfig(token=TOKEN, base_url=base_url)) as server:
        server.create_session(scripted())
        url = f"ws://127.0.0.1:{server.address.port}{base_url.rstrip('/')}/sessions/s/channels?attach=visit&since=0"
        with trio.fail_after(REAL_TIME):
            async with open_websocket_url(url, subprotocols=["kallichore", carrier(TOKEN)]) as socket:
                first = await socket.get_message()

        assert "kallichore" == socket.subprotocol
        assert "sessionState" in first


@pytest.mark.parametrize("offered", [None, "kallichore", carrier("wrong"), carrier(""), "kallichore.token.%"])
async def test_page_without_the_token_is_refused(offered: str | None) -> None:
    """A subprotocol without the right token opens nothing."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        server.create_session(scripted())
        address = Address("127.0.0.1", server.address.port)
        opening = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")]
        offers = [] if offered is None else [("sec-websocket-protocol", f"kallichore, {offered}")]
        answer = await send_request(address, "GET", "/sessions/s/channels", headers=[*opening, *offers])

    assert 401 == answer.status


async def test_subprotocol_is_for_websockets_only() -> None:
    """A request that opens no WebSocket is not let in by what only a WebSocket may have."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        address = Address("127.0.0.1", server.address.port)
        offered = [("sec-websocket-protocol", carrier(TOKEN))]
        answer = await send_request(address, "GET", "/sessions", headers=offered)

    assert 401 == answer.status
