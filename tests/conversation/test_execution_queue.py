"""The execution queue: one execution at a time, none lost, none sent twice."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.execution_queue import ExecutionQueue


@pytest.fixture
def queue() -> ExecutionQueue[str]:
    """Return a queue in which `a` runs, and `b` and `c` wait."""
    queue = ExecutionQueue[str]()
    for msg_id in "abc":
        queue.submit(msg_id, msg_id.upper())
    return queue


def test_first_execution_is_sent_at_once() -> None:
    """With nothing active, an execution becomes active and is to be sent."""
    queue = ExecutionQueue[str]()

    assert (queue.submit("a", "A"), queue.active, queue.pending, len(queue)) == (True, "A", (), 0)


def test_second_execution_waits(queue: ExecutionQueue[str]) -> None:
    """Behind an active execution others wait, in their order; the active one does not count."""
    assert (queue.submit("d", "D"), queue.active, queue.pending, len(queue)) == (False, "A", ("B", "C", "D"), 3)


def test_idle_of_the_active_execution_releases_the_next(queue: ExecutionQueue[str]) -> None:
    """When the kernel is done with the active execution, the next is to be sent."""
    assert (queue.on_idle("a"), queue.active, queue.pending) == (("b", "B"), "B", ("C",))


def test_idle_without_a_parent_releases(queue: ExecutionQueue[str]) -> None:
    """An idle that does not say whose it is counts as the active execution's."""
    assert queue.on_idle(None) == ("b", "B")


def test_idle_of_another_request_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """The end of a control request, such as an interrupt, says nothing about the execution."""
    assert (queue.on_idle("interrupt"), queue.active) == (None, "A")


def test_reply_alone_releases_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply comes before the kernel's idle; until that, the kernel may still have output to send."""
    queue.on_reply("a")

    assert (queue.active, queue.pending) == ("A", ("B", "C"))


def test_any_idle_releases_after_the_reply(queue: ExecutionQueue[str]) -> None:
    """Once its reply is there, an execution whose own idle was lost does not hold up the others."""
    queue.on_reply("a")

    assert queue.on_idle("comm") == ("b", "B")


def test_reply_of_another_request_counts_for_nothing(queue: ExecutionQueue[str]) -> None:
    """A reply to something else, or to nobody, does not make the active execution a finished one."""
    queue.on_reply("c")
    queue.on_reply(None)

    assert (queue.on_idle("other"), queue.active) == (None, "A")


@pytest.mark.parametrize("late", ["reply", "idle"])
def test_late_word_about_a_finished_execution_releases_nothing(queue: ExecutionQueue[str], late: str) -> None:
    """The second reply and the second idle of an execution that is over do not end the one after it."""
    queue.on_reply("a")
    queue.on_idle("a")
    if late == "reply":
        queue.on_reply("a")

    assert (queue.on_idle("a"), queue.active) == (None, "B")


def test_reply_of_the_one_before_does_not_count_for_the_next(queue: ExecutionQueue[str]) -> None:
    """An idle of another request releases only after the reply of what is active now."""
    queue.on_reply("a")
    queue.on_idle("a")

    assert (queue.on_idle("other"), queue.active) == (None, "B")


def test_last_idle_leaves_nothing_active() -> None:
    """With nothing waiting, the end of the active execution makes room for the next to be sent at once."""
    queue = ExecutionQueue[str]()
    queue.submit("a", "A")

    assert (queue.on_idle("a"), queue.active, queue.submit("b", "B")) == (None, None, True)


def test_idle_of_an_idle_queue_is_nothing() -> None:
    """A kernel that is idle without an execution releases nothing."""
    queue = ExecutionQueue[str]()
    queue.on_reply("a")

    assert (queue.on_idle(None), queue.active) == (None, None)


def test_same_msg_id_twice_is_two_executions() -> None:
    """Two executions with one id run one after the other."""
    queue = ExecutionQueue[str]()

    assert [queue.submit("a", "first"), queue.submit("a", "second")] == [True, False]
    assert [queue.on_idle("a"), queue.on_idle("a"), queue.active] == [("a", "second"), None, None]


