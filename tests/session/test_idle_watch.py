"""The watch over a session that nobody may be using: whom it wakes when, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio_util
from hypothesis import example, given, strategies as st
from trio.testing import MockClock

from kallichore.conversation.activity import GRACE
from kallichore.conversation.culling import CullClock, CullPolicy
from kallichore.conversation.supervision import Phase
from kallichore.models.bodies import CullHold
from kallichore.session.idle_watch import IdleWatch
from talk import Talk, request

HOUR = 3600.0
A_YEAR = 366 * 24 * HOUR
EVENTS = ("_come", "_go", "_run", "_ask", "_move")
"""How the names of a story's events begin."""


@attrs.define(eq=False)
class FakeSupervisor:
    """A supervisor's phase, and what it was asked."""

    watched_phase: trio_util.AsyncValue[Phase] = attrs.field(factory=lambda: trio_util.AsyncValue(Phase.RUNNING))
    culled: list[tuple[float, str]] = attrs.field(factory=list)

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        return self.watched_phase.value

    @property
    def is_ending(self) -> bool:
        """Whether the kernel was asked to end."""
        return bool(self.culled)

    def cull(self, why: str) -> None:
        """Note when the kernel was to be ended, and why."""
        self.culled.append((round(trio.current_time(), 3), why))


@attrs.define(eq=False)
class FakeSession:
    """What a watch needs of a session; its conversation is real."""

    session_id: str = "s"
    talk: Talk = attrs.field(factory=Talk)
    supervisor: FakeSupervisor = attrs.field(factory=FakeSupervisor)
    audience: list[object] = attrs.field(factory=list)
    watch: IdleWatch = attrs.field(init=False)

    @property
    def conversation(self) -> Any:
        """What was said."""
        return self.talk.conversation

    async def sleep(self, seconds: float) -> None:
        """Let time go by, also for what the conversation waits for."""
        await trio.sleep(seconds)
        self.talk.wait(trio.current_time() - self.talk.now)

    async def act(self, *acts: Callable[[], object]) -> None:
        """Have things happen now."""
        await self.sleep(0)
        for act in acts:
            act()

    def come(self) -> None:
        """Connect a client."""
        self.audience.append(object())
        self.watch.note_client()

    def go(self) -> None:
        """Have one leave."""
        self.audience.pop()
        self.watch.note_client()

    async def run_code(self, seconds: float, *, has_status: bool = True, has_reply: bool = True) -> None:
        """Have code run for so long."""
        code = request(f"code-{trio.current_time()}")
        await self.act(lambda: self.talk.tell(code), *([lambda: self.talk.busy(code)] if has_status else []))
        await self.sleep(seconds)
        await self.act(
            *([lambda: self.talk.idle(code)] if has_status else []),
            *([lambda: self.talk.reply(code)] if has_reply else []),
        )

    @property
    def warnings(self) -> list[str]:
        """What clients were told."""
        return [text for _, text in self.talk.news("output")]

    @property
    def culled_at(self) -> list[float]:
        """When the kernel was to be ended."""
        return [time for time, _ in self.supervisor.culled]


