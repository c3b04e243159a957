"""TCP listeners: clients that are gone before anybody has seen them."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio

from abuse import reset
from kallichore.transport.tcp import TcpListener, open_tcp_listeners

GONE = 20
"""How many clients leave before one comes that stays."""


async def test_clients_that_are_gone_before_they_are_accepted_end_nothing() -> None:
    """Whatever the system makes of a connection that was reset meanwhile, the next one is served."""
    (listener,) = await open_tcp_listeners(0, "127.0.0.1")
    with trio.fail_after(30):
        async with listener, trio.open_nursery() as nursery:
            for _ in range(GONE):
                reset(socket.create_connection(("127.0.0.1", listener.port)))

            async def answer(stream: trio.SocketStream) -> None:
                async with stream:
                    try:
                        await stream.send_all(await stream.receive_some())
                    except trio.BrokenResourceError:
                        pass  # One of those.

            nursery.start_soon(trio.serve_listeners, answer, [listener])
            async with await trio.open_tcp_stream("127.0.0.1", listener.port) as client:
                await client.send_all(b"hello")
                assert await client.receive_some() == b"hello"
            nursery.cancel_scope.cancel()


async def accepted(*outcomes: Any) -> Any:
    """Return what a listener hands out whose system answers so, one after another."""
    answers = iter(outcomes)

    class System(trio.abc.Listener[Any]):
        socket = socket.create_server(("127.0.0.1", 0))

        async def accept(self) -> Any:
            if isinstance(answer := next(answers), OSError):
                raise answer
            return answer

        async def aclose(self) -> None:
            self.socket.close()

    async with TcpListener(System()) as listener:  # type: ignore[arg-type]
        return await listener.accept()


async def test_connection_that_is_none_any_more_is_passed_over() -> None:
    """What Wine says of one that was reset is about that client; all else is for the caller."""
    gone = OSError(errno.ENOTCONN, "not connected")

    assert await accepted(gone, gone, "a stream") == "a stream"
    with pytest.raises(OSError, match="too many"):
        await accepted(gone, OSError(errno.EMFILE, "too many"))
