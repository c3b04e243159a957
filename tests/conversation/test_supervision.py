"""What a supervisor is doing: each pair of phase and event is decided, and the two rules hold everywhere."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.supervision import TRANSITIONS, Event, ImpossibleEventError, Phase, Refusal, move

KERNELLESS = (Phase.RESTING, Phase.CLOSED)

ASKED_FOR = (Event.START, Event.RESTART, Event.STOP)
"""What somebody asks for, at any time."""


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_each_event_is_decided_in_each_phase(phase: Phase, event: Event) -> None:
    """It is in the table, or cannot happen, and then the error names both; whatever is asked for is in the table."""
    if (phase, event) in TRANSITIONS:
        assert move(phase, event) is TRANSITIONS[phase, event]
        return
    assert event not in ASKED_FOR

    with pytest.raises(ImpossibleEventError, match=rf"{event.name} cannot happen.*{phase.name}"):
        move(phase, event)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", [Event.READY, Event.GONE])
def test_only_a_kernel_that_was_launched_can_answer_or_end(phase: Phase, event: Event) -> None:
    """There is none while a session rests or is closed; and one that runs has answered."""
    is_possible = phase not in KERNELLESS and (phase, event) != (Phase.RUNNING, Event.READY)

    assert ((phase, event) in TRANSITIONS) == is_possible


@pytest.mark.parametrize("phase", Phase)
def test_phase_tells_whether_there_is_a_kernel(phase: Phase) -> None:
    """There is, or is about to be, in all phases but two."""
    assert phase.has_kernel == (phase not in KERNELLESS)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_only_the_end_of_a_kernel_makes_room_for_another(phase: Phase, event: Event) -> None:
    """From a phase with a kernel nothing else leads to where one is started, or none is."""
    if not phase.has_kernel or event is Event.GONE:
        return
    after = TRANSITIONS.get((phase, event), phase)

    assert after not in (*KERNELLESS, Phase.STARTING) or after is phase


@pytest.mark.parametrize("phase", [Phase.ENDING, Phase.CLOSED])
@pytest.mark.parametrize("event", Event)
def test_nothing_leads_back_once_the_session_is_to_end(phase: Phase, event: Event) -> None:
    """No other kernel follows; who asks for one is told so."""
    after = TRANSITIONS.get((phase, event), phase)

    assert after in (Phase.ENDING, Phase.CLOSED, Refusal.ENDING)
    assert (after is Refusal.ENDING) == (event in (Event.START, Event.RESTART))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([Event.START], Phase.STARTING),
        ([Event.START, Event.READY], Phase.RUNNING),
        ([Event.START, Event.START], Refusal.HAS_KERNEL),
        ([Event.START, Event.GONE], Phase.RESTING),
        ([Event.RESTART], Phase.STARTING),
        ([Event.START, Event.RESTART], Phase.RESTARTING),
        ([Event.START, Event.READY, Event.START], Refusal.HAS_KERNEL),
        ([Event.START, Event.READY, Event.GONE], Phase.RESTING),
        ([Event.START, Event.READY, Event.RESTART], Phase.RESTARTING),
        ([Event.START, Event.READY, Event.RESTART, Event.START], Refusal.HAS_KERNEL),
        ([Event.START, Event.READY, Event.RESTART, Event.RESTART], Refusal.CHANGING),
        ([Event.START, Event.RESTART, Event.READY], Phase.RESTARTING),
        ([Event.START, Event.READY, Event.RESTART, Event.GONE], Phase.STARTING),
        ([Event.START, Event.READY, Event.RESTART, Event.GONE, Event.READY], Phase.RUNNING),
        ([Event.START, Event.READY, Event.RESTART, Event.STOP], Phase.ENDING),
        ([Event.STOP], Phase.CLOSED),
        ([Event.STOP, Event.STOP], Phase.CLOSED),
        ([Event.START, Event.STOP], Phase.ENDING),
        ([Event.START, Event.STOP, Event.STOP], Phase.ENDING),
        ([Event.START, Event.STOP, Event.READY], Phase.ENDING),
        ([Event.START, Event.READY, Event.STOP], Phase.ENDING),
        ([Event.START, Event.STOP, Event.GONE], Phase.CLOSED),
    ],
)
def test_paths_lead_where_they_should(path: list[Event], expected: Phase | Refusal) -> None:
    """What happens in a session's life, and what comes of the last of it."""
    now: Phase | Refusal = Phase.RESTING
    for event in path:
        assert isinstance(now, Phase)

        now = move(now, event)

    assert now is expected


@pytest.mark.parametrize(
    ("refusal", "code"), [(Refusal.HAS_KERNEL, "KS-2"), (Refusal.CHANGING, "KS-13"), (Refusal.ENDING, "KS-16")]
)
def test_refusals_have_the_codes_of_the_api(refusal: Refusal, code: str) -> None:
    """Clients go by them."""
    assert refusal.value == code


class SupervisionMachine(RuleBasedStateMachine):
    """Anybody asks for anything at any time; kernels answer and end."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = Phase.RESTING
        self.kernels = 0
        """How many there are."""
        self.has_answered = self.follows = self.ends = False

    def apply(self, event: Event) -> Refusal | None:
        """Take in an event; return why it was refused."""
        after = move(self.phase, event)
        if isinstance(after, Refusal):
            return after
        self.phase = after
        return None

    @rule(event=st.sampled_from([Event.START, Event.RESTART]))
    def ask_for_a_kernel(self, event: Event) -> None:
        """Granted if there is none, or as the next one's announcement; at most one follows, none after the end."""
        refusal = self.apply(event)
        if self.ends:
            expected: Refusal | None = Refusal.ENDING
        elif not self.kernels:
            expected, self.kernels, self.has_answered = None, 1, False
        elif event is Event.START:
            expected = Refusal.HAS_KERNEL
        else:
            expected, self.follows = Refusal.CHANGING if self.follows else None, True

        assert refusal is expected

    @precondition(lambda self: self.kernels and not self.has_answered)
    @rule()
    def answer(self) -> None:
        """The kernel answers."""
        self.has_answered = True

        assert self.apply(Event.READY) is None

    @rule()
    def stop(self) -> None:
        """The session is to end: always possible."""
        self.ends, self.follows = True, False

        assert self.apply(Event.STOP) is None

    @precondition(lambda self: self.kernels)
    @rule()
    def end(self) -> None:
        """The kernel ends; the next begins if one was asked for."""
        self.kernels, self.follows, self.has_answered = int(self.follows), False, False

        assert self.apply(Event.GONE) is None

    @invariant()
    def says_what_is(self) -> None:
        """The phase follows from what was asked for and what there is."""
        if not self.kernels:
            expected = Phase.CLOSED if self.ends else Phase.RESTING
        elif self.ends:
            expected = Phase.ENDING
        elif self.follows:
            expected = Phase.RESTARTING
        else:
            expected = Phase.RUNNING if self.has_answered else Phase.STARTING

        assert self.phase is expected


TestSupervisionMachine = SupervisionMachine.TestCase
