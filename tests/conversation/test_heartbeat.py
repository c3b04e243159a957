"""The heartbeat: when it is sent, when its silence counts, and when it does not."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.heartbeat import TOO_LATE, HeartbeatMonitor

LIMIT = 5.0
PAUSE = 2.0


@pytest.fixture
def monitor() -> HeartbeatMonitor:
    """Return a monitor of a kernel that answered before, and whose heartbeat was sent at 100 s."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.sent(97)
    monitor.answered(98)
    monitor.sent(100)
    return monitor


def judge(monitor: HeartbeatMonitor, now: float, at_rest_since: float | None = 0, is_stopped: bool = False) -> bool:
    """Look at the deadline as the loop does, by default of a kernel that runs nothing."""
    return monitor.is_overdue(now) and monitor.judge(now, at_rest_since=at_rest_since, is_stopped=is_stopped)


def test_first_heartbeat_is_due_at_once() -> None:
    """A kernel that is new is asked without delay."""
    assert HeartbeatMonitor(LIMIT, PAUSE).is_due(0)


def test_nothing_is_due_while_a_heartbeat_is_open(monitor: HeartbeatMonitor) -> None:
    """While an answer may still come in time nothing else is sent; the next look is at the deadline."""
    assert (monitor.is_due(104), monitor.next_action_at()) == (False, 105)


@pytest.mark.parametrize("sent", [100.0, 100.5, 101.99])
def test_answered_heartbeat_is_followed_by_another_at_the_next_tick(sent: float) -> None:
    """So that all kernels are asked in the same moment, whenever they were asked first."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.sent(sent)
    monitor.answered(sent + 0.001)

    assert (monitor.next_action_at(), monitor.is_due(101.999), monitor.is_due(102)) == (102, False, True)


def test_who_answered_the_last_time_is_not_listened_to_before_the_next_tick(monitor: HeartbeatMonitor) -> None:
    """Then its answer is here; if not, it is waited for."""
    assert [102, 102, None] == [monitor.rests_until(now) for now in (100, 101.9, 102)]


def test_who_has_not_answered_yet_is_listened_to() -> None:
    """A start waits for the first answer."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.sent(100)

    assert monitor.rests_until(100) is None


def test_who_did_not_answer_the_last_time_is_listened_to(monitor: HeartbeatMonitor) -> None:
    """That a kernel is back is told at once."""
    judge(monitor, 105)
    monitor.sent(106)

    assert monitor.rests_until(106) is None


def test_while_no_heartbeat_is_open_there_is_no_rest(monitor: HeartbeatMonitor) -> None:
    """The next is sent when it is due."""
    monitor.answered(100.25)

    assert monitor.rests_until(100.25) is None


def test_limit_that_is_shorter_than_the_pause_ends_the_rest() -> None:
    """What the kernel is allowed is looked at in time."""
    monitor = HeartbeatMonitor(1.0, PAUSE)
    monitor.sent(98)
    monitor.answered(98.5)
    monitor.sent(100)

    assert 101 == monitor.rests_until(100)


def test_silence_begins_at_the_limit_and_once(monitor: HeartbeatMonitor) -> None:
    """The kernel counts as silent when the limit is over, not before, and begins to only once."""
    assert [judge(monitor, now) for now in (104.99, 105, 105, 106)] == [False, True, False, False]


def test_silent_kernel_is_asked_again_after_the_pause(monitor: HeartbeatMonitor) -> None:
    """Heartbeats go on at the tick after each limit, and further silence begins nothing new."""
    judge(monitor, 105)
    due = monitor.next_action_at()
    monitor.sent(due)

    assert (due, monitor.next_action_at(), judge(monitor, 111), monitor.is_silent) == (106, 111, False, True)


def test_late_answer_ends_silence(monitor: HeartbeatMonitor) -> None:
    """An answer after the limit is an answer."""
    judge(monitor, 105)
    silent = monitor.is_silent
    monitor.answered(106)

    assert (silent, monitor.is_silent) == (True, False)


def test_answer_to_the_heartbeat_before_counts_for_the_open_one(monitor: HeartbeatMonitor) -> None:
    """A kernel that answers anything is there: its next heartbeat comes at the next tick, and no deadline is left."""
    judge(monitor, 105)
    monitor.sent(107)
    monitor.answered(107.5)

    assert (judge(monitor, 112), monitor.next_action_at()) == (False, 108)


