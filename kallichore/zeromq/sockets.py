"""One ZeroMQ socket on Trio: drain what is there, wait for more, never lose an edge.

A ZeroMQ socket shows its state through a file descriptor that is *edge-triggered*: it becomes readable once when
something happens, whatever that is, and looking at EVENTS takes the edge away. So two rules hold here. After each wait
the socket itself is asked, not the descriptor. And a send, which may swallow the edge of a message that arrived
meanwhile, asks too, and wakes the receiver if there is something for it.

Sends never wait: the sockets have no high-water mark (the default of 1,000 would make a kernel's PUB drop messages
silently), and what a session sends is bounded by its clients and its execution queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import trio
import zmq

from kallichore.wire.frames import AFTER_DELIMITER, DELIMITER, Frames

BATCH_MESSAGES = 512
"""Messages in one drain: enough to spread the cost of a wake-up, few enough that other sessions' tasks get their turn
within some milliseconds."""

BATCH_BYTES = 1 << 20
"""Bytes in one drain, for the same reason: a batch of pictures should not hold up the loop."""

# As plain integers: pyzmq's enumerations cost a microsecond at each use.
_DONTWAIT, _EVENTS, _POLLIN = int(zmq.DONTWAIT), int(zmq.EVENTS), int(zmq.POLLIN)


class TrioSocket:
    """A ZeroMQ socket for one receiving task and any number of senders.

    Args:
        context: The ZeroMQ context; it stays the caller's.
        kind: The socket's type, such as ``zmq.DEALER``.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], kind: int) -> None:
        self.raw: zmq.Socket[bytes] = context.socket(kind)
        self.raw.linger = 0
        self.raw.sndhwm = 0
        self.raw.rcvhwm = 0
        self._descriptor = int(self.raw.get(zmq.FD))
        self._waiting: trio.CancelScope | None = None
        self._is_one_way = kind in (zmq.SUB, zmq.PULL)
        self._came_at_once = False
        self._is_drained = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; what was not sent yet is dropped. Idempotent."""
        self.raw.close()

    def _is_readable(self) -> bool:
        return bool(int(self.raw.get(_EVENTS)) & _POLLIN)

    async def _wait_edge(self) -> None:
        """Wait until something happened to the socket, after a receive found nothing. Cancelling it loses nothing.

        That receive has taken the edge of all that happened before, so the next one is of something new.
        """
        if self._is_one_way:
            await trio.lowlevel.wait_readable(self._descriptor)
            return
        with trio.CancelScope() as self._waiting:
            await trio.lowlevel.wait_readable(self._descriptor)
        self._waiting = None

    def send(self, frames: Sequence[bytes | memoryview]) -> None:
        """Send one message, now.

        Raises:
            zmq.ZMQError: The socket is closed, or its type cannot send now.
        """
        self.raw.send_multipart(frames, flags=_DONTWAIT)
        if self._waiting is not None and self._is_readable():
            self._waiting.cancel()

    def receive_nowait(self) -> list[bytes] | None:
        """Return one message of any shape, or None if there is none."""
        try:
            return self.raw.recv_multipart(flags=_DONTWAIT)
        except zmq.Again:
            return None

    async def receive(self) -> list[bytes]:
        """Wait for one message of any shape. Cancelling it loses nothing."""
        while (frames := self.receive_nowait()) is None:
            await self._wait_edge()
        return frames

    def _read_jupyter(self) -> Frames | None:
        """Return the frames of one Jupyter message, or None if there is none.

        ``recv_multipart`` asks after each frame whether more follow, and needs more than twice the time. We know that
        five frames follow the delimiter, so only the last of them is asked: it is received as a `zmq.Frame`, which
        knows (1.1 µs; asking the socket takes 2.0). Where a broken kernel sends fewer frames, those of its next message
        come out behind them; `kallichore.wire.frames.split` finds that message again.
        """
        receive = self.raw.recv
        frames: Frames = []
        append = frames.append
        try:
            while True:
                frame = receive(_DONTWAIT)
                append(frame)
                if frame == DELIMITER:
                    break
            for _ in range(AFTER_DELIMITER - 1):
                append(receive(_DONTWAIT))
            last = receive(_DONTWAIT, copy=False)
            append(last.bytes)
            while last.more:
                last = receive(_DONTWAIT, copy=False)
                append(last.buffer)
        except zmq.Again:
            # Either nothing came at all, or a broken message ended early: its frames are the caller's to refuse.
            return frames or None
        return frames

    def drain(self) -> list[Frames]:
        """Return the Jupyter messages that are there, at most `BATCH_MESSAGES` and about `BATCH_BYTES`."""
        batch: list[Frames] = []
        size, self._is_drained = 0, False
        while len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
            frames = self._read_jupyter()
            if frames is None:
                self._is_drained = True
                break
            batch.append(frames)
            # The content; headers are small, and only what has buffers has more than eight frames.
            size += len(frames[-1]) if len(frames) <= 8 else sum(map(len, frames))
        return batch

    async def receive_batch(self) -> list[Frames]:
        """Wait for Jupyter messages and return all that are there, up to the bounds of `drain`.

        A checkpoint at least every other time, so that a kernel which never pauses leaves other tasks their turn. One
        each time would be another turn of the event loop for each message that comes alone. Cancelling it loses
        nothing.
        """
        if self._came_at_once:
            await trio.lowlevel.checkpoint()
        self._came_at_once = True
        # Where nothing was sent since, the drain that found the end is as good as another.
        batch = [] if self._is_one_way and self._is_drained else self.drain()
        while not batch:
            self._came_at_once = False
            await self._wait_edge()
            batch = self.drain()
        return batch
