"""What counts as delivered: nothing is lost, and twice comes only what no answered ping followed, whatever happens."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.delivery import FIRST_DISTANCE, MOST_OPEN, UNDER_WAY, Deliveries, Delivery, Ending
from kallichore.conversation.journal import Journal
from kallichore.session.overflow_file import OverflowFile

KINDS = st.sampled_from(["output", "reply", "exit", "start"])


def deliveries_of(count: int) -> Deliveries:
    """Return the deliveries of a session that has said so many messages, and keeps nothing that everybody has."""
    deliveries = Deliveries(Journal(1 << 20, 0, OverflowFile(), 0))
    deliveries.journal.extend([b"x"] * count)
    return deliveries


def exit_in(deliveries: Deliveries) -> int:
    """Let a session tell of an exit; return the message's number."""
    number = deliveries.journal.end
    deliveries.journal.note_exit(number)
    deliveries.journal.extend([b"exited"])
    return number


# Clients that take what they are sent as it comes


def test_more_may_wait_in_memory_while_a_client_keeps_up() -> None:
    """From when one does until the last has gone, or stands still."""
    deliveries = deliveries_of(0)
    one, other = deliveries.begin(), deliveries.begin()
    seen = [deliveries.journal.allowance]
    for delivery, keeps_up in ((one, True), (other, True), (one, False), (other, False), (one, True)):
        deliveries.note_pace(delivery, keeps_up=keeps_up)
        seen.append(deliveries.journal.allowance)
    deliveries.end(one, Ending.CLOSED)
    seen.append(deliveries.journal.allowance)

    assert [0, UNDER_WAY, UNDER_WAY, UNDER_WAY, 0, UNDER_WAY, 0] == seen


def test_clients_are_behind_by_more_than_memory_is_meant_for() -> None:
    """By what they were not given, whatever they confirmed; who stands still is not waited for."""
    overflow = OverflowFile()
    deliveries = Deliveries(Journal(10, 100, overflow, 0))
    one, other = deliveries.begin(), deliveries.begin()
    deliveries.note_pace(one, keeps_up=True)
    deliveries.journal.extend([b"xxxx"] * 3)
    deliveries.end(other, Ending.CUT)
    seen = [deliveries.are_behind]
    one.give(1)
    seen.append(deliveries.are_behind)
    one.give(0)
    deliveries.note_pace(one, keeps_up=False)
    seen.append(deliveries.are_behind)
    overflow.close()

    assert [True, False, False] == seen


@pytest.mark.parametrize(("beyond", "behind"), [(0, False), (1, True)])
def test_as_much_as_memory_is_meant_for_is_not_behind(beyond: int, behind: bool) -> None:
    """Memory is there to be used; a client that has only just come is not known to take anything."""
    overflow = OverflowFile()
    deliveries = Deliveries(Journal(10, 100, overflow, 0))
    one = deliveries.begin()
    deliveries.journal.extend([b"x" * 10, b"x" * beyond])
    fresh = deliveries.are_behind
    deliveries.note_pace(one, keeps_up=True)
    known = deliveries.are_behind
    overflow.close()

    assert (False, behind) == (fresh, known)


def test_ping_is_open_until_it_is_answered() -> None:
    """The answer to a later one answers it as well."""
    delivery = deliveries_of(2).begin()
    seen = [delivery.is_open]
    delivery.ping(1)
    seen.append(delivery.is_open)
    delivery.pong(delivery.ping(2))
    seen.append(delivery.is_open)

    assert [False, True, False] == seen


# A client's ending: the table


@pytest.mark.parametrize(
    ("ending", "is_answered", "owed"),
    [
        (Ending.CLOSED, True, 7),
        (Ending.CLOSED, False, 3),
        (Ending.CUT, True, 5),
        (Ending.CUT, False, 3),
    ],
)
def test_ending_decides_where_the_next_client_begins(ending: Ending, is_answered: bool, owed: int) -> None:
    """Who closes in order with no ping open has all that it was given; else what no answered ping followed is owed."""
    deliveries = deliveries_of(9)
    delivery = deliveries.begin()
    delivery.give(3)
    deliveries.pong(delivery, delivery.ping(3))
    delivery.give(5)
    number = delivery.ping(5)
    delivery.give(7)
    if is_answered:
        deliveries.pong(delivery, number)
    deliveries.end(delivery, ending)

    assert (owed, owed) == (deliveries.owed, deliveries.begin().given)