@pytest.mark.parametrize(("phase", "expected"), [(0.0, 110.0), (3.0, 103.0), (9.5, 109.5)])
def test_kernel_can_have_moments_of_its_own(phase: float, expected: float) -> None:
    """With a phase its heartbeats go so much later than the ticks that all share, and as far apart as theirs."""
    monitor = HeartbeatMonitor(LIMIT, 10.0, phase)
    monitor.sent(100.5)
    monitor.answered(100.6)
    first = monitor.next_action_at()
    monitor.sent(first)
    monitor.answered(first + 0.1)

    assert (expected, expected + 10) == (first, monitor.next_action_at())


def test_who_answers_is_looked_at_before_a_pause_that_is_longer_than_the_limit() -> None:
    """What answered the last time is looked at when the limit is over, and not only when the next heartbeat goes."""
    monitor = HeartbeatMonitor(LIMIT, 10.0, 3.0)
    monitor.sent(93)
    monitor.answered(93.1)
    monitor.sent(103)

    assert 103 + LIMIT == monitor.rests_until(103.1)


def test_second_answer_does_not_delay_the_next_heartbeat(monitor: HeartbeatMonitor) -> None:
    """An answer too many, such as the late one to an old heartbeat, changes nothing."""
    monitor.answered(100.5)
    monitor.answered(102)

    assert monitor.next_action_at() == 102


def test_silence_can_begin_again(monitor: HeartbeatMonitor) -> None:
    """After it was back, the kernel can be silent anew."""
    judge(monitor, 105)
    monitor.answered(106)
    monitor.sent(107)

    assert judge(monitor, 112) is True


def test_machine_that_slept_does_not_blame_the_kernel(monitor: HeartbeatMonitor) -> None:
    """After a deadline was missed by far, by an hour of sleep, the kernel gets the whole limit anew."""
    woken = 100 + 3600

    assert (judge(monitor, woken), monitor.is_silent, monitor.next_action_at()) == (False, False, woken + LIMIT)
    assert judge(monitor, woken + LIMIT) is True


def test_kernel_that_runs_code_may_be_silent(monitor: HeartbeatMonitor) -> None:
    """A kernel with one thread answers nothing while code runs; it is asked again at the next tick."""
    assert judge(monitor, 105, at_rest_since=None) is False
    assert (monitor.is_silent, monitor.next_action_at(), monitor.is_due(106)) == (False, 106, True)


def test_kernel_that_is_stopped_is_silent_whatever_it_runs(monitor: HeartbeatMonitor) -> None:
    """A stopped process explains its silence, also in the middle of an execution or a moment after one."""
    assert judge(monitor, 105, at_rest_since=None, is_stopped=True) is True
    assert monitor.is_silent


def test_stopped_kernel_gets_no_more_time_after_an_execution(monitor: HeartbeatMonitor) -> None:
    """That it has been at rest for a moment only is no excuse for a stopped one."""
    assert judge(monitor, 105, at_rest_since=104, is_stopped=True) is True


def test_silence_counts_from_when_the_kernel_is_at_rest(monitor: HeartbeatMonitor) -> None:
    """A kernel that just ended an execution gets the whole limit from then on."""
    assert (judge(monitor, 105, at_rest_since=103), monitor.next_action_at()) == (False, 108)
    assert [judge(monitor, now, at_rest_since=103) for now in (107.9, 108)] == [False, True]


def test_kernel_at_rest_for_as_long_as_the_limit_is_silent(monitor: HeartbeatMonitor) -> None:
    """It could have answered for as long as it may take."""
    assert judge(monitor, 105, at_rest_since=100) is True


def test_execution_ends_a_silence(monitor: HeartbeatMonitor) -> None:
    """A kernel that was silent and now runs something is not told to be silent any more, and may be so again."""
    judge(monitor, 105)
    monitor.sent(107)
    executing = judge(monitor, 112, at_rest_since=None)
    silent = monitor.is_silent
    monitor.sent(114)

    assert (executing, silent, judge(monitor, 119)) == (False, False, True)


def test_kernel_that_never_answered_is_not_silent() -> None:
    """A kernel without a heartbeat can be used all the same; only if it is stopped something is wrong."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.sent(100)

    assert (judge(monitor, 105), monitor.was_answered, monitor.is_silent) == (False, False, False)

    monitor.sent(107)

    assert judge(monitor, 112, is_stopped=True) is True


def test_answer_is_remembered() -> None:
    """From the first answer on silence says something."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.sent(100)
    monitor.answered(101)

    assert monitor.was_answered


