"""The execution queue: one execution at a time, none lost, none sent twice, none held up by an idle that is missing."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.activity import GRACE
from kallichore.conversation.execution_queue import ExecutionQueue


@pytest.fixture
def queue() -> ExecutionQueue[str]:
    """Return a queue in which `a` runs since 1 s, and `b` and `c` wait."""
    queue = ExecutionQueue[str]()
    for msg_id in "abc":
        queue.submit(msg_id, msg_id.upper(), 1)
    return queue


def end(queue: ExecutionQueue[str], msg_id: str, now: float) -> str | None:
    """Give a queue both signs of an execution's end, and return what is released."""
    queue.on_reply(msg_id, now)
    queue.on_idle(msg_id, now)
    return queue.proceed(now)


def test_first_execution_is_sent_at_once() -> None:
    """With nothing active, an execution becomes active and is to be sent."""
    queue = ExecutionQueue[str]()

    assert (queue.submit("a", "A", 1), queue.active, queue.active_id, queue.active_since) == (True, "A", "a", 1)
    assert (queue.pending, len(queue)) == ((), 0)


def test_second_execution_waits(queue: ExecutionQueue[str]) -> None:
    """Behind an active execution others wait, in their order; the active one does not count."""
    assert (queue.submit("d", "D", 2), queue.active, queue.pending, len(queue)) == (False, "A", ("B", "C", "D"), 3)


def test_idle_of_the_active_execution_releases_the_next(queue: ExecutionQueue[str]) -> None:
    """When the kernel has answered and is done with the active execution, the next is to be sent."""
    queue.on_reply("a", 2)
    queue.on_idle("a", 2)
    before = (queue.active, queue.pending)

    assert before == ("A", ("B", "C"))
    assert (queue.proceed(2), queue.active, queue.active_id, queue.pending) == ("B", "B", "b", ("C",))
    assert (queue.look_at, queue.is_replied) == (None, False)


def test_signs_of_the_end_come_in_either_order(queue: ExecutionQueue[str]) -> None:
    """The reply may be behind the idle, over another socket: then it is the reply that releases."""
    queue.on_idle("a", 2)
    alone = (queue.proceed(2), queue.active, queue.is_replied)
    queue.on_reply("a", 2.25)

    assert alone == (None, "A", False)
    assert (queue.is_replied, queue.proceed(2.25), queue.active_since) == (True, "B", 2.25)


def test_execution_is_active_from_when_it_is_released(queue: ExecutionQueue[str]) -> None:
    """The time for which the kernel has an execution does not count its time in the queue."""
    before = queue.active_since
    queue.submit("d", "D", 2)
    end(queue, "a", 3)

    assert (before, queue.active_since) == (1, 3)


def test_idle_of_another_request_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """The end of a control request, such as an interrupt, says nothing about the execution."""
    queue.on_idle("interrupt", 2)

    assert (queue.look_at, queue.proceed(1e9), queue.active) == (None, None, "A")


def test_reply_alone_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply comes before the kernel's idle; until that, the kernel may still have output to send."""
    assert (queue.on_reply("a", 2), queue.proceed(2), queue.active, queue.pending) == (True, None, "A", ("B", "C"))


@pytest.mark.parametrize("sign", ["reply", "idle"])
def test_time_releases_where_one_sign_comes_alone(queue: ExecutionQueue[str], sign: str) -> None:
    """Some kernels send no idle at all, or no reply: what has one of the two is over a moment later."""
    if sign == "reply":
        queue.on_reply("a", 2)
    else:
        queue.on_idle("a", 2)
    due = queue.look_at

    assert due == 2 + GRACE
    assert [queue.proceed(now) for now in (due - 0.01, due)] == [None, "B"]
    assert (queue.active, queue.active_since, queue.look_at) == ("B", due, None)


@pytest.mark.parametrize("sign", ["reply", "idle"])
def test_same_sign_again_does_not_put_off_the_release(queue: ExecutionQueue[str], sign: str) -> None:
    """A kernel that repeats itself has been done since the first time; nor is the same sign twice both."""
    for now in (2, 2.25):
        if sign == "reply":
            assert queue.on_reply("a", now) is True
        else:
            queue.on_idle("a", now)

    assert (queue.look_at, queue.proceed(2.25)) == (2 + GRACE, None)


def test_nothing_is_released_without_a_sign_of_the_end(queue: ExecutionQueue[str]) -> None:
    """An execution may take as long as it likes."""
    assert (queue.look_at, queue.proceed(1e9), queue.active) == (None, None, "A")


def test_any_idle_releases_after_the_reply(queue: ExecutionQueue[str]) -> None:
    """Once its reply is there, an execution whose own idle was lost does not hold up the others."""
    queue.on_reply("a", 2)
    queue.on_idle("comm", 2)

    assert queue.proceed(2) == "B"


