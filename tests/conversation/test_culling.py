"""When a session that nobody uses ends its kernel: what holds it, when it is warned, when it is over."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.config import ServerConfig
from kallichore.conversation.activity import GRACE
from kallichore.conversation.culling import (
    NOTICE,
    OVERSLEPT,
    CullClock,
    CullPolicy,
    Step,
    Use,
    held_by,
    make_policy,
    reason,
    span,
    warning,
)
from kallichore.conversation.supervision import Phase
from kallichore.models.bodies import CullHold, NewSession

HOUR = 3600.0
IDLE = Use(Phase.RUNNING)
WARNED = HOUR - NOTICE
"""When a session of an hour's limit is warned, in seconds since it was last used."""

HOLDS = {
    CullHold.NO_KERNEL: Use(Phase.RESTING),
    CullHold.STARTING: Use(Phase.STARTING),
    CullHold.ENDING: Use(Phase.RUNNING, is_ending=True),
    CullHold.RUNNING: Use(Phase.RUNNING, is_at_work=True),
    CullHold.INPUT: Use(Phase.RUNNING, is_at_work=True, is_asking=True),
    CullHold.CLIENTS: Use(Phase.RUNNING, clients=1),
}


def clock(**policy: Any) -> CullClock:
    """Return the clock of a kernel that was ready at 0, with an hour's limit."""
    return CullClock(CullPolicy(HOUR, **policy), 0.0)


# What was asked for


@pytest.mark.parametrize(
    ("server", "session", "policy"),
    [
        ({}, {}, None),
        ({"cull_connected": True, "cull_busy": True}, {}, None),
        ({"cull_idle_after": 0}, {}, None),
        ({"cull_idle_after": 60}, {}, CullPolicy(60)),
        ({"cull_idle_after": 60, "cull_busy": True}, {}, CullPolicy(60, busy=True)),
        ({"cull_idle_after": 60}, {"cull_idle_after": 0}, None),
        ({}, {"cull_idle_after": 5}, CullPolicy(5)),
        ({"cull_idle_after": 60}, {"cull_idle_after": 5, "cull_connected": True}, CullPolicy(5, connected=True)),
        ({"cull_idle_after": 60, "cull_connected": True}, {"cull_connected": False}, CullPolicy(60)),
        ({"cull_idle_after": 60, "cull_busy": True}, {"cull_busy": False}, CullPolicy(60)),
    ],
)
def test_session_says_or_the_server(server: dict[str, Any], session: dict[str, Any], policy: CullPolicy | None) -> None:
    """Each of the three settings is the session's own where it has one; no limit, and 0, are never."""
    assert policy == make_policy(NewSession(session_id="s", argv=(), **session), ServerConfig(**server))


@pytest.mark.parametrize(
    ("idle_after", "notice", "lead"), [(HOUR, 60, HOUR - 60), (120, 60, 60), (119, 59.5, 59.5), (2, 1, 1)]
)
def test_warning_comes_a_minute_before_or_halfway(idle_after: float, notice: float, lead: float) -> None:
    """Who has less than two minutes is warned when half of them are over."""
    policy = CullPolicy(idle_after)

    assert (notice, lead) == (policy.notice, policy.lead)


# What holds


@pytest.mark.parametrize("phase", Phase)
def test_only_a_kernel_that_runs_can_be_idle(phase: Phase) -> None:
    """One that starts, restarts or ends already is left alone, and so is a session without one."""
    expected = {
        Phase.RESTING: CullHold.NO_KERNEL,
        Phase.STARTING: CullHold.STARTING,
        Phase.RUNNING: None,
        Phase.RESTARTING: CullHold.STARTING,
        Phase.ENDING: CullHold.ENDING,
        Phase.CLOSED: CullHold.NO_KERNEL,
    }

    assert expected[phase] is held_by(CullPolicy(HOUR), Use(phase))


@pytest.mark.parametrize(("hold", "use"), HOLDS.items())
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("busy", [True, False])
def test_what_holds_is_told_unless_it_is_not_to_count(hold: CullHold, use: Use, connected: bool, busy: bool) -> None:
    """``connected`` passes over clients, ``busy`` over what runs, waits or asks; nothing else is passed over."""
    ignored = {CullHold.CLIENTS: connected, CullHold.RUNNING: busy, CullHold.INPUT: busy}.get(hold, False)
    policy = CullPolicy(HOUR, connected=connected, busy=busy)

    assert (None if ignored else hold) is held_by(policy, use)


