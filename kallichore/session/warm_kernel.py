"""One warm kernel: launched, connected and asked who it is, and then waiting to be taken or ended.

It has a connection file and a key of its own, so that whoever takes it connects as to any kernel. Until then its
process prints into `KeptOutput`, and what it publishes is kept as well: a session is told both, as the first words of
its kernel.
"""

from __future__ import annotations

import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trio
import trio_util

from kallichore.engines.own_child import place_child
from kallichore.engines.placement import Placement, Process
from kallichore.errors import KallichoreError, StartupError, innermost
from kallichore.kernel.ending import Ending
from kallichore.kernel.installation import Installation, find_installation
from kallichore.kernel.launch_plan import uses_handshake
from kallichore.kernel.process import require_descriptors
from kallichore.models.bodies import ConnectionInfo
from kallichore.session.facilities import Facilities
from kallichore.session.kept_output import KeptOutput
from kallichore.session.life import Meet
from kallichore.session.meeting import MeetingPlace
from kallichore.session.taken_process import TakenProcess
from kallichore.session.warm_stock import Spare
from kallichore.session.warm_talk import WarmTalk
from kallichore.wire.client_messages import Sender
from kallichore.zeromq.kernel_channels import open_channels

logger = logging.getLogger(__name__)

START_PATIENCE = 300.0
"""Seconds that one may take from its launch to its first answer. Nobody waits for it, so this is for start-up files
that take minutes; and what takes longer is most likely stuck."""

ANSWER_PATIENCE = 0.5
"""Seconds that one which is about to be taken may take to answer: it needs milliseconds, and a start that waits longer
had better launch another."""

LONGEST_REASON = 500
"""Characters of a kernel's last words that are logged."""


