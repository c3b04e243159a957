"""What is said between a session's clients and its kernel, and what follows from it. [pure]

This is the session's mind without its hands: messages in, decisions out. It keeps the status, the execution queue and
the journal of what clients are to be told, and leaves sockets, processes and waiting to `kallichore.session.life`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from kallichore.conversation.execution_queue import ExecutionQueue
from kallichore.conversation.exit_report import running_request
from kallichore.conversation.history import History
from kallichore.conversation.journal import Journal
from kallichore.conversation.status import SessionStatus, StatusEvent
from kallichore.errors import ExecutionCancelledError, KallichoreError, KernelDiedError
from kallichore.models.bodies import KernelExit, NewSession, ResourceUsage, RunningRequest, Status
from kallichore.wire.client_messages import ClientMessage, kernel_message
from kallichore.wire.envelope import KernelMessage

CLEARS_ALL = "shutdown_request"
CLEARS_PENDING = "interrupt_request"


class _ExecutionState(msgspec.Struct):
    execution_state: str


_read_execution_state = msgspec.json.Decoder(_ExecutionState).decode

_OF_INTEREST = frozenset({"status", "execute_reply", "input_request", "kernel_info_reply"})
"""Types of messages that change something here; the others only pass through."""

_STATUS_EVENTS = {"busy": StatusEvent.KERNEL_BUSY, "idle": StatusEvent.KERNEL_IDLE}

Listener = Callable[[KernelMessage | KallichoreError], None]
"""Is given messages, and where no more will come the reason."""


def _ignore(*_: object) -> None:
    pass


@attrs.frozen
class OpenInput:
    """An ``input_request`` (messaging spec, "Messages on the stdin channel") that waits for its answer."""

    payload: bytes
    parent_id: str | None
    position: int
    """Its number in the journal."""


@attrs.define(eq=False)
class Conversation:
    """The state of what was said, owned by one session.

    Args:
        request: What the session was created with.
        journal: What clients are to be told, numbered.
        status: The session's status.
        on_growth: Called after the journal grew, to wake who reads it.
    """

    request: NewSession
    journal: Journal
    status: SessionStatus
    on_growth: Callable[[], None] = _ignore
    queue: ExecutionQueue[ClientMessage] = attrs.field(factory=ExecutionQueue)
    history: History = attrs.field(factory=History)
    working_directory: str = ""
    input_prompt: str = ""
    continuation_prompt: str = ""
    kernel_info: dict[str, Any] = attrs.field(factory=dict)
    resource_usage: ResourceUsage | None = None
    """What the kernel's processes used when they were last looked at."""
    memory_warning: str | None = None
    """That the kernel's memory is near a limit, in words; None while it is not."""
    last_exit: KernelExit | None = None
    """How the latest kernel ended."""
    log_output: Callable[[str, str], None] = _ignore
    """Is given what the kernel's process prints: stream and line."""
    held: list[ClientMessage] = attrs.field(factory=list)
    """What clients sent during a restart, for the kernel to come."""
    listeners: dict[str, Listener] = attrs.field(factory=dict)
    """Who in this process wants the messages with a certain parent."""
    open_input: OpenInput | None = attrs.field(default=None, init=False)
    """The question of the kernel that nobody has answered yet."""
    _silent_requests: set[str] = attrs.field(factory=set, init=False)
    _batch: list[bytes] | None = attrs.field(default=None, init=False)
    """What a batch of the kernel's messages has brought for the journal so far, while one is taken in."""
    _is_urgent: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.working_directory = self.request.working_directory
        self.input_prompt = self.request.input_prompt
        self.continuation_prompt = self.request.continuation_prompt

    # What the session says to its clients

    def say(self, member: str, value: Any) -> None:
        """Put a ``kind: kernel`` message into the journal."""
        payload = kernel_message(member, value)
        if member == "exited":
            self.journal.note_exit(self.journal.end + len(self._batch or ()))
        if self._batch is not None:
            self._batch.append(payload)
        else:
            self.journal.extend((payload,))
            self.on_growth()

    def begin_batch(self, *, urgent: bool) -> None:
        """Collect what is for the journal until `end_batch`: clients get what came together in one piece.

        What is urgent, replies and questions, may reach a client that is behind before the output that it waits for.
        """
        self._batch, self._is_urgent = [], urgent

    def end_batch(self) -> None:
        """Put into the journal what a batch brought, and let clients know."""
        batch, self._batch = self._batch, None
        if batch:
            self.journal.extend(batch, urgent=self._is_urgent)
            self.on_growth()

    def state(self) -> bytes:
        """Return what a client that comes back must know at once, whatever it is still to be told of the past."""
        active = self.queue.active
        question = None if self.open_input is None else json.loads(self.open_input.payload)
        value = {
            "status": self.status.current.value,
            "active_request": None if active is None else active.as_body(),
            "input_request": question,
            "seq": self.journal.end,
        }
        return kernel_message("sessionState", value)

    def say_output(self, stream: str, line: str) -> None:
        """Tell clients, and the session's log, a line that the kernel's process printed."""
        self.say("output", [stream, line])
        self.log_output(stream, line)

    def change_status(self, event: StatusEvent, reason: str | None, now: float) -> None:
        """Apply a status event and tell clients if it changed anything; leaving for ``exited`` clears the queue."""
        change = self.status.apply(event, reason, now)
        if change is None:
            return
        if event is StatusEvent.START_REQUESTED:
            self.journal.note_start()
        if self.status.current is Status.EXITED:
            self.queue.clear()
            self.open_input = None
            self.memory_warning = None
            error = KernelDiedError(f"The kernel ended during the execution: {reason or 'it exited'}")
            for msg_id in self.listeners.keys() - {message.msg_id for message in self.held}:
                self.listeners[msg_id](error)
        self.say("status", {"status": self.status.current.value, "reason": reason})

    def move_to(self, directory: str | None) -> None:
        """Note the kernel's current directory, and tell clients if it is another than before."""
        if directory is not None and directory != self.working_directory:
            self.working_directory = directory
            self.say("workingDirChanged", directory)

    def running(self, now: float) -> RunningRequest | None:
        """Return what the kernel is executing."""
        message = self.queue.active
        if message is None:
            return None
        return running_request(message.msg_id, self.history.code_of(message.msg_id), self.status.busy_time(now))

    def drop_pending(self, why: str) -> None:
        """Forget the executions that wait, and the kernel's open question, since what asked it is interrupted.

        Clients have no message for that; who waits in this process is told.
        """
        self.open_input = None
        for message in self.queue.clear_pending():
            if listener := self.listeners.get(message.msg_id):
                listener(ExecutionCancelledError(f"The execution was taken out of the queue: {why}"))

    # What the kernel says

    def begin_life(self) -> None:
        """Forget what was true of the kernel before."""
        self._silent_requests.clear()
        self.open_input = None

    def expect_kernel_info(self, msg_id: str) -> None:
        """Take the answers to this request of the server's own as its own: clients do not see them."""
        self._silent_requests.add(msg_id)

    def hear(
        self, message: KernelMessage, now: float, read_directory: Callable[[], str | None]
    ) -> ClientMessage | KernelMessage | None:
        """Take in one message of a batch (see `begin_batch`), for the clients as well.

        Args:
            message: The message.
            now: The time, for the status.
            read_directory: Reads the kernel's current directory; called where an execution may have changed it.

        Returns:
            The execution to be sent to the kernel next, if this message released one; or the message itself if it is
            the reply to the server's own kernel info request; else None.
        """
        assert self._batch is not None
        msg_type = message.header.msg_type
        parent = message.parent
        parent_id = None if parent is None else parent.msg_id
        released: ClientMessage | None = None
        if msg_type in _OF_INTEREST:
            if parent_id in self._silent_requests:
                if msg_type == "kernel_info_reply":
                    return message
                if msg_type == "status":
                    return None
            if msg_type == "status":
                released = self._hear_status(message, None if parent is None else parent.msg_type, now, read_directory)
            elif msg_type == "execute_reply":
                self.queue.on_reply(parent_id)
                if self.open_input is not None and self.open_input.parent_id == parent_id:
                    self.open_input = None
            elif msg_type == "input_request":
                self.open_input = OpenInput(message.payload, parent_id, self.journal.end + len(self._batch))
        self._batch.append(message.payload)
        self.history.hear(message)
        if self.listeners and parent_id in self.listeners:
            self.listeners[parent_id](message)
        return released

    def _hear_status(
        self, message: KernelMessage, reason: str | None, now: float, read_directory: Callable[[], str | None]
    ) -> ClientMessage | None:
        try:
            state = _read_execution_state(message.content).execution_state
        except msgspec.DecodeError:
            return None
        event = _STATUS_EVENTS.get(state)
        if event is None:
            return None
        self.change_status(event, reason, now)
        if event is not StatusEvent.KERNEL_IDLE:
            return None
        if reason == "execute_request":
            self.move_to(read_directory())
        following = self.queue.on_idle(None if message.parent is None else message.parent.msg_id)
        return None if following is None else following[1]

    def learn_kernel_info(self, message: KernelMessage) -> dict[str, Any]:
        """Keep a ``kernel_info_reply`` and its prompts, and return its content as an object."""
        try:
            info = json.loads(message.content)
        except (ValueError, RecursionError):
            # Too deep for us. It is the kernel's description of itself, and no reason not to work with it.
            info = None
        self.kernel_info = info if isinstance(info, dict) else {}
        language = self.kernel_info.get("language_info")
        positron = language.get("positron") if isinstance(language, dict) else None
        if isinstance(positron, dict):
            if isinstance(prompt := positron.get("input_prompt"), str):
                self.input_prompt = prompt
            if isinstance(prompt := positron.get("continuation_prompt"), str):
                self.continuation_prompt = prompt
        return self.kernel_info

    # What clients say

    def tell(self, message: ClientMessage) -> ClientMessage | None:
        """Decide on a client's message: return it if it is to be sent now, or None if it waits in the queue."""
        if message.msg_type == CLEARS_ALL:
            self.drop_pending("the kernel was asked to shut down")
            self.queue.clear()
        elif message.msg_type == CLEARS_PENDING:
            self.drop_pending("the session was interrupted")
        elif message.msg_type == "input_reply":
            self.open_input = None
        elif message.is_execution and not self.queue.submit(message.msg_id, message):
            self.say("executionQueued", message.msg_id)
            return None
        return message
