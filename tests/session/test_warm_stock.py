"""Which warm kernels are launched, taken, renewed and ended: time and kernels are made up."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kallichore.kernel.connection_choice import ConnectionChoice
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.models.bodies import KernelTransport, NewSession
from kallichore.session.warm_recipe import Recipe, make_recipe, telling_code
from kallichore.session.warm_stock import OLDEST, PAUSE_FIRST, PAUSE_MOST, REFILL_AFTER, Owner, Spare, Stock

PYTHON = Owner(kernel="python3")
MINE = Owner(session_id="mine")
TCP = ConnectionChoice(KernelTransport.TCP, encrypts=False)


def recipe(
    directory: str | None = "/home",
    *,
    argv: tuple[str, ...] = ("kernel", "{connection_file}"),
    choice: ConnectionChoice = TCP,
    protocol_version: str = "5.3",
    **environment: str,
) -> Recipe:
    """Return what a kernel is started like."""

    def make_plan(connection_file: str) -> LaunchPlan:
        words = tuple(word.replace("{connection_file}", connection_file) for word in argv)
        return LaunchPlan(argv=words, program=argv[0], environment=environment, working_directory=directory)

    request = NewSession(session_id="s", argv=argv, protocol_version=protocol_version)
    return make_recipe(request, choice, make_plan, "/server")


HOME = recipe()


def stock_of(count: int = 1, like: Recipe = HOME, owner: Owner = PYTHON) -> Stock:
    """Return a stock in which so many are ready at time 0."""
    stock = Stock()
    stock.want(owner, count, like, 0.0)
    make_ready(stock, 0.0)
    return stock


def make_ready(stock: Stock, now: float) -> list[Spare]:
    """Launch all that can be, and have them answer at once; return the new ones."""
    launched: list[Spare] = []
    while due := stock.act(now).start:
        for spare in due:
            spare.is_ready = True
        launched += due
    return launched


def take(stock: Stock, like: Recipe = HOME, session_id: str = "s", now: float = 10.0) -> Spare | None:
    """Start a session's kernel, from the stock if it can be."""
    spare = stock.take(like, session_id, now)
    stock.note_start(like, spare, now)
    return spare


# What is the same


@pytest.mark.parametrize(
    ("other", "may_stand_for_it"),
    [
        (recipe(), True),
        (recipe("/elsewhere"), False),
        (recipe(X="1"), False),
        (recipe(argv=("other", "{connection_file}")), False),
        (recipe(choice=ConnectionChoice(KernelTransport.IPC, encrypts=False)), False),
        (recipe(choice=ConnectionChoice(KernelTransport.TCP, encrypts=True)), False),
        (recipe(protocol_version="5.5"), False),
        (recipe(JPY_SESSION_NAME="/home/a.ipynb"), False),
    ],
)
def test_only_a_kernel_that_was_started_the_same_way_is_taken(other: Recipe, may_stand_for_it: bool) -> None:
    """Another command, directory, environment or connection is another kernel."""
    assert may_stand_for_it is (take(stock_of(), other) is not None)


def test_kernel_without_a_directory_starts_in_the_servers() -> None:
    """To have no directory and to have the server's is the same."""
    assert recipe(None) == recipe("/server")
    assert recipe(None) != HOME


def test_python_can_be_told_later_for_whom_it_works() -> None:
    """A kernel of Python that was started for nobody is taken for a document; one that has a document is not."""
    for_document = recipe(JPY_SESSION_NAME="/home/a.ipynb", KERNEL_GATEWAY="1")
    stock = stock_of()
    stock.spares[0].can_be_told = True
    of_another = stock_of(like=recipe(JPY_SESSION_NAME="/home/b.ipynb"))
    of_another.spares[0].can_be_told = True

    assert take(stock, for_document) is not None
    assert take(of_another, for_document) is None