@attrs.define(eq=False)
class WarmKernel:
    """One kernel that nobody has asked for yet.

    Args:
        spare: What the stock knows of it.
        facilities: The server's things.
        on_ready: Called when it has answered.

    Attributes:
        name: What it is called in the log and for the kernel.
        started: When it was launched.
        info: Where it is, once it is connected.
    """

    spare: Spare
    facilities: Facilities
    on_ready: Callable[[], None]
    name: str = attrs.field(factory=lambda: f"warm-{secrets.token_hex(4)}", init=False)
    started: datetime = attrs.field(factory=lambda: datetime.now(UTC), init=False)
    info: ConnectionInfo | None = attrs.field(default=None, init=False)
    _placement: Placement | None = attrs.field(default=None, init=False)
    _outputs: Mapping[str, KeptOutput] = attrs.field(factory=dict, init=False)
    _talk: WarmTalk | None = attrs.field(default=None, init=False)
    """What is said with it, once it is connected."""
    _installation: Installation = attrs.field(init=False)
    _as_it_was: tuple[object, ...] = attrs.field(init=False)
    _end_asked: trio.Event = attrs.field(factory=trio.Event, init=False)
    _hurry: trio.Event = attrs.field(factory=trio.Event, init=False)
    _taken: trio.Event = attrs.field(factory=trio.Event, init=False)
    _let_go: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing here touches the process any more: it was taken, or has ended."""
    _why_given_up: str = attrs.field(default="", init=False)
    _has_ended: bool = attrs.field(default=False, init=False)
    _is_placed: bool = attrs.field(default=False, init=False)
    _over: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the session that took it is done with it."""

    def __attrs_post_init__(self) -> None:
        plan = self.spare.recipe.plan
        self._installation = find_installation(plan.program, plan.environment, self.spare.recipe.directory)
        self._as_it_was = self._installation.look()

    def __repr__(self) -> str:
        state = "taken" if self._taken.is_set() else "ready" if self.spare.is_ready else "starting"
        return f"<WarmKernel {self.name} pid={self.pid} {state} for {self.spare.owner}>"

    @property
    def pid(self) -> int | None:
        """Its process id, once there is a process."""
        return None if self._placement is None else self._placement.process.pid

    @property
    def has_changed(self) -> bool:
        """Whether what it was started from is not any more what it was."""
        return self._installation.look() != self._as_it_was

    # What becomes of it

    def end(self, *, hurry: bool = False) -> None:
        """Begin to end it: by request, then SIGTERM, then SIGKILL. Idempotent; ``hurry`` skips the waits."""
        self._end_asked.set()
        if hurry:
            self._hurry.set()

    async def hand_over(self, told: Mapping[str, str]) -> str:
        """Ask it once more, tell it for whom it works if that is to be told, and let go of it for `place`.

        Must run shielded from cancellation, as half a kernel is nobody's. It takes `ANSWER_PATIENCE` at most.

        Args:
            told: The variables that its session's kernel is to have; it is told them if it was not started with them.

        Returns:
            Why it cannot be taken; then it is ended. Empty if it can.
        """
        if problem := await self._ask_once_more(told):
            self.end()
            return problem
        self._taken.set()
        await self._let_go.wait()
        return "it has ended" if self._has_ended else ""

    async def _ask_once_more(self, told: Mapping[str, str]) -> str:
        if self.has_changed:
            return "what it was started from has changed"
        talk = self._talk
        if talk is None or self._let_go.is_set():
            return "it has ended"
        answers: list[bool] = []

        async def ask() -> None:
            if told == self.spare.recipe.told:
                await talk.is_there()
                answers.append(True)
            else:
                answers.append(await talk.tell(told))

        with trio.move_on_after(ANSWER_PATIENCE):
            await trio_util.wait_any(ask, self._let_go.wait)
        if not answers:
            return "it does not answer any more"
        return "" if answers[0] else "it could not be told for whom it works"

    async def meet(self) -> ConnectionInfo:
        """Return where it is; see `kallichore.session.meeting.Meet`."""
        assert self.info is not None
        return self.info

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Placement]:
        """Give a kernel that was handed over to a session, for the block; the block has to wait for its end."""
        assert self._placement is not None
        assert self._talk is not None
        process = TakenProcess(self._placement.process, self._outputs["stdout"], self._outputs["stderr"])
        self._is_placed = True
        try:
            yield attrs.evolve(self._placement, process=process, said=self._talk.take_said())
        finally:
            self._over.set()

    # Its life

    async def run(self) -> str:
        """Launch it and look after it until it has ended, or whoever took it is done with it.

        Out of a cancellation's reach: `end` is how it is ended, and every wait after that has a bound.

        Returns:
            Why it ended, in words.
        """
        why = ""
        with trio.CancelScope(shield=True):
            try:
                why = await self._launch()
            except StartupError as error:
                why = error.message
            except Exception as error:
                logger.exception("Looking after the warm kernel %s failed", self.name)
                why = str(innermost(error))
                await self._kill()
            finally:
                self._let_go.set()
        return why

    async def _kill(self) -> None:
        if self._placement is not None:
            self._placement.process.kill_or_give_up()
            await self._placement.process.wait()
            self._placement.note_end()
            await self._close_outputs()

    async def _close_outputs(self) -> None:
        for output in self._outputs.values():
            await output.aclose()

    async def _launch(self) -> str:
        recipe, facilities = self.spare.recipe, self.facilities
        request = attrs.evolve(recipe.request, session_id=self.name)
        meeting = MeetingPlace(request, secrets.token_hex(16), facilities, facilities.runtime_directory)
        async with self._open_meeting(meeting) as (path, meet):
            plan = recipe.plan_at(str(path))
            async with place_child(plan, facilities.watchdog, facilities.runtime_directory) as self._placement:
                ending = await self._look_after(self._placement.process, meet, meeting.release_ports)
                if ending is None:
                    await trio_util.wait_any(self._over.wait, self._end_if_nobody_has_it)
                    return "it was taken"
                self._placement.note_end()
        return self._describe(ending)

    async def _end_if_nobody_has_it(self) -> None:
        """Kill it at the server's end, if whoever took it never ran it: nobody else would ever end it."""
        await self._end_asked.wait()
        if self._is_placed:
            await trio.sleep_forever()
        await self._kill()

    def _open_meeting(self, meeting: MeetingPlace) -> AbstractAsyncContextManager[tuple[Path, Meet]]:
        if not uses_handshake(self.spare.recipe.request.protocol_version):
            return meeting.open_connection()
        return meeting.open_handshake(self._sender, START_PATIENCE, lambda _: None)

    @property
    def _sender(self) -> Sender:
        request = self.spare.recipe.request
        return Sender(self.name, request.username, request.protocol_version or "5.3")

    async def _look_after(self, process: Process, meet: Meet, when_connected: Callable[[], None]) -> Ending | None:
        """Return how the process ended; None if the kernel was taken, and so is somebody else's to look after."""
        self._outputs = {"stdout": KeptOutput(process.stdout), "stderr": KeptOutput(process.stderr)}
        ending = None
        try:
            async with trio.open_nursery() as pipes:
                for output in self._outputs.values():
                    pipes.start_soon(output.keep)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._meet_and_wait, meet, when_connected)
                    nursery.start_soon(self._end_when_asked, process)
                    nursery.start_soon(self._cancel_when_taken, nursery.cancel_scope)
                    ending = await process.wait()
                    nursery.cancel_scope.cancel()
                pipes.cancel_scope.deadline = trio.current_time() + (
                    0.0 if ending is None else self.facilities.config.drain_grace
                )
        finally:
            self._has_ended = ending is not None
            self._let_go.set()
        if ending is not None:
            await self._close_outputs()
        return ending

    async def _cancel_when_taken(self, scope: trio.CancelScope) -> None:
        await self._taken.wait()
        scope.cancel()

    async def _end_when_asked(self, process: Process) -> None:
        await self._end_asked.wait()
        config = self.facilities.config
        if self._talk is not None:
            self._talk.ask_to_end()
            await self._grace(config.shutdown_grace)
        with suppress(ProcessLookupError, PermissionError):
            process.send_signal_to_group(signal.SIGTERM)
            await self._grace(config.terminate_grace)
        process.kill_or_give_up()

    async def _grace(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._hurry.wait()

    async def _meet_and_wait(self, meet: Meet, when_connected: Callable[[], None]) -> None:
        """Connect, ask it who it is, and keep what it publishes; what goes wrong ends it."""
        try:
            require_descriptors()
            with trio.fail_after(START_PATIENCE):
                self.info = await meet()
            async with open_channels(self.info, self.name) as channels:
                await self._become_ready(WarmTalk(channels, self._sender), when_connected)
        except* trio.TooSlowError:
            self._give_up(f"it did not answer within {START_PATIENCE:g} seconds")
        except* (OSError, KallichoreError) as errors:
            self._give_up(f"it could not be connected: {innermost(errors)}")

    def _give_up(self, why: str) -> None:
        self._why_given_up = why
        self.end()

    async def _become_ready(self, talk: WarmTalk, when_connected: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(START_PATIENCE):
                await talk.channels.wait_connected()
                when_connected()
                self._talk = talk
                nursery.start_soon(talk.keep_what_it_says)
                self.spare.can_be_told = await talk.introduce()
            self.spare.is_ready = True
            self.on_ready()

    def _describe(self, ending: Ending) -> str:
        if self._why_given_up:
            return self._why_given_up
        last_words = self._outputs["stderr"].kept.decode("utf-8", "replace").strip()[-LONGEST_REASON:]
        return f"its process {ending.describe()}" + (f": {last_words}" if last_words else "")
