"""The watch over one session that nobody may be using any more: it warns, and then has the kernel ended.

When that is, is decided in `kallichore.conversation.culling`. Here is who waits: one task for each session that has a
limit, asleep until something can be due. Activity does not wake it: it only moves the deadline, and that is looked at
when the old one comes. While something holds the session there is no time to wait for; what ends then tells the watch.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import trio
import trio_util

from kallichore.conversation.culling import CullClock, CullPolicy, Step, Use, held_by, reason, warning
from kallichore.conversation.supervision import Phase
from kallichore.models.bodies import Culling
from kallichore.session.alarm import Alarm

if TYPE_CHECKING:
    from kallichore.session.session import Session

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class IdleWatch:
    """Watches over one session, over all its kernels.

    Args:
        session: The session.
        policy: When its kernel is to be ended.
    """

    session: Session
    policy: CullPolicy
    _clock: CullClock = attrs.field(init=False)
    _alarm: Alarm = attrs.field(factory=Alarm, init=False)

    def __attrs_post_init__(self) -> None:
        self._clock = CullClock(self.policy, trio.current_time())

    # What it is told

    def note_client(self) -> None:
        """Look at once: a client has come or gone."""
        self._alarm.set(trio.current_time())

    def note_rest(self) -> None:
        """Look when something may be due: work has ended. Costs next to nothing, as most such looks are put off."""
        self._alarm.set(self._clock.rest_at(self.session.conversation.active_at))

    # What it does

    async def run(self) -> None:
        """Watch over each kernel from when it is ready, for ever. Cancelling changes nothing."""
        phase = self.session.supervisor.watched_phase
        while True:
            await phase.wait_value(Phase.RUNNING)
            now = trio.current_time()
            self._clock, self._alarm = CullClock(self.policy, now), Alarm()
            self._alarm.set(now)
            async with trio_util.move_on_when(phase.wait_value, lambda phase: phase is not Phase.RUNNING):
                await self._alarm.run(self._look)

    def _look(self) -> None:
        clock, use, now = self._clock, self._use(), trio.current_time()
        step = clock.look(use, now)
        self._alarm.set(clock.look_at)
        idle = now - clock.idle_since(use)
        if step is Step.WARN:
            left = (clock.look_at or now) - now
            self._warn(warning(use, idle, left, _in_utc(left).strftime("%H:%M:%S UTC")))
        elif step is Step.END:
            self.session.supervisor.cull(reason(use, idle))

    def _warn(self, text: str) -> None:
        logger.info("[session %s] %s", self.session.session_id, text)
        # Who comes later holds the session, and would be told what is not true any more.
        if len(self.session.audience):
            self.session.conversation.say_output("stderr", f"[kallichore] {text}\n")

    def _use(self) -> Use:
        session, conversation = self.session, self.session.conversation
        supervisor = session.supervisor
        return Use(
            phase=supervisor.phase,
            is_ending=supervisor.is_ending,
            active_at=conversation.active_at,
            is_at_work=conversation.is_at_work,
            is_asking=conversation.open_input is not None,
            clients=len(session.audience),
            look_at=conversation.look_at,
        )

    def describe(self, now: float) -> Culling:
        """Return what the API shows, at a time in seconds of Trio's clock."""
        use, policy = self._use(), self.policy
        deadline = self._clock.deadline(use, now)
        return Culling(
            idle_after=policy.idle_after,
            connected=policy.connected,
            busy=policy.busy,
            deadline=None if deadline is None else _in_utc(deadline - now),
            held_by=held_by(policy, use),
        )


def _in_utc(seconds: float) -> datetime:
    """Return the time in so many seconds, to the second: two looks at one deadline differ in what is behind it."""
    return (datetime.now(UTC) + timedelta(seconds=max(0.0, seconds) + 0.5)).replace(microsecond=0)
