"""What a kernel is at work on: by its own word, and where it does not give it, by what follows from the rest."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.activity import EXECUTION, GRACE, Activity

NEVER = float("-inf")

COMM = "comm_msg"


def activity_of(*begun: tuple[str, str]) -> Activity:
    """Return the activity of a kernel that has begun these requests, at 1 s, 2 s and so on."""
    activity = Activity()
    for now, (msg_id, msg_type) in enumerate(begun, start=1):
        activity.begin(msg_id, msg_type, now)
    return activity


def test_new_kernel_has_always_been_at_rest() -> None:
    """Nothing is open, and nothing will be over."""
    activity = Activity()

    assert (activity.since, activity.at_rest_since, activity.look_at, "a" in activity) == (None, NEVER, None, False)


def test_kernel_is_at_work_from_busy_to_idle() -> None:
    """From when it began something, until when it ended that."""
    activity = activity_of(("a", EXECUTION))
    during = (activity.since, activity.at_rest_since, "a" in activity)
    activity.end("a", 3)

    assert during == (1, None, True)
    assert (activity.since, activity.at_rest_since, "a" in activity) == (None, 3, False)


def test_comm_message_within_an_execution_does_not_end_it() -> None:
    """Code that serves comm messages while it waits runs on, and has run since it began."""
    activity = activity_of(("a", EXECUTION), ("c", COMM))
    activity.end("c", 3)

    assert (activity.since, "a" in activity, "c" in activity) == (1, True, False)


def test_what_began_within_an_execution_is_over_with_it() -> None:
    """An idle that was lost inside does not keep the kernel busy."""
    activity = activity_of(("a", EXECUTION), ("b", EXECUTION), ("c", COMM))
    activity.end("a", 4)

    assert (activity.since, activity.at_rest_since, "b" in activity, "c" in activity) == (None, 4, False, False)


def test_end_of_what_is_inside_leaves_what_is_around() -> None:
    """An execution inside another ends alone."""
    activity = activity_of(("a", EXECUTION), ("b", EXECUTION))
    activity.end("b", 3)

    assert ("a" in activity, "b" in activity) == (True, False)


def test_other_requests_are_over_when_the_next_begins() -> None:
    """Nothing else runs inside a request that is no execution, so its idle was lost; the kernel is busy anew."""
    activity = activity_of(("c", COMM), ("a", EXECUTION))

    assert (activity.since, "c" in activity, "a" in activity) == (2, False, True)


def test_what_is_over_inside_an_execution_when_the_next_begins_leaves_the_execution() -> None:
    """Of two comm messages inside, the first is over; the time still counts from the execution."""
    activity = activity_of(("a", EXECUTION), ("c", COMM), ("d", COMM))

    assert (activity.since, "a" in activity, "c" in activity, "d" in activity) == (1, True, False, True)


def test_same_busy_twice_is_one() -> None:
    """A kernel that repeats itself has been at work since the first."""
    activity = activity_of(("c", COMM), ("c", COMM))

    assert (activity.since, "c" in activity) == (1, True)


def test_idle_of_nothing_known_changes_nothing() -> None:
    """Neither does it end what runs, nor is the kernel at rest from then on only."""
    at_work, at_rest = activity_of(("a", EXECUTION)), Activity()
    for activity in (at_work, at_rest):
        activity.end("other", 5)

    assert (at_work.since, at_rest.at_rest_since) == (1, NEVER)


def test_idle_that_names_another_ends_what_was_replied_to() -> None:
    """Some kernels name the wrong request; what was not replied to goes on."""
    activity = activity_of(("a", EXECUTION), ("b", EXECUTION))
    activity.reply("b", 3)
    activity.end("other", 3.25)

    assert ("a" in activity, "b" in activity, activity.look_at) == (True, False, None)


def test_what_was_replied_to_is_over_a_moment_later() -> None:
    """Some kernels send no idle at all."""
    activity = activity_of(("a", EXECUTION))
    activity.reply("a", 2)
    due = activity.look_at

    assert due == 2 + GRACE
    assert [activity.expire(now) for now in (due - 0.01, due, due)] == [False, True, False]
    assert (activity.since, activity.at_rest_since, activity.look_at) == (None, due, None)


def test_each_reply_has_its_own_moment() -> None:
    """What was replied to first is looked at first, and what was not replied to stays."""
    activity = activity_of(("a", EXECUTION), ("b", EXECUTION), ("d", EXECUTION))
    activity.reply("d", 4)
    activity.reply("b", 4.25)
    first = activity.look_at
    activity.expire(4 + GRACE)

    assert first == 4 + GRACE
    assert [msg_id in activity for msg_id in "abd"] == [True, True, False]
    assert activity.look_at == 4.25 + GRACE


def test_second_reply_does_not_put_off_the_end() -> None:
    """A kernel that answers twice has been done since its first answer."""
    activity = activity_of(("a", EXECUTION))
    activity.reply("a", 2)
    activity.reply("a", 2.25)

    assert activity.look_at == 2 + GRACE


def test_reply_behind_the_idle_is_no_news() -> None:
    """Nothing is to be looked at for a request that has just ended."""
    activity = activity_of(("a", EXECUTION))
    activity.end("a", 2)
    activity.reply("a", 3)

    assert activity.look_at is None


@pytest.mark.parametrize("has_idle", [True, False])
def test_reply_may_come_before_the_busy(has_idle: bool) -> None:
    """It comes over another socket; the request is over by its idle, or as long after its reply as any other."""
    activity = Activity()
    activity.reply("a", 1)
    noted = activity.look_at
    activity.begin("a", EXECUTION, 1.25)
    begun = (activity.since, activity.look_at)
    if has_idle:
        activity.end("a", 1 + GRACE)
    else:
        assert activity.expire(1 + GRACE) is True

    assert (noted, begun) == (1 + GRACE, (1.25, 1 + GRACE))
    assert (activity.since, activity.at_rest_since, activity.look_at) == (None, 1 + GRACE, None)


def test_reply_to_what_never_begins_changes_nothing() -> None:
    """It is looked at in vain, and forgotten."""
    activity = Activity()
    activity.reply("never", 1)

    assert activity.expire(1 + GRACE) is False
    assert (activity.since, activity.at_rest_since, activity.look_at) == (None, NEVER, None)


def test_what_is_due_counts_if_any_of_it_was_open() -> None:
    """Whichever of them was replied to first."""
    for first, second in (("a", "never"), ("never", "a")):
        activity = activity_of(("a", EXECUTION))
        activity.reply(first, 2)
        activity.reply(second, 2)

        assert activity.expire(2 + GRACE) is True
        assert (activity.since, activity.look_at) == (None, None)


def test_idle_that_comes_leaves_nothing_to_look_at() -> None:
    """The usual way: reply, then idle."""
    activity = activity_of(("a", EXECUTION))
    activity.reply("a", 2)
    activity.end("a", 2)

    assert (activity.look_at, activity.expire(9)) == (None, False)


def test_postponed_is_what_was_replied_to() -> None:
    """While output still comes, an idle may come behind it."""
    activity = activity_of(("a", EXECUTION))
    activity.reply("a", 2)
    activity.postpone(2.25)

    assert (activity.look_at, activity.expire(2 + GRACE), activity.expire(2.25 + GRACE)) == (2.25 + GRACE, False, True)


def test_nothing_is_postponed_where_nothing_is_due() -> None:
    """Output alone puts nothing on the list."""
    activity = activity_of(("a", EXECUTION))
    activity.postpone(2)

    assert activity.look_at is None


def test_busy_without_a_name_is_at_work() -> None:
    """A kernel that does not say what it does is at work all the same, until it says that it is not."""
    activity = Activity()
    activity.begin_nameless(None, 1)
    since = activity.since

    assert (since, activity.end_nameless(None, 2), activity.since, activity.at_rest_since) == (1, False, None, 2)


def test_nameless_work_is_over_when_the_next_request_begins() -> None:
    """It is no execution of ours, so nothing runs inside it."""
    activity = Activity()
    activity.begin_nameless(None, 1)
    activity.begin("c", COMM, 2)
    activity.end("c", 3)

    assert (activity.since, activity.at_rest_since) == (None, 3)


def test_statuses_without_a_parent_belong_to_the_execution_that_the_kernel_has() -> None:
    """A kernel that never names a parent ends the execution with its idle."""
    activity = Activity()
    activity.begin_nameless("x", 1)

    assert (activity.since, "x" in activity) == (1, True)
    assert (activity.end_nameless("x", 2), activity.since) == (True, None)


def test_execution_that_began_without_a_name_has_others_inside() -> None:
    """It is an execution like any other."""
    activity = Activity()
    activity.begin_nameless("x", 1)
    activity.begin("c", COMM, 2)
    activity.end("c", 3)

    assert (activity.since, "x" in activity) == (1, True)


@pytest.mark.parametrize("names_its_beginning", [True, False])
def test_nameless_statuses_within_an_execution_do_not_end_it(names_its_beginning: bool) -> None:
    """Each busy has its idle: what a thread of the kernel's does meanwhile ends nothing but itself."""
    activity = Activity()
    if names_its_beginning:
        activity.begin("x", EXECUTION, 1)
    else:
        activity.begin_nameless("x", 1)
    for now in (2, 4):
        activity.begin_nameless("x", now)
        over = activity.end_nameless("x", now + 1)

        assert (over, activity.since) == (False, 1)

    assert (activity.end_nameless("x", 6), activity.since, activity.at_rest_since) == (True, None, 6)