def test_clear_pending_leaves_the_active_execution(queue: ExecutionQueue[str]) -> None:
    """An interrupt drops what waits; what runs still runs, and holds up what comes after it."""
    assert (len(queue.clear_pending()), queue.active, len(queue)) == (2, "A", 0)
    assert (queue.submit("d", "D"), queue.on_idle("a")) == (False, ("d", "D"))


def test_clear_forgets_everything(queue: ExecutionQueue[str]) -> None:
    """When the kernel ends nothing is active and nothing waits; the next execution is sent at once."""
    queue.on_reply("a")
    queue.clear()

    assert (queue.active, queue.pending, queue.submit("d", "D")) == (None, (), True)
    assert (queue.on_idle("a"), queue.active) == (None, "D")


def test_withdrawn_execution_never_runs(queue: ExecutionQueue[str]) -> None:
    """What is withdrawn while it waits is skipped."""
    assert (queue.withdraw("b"), queue.on_idle("a")) == (True, ("c", "C"))


@pytest.mark.parametrize("msg_id", ["a", "unknown"])
def test_only_what_waits_can_be_withdrawn(queue: ExecutionQueue[str], msg_id: str) -> None:
    """The active execution and one that is not there cannot be withdrawn."""
    assert (queue.withdraw(msg_id), queue.active, queue.pending) == (False, "A", ("B", "C"))


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
        self.answered = False
        self.over: list[int] = []

    def send(self, number: int) -> None:
        """Take an execution as the kernel does: it must be the next, and the only one."""
        assert (self.running, self.expected[0]) == (None, number)

        self.running = self.expected.pop(0)
        self.answered = False

    def hear_idle(self, parent: int | None, *, releases: bool) -> None:
        """Let the kernel say idle, and send what that releases."""
        waiting = bool(self.expected)
        if releases and self.running is not None:
            self.over.append(self.running)
            self.running = None
        released = self.queue.on_idle(None if parent is None else str(parent))

        assert (released is not None) == (releases and waiting)

        if released is not None:
            self.send(released[1])

    @rule()
    def submit(self) -> None:
        """A client executes something."""
        number = self.submitted
        self.submitted += 1
        self.expected.append(number)
        idle = self.running is None

        assert self.queue.submit(str(number), number) == idle

        if idle:
            self.send(number)

    @precondition(lambda self: self.running is not None)
    @rule()
    def reply(self) -> None:
        """The kernel answers what it has, perhaps again."""
        self.queue.on_reply(str(self.running))
        self.answered = True

    @precondition(lambda self: self.running is not None)
    @rule(names_its_parent=st.booleans())
    def become_idle(self, names_its_parent: bool) -> None:
        """The kernel is done with what it has, with or without having answered."""
        self.hear_idle(self.running if names_its_parent else None, releases=True)

    @rule()
    def become_idle_after_another_request(self) -> None:
        """The kernel is done with a control request; that releases only what was answered."""
        self.hear_idle(-1, releases=self.running is not None and self.answered)

    @precondition(lambda self: self.over)
    @rule(data=st.data())
    def repeat_itself(self, data: st.DataObject) -> None:
        """The kernel says once more what it said about an execution that is over."""
        number = data.draw(st.sampled_from(self.over))
        self.queue.on_reply(str(number))
        self.hear_idle(number, releases=self.running is not None and self.answered)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client takes back what waits."""
        number = data.draw(st.sampled_from(self.expected))
        self.expected.remove(number)

        assert self.queue.withdraw(str(number)) is True

    @rule()
    def interrupt(self) -> None:
        """What waits is dropped."""
        assert len(self.queue.clear_pending()) == len(self.expected)

        self.expected.clear()

    @rule()
    def exit(self) -> None:
        """The kernel is gone, and with it all there was."""
        self.queue.clear()
        self.expected.clear()
        self.running = None

    @invariant()
    def shows_what_runs_and_what_waits(self) -> None:
        """What the API reports is what the kernel has and what is to come, and nothing waits for nothing."""
        assert (self.queue.active, list(self.queue.pending), len(self.queue)) == (
            self.running,
            self.expected,
            len(self.expected),
        )
        assert self.running is not None or not self.expected


TestQueueMachine = QueueMachine.TestCase