@asynccontextmanager
async def open_watched(looks: list[float] | None = None, **policy: Any) -> AsyncIterator[FakeSession]:
    """Yield a session with a kernel that is ready, idle, and watched."""
    session = FakeSession()
    session.talk.now = trio.current_time()
    session.talk.start()
    session.watch = IdleWatch(session, CullPolicy(**{"idle_after": HOUR, **policy}))  # type: ignore[arg-type]
    session.conversation.on_rest = session.watch.note_rest
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.watch.run)
        await trio.testing.wait_all_tasks_blocked()
        yield session
        nursery.cancel_scope.cancel()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the times at which any watch woke up and looked."""
    times: list[float] = []
    look = CullClock.look

    def noted(self: CullClock, *arguments: Any) -> Any:
        times.append(round(trio.current_time(), 3))
        return look(self, *arguments)

    monkeypatch.setattr(CullClock, "look", noted)
    return times


async def test_idle_kernel_is_ended_at_its_time(autojump_clock: MockClock, looks: list[float]) -> None:
    """An hour after it was ready, with three looks: at once, at the warning, at the end."""
    async with open_watched() as session:
        await session.sleep(A_YEAR)

    assert [(HOUR, "It was ended because it had been idle for 1 hour")] == session.supervisor.culled
    assert [0, HOUR - 60, HOUR] == looks


async def test_time_counts_from_the_end_of_what_ran(autojump_clock: MockClock) -> None:
    """Code that takes hours is activity until it is over."""
    async with open_watched() as session:
        await session.run_code(5 * HOUR)
        await session.sleep(A_YEAR)

    assert [6 * HOUR] == session.culled_at


@pytest.mark.parametrize(("has_status", "has_reply"), [(True, False), (False, True)])
async def test_end_of_work_is_noticed_by_one_of_its_signs(
    autojump_clock: MockClock, has_status: bool, has_reply: bool
) -> None:
    """Some kernels send no reply, some no status: neither is left to itself for ever."""
    async with open_watched() as session:
        await session.run_code(5 * HOUR, has_status=has_status, has_reply=has_reply)
        await session.sleep(0.5)
        await session.sleep(A_YEAR)

    assert [6 * HOUR] == session.culled_at


async def test_nothing_wakes_while_something_runs_or_a_client_reads(
    autojump_clock: MockClock, looks: list[float]
) -> None:
    """What ends that tells the watch."""
    async with open_watched() as session:
        await session.act(session.come)
        await session.sleep(A_YEAR)
        reading = len(looks)
        await session.run_code(A_YEAR)
        await session.sleep(A_YEAR)

    # At the start and at the client's coming; where the warning would have been; and the same after the code.
    assert (2, 3) == (reading, len(looks))
    assert [] == session.culled_at


async def test_activity_wakes_nobody(autojump_clock: MockClock, looks: list[float]) -> None:
    """A thousand executions in an hour are one look, at which the deadline is found to have moved."""
    async with open_watched() as session:
        for _ in range(1000):
            await session.run_code(3)

    assert [0] == looks


async def test_session_with_a_client_lives_and_goes_a_minute_after_it(autojump_clock: MockClock) -> None:
    """The client's going is no activity, and the end comes no sooner than the notice."""
    async with open_watched() as session:
        await session.act(session.come)
        await session.sleep(5 * HOUR)
        await session.act(session.go)
        await session.sleep(A_YEAR)

    assert [5 * HOUR + 60] == session.culled_at
    assert [] == session.warnings


async def test_client_that_comes_back_in_time_saves_the_kernel(autojump_clock: MockClock) -> None:
    """A page that is loaded anew, after hours of reading."""
    async with open_watched() as session:
        await session.act(session.come)
        await session.sleep(5 * HOUR)
        await session.act(session.go)
        await session.sleep(59)
        await session.act(session.come)
        await session.sleep(A_YEAR)

    assert [] == session.culled_at


async def test_clients_are_warned_and_activity_moves_the_deadline(autojump_clock: MockClock) -> None:
    """A minute before. Who runs something then has another hour, and another warning."""
    async with open_watched(connected=True) as session:
        await session.act(session.come)
        await session.sleep(HOUR - 59)
        first = session.warnings
        await session.run_code(1)
        await session.sleep(A_YEAR)
        later = session.warnings

    assert 1 == len(first) == len(later)
    assert first[0].startswith(
        "[kallichore] This session has been idle for 59 minutes. Its kernel will be ended in 1 min"
    )
    assert [2 * HOUR - 58] == session.culled_at


async def test_what_runs_is_ended_where_that_does_not_count(autojump_clock: MockClock) -> None:
    """With ``busy``: an hour after somebody asked for it, and the reason says that it ran."""
    async with open_watched(busy=True) as session:
        await session.sleep(100)
        await session.run_code(A_YEAR)

    assert [100 + HOUR] == session.culled_at
    assert "whatever it was at" in session.supervisor.culled[0][1]


async def test_question_of_the_kernel_is_waited_for(autojump_clock: MockClock) -> None:
    """Nobody knows what depends on the answer; an hour after it, the kernel may go."""
    code, answer = request("a"), request("b", "input_reply", "stdin", value="x")
    async with open_watched() as session:
        await session.act(
            lambda: session.talk.tell(code),
            lambda: session.talk.busy(code),
            lambda: session.talk.hear("input_request", code, {}, "stdin"),
        )
        await session.sleep(A_YEAR)
        held = session.watch.describe(trio.current_time()).held_by
        await session.act(
            lambda: session.talk.tell(answer), lambda: session.talk.reply(code), lambda: session.talk.idle(code)
        )
        await session.sleep(A_YEAR)

    assert CullHold.INPUT is held
    assert [A_YEAR + HOUR] == session.culled_at


async def test_each_kernel_has_its_own_time(autojump_clock: MockClock) -> None:
    """A restart begins it anew when the next kernel is ready, however long that takes; until then there is none."""
    async with open_watched() as session:
        phase = session.supervisor.watched_phase
        await session.sleep(HOUR - 1)
        phase.value = Phase.RESTARTING
        await session.sleep(5 * HOUR)
        phase.value = Phase.STARTING
        held = session.watch.describe(trio.current_time()).held_by
        await session.sleep(5 * HOUR)
        phase.value = Phase.RUNNING
        ready_at = trio.current_time()
        await session.sleep(A_YEAR)

    assert CullHold.STARTING is held
    assert [ready_at + HOUR] == session.culled_at


