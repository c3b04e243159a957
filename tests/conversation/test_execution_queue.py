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


def test_first_execution_is_sent_at_once() -> None:
    """With nothing active, an execution becomes active and is to be sent."""
    queue = ExecutionQueue[str]()

    assert (queue.submit("a", "A", 1), queue.active, queue.active_id, queue.active_since) == (True, "A", "a", 1)
    assert (queue.pending, len(queue)) == ((), 0)


def test_second_execution_waits(queue: ExecutionQueue[str]) -> None:
    """Behind an active execution others wait, in their order; the active one does not count."""
    assert (queue.submit("d", "D", 2), queue.active, queue.pending, len(queue)) == (False, "A", ("B", "C", "D"), 3)


def test_idle_of_the_active_execution_releases_the_next(queue: ExecutionQueue[str]) -> None:
    """When the kernel is done with the active execution, the next is to be sent."""
    assert (queue.on_idle("a", 2), queue.active, queue.active_id, queue.pending) == ("B", "B", "b", ("C",))


def test_execution_is_active_from_when_it_is_released(queue: ExecutionQueue[str]) -> None:
    """The time for which the kernel has an execution does not count its time in the queue."""
    before = queue.active_since
    queue.submit("d", "D", 2)
    queue.on_idle("a", 3)

    assert (before, queue.active_since) == (1, 3)


def test_idle_of_another_request_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """The end of a control request, such as an interrupt, says nothing about the execution."""
    assert (queue.on_idle("interrupt", 2), queue.active) == (None, "A")


def test_reply_alone_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply comes before the kernel's idle; until that, the kernel may still have output to send."""
    assert (queue.on_reply("a", 2), queue.active, queue.pending) == (True, "A", ("B", "C"))


def test_time_releases_where_no_idle_follows_the_reply(queue: ExecutionQueue[str]) -> None:
    """Some kernels send no idle at all: what they have answered they are done with, a moment later."""
    queue.on_reply("a", 2)
    due = queue.look_at

    assert due == 2 + GRACE
    assert [queue.expire(now) for now in (due - 0.01, due)] == [None, "B"]
    assert (queue.active, queue.active_since, queue.look_at) == ("B", due, None)


def test_second_reply_does_not_put_off_the_release(queue: ExecutionQueue[str]) -> None:
    """A kernel that answers twice has been done since its first answer."""
    queue.on_reply("a", 2)

    assert (queue.on_reply("a", 2.25), queue.look_at) == (True, 2 + GRACE)


def test_nothing_expires_without_a_reply(queue: ExecutionQueue[str]) -> None:
    """An execution may take as long as it likes."""
    assert (queue.look_at, queue.expire(1e9), queue.active) == (None, None, "A")


def test_any_idle_releases_after_the_reply(queue: ExecutionQueue[str]) -> None:
    """Once its reply is there, an execution whose own idle was lost does not hold up the others."""
    queue.on_reply("a", 2)

    assert queue.on_idle("comm", 2) == "B"


