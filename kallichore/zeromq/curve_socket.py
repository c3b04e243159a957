"""One connection to one of a kernel's sockets that encrypts: libzmq's, on Trio.

The cryptography is libsodium's, by libzmq, in a thread of its own. Connecting is done as for plain connections: a
greeting is exchanged first, which tells whether somebody is there and encrypts, and libzmq connects then, once. What
became of that, and that the connection was lost, libzmq tells through a monitor, a socket that carries events.

`kallichore.zeromq.sockets` says what there is to know about waiting for such sockets. libzmq is loaded with the first
kernel that encrypts: 12 ms of a server's start that nobody else has to wait for.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import trio
import zmq

from kallichore.wire.curve_keys import CurveKeys
from kallichore.wire.frames import Frames
from kallichore.zeromq.connecting import Address, Endpoint, ForeignKernelError, ask_mechanism, connect_again
from kallichore.zeromq.unread import PIECE

logger = logging.getLogger(__name__)

MOST_MESSAGES = 200
"""Messages that are taken in one go, some milliseconds' work: then others have their turn."""

UNREAD_MESSAGES = 50_000
"""Messages that libzmq may have read on one connection and nobody has taken: some 64 MB if they are small. Beyond that
they stay in the connection, as with plain ones. libzmq counts messages and not bytes."""

MOST_REFUSALS = 3
"""Handshakes that a kernel may break off before we give up. It was there, and it encrypts: so it is the keys. A kernel
that is ended just then breaks off one."""

_NEVER = 3_600_000
"""Milliseconds until libzmq connects again by itself, an hour: long before that, we do. If it were told not to, it
would drop what has come on a connection that was lost."""

_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED | zmq.EVENT_CLOSED


def can_encrypt() -> bool:
    """Return whether libzmq was built with CurveZMQ; that of pyzmq's wheels is."""
    return bool(zmq.has("curve"))


def make_keys() -> CurveKeys:
    """Return a new pair, for a kernel that is to be started."""
    public, secret = zmq.curve_keypair()
    return CurveKeys(public.decode(), secret.decode())


class CurveConnector:
    """Makes the connections to one kernel. `close` ends libzmq's threads for it, once they are closed.

    Each kernel has a thread of its own: what one of them floods us with keeps nobody else's waiting.

    Args:
        keys: The kernel's.
    """

    def __init__(self, keys: CurveKeys) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.server_key = keys.public.encode()
        if keys.secret is None:
            self.public_key, self.secret_key = zmq.curve_keypair()
        else:
            self.public_key, self.secret_key = self.server_key, keys.secret.encode()

    def close(self) -> None:
        """End it. Idempotent."""
        self.context.destroy(linger=0)


