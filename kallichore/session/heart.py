"""A kernel's heartbeat: sent again and again, and what its silence means to the session."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from kallichore.conversation.heartbeat import HeartbeatMonitor
from kallichore.conversation.patience import StartPatience
from kallichore.conversation.status import StatusEvent
from kallichore.zeromq.connection import KernelConnection

PAYLOAD = b"kallichore-heartbeat"

ChangeStatus = Callable[[StatusEvent, str | None, float], object]


@attrs.frozen(kw_only=True)
class Heart:
    """What a heartbeat needs to know of its kernel, and whom it tells.

    Args:
        change_status: Is told that the heartbeat is lost, or back.
        at_rest_since: Since when the kernel runs nothing; None while it does.
        is_stopped: Whether the kernel's process is stopped.
        patience: The wait for the kernel to say who it is; None once it has.
        on_silence: Called while the kernel is silent.
    """

    change_status: ChangeStatus
    at_rest_since: Callable[[], float | None]
    is_stopped: Callable[[], bool]
    patience: Callable[[], StartPatience | None]
    on_silence: Callable[[], None]

    async def beat(self, socket: KernelConnection, monitor: HeartbeatMonitor) -> None:
        """Send heartbeats, for ever, and tell when they stay unanswered and when they are answered again.

        Args:
            socket: By which they go.
            monitor: The kernel's, as new.
        """
        while True:
            if monitor.is_due(trio.current_time()):
                socket.send([b"", PAYLOAD])
                monitor.sent(trio.current_time())
            await self._listen(socket, monitor)
            self._judge(monitor, trio.current_time())

    async def _listen(self, socket: KernelConnection, monitor: HeartbeatMonitor) -> None:
        """Wait for the answer, or for the next time to act; of whom answers always, only look whether it has."""
        rests_until = monitor.rests_until(trio.current_time())
        if rests_until is None:
            with trio.move_on_at(monitor.next_action_at()):
                await socket.receive_batch()
                monitor.answered(trio.current_time())
        else:
            await trio.sleep_until(rests_until)
            if socket.drain():
                monitor.answered(trio.current_time())

    def _judge(self, monitor: HeartbeatMonitor, now: float) -> None:
        patience = self.patience()
        if monitor.is_overdue(now) and monitor.judge(
            now, at_rest_since=self.at_rest_since(), is_stopped=self.is_stopped()
        ):
            text = f"the kernel did not answer its heartbeat for {monitor.limit:g} seconds"
            self.change_status(StatusEvent.HEARTBEAT_LOST, text, now)
            if patience is not None:
                patience.miss_heartbeat(now)
        if monitor.is_silent:
            self.on_silence()
        else:
            self.change_status(StatusEvent.HEARTBEAT_BACK, "the kernel answers its heartbeat again", now)
            if patience is not None and monitor.was_answered:
                patience.hear_heartbeat()