@pytest.mark.parametrize(("ending", "owed"), [(Ending.CLOSED, 5), (Ending.CUT, 3)])
def test_ping_that_went_alone_says_nothing_of_who_closes_in_order(ending: Ending, owed: int) -> None:
    """It may have crossed the close: what had been sent for a while before it is not sent again. A cut is another
    thing.
    """
    deliveries = deliveries_of(9)
    delivery = deliveries.begin()
    delivery.give(3)
    deliveries.pong(delivery, delivery.ping(3))
    delivery.give(5)
    delivery.ping(5)
    deliveries.end(delivery, ending)

    assert owed == deliveries.owed


@pytest.mark.parametrize(("given", "owed"), [(3, 1), (4, 4), (5, 4), (6, 6), (7, 6)])
def test_exit_counts_as_read_by_who_closes_in_order(given: int, owed: int) -> None:
    """Clients close when they read that the kernel ended, and answer nothing behind it: all up to the latest exit that
    they were given is delivered.
    """
    deliveries = deliveries_of(3)
    exit_in(deliveries)
    deliveries.journal.extend([b"x"])
    exit_in(deliveries)
    deliveries.journal.extend([b"x"])
    delivery = deliveries.begin()
    delivery.give(1)
    deliveries.pong(delivery, delivery.ping(1))
    delivery.ping(1)
    delivery.give(given)
    deliveries.end(delivery, Ending.CLOSED)

    assert owed == deliveries.owed


def test_exit_before_what_is_confirmed_takes_nothing_back() -> None:
    """What was confirmed behind an exit stays confirmed."""
    deliveries = deliveries_of(0)
    exit_in(deliveries)
    deliveries.journal.extend([b"x"] * 3)
    delivery = deliveries.begin()
    deliveries.pong(delivery, delivery.ping(3))
    delivery.ping(3)
    delivery.give(4)
    deliveries.end(delivery, Ending.CLOSED)

    assert deliveries.owed == 3


def test_exit_counts_for_nothing_where_the_connection_was_cut() -> None:
    """Nobody knows whether it was read."""
    deliveries = deliveries_of(2)
    delivery = deliveries.begin()
    delivery.give(exit_in(deliveries) + 1)
    deliveries.end(delivery, Ending.CUT)

    assert deliveries.owed == 0


def test_exit_of_an_earlier_kernel_is_told_to_nobody_who_comes_after_the_next_start() -> None:
    """It is left out, and so it is no reason to call delivered what stands around it."""
    deliveries = deliveries_of(1)
    there_before = deliveries.begin(speaks=False)
    old = exit_in(deliveries)
    deliveries.journal.note_start()
    deliveries.journal.extend([b"starting"])
    latest = exit_in(deliveries)
    delivery = deliveries.begin()
    delivery.ping(0)
    delivery.give(latest)
    left_out = [each.left_out for each in (there_before, delivery, deliveries.begin(since=0))]
    deliveries.end(delivery, Ending.CLOSED)

    assert [set(), {old}, set()] == left_out
    assert [True, False, True] == [delivery.is_to_come(latest), delivery.is_to_come(old), there_before.is_to_come(old)]
    assert deliveries.owed == 0


# What is given


def test_what_was_given_is_not_to_come() -> None:
    """Nor what is left out."""
    deliveries = deliveries_of(3)
    delivery = deliveries.begin()
    delivery.give(1)
    delivery.give_ahead([2])

    assert [False, True, False] == [delivery.is_to_come(number) for number in range(3)]


def test_answer_counts_more_than_what_a_send_tells() -> None:
    """A pipe that breaks does not tell how much went out; what was answered did."""
    deliveries = deliveries_of(5)
    delivery = deliveries.begin()
    deliveries.pong(delivery, delivery.ping(3))
    reached = delivery.given
    delivery.give(0)
    deliveries.end(delivery, Ending.CLOSED)

    assert (3, 3) == (reached, deliveries.owed)