def test_what_is_told_is_in_the_environment_and_leaves_no_other_trace() -> None:
    """Running the code has the variables there, ipykernel's name for the document, and nothing else."""
    told = {"KALLICHORE_TEST_TOLD": 'it\'s \\ "x"\n', "JPY_SESSION_NAME": "/a 'b'.ipynb"}
    names: dict[str, Any] = {}
    seen: dict[str, str] = {}
    code = telling_code(told).replace("__import__('os').environ", "seen")
    exec(code, {"seen": seen}, names)

    assert (told, {"__session__": "/a 'b'.ipynb"}) == (seen, names)


def test_recipe_for_anybody_is_without_whom_it_was_for() -> None:
    """What only one document's kernel has is left out of the launch, and all else stays."""
    ours = recipe(JPY_SESSION_NAME="/a", KERNEL_ID="1", X="2").for_anybody()

    assert ({"X": "2"}, ("kernel", "/run/k.json")) == (
        ours.plan_at("/run/k.json").environment,
        ours.plan_at("/run/k.json").argv,
    )
    assert recipe(X="2") == ours


def test_no_secret_of_the_environment_is_shown() -> None:
    """A recipe's text, which may come into a log, has no values of variables in it."""
    assert "hunter2" not in repr(recipe(PASSWORD="hunter2"))


# Taking


def test_one_is_never_taken_twice() -> None:
    """Of one that is ready, the second start finds nothing."""
    stock = stock_of()
    first, second = take(stock), take(stock)

    assert first is not None
    assert (None, 1, 1) == (second, stock.taken, stock.missed)


def test_one_that_has_not_answered_is_not_taken() -> None:
    """What is on its way is nobody's kernel yet."""
    stock = Stock()
    stock.want(PYTHON, 1, HOME, 0.0)
    stock.act(0.0)

    assert take(stock) is None


def test_start_of_another_kernel_is_no_miss() -> None:
    """What nobody wants to be ready is not counted as missing."""
    stock = stock_of()
    take(stock, recipe(argv=("other", "{connection_file}")))

    assert 0 == stock.missed


def test_sessions_own_is_for_it_alone_and_comes_first() -> None:
    """A session takes what is kept for it before what is there for everybody; others never do."""
    stock = stock_of()
    stock.want(MINE, 1, HOME, 1.0)
    (own,) = make_ready(stock, 1.0)

    assert own is not take(stock, session_id="other")
    assert own is take(stock, session_id="mine")


def test_oldest_is_taken_first() -> None:
    """Of two, the one that has waited longer goes."""
    stock = Stock()
    stock.want(PYTHON, 2, HOME, 0.0)
    oldest, newest = make_ready(stock, 0.0)
    oldest.since = -5.0

    assert oldest is take(stock)
    assert newest is take(stock)


# What is launched


def test_one_at_a_time_is_launched() -> None:
    """The next is launched when the one before has answered, until there are as many as are wanted."""
    stock = Stock()
    stock.want(PYTHON, 2, HOME, 0.0)
    counts = []
    for _ in range(4):
        due = stock.act(0.0)
        counts.append(len(due.start))
        for spare in stock.spares:
            spare.is_ready = True

    assert [1, 1, 0, 0] == counts


def test_what_was_taken_is_replaced_a_moment_later() -> None:
    """The code that is about to run goes first: until then there is nothing to do, and then one is launched."""
    stock = stock_of()
    assert stock.take(HOME, "s", 10.0) is not None
    before, after = stock.act(10.0), stock.act(10.0 + REFILL_AFTER)

    assert ((), 10.0 + REFILL_AFTER, 1) == (tuple(before.start), before.look_at, len(after.start))


def test_next_is_started_where_kernels_are_started() -> None:
    """After a start elsewhere, one of two is renewed there; after another, both are."""
    stock, elsewhere = stock_of(2), recipe("/elsewhere")
    take(stock, elsewhere, now=10.0)
    first = stock.act(11.0)
    first.start[0].is_ready = True
    take(stock, recipe("/elsewhere", X="1"), now=20.0)
    second = stock.act(21.0)

    assert ([HOME], [elsewhere]) == ([spare.recipe for spare in first.end], [spare.recipe for spare in first.start])
    assert ([HOME], [recipe("/elsewhere", X="1")]) == (
        [spare.recipe for spare in second.end],
        [spare.recipe for spare in second.start],
    )