def test_idle_of_another_before_the_reply_is_no_sign(queue: ExecutionQueue[str]) -> None:
    """It was not meant for the execution, which may have only answered."""
    queue.on_idle("comm", 2)
    queue.on_reply("a", 3)

    assert (queue.proceed(3), queue.look_at) == (None, 3 + GRACE)


def test_reply_of_another_request_counts_for_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply to something else does not make the active execution a finished one."""
    assert (queue.on_reply("c", 2), queue.is_replied, queue.look_at) == (False, False, None)

    queue.on_idle("other", 2)

    assert (queue.proceed(2), queue.active) == (None, "A")


@pytest.mark.parametrize("late", ["reply", "idle"])
def test_late_word_about_a_finished_execution_releases_nothing(queue: ExecutionQueue[str], late: str) -> None:
    """The second reply and the second idle of an execution that is over do not end the one after it."""
    end(queue, "a", 2)
    if late == "reply":
        assert queue.on_reply("a", 3) is False
    else:
        queue.on_idle("a", 3)

    assert (queue.look_at, queue.proceed(10), queue.active) == (None, None, "B")


def test_reply_of_the_one_before_does_not_count_for_the_next(queue: ExecutionQueue[str]) -> None:
    """An idle of another request releases only after the reply of what is active now."""
    end(queue, "a", 2)
    queue.on_idle("other", 3)

    assert (queue.proceed(10), queue.active, queue.look_at, queue.is_replied) == (None, "B", None, False)


def test_idle_of_the_one_before_does_not_count_for_the_next(queue: ExecutionQueue[str]) -> None:
    """The reply of what is active now waits for an idle of its own."""
    end(queue, "a", 2)
    queue.on_reply("b", 3)

    assert (queue.proceed(3), queue.active, queue.look_at) == (None, "B", 3 + GRACE)


def test_end_of_the_last_leaves_nothing_active() -> None:
    """With nothing waiting, the end of the active execution makes room for the next to be sent at once."""
    queue = ExecutionQueue[str]()
    queue.submit("a", "A", 1)

    assert (end(queue, "a", 2), queue.active, queue.active_id, queue.active_since) == (None, None, None, None)
    assert (queue.look_at, queue.is_replied) == (None, False)
    assert queue.submit("b", "B", 3) is True


def test_idle_of_an_idle_queue_is_nothing() -> None:
    """A kernel that is idle without an execution releases nothing."""
    queue = ExecutionQueue[str]()
    is_active = queue.on_reply("a", 1)
    queue.on_idle("a", 1)

    assert (is_active, queue.look_at, queue.proceed(9), queue.active) == (False, None, None, None)


def test_same_msg_id_twice_is_two_executions() -> None:
    """Two executions with one id run one after the other."""
    queue = ExecutionQueue[str]()

    assert [queue.submit("a", "first", 1), queue.submit("a", "second", 1)] == [True, False]
    assert [end(queue, "a", 2), end(queue, "a", 2), queue.active] == ["second", None, None]


def test_clear_pending_leaves_the_active_execution(queue: ExecutionQueue[str]) -> None:
    """An interrupt drops what waits; what runs still runs, and holds up what comes after it."""
    assert (queue.clear_pending(), queue.active, len(queue)) == (("B", "C"), "A", 0)
    assert (queue.submit("d", "D", 2), end(queue, "a", 2)) == (False, "D")


def test_clear_pending_between_the_signs_leaves_nothing_to_release(queue: ExecutionQueue[str]) -> None:
    """A failing reply that comes behind its idle still keeps what waits from running."""
    queue.on_idle("a", 2)
    queue.on_reply("a", 2)
    queue.clear_pending()

    assert (queue.proceed(2), queue.active, queue.look_at) == (None, None, None)


def test_clear_forgets_everything(queue: ExecutionQueue[str]) -> None:
    """When the kernel ends nothing is active and nothing waits; the next execution is sent at once."""
    queue.on_reply("a", 2)

    assert queue.clear() == ("B", "C")
    assert (queue.active, queue.active_since, queue.look_at, queue.is_replied) == (None, None, None, False)
    assert (queue.pending, queue.submit("d", "D", 3)) == ((), True)

    queue.on_idle("a", 4)

    assert (queue.proceed(9), queue.active) == (None, "D")


def test_withdrawn_execution_never_runs(queue: ExecutionQueue[str]) -> None:
    """What is withdrawn while it waits is skipped."""
    assert (queue.withdraw("b"), end(queue, "a", 2)) == ("B", "C")


def test_last_that_waits_can_be_withdrawn(queue: ExecutionQueue[str]) -> None:
    """Wherever it stands, the others keep their order."""
    assert (queue.withdraw("c"), queue.pending) == ("C", ("B",))


@pytest.mark.parametrize("msg_id", ["a", "unknown"])
def test_only_what_waits_can_be_withdrawn(queue: ExecutionQueue[str], msg_id: str) -> None:
    """The active execution and one that is not there cannot be withdrawn."""
    assert (queue.withdraw(msg_id), queue.active, queue.pending) == (None, "A", ("B", "C"))


class QueueMachine(RuleBasedStateMachine):
    """A kernel that answers in any order, says things twice, and talks about other requests in between."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ExecutionQueue[int]()
        self.submitted = 0
        self.expected: list[int] = []
        """What is still to be sent, in order."""
        self.running: int | None = None
        """What the kernel has, and is not over."""
        self.replied = self.idled = False
        """Which signs of its end have come."""
        self.half_over: float | None = None
        """When the first of them came."""
        self.over: list[int] = []
        self.now = 0.0

    def send(self, number: int) -> None:
        """Take an execution as the kernel does: it must be the next, and the only one."""
        assert (self.running, self.expected[0]) == (None, number)

        self.running = self.expected.pop(0)
        self.forget_signs()

    def forget_signs(self) -> None:
        """What runs now, if anything does, has not ended."""
        self.replied = self.idled = False
        self.half_over = None

    def note_sign(self) -> None:
        """From the first sign on, time releases."""
        if self.half_over is None:
            self.half_over = self.now

    def hear_idle(self, parent: int) -> None:
        """Let the kernel say idle: its own counts always, and that of another if the reply is there."""
        self.queue.on_idle(str(parent), self.now)
        if self.running is not None and (parent == self.running or self.replied):
            self.idled = True
            self.note_sign()

    @rule()
    def proceed(self) -> None:
        """What is over by both signs, or by one and time, releases the next; nothing else does."""
        is_late = self.half_over is not None and self.now >= self.half_over + GRACE
        releases = (self.replied and self.idled) or is_late
        if releases and self.running is not None:
            self.over.append(self.running)
            self.running = None
            self.forget_signs()
        released = self.queue.proceed(self.now)

        assert (released is not None) == (releases and bool(self.expected))

        if released is not None:
            self.send(released)

    @rule(seconds=st.sampled_from([GRACE / 2, GRACE, 2 * GRACE]))
    def wait(self, seconds: float) -> None:
        """Time goes by; it alone changes nothing."""
        self.now += seconds

    @rule()
    def submit(self) -> None:
        """A client executes something."""
        number = self.submitted
        self.submitted += 1
        self.expected.append(number)
        idle = self.running is None

        assert self.queue.submit(str(number), number, self.now) == idle

        if idle:
            self.send(number)

    @precondition(lambda self: self.running is not None)
    @rule()
    def reply(self) -> None:
        """The kernel answers what it has, perhaps again."""
        assert self.queue.on_reply(str(self.running), self.now) is True

        self.replied = True
        self.note_sign()

    @precondition(lambda self: self.running is not None)
    @rule()
    def become_idle(self) -> None:
        """The kernel is done with what it has, with or without having answered."""
        assert self.running is not None

        self.hear_idle(self.running)

    @rule()
    def become_idle_after_another_request(self) -> None:
        """The kernel is done with something else; that is a sign only for what was answered."""
        self.hear_idle(-1)

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def repeat_itself(self, data: st.DataObject) -> None:
        """The kernel says once more what it said about an execution that is over."""
        number = data.draw(st.sampled_from(self.over))

        assert self.queue.on_reply(str(number), self.now) is False

        self.hear_idle(number)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client takes back what waits."""
        number = data.draw(st.sampled_from(self.expected))
        self.expected.remove(number)

        assert self.queue.withdraw(str(number)) == number

    @rule()
    def interrupt(self) -> None:
        """What waits is dropped."""
        assert list(self.queue.clear_pending()) == self.expected

        self.expected.clear()

    @rule()
    def exit(self) -> None:
        """The kernel is gone, and with it all there was."""
        assert list(self.queue.clear()) == self.expected

        self.expected.clear()
        self.running = None
        self.forget_signs()

    @invariant()
    def shows_what_runs_and_what_waits(self) -> None:
        """What the API reports is what the kernel has and what is to come, and nothing waits for nothing."""
        assert (self.queue.active, list(self.queue.pending), len(self.queue)) == (
            self.running,
            self.expected,
            len(self.expected),
        )
        assert self.running is not None or not self.expected
        assert self.queue.look_at == (None if self.half_over is None else self.half_over + GRACE)
        assert self.queue.is_replied == self.replied


TestQueueMachine = QueueMachine.TestCase
