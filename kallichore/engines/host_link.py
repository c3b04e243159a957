"""A server's connection to the host of one kernel.

The host (`kallichore.host`) keeps what the kernel sends until it is confirmed, and takes each payload for the kernel
once, so a link can be cut at any moment and opened again by the next server: nothing is missing then, and nothing comes
twice. `kallichore.wire.host_frames` has what the two say to each other.

Who wakes whom: one task of the link reads all that comes. What is for a channel it appends to the channel's `pieces`,
and wakes who waits in `HostChannel.wait`; that one takes the pieces from the front. The task waits for nobody: a
channel that nobody reads grows, until the host has kept as much as its ``keep_limit`` without a confirmation and stops
reading from the kernel. So `confirm` is what keeps a flood going.

Nothing is sent before `HostLink.flush`: what is to be sent waits, in order, and `HostLink.on_waiting` is called when
the first of it comes. Whoever has to write something down before it may leave puts another function there, and flushes
when that is done.

A connection within this machine lasts as long as its host. One from elsewhere may be cut, and is opened again then, as
often as it takes (`Reach.tell`): both sides go on where they were, and who uses the link does not notice.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from kallichore.engines.attaching import READ_SIZE, Attachment, attach
from kallichore.engines.reach import Reach
from kallichore.errors import HostGoneError, HostRefusedError
from kallichore.wire.host_frames import (
    SIGNALS,
    Frame,
    Hello,
    HostChannelNumber,
    HostEnding,
    HostFacts,
    HostFrameError,
    Kind,
    Opening,
    Received,
    decode_ending,
    decode_facts,
    decode_opening,
    encode_again,
    encode_ask,
    encode_open,
    head,
)

# Looking up a member of an enumeration takes longer than what is done with it here.
_DATA, _ACCEPTED, _SEND = int(Kind.DATA), int(Kind.ACCEPTED), int(Kind.SEND)

CONFIRM_AT_LEAST = 1 << 18
"""Bytes of one channel after which a host is told that it need not keep them, where nobody writes them down."""

MOST_READS = 4
"""Reads in one go, some hundred microseconds: then others have their turn."""

AT_ONCE = 1 << 13
"""Bytes of a piece that is small: some twenty messages, which take a fraction of a millisecond."""

SMALL = 1 << 12
"""Bytes of a payload up to which it is copied behind its head: that takes less time than a buffer more does."""

MOST_BUFFERS = 512
"""Buffers that are handed to the system at once; it takes 1024 at most."""


@attrs.define(eq=False)
class HostChannel:
    """What comes on one of a kernel's channels.

    Attributes:
        pieces: What came and was not taken. Who takes a piece takes it from the front.
        position: The position behind the last byte of `pieces`.
        ended: Whether the kernel closed this channel; what came before that may still be in `pieces`.
        on_small: Called by the task that reads when a piece of at most `AT_ONCE` bytes is the only one that is there;
            if it is left there, who waits is woken.
    """

    position: int
    pieces: deque[bytes] = attrs.field(factory=deque, init=False)
    ended: bool = attrs.field(default=False, init=False)
    on_small: Callable[[], None] | None = attrs.field(default=None, init=False)
    _lost: bool = attrs.field(default=False, init=False)
    _is_closed: bool = attrs.field(default=False, init=False)
    """Whether what comes is of a connection that is none any more."""
    _waiters: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    async def wait(self) -> None:
        """Wait until there are pieces, or the channel ended, or the link was lost; who waits is woken by the link.

        A checkpoint only if it has to wait: a task that is always given something has to leave others their turn
        itself. Cancelling it loses nothing. Any number of tasks may wait; all are woken.
        """
        while not (self.pieces or self.ended or self._lost):
            await self._waiters.park()

    def _wake(self) -> None:
        if self._waiters:
            self._waiters.unpark_all()

    def _take(self, data: bytes) -> None:
        if not self._is_closed:
            self.pieces.append(data)
            self.position += len(data)
            if self.on_small is not None and len(data) <= AT_ONCE and len(self.pieces) == 1:
                self.on_small()
            if self._waiters and self.pieces:
                self._waiters.unpark_all()

    def _end(self) -> None:
        if not self._is_closed:
            self.ended = True
            self._wake()

    def _lose(self) -> None:
        self._lost = True
        self._wake()

    def _close(self) -> None:
        """Forget what came of the connection that there was, and what is still to come of it."""
        self.pieces.clear()
        self.ended = False
        self._is_closed = True

    def _open(self, position: int) -> None:
        self.position = position
        self._is_closed = False


@attrs.define(eq=False)
class _Request:
    """Somebody's wish to have a channel connected."""

    number: int
    frame: bytes
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: Opening | None = None
    was_given_up: bool = False
    """Whether the channel is no longer what was wished here: closed, opened again, or lost with the link."""


