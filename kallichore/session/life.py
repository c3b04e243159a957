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
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs
import trio

from kallichore.conversation.conversation import CLEARS_ALL, Conversation
from kallichore.conversation.exit_report import LAST_WORDS, Circumstances, make_exit_report
from kallichore.conversation.flood import FloodGauge
from kallichore.conversation.heartbeat import HeartbeatMonitor
from kallichore.conversation.status import StatusEvent
from kallichore.errors import StartupError, StartupReason, innermost
from kallichore.kernel.ending import Ending
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.leftovers import record_kernel
from kallichore.kernel.output import LineSplitter, StartupRecord
from kallichore.kernel.process import KernelProcess, require_descriptors
from kallichore.kernel.spawn import spawn
from kallichore.kernel.working_directory import read_working_directory
from kallichore.models.bodies import ConnectionInfo
from kallichore.session.facilities import Facilities, new_msg_id, utc_date
from kallichore.session.pending import Pending
from kallichore.wire.channels import FROM_KERNEL, Channel
from kallichore.wire.client_messages import ClientMessage, Sender, make, to_kernel
from kallichore.wire.envelope import EnvelopeError, KernelMessage
from kallichore.wire.frames import Frames, FramesError
from kallichore.zeromq.kernel_channels import KernelChannels, open_channels

logger = logging.getLogger(__name__)

NOT_CONNECTED = 130
"""The exit code that the API reports for a kernel whose sockets could not be reached."""

HEARTBEAT_PAYLOAD = b"kallichore-heartbeat"

IOPUB_PATIENCE = 0.5
"""Seconds that a kernel which answered kernel_info is given to be heard on iopub too, before it is asked again: a
subscription takes a moment to reach the kernel, and what was published before that is gone."""

IOPUB_ATTEMPTS = 3

READ_SIZE = 1 << 16