class CurveSocket:
    """A connection that one task receives from, and any may send on.

    What is public here is the contract of `kallichore.zeromq.connection`; this one speaks the CURVE mechanism.

    Args:
        address: Host and port, or the path of a Unix socket.
        kind: Its ZeroMQ type, ``DEALER`` or ``SUB``; a SUB subscribes to everything.
        identity: Its routing identity; empty for none.
        nursery: A task in it watches the connection.
        connector: The kernel's.

    Attributes:
        connected: Set when the first handshake is done.
        lost: Set when the kernel's side ended the connection, and all that had come was taken.
    """

    def __init__(
        self, address: Address, kind: str, identity: bytes, nursery: trio.Nursery, connector: CurveConnector
    ) -> None:
        self._address = address
        self._kind = zmq.SUB if kind == "SUB" else zmq.DEALER
        self._identity = identity
        self._nursery = nursery
        self._connector = connector
        self.connected = trio.Event()
        self.lost = trio.Event()
        self._wire: _Wire | None = None
        self._refusals = 0
        self._unsent: deque[Sequence[bytes]] = deque()
        self._came_at_once = False
        self._waiting: trio.CancelScope | None = None
        """Ends the receiver's wait, when there is something that does not show at the descriptor."""

    def close(self) -> None:
        """Close the connection; what was not sent yet is dropped. Idempotent."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    # Connecting

    async def connect(self, hurry: trio.Event) -> None:
        """Connect and shake hands, as often as it takes. Cancelling closes what was begun.

        Args:
            hurry: Set when there is reason to think that the kernel listens now: then no pause is long.

        Raises:
            OSError: The address is none, there are no descriptors left, or (`ForeignKernelError`) the kernel does not
                encrypt, or has other keys.
        """
        await connect_again(self._address, self._connect_once, hurry)
        self.connected.set()
        while self._unsent:
            self._put(self._unsent.popleft())

    async def _connect_once(self, where: Endpoint) -> None:
        await ask_mechanism(where, "CURVE")
        with _as_os_errors():
            wire = _Wire(self._connector, self._kind, self._identity)
        try:
            with _as_os_errors():
                wire.raw.connect(where.url)
            await self._shake_hands(wire)
        except BaseException:
            wire.close()
            raise
        self._wire, self._refusals = wire, 0
        self._nursery.start_soon(self._watch, wire)

    async def _shake_hands(self, wire: _Wire) -> None:
        while not (happened := wire.read_events()):
            await trio.lowlevel.wait_readable(wire.monitor_fd)
        if happened & zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return
        if happened & _FAILED:
            self._refusals += 1
        if self._refusals >= MOST_REFUSALS:
            raise ForeignKernelError(
                f"it broke off {self._refusals} handshakes: curve_publickey and curve_secretkey are not its own"
            )
        raise ConnectionAbortedError

    async def _watch(self, wire: _Wire) -> None:
        """Wake the receiver when the connection is lost."""
        with suppress(trio.ClosedResourceError):
            while not wire.has_ended:
                await trio.lowlevel.wait_readable(wire.monitor_fd)
                wire.read_events()
        if self._waiting is not None and self._wire is wire:
            self._waiting.cancel()

    # Sending

    def send(self, frames: Sequence[bytes]) -> None:
        """Send one message: now, or as soon as there is a connection."""
        if self._wire is None:
            self._unsent.append(frames)
        else:
            self._put(frames)

    def _put(self, frames: Sequence[bytes]) -> None:
        assert self._wire is not None
        # Where there is no connection any more, whoever reads will notice.
        with suppress(zmq.ZMQError):
            self._wire.raw.send_multipart(frames, zmq.DONTWAIT)
        if self._waiting is not None and self._wire.is_readable:
            # The descriptor does not show it any more, since libzmq has looked at it in order to send.
            self._waiting.cancel()

    # Receiving

    @property
    def is_drained(self) -> bool:
        """Whether all that came was taken."""
        return self._wire is None or not self._wire.is_readable

    async def receive_batch(self) -> list[Frames]:
        """Wait for messages, and return what came first, up to `MOST_MESSAGES` of them.

        A checkpoint at least every other time, so that a kernel which never pauses leaves other tasks their turn.
        Cancelling it loses nothing.
        """
        if self._came_at_once:
            await trio.lowlevel.checkpoint()
        self._came_at_once = True
        while not (batch := self.drain()):
            self._came_at_once = False
            if self._wire is None:
                await self.connect(trio.Event())
                logger.warning("Connected to the kernel at %s again, which had closed the connection", self._address)
            else:
                await self._wait(self._wire.fd)
        return batch

    async def _wait(self, descriptor: int) -> None:
        try:
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.wait_readable(descriptor)
        finally:
            self._waiting = None

    def drain(self) -> list[Frames]:
        """Return messages that are here, or can be read now; empty only if there are no more."""
        wire = self._wire
        if wire is None:
            return []
        # Asked before: what came before the end is here when the end is told.
        has_ended, messages = wire.has_ended, wire.take()
        if has_ended and not messages:
            self.close()
            self._unsent.clear()
            self.lost.set()
        return messages


class _Wire:
    """A libzmq socket and its monitor.

    Attributes:
        has_ended: Whether the kernel's side ended the connection; what waits here comes first.
    """

    def __init__(self, connector: CurveConnector, kind: int, identity: bytes) -> None:
        self.has_ended = False
        self.raw = raw = connector.context.socket(kind)
        self.monitor: zmq.Socket[bytes] = raw.get_monitor_socket(_EVENTS)
        raw.linger = 0
        raw.sndhwm, raw.rcvhwm = 0, UNREAD_MESSAGES
        raw.reconnect_ivl = _NEVER
        raw.ipv6 = True
        raw.curve_serverkey = connector.server_key
        raw.curve_publickey, raw.curve_secretkey = connector.public_key, connector.secret_key
        if identity:
            raw.routing_id = identity
        if kind == zmq.SUB:
            raw.subscribe(b"")
        self.fd, self.monitor_fd = int(raw.get(zmq.FD)), int(self.monitor.get(zmq.FD))

    @property
    def is_readable(self) -> bool:
        """Whether a message can be taken."""
        return bool(int(self.raw.get(zmq.EVENTS)) & zmq.POLLIN)

    def take(self) -> list[Frames]:
        """Return what came first: up to a piece, and up to `MOST_MESSAGES`; empty if nothing is there."""
        messages: list[Frames] = []
        receive, size = self.raw.recv_multipart, 0
        with suppress(zmq.Again):
            while size < PIECE and len(messages) < MOST_MESSAGES:
                frames = receive(zmq.DONTWAIT)
                messages.append(frames)
                size += sum(map(len, frames))
        return messages

    def read_events(self) -> int:
        """Return what has happened to the connection, libzmq's events or-ed together."""
        happened = 0
        if self.raw.closed:
            # Whoever waited for an event may be woken by one, and by then somebody else has closed it.
            return happened
        with suppress(zmq.Again):
            while True:
                event, _ = self.monitor.recv_multipart(zmq.DONTWAIT)
                happened |= struct.unpack("=H", event[:2])[0]
        self.has_ended = self.has_ended or bool(happened & zmq.EVENT_DISCONNECTED)
        return happened

    def close(self) -> None:
        """Close both."""
        self.has_ended = True
        for descriptor in (self.fd, self.monitor_fd):
            trio.lowlevel.notify_closing(descriptor)
        self.raw.disable_monitor()
        self.monitor.close(linger=0)
        self.raw.close(linger=0)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Raise libzmq's errors as what they are to everybody else."""
    try:
        yield
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from error
