"""A session: what everybody else holds of it.

Its clients, what it is asked and what it is, are here. Its kernels are its supervisor's affair; what a message means is
its conversation's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import trio

from kallichore.conversation.conversation import Conversation
from kallichore.conversation.culling import make_policy
from kallichore.conversation.journal import Journal
from kallichore.conversation.run_result import Output, RunResult
from kallichore.conversation.status import SessionStatus
from kallichore.conversation.supervision import Phase
from kallichore.conversation.usage_record import UsageRecord
from kallichore.conversation.voice import Voice
from kallichore.engines.placement import Process
from kallichore.models.bodies import (
    ActiveSession,
    ConnectionInfo,
    NewSession,
    ResourceUsage,
    RestartSession,
    SessionSummary,
    Status,
)
from kallichore.session.clients import Audience, ClientSlot, Wish
from kallichore.session.description import describe
from kallichore.session.executions import Execution, open_execution
from kallichore.session.facilities import Facilities, new_msg_id, utc_date
from kallichore.session.for_users import ForUsers
from kallichore.session.idle_watch import IdleWatch
from kallichore.session.line_log import LineLog
from kallichore.session.overflow_file import OverflowFile
from kallichore.session.run_call import collect_result
from kallichore.session.summary import summarize
from kallichore.session.supervisor import Supervisor
from kallichore.wire.client_messages import ClientMessage, Sender, kernel_message

if TYPE_CHECKING:
    from kallichore.session.keep import Keep
    from kallichore.session.keeper import Keeper
    from kallichore.state.recovery import Recovered

logger = logging.getLogger(__name__)

SAMPLING_INTEREST = 60.0
"""Seconds for which a session's resource usage is sampled after somebody asked for it without being connected."""

LEAST_JOURNAL = 1 << 16
"""Bytes of memory that a journal has at least."""


