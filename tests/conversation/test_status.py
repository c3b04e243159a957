"""The statuses of a session: what each event leads to, and for how long a session counts as idle."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kallichore.conversation.status import IllegalTransitionError, SessionStatus, StatusChange, StatusEvent
from kallichore.models.bodies import Status

CREATED = 100.0

BEGINNINGS = (StatusEvent.START_REQUESTED, StatusEvent.ADOPTION_REQUESTED)

FROM_THE_KERNEL = (
    StatusEvent.KERNEL_BUSY,
    StatusEvent.KERNEL_IDLE,
    StatusEvent.START_SUCCEEDED,
    StatusEvent.HEARTBEAT_LOST,
    StatusEvent.HEARTBEAT_BACK,
)

GONE = (Status.UNINITIALIZED, Status.EXITED)


def status_after(*events: StatusEvent) -> SessionStatus:
    """Return the status of a session to which these events happened, a second apart."""
    status = SessionStatus(created=CREATED)
    for number, event in enumerate(events, start=1):
        status.apply(event, event.name, CREATED + number)
    return status


PATHS: dict[Status, tuple[StatusEvent, ...]] = {
    Status.UNINITIALIZED: (),
    Status.STARTING: (StatusEvent.START_REQUESTED,),
    Status.IDLE: (StatusEvent.START_REQUESTED, StatusEvent.KERNEL_IDLE),
    Status.BUSY: (StatusEvent.START_REQUESTED, StatusEvent.KERNEL_BUSY),
    Status.OFFLINE: (StatusEvent.START_REQUESTED, StatusEvent.KERNEL_IDLE, StatusEvent.HEARTBEAT_LOST),
    Status.EXITED: (StatusEvent.START_REQUESTED, StatusEvent.EXITED),
}
"""How to get into each status that is ever reached."""


def test_new_session_is_uninitialized() -> None:
    """A session that was never started is uninitialized, and idle since its creation."""
    status = SessionStatus(created=CREATED)

    assert (status.current, status.reason, status.idle_seconds(CREATED + 7.9)) == (Status.UNINITIALIZED, None, 7)
    assert status.since == CREATED


@pytest.mark.parametrize(("reached", "path"), PATHS.items())
def test_paths_lead_where_they_say(reached: Status, path: tuple[StatusEvent, ...]) -> None:
    """Each status is reached by the events that a real session sees."""
    assert status_after(*path).current is reached


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("event", BEGINNINGS)
def test_kernel_that_is_not_there_can_be_started_or_adopted(gone: Status, event: StatusEvent) -> None:
    """A start and an adoption begin where there is no kernel: before the first and after the last."""
    status = status_after(*PATHS[gone])

    assert status.apply(event, "start", 200) == StatusChange(gone, Status.STARTING, "start")


@pytest.mark.parametrize("running", [status for status in PATHS if status not in GONE])
@pytest.mark.parametrize("event", BEGINNINGS)
def test_kernel_that_is_there_cannot_be_started(running: Status, event: StatusEvent) -> None:
    """To start what runs already is an error that names the status and the event, and changes nothing."""
    status = status_after(*PATHS[running])

    with pytest.raises(IllegalTransitionError, match=rf"{event.name}.*{running.value}"):
        status.apply(event, None, 200)

    assert status.current is running


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("event", FROM_THE_KERNEL)
def test_last_words_of_a_kernel_change_nothing(gone: Status, event: StatusEvent) -> None:
    """What a kernel that is gone still said is neither a status nor an error."""
    status = status_after(*PATHS[gone])

    assert (status.apply(event, "late", 200), status.current) == (None, gone)


@pytest.mark.parametrize("status", [status for status in PATHS if status is not Status.EXITED])
def test_exit_is_possible_at_any_time(status: Status) -> None:
    """A kernel can be gone from every status, even before it was there: its launch may fail."""
    change = status_after(*PATHS[status]).apply(StatusEvent.EXITED, "exit code 1", 200)

    assert change == StatusChange(status, Status.EXITED, "exit code 1")


def test_same_status_again_is_no_change() -> None:
    """The second idle in a row changes neither the status, nor its reason, nor since when the kernel is idle."""
    status = status_after(*PATHS[Status.IDLE])

    assert status.apply(StatusEvent.KERNEL_IDLE, "another", 200) is None
    assert (status.reason, status.idle_since) == ("KERNEL_IDLE", CREATED + 2)


def test_start_that_succeeded_ends_starting() -> None:
    """A kernel whose first idle was not seen is idle once its start has succeeded."""
    change = status_after(StatusEvent.START_REQUESTED).apply(StatusEvent.START_SUCCEEDED, "kernel_info_request", 200)

    assert change == StatusChange(Status.STARTING, Status.IDLE, "kernel_info_request")


def test_start_that_succeeded_leaves_a_busy_kernel_busy() -> None:
    """A kernel that has said what it does is believed, not overruled by the end of its start."""
    status = status_after(*PATHS[Status.BUSY])

    assert (status.apply(StatusEvent.START_SUCCEEDED, None, 200), status.current) == (None, Status.BUSY)


@pytest.mark.parametrize("covered", [Status.STARTING, Status.IDLE, Status.BUSY])
def test_heartbeat_that_is_back_uncovers_what_was_before(covered: Status) -> None:
    """A kernel that was silent is afterwards what it was before: a busy one is still busy."""
    status = status_after(*PATHS[covered], StatusEvent.HEARTBEAT_LOST)

    assert status.apply(StatusEvent.HEARTBEAT_BACK, "back", 200) == StatusChange(Status.OFFLINE, covered, "back")


@pytest.mark.parametrize(
    ("event", "said"), [(StatusEvent.KERNEL_BUSY, Status.BUSY), (StatusEvent.KERNEL_IDLE, Status.IDLE)]
)
def test_kernel_that_speaks_is_not_offline(event: StatusEvent, said: Status) -> None:
    """A busy or idle of a kernel that seemed offline ends that, and the heartbeat's return changes nothing more."""
    status = status_after(*PATHS[Status.OFFLINE])

    assert status.apply(event, "execute_request", 200) == StatusChange(Status.OFFLINE, said, "execute_request")
    assert (status.apply(StatusEvent.HEARTBEAT_BACK, None, 201), status.current) == (None, said)