class HostLink:
    """A connection to a host that has proved itself. Made by `open_link`.

    None of its methods waits but `open`. Once the link is `lost` they still may be called: payloads that have to arrive
    are added to `unaccepted`, to go with the next link, and everything else comes to nothing.

    Args:
        attachment: The connection.
        reach: The way to the host: another connection is opened where this one is cut.
        secret: The session's.
        positions: Where the server goes on reading.
        unaccepted: What the server before had sent, or wanted to, and did not know to be accepted.
        nursery: What cannot be sent at once is sent by a task in it.

    Attributes:
        hello: What the host said when the connection began.
        ending: How the kernel's process ended, once it has.
        ended: Set when `ending` is there. The channels may have more to come.
        lost: Set when the connection to the host is gone for good: the host was killed, was released, or has another
            server.
        why_lost: What the engine knows of that, in words; empty where it knows nothing.
        replaced: Whether it is gone because another server took its place; false until `lost` is set.
        channels: The channels by number.
        on_waiting: Called, inside of the method that is called, when something waits for `flush` and nothing did
            before; by default it is `flush` itself.
        facts: What the host said of the kernel when it was asked last.
        on_facts: Called when it does.
        confirms: Whether the host need not keep what was read here. Not so where somebody writes it down first, and
            calls `confirm`.
    """

    def __init__(
        self,
        attachment: Attachment,
        reach: Reach,
        secret: bytes,
        positions: Mapping[int, int],
        unaccepted: Sequence[Frame],
        nursery: trio.Nursery,
    ) -> None:
        hello = attachment.hello
        self.hello = hello
        self.ending: HostEnding | None = None
        self.ended = trio.Event()
        self.lost = trio.Event()
        self.why_lost = ""
        self.replaced = False
        self.facts: HostFacts | None = None
        self.on_facts: Callable[[HostFacts], None] = _ignore
        self.confirms = False
        self.channels: Mapping[int, HostChannel] = {
            int(number): HostChannel(_start(hello, number, positions)) for number in HostChannelNumber
        }
        # Counted anew: where a damaged state directory lost one of them, the host would take none of the others.
        kept = [frame for frame in unaccepted if frame.number > hello.accepted]
        self._unaccepted = deque(frame._replace(number=hello.accepted + 1 + n) for n, frame in enumerate(kept))
        self._passing: set[int] = set()
        """The numbers of those that are lost with this link."""
        self.on_waiting: Callable[[], None] = self.flush
        self._next_number = hello.accepted + 1 + len(kept)
        self._next_request = 1
        self._socket: socket.socket | None = attachment.connection
        self._decoder = attachment.decoder
        self._reach, self._secret = reach, secret
        self._nursery = nursery
        self._requests: dict[int, _Request] = {}
        self._paces: dict[int, float] = {}
        self._is_asking = self._is_released = False
        self._waiting: list[bytes] = []
        self._confirmed: dict[int, int] = {}
        self._told: dict[int, int] = {}
        """Up to where the host was told that it need not keep what `confirms`."""
        self._unsent: deque[bytes | memoryview] = deque()
        self._is_pushing = False
        self._go_on()

    @property
    def unaccepted(self) -> Sequence[Frame]:
        """Payloads for the kernel that the host has not said it has, oldest first. The host says so along with other
        frames, and after half a second at the latest.
        """
        if not self._passing:
            return self._unaccepted
        return [frame for frame in self._unaccepted if frame.number not in self._passing]

    def _go_on(self) -> None:
        """Begin with what a host said of itself, or go on with it."""
        if self.hello.ended is not None:
            self._take_ending(self.hello.ended)
        for frame in self._unaccepted:
            self._waiting += _encode_send(*frame)
        if self._waiting:
            # Some of it may not be written down yet.
            self.on_waiting()

    def __repr__(self) -> str:
        state = "lost" if self.lost.is_set() else "attached"
        return f"<HostLink to {self.hello.host_pid}, {state}, {len(self._unaccepted)} unaccepted>"

    # Sending

    async def open(self, channel: int, family: str, numbers: Any) -> int:
        """Have a channel connected, in one try, and return the position of the first byte that will come on it.

        What is left of the connection before is forgotten. Cancelling closes what was begun.

        Args:
            channel: Its number.
            family: ``inet``, ``inet6`` or ``unix``.
            numbers: The address as that family has it.

        Raises:
            OSError: The system refused; with its number.
            HostGoneError: The link was lost, or somebody else opened or closed the channel meanwhile.
        """
        if self.lost.is_set():
            raise HostGoneError(f"There is no connection to the host to open channel {channel} by")
        request = _Request(self._next_request, encode_open(channel, self._next_request, family, numbers))
        self._next_request += 1
        self._give_up_request(channel)
        self._requests[channel] = request
        self.channels[channel]._close()
        self._put(request.frame)
        try:
            await request.done.wait()
        except trio.Cancelled:
            # It may have been answered in the same moment.
            if not request.was_given_up:
                self.close_channel(channel)
            raise
        if request.answer is None:
            raise HostGoneError(f"The connection to the host was lost, or channel {channel} closed meanwhile")
        if request.answer.errno is not None:
            raise OSError(request.answer.errno, os.strerror(request.answer.errno))
        return request.answer.position

    def close_channel(self, channel: int) -> None:
        """Close a channel's connection; what came of it is forgotten, here and by the host."""
        self._give_up_request(channel)
        self.channels[channel]._close()
        self._put(head(Kind.CLOSE, channel))

    def send(self, channel: int, data: bytes, *, may_be_lost: bool = False) -> None:
        """Send bytes to the kernel, in order, as soon as `flush` is called.

        Args:
            channel: Where.
            data: Less than 4 GiB. They are taken as a whole or not at all, and go to the connection that the channel
                has then: they are dropped if it has none.
            may_be_lost: Whether they are gone if this link is lost before the host has them, as is right for a
                handshake. Otherwise they are in `unaccepted` until the host has them, which takes them once.
        """
        number = 0
        if not may_be_lost or self._reach.tell is not None:
            number = self._next_number
            self._next_number += 1
            self._unaccepted.append(Frame(number, channel, data))
            if may_be_lost:
                self._passing.add(number)
        self._put(*_encode_send(number, channel, data))

    def confirm(self, channel: int, position: int) -> None:
        """Tell the host that it need not keep what is before this position. Only the last before a `flush` counts."""
        if not self._waiting and not self._confirmed:
            self._confirmed[channel] = position
            self.on_waiting()
        else:
            self._confirmed[channel] = position

    def ask(self) -> None:
        """Have the host say what the kernel uses and where it is, for `facts`; unless it is asked already."""
        if not self._is_asking and not self.lost.is_set():
            self._is_asking = True
            self._put(encode_ask(0))

    def pace(self, channel: int, seconds: float) -> None:
        """Have what comes on a channel gather for so long before it is read again, as in a flood; 0 for not at all."""
        self._paces[channel] = seconds
        self._put(head(Kind.PACE, channel, round(seconds * 1e6)))

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and to all that is in its process group, once, behind what was sent before."""
        self.send(SIGNALS, str(number).encode())

    def release(self) -> None:
        """Let the host end: what it knew has been taken down. If the kernel lives, it is killed."""
        self._is_released = True
        self._put(head(Kind.RELEASE))

    def start_again(self, directory: str | None) -> None:
        """Have the host start a kernel anew that has ended. Then it hangs up, and this link is lost: the next has it.

        Args:
            directory: Where the kernel is to start.
        """
        self._is_released = True
        self._put(encode_again(directory))

    def flush(self) -> None:
        """Send what waits: now, or as soon as the host takes it. Never waits itself."""
        if self._confirmed:
            self._unsent += [head(Kind.CONFIRM, *confirmed) for confirmed in self._confirmed.items()]
            self._confirmed.clear()
        if self._waiting:
            self._unsent += self._waiting
            self._waiting.clear()
        if not self._is_pushing and not self._push():
            self._is_pushing = True
            self._nursery.start_soon(self._keep_pushing)

    def _put(self, *buffers: bytes) -> None:
        was_empty = not self._waiting and not self._confirmed
        self._waiting += buffers
        if was_empty:
            self.on_waiting()

    def _push(self) -> bool:
        """Send what was flushed; False if the host does not take all of it now."""
        if sys.platform == "win32":
            raise NotImplementedError
        unsent = self._unsent
        if self._socket is None:
            unsent.clear()
        while unsent and self._socket is not None:
            try:
                if len(unsent) == 1:
                    count = self._socket.send(unsent[0])
                else:
                    count = self._socket.sendmsg([unsent[place] for place in range(min(len(unsent), MOST_BUFFERS))])
            except BlockingIOError:
                return False
            except OSError:
                # Whoever reads will notice.
                unsent.clear()
                return True
            while unsent and count >= len(unsent[0]):
                count -= len(unsent.popleft())
            if count:
                unsent[0] = memoryview(unsent[0])[count:]
        return True

    async def _keep_pushing(self) -> None:
        try:
            while self._socket is not None and not self._push():
                await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            pass
        finally:
            self._is_pushing = False

    # Receiving

    async def run(self, early: Sequence[Received]) -> None:
        """Take what comes until the link is lost; cancelling it closes the connection.

        Args:
            early: What came already.
        """
        try:
            await self._read(early)
            # Who has let go of a host does not look for it again.
            while self._reach.tell is not None and not self.replaced and not self._is_released:
                await self._read(await self._reconnect())
        except (HostGoneError, HostRefusedError, HostFrameError) as error:
            self.why_lost = str(error)
        finally:
            self._lose()

    async def _read(self, early: Sequence[Received]) -> None:
        """Take what comes until the connection is gone.

        Raises:
            HostFrameError: No host says that.
        """
        buffer = memoryview(bytearray(READ_SIZE))
        try:
            for received in early:
                self._take(received)
            # It may be closed before this has run for the first time, and when this was woken and has not run yet.
            while (connection := self._socket) is not None:
                await trio.lowlevel.wait_readable(connection)
                for _ in range(MOST_READS):
                    size = connection.recv_into(buffer)
                    if not size:
                        return
                    for received in self._decoder.feed(buffer[:size]):
                        self._take(received)
                    if size < READ_SIZE:
                        # Most likely nothing is left.
                        break
                if self.confirms:
                    self._confirm_read()
        except (OSError, trio.ClosedResourceError):
            pass

    def _confirm_read(self) -> None:
        for number, channel in self.channels.items():
            if channel.position >= self._told.get(number, 0) + CONFIRM_AT_LEAST:
                # What nobody has taken stays with the host, which reads no more from the kernel when that is too much.
                position = self._told[number] = channel.position - sum(map(len, channel.pieces))
                self.confirm(number, position)

    async def _reconnect(self) -> list[Received]:
        """Go on over another connection; return what came on it already."""
        self._close()
        assert self._reach.tell is not None
        self._reach.tell("")
        positions = {number: channel.position for number, channel in self.channels.items()}
        attachment = await attach(self._reach, self._secret, positions)
        self._socket, self._decoder, self.hello = attachment.connection, attachment.decoder, attachment.hello
        self._forget_accepted(self.hello.accepted)
        self._is_asking = False
        self._waiting = [
            *(head(Kind.CLOSE, number) for number, each in self.channels.items() if each._is_closed),
            *(head(Kind.PACE, number, round(pace * 1e6)) for number, pace in self._paces.items() if pace),
            *(request.frame for request in self._requests.values()),
        ]
        self._go_on()
        if self._is_released:
            # Who let go of it while it could not be reached has nothing more to say.
            self._put(head(Kind.RELEASE))
        return attachment.early

    def _take(self, received: Received) -> None:
        kind, channel, number, payload = received
        if kind == _DATA:
            self._channel(channel)._take(payload)
        elif kind == _ACCEPTED:
            self._forget_accepted(number)
        elif kind == Kind.LOST:
            self._channel(channel)._end()
        elif kind == Kind.OPENED:
            self._take_opening(channel, number, decode_opening(payload))
        elif kind == Kind.ENDED:
            self._take_ending(decode_ending(payload))
        elif kind == Kind.TOLD:
            self._is_asking, self.facts = False, decode_facts(payload)
            self.on_facts(self.facts)
        elif kind == Kind.REPLACED:
            self.replaced = True
        else:
            raise HostFrameError(f"a host does not say {kind}")

    def _forget_accepted(self, number: int) -> None:
        unaccepted = self._unaccepted
        while unaccepted and unaccepted[0].number <= number:
            self._passing.discard(unaccepted.popleft().number)

    def _channel(self, number: int) -> HostChannel:
        try:
            return self.channels[number]
        except KeyError:
            raise HostFrameError(f"there is no channel {number}") from None

    def _take_opening(self, channel: int, number: int, answer: Opening) -> None:
        request = self._requests.get(channel)
        if request is None or request.number != number:
            # Nobody waits for it any more.
            return
        del self._requests[channel]
        if answer.errno is None:
            self._channel(channel)._open(answer.position)
        request.answer = answer
        request.done.set()

    def _take_ending(self, ending: HostEnding) -> None:
        self.ending = ending
        self.ended.set()

    def _give_up_request(self, channel: int) -> None:
        request = self._requests.pop(channel, None)
        if request is not None:
            request.was_given_up = True
            request.done.set()

    def _close(self) -> None:
        """Close the connection. Idempotent."""
        if self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
            self._socket = None
        self._unsent.clear()
        self._waiting.clear()

    def _lose(self) -> None:
        """Close the connection for good, and wake all who wait for something to come of it. Idempotent."""
        self._close()
        if self.lost.is_set():
            return
        self.lost.set()
        for channel in self.channels.values():
            channel._lose()
        for number in list(self._requests):
            self._give_up_request(number)


def _ignore(_facts: HostFacts) -> None:
    pass


def _start(hello: Hello, number: int, positions: Mapping[int, int]) -> int:
    """Return the position from which on a host sends what it has of a channel."""
    state = hello.channels[number]
    return min(max(state.begin, positions.get(number, 0)), state.end)


def _encode_send(number: int, channel: int, data: bytes) -> list[bytes]:
    """Return the frame that takes a payload to the kernel, in pieces."""
    beginning = head(_SEND, channel, number, len(data))
    return [beginning + data] if len(data) <= SMALL else [beginning, data]


@asynccontextmanager
async def open_link(
    reach: Reach,
    secret: bytes,
    positions: Mapping[int, int] = {},
    unaccepted: Sequence[Frame] = (),
    attachment: Attachment | None = None,
) -> AsyncIterator[HostLink]:
    """Attach to a host, as its only server; on leaving, the host and its kernel stay as they are.

    What was not accepted is sent again before anything else. For cancelling and what is raised before the block is
    entered see `attach`. Errors of the block come out in a group, as out of a nursery.

    Args:
        reach: The way to the host.
        secret: The session's.
        positions: Where to go on reading, by channel; where there is none, from the first byte that the host has.
        unaccepted: `HostLink.unaccepted` of the link before.
        attachment: A connection with those positions, where there is one already.
    """
    if attachment is None:
        attachment = await attach(reach, secret, positions)
    try:
        async with trio.open_nursery() as nursery:
            link = HostLink(attachment, reach, secret, positions, unaccepted, nursery)
            nursery.start_soon(link.run, attachment.early)
            try:
                yield link
            finally:
                nursery.cancel_scope.cancel()
                link._lose()
    finally:
        attachment.connection.close()