def test_answer_answers_what_went_before() -> None:
    """One answer stands for the earlier ones too, and each is news once."""
    deliveries = deliveries_of(9)
    delivery = deliveries.begin()
    numbers = [delivery.ping(behind) for behind in (2, 4, 4, 6)]
    answers = [(deliveries.pong(delivery, number), delivery.confirmed) for number in (3, 3, 1, 0, 5, 4)]

    assert [1, 2, 3, 4] == numbers
    assert [(True, 4), (False, 4), (False, 4), (False, 4), (False, 4), (True, 6)] == answers
    assert not delivery.is_open


def test_pings_that_are_not_answered_take_no_memory_without_end() -> None:
    """Of many that are open the oldest are forgotten; an answer to a later one says as much."""
    deliveries = deliveries_of(MOST_OPEN + 2)
    delivery = deliveries.begin()
    numbers = [delivery.ping(behind) for behind in range(1, MOST_OPEN + 3)]
    steps = [(deliveries.pong(delivery, number), delivery.confirmed) for number in numbers[:3]]

    assert [(True, 0), (True, 0), (True, 3)] == steps


# Several clients


def test_journal_keeps_what_is_owed_or_not_confirmed_by_somebody_who_is_here() -> None:
    """The last to confirm decides; who watches takes nothing from who comes next."""
    deliveries = deliveries_of(9)
    watcher, first, second = deliveries.begin(speaks=False), deliveries.begin(), deliveries.begin()
    steps = [deliveries.journal.first]
    for delivery, behind in ((first, 5), (second, 3), (watcher, 4), (second, 6), (watcher, 9)):
        deliveries.pong(delivery, delivery.ping(behind))
        steps.append(deliveries.journal.first)
    deliveries.end(first, Ending.CUT)
    deliveries.end(second, Ending.CUT)
    steps.append(deliveries.journal.first)

    assert [0, 0, 0, 3, 4, 5, 6] == steps


def test_what_only_a_watcher_has_is_still_owed() -> None:
    """Though it has left, and in order."""
    deliveries = deliveries_of(3)
    watcher = deliveries.begin(speaks=False)
    watcher.give(3)
    deliveries.end(watcher, Ending.CLOSED)

    assert (0, 0) == (deliveries.owed, deliveries.journal.first)


def test_visitor_begins_with_what_comes_and_has_only_what_is_its_own() -> None:
    """What was there before, and what is others', is owed to the next; its own is neither owed nor kept."""
    deliveries = deliveries_of(2)
    visitor = deliveries.begin(visits=True)
    deliveries.journal.extend([b"own", b"other", b"own"])
    assert visitor.own is not None
    visitor.own.update({2, 4})
    visitor.give(5)
    deliveries.end(visitor, Ending.CLOSED)
    next_one = deliveries.begin()

    assert (2, 0) == (visitor.began, next_one.began)
    assert [b"x", b"x", b"", b"other", b""] == list(deliveries.journal.read(0, 100, 100).payloads)


def test_visitors_alone_leave_nothing_behind() -> None:
    """Where everything was somebody's own, nothing is owed."""
    deliveries = deliveries_of(0)
    for _ in range(3):
        visitor = deliveries.begin(visits=True)
        assert visitor.own is not None
        visitor.own.add(deliveries.journal.end)
        deliveries.journal.extend([b"own"])
        visitor.give(deliveries.journal.end)
        deliveries.end(visitor, Ending.CLOSED)

    assert (3, 0) == (deliveries.owed, deliveries.journal.memory_bytes)


def test_what_a_visitor_did_not_confirm_is_owed() -> None:
    """It was cut: what it was given may not have reached it."""
    deliveries = deliveries_of(0)
    visitor = deliveries.begin(visits=True)
    deliveries.journal.extend([b"had", b"lost"])
    assert visitor.own is not None
    visitor.own.update({0, 1})
    visitor.give(1)
    deliveries.pong(visitor, visitor.ping(1))
    visitor.give(2)
    deliveries.end(visitor, Ending.CUT)

    assert (1, [b"lost"]) == (deliveries.owed, list(deliveries.journal.read(1, 100, 100).payloads))


