"""A kernel's five sockets as one: opened together, known to be connected, closed together.

The handshakes of the five connections are what `KernelChannels.wait_connected` waits for, and losing one is how the
death of a kernel that is not our child is noticed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio
import trio_util

from kallichore.models.bodies import ConnectionInfo
from kallichore.wire.channels import FROM_KERNEL, NUMBERS, Channel
from kallichore.wire.curve_keys import read_keys
from kallichore.wire.envelope import KernelReader
from kallichore.wire.frames import MessageParts, join
from kallichore.wire.signing import Signer
from kallichore.zeromq.beside import begin
from kallichore.zeromq.connecting import Address
from kallichore.zeromq.connection import KernelConnection
from kallichore.zeromq.kernel_socket import KernelSocket
from kallichore.zeromq.unread import Budget

if TYPE_CHECKING:
    from kallichore.zeromq.hosted_socket import HostedSocket, HostStream

_LONGEST_IDENTITY = 255

UNREAD_LIMIT = 64 << 20
"""Bytes that may wait here without having been looked at, over a kernel's connections: more than ten seconds of a flood
that is as fast as Python can print. Beyond it they stay in the connections."""

_LAST_WORDS = (Channel.SHELL, Channel.CONTROL, Channel.IOPUB)
"""Channels that carry a kernel's last words, and whose loss is its end."""


class KernelChannels:
    """The five connections to one kernel. Made by `open_channels`.

    Attributes:
        sockets: The socket of each channel.
        readers: What reads what comes on each of the channels whose messages reach clients.
        hosted: Those that a host beside the kernel has, if there is one.
        unread: What was read and not looked at yet, in bytes over all of them.
    """

    hosted: Mapping[Channel, HostedSocket]

    def __init__(
        self, sockets: Mapping[Channel, KernelConnection], signer: Signer, unread: Budget, *, has_host: bool = False
    ) -> None:
        self.sockets = sockets
        self.hosted = _hosted(sockets) if has_host else {}
        self.unread = unread
        self.readers = {channel: KernelReader(channel, signer, begin) for channel in FROM_KERNEL}
        self._signer = signer
        # To make a channel of its name would take as long as the rest of `send`.
        self._by_name = {channel.value: socket for channel, socket in sockets.items()}

    def send(self, channel: str, parts: MessageParts) -> None:
        """Sign and send a message to the kernel on ``channel``, now."""
        self._by_name[channel].send(join(parts, self._signer))

    async def wait_connected(self) -> None:
        """Connect all five. Cancelling it leaves those open that are.

        Raises:
            OSError: The address is none, there are no descriptors left, or the kernel speaks another mechanism than
                its connection information lets us expect.
        """
        # A kernel binds its sockets one after another: where one is there, the others will be in a moment.
        somebody_listens = trio.Event()

        async def connect(socket: KernelConnection) -> None:
            await socket.connect(somebody_listens)
            somebody_listens.set()

        async with trio.open_nursery() as nursery:
            for socket in self.sockets.values():
                nursery.start_soon(connect, socket)

    @property
    def unconnected(self) -> list[Channel]:
        """The channels that have not been connected yet."""
        return [channel for channel, socket in self.sockets.items() if not socket.connected.is_set()]

    @property
    def all_connected(self) -> bool:
        """Whether all five have been connected."""
        return not self.unconnected

    async def wait_all_lost(self) -> None:
        """Wait until the kernel has closed its connections: then who reads them has read all that it sent."""
        for channel in _LAST_WORDS:
            await self.sockets[channel].lost.wait()

    async def wait_any_lost(self) -> None:
        """Wait until one of the connections is lost."""
        await trio_util.wait_any(*(self.sockets[channel].lost.wait for channel in _LAST_WORDS))


def _hosted(sockets: Mapping[Channel, KernelConnection]) -> Mapping[Channel, HostedSocket]:
    # Imported where there is a host, as most kernels have none.
    from kallichore.zeromq.hosted_socket import HostedSocket

    return {channel: socket for channel, socket in sockets.items() if isinstance(socket, HostedSocket)}


_Make = Callable[[Channel, Address, str, bytes, trio.Nursery], KernelConnection]


@contextmanager
def _open_maker(info: ConnectionInfo, unread: Budget, stream: HostStream | None, *, are_open: bool) -> Iterator[_Make]:
    """Yield what makes a connection to this kernel: a plain one, libzmq's where the kernel encrypts, or a host's."""
    if stream is not None:
        from kallichore.zeromq.hosted_socket import HostedSocket

        yield lambda channel, address, kind, identity, _: HostedSocket(
            *(address, kind, identity, stream, NUMBERS[channel]),
            counts=channel is not Channel.HEARTBEAT,
            is_open=are_open,
        )
        return
    keys = read_keys(info.curve_publickey, info.curve_secretkey)
    if keys is None:
        yield lambda _, address, kind, identity, nursery: KernelSocket(address, kind, identity, nursery, unread)
        return
    from kallichore.zeromq.curve_socket import CurveConnector, CurveSocket

    connector = CurveConnector(keys)
    try:
        yield lambda _, address, kind, identity, nursery: CurveSocket(address, kind, identity, nursery, connector)
    finally:
        connector.close()


@asynccontextmanager
async def open_channels(
    info: ConnectionInfo, session_id: str, stream: HostStream | None = None, *, are_open: bool = False
) -> AsyncIterator[KernelChannels]:
    """Make a kernel's five sockets, for `KernelChannels.wait_connected` to connect; on leaving they are closed.

    Args:
        info: Where the kernel listens, its key, and the keys by which it encrypts, if it does.
        session_id: The routing identity, where it fits in ZeroMQ's 1 to 255 bytes.
        stream: The stream to the kernel's host, if it has one: then the connections are the host's.
        are_open: Whether the host's connections are older than this server.

    Raises:
        ConfigurationError: The signature scheme is unknown, or a key is none.
    """
    ports = {
        Channel.SHELL: info.shell_port,
        Channel.IOPUB: info.iopub_port,
        Channel.CONTROL: info.control_port,
        Channel.STDIN: info.stdin_port,
        Channel.HEARTBEAT: info.hb_port,
    }
    signer, unread = Signer(info.key, info.signature_scheme), Budget(UNREAD_LIMIT)
    name = session_id.encode("utf-8", "replace")
    with _open_maker(info, unread, stream, are_open=are_open) as make:
        async with trio.open_nursery() as nursery:
            sockets: dict[Channel, KernelConnection] = {}
            for channel, port in ports.items():
                # Kernels address an input_request to whom the shell request came from, so stdin has the same identity.
                is_addressed = channel in (Channel.SHELL, Channel.CONTROL, Channel.STDIN)
                identity = name if is_addressed and len(name) <= _LONGEST_IDENTITY else b""
                # A REQ for heartbeats would be stuck with one that is unanswered; a DEALER can ask again.
                kind = "SUB" if channel is Channel.IOPUB else "DEALER"
                address = f"{info.ip}-{port}" if info.transport == "ipc" else (info.ip, port)
                sockets[channel] = make(channel, address, kind, identity, nursery)
            try:
                yield KernelChannels(sockets, signer, unread, has_host=stream is not None)
            finally:
                nursery.cancel_scope.cancel()
                for socket in sockets.values():
                    socket.close()