@attrs.define(eq=False)
class KernelLife:
    """The state of one life, shared by its tasks.

    Args:
        facilities: The server's things.
        conversation: The session's; it outlives this life.
        sender: Who the kernel is told our messages come from.
        connection_timeout: Seconds for the handshake, the connections and the first heartbeat; negative for no limit.
        outbox: Clients' messages for a kernel that is not ready yet; the session's.
    """

    facilities: Facilities
    conversation: Conversation
    sender: Sender
    connection_timeout: float
    outbox: deque[ClientMessage]
    started: Pending[dict[str, Any]] = attrs.field(factory=Pending)
    process: KernelProcess | None = None
    channels: KernelChannels | None = None
    record: StartupRecord = attrs.field(factory=StartupRecord)
    dropped: int = 0
    """Messages of the kernel that could not be understood."""
    failure: StartupError | None = None
    in_handshake: bool = False
    restarting: bool = False
    requested_by: str | None = None
    """What asked the kernel to end."""
    stop_asked: trio.Event = attrs.field(factory=trio.Event)
    hurry: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)
    _plan: LaunchPlan | None = attrs.field(default=None)
    _last_words: deque[str] = attrs.field(factory=lambda: deque(maxlen=LAST_WORDS))
    _kernel_info: Pending[KernelMessage] = attrs.field(factory=Pending)
    _heartbeat_answered: trio.Event = attrs.field(factory=trio.Event)
    _iopub_heard: trio.Event = attrs.field(factory=trio.Event)

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process of ours."""
        return None if self.process is None else self.process.pid

    @property
    def is_relaying(self) -> bool:
        """Whether clients' messages go to the kernel at once."""
        return self.channels is not None and self.started.is_settled

    # Acts: what others ask of this life; none of them waits

    def ask_to_stop(self, *, restarting: bool = False, hurry: bool = False) -> None:
        """Begin to end this kernel: by request, then SIGTERM, then SIGKILL. Idempotent; ``hurry`` skips the waits."""
        self.restarting = self.restarting or restarting
        self.stop_asked.set()
        if hurry:
            self.hurry.set()

    def send(self, message: ClientMessage) -> None:
        """Send a message to the kernel, or keep it until the kernel is ready."""
        if not self.is_relaying:
            self.outbox.append(message)
            return
        assert self.channels is not None
        if message.msg_type == CLEARS_ALL:
            self.requested_by = self.requested_by or CLEARS_ALL
        self.channels.send(message.channel, to_kernel(message, self.sender, utc_date()))
        # The kernel works already meanwhile.
        self.conversation.history.begin(message, time.time_ns() // 1_000_000)

    def request(self, msg_type: str, content: dict[str, Any], channel: str) -> str:
        """Send a message of the server's own to a connected kernel, past the outbox; return its ``msg_id``."""
        assert self.channels is not None
        message = make(msg_type, new_msg_id(), content, channel)
        self.conversation.tell(message)
        self.channels.send(channel, to_kernel(message, self.sender, utc_date()))
        return message.msg_id

    def read_directory(self) -> str | None:
        """Return the current directory of the kernel's process, or None where it cannot be told."""
        return None if self.process is None else read_working_directory(self.process.pid)

    def take(self, channel: Channel, batch: Sequence[Frames]) -> None:
        """Take in what the kernel said on ``channel``; what is not a message is counted, logged and dropped."""
        assert self.channels is not None
        now = trio.current_time()
        conversation = self.conversation
        read, hear = self.channels.readers[channel].read, conversation.hear
        conversation.begin_batch(urgent=channel is not Channel.IOPUB)
        try:
            for frames in batch:
                try:
                    message = read(frames)
                except (FramesError, EnvelopeError) as error:
                    self.dropped += 1
                    logger.warning(
                        "Dropped a message of the kernel on %s (%d so far): %s", channel, self.dropped, error
                    )
                    continue
                following = hear(message, now, self.read_directory)
                if following is None:
                    continue
                if isinstance(following, KernelMessage):
                    self._kernel_info.set(following)
                else:
                    self.send(following)
        finally:
            conversation.end_batch()
        if channel is Channel.IOPUB:
            self._iopub_heard.set()

    # Tasks

    async def relay(self, info: ConnectionInfo, *, when_connected: Callable[[], None]) -> None:
        """Connect to the kernel, ask who it is, and relay its messages; runs until it is cancelled.

        A failure to get that far is noted in ``failure`` and begins the end of this life. Cancelling closes the
        sockets.

        Args:
            info: Where the kernel is.
            when_connected: Called when its sockets are connected, and so its ports are its own.
        """
        try:
            require_descriptors()
        except OSError as error:
            text = f"Could not open the sockets to the kernel: {error.strerror}"
            self._fail(StartupError("KS-6", text, exit_code=NOT_CONNECTED, reason=StartupReason.NO_RESOURCES))
            return
        try:
            async with (
                open_channels(info, self.sender.session) as self.channels,
                trio.open_nursery() as nursery,
            ):
                try:
                    await self._connect(self.channels, nursery, when_connected)
                    await self._become_ready()
                except StartupError as error:
                    self._fail(error)
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

    async def _connect(
        self, channels: KernelChannels, nursery: trio.Nursery, when_connected: Callable[[], None]
    ) -> None:
        with trio.move_on_after(_limit(self.connection_timeout)) as within:
            await channels.wait_connected()
            when_connected()
            for channel in FROM_KERNEL:
                nursery.start_soon(self._pump, channels, channel)
            nursery.start_soon(self._beat, channels)
            await self._heartbeat_answered.wait()
        if within.cancelled_caught:
            what = "its heartbeat" if channels.all_connected else "its sockets " + ", ".join(channels.unconnected)
            raise _could_not_connect(
                "KS-7", f"The kernel did not answer on {what} within {self.connection_timeout:g} seconds"
            )

    async def _become_ready(self) -> None:
        reply = await self._ask_kernel_info()
        info = self.conversation.learn_kernel_info(reply)
        # Where the kernel's own idle was not seen, nothing else would end `starting` (and Positron waits for an idle).
        self.conversation.change_status(StatusEvent.START_SUCCEEDED, "kernel_info_request", trio.current_time())
        self.started.set(info)
        while self.outbox:
            self.send(self.outbox.popleft())

    async def _ask_kernel_info(self) -> KernelMessage:
        """Return the kernel's answer to a kernel_info_request, once it was heard on iopub too."""
        reply: KernelMessage | None = None
        for _ in range(IOPUB_ATTEMPTS):
            self._kernel_info = Pending()
            self.conversation.expect_kernel_info(self.request("kernel_info_request", {}, "shell"))
            reply = await self._kernel_info.wait()
            with trio.move_on_after(IOPUB_PATIENCE):
                await self._iopub_heard.wait()
            if self._iopub_heard.is_set():
                return reply
        logger.warning("The kernel answers on shell, but says nothing on iopub")
        assert reply is not None
        return reply

    async def _pump(self, channels: KernelChannels, channel: Channel) -> None:
        socket, gauge, status = channels.sockets[channel], FloodGauge(), self.conversation.status
        while True:
            batch = await socket.receive_batch()
            self.take(channel, batch)
            # Output comes in floods; replies and questions never wait.
            if channel is Channel.IOPUB:
                gauge.count(len(batch), trio.current_time(), status.busy_since or status.idle_since)
                if gauge.pause and socket.is_drained:
                    await trio.sleep(gauge.pause)

    async def _beat(self, channels: KernelChannels) -> None:
        """Send heartbeats and tell the session when they stay unanswered, and when they are answered again."""
        config = self.facilities.config
        monitor = HeartbeatMonitor(config.heartbeat_limit, config.heartbeat_pause)
        socket = channels.sockets[Channel.HEARTBEAT]
        silent_since: float | None = None
        while True:
            if monitor.is_due(trio.current_time()):
                socket.send([b"", HEARTBEAT_PAYLOAD])
                monitor.sent(trio.current_time())
            with trio.move_on_at(monitor.next_action_at()):
                await socket.receive_batch()
                self._heartbeat_answered.set()
                silent_since = None
                if monitor.answered(trio.current_time()):
                    self.conversation.change_status(
                        StatusEvent.HEARTBEAT_BACK, "the kernel answers its heartbeat again", trio.current_time()
                    )
            now = trio.current_time()
            if monitor.expired(now):
                silent_since = now
                if self._heartbeat_answered.is_set():
                    text = f"the kernel did not answer its heartbeat for {config.heartbeat_limit:g} seconds"
                    self.conversation.change_status(StatusEvent.HEARTBEAT_LOST, text, now)
            if silent_since is not None and now - silent_since > _limit(self.connection_timeout):
                self._kernel_info_is_lost()
            if monitor.is_silent and self.requested_by == CLEARS_ALL and not self.stop_asked.is_set():
                # ipykernel at times: its threads wait for each other at the end, and it would hang there for ever.
                logger.warning(
                    "[session %s] The kernel was asked to shut down and hangs; ending it", self.sender.session
                )
                self.ask_to_stop()

    def _kernel_info_is_lost(self) -> None:
        if not self.started.is_settled:
            text = f"The kernel fell silent before it told who it is, for more than {self.connection_timeout:g} seconds"
            self._kernel_info.fail(StartupError("KS-7", text, exit_code=NOT_CONNECTED, reason=StartupReason.SILENT))

    async def drain(self) -> None:
        """Take in what a kernel that has ended said last, for at most the configured time."""
        channels = self.channels
        if channels is None:
            return
        if channels.all_connected:
            with trio.move_on_after(self.facilities.config.drain_grace):
                await channels.wait_all_lost()
        for channel in FROM_KERNEL:
            while batch := channels.sockets[channel].drain():
                self.take(channel, batch)

    async def _read_output(self, stream: trio.abc.ReceiveStream, name: str, ended: trio.Event) -> None:
        splitter = LineSplitter()
        try:
            async with stream:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while data := await stream.receive_some(READ_SIZE):
                        self._tell_output(name, splitter.feed(bytes(data)))
        finally:
            self._tell_output(name, splitter.finish())
            ended.set()

    def _tell_output(self, name: str, lines: Sequence[str]) -> None:
        for line in lines:
            if name == "stderr":
                self._last_words.append(line)
            if self.started.is_settled or self.record.add(line):
                self.conversation.say_output(name, line)

    async def _stop_when_asked(self, process: KernelProcess) -> None:
        await self.stop_asked.wait()
        config = self.facilities.config
        if self.failure is None and self.channels is not None:
            self.request("shutdown_request", {"restart": self.restarting}, "control")
            with trio.move_on_after(config.shutdown_grace):
                await self.hurry.wait()
        with suppress(ProcessLookupError):
            process.send_signal_to_group(signal.SIGTERM)
            with trio.move_on_after(config.terminate_grace):
                await self.hurry.wait()
            process.kill()

    async def run_launched(
        self,
        plan: LaunchPlan,
        meet: Callable[[], Any],
        when_connected: Callable[[], None],
    ) -> None:
        """Launch a kernel and look after it until its process is gone.

        Must run shielded from cancellation: `ask_to_stop` is how it is ended, and every wait after that has a bound.

        Args:
            plan: What to launch.
            meet: Awaited to learn where the kernel is; raises `StartupError` where it does not register.
            when_connected: Called when the kernel's sockets are connected.

        Raises:
            StartupError: ``KS-5``, there is no process.
        """
        self._plan = plan
        self.process = process = await spawn(plan)
        watchdog = self.facilities.watchdog
        watchdog.guard(process.pid)
        record_kernel(self.facilities.runtime_directory, process.pid)
        pipes_ended = trio.Event(), trio.Event()
        async with trio.open_nursery() as pipes:
            pipes.start_soon(self._read_output, process.stdout, "stdout", pipes_ended[0])
            pipes.start_soon(self._read_output, process.stderr, "stderr", pipes_ended[1])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._meet_and_relay, meet, when_connected)
                nursery.start_soon(self._stop_when_asked, process)
                ending = await process.wait()
                watchdog.release(process.pid)
                await self.drain()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(self.facilities.config.drain_grace):
                for ended in pipes_ended:
                    await ended.wait()
            pipes.cancel_scope.cancel()
        self._conclude(plan, ending)

    async def _meet_and_relay(self, meet: Callable[[], Any], when_connected: Callable[[], None]) -> None:
        try:
            info = await meet()
        except StartupError as error:
            self._fail(error)
            return
        await self.relay(info, when_connected=when_connected)

    def _conclude(self, plan: LaunchPlan, ending: Ending) -> None:
        """Say how it ended, in the fixed order, and settle a start that came to nothing."""
        was_asked = self.stop_asked.is_set()
        error = None if self.started.is_settled else self._startup_error(plan, ending)
        text = self._report(ending)
        if not was_asked and (ending.code != 0 or error is not None):
            self.conversation.say_output("stderr", f"[kallichore] {text}\n")
        logger.info("[session %s] %s", self.sender.session, text)
        self.process = None
        self.conversation.change_status(StatusEvent.EXITED, text, trio.current_time())
        self.conversation.say("exited", ending.code)
        if error is not None:
            self.started.fail(error)
        self.over.set()

    def _startup_error(self, plan: LaunchPlan, ending: Ending) -> StartupError:
        output = self.record.text
        if self.failure is not None:
            code = None if self.failure.code == "KS-17" else NOT_CONNECTED
            return StartupError(
                self.failure.code,
                self.failure.message,
                self.failure.details,
                exit_code=code,
                output=output,
                reason=self.failure.reason,
            )
        if self.stop_asked.is_set():
            text, reason = "The start was given up because the kernel was asked to stop", StartupReason.GIVEN_UP
            return StartupError("KS-8", text, exit_code=ending.code, output=output, reason=reason)
        api_code = "KS-14" if self.in_handshake else "KS-8"
        text = f"The kernel's process {ending.describe()} while it was starting"
        if plan.stage is not None and not self.record.succeeded:
            reason = StartupReason.STARTUP_FAILED
        else:
            reason = StartupReason.EXITED if ending.signal is None else StartupReason.KILLED
        details = self.record.diagnose(plan, "exit")
        return StartupError(api_code, text, details, exit_code=ending.code, output=output, reason=reason)

    def _report(self, ending: Ending) -> str:
        """Keep what is known of the kernel's end, and return it in words."""
        usage = self.conversation.resource_usage
        known = Circumstances(
            ending,
            datetime.now(UTC),
            self.requested_by,
            self.conversation.running(trio.current_time()),
            None if usage is None else usage.memory_bytes,
            self._last_words,
        )
        report = self.conversation.last_exit = make_exit_report(known)
        return report.text

    async def run_adopted(self, info: ConnectionInfo, when_connected: Callable[[], None]) -> None:
        """Look after a kernel that somebody else launched, until one of its connections is lost.

        Must run shielded, as `run_launched`. A kernel that was asked to stop is left to itself after the grace period:
        it is not ours to kill.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self.relay, info, when_connected=when_connected))
            nursery.start_soon(self._end_adoption_when_asked, nursery.cancel_scope)
            with suppress(StartupError):
                await self._wait_adopted()
                assert self.channels is not None
                await self.channels.wait_any_lost()
                await self.drain()
            nursery.cancel_scope.cancel()
        text = "The connection to the adopted kernel ended"
        self.conversation.change_status(StatusEvent.EXITED, text, trio.current_time())
        self.conversation.say("exited", 0)
        if not self.started.is_settled:
            self.started.fail(self.failure or StartupError("KS-6", text))
        self.over.set()

    async def _wait_adopted(self) -> None:
        """Return when the kernel has answered; raise when it did not."""
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await self.stop_asked.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await self.started.wait()
            nursery.cancel_scope.cancel()
        if not self.started.is_settled:
            raise StartupError("KS-16", "The adoption was given up")

    async def _end_adoption_when_asked(self, scope: trio.CancelScope) -> None:
        await self.stop_asked.wait()
        if self.failure is None and self.is_relaying:
            self.request("shutdown_request", {"restart": self.restarting}, "control")
            with trio.move_on_after(self.facilities.config.shutdown_grace):
                await self.hurry.wait()
        scope.cancel()


def _limit(seconds: float) -> float:
    """Return a duration for a deadline: the API's negative "no limit" becomes infinity."""
    return seconds if seconds >= 0 else float("inf")


def _could_not_connect(code: str, message: str) -> StartupError:
    return StartupError(code, message, exit_code=NOT_CONNECTED)
