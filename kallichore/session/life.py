"""One kernel, from its launch to its last word.

A life is one task tree: the process, its two output pipes, the five channel pumps and the heartbeat begin together and
end together. What ends it is the process's end, and only that: stopping means asking, terminating, killing, and then
waiting for it. The order at the end is fixed, because clients build on it: the kernel's last messages, its last output,
the reason in words, the status ``exited``, the exit code.

`kallichore.session.supervisor` runs lives, one at a time, and shields them; so every wait in here after a stop was
asked for has a bound.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.conversation.conversation import Conversation
from kallichore.conversation.exit_report import LAST_WORDS, Circumstances, make_exit_report
from kallichore.conversation.flood import FloodGauge, patience_for
from kallichore.conversation.heartbeat import PAUSE_ELSEWHERE, HeartbeatMonitor
from kallichore.conversation.patience import StartPatience
from kallichore.conversation.start_report import NOT_CONNECTED, FailedStart
from kallichore.conversation.status import StatusEvent
from kallichore.engines.placement import Placement, Process
from kallichore.errors import HostGoneError, StartupError, StartupReason, innermost
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.leftovers import start_time
from kallichore.kernel.output import StartupRecord
from kallichore.kernel.process import require_descriptors
from kallichore.models.bodies import ConnectionInfo
from kallichore.session.alarm import Alarm
from kallichore.session.facilities import Facilities, new_msg_id, utc_date
from kallichore.session.heart import Heart
from kallichore.session.introduction import Introduction
from kallichore.session.pending import Pending
from kallichore.session.process_output import OutputReader
from kallichore.wire.channels import FROM_KERNEL, NUMBERS, OUTPUTS, Channel
from kallichore.wire.client_messages import ClientMessage, Sender, make, to_kernel
from kallichore.wire.envelope import EnvelopeError, KernelMessage
from kallichore.wire.frames import Frames, FramesError
from kallichore.zeromq.kernel_channels import KernelChannels, open_channels

if TYPE_CHECKING:
    # For sessions that outlive their server, and kernels elsewhere: others do without.
    from kallichore.engines.beside_host import HostedOutput
    from kallichore.engines.host_link import HostLink
    from kallichore.session.keep import Found
    from kallichore.session.keeper import Keeper
    from kallichore.zeromq.hosted_socket import HostedSocket

logger = logging.getLogger(__name__)

SHUTDOWN = "shutdown_request"
"""What a client asks a kernel to end with."""

TURN = 0.002
"""Seconds between two looks at how far clients are: a fast one takes a megabyte meanwhile."""

Meet = Callable[[], Awaitable[ConnectionInfo]]
"""Awaited to learn where a kernel is."""

CULLED = "cull_idle_after"
"""What asks a kernel to end that nobody has used for so long: the setting."""


@attrs.define(eq=False)
class KernelLife:
    """The state of one life, shared by its tasks.

    Args:
        facilities: The server's things.
        conversation: The session's; it outlives this life.
        sender: Who the kernel is told our messages come from.
        connection_timeout: Seconds for the handshake, the connections and the first heartbeat; negative for no limit.
        outbox: Clients' messages for a kernel that is not ready yet; the session's.
        on_ready: Called when the kernel has answered.
        keeper: Writes down what came of the kernel's messages before anybody is told, if the session outlives its
            server.
    """

    facilities: Facilities
    conversation: Conversation
    sender: Sender
    connection_timeout: float
    outbox: deque[ClientMessage]
    on_ready: Callable[[], None]
    keeper: Keeper | None = None
    started: Pending[dict[str, Any]] = attrs.field(factory=Pending)
    process: Process | None = None
    link: HostLink | None = None
    """The stream to the host beside the kernel, if there is one."""
    channels: KernelChannels | None = None
    record: StartupRecord = attrs.field(factory=StartupRecord)
    dropped: int = 0
    """Messages of the kernel that could not be understood."""
    failure: StartupError | None = None
    in_handshake: bool = False
    is_launched: bool = False
    """Whether its launch has begun, so that there may be a process."""
    attempt: int = 0
    """How many servers before this one were connecting to the kernel when they went."""
    is_adopted: bool = False
    """Whether somebody else launched it."""
    restarting: bool = False
    requested_by: str | None = None
    """What asked the kernel to end."""
    why_culled: str = ""
    """Why it is ended, in a sentence, where `CULLED` asked for that."""
    stop_asked: trio.Event = attrs.field(factory=trio.Event)
    hurry: trio.Event = attrs.field(factory=trio.Event)
    placed: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is a process that can be signalled, or there will be none of ours."""
    over: trio.Event = attrs.field(factory=trio.Event)
    is_elsewhere: bool = False
    """Whether it is on another machine, whose engine sees to what is left of it."""
    is_left: bool = False
    """Whether the kernel was left to the server that comes next."""
    unwanted: trio.Event = attrs.field(factory=trio.Event)
    """Set when it was asked to stop, or left."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """What looks after the kernel runs in it, until it is left."""
    _identity: tuple[int, str | None] | None = None
    _found_pid: int | None = None
    """The process that another server launched, if it was there still when this one began."""
    _hosted_sockets: Sequence[tuple[int, HostedSocket]] = ()
    """The connections that the host has, by number, once there are any."""
    _hosted_outputs: Sequence[tuple[str, HostedOutput]] = ()
    _plan: LaunchPlan | None = attrs.field(default=None)
    last_words: deque[str] = attrs.field(factory=lambda: deque(maxlen=LAST_WORDS))
    """What the kernel complained about last."""
    _introduction: Introduction | None = attrs.field(default=None)
    """While the kernel has not said who it is."""
    _alarm: Alarm = attrs.field(factory=Alarm)
    """Rings when something is over that the kernel did not say the end of."""
    _output: OutputReader = attrs.field(init=False)
    _said: Sequence[Frames] = ()
    """What the kernel published before this life."""

    def __attrs_post_init__(self) -> None:
        # Before the start is over nobody reads along, and its record is made of lines.
        self._output = OutputReader(self._tell_output, lambda: self.started.is_settled)

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process of ours; of one that was found, from the first moment."""
        if self.process is None:
            return None if self.over.is_set() else self._found_pid
        return self.process.pid or None

    @property
    def identity(self) -> tuple[int, str | None] | None:
        """The process id and when the process was started, in the machine's words: numbers are used again."""
        if self.process is not None and self.pid is not None and (self._identity or (0,))[0] != self.pid:
            self._identity = self.pid, start_time(self.pid) if self.process.is_here else None
        return self._identity

    def expect(self, found: Found) -> None:
        """Know of the process that was launched, before its host tells of it."""
        self.is_launched, self.is_adopted = True, found.is_adopted
        self.requested_by, self.why_culled = found.requested_by, found.why_culled
        self.last_words.extend(found.last_words)
        self._identity = found.process
        if found.process is not None and found.lives_here():
            self._found_pid = found.process[0]

    @property
    def routing_name(self) -> str:
        """Who the kernel's sockets are told is there. A name that they have heard already, of a connection whose end
        they may not have noticed yet, they would take for a stranger's and talk to it no more.
        """
        return f"{self.sender.session}-{self.attempt}" if self.attempt else self.sender.session

    @property
    def has_partial_line(self) -> bool:
        """Whether the process printed the beginning of a line, which clients are yet to be told."""
        return self._output.has_partial_line

    @property
    def is_culled(self) -> bool:
        """Whether it is ended because nobody has used it, and nobody asked for its end otherwise."""
        return self.requested_by == CULLED

    @property
    def is_relaying(self) -> bool:
        """Whether clients' messages go to the kernel at once."""
        return self.channels is not None and self.started.is_settled

    @property
    def positions(self) -> dict[int, int]:
        """Up to where what came from the kernel's host was taken in, by the number of its stream."""
        positions = {number: socket.taken for number, socket in self._hosted_sockets}
        for name, output in self._hosted_outputs:
            positions[OUTPUTS[name]] = output.given - self._output.held(name)
        return positions

    # Acts: what others ask of this life; none of them waits

    def ask_to_stop(self, *, restarting: bool = False, hurry: bool = False) -> None:
        """Begin to end this kernel: by request, then SIGTERM, then SIGKILL. Idempotent; ``hurry`` skips the waits."""
        self.restarting = self.restarting or restarting
        self.stop_asked.set()
        self.unwanted.set()
        if hurry:
            self.hurry.set()

    def leave(self) -> None:
        """Leave a kernel with a host to the server that comes next: it goes on, and is looked after no longer."""
        self.is_left = True
        self.unwanted.set()
        self.scope.cancel()

    def send(self, message: ClientMessage) -> None:
        """Send a message to the kernel, or keep it until the kernel is ready."""
        if not self.is_relaying:
            self.outbox.append(message)
            return
        assert self.channels is not None
        if message.msg_type == SHUTDOWN:
            self.requested_by = self.requested_by or SHUTDOWN
        if self.conversation.announcements:
            self.conversation.announce(message, utc_date())
        self.channels.send(message.channel, to_kernel(message, self.sender, utc_date()))
        # The kernel works already meanwhile.
        self.conversation.sent(message, time.time_ns() // 1_000_000)

    def request(self, msg_type: str, content: dict[str, Any], channel: str) -> str:
        """Send a message of the server's own to a connected kernel, past the outbox; return its ``msg_id``."""
        assert self.channels is not None
        message = make(msg_type, new_msg_id(), content, channel)
        self.conversation.clear_for(msg_type)
        self.channels.send(channel, to_kernel(message, self.sender, utc_date()))
        return message.msg_id

    def read_directory(self) -> str | None:
        """Return the current directory of the kernel's process, or None where it cannot be told."""
        return None if self.process is None else self.process.read_directory()

    def take(self, channel: Channel, batch: Sequence[Frames]) -> float:
        """Take in what the kernel said on ``channel``; what is not a message is counted, logged and dropped.

        Returns:
            When that was.
        """
        assert self.channels is not None
        now = trio.current_time()
        conversation, is_output = self.conversation, channel is Channel.IOPUB
        read, hear = self.channels.readers[channel].read, conversation.hear
        if self.keeper is not None:
            self.keeper.wait_for()
        conversation.begin_hearing(now, is_output=is_output)
        try:
            for frames in batch:
                try:
                    message = read(frames)
                except (FramesError, EnvelopeError) as error:
                    self._drop(channel, error, now)
                    continue
                following = hear(message, now, self.read_directory)
                if following is None:
                    continue
                if isinstance(following, KernelMessage):
                    if self._introduction is not None:
                        self._introduction.answer(following)
                else:
                    self.send(following)
        finally:
            conversation.voice.end_batch()
            if self.keeper is not None:
                self.keeper.commit()
        if is_output and self._introduction is not None:
            self._introduction.hear_iopub()
        if conversation.look_at is not None:
            self._alarm.set(conversation.look_at)
        return now

    def _drop(self, channel: Channel, error: Exception, now: float) -> None:
        self.dropped += 1
        logger.warning("Dropped a message of the kernel on %s (%d so far): %s", channel, self.dropped, error)
        if self._introduction is not None:
            self._introduction.patience.refuse(f"on {channel}: {error}", now)

    # Tasks

    async def relay(self, info: ConnectionInfo, *, when_connected: Callable[[], None], is_known: bool = False) -> None:
        """Connect to the kernel, ask who it is, and relay its messages; runs until it is cancelled.

        A failure to get that far is noted in ``failure`` and begins the end of this life. Cancelling closes the
        sockets.

        Args:
            info: Where the kernel is.
            when_connected: Called when its sockets are connected, and so its ports are its own.
            is_known: Whether the kernel said who it is to a server before this one, and its host is connected to it.
        """
        try:
            require_descriptors()
        except OSError as error:
            text = f"Could not open the sockets to the kernel: {error.strerror}"
            self._fail(StartupError("KS-6", text, exit_code=NOT_CONNECTED, reason=StartupReason.NO_RESOURCES))
            return
        try:
            async with (
                open_channels(info, self.routing_name, self.link, are_open=is_known) as self.channels,
                trio.open_nursery() as nursery,
            ):
                if is_known:
                    self._listen(self.channels, nursery, None)
                    self._send_waiting()
                else:
                    await self._meet(self.channels, nursery, when_connected)
        except* OSError as errors:
            self._fail(_could_not_connect("KS-6", f"Could not connect to the kernel: {innermost(errors)}"))
        finally:
            self.channels = None

    def _fail(self, error: StartupError) -> None:
        if self.failure is None:
            self.failure = error
            if self._plan is not None:
                # Now, as what is killed next may come further before it dies.
                stage = "handshake" if error.code == "KS-17" else "sockets"
                error.details = error.details or self.record.diagnose(self._plan, stage)
                if self._plan.stage is not None and not self.record.succeeded:
                    error.reason = StartupReason.STARTUP_FAILED
        self.requested_by = self.requested_by or "failed start"
        self.ask_to_stop()

    async def _meet(self, channels: KernelChannels, nursery: trio.Nursery, when_connected: Callable[[], None]) -> None:
        try:
            await self._become_ready(await self._connect(channels, nursery, when_connected))
        except StartupError as error:
            self._fail(error)

    async def _connect(
        self, channels: KernelChannels, nursery: trio.Nursery, when_connected: Callable[[], None]
    ) -> Introduction:
        with trio.move_on_after(_limit(self.connection_timeout)) as within:
            await channels.wait_connected()
        if within.cancelled_caught:
            missing = ", ".join(channels.unconnected)
            text = f"The kernel did not answer on its sockets {missing} within {self.connection_timeout:g} seconds"
            raise _could_not_connect("KS-7", text)
        when_connected()
        if self._said:
            # Before it is listened for: that it was heard once does not tell that it is heard here.
            self.take(Channel.IOPUB, self._said)
            self._said = ()
        patience = StartPatience(_limit(self.connection_timeout), trio.current_time())
        self._introduction = introduction = Introduction(self._ask_kernel_info, patience)
        self._listen(channels, nursery, patience)
        return introduction

    def _listen(self, channels: KernelChannels, nursery: trio.Nursery, patience: StartPatience | None) -> None:
        """Begin to take in what the kernel says, and whether its heart beats."""
        self._hosted_sockets = [(NUMBERS[name], each) for name, each in channels.hosted.items()]
        for channel in FROM_KERNEL:
            nursery.start_soon(self._pump, channels, channel)
        heart = Heart(
            change_status=self.conversation.change_status,
            at_rest_since=self._at_rest_since,
            is_stopped=lambda: self.process is not None and self.process.is_stopped(),
            patience=lambda: patience if self._introduction is not None else None,
            on_silence=self._end_if_it_hangs,
        )
        nursery.start_soon(heart.beat, channels.sockets[Channel.HEARTBEAT], self._heartbeat_monitor())
        nursery.start_soon(self._alarm.run, self._look_again)
        self._alarm.set(self.conversation.look_at)

    def _ask_kernel_info(self) -> None:
        self.conversation.expect_kernel_info(self.request("kernel_info_request", {}, "shell"))

    async def _become_ready(self, introduction: Introduction) -> None:
        reply = await introduction.wait()
        self._introduction = None
        info = self.conversation.learn_kernel_info(reply)
        # Where the kernel's own idle was not seen, nothing else would end `starting` (and Positron waits for an idle).
        self.conversation.change_status(StatusEvent.START_SUCCEEDED, "kernel_info_request", trio.current_time())
        self.on_ready()
        self.started.set(info)
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what clients sent before the kernel could be reached."""
        while self.outbox:
            self.send(self.outbox.popleft())

    def _look_again(self) -> None:
        """See to what the kernel replied to, and did not say the end of."""
        following = self.conversation.look_again(trio.current_time(), self.read_directory)
        if following is not None:
            self.send(following)
        if self.keeper is not None:
            self.keeper.commit()
        self._alarm.set(self.conversation.look_at)

    async def _pump(self, channels: KernelChannels, channel: Channel) -> None:
        socket, gauge, conversation = channels.sockets[channel], FloodGauge(), self.conversation
        hosted = channels.hosted.get(channel)

        def take(batch: Sequence[Frames]) -> float:
            now = self.take(channel, batch)
            # Output comes in floods; replies and questions never wait.
            if channel is Channel.IOPUB:
                gauge.count(len(batch), now, conversation.activity.since or conversation.status.idle_since)
                if hosted is not None:
                    # Where it waits, neither the host nor we are woken.
                    hosted.pace(gauge.pause)
            return now

        if hosted is not None:
            hosted.take_small_by(take)
        while True:
            batch = await socket.receive_batch()
            now = take(batch)
            if channel is not Channel.IOPUB:
                continue
            if gauge.pause and hosted is None and socket.is_drained:
                await trio.sleep(gauge.pause)
            elif patience := patience_for(batch):
                await self._let_clients_read(now + patience)

    async def _let_clients_read(self, deadline: float) -> None:
        """Wait for clients that are about to take what is there, before more of it comes; no longer than that."""
        # An event for it would have to be looked at with every message that is sent.
        while self.conversation.are_clients_behind() and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(TURN)

    def _heartbeat_monitor(self) -> HeartbeatMonitor:
        config = self.facilities.config
        if not self.is_elsewhere:
            return HeartbeatMonitor(config.heartbeat_limit, config.heartbeat_pause)
        pause = max(config.heartbeat_pause, PAUSE_ELSEWHERE)
        return HeartbeatMonitor(config.heartbeat_limit, pause, trio.current_time() % pause)

    def _at_rest_since(self) -> float | None:
        # What was asked to shut down is to end, whatever it runs.
        return float("-inf") if self.requested_by == SHUTDOWN else self.conversation.activity.at_rest_since

    def _end_if_it_hangs(self) -> None:
        """End a silent kernel that a client asked to shut down.

        ipykernel at times: its threads wait for each other at the end, and it would hang there for ever.
        """
        if self.requested_by == SHUTDOWN and not self.stop_asked.is_set():
            logger.warning("[session %s] The kernel was asked to shut down and hangs; ending it", self.sender.session)
            self.ask_to_stop()

    async def drain(self) -> None:
        """Take in what a kernel that has ended said last, for at most the configured time."""
        channels = self.channels
        if channels is None:
            return
        if channels.all_connected:
            await self._wait_while_it_comes(channels.wait_all_lost)
        for channel in FROM_KERNEL:
            while batch := channels.sockets[channel].drain():
                self.take(channel, batch)

    async def _wait_while_it_comes(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Wait for the end of last words, for the configured time, and as long as a host still brings what it kept."""
        came: dict[int, int] | None = None
        while came != self.positions:
            came = self.positions
            with trio.move_on_after(self.facilities.config.drain_grace) as grace:
                await wait()
            if not came or not grace.cancelled_caught:
                return

    async def _read_output(self, stream: trio.abc.ReceiveStream, name: str, ended: trio.Event) -> None:
        try:
            await self._output.read(stream, name)
        finally:
            ended.set()

    def _tell_output(self, name: str, lines: Sequence[str]) -> None:
        for line in lines:
            if name == "stderr":
                self.last_words.append(line)
            if self.started.is_settled or self.record.add(line):
                self.conversation.hear_output(name, line)

    async def _stop_when_asked(self, process: Process) -> None:
        await self.stop_asked.wait()
        config = self.facilities.config
        if self.failure is None and self.channels is not None:
            self.request("shutdown_request", {"restart": self.restarting}, "control")
            with trio.move_on_after(config.shutdown_grace):
                await self.hurry.wait()
        with suppress(ProcessLookupError, PermissionError):
            process.send_signal_to_group(signal.SIGTERM)
            with trio.move_on_after(config.terminate_grace):
                await self.hurry.wait()
        # Behind sudo it is another user's: then it is said that it stays, rather than waited for.
        process.kill_or_give_up()

    async def run_launched(
        self,
        plan: LaunchPlan,
        placing: AbstractAsyncContextManager[Placement],
        meet: Meet,
        when_connected: Callable[[], None],
    ) -> None:
        """Launch a kernel and look after it until its process is gone.

        Must run shielded from cancellation: `ask_to_stop` is how it is ended, and every wait after that has a bound;
        `leave` leaves a kernel with a host to the next server.

        Args:
            plan: What to launch.
            placing: Launches it.
            meet: Awaited to learn where the kernel is; raises `StartupError` where it does not register.
            when_connected: Called when the kernel's sockets are connected.

        Raises:
            StartupError: ``KS-5``, there is no process.
        """
        self._plan = plan
        async with placing as placement:
            await self._look_after(placement, partial(self._meet_and_relay, meet, when_connected))

    async def run_found(
        self,
        placing: AbstractAsyncContextManager[Placement],
        info: ConnectionInfo | None,
        when_connected: Callable[[], None],
        otherwise: Callable[[HostGoneError], Ending],
        meet: Meet | None = None,
    ) -> None:
        """Look after a kernel that a server before this one launched, as `run_launched` does.

        Args:
            placing: Finds the host beside it.
            info: Where the kernel is, for that host; None if it has not registered, which ends it: who it would have
                registered with is gone.
            when_connected: Called when the kernel's sockets are connected.
            otherwise: Returns how the kernel ended if there is no host any more, for what is known of that.
            meet: Awaited to learn where the kernel is, where its host says that.
        """
        is_known = self.conversation.is_introduced
        if is_known:
            self.on_ready()
            self.started.set(self.conversation.kernel_info)
        try:
            async with placing as placement:
                relay = partial(self._relay_found, info, when_connected, is_known, meet)
                await self._look_after(placement, relay)
        except HostGoneError as error:
            self._conclude_for_good(otherwise(error))
        except StartupError as error:
            # It is on another machine, or was to be, and is wanted no more.
            if not self.is_left:
                self._conclude_for_good(Ending(0, ENDED_BY_SIGNAL, lost=f"was not reached. {error.message}"))

    async def _relay_found(
        self, info: ConnectionInfo | None, when_connected: Callable[[], None], is_known: bool, meet: Meet | None
    ) -> None:
        if meet is not None:
            info = await meet()
        if info is None:
            self._fail(StartupError("KS-17", "The server was ended before the kernel had registered with it"))
        else:
            await self.relay(info, when_connected=when_connected, is_known=is_known)

    async def _look_after(self, placement: Placement, relay: Callable[[], Awaitable[None]]) -> None:
        self.link, self.process, self._said = placement.link, placement.process, placement.said
        self.is_elsewhere = not self.process.is_here
        if self.link is not None and self.is_elsewhere:
            self.link.on_facts = lambda facts: self.conversation.move_to(facts.directory)
            if self.link.hello.moved:
                self.conversation.say_output("stderr", f"[kallichore] {self.link.hello.moved}\n")
        self.placed.set()
        if self.link is not None:
            self._hosted_outputs = _hosted_outputs(self.process)
        if self.keeper is not None:
            self.keeper.follow(self.link, lambda: self.positions)
        with self.scope:
            ending = await self._wait_for_the_end(placement, relay)
        if not self.is_left:
            self._conclude_for_good(ending)

    def _conclude_for_good(self, ending: Ending) -> None:
        """Say how it ended; and where there is a host, let it go when that is written down."""
        self._conclude(ending)
        if self.keeper is not None:
            self.keeper.follow(None, dict)
            self.keeper.commit()
        if self.link is not None and not self.is_elsewhere:
            self.link.release()
            self.link.flush()

    async def _wait_for_the_end(self, placement: Placement, relay: Callable[[], Awaitable[None]]) -> Ending:
        process = placement.process
        pipes_ended = trio.Event(), trio.Event()
        async with trio.open_nursery() as pipes:
            pipes.start_soon(self._read_output, process.stdout, "stdout", pipes_ended[0])
            pipes.start_soon(self._read_output, process.stderr, "stderr", pipes_ended[1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay)
                nursery.start_soon(self._stop_when_asked, process)
                ending = await process.wait()
                placement.note_end()
                await self.drain()
                nursery.cancel_scope.cancel()
            await self._wait_while_it_comes(partial(_wait_for_both, *pipes_ended))
            pipes.cancel_scope.cancel()
        return ending

    async def _meet_and_relay(self, meet: Meet, when_connected: Callable[[], None]) -> None:
        try:
            info = await meet()
        except StartupError as error:
            self._fail(error)
            return
        await self.relay(info, when_connected=when_connected)

    def _conclude(self, ending: Ending) -> None:
        """Say how it ended, in the fixed order, and settle a start that came to nothing."""
        was_asked = self.stop_asked.is_set()
        self.conversation.whereabouts.clear()
        error = None if self.started.is_settled else self._why_it_did_not_start(ending, was_asked=was_asked)
        text = self._report(ending)
        self.conversation.answer_at_the_end(text)
        is_news = not was_asked and (ending.code != 0 or error is not None)
        if ending.survivors is not None or is_news or self.is_culled:
            self.conversation.say_output("stderr", f"[kallichore] {text}\n")
        level = logging.INFO if ending.survivors is None else logging.ERROR
        logger.log(level, "[session %s] %s", self.sender.session, text)
        self.process = None
        self.conversation.change_status(StatusEvent.EXITED, text, trio.current_time())
        self.conversation.say("exited", ending.code)
        if error is not None:
            self.started.fail(error)
        self.over.set()

    def _why_it_did_not_start(self, ending: Ending, *, was_asked: bool) -> StartupError:
        if self._plan is None:
            # The server that launched it is gone, and with it who waited for the start.
            return StartupError("KS-16", f"The kernel {ending.describe()} before it answered")
        return FailedStart(self._plan, self.record, self.failure, was_asked, self.in_handshake).as_error(ending)

    def _report(self, ending: Ending) -> str:
        """Keep what is known of the kernel's end, and return it in words."""
        usage = self.conversation.resource_usage
        known = Circumstances(
            ending,
            datetime.now(UTC),
            self.requested_by,
            self.conversation.running(trio.current_time()),
            None if usage is None else usage.memory_bytes,
            self.last_words,
            self.why_culled if self.is_culled else "",
        )
        report = self.conversation.last_exit = make_exit_report(known)
        return report.text


def _hosted_outputs(process: Process) -> Sequence[tuple[str, HostedOutput]]:
    from kallichore.engines.beside_host import HostedOutput

    outputs = (("stdout", process.stdout), ("stderr", process.stderr))
    return [(name, each) for name, each in outputs if isinstance(each, HostedOutput)]


async def _wait_for_both(one: trio.Event, other: trio.Event) -> None:
    await one.wait()
    await other.wait()


def _limit(seconds: float) -> float:
    """Return a duration for a deadline: the API's negative "no limit" becomes infinity."""
    return seconds if seconds >= 0 else float("inf")


def _could_not_connect(code: str, message: str) -> StartupError:
    return StartupError(code, message, exit_code=NOT_CONNECTED)