def test_answer_to_nothing_leaves_the_first_heartbeat_due() -> None:
    """An answer that nobody asked for makes no pause."""
    monitor = HeartbeatMonitor(LIMIT, PAUSE)
    monitor.answered(1)

    assert monitor.is_due(1)


def test_look_that_is_a_little_late_counts(monitor: HeartbeatMonitor) -> None:
    """A busy loop looks late by a moment; that does not excuse the kernel."""
    assert judge(monitor, 105 + TOO_LATE) is True


def test_sleep_during_the_pause_is_followed_by_a_heartbeat(monitor: HeartbeatMonitor) -> None:
    """A machine that slept between two heartbeats sends the next, and counts from there."""
    monitor.answered(100.1)
    woken = 100 + 3600

    assert (judge(monitor, woken), monitor.is_due(woken)) == (False, True)


def seconds(least: float, most: float) -> st.SearchStrategy[float]:
    """Return times in eighths of a second, whose sums are exact: what is tested is not the rounding."""
    return st.integers(int(least * 8), int(most * 8)).map(lambda eighths: eighths / 8)


class HeartbeatMachine(RuleBasedStateMachine):
    """The loop that uses the monitor, on a clock that jumps, with a kernel that works and answers when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.monitor = HeartbeatMonitor(LIMIT, PAUSE)
        self.now = 0.0
        self.open_for = 0.0
        """For how many waking seconds a heartbeat is unanswered; sleep does not count."""
        self.waits_for_answer = self.has_answered = False
        self.silent = False
        self.last_sent = float("-inf")
        self.at_rest_since: float | None = 0.0
        self.is_stopped = False

    def look(self) -> None:
        """Do what the loop does when its wait ends."""
        before = self.silent
        if self.monitor.is_overdue(self.now):
            at_rest_since, is_stopped = self.at_rest_since, self.is_stopped
            begins = self.monitor.judge(self.now, at_rest_since=at_rest_since, is_stopped=is_stopped)
            self.silent = self.monitor.is_silent

            assert begins == (self.silent and not before)
            if begins:
                assert self.waits_for_answer
                assert self.open_for >= LIMIT
                assert is_stopped or self.has_answered
                assert is_stopped or (at_rest_since is not None and self.now - at_rest_since >= LIMIT)
        if self.monitor.is_due(self.now):
            assert max(self.last_sent, self.now - PAUSE) // PAUSE < self.now // PAUSE

            self.monitor.sent(self.now)
            self.last_sent = self.now
            self.open_for, self.waits_for_answer = 0.0, True

    @rule()
    def wait(self) -> None:
        """The loop wakes up when it wants to."""
        before = self.now
        self.now = max(self.now, self.monitor.next_action_at())
        self.open_for += self.now - before

        assert self.now - before <= max(LIMIT, PAUSE)

        self.look()

    @rule(late=seconds(0, TOO_LATE))
    def wake_up_late(self, late: float) -> None:
        """Something else kept the loop busy for a moment."""
        before = self.now
        self.now = max(self.now, self.monitor.next_action_at()) + late
        self.open_for += self.now - before
        self.look()

    @rule(asleep=seconds(LIMIT + PAUSE + TOO_LATE + 1, 100_000))
    def sleep(self, asleep: float) -> None:
        """The machine sleeps: longer than all deadlines, and no part of it is the kernel's fault."""
        self.now += asleep
        before = self.silent
        self.look()

        assert self.silent == before

    @rule()
    def begin_or_end_an_execution(self) -> None:
        """The kernel is at work or at rest."""
        self.at_rest_since = self.now if self.at_rest_since is None else None

    @rule()
    def stop_or_continue(self) -> None:
        """Somebody stops the process, or lets it go on."""
        self.is_stopped = not self.is_stopped

    @precondition(lambda self: self.last_sent >= 0)
    @rule(after=seconds(0, 1))
    def answer(self, after: float) -> None:
        """The kernel answers, in time, late, or twice; before the loop looks at the deadline."""
        self.now += after
        self.monitor.answered(self.now)
        self.silent, self.waits_for_answer, self.has_answered = False, False, True

    @invariant()
    def agrees_on_silence(self) -> None:
        """Silence begins and ends in turn, as it was told."""
        assert (self.monitor.is_silent, self.monitor.was_answered) == (self.silent, self.has_answered)


TestHeartbeatMachine = HeartbeatMachine.TestCase
