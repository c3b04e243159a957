"""Which kernels kcclient offers: a server's where it tells them, else this machine's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from kallichore.cli.installed import find_kernel, list_kernels
from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.errors import KernelNotFoundError
from kallichore.models.bodies import InterruptMode, KernelProvisioner

TOLD = {
    "kernels": {
        "far": {"display_name": "Far", "language": "far", "argv": ["far", "{connection_file}"], "new": 1},
        "Full": {
            "display_name": "Full", "language": "x", "argv": ["x"], "interrupt_mode": "message",
            "resource_dir": "/there", "env": {"A": "b"},
        },
        "elsewhere": {
            "display_name": "Elsewhere", "language": "x", "argv": [],
            "kernel_provisioner": {"provisioner_name": "p", "config": {"a": 1}, "kernel_name": "elsewhere", "new": 1},
        },
    },
    "default": "far",
}  # fmt: skip


@asynccontextmanager
async def open_server(status: int, answer: Any) -> AsyncIterator[KallichoreServer]:
    """Answer every request alike."""
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    async def reply(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(head.encode() + body)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, reply, 0, host="127.0.0.1"))
        address = Address(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
        yield KallichoreServer(ApiClient(address))
        nursery.cancel_scope.cancel()


async def test_kernels_are_the_servers() -> None:
    """All that it tells of them, and the usual where it does not; case does not matter."""
    async with open_server(200, TOLD) as server:
        listed = await list_kernels(server)
        found = await find_kernel(server, "full")
        request = found.new_session("s")

    assert {"far", "Full", "elsewhere"} == set(listed)
    assert (("far", "{connection_file}"), InterruptMode.SIGNAL) == (listed["far"].argv, listed["far"].interrupt_mode)
    assert (InterruptMode.MESSAGE, "/there", ["A"]) == (
        request.interrupt_mode, found.resource_dir, [variable.name for variable in request.env],
    )  # fmt: skip


async def test_kernel_of_a_provisioner_is_asked_for_as_the_server_knows_it() -> None:
    """A session with it names the provisioner, its settings and the kernel."""
    async with open_server(200, TOLD) as server:
        request = (await find_kernel(server, "elsewhere")).new_session("s")

    expected = KernelProvisioner(provisioner_name="p", config={"a": 1}, kernel_name="elsewhere")
    assert ((), expected) == (request.argv, request.kernel_provisioner)


async def test_kernel_that_the_server_lacks_is_told_with_those_that_it_has() -> None:
    """Those of this machine do not count there."""
    async with open_server(200, TOLD) as server:
        with pytest.raises(KernelNotFoundError, match="'python3' where the server is; installed: Full, elsewhere, far"):
            await find_kernel(server, None)


async def test_server_that_does_not_know_kernels_leaves_it_to_this_machine() -> None:
    """As the original does: then they are those that are installed here."""
    async with open_server(404, {}) as server:
        there, here = await list_kernels(server), await list_kernels(None)
        found = await find_kernel(server, None)

    assert here == there
    assert "python3" == found.name


async def test_server_that_refuses_is_told() -> None:
    """A refusal is none of the kernels' business."""
    async with open_server(401, {}) as server:
        with pytest.raises(ApiError):
            await find_kernel(server, None)
