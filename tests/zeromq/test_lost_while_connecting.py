"""A kernel that dies at the very moment when the last of its connections is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import trio
import zmq

from kallichore.models.bodies import ConnectionInfo
from kallichore.zeromq.kernel_channels import open_channels
from kernels import REAL_TIME

KINDS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.PUB, "hb": zmq.ROUTER}


@contextmanager
def open_peer() -> Iterator[tuple[zmq.Context[Any], ConnectionInfo]]:
    """Bind a kernel's five sockets; destroying the context is its death."""
    with ExitStack() as stack:
        context: zmq.Context[Any] = zmq.Context()
        stack.callback(context.destroy, linger=0)
        sockets = {name: context.socket(kind) for name, kind in KINDS.items()}
        ports = {f"{name}_port": socket.bind_to_random_port("tcp://127.0.0.1") for name, socket in sockets.items()}
        yield context, ConnectionInfo(transport="tcp", ip="127.0.0.1", key="", signature_scheme="hmac-sha256", **ports)


@pytest.mark.parametrize("_attempt", range(12))
async def test_loss_can_be_waited_for_as_soon_as_all_is_connected(_attempt: int) -> None:
    """Whoever sees that all is connected can wait until all is lost, in whichever order the tasks' turns come."""
    context: zmq.Context[Any] = zmq.Context()
    lost = False
    try:
        with open_peer() as (peer, info), trio.fail_after(REAL_TIME):
            async with open_channels(context, info, "s") as channels, trio.open_nursery() as nursery:
                nursery.start_soon(channels.wait_connected)
                while not channels.all_connected:  # noqa: ASYNC110  # at this very moment
                    await trio.lowlevel.checkpoint()
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(channels.wait_all_lost)
                    peer.destroy(linger=0)
                lost = True
    finally:
        context.destroy(linger=0)

    assert lost