def test_start_that_succeeds_while_offline_does_not_go_back_to_starting() -> None:
    """A kernel that stalled while it started, then answered kernel_info, ends up idle: clients wait for that."""
    status = status_after(StatusEvent.START_REQUESTED, StatusEvent.HEARTBEAT_LOST)
    status.apply(StatusEvent.START_SUCCEEDED, "kernel_info_request", 200)
    status.apply(StatusEvent.HEARTBEAT_BACK, "back", 201)

    assert status.current is Status.IDLE


def test_heartbeat_that_is_back_does_not_revive_an_older_life() -> None:
    """What one life of the kernel was when it fell silent says nothing about the next life."""
    status = status_after(*PATHS[Status.BUSY], StatusEvent.HEARTBEAT_LOST, StatusEvent.EXITED)
    for event in (*PATHS[Status.IDLE], StatusEvent.HEARTBEAT_LOST, StatusEvent.HEARTBEAT_BACK):
        status.apply(event, None, 200)

    assert status.current is Status.IDLE


@pytest.mark.parametrize(
    ("reached", "idle"),
    [(Status.STARTING, 0), (Status.IDLE, 10), (Status.BUSY, 0), (Status.OFFLINE, 0), (Status.EXITED, 10)],
)
def test_seconds_count_in_whole_from_the_change(reached: Status, idle: int) -> None:
    """Idle and exited count as idle, busy, starting and offline do not; fractions do not count."""
    status = status_after(*PATHS[reached])
    now = CREATED + len(PATHS[reached]) + 10.99

    assert status.idle_seconds(now) == idle


class StatusMachine(RuleBasedStateMachine):
    """Any order of events, held against the specification's sentences rather than its table."""

    def __init__(self) -> None:
        super().__init__()
        self.now = CREATED
        self.status = SessionStatus(created=self.now)
        self.lives = False
        self.last_word: Status | None = None
        self.changed_at = self.now

    @initialize()
    def is_new(self) -> None:
        """Begin as every session does."""
        assert self.status.current is Status.UNINITIALIZED

    def apply(self, event: StatusEvent) -> None:
        """Apply an event a while later, and hold the answer against the status before and after."""
        self.now += 1
        before = self.status.current
        change = self.status.apply(event, event.name, self.now)
        expected = None if before is self.status.current else StatusChange(before, self.status.current, event.name)
        if change is not None:
            self.changed_at = self.now

        assert change == expected

    @precondition(lambda self: not self.lives)
    @rule(event=st.sampled_from(BEGINNINGS))
    def begin(self, event: StatusEvent) -> None:
        """A kernel is started or adopted."""
        self.apply(event)
        self.lives, self.last_word = True, Status.STARTING

    @rule(word=st.sampled_from([Status.BUSY, Status.IDLE]))
    def kernel_speaks(self, word: Status) -> None:
        """The kernel says what it does, perhaps when it is gone already."""
        self.apply(StatusEvent.KERNEL_BUSY if word is Status.BUSY else StatusEvent.KERNEL_IDLE)
        if self.lives:
            self.last_word = word

        assert (self.status.current is word) == self.lives

    @rule()
    def kernel_falls_silent(self) -> None:
        """No heartbeat."""
        self.apply(StatusEvent.HEARTBEAT_LOST)

        assert (self.status.current is Status.OFFLINE) == self.lives

    @rule()
    def kernel_answers(self) -> None:
        """A heartbeat: then the kernel's last word is what it is."""
        self.apply(StatusEvent.HEARTBEAT_BACK)

        assert not self.lives or self.status.current is self.last_word

    @rule()
    def exit(self) -> None:
        """The kernel is gone."""
        self.apply(StatusEvent.EXITED)
        self.lives = False

        assert self.status.current is Status.EXITED

    @precondition(lambda self: self.lives)
    @rule(event=st.sampled_from(BEGINNINGS))
    def begin_again(self, event: StatusEvent) -> None:
        """A start of what runs is refused."""
        with pytest.raises(IllegalTransitionError):
            self.status.apply(event, None, self.now)

    @invariant()
    def is_gone_exactly_when_the_kernel_is(self) -> None:
        """Only a start leads out of uninitialized and exited."""
        assert (self.status.current in GONE) == (not self.lives)

    @invariant()
    def counts_from_the_last_change(self) -> None:
        """Since when the kernel is idle or gone is when the status last changed."""
        is_at_rest = self.status.current in (*GONE, Status.IDLE)

        assert self.status.idle_since == (self.changed_at if is_at_rest else None)


TestStatusMachine = StatusMachine.TestCase
