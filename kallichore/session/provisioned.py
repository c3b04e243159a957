"""The kernels of a session that a provisioner of Jupyter's launches, in the server's place."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from kallichore.conversation.conversation import Conversation
from kallichore.engines.placement import Placement
from kallichore.engines.provisioner import ProvisionerOrder, place_by_provisioner
from kallichore.errors import HostGoneError
from kallichore.kernel.connection_choice import encryption_policy, is_private
from kallichore.kernel.launch_plan import LaunchPlan, make_provisioned_plan
from kallichore.kernel.leftovers import record_kernel
from kallichore.models.bodies import KernelProvisioner, NewSession, VarAction
from kallichore.session.facilities import Facilities
from kallichore.session.keep import Found
from kallichore.session.life import KernelLife
from kallichore.session.meeting import MeetingPlace, can_encrypt

logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class Provisioned:
    """Places the kernels of one session by a provisioner.

    Args:
        request: What the session was created with.
        wanted: Which provisioner.
        key: The key that signs messages.
        facilities: The server's things.
        conversation: The session's.
        meeting: Is told where a kernel is.
    """

    request: NewSession
    wanted: KernelProvisioner
    key: str
    facilities: Facilities
    conversation: Conversation
    meeting: MeetingPlace

    def plan(self, actions: Sequence[VarAction], working_directory: str) -> LaunchPlan:
        """Return what is to be launched.

        Args:
            actions: What is changed in the environment.
            working_directory: The session's directory.
        """
        return make_provisioned_plan(
            self.request,
            actions=actions,
            working_directory=working_directory,
            surroundings=self.facilities.surroundings,
            inherited=dict(self.facilities.additions.of(self.request)),
        )

    @asynccontextmanager
    async def place(self, life: KernelLife, plan: LaunchPlan, actions: Sequence[VarAction]) -> AsyncIterator[Placement]:
        """Have a kernel started; see `kallichore.engines.provisioner.place_by_provisioner`.

        Args:
            life: The life that it will have.
            plan: What to start.
            actions: What is changed in the environment.
        """
        assert self.facilities.provisioners is not None
        life.is_launched = True
        order = ProvisionerOrder(
            session_id=self.request.session_id,
            wanted=self.wanted,
            argv=plan.argv,
            environment=plan.environment,
            own=frozenset(action.name for action in actions),
            working_directory=plan.working_directory,
            key=self.key,
            display_name=self.request.display_name,
            language=self.request.language,
            interrupt_mode=self.request.interrupt_mode,
            encryption=encryption_policy(self.request, self.facilities.config),
            can_encrypt=can_encrypt(),
        )

        def tell(text: str) -> None:
            logger.warning("[session %s] %s", self.request.session_id, text)
            self.conversation.say_output("stderr", f"[kallichore] {text}\n")

        whereabouts = self.conversation.whereabouts
        whereabouts.note_pending(f"The provisioner {self.wanted.provisioner_name!r} launches it", time.time())
        async with place_by_provisioner(
            self.facilities.provisioners(),
            order,
            stop_asked=life.stop_asked,
            is_restarting=lambda: life.restarting,
            tell=tell,
        ) as placement:
            assert placement.info is not None
            whereabouts.note_no_longer_pending()
            self.meeting.learn(placement.info)
            if not is_private(placement.info):
                tell(f"What passes between this server and the kernel at {placement.info.ip} is not encrypted")
            yield self._guarded(placement)

    def _guarded(self, placement: Placement) -> Placement:
        """Have a kernel that is a process of this machine end when the server is killed, however that is done."""
        pid, watchdog = placement.process.pid, self.facilities.watchdog
        if pid == 0:
            return placement
        watchdog.guard(pid)
        record_kernel(self.facilities.runtime_directory, pid)
        return attrs.evolve(placement, note_end=lambda: watchdog.release(pid))

    async def let_go(self) -> None:
        """Do nothing: what was launched is gone."""

    def find(self, life: KernelLife, found: Found) -> AbstractAsyncContextManager[Placement]:
        """Find none: what a provisioner launched ends with the server.

        Raises:
            HostGoneError: Always.
        """
        raise HostGoneError("what a provisioner launched ends with its server")