def test_what_a_visitor_has_is_kept_for_others_who_are_here() -> None:
    """Who shares gets everything; who comes next does not get what the visitor has."""
    deliveries = deliveries_of(0)
    sharing, visitor = deliveries.begin(), deliveries.begin(visits=True)
    deliveries.journal.extend([b"news", b"own"])
    assert visitor.own is not None
    visitor.own.add(1)
    visitor.give(2)
    deliveries.end(visitor, Ending.CLOSED)

    assert [b"news", b"own"] == list(deliveries.journal.read(sharing.given, 100, 100).payloads)
    assert {1} == deliveries.begin().left_out


def test_client_that_goes_by_the_numbers_begins_where_it_says() -> None:
    """With what it has; one that has a number of another server is given everything, and keeps the journal from letting
    go of it.
    """
    deliveries = deliveries_of(9)
    first = deliveries.begin()
    deliveries.pong(first, first.ping(6))

    assert [4, 9, 0] == [deliveries.begin(since=since).given for since in (4, 9, 10)]
    assert deliveries.journal.needed == 0


def test_client_whose_turn_comes_begins_with_what_the_one_before_did_not_confirm() -> None:
    """What is kept meanwhile is what that one may still turn out not to have."""
    deliveries = deliveries_of(0)
    older = deliveries.begin()
    exit_in(deliveries)
    newer = deliveries.begin()
    deliveries.journal.note_start()
    deliveries.journal.extend([b"x"] * 8)
    deliveries.pong(older, older.ping(4))
    older.give(6)
    kept = deliveries.journal.first
    deliveries.end(older, Ending.CUT)
    newer_before = newer.given
    deliveries.begin_again(newer)

    assert (0, 0) == (kept, newer_before)
    assert (4, 4, 4, {0}) == (newer.began, newer.given, newer.confirmed, newer.left_out)
    assert deliveries.journal.first == 4


def test_what_somebody_had_ahead_of_its_turn_is_not_given_again() -> None:
    """If an answered ping followed it; what no ping followed, and what only a watcher had, comes in its turn."""
    deliveries = deliveries_of(9)
    first, watcher = deliveries.begin(), deliveries.begin(speaks=False)
    first.give_ahead([5, 6])
    number = first.ping(1)
    first.give_ahead([7])
    deliveries.pong(first, number)
    watcher.give_ahead([8])
    deliveries.pong(watcher, watcher.ping(1))
    sharing = deliveries.begin().left_out
    deliveries.end(first, Ending.CUT)
    following = deliveries.begin()
    deliveries.pong(following, following.ping(6))

    assert [{5, 6}, {6}, {6}] == [sharing, following.left_out, deliveries.begin().left_out]


# How often there is a ping