def test_one_that_was_taken_is_replaced_by_its_like() -> None:
    """A start that finds its kernel changes nothing about the others."""
    stock, elsewhere = stock_of(2), recipe("/elsewhere")
    take(stock, elsewhere, now=10.0)
    make_ready(stock, 11.0)
    take(stock, HOME, now=20.0)
    (replaced,) = make_ready(stock, 21.0)

    assert HOME == replaced.recipe
    assert {"/home", "/elsewhere"} == {spare.recipe.directory for spare in stock.spares}


def test_next_for_everybody_is_for_no_document() -> None:
    """What follows a document's kernel does not have that document's name."""
    stock = stock_of()
    take(stock, recipe("/elsewhere", JPY_SESSION_NAME="/a.ipynb"), now=10.0)
    (renewed,) = make_ready(stock, 11.0)

    assert recipe("/elsewhere") == renewed.recipe


def test_sessions_own_does_not_follow_others() -> None:
    """What a session keeps for its restarts stays like its own kernel, whatever others start."""
    stock = stock_of(owner=MINE)
    take(stock, recipe("/elsewhere"), session_id="other", now=10.0)

    assert ((), ()) == (tuple(stock.act(11.0).start), tuple(stock.act(11.0).end))


def test_session_that_wants_another_kind_has_its_own_renewed() -> None:
    """After a restart in another directory, what was ready for the one before is ended."""
    stock = stock_of(owner=MINE)
    stock.want(MINE, 1, recipe("/elsewhere"), 10.0)
    due = stock.act(10.0)

    assert [(HOME, recipe("/elsewhere"))] == [(due.end[0].recipe, due.start[0].recipe)]


# What is ended


def test_what_nobody_wants_is_ended() -> None:
    """When a session is gone, so is what waited for it; and none is launched any more."""
    stock = stock_of(owner=MINE)
    stock.forget(MINE)
    due = stock.act(10.0)

    assert (0, 1, (), ()) == (stock.wanted, len(due.end), tuple(due.start), tuple(stock.spares))


def test_one_that_waited_a_day_is_renewed() -> None:
    """It is looked at when it is a day old, ended then, and another is launched."""
    stock = stock_of()
    before, after = stock.act(OLDEST - 1), stock.act(OLDEST)

    assert (0, OLDEST, 1, 1) == (len(before.end), before.look_at, len(after.end), len(after.start))


@pytest.mark.parametrize("what", ["is_short", "is_closed"])
def test_none_are_kept_without_memory_or_a_server(what: str) -> None:
    """When memory runs out, and when the server ends, all are ended and none launched."""
    stock = stock_of(2)
    setattr(stock, what, True)
    due = stock.act(10.0)

    assert (2, ()) == (len(due.end), tuple(due.start))


def test_they_come_back_with_the_memory() -> None:
    """When there is memory again, there are as many as before."""
    stock = stock_of(2)
    stock.is_short = True
    stock.act(10.0)
    stock.is_short = False

    assert 2 == len(make_ready(stock, 20.0))


# What ends by itself


def end_again_and_again(stock: Stock, times: int, lives: float = 0.0) -> list[float | None]:
    """Have each that is launched end by itself; return the pauses."""
    now, pauses = 0.0, []
    for _ in range(times):
        (spare,) = stock.act(now).start
        spare.is_ready = lives > 0
        now += lives
        pause = stock.note_end(spare, "it crashed", now)
        pauses.append(pause)
        now += pause or 0.0
    return pauses