@pytest.mark.parametrize("use", HOLDS.values(), ids=list(HOLDS))
def test_held_session_has_no_deadline(use: Use) -> None:
    """However long it was not used, nothing is done and nothing is due."""
    watched = clock()

    assert (Step.NOTHING, None) == (watched.look(use, 100 * HOUR), watched.deadline(use, 100 * HOUR))


# Time


def test_idle_session_is_warned_and_ended_at_its_times() -> None:
    """Each look says when the next is due, and nothing happens in between."""
    watched = clock()
    steps = [(now, watched.look(IDLE, now), watched.look_at) for now in (0, WARNED - 1, WARNED, HOUR - 1, HOUR)]

    assert steps == [
        (0, Step.NOTHING, WARNED),
        (WARNED - 1, Step.NOTHING, WARNED),
        (WARNED, Step.WARN, HOUR),
        (HOUR - 1, Step.NOTHING, HOUR),
        (HOUR, Step.END, None),
    ]


def test_time_counts_from_the_last_activity_or_from_when_the_kernel_was_ready() -> None:
    """What was run in an earlier kernel is not older than this one."""
    watched = CullClock(CullPolicy(HOUR), ready_at=100)
    deadlines = [watched.deadline(attrs.evolve(IDLE, active_at=at), 100) for at in (float("-inf"), 50, 150)]

    assert deadlines == [100 + HOUR, 100 + HOUR, 150 + HOUR]


def test_activity_after_the_warning_moves_the_deadline_and_the_next_warning() -> None:
    """Somebody read it, and runs something."""
    watched = clock()
    watched.look(IDLE, WARNED)
    used = attrs.evolve(IDLE, active_at=HOUR - 10)
    after = watched.look(used, HOUR), watched.look_at, watched.deadline(used, HOUR)
    again = watched.look(used, HOUR - 10 + WARNED)

    assert after == (Step.NOTHING, HOUR - 10 + WARNED, HOUR - 10 + HOUR)
    assert again is Step.WARN


def test_client_that_leaves_long_after_the_deadline_has_the_notice_to_come_back() -> None:
    """A connection that is lost after hours of reading is no reason to end the kernel at once."""
    watched, with_client = clock(), HOLDS[CullHold.CLIENTS]
    watched.look(with_client, 0)
    left = watched.look(IDLE, 5 * HOUR), watched.look_at
    back = watched.look(with_client, 5 * HOUR + 30), watched.look_at
    left_again = watched.look(IDLE, 9 * HOUR), watched.look_at

    assert left == (Step.WARN, 5 * HOUR + NOTICE)
    assert back == (Step.NOTHING, None)
    assert left_again == (Step.WARN, 9 * HOUR + NOTICE)


@pytest.mark.parametrize(("late", "step"), [(OVERSLEPT, Step.END), (OVERSLEPT + 1, Step.WARN)])
def test_warning_comes_again_after_the_machine_slept(late: float, step: Step) -> None:
    """Nobody could read it, nor do anything about it."""
    watched = clock()
    watched.look(IDLE, WARNED)

    assert step is watched.look(IDLE, HOUR + late)


def test_question_about_the_kernel_does_not_put_off_the_end() -> None:
    """It is answered in a moment of work, which is no activity: the warning goes on."""
    watched = clock()
    watched.look(IDLE, WARNED)
    during = watched.look(HOLDS[CullHold.RUNNING], HOUR), watched.look_at

    assert during == (Step.NOTHING, None)
    assert Step.END is watched.look(IDLE, HOUR + 1)


def test_question_before_the_end_does_not_bring_it_forward() -> None:
    """Once it is answered, the kernel has what is left of its time."""
    watched = clock()
    watched.look(IDLE, WARNED)
    watched.look(HOLDS[CullHold.RUNNING], HOUR - 20)
    after = watched.look(IDLE, HOUR - 10), watched.look_at

    assert after == (Step.NOTHING, HOUR)


def test_work_that_counts_not_is_ended_by_the_time_since_it_was_asked_for() -> None:
    """With ``busy``, what still runs an hour after anybody did anything is ended."""
    watched, at_work = clock(busy=True), attrs.evolve(HOLDS[CullHold.INPUT], active_at=10)
    steps = [watched.look(at_work, now) for now in (10, 10 + WARNED, 10 + HOUR)]

    assert steps == [Step.NOTHING, Step.WARN, Step.END]