@pytest.mark.parametrize("phase", [Phase.RESTING, Phase.ENDING, Phase.CLOSED])
async def test_session_whose_kernel_is_gone_or_going_is_left_alone(
    autojump_clock: MockClock, phase: Phase, looks: list[float]
) -> None:
    """There is nothing to end; nothing wakes either."""
    async with open_watched() as session:
        session.supervisor.watched_phase.value = phase
        await session.sleep(A_YEAR)

    assert ([], [0]) == (session.culled_at, looks)


async def test_session_tells_its_deadline_and_what_holds_it(autojump_clock: MockClock) -> None:
    """One of the two, and the settings."""
    async with open_watched() as session:
        free = session.watch.describe(trio.current_time())
        await session.act(session.come)
        held = session.watch.describe(trio.current_time())

    assert (HOUR, False, False, None) == (free.idle_after, free.connected, free.busy, free.held_by)
    assert free.deadline is not None
    assert 0 == free.deadline.microsecond
    assert (None, CullHold.CLIENTS) == (held.deadline, held.held_by)


@attrs.define
class Story:
    """Things that happen to a watched session, some time after each other, until its kernel is ended."""

    session: FakeSession
    last_event: float = 0.0
    duration: float = 0.0
    _count: int = 0

    async def tell(self, events: list[tuple[float, str, float]]) -> None:
        """Have them happen: each some time after the one before, and what is work takes so long."""
        for pause, event, self.duration in events:
            await self.session.sleep(pause)
            if self.session.supervisor.culled:
                return
            self.last_event = trio.current_time()
            self._count += 1
            await getattr(self, f"_{event}")(f"{event}-{self._count}")

    async def _come(self, _: str) -> None:
        self.session.come()

    async def _go(self, _: str) -> None:
        if self.session.audience:
            self.session.go()

    async def _run(self, msg_id: str) -> None:
        await self._serve(request(msg_id), "idle reply")

    async def _run_without_reply(self, msg_id: str) -> None:
        await self._serve(request(msg_id), "idle")

    async def _run_without_idle(self, msg_id: str) -> None:
        await self._serve(request(msg_id), "reply")

    async def _run_without_status(self, msg_id: str) -> None:
        await self._serve(request(msg_id), "reply", begins="")

    async def _ask(self, msg_id: str) -> None:
        await self._serve(request(msg_id, "inspect_request"), "reply idle")

    async def _ask_without_idle(self, msg_id: str) -> None:
        await self._serve(request(msg_id, "inspect_request"), "reply")

    async def _move_slider(self, msg_id: str) -> None:
        await self._serve(request(msg_id, "comm_msg"), "idle")

    async def _serve(self, message: Any, ends: str, begins: str = "busy") -> None:
        """Have the kernel serve a request, whose signs come in this order."""
        talk = self.session.talk
        talk.tell(message)
        if begins:
            talk.busy(message)
        await self.session.sleep(self.duration)
        for sign in ends.split():
            self.last_event = trio.current_time()
            getattr(talk, sign)(message)
            await self.session.sleep(0.2)
        # What did not come is concluded, as the life of a kernel does it.
        await self.session.sleep(GRACE)
        await self.session.sleep(GRACE)


events = st.sampled_from([name.removeprefix("_") for name in vars(Story) if name.startswith(EVENTS)])


pauses = st.sampled_from([0.0, 0.3, 30.0, HOUR - 61, HOUR - 60.1, HOUR - 30, HOUR - 0.1, HOUR + 1, 5 * HOUR])


@given(st.lists(st.tuples(pauses, events, pauses)))
@example([(0.0, "run_without_reply", HOUR - 60.1)])
@example([(0.0, "run_without_status", HOUR - 30)])
def test_whatever_happens_the_kernel_ends_in_time_and_not_before(told: list[tuple[float, str, float]]) -> None:
    """An hour after the last activity, or a minute after the last event where that is later: never with a client, never
    at work, and the watch does not sleep through it.
    """

    async def tell() -> tuple[float, float, float]:
        async with open_watched() as session:
            story = Story(session)
            await story.tell(told)
            if session.audience and not session.supervisor.culled:
                session.audience.clear()
                session.watch.note_client()
                story.last_event = trio.current_time()
            await session.sleep(3 * HOUR)
            (ended_at,) = session.culled_at
            return ended_at, max(0.0, session.conversation.active_at), story.last_event

    ended_at, active_at, last_event = trio.run(tell, clock=MockClock(autojump_threshold=0))
    due = active_at + HOUR

    assert due - 0.001 <= ended_at <= max(due, last_event + 60) + 3
