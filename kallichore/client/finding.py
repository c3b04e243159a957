"""Which API a server is spoken to by: ours where it has that, else Jupyter's.

Sockets, pipes and connection files are a Kallichore server's. An HTTP address may be either's, so it is asked for
``GET /api``, which Jupyter's servers answer with their version. Ours, which has both APIs, says there who it is.
"""

from __future__ import annotations

import json
from typing import Any

import attrs

from kallichore.client.address import Address
from kallichore.client.api_client import Answer, ApiClient, ApiError, send_request
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.client.server import Server

_UNAUTHORIZED = (401, 403)

_OUR_STATUS = {"sessions", "active", "busy"}
"""Members of what ``GET /status`` is answered with by a Kallichore server, the original too; it needs no token."""


async def find_server(address: Address) -> Server:
    """Return what speaks to the server at an address.

    Raises:
        ApiError: There is neither API below the address's path.
        OSError: Nobody listens there.
        h11.RemoteProtocolError: What listens there speaks no HTTP.
    """
    if address.host is None:
        return KallichoreServer(ApiClient(address))
    if await _is_jupyter_only(address):
        # Only here is it needed.
        from kallichore.client.jupyter_server import JupyterServer

        return JupyterServer(address)
    return KallichoreServer(ApiClient(attrs.evolve(address, base_path="")))


async def _is_jupyter_only(address: Address) -> bool:
    """Tell whether a server has Jupyter's API below the address's path, and none of ours at its root."""
    answer = await send_request(attrs.evolve(address, scheme="token"), "GET", f"{address.base_path}/api")
    told = _object_of(answer)
    if "version" in told:
        # Behind a proxy, what is at the root may be another server's.
        return not told.get("kallichore") or bool(address.base_path and not await _has_our_status(address))
    if await _has_our_status(address):
        return False
    if answer.status in _UNAUTHORIZED and "reason" in told:
        # A gateway, which tells nothing without its token.
        return True
    if answer.status in _UNAUTHORIZED:
        # Whoever it is says what it wants.
        return False
    raise ApiError(
        f"There is neither a Kallichore nor a Jupyter server at {address}: GET {address.base_path}/api was answered "
        f"with status {answer.status}; is the path right?",
        answer.status,
        None,
    )


async def _has_our_status(address: Address) -> bool:
    return _OUR_STATUS <= set(_object_of(await send_request(address, "GET", "/status")))


def _object_of(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that an answer is; an empty one if it is none."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