def test_one_that_ends_again_and_again_is_replaced_ever_later() -> None:
    """The pauses double, up to a limit, and until then nothing is launched."""
    stock = Stock()
    stock.want(PYTHON, 1, HOME, 0.0)
    pauses = end_again_and_again(stock, 12)

    assert [PAUSE_FIRST * 2**n for n in range(9)] == pauses[:9]
    assert [PAUSE_MOST] * 3 == pauses[9:]
    assert "it crashed" == stock.problem


def test_one_that_lived_long_is_replaced_soon() -> None:
    """The end of one that had lasted says nothing about the next."""
    stock = Stock()
    stock.want(PYTHON, 1, HOME, 0.0)

    assert [PAUSE_FIRST] * 3 == end_again_and_again(stock, 3, lives=PAUSE_MOST)


def test_one_that_is_taken_ends_the_trouble() -> None:
    """A kernel that serves somebody is proof that they work: the next that ends has the first pause again."""
    stock = Stock()
    stock.want(PYTHON, 1, HOME, 0.0)
    end_again_and_again(stock, 5)
    make_ready(stock, 1000.0)
    take(stock, now=1000.0)
    (spare,) = stock.act(2000.0).start

    assert ("", PAUSE_FIRST) == (stock.problem, stock.note_end(spare, "", 2000.0))


def test_end_of_what_was_taken_or_ended_is_nothing_to_replace() -> None:
    """Neither what a session has nor what was told to end comes back."""
    stock = stock_of(2)
    taken = take(stock)
    assert taken is not None
    stock.forget(PYTHON)
    (ended,) = stock.act(20.0).end

    assert [None, None, ""] == [stock.note_end(taken, "x", 20.0), stock.note_end(ended, "x", 20.0), stock.problem]


def test_one_whose_owner_is_gone_is_not_replaced() -> None:
    """It ends in the same moment in which nobody wants it any more."""
    stock = stock_of()
    stock.forget(PYTHON)

    assert None is stock.note_end(stock.spares[0], "x", 20.0)
    assert () == stock.spares


# All of it together


class AnyStock(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock()
        self.now = 0.0
        self.seen: set[Spare] = set()
        self.most = 0

    recipes = st.sampled_from([HOME, recipe("/elsewhere"), recipe(X="1"), recipe(JPY_SESSION_NAME="/a")])
    owners = st.sampled_from([PYTHON, MINE])

    @rule(owner=owners, count=st.integers(0, 3), like=recipes)
    def want(self, owner: Owner, count: int, like: Recipe) -> None:
        """Somebody wants some."""
        self.stock.want(owner, count, like if owner == MINE else like.for_anybody(), self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 100.0, OLDEST]))
    def wait_and_act(self, seconds: float) -> None:
        """Time goes by, and what is due is done."""
        self.now += seconds
        due = self.stock.act(self.now)
        assert not set(due.end) & set(self.stock.spares)
        assert set(due.start) <= set(self.stock.spares)
        assert due.look_at > self.now
        self.most = self.stock.wanted
        again = self.stock.act(self.now)
        assert ((), ()) == (tuple(again.start), tuple(again.end))

    @rule()
    def answer(self) -> None:
        """All that are on their way answer."""
        for spare in self.stock.spares:
            spare.is_ready = True

    @rule(like=recipes)
    def take(self, like: Recipe) -> None:
        """A session starts."""
        spare = self.stock.take(like, "mine", self.now)
        assert spare not in self.seen
        if spare is not None:
            self.seen.add(spare)
            assert spare.recipe == like
        self.stock.note_start(like, spare, self.now)

    @rule()
    def crash(self) -> None:
        """The first of them ends by itself."""
        if self.stock.spares:
            self.stock.note_end(self.stock.spares[0], "x", self.now)

    @invariant()
    def are_no_more_than_wanted_were(self) -> None:
        """There are never more than were wanted when it was last acted."""
        assert len(self.stock.spares) <= self.most


TestAnyStock = AnyStock.TestCase


def test_recipes_are_values() -> None:
    """One that was changed in what does not count is still equal."""
    assert attrs.evolve(HOME, directory="/x") == HOME
