"""A kernel's five sockets as one: opened together, known to be connected, closed together.

Connecting in ZeroMQ succeeds at once and happens later. Whether a kernel is there shows in each socket's monitor: the
handshake of the five connections is what `KernelChannels.wait_connected` waits for, and losing one is how the death of
a kernel that is not our child is noticed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
import trio_util
import zmq
from zmq.utils.monitor import parse_monitor_message

from kallichore.models.bodies import ConnectionInfo
from kallichore.wire.channels import Channel
from kallichore.wire.frames import MessageParts, join
from kallichore.wire.signing import Signer
from kallichore.zeromq.sockets import TrioSocket

RECONNECT_FIRST_MS = 10
RECONNECT_MOST_MS = 200
"""A kernel that boots binds its ports within a second or so; asking every 10 to 200 ms finds it without delay."""

_LONGEST_IDENTITY = 255

_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED

_STAY_MONITORED = {Channel.SHELL, Channel.CONTROL, Channel.IOPUB}
"""Channels whose loss is of interest: a monitor costs four file descriptors, and these carry a kernel's last words."""

_KINDS = {
    Channel.SHELL: zmq.DEALER,
    Channel.CONTROL: zmq.DEALER,
    Channel.STDIN: zmq.DEALER,
    Channel.IOPUB: zmq.SUB,
    # A REQ socket would be stuck with one unanswered request; a DEALER with an empty delimiter can ask again.
    Channel.HEARTBEAT: zmq.DEALER,
}


def _open_socket(context: zmq.Context[zmq.Socket[bytes]], channel: Channel, identity: bytes) -> TrioSocket:
    socket = TrioSocket(context, _KINDS[channel])
    socket.raw.reconnect_ivl = RECONNECT_FIRST_MS
    socket.raw.reconnect_ivl_max = RECONNECT_MOST_MS
    if channel in (Channel.SHELL, Channel.CONTROL, Channel.STDIN) and 0 < len(identity) <= _LONGEST_IDENTITY:
        # Kernels address an input_request to whom the shell request came from, so stdin has the same identity.
        socket.raw.identity = identity
    if channel is Channel.IOPUB:
        socket.raw.subscribe(b"")
    return socket


class _Monitor:
    """What ZeroMQ says about one socket's connection."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], watched: TrioSocket, name: str) -> None:
        self._watched = watched
        self._lost = False
        address = f"inproc://kallichore-{name}-{id(watched)}"
        watched.raw.monitor(address, _EVENTS)
        self.socket = TrioSocket(context, zmq.PAIR)
        self.socket.raw.connect(address)

    async def wait_connected(self) -> None:
        await self._wait_for(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    async def wait_lost(self) -> None:
        if not self._lost:
            await self._wait_for(zmq.EVENT_DISCONNECTED)
            self._lost = True

    async def _wait_for(self, event: int) -> None:
        while parse_monitor_message(await self.socket.receive())["event"] != event:
            pass

    def close(self) -> None:
        self._watched.raw.disable_monitor()
        self.socket.close()


class KernelChannels:
    """The five connections to one kernel. Made by `open_channels`.

    Attributes:
        sockets: The socket of each channel.
        signer: Signs what is sent and checks what comes.
        unconnected: The channels that have not been connected yet.
        all_connected: Whether all five have been, and `wait_connected` is done. Only then may a loss be waited for: it
            closes the monitors that are not needed any more.
    """

    def __init__(self, sockets: dict[Channel, TrioSocket], monitors: dict[Channel, _Monitor], signer: Signer) -> None:
        self.sockets = sockets
        self.signer = signer
        self.unconnected = list(_KINDS)
        self.all_connected = False
        self._monitors = monitors

    def send(self, channel: str, parts: MessageParts) -> None:
        """Sign and send a message to the kernel on ``channel``, now.

        Raises:
            zmq.ZMQError: The channels are closed.
        """
        self.sockets[Channel(channel)].send(join(parts, self.signer))

    async def wait_connected(self) -> None:
        """Wait until all five connections have done ZeroMQ's handshake. Cancelling it leaves them trying."""
        async with trio.open_nursery() as nursery:
            for channel in self._monitors:
                nursery.start_soon(self._wait_connected, channel)
        for channel in self._monitors.keys() - _STAY_MONITORED:
            self._monitors.pop(channel).close()
        self.all_connected = True

    async def _wait_connected(self, channel: Channel) -> None:
        await self._monitors[channel].wait_connected()
        self.unconnected.remove(channel)

    async def wait_all_lost(self) -> None:
        """Wait until the kernel has closed its connections: then all that it sent is here. After `wait_connected`."""
        async with trio.open_nursery() as nursery:
            for monitor in self._monitors.values():
                nursery.start_soon(monitor.wait_lost)

    async def wait_any_lost(self) -> None:
        """Wait until one of the connections is lost. To be called after `wait_connected`."""
        await trio_util.wait_any(*(monitor.wait_lost for monitor in self._monitors.values()))

    def stop_monitoring(self) -> None:
        """Close the monitors, which must go before the sockets that they watch. Idempotent."""
        for monitor in self._monitors.values():
            monitor.close()
        self._monitors.clear()


@asynccontextmanager
async def open_channels(
    context: zmq.Context[zmq.Socket[bytes]], info: ConnectionInfo, session_id: str
) -> AsyncIterator[KernelChannels]:
    """Open a kernel's five sockets and begin to connect them; on leaving they are closed.

    Args:
        context: The ZeroMQ context; it stays the caller's.
        info: Where the kernel listens, and its key.
        session_id: The routing identity, where it fits in ZeroMQ's 1 to 255 bytes.

    Raises:
        zmq.ZMQError: An address is malformed.
        ConfigurationError: The signature scheme is unknown.
    """
    ports = {
        Channel.SHELL: info.shell_port,
        Channel.IOPUB: info.iopub_port,
        Channel.CONTROL: info.control_port,
        Channel.STDIN: info.stdin_port,
        Channel.HEARTBEAT: info.hb_port,
    }
    signer = Signer(info.key, info.signature_scheme)
    separator = "-" if info.transport == "ipc" else ":"
    async with AsyncExitStack() as stack:
        sockets: dict[Channel, TrioSocket] = {}
        monitors: dict[Channel, _Monitor] = {}
        channels = KernelChannels(sockets, monitors, signer)
        stack.callback(channels.stop_monitoring)
        for channel, port in ports.items():
            socket = stack.enter_context(_open_socket(context, channel, session_id.encode("utf-8", "replace")))
            monitors[channel] = _Monitor(context, socket, channel)
            sockets[channel] = socket
            socket.raw.connect(f"{info.transport}://{info.ip}{separator}{port}")
        # Closing order matters: the callback above runs last, yet monitors must go before the sockets they watch.
        stack.callback(channels.stop_monitoring)
        yield channels