def test_client_that_never_comes_to_the_first_ping_makes_way_for_one_that_is_pinged_sooner() -> None:
    """However soon each is cut, at last one confirms something."""
    deliveries = deliveries_of(99)
    distances = []
    for _ in range(6):
        delivery = deliveries.begin()
        distances.append(delivery.distance)
        delivery.give(50)
        deliveries.end(delivery, Ending.CUT)

    assert [FIRST_DISTANCE, FIRST_DISTANCE // 2, FIRST_DISTANCE // 4, 1, 1, 1] == distances


@pytest.mark.parametrize(("confirmed", "ending"), [(1, Ending.CUT), (0, Ending.CLOSED)])
def test_client_that_gets_on_is_followed_by_one_that_is_pinged_as_usual(confirmed: int, ending: Ending) -> None:
    """Be it that it confirmed something, or that it closed in order."""
    deliveries = deliveries_of(99)
    for how, behind in ((Ending.CUT, 0), (ending, confirmed)):
        delivery = deliveries.begin()
        delivery.give(50)
        number = delivery.ping(behind)
        if behind:
            deliveries.pong(delivery, number)
        deliveries.end(delivery, how)

    assert deliveries.begin().distance == FIRST_DISTANCE


def test_client_that_was_given_nothing_changes_nothing() -> None:
    """One that was displaced while it waited says nothing about the line; one that waits gets what holds then."""
    deliveries = deliveries_of(99)
    cut, idle, waiting = deliveries.begin(), deliveries.begin(), deliveries.begin()
    cut.give(9)
    deliveries.end(cut, Ending.CUT)
    deliveries.end(idle, Ending.CUT)
    before = waiting.distance
    deliveries.begin_again(waiting)

    assert (FIRST_DISTANCE, FIRST_DISTANCE // 2) == (before, waiting.distance)


# Anything in any order


@attrs.define(eq=False)
class Client:
    """What the test knows of a client: what it was given in which order, and where pings stood."""

    delivery: Delivery
    speaks: bool
    is_numbered: bool
    began: int
    given: list[int] = attrs.field(factory=list)
    pings: list[int] = attrs.field(factory=list)
    """For each, how many messages had been given."""
    positions: list[int] = attrs.field(factory=list)
    ahead: set[int] = attrs.field(factory=set)
    answered: int = 0
    confirmed: int = 0

    @property
    def turn(self) -> int:
        """The number whose turn is next."""
        return self.delivery.given


class DeliveryMachine(RuleBasedStateMachine):
    """Clients of all kinds come and go in any way, and are given this and that.

    The model knows for each message whether somebody who may speak certainly has it, and whether it may count so.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deliveries = deliveries_of(0)
        self.journal = self.deliveries.journal
        self.clients: list[Client] = []
        self.exits: set[int] = set()
        self.latest_start = 0
        self.certain: set[int] = set()
        """Messages that an answered ping of somebody who may speak followed."""
        self.counted: set[int] = set()
        """These, and what clients were given that closed in order."""
        self.most_needed = 0

    def any_client(self, data: st.DataObject) -> Client:
        """Return one of those that are here."""
        return data.draw(st.sampled_from(self.clients))

    @rule(kinds=st.lists(KINDS, min_size=1, max_size=6))
    def say(self, kinds: list[str]) -> None:
        """The session has something to say."""
        for kind in kinds:
            if kind == "exit":
                self.exits.add(exit_in(self.deliveries))
            elif kind == "start":
                self.journal.note_start()
                self.latest_start = self.journal.end
            else:
                self.journal.extend([b"x"], urgent=kind == "reply")

    @rule(speaks=st.booleans(), since=st.none() | st.integers(0, 40))
    def begin(self, speaks: bool, since: int | None) -> None:
        """A client comes; without a number it is given nothing that somebody certainly has, and no old exit."""
        delivery = self.deliveries.begin(speaks=speaks, since=since)
        client = Client(delivery, speaks, since is not None, delivery.given)
        client.confirmed = delivery.given
        self.clients.append(client)
        if since is None:
            self.check_beginning(client)
        else:
            assert client.began == (since if since <= self.journal.end else 0)

    @precondition(lambda self: any(not client.given and not client.pings for client in self.clients))
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        """One that waited for its turn begins where the session is now."""
        waiting = [client for client in self.clients if not client.given and not client.pings]
        client = data.draw(st.sampled_from(waiting))
        if not client.is_numbered:
            self.deliveries.begin_again(client.delivery)
            client.began = client.confirmed = client.turn
            self.check_beginning(client)

    def check_beginning(self, client: Client) -> None:
        """Hold what it is going to be given against what is known."""
        to_come = {number for number in range(self.journal.end) if client.delivery.is_to_come(number)}
        old = {number for number in self.exits if number < self.latest_start}

        assert client.began == self.deliveries.owed
        assert not to_come & (self.certain | old)
        assert set(range(self.journal.end)) - to_come <= self.counted | old

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), count=st.integers(1, 6))
    def give(self, data: st.DataObject, count: int) -> None:
        """A client is given what comes next, in order."""
        client = self.any_client(data)
        behind = min(client.turn + count, self.journal.end)
        client.given += (number for number in range(client.turn, behind) if client.delivery.is_to_come(number))
        client.delivery.give(behind)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def give_ahead(self, data: st.DataObject) -> None:
        """A client without numbers is given a reply ahead of its turn."""
        client = self.any_client(data)
        replies = [number for number in self.journal.urgent_after(client.turn) if client.delivery.is_to_come(number)]
        if replies and not client.is_numbered:
            number = data.draw(st.sampled_from(replies))
            client.delivery.give_ahead([number])
            client.given.append(number)
            client.ahead.add(number)

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def ping(self, data: st.DataObject) -> None:
        """A ping follows what it was given."""
        client = self.any_client(data)
        client.pings.append(len(client.given))
        client.positions.append(client.turn)

        assert client.delivery.ping(client.turn) == len(client.pings)

    @precondition(lambda self: any(client.pings for client in self.clients))
    @rule(data=st.data())
    def pong(self, data: st.DataObject) -> None:
        """A client answers a ping, or says so."""
        client = data.draw(st.sampled_from([client for client in self.clients if client.pings]))
        number = data.draw(st.integers(0, len(client.pings) + 1))
        is_news = client.answered < number <= len(client.pings)

        assert self.deliveries.pong(client.delivery, number) == is_news

        if is_news:
            client.answered = number
            client.confirmed = client.positions[number - 1]
            self.count(client, client.given[: client.pings[number - 1]], is_certain=True)

    def count(self, client: Client, numbers: list[int], *, is_certain: bool) -> None:
        """Count messages as delivered, if somebody has them who may speak."""
        if client.speaks:
            # What a client goes by the numbers with, it has.
            has = {*numbers, *(range(client.began) if client.is_numbered else ())}
            self.counted |= has
            self.certain |= has if is_certain else set()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), ending=st.sampled_from(Ending))
    def end(self, data: st.DataObject, ending: Ending) -> None:
        """A client goes, in whichever way."""
        client = self.any_client(data)
        self.clients.remove(client)
        self.count(client, [], is_certain=False)
        if ending is Ending.CLOSED:
            unanswered = client.positions[client.answered :]
            if not unanswered or unanswered[0] == client.turn:
                self.count(client, client.given, is_certain=False)
            elif told := [at for at, number in enumerate(client.given) if number in self.exits]:
                self.count(client, client.given[: told[-1] + 1], is_certain=False)
        self.deliveries.end(client.delivery, ending)

    @invariant()
    def nothing_is_lost(self) -> None:
        """What is not owed any more, somebody has; but for the exits of earlier kernels."""
        old = {number for number in self.exits if number < self.latest_start}

        assert set(range(self.deliveries.owed)) <= self.counted | old

    @invariant()
    def everybody_is_given_all_in_order(self) -> None:
        """Each message once; but for replies, which go ahead, in the order of their numbers."""
        for client in self.clients:
            in_turn = [number for number in client.given if number not in client.ahead]

            assert in_turn == sorted(in_turn)
            assert len(client.given) == len(set(client.given))

    @invariant()
    def journal_keeps_what_somebody_may_ask_for(self) -> None:
        """What is owed, and what somebody who is here has not confirmed; nothing else."""
        needed = min([self.deliveries.owed, *(client.confirmed for client in self.clients)])
        self.most_needed = max(self.most_needed, needed)

        assert (needed, self.most_needed) == (self.journal.needed, self.journal.first)


TestDeliveryMachine: Any = DeliveryMachine.TestCase
TestDeliveryMachine.settings = settings(TestDeliveryMachine.settings, max_examples=100, stateful_step_count=40)


@pytest.mark.parametrize(("since", "began"), [(0, 0), (2, 2), (3, 3), (4, 0)])
def test_visitor_that_comes_back_goes_on_where_it_was(since: int, began: int) -> None:
    """A number that there never was is another server's."""
    deliveries = deliveries_of(3)

    assert began == deliveries.begin(visits=True, since=since).began


def test_what_a_visitor_has_had_is_settled_once() -> None:
    """What is still to come to it stays its own."""
    deliveries = deliveries_of(0)
    visitor = deliveries.begin(visits=True)
    deliveries.journal.extend([b"a", b"b"])
    assert visitor.own is not None
    visitor.own.update({0, 1})
    visitor.give(1)
    deliveries.pong(visitor, visitor.ping(1))

    assert {1} == visitor.own
