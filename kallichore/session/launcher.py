"""How a session's kernels come to be: what is launched, by whom, and where the server and the kernel meet.

A kernel is the server's own child, or has a host beside it that outlives the server, or was ready before it was asked
for; or it is not ours to launch at all, and an engine or a provisioner does it elsewhere.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from kallichore.conversation.conversation import Conversation
from kallichore.engines.own_child import place_child
from kallichore.engines.placement import Placement, Process
from kallichore.errors import EngineError, StartupError
from kallichore.kernel.inheritance import Inheritance
from kallichore.kernel.launch_plan import LaunchPlan, make_launch_plan, uses_handshake
from kallichore.kernel.working_directory import current_directory
from kallichore.models.bodies import ConnectionInfo, InterruptMode, NewSession, VarAction
from kallichore.models.converter import unstructure
from kallichore.session.adoption import run_adopted
from kallichore.session.facilities import Facilities
from kallichore.session.life import KernelLife, Meet
from kallichore.session.meeting import MeetingPlace
from kallichore.session.warm_recipe import Recipe, make_recipe
from kallichore.session.warm_stock import REFILL_AFTER, Owner

if TYPE_CHECKING:
    # Each is imported for the first session that needs it: most are the server's own children.
    from kallichore.engines.registry import Wish
    from kallichore.session.elsewhere import Elsewhere
    from kallichore.session.keep import Found, Keep
    from kallichore.session.provisioned import Provisioned
    from kallichore.session.warm_kernel import WarmKernel

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Launcher:
    """Launches the kernels of one session, over all its lives.

    Args:
        request: What the session was created with.
        key: The key that signs its kernels' messages.
        facilities: The server's things.
        conversation: The session's.
        keep: What the session has on the disk, if it outlives its server.
        on_launch: Called right before a kernel is launched that outlives the server.

    Attributes:
        actions: What is changed in the environment.
        initial_env: The environment of the latest kernel that was launched.
        meeting: Where its kernels are met.
    """

    request: NewSession
    key: str
    facilities: Facilities
    conversation: Conversation
    keep: Keep | None
    on_launch: Callable[[], None]
    actions: Sequence[VarAction] = attrs.field(init=False)
    initial_env: dict[str, str] = attrs.field(factory=dict, init=False)
    meeting: MeetingPlace = attrs.field(init=False)
    _inheritance: Inheritance | None = attrs.field(default=None, init=False)
    _elsewhere: Elsewhere | Provisioned | None = attrs.field(default=None, init=False)
    """Places kernels where they are not ours to launch, if the session asks for that."""

    def __attrs_post_init__(self) -> None:
        self.actions = self.request.env
        directory = self.facilities.runtime_directory if self.keep is None else self.keep.directory
        self.meeting = MeetingPlace(self.request, self.key, self.facilities, directory, has_host=self.keep is not None)
        self._elsewhere = self._choose_place()
        if self.facilities.open_inheritance is not None:
            self._inheritance = self.facilities.open_inheritance(self.request.interrupt_mode is InterruptMode.SIGNAL)

    def _choose_place(self) -> Elsewhere | Provisioned | None:
        common = self.key, self.facilities, self.conversation, self.meeting
        if (wanted := self.request.kernel_provisioner) is not None:
            from kallichore.session.provisioned import Provisioned

            return Provisioned(self.request, wanted, *common)
        wish = self._read_wish()
        if wish is None:
            return None
        from kallichore.session.elsewhere import Elsewhere

        return Elsewhere(self.request, wish, *common, self.keep)

    def _read_wish(self) -> Wish | None:
        """Return what is asked of an engine: as it is said now, or where that says nothing any more, as it was."""
        try:
            return self.facilities.engines.read(self.request.engine)
        except EngineError:
            known = None if self.keep is None else self.keep.wish
            if known is None:
                raise
            return known

    @property
    def session_id(self) -> str:
        """The session."""
        return self.request.session_id

    @property
    def is_elsewhere(self) -> bool:
        """Whether its kernels are not ours to launch."""
        return self._elsewhere is not None

    def interrupt(self, process: Process) -> None:
        """Interrupt a kernel by a signal, or by what stands for one.

        Raises:
            OSError: It could not be sent.
        """
        if self._inheritance is not None:
            self._inheritance.interrupt()
        else:
            process.send_signal_to_group(signal.SIGINT)

    def close(self) -> None:
        """Let go of reserved ports, of kernels that are kept ready, and of what kernels inherit."""
        self.meeting.release_ports()
        self.facilities.warm.forget(Owner(session_id=self.session_id))
        if self._inheritance is not None:
            self._inheritance.close()

    async def let_go(self) -> None:
        """End what was kept for a next kernel, as there will be none."""
        if self._elsewhere is not None:
            await self._elsewhere.let_go()

    # Launching

    async def run(self, life: KernelLife) -> None:
        """Launch a kernel, and run its life.

        Raises:
            StartupError: There is none.
        """
        if await self._run_warm(life):
            return
        async with self._open_meeting(life) as (path, meet):
            plan = self._plan(path)
            self.initial_env = plan.environment
            for warning in plan.warnings:
                logger.warning("[session %s] %s", self.session_id, warning)
            await life.run_launched(plan, self._place(life, plan), meet, self.meeting.release_ports)

    def _place(self, life: KernelLife, plan: LaunchPlan) -> AbstractAsyncContextManager[Placement]:
        """Return what launches a kernel: as our child, with a host that outlives us, or on another machine."""
        if self.keep is not None:
            life.is_launched = True
            self.note_launch(life)
            self.on_launch()
        if self._elsewhere is not None:
            return self._elsewhere.place(life, plan, self.actions)
        if self.keep is None:
            return place_child(plan, self.facilities.watchdog, self.facilities.runtime_directory)
        from kallichore.engines.beside_host import place_beside_host

        abandon_after = self.facilities.config.abandon_after
        return place_beside_host(plan, self.keep.directory, self.keep.secret, abandon_after=abandon_after)

    def note_launch(self, life: KernelLife | None) -> None:
        """Write down what the next server has to know of a kernel that is launched, or is to be.

        Args:
            life: Its life; None where it has none yet.
        """
        if self.keep is not None:
            # A kernel that has yet to register has no ports: those that are known are of the one before.
            info = None if life is not None and life.in_handshake else self.meeting.info
            self.keep.note_launch(self.actions, self.initial_env, info)

    def _open_meeting(self, life: KernelLife) -> AbstractAsyncContextManager[tuple[Path, Meet]]:
        if self._elsewhere is not None:
            return self.meeting.open_elsewhere()
        if not uses_handshake(self.request.protocol_version):
            return self.meeting.open_connection()

        def on_registered(info: ConnectionInfo) -> None:
            life.in_handshake = False
            self.note_launch(life)
            self.conversation.say("handshakeCompleted", [self.session_id, unstructure(info)])

        life.in_handshake = True
        return self.meeting.open_handshake(life.sender, self.request.connection_timeout, on_registered)

    def _planner(self) -> Callable[..., LaunchPlan]:
        """Return what plans the next launch, as things are now, for a ``connection_file``."""
        return partial(
            make_launch_plan,
            self.request,
            actions=self.actions,
            working_directory=self.conversation.working_directory,
            surroundings=self.facilities.surroundings,
            inherited={
                **({} if self._inheritance is None else self._inheritance.environment),
                **self.facilities.additions.of(self.request),
            },
            handles=() if self._inheritance is None else self._inheritance.handles,
        )

    def _plan(self, path: Path) -> LaunchPlan:
        if self._elsewhere is not None:
            return self._elsewhere.plan(self.actions, self.conversation.working_directory)
        plan = self._planner()(connection_file=str(path))
        self.conversation.move_to(plan.moved_to)
        return plan

    # Kernels that were launched before

    @property
    def _may_be_warm(self) -> bool:
        # Somebody who was told the ports is to find the kernel there; and what outlives us has a host of its own.
        is_here = self._inheritance is None and self._elsewhere is None
        return is_here and self.keep is None and not self.meeting.is_promised

    def _recipe(self) -> Recipe:
        planner = self._planner()
        return make_recipe(
            self.request, self.meeting.choose(), lambda path: planner(connection_file=path), current_directory()
        )

    async def _run_warm(self, life: KernelLife) -> bool:
        """Run a kernel that is ready already, if there is one that fits; False if there is none."""
        pool = self.facilities.warm
        if not self._may_be_warm or pool.is_empty:
            return False
        recipe = self._recipe()
        kernel = await pool.take(recipe, self.session_id)
        if kernel is None:
            return False
        self._take(kernel, recipe.plan)
        await life.run_launched(recipe.plan, kernel.place(), kernel.meet, self.meeting.release_ports)
        return True

    def _take(self, kernel: WarmKernel, plan: LaunchPlan) -> None:
        logger.info("[session %s] Takes the warm kernel %s, process %s", self.session_id, kernel.name, kernel.pid)
        for warning in plan.warnings:
            logger.warning("[session %s] %s", self.session_id, warning)
        self.initial_env, self.meeting.info = plan.environment, kernel.info
        self.conversation.move_to(plan.moved_to)
        if uses_handshake(self.request.protocol_version):
            self.conversation.say("handshakeCompleted", [self.session_id, unstructure(kernel.info)])

    def keep_spares(self) -> None:
        """Have others like the kernel that has just answered be ready for its restarts, if the session wants that."""
        if self.request.spares and self._may_be_warm:
            # What cannot be planned any more, as a script is gone, is told at the restart that needs it.
            with suppress(StartupError):
                owner = Owner(session_id=self.session_id)
                self.facilities.warm.want(owner, self.request.spares, self._recipe(), after=REFILL_AFTER)

    # What outlives a server

    def restore(self, keep: Keep) -> None:
        """Know what another server launched."""
        self.actions, self.initial_env, self.meeting.info = keep.launched()

    async def run_found(self, life: KernelLife, found: Found) -> None:
        """Look for the kernel that another server launched, and run the rest of its life.

        Args:
            life: Its life.
            found: What is known of it.
        """
        assert self.keep is not None
        info, meet = self.meeting.info, None
        if life.is_adopted and info is not None:
            await run_adopted(life, info, self.meeting.release_ports)
            return
        if self._elsewhere is not None:
            placing, meet = self._elsewhere.find(life, found), self.meeting.known
        else:
            from kallichore.engines.beside_host import find_beside_host

            placing = find_beside_host(self.keep.directory, self.keep.secret, found.positions, found.sent)
        with self.meeting.open_found(info):
            await life.run_found(placing, info, self.meeting.release_ports, found.end, meet)