def test_idle_without_a_name_ends_what_began_with_one() -> None:
    """Some kernels name the parent of the busy only."""
    activity = activity_of(("x", EXECUTION))

    assert (activity.end_nameless("x", 2), activity.since) == (True, None)


def test_idle_without_a_name_is_the_executions_even_if_its_busy_was_lost() -> None:
    """It says that the kernel is done, and an execution is all that it has."""
    assert activity_of().end_nameless("x", 2) is True


def test_idle_of_nameless_work_does_not_end_the_execution_that_waits_behind_it() -> None:
    """The kernel was at work before it was sent the execution, which it has not begun."""
    activity = Activity()
    activity.begin_nameless(None, 1)

    assert (activity.end_nameless("x", 2), activity.since) == (False, None)
    assert activity.end_nameless("x", 3) is True


def test_execution_that_has_begun_ends_before_the_nameless_work_around_it() -> None:
    """Where both are open, an idle without a name is the execution's."""
    activity = Activity()
    activity.begin_nameless("x", 1)
    activity.begin_nameless(None, 2)

    assert activity.end_nameless("x", 3) is True


def test_count_of_nameless_statuses_begins_anew_with_each_execution() -> None:
    """What was counted for an execution that is over counts no more, should its id come again."""
    activity = Activity()
    for _ in range(2):
        activity.begin_nameless("x", 1)
    activity.end("x", 2)
    activity.begin_nameless("x", 3)

    assert activity.end_nameless("x", 4) is True