@pytest.mark.parametrize(
    ("use", "look_at"),
    [
        (HOLDS[CullHold.RUNNING], None),
        (attrs.evolve(HOLDS[CullHold.RUNNING], look_at=50), 50 + GRACE),
        (attrs.evolve(HOLDS[CullHold.RUNNING], look_at=1), 7 + GRACE),
        (HOLDS[CullHold.INPUT], None),
        (attrs.evolve(HOLDS[CullHold.INPUT], is_at_work=False), 7 + WARNED),
        (HOLDS[CullHold.CLIENTS], None),
        (HOLDS[CullHold.STARTING], None),
        (HOLDS[CullHold.NO_KERNEL], None),
    ],
)
def test_what_holds_is_waited_for_where_its_end_will_be_told(use: Use, look_at: float | None) -> None:
    """Then nothing is looked at in the meantime. Work that is over in part settles in time, and an answer to a question
    outside of any work is followed by a whole period.
    """
    watched = clock()
    watched.look(use, 7)

    assert watched.look_at == look_at


def test_end_of_work_is_looked_at_when_something_can_be_due() -> None:
    """Not at once, as the end was activity most of the time."""
    watched = CullClock(CullPolicy(HOUR), ready_at=100)

    assert (500 + WARNED, 100 + WARNED) == (watched.rest_at(500), watched.rest_at(float("-inf")))


uses = st.builds(
    Use,
    phase=st.sampled_from(Phase),
    is_ending=st.booleans(),
    is_at_work=st.booleans(),
    is_asking=st.booleans(),
    clients=st.integers(0, 2),
    look_at=st.none(),
)
moments = st.tuples(st.floats(0, 500), st.booleans(), uses | st.just(IDLE))


@given(
    st.builds(CullPolicy, st.floats(0.1, 1000), st.booleans(), st.booleans()),
    st.lists(moments, min_size=1, max_size=40),
)
def test_nobody_is_ended_early_held_or_without_a_warning(
    policy: CullPolicy, story: list[tuple[float, bool, Use]]
) -> None:
    """Whatever happens when: at the end nothing holds, the limit is over since the last activity, and a warning came
    as long before as promised, and behind that activity. The next look is never in the past.
    """
    watched, now, active_at = CullClock(policy, 0.0), 0.0, 0.0
    warned: float | None = None
    for pause, is_active, state in story:
        now += pause
        if is_active:
            active_at, warned = now, None
        use = attrs.evolve(state, active_at=active_at)
        deadline, hold = watched.deadline(use, now), held_by(policy, use)
        step = watched.look(use, now)

        assert (deadline is None) == (hold is not None)
        assert watched.look_at is None or watched.look_at >= now
        if step is Step.WARN:
            assert hold is None
            assert now >= active_at + policy.lead
            warned = now
        elif step is Step.END:
            assert hold is None
            assert deadline is not None
            assert deadline <= now
            assert now >= active_at + policy.idle_after
            assert warned is not None
            assert now >= warned + policy.notice
            return


@given(st.builds(CullPolicy, st.floats(0.001, 1e9), st.booleans(), st.booleans()), st.floats(0, 1e9))
def test_three_looks_end_an_idle_session(policy: CullPolicy, ready_at: float) -> None:
    """One when it is ready, and one at each of the times that the look before says: rounding makes no circles."""
    watched, now, steps = CullClock(policy, ready_at), ready_at, []
    while (not steps or steps[-1] is not Step.END) and len(steps) < 5:
        steps.append(watched.look(IDLE, now))
        now = max(now, watched.look_at or now)

    assert [step for step in steps if step is not Step.NOTHING] == [Step.WARN, Step.END]


# Words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (0.25, "0.25 seconds"),
        (2.01, "2 seconds"),
        (59.9, "1 minute"),
        (1, "1 second"),
        (1.2, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3600.0002, "1 hour"),
        (5400, "1.5 hours"),
        (86399, "24 hours"),
        (86400, "1 day"),
        (2 * 86400, "2 days"),
    ],
)
def test_duration_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    """As people say it."""
    assert text == span(seconds)


def test_warning_and_reason_say_what_was_and_what_will_be() -> None:
    """Of a kernel that is at work it is not said that it is idle."""
    at_work = HOLDS[CullHold.RUNNING]

    assert (
        "This session has been idle for 59 minutes. Its kernel will be ended in 1 minute, at 12:00:00 UTC, "
        "unless code is run or input is given"
    ) == warning(IDLE, WARNED, NOTICE, "12:00:00 UTC")
    assert warning(at_work, WARNED, NOTICE, "noon").startswith("This session has not been used for 59 minutes.")
    assert "It was ended because it had been idle for 1 hour" == reason(IDLE, HOUR)
    assert "It was ended because nobody had used it for 1 hour, whatever it was at (cull_busy)" == reason(at_work, HOUR)
