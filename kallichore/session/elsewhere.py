"""The kernels of a session that run on other machines: how they are ordered, placed and found again."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import trio_util

from kallichore.conversation.conversation import Conversation
from kallichore.engines.elsewhere import Follower, as_start, place_elsewhere
from kallichore.engines.engine import Engine, Order, Ticket, Waiting
from kallichore.engines.held_job import HeldJob, hold_job
from kallichore.engines.placement import Placement
from kallichore.engines.registry import Wish
from kallichore.errors import EngineError, HostGoneError, KallichoreError, StartupError, StartupReason
from kallichore.kernel.connection_choice import choose_connection
from kallichore.kernel.launch_plan import CONNECTION_FILE, LaunchPlan, Surroundings, make_launch_plan, safe_name
from kallichore.models.bodies import ConnectionInfo, NewSession, VarAction
from kallichore.session.facilities import Facilities
from kallichore.session.keep import TICKET, WISH, Found, Keep, read_body
from kallichore.session.life import KernelLife
from kallichore.session.meeting import MeetingPlace, can_encrypt

KERNELSPEC = "kernelspec"
"""The option of engines that know the kernels which are installed over there: the name of one."""

SHELL = "/bin/bash"
"""The shell of startup environments over there: which one the user has there is not known before."""


@attrs.define(eq=False)
class Elsewhere:
    """Places the kernels of one session by an engine.

    Args:
        request: What the session was created with.
        wish: What of that is for the engine.
        key: The key that signs messages.
        facilities: The server's things.
        conversation: The session's.
        meeting: Is told where a kernel is.
        keep: Its place in the state directory, if it outlives its server.
    """

    request: NewSession
    wish: Wish
    key: str
    facilities: Facilities
    conversation: Conversation
    meeting: MeetingPlace
    keep: Keep | None
    _held: HeldJob | None = attrs.field(default=None, init=False)
    """The job of the kernel before, if another is to follow in its place."""

    def plan(self, actions: Sequence[VarAction], working_directory: str) -> LaunchPlan:
        """Return what is to be launched. Nothing of this machine is in it: neither its environment nor its paths.

        Args:
            actions: What is changed in the environment over there, which is the host's affair.
            working_directory: The session's directory.

        Raises:
            StartupError: ``KS-5``, there is no ``argv``.
        """
        if not self.request.argv and KERNELSPEC in self.wish.options:
            # Its command line is known over there.
            name = str(self.wish.options[KERNELSPEC])
            return LaunchPlan(argv=(), program=name, environment={}, working_directory=working_directory or None)
        there = Surroundings(
            environment={"SHELL": SHELL},
            home="~",
            platform="linux",
            exists=lambda path: path == SHELL,
            is_file=bool,
            is_directory=bool,
        )
        plan = make_launch_plan(
            self.request,
            actions=(),
            connection_file=CONNECTION_FILE,
            working_directory=working_directory,
            surroundings=there,
        )
        return attrs.evolve(plan, environment={})

    @asynccontextmanager
    async def place(self, life: KernelLife, plan: LaunchPlan, actions: Sequence[VarAction]) -> AsyncIterator[Placement]:
        """Have a kernel started: where the one before it was, if that is to be restarted, else by a new job.

        Args:
            life: The life that it will have.
            plan: What to start.
            actions: What is changed in the environment.
        """
        held, self._held = self._held, None
        order = self._order(plan, actions, secrets.token_bytes(32) if self.keep is None else self.keep.secret)
        if held is not None and held.order.actions != order.actions:
            await held.end()
        elif held is not None and not held.over.is_set():
            with suppress(HostGoneError):
                async with self._reach(held, life, plan) as placement:
                    yield placement
                return
        try:
            engine = await self.facilities.engines.get(self.wish.kind)
            engine.check_options(self.wish.options)
            ticket = engine.ticket(order)
            self._note(ticket)
            held = await self._submit(engine, order, ticket, life)
        except (KallichoreError, BaseExceptionGroup) as error:
            raise as_start(error) from error
        try:
            async with self._reach(held, life, plan) as placement:
                yield placement
        except HostGoneError as error:
            text = f"The kernel has no machine: {error.message}"
            raise StartupError("KS-5", text, reason=StartupReason.NO_MACHINE) from error

    @asynccontextmanager
    async def find(self, life: KernelLife, found: Found) -> AsyncIterator[Placement]:
        """Find the kernel that a server before this one had started.

        Args:
            life: The life that it will have.
            found: What is known of it.

        Raises:
            HostGoneError: It is gone.
        """
        assert self.keep is not None
        ticket = self.keep.record.facts.get(TICKET)
        if ticket is None:
            raise HostGoneError("its server was ended before it was submitted")
        plan = self.plan((), self.conversation.working_directory)
        order = self._order(plan, self.keep.launched()[0], self.keep.secret)
        try:
            engine = await self.facilities.engines.get(self.wish.kind)
            held = await self._hold(engine, order, ticket, life, is_new=False)
        except EngineError as error:
            raise HostGoneError(error.message) from error
        async with self._reach(held, life, plan, found) as placement:
            yield placement

    async def _submit(self, engine: Engine, order: Order, ticket: Ticket, life: KernelLife) -> HeldJob:
        async with trio_util.move_on_when(life.unwanted.wait):
            return await self._hold(engine, order, ticket, life, is_new=True)
        text = "The start was given up before its job was submitted"
        raise StartupError("KS-16", text, reason=StartupReason.GIVEN_UP)

    async def let_go(self) -> None:
        """End the job of the kernel before, if it was kept for one that will not come."""
        held, self._held = self._held, None
        if held is not None:
            await held.end()

    async def _hold(self, engine: Engine, order: Order, ticket: Ticket, life: KernelLife, *, is_new: bool) -> HeldJob:
        tell = self._follower(life).tell_waiting
        held: HeldJob = await self.facilities.engines.start(hold_job, engine, order, ticket, tell, is_new)
        return held

    @asynccontextmanager
    async def _reach(
        self, held: HeldJob, life: KernelLife, plan: LaunchPlan, found: Found | None = None
    ) -> AsyncIterator[Placement]:
        async with place_elsewhere(
            *(held, self._follower(life), plan.working_directory),
            positions={} if found is None else found.positions,
            unaccepted=() if found is None else found.sent,
        ) as placement:
            yield self._begin(placement)
        if not held.is_unneeded:
            self._held = held

    def _begin(self, placement: Placement) -> Placement:
        assert placement.link is not None
        document = placement.link.hello.connection
        if document is None:
            raise StartupError("KS-6", "The host beside the kernel does not say where its sockets are")
        self.meeting.learn(read_body(document, ConnectionInfo))
        # Where nobody writes down what comes, nobody says either that the host need not keep it.
        placement.link.confirms = self.keep is None
        return placement

    def _note(self, ticket: Ticket) -> None:
        if self.keep is not None:
            wish = {"kind": self.wish.kind, "options": dict(self.wish.options)}
            self.keep.note({TICKET: dict(ticket), WISH: wish})

    def _order(self, plan: LaunchPlan, actions: Sequence[VarAction], secret: bytes) -> Order:
        choice = choose_connection(self.request, self.facilities.config, "linux", can_encrypt, has_host=True)
        return Order(
            session_id=self.request.session_id,
            label=re.sub(r"[^A-Za-z0-9_-]+", "-", safe_name(self.request.session_id)),
            secret=secret,
            argv=plan.argv,
            actions=[(action.action.value, action.name, action.value) for action in actions],
            working_directory=plan.working_directory,
            connection={"key": self.key, "signature_scheme": "hmac-sha256", "transport": choice.transport.value},
            abandon_after=self.facilities.config.abandon_after,
            options=self.wish.options,
        )

    def _follower(self, life: KernelLife) -> Follower:
        whereabouts = self.conversation.whereabouts

        def tell_waiting(waiting: Waiting | None) -> None:
            if waiting is None:
                whereabouts.note_no_longer_pending()
            else:
                whereabouts.note_pending(waiting.reason, waiting.since, waiting.expected_start, waiting.position)

        def tell_cut(reason: str | None) -> None:
            if reason is None:
                whereabouts.note_connected()
            else:
                whereabouts.note_cut(reason, time.time())

        def tell_place(job: str, node: str | None, ends: float | None) -> None:
            whereabouts.note_place(self.wish.kind, job, node, ends)
            warning = None if ends is None else whereabouts.take_warning(ends - time.time())
            if warning is not None:
                self.conversation.say_output("stderr", f"[kallichore] {warning}\n")

        return Follower(
            tell_waiting=tell_waiting,
            tell_cut=tell_cut,
            tell_place=tell_place,
            unwanted=life.unwanted,
            is_left=lambda: life.is_left,
            is_restarting=lambda: life.restarting,
        )