@attrs.define(eq=False)
class Session(metaclass=ForUsers):
    """One kernel looked after, over all its restarts. `Server.create_session` makes one.

    `start` it, `run` code in it, `restart` it when its kernel died; leaving the server's block ends it.
    """

    # request: what it was created with. key: signs its kernels' messages, and is kept for the session's life.
    # facilities: the server's things. on_activity: called whenever something happens that counts against the server's
    # idle shutdown. keep: its place in the state directory, if it outlives its server.

    FOR_USERS: ClassVar[tuple[str, ...]] = (
        *("session_id", "status", "process_id", "is_running", "created", "describe"),
        *("start", "restart", "adopt", "interrupt", "kill", "wait_ready", "wait_ended", "connection_info"),
        *("run", "execute", "send"),
    )

    request: NewSession
    key: str
    facilities: Facilities
    on_activity: Callable[[], None]
    keep: Keep | None = None
    conversation: Conversation = attrs.field(init=False)
    supervisor: Supervisor = attrs.field(init=False)
    log: LineLog = attrs.field(factory=LineLog, init=False)
    """What the kernel's process printed lately."""
    audience: Audience = attrs.field(init=False)
    """Its clients."""
    created: datetime = attrs.field(factory=lambda: datetime.now(UTC), init=False)
    deleted: trio.Event = attrs.field(factory=trio.Event, init=False)
    closed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the session is over, deleted or with its server."""
    idle_watch: IdleWatch | None = attrs.field(default=None, init=False)
    """Ends its kernel when nobody uses it; None if that is never to be."""
    is_left: bool = attrs.field(default=False, init=False)
    """Whether it was left to the server that comes next."""
    leaves_kernel: bool = attrs.field(default=False, init=False)
    """Whether a kernel was left with it."""
    keeper: Keeper | None = attrs.field(default=None, init=False)
    """Writes down what happens, if it outlives its server."""
    usage_record: UsageRecord = attrs.field(factory=UsageRecord, init=False)
    """What its kernels used in the last minutes, as far as it was sampled."""
    _overflow: OverflowFile = attrs.field(factory=OverflowFile, init=False)
    _asked_for_usage: float = attrs.field(default=-SAMPLING_INTEREST, init=False)

    def __attrs_post_init__(self) -> None:
        request, config = self.request, self.facilities.config
        journal = Journal(
            max(LEAST_JOURNAL, _given(request.journal_memory, config.journal_memory)),
            max(0, _given(request.journal_file, config.journal_file)),
            self._overflow,
            max(0, _given(request.journal_keep, config.journal_keep)),
        )
        sender = Sender(request.session_id, request.username, request.protocol_version or "5.3")
        self.audience = Audience(journal, keeps_told=_given(request.journal_keep, 0) > 0)
        self.conversation = Conversation(
            request,
            Voice(journal, self._tell_news if self.keep is None else self._write_soon, is_held=self.keep is not None),
            SessionStatus(created=trio.current_time()),
            lambda msg_type: sender.stamp({"msg_id": new_msg_id(), "msg_type": msg_type}, utc_date()),
            self._note_rest,
        )
        self.conversation.are_clients_behind = lambda: self.audience.deliveries.are_behind
        self.conversation.log_output = lambda stream, line: self.log.append(stream, line, utc_date())
        self.supervisor = Supervisor(
            request, self.key, sender, self.facilities, self.conversation, self.end_with_server, self.keep
        )
        if self.keep is not None:
            self.created = datetime.fromtimestamp(self.keep.record.created, UTC)
            self.keeper = self.supervisor.keeper = self._make_keeper(self.keep)
            self.audience.deliveries.on_change = self.keeper.note_confirmed
        if policy := make_policy(request, config):
            self.idle_watch = IdleWatch(self, policy)

    def _make_keeper(self, keep: Keep) -> Keeper:
        # Imported for the first session that outlives its server.
        from kallichore.conversation.parts import ConversationParts
        from kallichore.session.keeper import Keeper

        return Keeper(
            self.session_id,
            keep.log,
            self.conversation,
            ConversationParts(self.conversation, self.audience.deliveries, self.supervisor.outbox),
            self.supervisor.describe,
            keep.page,
            self._tell_news,
        )

    def __dir__(self) -> Iterable[str]:
        return self.FOR_USERS  # of one session as of the class

    def __repr__(self) -> str:
        queue = self.conversation.queue
        return (
            f"<Session {self.session_id!r} {self.status.value} pid={self.process_id} "
            f"queued={len(queue)} clients={len(self.audience)}>"
        )

    # What it is

    @property
    def session_id(self) -> str:
        """The id that the client chose."""
        return self.request.session_id

    @property
    def status(self) -> Status:
        """The status now."""
        return self.conversation.status.current

    @property
    def process_id(self) -> int | None:
        """The kernel's process id, while there is a process of ours."""
        life = self.supervisor.life
        return None if life is None else life.pid

    @property
    def process_elsewhere(self) -> Process | None:
        """The kernel's process, if it is on another machine."""
        life = self.supervisor.life
        process = None if life is None else life.process
        return None if process is None or process.is_here else process

    @property
    def initial_env(self) -> dict[str, str]:
        """The environment of the latest kernel that was started."""
        return self.supervisor.launcher.initial_env

    @property
    def is_running(self) -> bool:
        """Whether there is, or is about to be, a kernel."""
        return self.supervisor.phase.has_kernel

    @property
    def is_changing(self) -> bool:
        """Whether a restart is under way."""
        return self.supervisor.phase is Phase.RESTARTING

    @property
    def is_ending(self) -> bool:
        """Whether its kernel is ending, or has ended, for good."""
        return self.supervisor.phase in (Phase.ENDING, Phase.CLOSED)

    @property
    def is_in_use(self) -> bool:
        """Whether somebody is here, or something runs, waits, asks for input, or is under way."""
        return (
            len(self.audience) > 0
            or self.supervisor.phase in (Phase.STARTING, Phase.RESTARTING)
            or self.conversation.is_at_work
            or self.conversation.open_input is not None
        )

    @property
    def has_partial_output(self) -> bool:
        """Whether the kernel's process printed the beginning of a line, which clients are yet to be told."""
        life = self.supervisor.life
        return life is not None and life.has_partial_line

    @property
    def not_kept(self) -> str | None:
        """Why what happens now would not outlive the server, though it should; None if it would."""
        return None if self.keeper is None else self.keeper.trouble or None

    @property
    def unread_bytes(self) -> int:
        """Bytes of the kernel's that were read and not looked at yet."""
        life = self.supervisor.life
        channels = None if life is None else life.channels
        return 0 if channels is None else channels.unread.used

    @property
    def wants_samples(self) -> bool:
        """Whether anybody would look at the kernel's resource usage."""
        return self.process_id is not None and (self._is_watched_itself or self.facilities.news.is_heard)

    @property
    def wants_few_samples(self) -> bool:
        """Whether they may be rare: nobody looks at it alone while it has nothing to do, or each costs a question."""
        is_costly = self.process_elsewhere is not None
        return is_costly or (self.conversation.busy_since is None and not self._is_watched_itself)

    @property
    def _is_watched_itself(self) -> bool:
        return len(self.audience) > 0 or trio.current_time() - self._asked_for_usage < SAMPLING_INTEREST

    def describe(self) -> ActiveSession:
        """Return the session as the API shows it; this counts as asking for its resource usage."""
        now = self._asked_for_usage = trio.current_time()
        return describe(self, now)

    def summarize(self, epoch: float) -> SessionSummary:
        """Return the session in short.

        Args:
            epoch: When Trio's clock was at zero, in seconds since 1970.
        """
        return summarize(self, epoch)

    # Its clients

    def _write_soon(self) -> None:
        """See to it that what was said is written down, after which clients are told."""
        if self.keeper is not None:
            self.keeper.note()

    def _tell_news(self) -> None:
        """Let clients, and who follows all sessions, know that there is something new."""
        self.audience.wake()
        self.facilities.news.note(self.request.session_id)

    def _write_down(self) -> None:
        """Write down what is new, so that there is no message without its number."""
        if self.keeper is not None:
            self.keeper.commit()

    def attach(self, wish: Wish | None = None) -> ClientSlot:
        """Make room for a new client, which `detach` ends; see `Audience.attach`.

        It is shown an open question of the kernel that somebody else was sent and did not answer; one that comes back
        with a number is first told how things stand.
        """
        self._write_down()
        slot = self.audience.attach(wish or Wish())
        question = self.conversation.open_input
        if slot.is_numbered:
            slot.tell(self.conversation.state())
        elif question is not None and slot.may_speak and not slot.visits:
            slot.show(question.payload, question.position)
        self._note_client()
        self.facilities.news.note(self.session_id)
        return slot

    def detach(self, slot: ClientSlot) -> None:
        """Note that a client is gone: what nobody was sent is the next one's."""
        if self.audience.detach(slot):
            self._note_client()
        self.facilities.news.note(self.session_id)

    def _note_client(self) -> None:
        self.on_activity()
        if self.idle_watch is not None:
            self.idle_watch.note_client()

    def _note_rest(self) -> None:
        """Note that the kernel has become idle or is gone."""
        life = self.supervisor.life
        if life is None or not life.is_culled:
            # The end of a kernel that nobody used is nothing that anybody did.
            self.on_activity()
        if self.idle_watch is not None:
            self.idle_watch.note_rest()

    def send(self, message: ClientMessage) -> None:
        """Send a message to the kernel as a client would: now, or when its turn comes.

        A request for which there is no kernel, and none on its way, is answered with an error.
        """
        if self.keeper is None:
            self.supervisor.send(message)
        else:
            self.keeper.wait_for()
            try:
                self.supervisor.send(message)
            finally:
                self.keeper.commit()

    def note_usage(self, usage: ResourceUsage) -> None:
        """Keep a sample of what the kernel uses, and tell the client."""
        before, self.conversation.resource_usage = self.conversation.resource_usage, usage
        self.usage_record.add(usage.timestamp, usage.memory_bytes, usage.cpu_percent)
        if self.audience:
            self.audience.tell(kernel_message("resourceUsage", attrs.asdict(usage)))
        # A hundred quiet kernels use what they used a second ago: that this was looked at again is no news.
        if before is None or attrs.evolve(before, timestamp=usage.timestamp) != usage:
            self.facilities.news.note(self.session_id)

    def note_memory(self, warning: str | None) -> None:
        """Keep that the kernel's memory is near a limit, in words, or is not; clients and the log are told once."""
        conversation = self.conversation
        if warning is not None and conversation.memory_warning is None:
            logger.warning("[session %s] %s", self.session_id, warning)
            conversation.say_output("stderr", f"[kallichore] {warning}\n")
        conversation.memory_warning = warning

    async def run(
        self,
        code: str,
        *,
        time_limit: float | None = None,
        on_output: Callable[[Output], None] | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = True,
    ) -> RunResult:
        """Run code and return what came of it: what it printed and displayed, its result, its error.

        Code that fails is no exception here; look at the result's ``status``. It takes its turn behind what others run
        in this session. Cancelling takes it out of the queue while it waits; once it runs it goes on, until somebody
        interrupts it. ``input()`` in it fails; to answer that, use `execute`.

        Args:
            code: What to run.
            time_limit: Seconds until it is interrupted, its wait for its turn included; None for as long as it takes.
            on_output: Is called with each `Printed` text and each `Display` when it comes.
            silent: Whether the kernel is to say nothing of it, and not to count it (messaging spec, "Execute").
            store_history: Whether the kernel is to remember it.
            user_expressions: Expressions to be evaluated when it is done, by names that you choose.
            stop_on_error: Whether what waits behind it is dropped if it fails.

        Raises:
            SessionNotReadyError: The session was never started.
            KernelDiedError: Its kernel has ended, now or before; the message says how.
            ExecutionTimeoutError: The time was up.
            ExecutionCancelledError: It was dropped from the queue, by an interrupt for one.
        """
        opening = self.execute(
            code,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
        )
        return await collect_result(opening, time_limit, on_output)

    def execute(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
        stop_on_error: bool = True,
    ) -> AbstractAsyncContextManager[Execution]:
        """Execute code and hear each message of the kernel about it; `run` is the short way.

        Leaving the block early, or cancelling it, stops listening and takes a request that still waits out of the
        queue; one that runs goes on, until somebody interrupts it.

        Args:
            code: What to run.
            silent: Whether the kernel is to say nothing of it, and not to count it (messaging spec, "Execute").
            store_history: Whether the kernel is to remember it.
            user_expressions: Expressions to be evaluated when it is done, by names that you choose.
            allow_stdin: Whether it may ask for input, which `Execution.answer_input` answers.
            stop_on_error: Whether what waits behind it is dropped if it fails.

        Raises:
            SessionNotReadyError: The session was never started.
            KernelDiedError: Its kernel has ended; the message says how.
        """
        return open_execution(
            self,
            code,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            allow_stdin=allow_stdin,
            stop_on_error=stop_on_error,
        )

    def end_call(self, msg_id: str, *, has_all: bool) -> None:
        """Note that a caller listens to its execution no more, and whether it got all that there was."""
        numbers = self.conversation.given.take(msg_id)
        if has_all:
            self._write_down()
            shift = self.audience.told_to_caller(numbers)
            self.conversation.renumber(shift)
            if self.keeper is not None and shift.gone:
                self.keeper.note_taken_back(shift.gone)

    # Its kernel: see `Supervisor` for what each does

    async def start(self) -> dict[str, Any]:
        """Start the kernel and wait until it answered; return the content of its ``kernel_info_reply``.

        Cancelling the wait does not cancel the start.

        Raises:
            StartupError: It runs already (``KS-2``) or could not be started; the process is gone then.
        """
        return await self.supervisor.start()

    async def restart(self, options: RestartSession | None = None) -> None:
        """End the kernel, if there is one, and start it again; wait until it answered.

        Cancelling the wait does not cancel the restart.

        Args:
            options: Another working directory, or another list of environment actions, for this and later starts.

        Raises:
            StartupError: A restart is under way (``KS-13``), or the new kernel could not be started.
        """
        await self.supervisor.restart(options)

    async def adopt(self, info: ConnectionInfo) -> dict[str, Any]:
        """Connect to a kernel that somebody else started; return the content of its ``kernel_info_reply``.

        Cancelling the wait does not cancel the adoption.

        Raises:
            AdoptionError: There is a kernel already (``KS-2``), or this one could not be reached (``KS-6``, ``KS-7``).
        """
        return await self.supervisor.adopt(info)

    async def wait_ready(self) -> None:
        """Wait until a start or restart that is under way is done. Cancelling changes nothing.

        Raises:
            StartupError: It came to nothing.
        """
        await self.supervisor.wait_ready()

    async def wait_ended(self) -> None:
        """Wait until no kernel of this session runs."""
        await self.supervisor.wait_ended()

    def connection_info(self) -> ConnectionInfo:
        """Return where the kernel is, or is to be.

        Raises:
            ConnectionInfoError: There are no free ports.
        """
        return self.supervisor.connection_info()

    def interrupt(self) -> None:
        """Interrupt the running execution, and abort those that wait behind it.

        Raises:
            InterruptError: There is no kernel, or no process to signal.
        """
        self.supervisor.interrupt()

    def kill(self) -> None:
        """Kill the kernel with its whole process group, now. Its end follows a moment later.

        Raises:
            SessionNotRunningError: It has exited already.
            NoProcessError: There is no process of ours: never started, or adopted.
            ProcessNotFoundError: The process is gone already, or could not be signalled.
        """
        self.supervisor.kill()

    def begin_stop(self, *, hurry: bool = False) -> None:
        """Begin to end the kernel, for good: no restart follows. Idempotent."""
        self.supervisor.begin_stop("delete" if self.deleted.is_set() else "shutdown", hurry=hurry)

    def leave(self) -> None:
        """Leave the kernel to the next server, if this session outlives its server; else begin to end it. Idempotent.

        What happens from now on is not taken in: neither what the kernel says nor what clients ask for.
        """
        if self.keeper is None:
            self.begin_stop()
        else:
            if not self.is_left:
                self.is_left, self.leaves_kernel = True, self.is_running
            self.keeper.close()
            self.supervisor.leave()

    def end_with_server(self) -> None:
        """Leave the kernel to the next server, or begin to end it, as the server is to do at its own end.

        What somebody asked to end is not left: a server that is cancelled in the middle of a shutdown ends it still.
        """
        is_to_end = self.deleted.is_set() or (self.is_ending and not self.is_left)
        if self.facilities.config.keeps_kernels and not is_to_end:
            self.leave()
        else:
            self.begin_stop()

    def remember(self, name: str, value: Any) -> None:
        """Have the next server know something of this session, if it outlives this one.

        Args:
            name: What it is.
            value: What JSON is made of.
        """
        if self.keep is not None:
            self.keep.note({name: value})

    def remembered(self, name: str) -> Any:
        """Return what `remember` was given, by this server or one before; None for nothing."""
        return None if self.keep is None else self.keep.record.facts.get(name)

    def stop_keeping(self) -> None:
        """Write nothing down any more: there is nothing that will be asked for again."""
        if self.keeper is not None:
            self.keeper.close()

    def restore(self, recovered: Recovered) -> None:
        """Go on with a session of a server that is gone; to be called before anything happens.

        Args:
            recovered: What that server wrote down.
        """
        assert self.keep is not None
        assert self.keeper is not None
        problems = [*recovered.problems, *self.keeper.restore(recovered.parts, recovered.end)]
        journal = self.conversation.journal
        for first, payloads in recovered.messages():
            journal.refill(first, payloads, recovered.urgent)
        journal.refill(recovered.end, ())
        for problem in problems:
            logger.error("[session %s] Found damaged: %s", self.session_id, problem)
        assert self.keep is not None
        self.supervisor.take_over(self.keep.find(recovered.parts))

    def close(self) -> None:
        """Give up what the session holds: its kernel's things, the journal's file, its clients."""
        self.end_with_server()
        self.supervisor.close()
        self.stop_keeping()
        self._overflow.close()
        self.log.close()
        self.closed.set()
        if self.deleted.is_set():
            self.audience.leave("The session was deleted")
        else:
            self.audience.leave("The server is ending" + ("; the session goes on" if self.is_left else ""))


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


async def supervise_session(session: Session) -> None:
    """Run a session's kernels, one life at a time, until the session is deleted.

    Cancelling is how it is stopped: the kernel is asked, given its grace period, terminated, killed and reaped, its
    channels drained and closed, its files removed, and its client told, before this returns.
    """
    async with trio.open_nursery() as keeping:
        if session.keeper is not None:
            keeping.start_soon(session.keeper.run)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when, session.deleted, nursery.cancel_scope)
                if session.idle_watch is not None:
                    nursery.start_soon(session.idle_watch.run)
                await session.supervisor.run_lives()
        finally:
            session.close()


async def cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    """Cancel a scope when an event is set: a task for a nursery, and ended with that."""
    await event.wait()
    scope.cancel()
