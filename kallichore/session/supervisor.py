"""The kernels of a session, one at a time: who asks for them, and the task that runs them.

What is asked for changes the state at once, and is waited for; the lives of the kernels run in `run_lives`, one after
another, so that nobody who merely waits for a start, an HTTP client that goes away for one, can cancel it midway. What
may follow what is the table of `kallichore.conversation.supervision`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine, MutableSequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio_util

from kallichore.conversation.conversation import Conversation
from kallichore.conversation.status import StatusEvent
from kallichore.conversation.supervision import Event, Phase, Refusal, move
from kallichore.errors import (
    AdoptionError,
    HostRefusedError,
    InterruptError,
    NoProcessError,
    ProcessNotFoundError,
    SessionNotRunningError,
    StartupError,
    StartupReason,
    innermost,
)
from kallichore.models.bodies import (
    ConnectionInfo,
    InterruptMode,
    NewSession,
    RestartSession,
    Status,
)
from kallichore.session.adoption import run_adopted
from kallichore.session.facilities import Facilities
from kallichore.session.launcher import Launcher
from kallichore.session.life import CULLED, KernelLife
from kallichore.session.pending import Pending
from kallichore.wire.channels import TO_KERNEL
from kallichore.wire.client_messages import ClientMessage, Sender

if TYPE_CHECKING:
    from kallichore.session.keep import Found, Keep
    from kallichore.session.keeper import Keeper

logger = logging.getLogger(__name__)

HOST_PATIENCE = 5.0
"""Seconds that a host which is to be let go may take to answer; it needs milliseconds."""

JOB_PATIENCE = 20.0
"""Seconds that may pass until a job has ended which was kept for a kernel that does not come; see `held_job`."""

OUTBOX_MESSAGES = 10_000
"""Clients' messages kept for a kernel that is still starting. A client that sends more before its kernel is there is
refused, with an answer and a log line: nobody types that fast, so it is a loop gone wild."""

RunLife = Callable[[], Coroutine[Any, Any, None]]


@attrs.define(eq=False)
class Supervisor:
    """Looks after the kernels of one session.

    Args:
        request: What the session was created with.
        key: The key that signs its kernels' messages.
        sender: Who kernels are told its messages come from.
        facilities: The server's things.
        conversation: What the session decides with, over all its kernels.
        on_cancelled: Called when the task that runs its kernels is cancelled; begins their end, or leaves them.
        keep: What the session has on the disk, if it outlives its server.

    Attributes:
        keeper: Writes down what happens, if the session outlives its server.
        launcher: Launches its kernels.
    """

    request: NewSession
    key: str
    sender: Sender
    facilities: Facilities
    conversation: Conversation
    on_cancelled: Callable[[], None]
    keep: Keep | None = None
    keeper: Keeper | None = attrs.field(default=None, init=False)
    launcher: Launcher = attrs.field(init=False)
    _phase: trio_util.AsyncValue[Phase] = attrs.field(factory=lambda: trio_util.AsyncValue(Phase.RESTING), init=False)
    _life: KernelLife | None = attrs.field(default=None, init=False)
    """The kernel that is there, or is on its way."""
    _next: KernelLife | None = attrs.field(default=None, init=False)
    """The one that follows, during a restart."""
    _run: RunLife | None = attrs.field(default=None, init=False)
    """Runs the life that is to begin."""
    _life_given: trio.Event = attrs.field(factory=trio.Event, init=False)
    outbox: deque[ClientMessage] = attrs.field(factory=deque, init=False)
    """Clients' messages for a kernel that is not ready yet."""

    def __attrs_post_init__(self) -> None:
        self.launcher = Launcher(
            self.request, self.key, self.facilities, self.conversation, self.keep, self._begin_launch
        )

    def _begin_launch(self) -> None:
        """Write down that a kernel is about to be launched, before it is."""
        if self.keeper is not None:
            self.keeper.forget_kernel()
            self.keeper.commit()

    # What it is doing

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        phase: Phase = self._phase.value
        return phase

    @property
    def watched_phase(self) -> trio_util.AsyncValue[Phase]:
        """The same, to wait for. Only the supervisor changes it."""
        return self._phase

    @property
    def is_ending(self) -> bool:
        """Whether the end of the kernel that is there has begun. A client's request is none: kernels may decline it."""
        return self._life is not None and self._life.stop_asked.is_set()

    @property
    def life(self) -> KernelLife | None:
        """The kernel that is there, or is on its way."""
        return self._life

    @property
    def session_id(self) -> str:
        """The session."""
        return self.request.session_id

    @property
    def status(self) -> Status:
        """The session's status."""
        return self.conversation.status.current

    # What goes to the kernel

    def send(self, message: ClientMessage) -> None:
        """See `kallichore.session.session.Session.send`."""
        conversation = self.conversation
        status = conversation.status.current
        if message.channel not in TO_KERNEL:
            text = "[session %s] Dropped %s: kernels take nothing on %s"
            logger.warning(text, self.session_id, message.msg_type, message.channel)
        elif self.phase is Phase.RESTARTING and (message.channel == "shell" or status is Status.EXITED):
            # For the kernel to come: this one is asked to end.
            conversation.requests.add(message)
            self._keep(conversation.held, message)
        elif status is Status.EXITED:
            logger.warning("[session %s] Refused %s: the kernel has exited", self.session_id, message.msg_type)
            conversation.refuse(message, "KernelExited", "The kernel has exited; start or restart it first")
        elif (following := conversation.tell(message, trio.current_time())) is None:
            return
        elif self._life is None:
            self._keep(self.outbox, following)
        else:
            self._life.send(following)

    def _keep(self, waiting: MutableSequence[ClientMessage], message: ClientMessage) -> None:
        """Keep a message for a kernel that is not there yet."""
        if len(waiting) >= OUTBOX_MESSAGES:
            logger.warning("[session %s] Too many messages wait for the kernel; refused one", self.session_id)
            self.conversation.refuse(message, "TooManyRequests", f"{OUTBOX_MESSAGES} requests wait for the kernel")
        else:
            waiting.append(message)

    # Starting

    async def start(self) -> dict[str, Any]:
        """See `kallichore.session.session.Session.start`."""
        starting = self._allow(Event.START)
        self._require_argv()
        self._phase.value = starting
        return await self._launch(self._make_life()).wait()

    async def wait_ready(self) -> None:
        """See `kallichore.session.session.Session.wait_ready`."""
        life = self._next or self._life
        if life is not None:
            await life.started.wait()

    def _require_argv(self) -> None:
        if not self.request.argv and not self.launcher.is_elsewhere:
            raise StartupError(
                "KS-5",
                f"Session {self.session_id} has no argv to start; it can only adopt a kernel",
                reason=StartupReason.NO_ARGV,
            )

    def _allow(self, event: Event) -> Phase:
        """Return the phase that an event leads to.

        Raises:
            StartupError: It is refused in this phase.
        """
        phase = move(self.phase, event)
        if isinstance(phase, Refusal):
            raise StartupError(phase.value, self._refusal(phase))
        return phase

    def _move(self, event: Event) -> None:
        """Go on to the phase that an event leads to, which is never refused."""
        self._phase.value = _phase_after(self.phase, event)

    def _refusal(self, refusal: Refusal) -> str:
        match refusal:
            case Refusal.HAS_KERNEL:
                return f"Session {self.session_id} has a kernel already ({self.status.value}); restart it instead"
            case Refusal.CHANGING:
                return f"Session {self.session_id} is starting or restarting already"
            case Refusal.ENDING:
                return "The server is shutting down"

    def _make_life(self) -> KernelLife:
        return KernelLife(
            self.facilities,
            self.conversation,
            self.sender,
            self.request.connection_timeout,
            self.outbox,
            self._become_ready,
            self.keeper,
        )

    def _become_ready(self) -> None:
        """Note that the kernel has answered, and have others like it be ready for its restarts."""
        self._move(Event.READY)
        self.launcher.keep_spares()

    def _launch(self, life: KernelLife) -> Pending[dict[str, Any]]:
        """Have the supervisor run a life that launches a kernel."""
        self._give(life, lambda: self._run_launched(life))
        self._change(StatusEvent.START_REQUESTED, "start requested")
        return life.started

    def _give(self, life: KernelLife, run: RunLife) -> None:
        if self.keeper is not None:
            # The numbers of what was said before are to be known.
            self.keeper.commit()
        self.conversation.begin_life()
        self._life, self._run = life, run
        self._life_given.set()

    def _change(self, event: StatusEvent, reason: str) -> None:
        self.conversation.change_status(event, reason, trio.current_time())

    async def _run_launched(self, life: KernelLife) -> None:
        try:
            await self.launcher.run(life)
        except StartupError as error:
            if life.is_left:
                return
            life.over.set()
            self.conversation.whereabouts.clear()
            self._change(StatusEvent.EXITED, error.message)
            life.started.fail(error)

    # What outlives a server

    def describe(self) -> dict[str, Any]:
        """Return what the next server has to know of what this is doing; see `take_over`."""
        life = self._life
        if life is not None and life.over.is_set():
            # Its end is written down together with what follows from it, however soon the server is killed.
            return {"phase": _phase_after(self.phase, Event.GONE).name, "is_launched": False}
        described: dict[str, Any] = {"phase": self.phase.name}
        if life is not None:
            described |= {
                "is_launched": life.is_launched,
                "is_adopted": life.is_adopted,
                "attempt": life.attempt,
                "process": life.identity,
                "requested_by": life.requested_by,
                "why_culled": life.why_culled,
                "is_stopping": life.stop_asked.is_set(),
                "last_words": tuple(life.last_words),
            }
        return described

    def take_over(self, found: Found) -> None:
        """Go on with what another supervisor did that is gone with its server. Called before `run_lives`.

        Args:
            found: What is known of that.
        """
        assert self.keep is not None
        self.launcher.restore(self.keep)
        if found.is_launched and found.phase.has_kernel:
            self._take_over_kernel(found)
        elif found.phase is Phase.STARTING:
            self._take_over_start()

    def _take_over_start(self) -> None:
        """Launch the kernel that was asked for, and that the other supervisor did not come to launch."""
        self._phase.value = Phase.STARTING
        life = self._make_life()
        if self.status is Status.STARTING:
            self._give(life, lambda: self._run_launched(life))
        else:
            self._launch(life)
        for message in self.conversation.take_held():
            self.send(message)

    def _take_over_kernel(self, found: Found) -> None:
        """Look after the kernel that was launched, if it is there yet, and see to what was to become of it."""
        life = self._make_life()
        life.expect(found)
        life.attempt = found.attempt if self.conversation.is_introduced else found.attempt + 1
        self._life, self._run = life, lambda: self.launcher.run_found(life, found)
        self._life_given.set()
        # One that was to end with its server ends; but this server does not, so another may follow.
        is_restarting = found.phase is Phase.RESTARTING
        self._phase.value = Phase.RESTARTING if is_restarting else Phase.STARTING
        if is_restarting:
            self._next = self._make_life()
        if found.is_stopping or found.phase in (Phase.RESTARTING, Phase.ENDING):
            life.ask_to_stop(restarting=is_restarting)
        if self.keeper is not None:
            # The server after this one has to know of its attempt, however soon that is.
            self.keeper.commit()

    async def _release_predecessor(self) -> None:
        """Let a host go that nobody came to let go of: the server before was killed too soon, or we failed."""
        from kallichore.engines.beside_host import release_host

        assert self.keep is not None
        with trio.CancelScope(shield=True), trio.move_on_after(HOST_PATIENCE):
            try:
                await release_host(self.keep.directory, self.keep.secret)
            except (HostRefusedError, OSError) as error:
                logger.error("[session %s] Could not let go of a host: %s", self.session_id, error)

    def leave(self) -> None:
        """Leave the kernel to the next server; what it does from now on is not taken in. Idempotent."""
        self.launcher.meeting.is_left = True
        self._move(Event.STOP)
        self._give_up_next(StartupError("KS-16", self._refusal(Refusal.ENDING)))
        if self._life is not None:
            self._life.leave()

    # Connection information and adoption

    def connection_info(self) -> ConnectionInfo:
        """Return where the kernel is, or is to be; see `MeetingPlace.ports_info`."""
        return self.launcher.meeting.ports_info()

    async def adopt(self, info: ConnectionInfo) -> dict[str, Any]:
        """See `kallichore.session.session.Session.adopt`."""
        try:
            starting = self._allow(Event.START)
            self.launcher.meeting.check_adopted(info)
            self._phase.value = starting
            self.launcher.meeting.info = info
            life = self._make_life()
            life.is_launched = life.is_adopted = True
            self.launcher.note_launch(life)
            self._give(life, lambda: run_adopted(life, info, self.launcher.meeting.release_ports))
            # Clients are not told: an adopted kernel does not start, it is there.
            self.conversation.status.apply(StatusEvent.ADOPTION_REQUESTED, None, trio.current_time())
            return await life.started.wait()
        except StartupError as error:
            raise AdoptionError(error.code, error.message, error.details) from error

    # Interrupt, kill, restart, stop

    def interrupt(self) -> None:
        """See `kallichore.session.session.Session.interrupt`."""
        life = self._life
        if life is None or life.over.is_set() or self.status in (Status.EXITED, Status.UNINITIALIZED):
            raise InterruptError(f"Session {self.session_id} has no kernel to interrupt")
        if self.request.interrupt_mode is InterruptMode.MESSAGE:
            if not life.is_relaying:
                raise InterruptError(f"The kernel of session {self.session_id} is still starting")
            life.request("interrupt_request", {}, "control")
            return
        if life.process is None:
            raise InterruptError(f"Session {self.session_id} has no process to signal")
        self.conversation.clear_for("interrupt_request")
        try:
            self.launcher.interrupt(life.process)
        except OSError as error:
            text = f"Could not interrupt process {life.process.pid} of session {self.session_id}: {error}"
            raise InterruptError(text) from error

    def kill(self) -> None:
        """See `kallichore.session.session.Session.kill`."""
        if self.status is Status.EXITED and self._life is None:
            raise SessionNotRunningError(f"The kernel of session {self.session_id} has exited already")
        self.conversation.drop_pending("the kernel was killed")
        process = None if self._life is None else self._life.process
        if self._life is not None and process is None and self.launcher.is_elsewhere:
            # It waits for a machine, and need not any more.
            self._life.requested_by = "kill"
            self._life.ask_to_stop()
            return
        if self._life is None or process is None:
            raise NoProcessError(f"Session {self.session_id} has no process of this server: never started, or adopted")
        try:
            process.kill()
            self._life.requested_by = "kill"
        except PermissionError as error:
            self._life.requested_by = "kill"
            text = f"Could not end all of the kernel of session {self.session_id}. {error.strerror}"
            raise ProcessNotFoundError(
                text, "The signal could not be sent: these processes are another user's"
            ) from error
        except OSError as error:
            text = f"Could not kill process {process.pid} of session {self.session_id}"
            raise ProcessNotFoundError(text, f"The signal could not be sent: {error}") from error

    async def restart(self, options: RestartSession | None = None) -> None:
        """See `kallichore.session.session.Session.restart`."""
        has_kernel = self.phase.has_kernel
        phase = self._allow(Event.RESTART)
        if self._run is not None:
            # A start or an adoption of this very moment, which nobody's impatience can be about.
            raise StartupError(Refusal.CHANGING.value, self._refusal(Refusal.CHANGING))
        if not has_kernel:
            self._require_argv()
        self._phase.value = phase
        self._take_options(options or RestartSession())
        life = self._make_life()
        if self._life is None:
            self._launch(life)
        else:
            self._next = life
            self._life.requested_by = "restart"
            self._life.ask_to_stop(restarting=True)
        await life.started.wait()

    def _take_options(self, options: RestartSession) -> None:
        if options.env:
            self.launcher.actions = options.env
            # The next kernel may be another server's to start.
            self.launcher.note_launch(self._life)
        if options.working_directory:
            directory = Path(self.facilities.surroundings.expand(options.working_directory))
            # OSError: no such path, or a name too long for one; ValueError: a zero byte in it.
            with suppress(OSError, RuntimeError, ValueError):
                directory = directory.resolve()
            if self.facilities.surroundings.is_directory(str(directory)):
                self.conversation.working_directory = str(directory)
                return
            logger.warning(
                "[session %s] %s is no directory that can be entered; keeping the kernel's own",
                self.session_id,
                options.working_directory,
            )
        if self._life is not None:
            self.conversation.move_to(self._life.read_directory())

    def cull(self, why: str) -> None:
        """Begin to end the kernel, as nobody has used it; another may be started later.

        Args:
            why: A sentence for the report of its end.
        """
        assert self._life is not None
        self._life.requested_by, self._life.why_culled = CULLED, why
        self._life.ask_to_stop()

    def begin_stop(self, requested_by: str, *, hurry: bool = False) -> None:
        """Begin to end the kernel, for good: no restart follows. Idempotent; `hurry` skips the grace periods."""
        self._move(Event.STOP)
        self._give_up_next(StartupError("KS-16", self._refusal(Refusal.ENDING)))
        if self._life is not None:
            self._life.requested_by = self._life.requested_by or requested_by
            self._life.ask_to_stop(hurry=hurry)

    async def wait_ended(self) -> None:
        """Wait until no kernel of this session runs."""
        await self._phase.wait_value(lambda phase: not phase.has_kernel)

    # The task that runs them

    async def _next_life(self) -> tuple[KernelLife, RunLife]:
        while self._run is None:
            self._life_given = trio.Event()
            await self._life_given.wait()
        run, self._run = self._run, None
        assert self._life is not None
        return self._life, run

    def _end_life(self) -> None:
        """A kernel is gone: go on to the next, where one was asked for."""
        self._life = None
        # What waited for it was answered when it ended.
        self.outbox.clear()
        self._move(Event.GONE)
        if self.keeper is not None:
            self.keeper.note()
        if self._next is None:
            return
        try:
            self._require_argv()
        except StartupError as error:
            self._move(Event.GONE)
            self._give_up_next(error)
            return
        life, self._next = self._next, None
        self._launch(life)
        for message in self.conversation.take_held():
            self.send(message)

    def _give_up_next(self, error: StartupError) -> None:
        """Let nothing follow the kernel that is there, or was."""
        if self._next is not None:
            self._next.started.fail(error)
            self._next = None
            self.conversation.abort(self.conversation.take_held(), error.message)

    async def _break_off(self, life: KernelLife, error: Exception) -> None:
        """Turn a failure of ours into the end of this session's kernel, so that no other session notices."""
        logger.exception("[session %s] Looking after the kernel failed", self.session_id, exc_info=error)
        text = f"The supervisor failed to look after the kernel: {innermost(error)}"
        if life.process is None:
            self._change(StatusEvent.EXITED, text)
        else:
            life.process.kill_or_give_up()
            ending = await life.process.wait()
            self.facilities.watchdog.release(life.process.pid)
            life.process = None
            self._change(StatusEvent.EXITED, text)
            self.conversation.say("exited", ending.code)
        life.over.set()
        if self.keeper is not None:
            self.keeper.follow(None, dict)
            await self._release_predecessor()
        life.started.fail(StartupError("KS-16", text, reason=StartupReason.FAILED))

    async def run_lives(self) -> None:
        """Run the kernels that are asked for, one life at a time, for ever.

        Cancelling is how it is stopped: the kernel is asked, given its grace period, terminated, killed and reaped, its
        channels drained and closed, and its files removed, before this returns.
        """
        if self.keep is not None and self._run is None:
            await self._release_predecessor()
        while True:
            life, run = await self._next_life()
            await self._run_shielded(life, run)

    async def _run_shielded(self, life: KernelLife, run: RunLife) -> None:
        """Run a life to its end. Cancelled, it asks the kernel to stop and waits for the end, which has a bound."""
        done = trio.Event()

        async def run_to_its_end() -> None:
            with trio.CancelScope(shield=True):
                try:
                    await run()
                except Exception as error:
                    await self._break_off(life, error)
                finally:
                    self._end_life()
                    if self._life is None:
                        with trio.CancelScope(shield=True), trio.move_on_after(JOB_PATIENCE):
                            await self.launcher.let_go()
                    done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_to_its_end)
            try:
                await done.wait()
            finally:
                if not done.is_set():
                    self.on_cancelled()

    def close(self) -> None:
        """Give up a start that did not begin, reserved ports, and what kernels inherit."""
        if self._life is not None:
            self._life.started.fail(StartupError("KS-16", self._refusal(Refusal.ENDING)))
            self._change(StatusEvent.EXITED, "the server is shutting down")
            self._end_life()
        self.launcher.close()


def _phase_after(phase: Phase, event: Event) -> Phase:
    following = move(phase, event)
    assert isinstance(following, Phase)
    return following
