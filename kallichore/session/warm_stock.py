"""Which warm kernels there are to be, which there are, and what follows: what to start, take and end. [pure]

A *want* is somebody's wish for some kernels that are ready before they are asked for: the server's, by a kernelspec's
name, or a session's. What is wanted by name follows what people start: each start of that kernel has the next spare one
be started in the same directory and environment, in the place of the one that was asked for longest ago. A session's
are like its own kernel and for its own restarts.

Time is an argument, in seconds of any one clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from kallichore.session.warm_recipe import Recipe

OLDEST = 86400.0
"""Seconds after which one is ended and replaced: what it was started with may have changed in ways that nobody saw."""

REFILL_AFTER = 1.0
"""Seconds that pass between a start and the launch of what is to be ready for the next: the code that somebody is about
to run goes first."""

PAUSE_FIRST, PAUSE_MOST = 1.0, 300.0
"""Seconds before one that ended by itself is replaced: at first, and at most. Each time it is twice as long."""

FOREVER = float("inf")


@attrs.frozen
class Owner:
    """Who wants warm kernels.

    Attributes:
        kernel: The name of a kernelspec, for everybody.
        session_id: A session, for its restarts.
    """

    kernel: str | None = None
    session_id: str | None = None

    def __str__(self) -> str:
        return f"kernel {self.kernel}" if self.session_id is None else f"session {self.session_id}"


@attrs.define(eq=False)
class Spare:
    """One process that waits to be taken, or is on its way there.

    Attributes:
        owner: Whose it is: a kernelspec's name, or a session.
        recipe: What it is started like.
        since: When that began.
        is_ready: Whether it has answered.
        can_be_told: Whether it is a kernel of Python, which can be told later for whom it works.
    """

    owner: Owner
    recipe: Recipe
    since: float
    is_ready: bool = False
    can_be_told: bool = False

    def fits(self, recipe: Recipe) -> bool:
        """Whether it may stand for a kernel of this recipe, as it is or when it has been told for whom it works."""
        ours = self.recipe
        if not self.is_ready or (recipe.command, recipe.rest) != (ours.command, ours.rest):
            return False
        return recipe.told == ours.told or (self.can_be_told and not ours.told)


@attrs.define
class Want:
    """What one owner wants.

    Attributes:
        recipes: What each of the spare ones is to be like; the latest is last.
        not_before: When the next may be launched.
        pause: The pause after the latest that ended by itself.
    """

    recipes: deque[Recipe]
    not_before: float
    pause: float = 0.0

    def is_of(self, command: str) -> bool:
        """Whether it is about this kernel, wherever it is started."""
        return any(recipe.command == command for recipe in self.recipes)

    def follow(self, started: Recipe, taken: Recipe | None) -> None:
        """Have the next be like what was just started, in the place of the taken one, or of the oldest wish."""
        if taken is not None and taken in self.recipes:
            self.recipes.remove(taken)
        else:
            self.recipes.popleft()
        self.recipes.append(started)


@attrs.frozen
class Due:
    """What is to be done now.

    Attributes:
        start: What is to be launched, and for whom. Each is in the stock from now on.
        end: What is to be ended. None of it is in the stock any more.
        look_at: When there is something again, if nothing else happens.
    """

    start: Sequence[Spare]
    end: Sequence[Spare]
    look_at: float


@attrs.define
class Stock:
    """The warm kernels of one server.

    Attributes:
        is_short: Whether memory is running out: then there are to be none.
        is_closed: Whether the server ends.
        taken: How many were taken so far.
        missed: How many starts found none, although warm ones of their kernel are wanted.
        problem: Why the latest that ended by itself did; empty when one has been taken since.
    """

    is_short: bool = False
    is_closed: bool = False
    taken: int = 0
    missed: int = 0
    problem: str = ""
    _wants: dict[Owner, Want] = attrs.field(factory=dict)
    _spares: list[Spare] = attrs.field(factory=list)

    @property
    def spares(self) -> Sequence[Spare]:
        """Those that are ready or on their way, in the order in which they were launched."""
        return tuple(self._spares)

    @property
    def wanted(self) -> int:
        """How many there are to be."""
        return sum(len(want.recipes) for want in self._wants.values())

    def want(self, owner: Owner, count: int, recipe: Recipe, not_before: float) -> None:
        """Have so many of one kind ready, in the place of what the owner wanted before.

        Args:
            owner: For whom.
            count: How many; 0 for none.
            recipe: What they are started like.
            not_before: When the first may be launched.
        """
        if count:
            self._wants[owner] = Want(deque([recipe] * count), not_before)
        else:
            self._wants.pop(owner, None)

    def forget(self, owner: Owner) -> None:
        """Note that an owner wants none any more."""
        self._wants.pop(owner, None)

    def take(self, recipe: Recipe, session_id: str, now: float) -> Spare | None:
        """Take one that fits, the session's own first, then the oldest: it is never taken again. None if none fits.

        Args:
            recipe: What is to be started.
            session_id: For whom.
            now: The time.
        """
        mine = Owner(session_id=session_id)
        reachable = (spare for spare in self._spares if spare.owner.session_id in (None, session_id))
        fitting = (spare for spare in reachable if spare.fits(recipe))
        spare = min(fitting, key=lambda each: (each.owner != mine, each.since), default=None)
        if spare is not None:
            self._spares.remove(spare)
            self._refill_later(spare.owner, now)
        return spare

    def _refill_later(self, owner: Owner, now: float) -> None:
        if (want := self._wants.get(owner)) is not None:
            want.not_before = max(want.not_before, now + REFILL_AFTER)

    def note_start(self, recipe: Recipe, spare: Spare | None, now: float) -> None:
        """Note that a kernel was started, and which warm one was taken for it, if any.

        Args:
            recipe: What was to be started.
            spare: What was taken.
            now: The time.
        """
        wants = {owner: want for owner, want in self._wants.items() if want.is_of(recipe.command)}
        if spare is not None:
            self.taken += 1
            self.problem = ""
        elif wants:
            self.missed += 1
        for owner, want in wants.items():
            # A session says itself what its next kernel is to be like, when this one is there.
            if owner.session_id is None:
                is_from_here = spare is not None and spare.owner == owner
                want.follow(recipe.for_anybody(), spare.recipe if spare is not None and is_from_here else None)
                self._refill_later(owner, now)
                want.pause = 0.0 if is_from_here else want.pause

    def note_end(self, spare: Spare, why: str, now: float) -> float | None:
        """Note that one ended by itself, or could not be started.

        Args:
            spare: Which.
            why: In words, for people.
            now: The time.

        Returns:
            The seconds until it is replaced; None if it is not, as it was taken, or nobody wants it any more.
        """
        if spare not in self._spares:
            return None
        self.problem = why
        return self.give_up(spare, now)

    def give_up(self, spare: Spare, now: float) -> float | None:
        """Have one be replaced after a pause, which grows from one to the next that did not last.

        Args:
            spare: Which.
            now: The time.

        Returns:
            The pause in seconds; None if nobody wants it any more.
        """
        self._spares.remove(spare)
        want = self._wants.get(spare.owner)
        if want is None:
            return None
        is_first = not want.pause or now - spare.since >= PAUSE_MOST
        want.pause = PAUSE_FIRST if is_first else min(2 * want.pause, PAUSE_MOST)
        want.not_before = max(want.not_before, now + want.pause)
        return want.pause

    def act(self, now: float) -> Due:
        """Return what is to be done now, and take it for done."""
        end: list[Spare] = []
        start: list[Spare] = []
        look_at = FOREVER
        missing = {owner: list(want.recipes) for owner, want in self._wants.items()}
        for spare in sorted(self._spares, key=lambda each: not each.is_ready):
            wished = missing.get(spare.owner, [])
            is_old = now - spare.since >= OLDEST
            if self.is_closed or self.is_short or is_old or spare.recipe not in wished:
                end.append(spare)
            else:
                wished.remove(spare.recipe)
                look_at = min(look_at, spare.since + OLDEST)
        self._spares = [spare for spare in self._spares if spare not in end]
        if self.is_closed or self.is_short:
            return Due((), end, FOREVER)
        on_their_way = {spare.owner for spare in self._spares if not spare.is_ready}
        for owner, recipes in missing.items():
            # One at a time: what is not wanted yet is not to take all processors.
            if not recipes or owner in on_their_way:
                continue
            if now < self._wants[owner].not_before:
                look_at = min(look_at, self._wants[owner].not_before)
            else:
                start.append(Spare(owner, recipes[-1], now))
        self._spares += start
        return Due(start, end, look_at)