def test_reply_of_another_request_counts_for_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply to something else does not make the active execution a finished one."""
    assert (queue.on_reply("c", 2), queue.look_at) == (False, None)
    assert (queue.on_idle("other", 2), queue.active) == (None, "A")


@pytest.mark.parametrize("late", ["reply", "idle"])
def test_late_word_about_a_finished_execution_releases_nothing(queue: ExecutionQueue[str], late: str) -> None:
    """The second reply and the second idle of an execution that is over do not end the one after it."""
    queue.on_reply("a", 2)
    queue.on_idle("a", 2)

    assert late == "idle" or queue.on_reply("a", 3) is False
    assert (queue.on_idle("a", 3), queue.expire(10), queue.active) == (None, None, "B")


def test_reply_of_the_one_before_does_not_count_for_the_next(queue: ExecutionQueue[str]) -> None:
    """An idle of another request releases only after the reply of what is active now."""
    queue.on_reply("a", 2)
    queue.on_idle("a", 2)

    assert (queue.on_idle("other", 3), queue.active, queue.look_at) == (None, "B", None)


def test_last_idle_leaves_nothing_active() -> None:
    """With nothing waiting, the end of the active execution makes room for the next to be sent at once."""
    queue = ExecutionQueue[str]()
    queue.submit("a", "A", 1)

    assert (queue.on_idle("a", 2), queue.active, queue.active_id, queue.active_since) == (None, None, None, None)
    assert queue.submit("b", "B", 3) is True


def test_idle_of_an_idle_queue_is_nothing() -> None:
    """A kernel that is idle without an execution releases nothing."""
    queue = ExecutionQueue[str]()

    assert (queue.on_reply("a", 1), queue.on_idle("a", 1), queue.expire(9), queue.active) == (False, None, None, None)


def test_same_msg_id_twice_is_two_executions() -> None:
    """Two executions with one id run one after the other."""
    queue = ExecutionQueue[str]()

    assert [queue.submit("a", "first", 1), queue.submit("a", "second", 1)] == [True, False]
    assert [queue.on_idle("a", 2), queue.on_idle("a", 2), queue.active] == ["second", None, None]


def test_clear_pending_leaves_the_active_execution(queue: ExecutionQueue[str]) -> None:
    """An interrupt drops what waits; what runs still runs, and holds up what comes after it."""
    assert (queue.clear_pending(), queue.active, len(queue)) == (("B", "C"), "A", 0)
    assert (queue.submit("d", "D", 2), queue.on_idle("a", 2)) == (False, "D")


def test_clear_forgets_everything(queue: ExecutionQueue[str]) -> None:
    """When the kernel ends nothing is active and nothing waits; the next execution is sent at once."""
    queue.on_reply("a", 2)

    assert queue.clear() == ("B", "C")
    assert (queue.active, queue.active_since, queue.look_at) == (None, None, None)
    assert (queue.pending, queue.submit("d", "D", 3)) == ((), True)
    assert (queue.on_idle("a", 4), queue.active) == (None, "D")


def test_withdrawn_execution_never_runs(queue: ExecutionQueue[str]) -> None:
    """What is withdrawn while it waits is skipped."""
    assert (queue.withdraw("b"), queue.on_idle("a", 2)) == ("B", "C")


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
        """What the kernel has, and has neither answered nor ended."""
        self.answered: float | None = None
        """When it answered."""
        self.over: list[int] = []
        self.now = 0.0

    def send(self, number: int) -> None:
        """Take an execution as the kernel does: it must be the next, and the only one."""
        assert (self.running, self.expected[0]) == (None, number)

        self.running = self.expected.pop(0)
        self.answered = None

    def end(self, released: int | None, *, releases: bool) -> None:
        """Hold what was released against what had to be, and send it."""
        if releases and self.running is not None:
            self.over.append(self.running)
            self.running = self.answered = None

        assert (released is not None) == (releases and bool(self.expected))

        if released is not None:
            self.send(released)

    def hear_idle(self, parent: int, *, releases: bool) -> None:
        """Let the kernel say idle, and send what that releases."""
        self.end(self.queue.on_idle(str(parent), self.now), releases=releases)

    @rule(seconds=st.sampled_from([GRACE / 2, GRACE, 2 * GRACE]))
    def wait(self, seconds: float) -> None:
        """Time goes by; what was answered for long enough is over."""
        self.now += seconds
        due = self.answered is not None and self.now >= self.answered + GRACE
        self.end(self.queue.expire(self.now), releases=due)

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

        if self.answered is None:
            self.answered = self.now

    @precondition(lambda self: self.running is not None)
    @rule()
    def become_idle(self) -> None:
        """The kernel is done with what it has, with or without having answered."""
        assert self.running is not None

        self.hear_idle(self.running, releases=True)

    @rule()
    def become_idle_after_another_request(self) -> None:
        """The kernel is done with a control request; that releases only what was answered."""
        self.hear_idle(-1, releases=self.running is not None and self.answered is not None)

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def repeat_itself(self, data: st.DataObject) -> None:
        """The kernel says once more what it said about an execution that is over."""
        number = data.draw(st.sampled_from(self.over))

        assert self.queue.on_reply(str(number), self.now) is False

        self.hear_idle(number, releases=self.running is not None and self.answered is not None)

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
        self.running = self.answered = None

    @invariant()
    def shows_what_runs_and_what_waits(self) -> None:
        """What the API reports is what the kernel has and what is to come, and nothing waits for nothing."""
        assert (self.queue.active, list(self.queue.pending), len(self.queue)) == (
            self.running,
            self.expected,
            len(self.expected),
        )
        assert self.running is not None or not self.expected
        assert self.queue.look_at == (None if self.answered is None else self.answered + GRACE)


TestQueueMachine = QueueMachine.TestCase