def test_another_kernel_has_done_nothing_yet() -> None:
    """What was open, replied to and counted of the one before is forgotten."""
    activity = Activity()
    for _ in range(2):
        activity.begin_nameless("x", 1)
    activity.end("y", 2)
    activity.reply("x", 2)
    activity.clear()
    new = (activity.since, activity.at_rest_since, activity.look_at, "x" in activity)
    activity.reply("y", 3)
    replied = activity.look_at
    activity.begin_nameless("x", 3)

    assert new == (None, NEVER, None, False)
    assert replied == 3 + GRACE
    assert activity.end_nameless("x", 4) is True


class ActivityMachine(RuleBasedStateMachine):
    """A kernel that executes, serves comm messages meanwhile, replies at any time, and forgets some of its idles."""

    def __init__(self) -> None:
        super().__init__()
        self.activity = Activity()
        self.now = 0.0
        self.count = 0
        self.open: list[tuple[str, str]] = []
        """What it is at work on, the innermost last."""
        self.replied: dict[str, float] = {}
        """When it replied to what has not ended since, begun or not."""
        self.latest: str | None = None
        """What its latest idle named."""
        self.since: float | None = None
        self.at_rest_since: float | None = NEVER

    def close(self, *closed: str) -> None:
        """Take what is over off the model."""
        self.open = [item for item in self.open if item[0] not in closed]
        for msg_id in closed:
            self.replied.pop(msg_id, None)
        if not self.open and self.since is not None:
            self.since, self.at_rest_since = None, self.now

    @rule(msg_type=st.sampled_from([EXECUTION, COMM]))
    def begin(self, msg_type: str) -> None:
        """Something begins; what cannot have others inside is over."""
        self.now += 1
        self.count += 1
        self.close(*(msg_id for msg_id, kind in self.open if kind == COMM))
        self.open.append((str(self.count), msg_type))
        if self.since is None:
            self.since, self.at_rest_since = self.now, None
        self.activity.begin(str(self.count), msg_type, self.now)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Something ends, and what is inside it."""
        self.now += 1
        at = data.draw(st.integers(0, len(self.open) - 1))
        self.latest = msg_id = self.open[at][0]
        self.close(*(inner for inner, _ in self.open[at:]))
        self.activity.end(msg_id, self.now)

    @rule()
    def end_something_else(self) -> None:
        """An idle names a request that is not open."""
        self.now += 1
        self.latest = "unknown"
        self.close(*list(self.replied))
        self.activity.end("unknown", self.now)

    @rule(data=st.data())
    def reply(self, data: st.DataObject) -> None:
        """Something is replied to, perhaps again: what is open, what is over, or what begins next."""
        self.now += GRACE / 4
        msg_id = str(data.draw(st.integers(1, self.count + 1)))
        if msg_id != self.latest:
            self.replied.setdefault(msg_id, self.now)
        self.activity.reply(msg_id, self.now)

    @rule(seconds=st.sampled_from([GRACE / 4, GRACE]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds
        due = {msg_id for msg_id, replied in self.replied.items() if self.now >= replied + GRACE}
        was_open = not due.isdisjoint(msg_id for msg_id, _ in self.open)
        self.close(*due)

        assert self.activity.expire(self.now) == was_open

    @rule()
    def publish(self) -> None:
        """Output comes."""
        self.now += GRACE / 4
        self.replied = dict.fromkeys(self.replied, self.now)
        self.activity.postpone(self.now)

    @invariant()
    def knows_what_is_open(self) -> None:
        """What is open, since when, and when to look again."""
        is_open = [msg_id for msg_id in map(str, range(self.count + 1)) if msg_id in self.activity]

        assert is_open == [msg_id for msg_id, _ in self.open]
        assert (self.activity.since, self.activity.at_rest_since) == (self.since, self.at_rest_since)
        assert self.activity.look_at == min((at + GRACE for at in self.replied.values()), default=None)


TestActivityMachine = ActivityMachine.TestCase
