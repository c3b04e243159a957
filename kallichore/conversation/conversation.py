"""What is said between a session's clients and its kernel, and what follows from it. [pure]

This is the session's mind without its hands: messages in, decisions out. It keeps the status, the execution queue and
the journal of what clients are to be told, and leaves sockets, processes and waiting to `kallichore.session.life`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import attrs
import msgspec

from kallichore.conversation.activity import EXECUTION, GRACE, NEVER, Activity, moved
from kallichore.conversation.callers import GivenToCallers
from kallichore.conversation.execution_queue import ExecutionQueue
from kallichore.conversation.exit_report import running_request
from kallichore.conversation.history import History
from kallichore.conversation.journal import Journal, Shift
from kallichore.conversation.requests import (
    ABORTED,
    Answer,
    Requests,
    WriteHeader,
    answer_at_the_end,
    failure,
    reply_type,
    stops_on_error,
    write_answer,
)
from kallichore.conversation.status import SessionStatus, StatusEvent
from kallichore.conversation.voice import Voice
from kallichore.conversation.whereabouts import Whereabouts
from kallichore.errors import ExecutionCancelledError, KallichoreError, KernelDiedError
from kallichore.models.bodies import KernelExit, NewSession, ResourceUsage, RunningRequest, Status
from kallichore.wire.client_messages import ClientMessage, kernel_message
from kallichore.wire.envelope import EnvelopeError, Header, KernelMessage, decode

CLEARS_PENDING = {"shutdown_request": "the kernel was asked to shut down", "interrupt_request": "it was interrupted"}
"""Requests for which executions that wait are dropped, and why."""

ACTIVITY = frozenset({EXECUTION, "input_reply", "comm_msg"})
"""What clients send when somebody uses the kernel: code, answers, and what is done to a widget."""

_FOR_CONTROL = frozenset(
    {
        *("shutdown_request", "interrupt_request", "debug_request", "usage_request"),
        *("create_subshell_request", "delete_subshell_request", "list_subshell_request"),
    }
)
"""Requests that kernels take on control only (messaging spec, JEP 91), whoever sent them."""


@attrs.frozen
class ProcessOutput:
    """A line that the kernel's process, or a child of it, printed past the kernel's messages."""

    stream: str
    text: str


@attrs.frozen
class ExecutionOver:
    """The kernel is done with an execution, as its idle says, or as is concluded where none comes."""


Heard = KernelMessage | ProcessOutput | ExecutionOver | KallichoreError

Listener = Callable[[Heard], None]
"""Is given what the kernel says about one execution, and where no more will come the reason."""


def _ignore(*_: object) -> None:
    pass


@attrs.frozen
class OpenInput:
    """An ``input_request`` (messaging spec, "Messages on the stdin channel") that waits for its answer."""

    payload: bytes
    parent_id: str | None
    position: int
    """Its number in the journal."""


@attrs.frozen
class Announcement:
    """An execution as clients are told of it: its code, and who has it run (the API's ``attribution``)."""

    code: str
    attribution: Mapping[str, Any]


class SavedTalk(msgspec.Struct, omit_defaults=True):
    """What a conversation has to remember beside what its parts do, as JSON."""

    working_directory: str = ""
    created_at: float = 0.0
    active_at: float | None = None
    look_at: float | None = None
    latest: str | None = None
    late: tuple[str, ...] = ()
    interrupted: str | None = None
    is_answered: bool = False
    silent_requests: frozenset[str] = frozenset()
    memory_warning: str | None = None


@attrs.define(eq=False)
class Conversation:
    """The state of what was said, owned by one session. Times are seconds of the caller's clock.

    Args:
        request: What the session was created with.
        voice: Tells clients.
        status: The session's status.
        write_header: Makes the header of a message of this type, for answers in the kernel's place.
        on_rest: Called when the kernel has become idle or is gone, or has replied to its execution.
    """

    request: NewSession
    voice: Voice
    status: SessionStatus
    write_header: WriteHeader
    on_rest: Callable[[], None] = _ignore
    queue: ExecutionQueue[ClientMessage] = attrs.field(factory=ExecutionQueue)
    activity: Activity = attrs.field(factory=Activity)
    requests: Requests = attrs.field(factory=Requests)
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
    are_clients_behind: Callable[[], bool] = lambda: False
    """Tells whether clients are about to take more than memory is meant for."""
    log_output: Callable[[str, str], None] = _ignore
    """Is given what the kernel's process prints: stream and line."""
    held: list[ClientMessage] = attrs.field(factory=list)
    """What clients sent during a restart, for the kernel to come."""
    listeners: dict[str, Listener] = attrs.field(factory=dict)
    """Who in this process wants to hear about an execution, by its ``msg_id``."""
    announcements: dict[str, Announcement] = attrs.field(factory=dict)
    """What clients are told of an execution before the kernel gets it, by its ``msg_id``: who has it run."""
    given: GivenToCallers = attrs.field(factory=GivenToCallers)
    """What they are given, of what is in the journal as well."""
    whereabouts: Whereabouts = attrs.field(init=False)
    """Where the kernel is, if that is not this machine."""
    created_at: float = attrs.field(init=False)
    active_at: float = attrs.field(default=NEVER, init=False)
    """When somebody last had code run, answered a question or moved a widget, or the kernel was done with code."""
    look_at: float | None = attrs.field(default=None, init=False)
    """When to call `look_again` at the latest: something may be over that the kernel did not say the end of."""
    open_input: OpenInput | None = attrs.field(default=None, init=False)
    """The question of the kernel that nobody has answered yet."""
    is_introduced: bool = attrs.field(default=False, init=False)
    """Whether the kernel has said who it is."""
    _is_answered: bool = attrs.field(default=False, init=False)
    """Whether the kernel is gone and all that was open is answered."""
    _latest: str | None = attrs.field(default=None, init=False)
    """The execution that the kernel had last."""
    _late: tuple[str, ...] = attrs.field(default=(), init=False)
    """Executions that were replied to and whose idle is missing, though the next has been released."""
    _interrupted: str | None = attrs.field(default=None, init=False)
    """The execution that was interrupted last."""
    published_at: float = attrs.field(default=NEVER, init=False)
    """When the kernel last said something on iopub."""
    _turn: str | None = attrs.field(default=None, init=False)
    """The execution of a caller that the kernel turned from idle to busy for, as the caller is given."""
    _silent_requests: frozenset[str] = attrs.field(default=frozenset(), init=False)
    _with_buffers: KernelMessage | None = attrs.field(default=None, init=False)
    """The latest message, if it has buffers."""
    _batch: list[bytes] = attrs.field(factory=list, init=False)
    """What the batch that is taken in has brought for the journal so far."""

    def __attrs_post_init__(self) -> None:
        self.created_at = self.status.idle_since or 0.0
        self.whereabouts = Whereabouts(self.say)
        self.working_directory = self.request.working_directory
        self.input_prompt = self.request.input_prompt
        self.continuation_prompt = self.request.continuation_prompt

    # What it knows

    @property
    def journal(self) -> Journal:
        """What clients are to be told, numbered."""
        return self.voice.journal

    @property
    def busy_since(self) -> float | None:
        """Since when anything runs, by the kernel's word or because it was sent an execution; None if nothing does."""
        if self.status.current in (Status.STARTING, Status.UNINITIALIZED):
            return None
        times = [since for since in (self.activity.since, self.queue.active_since) if since is not None]
        return min(times, default=None)

    @property
    def is_at_work(self) -> bool:
        """Whether anything runs, or is to: what waits, waits behind something that is active, if only on its way."""
        return self.busy_since is not None or self.queue.active is not None

    def running(self, now: float) -> RunningRequest | None:
        """Return what the kernel is executing."""
        message, since = self.queue.active, self.queue.active_since
        if message is None or since is None:
            return None
        return running_request(message.msg_id, self.history.code_of(message.msg_id), now - since)

    def state(self) -> bytes:
        """Return what a client that comes back must know at once, whatever it is still to be told of the past."""
        active = self.queue.active
        value = {
            "status": self.status.current.value,
            "active_request": None if active is None else active.as_body(),
            "input_request": None if self.open_input is None else _read(self.open_input.payload),
            "seq": self.journal.end,
        }
        return kernel_message("sessionState", value)

    def buffers_of(self, payload: bytes) -> Sequence[bytes]:
        """Return the buffers of a message that clients are told as they came, if it is the latest; else none."""
        latest = self._with_buffers
        return latest.buffers if latest is not None and latest.payload is payload else ()

    # What the session says to its clients

    def say(self, member: str, value: Any) -> None:
        """Put a ``kind: kernel`` message into the journal."""
        if member == "exited":
            self.journal.note_exit(self.voice.next_number)
        self.voice.say(member, value)

    def say_output(self, stream: str, line: str) -> None:
        """Tell clients, and the session's log, a line about the kernel."""
        self.say("output", [stream, line])
        self.log_output(stream, line)

    def hear_output(self, stream: str, line: str) -> None:
        """Take in a line that the kernel's process printed; it belongs to what the kernel executes, or did last."""
        self.say_output(stream, line)
        if self._latest in self.listeners:
            self.listeners[self._latest](ProcessOutput(stream, line))
            self.given.note(self._latest, self.voice.next_number - 1)

    def change_status(self, event: StatusEvent, reason: str | None, now: float) -> bool:
        """Apply a status event and tell clients if it changed anything, which is returned; at ``exited`` all that is
        open is answered.
        """
        if event is StatusEvent.EXITED:
            if self.status.current is Status.OFFLINE:
                # A client that stopped sending goes on only at a living status, and not at the one that follows.
                alive = StatusEvent.KERNEL_IDLE if self.activity.since is None else StatusEvent.KERNEL_BUSY
                self.change_status(alive, "the kernel is ending", now)
            self.answer_at_the_end(reason)
        if self.status.apply(event, reason, now) is None:
            return False
        self.voice.put((_status_message(self.status.current, reason),))
        if self.status.idle_since is not None:
            self.on_rest()
        return True

    def move_to(self, directory: str | None) -> None:
        """Note the kernel's current directory, and tell clients if it is another than before."""
        if directory is not None and directory != self.working_directory:
            self.working_directory = directory
            self.say("workingDirChanged", directory)

    # Answers in the kernel's place

    def answer(self, request: ClientMessage, content: Answer) -> None:
        """Answer a request that the kernel will not: a reply and an idle, unless it has its reply already."""
        if self.requests.take(request):
            self.voice.put(write_answer(request, content, self.write_header))

    def refuse(self, request: ClientMessage, name: str, why: str) -> None:
        """Answer a request that is not even taken, as there is no kernel for it."""
        if reply_type(request) is not None:
            self.requests.add(request)
            self.answer(request, failure(name, why))

    def drop_pending(self, why: str) -> None:
        """Abort the executions that wait."""
        self.abort(self.queue.clear_pending(), why)

    def withdraw(self, msg_id: str) -> bool:
        """Take an execution that waits out of the queue; False if there is none with this id."""
        message = self.queue.withdraw(msg_id)
        if message is not None:
            self.answer(message, ABORTED)
        return message is not None

    def take_held(self) -> list[ClientMessage]:
        """Return what waits for the kernel to come; it is no longer kept."""
        held, self.held = self.held, []
        return held

    def abort(self, messages: Iterable[ClientMessage], why: str) -> None:
        """Answer requests that no kernel was sent, and tell who listens."""
        for message in messages:
            self.answer(message, ABORTED)
            if listener := self.listeners.get(message.msg_id):
                listener(ExecutionCancelledError(f"The execution was taken out of the queue: {why}"))

    def answer_at_the_end(self, reason: str | None) -> None:
        """Answer all that is open, as the kernel is gone, and tell who listens; once for each kernel."""
        if self._is_answered:
            return
        self._is_answered = True
        why = reason or "The kernel exited"
        held = {message.msg_id for message in self.held}
        for message in self.requests:
            if message.msg_id not in held:
                has_begun = message is self.queue.active or message.msg_id in self.activity
                self.answer(message, answer_at_the_end(message, has_begun, why))
        # What has its reply only lacks an idle.
        replied = {*self._late, self.queue.active_id if self.queue.is_replied else None}
        self.queue.clear()
        self.activity.clear()
        self._late = ()
        self.open_input = self.memory_warning = self._with_buffers = None
        died = KernelDiedError(f"The kernel ended during the execution: {why}")
        for msg_id, listener in self.listeners.items():
            if msg_id not in held:
                listener(ExecutionOver() if msg_id in replied else died)

    # What the kernel says

    def begin_life(self) -> None:
        """Forget what was true of the kernel before."""
        self._silent_requests, self._late = frozenset(), ()
        self.look_at = None
        self.activity.clear()
        self.open_input = None
        self.is_introduced = self._is_answered = False
        self.journal.note_start()

    def expect_kernel_info(self, msg_id: str) -> None:
        """Take the answers to this request of the server's own as its own: clients do not see them."""
        self._silent_requests |= {msg_id}

    def begin_hearing(self, now: float, *, is_output: bool) -> None:
        """Begin to take in a batch of the kernel's messages: output of iopub, or replies and questions."""
        self._batch = self.voice.begin_batch(urgent=not is_output)
        if is_output:
            self.published_at = now

    def hear(
        self, message: KernelMessage, now: float, read_directory: Callable[[], str | None]
    ) -> ClientMessage | KernelMessage | None:
        """Take in one message, between `begin_hearing` and the end of `voice`'s batch; it is for the clients as well.

        Args:
            message: The message.
            now: The time.
            read_directory: Reads the kernel's current directory; called where an execution may have changed it.

        Returns:
            The execution to be sent to the kernel next, if this message released one; or the message itself if it is
            the reply to the server's own kernel info request; else None.
        """
        parent = message.parent
        # What does not say what it answers belongs to what the kernel executes.
        parent_id = self.queue.active_id if parent is None else parent.msg_id
        released: ClientMessage | None = None
        is_output, is_status = message.channel == "iopub", message.header.msg_type == "status"
        # Nobody else asks a kernel that has not said who it is, and its answer may have any parent.
        is_introduction = not self.is_introduced and message.header.msg_type == "kernel_info_reply"
        if (is_introduction or parent_id in self._silent_requests) and (is_status or not is_output):
            return message if message.header.msg_type == "kernel_info_reply" else None
        if is_status:
            released = self._hear_status(message, now, read_directory)
        self._batch.append(message.payload)
        self._with_buffers = message if message.buffers else None
        self.history.hear(message)
        if self.listeners and parent_id in self.listeners:
            self.listeners[parent_id](message)
            self.given.note(parent_id, self.voice.next_number - 1)
        if not is_output:
            released = self._hear_answer(message, parent_id, now)
        return released

    def _hear_status(
        self, message: KernelMessage, now: float, read_directory: Callable[[], str | None]
    ) -> ClientMessage | None:
        state = message.excerpt.execution_state
        if state not in ("busy", "idle"):
            return None
        parent, active_id = message.parent, self.queue.active_id
        if parent is not None and self._is_beside(parent):
            if state == "idle":
                self.requests.ended(parent.msg_id)
            if self.status.current is Status.OFFLINE:
                self._follow(parent.msg_type, now)
            return None
        reason = None if parent is None else self._type_of(parent)
        if state == "busy":
            if parent is None:
                self.activity.begin_nameless(active_id, now)
            else:
                self.activity.begin(parent.msg_id, reason or "", now)
            self._follow(reason, now)
            return None
        if parent is None:
            over = active_id if self.activity.end_nameless(active_id, now) else None
        else:
            self.activity.end(parent.msg_id, now)
            over = parent.msg_id
        is_end = over is not None and (reason == EXECUTION or over == active_id)
        if is_end:
            self.active_at = now
        self._follow(reason, now)
        if over is None:
            return None
        if is_end:
            self.move_to(read_directory())
        self._tell_over(over)
        if active_id is not None and over != active_id and self.queue.is_replied:
            # It releases the next, as it may be meant for this one; whose own idle may still come.
            self._note_late(active_id)
        self.queue.on_idle(over, now)
        self._expect_more(now)
        return self.queue.proceed(now)

    def _is_beside(self, parent: Header) -> bool:
        """Whether the kernel serves this beside its main shell, whoever asked for it."""
        return (
            parent.subshell_id is not None or parent.msg_type in _FOR_CONTROL or self.requests.is_beside(parent.msg_id)
        )

    def _type_of(self, parent: Header) -> str | None:
        """Return the type of a request; what a kernel leaves out is known of the execution that it has."""
        return parent.msg_type or (EXECUTION if parent.msg_id == self.queue.active_id else None)

    def _follow(self, reason: str | None, now: float) -> None:
        """Have the status say whether the kernel is at work."""
        event = StatusEvent.KERNEL_IDLE if self.activity.since is None else StatusEvent.KERNEL_BUSY
        before = self.status.current
        if self.change_status(event, reason, now) and (self.listeners or self._turn is not None):
            self._note_turn(before, self.voice.next_number - 1)

    def _note_turn(self, before: Status, number: int) -> None:
        """Count the status's change, which has this number, as given to the caller whose execution it is for: it goes
        from idle to busy and back for it, and whoever is told of neither has the status all the same.
        """
        active_id = self.queue.active_id
        if before is not Status.BUSY:
            self._turn = active_id if before is Status.IDLE and active_id in self.listeners else None
        if active_id is not None and active_id == self._turn:
            self.given.note(active_id, number)

    def renumber(self, shift: Shift) -> None:
        """Follow the journal, from which messages were taken back."""
        self.given.renumber(shift)
        if self.open_input is not None:
            self.open_input = attrs.evolve(self.open_input, position=shift(self.open_input.position))

    def _note_late(self, msg_id: str) -> None:
        if msg_id not in self._late:
            self._late = *self._late, msg_id

    def _tell_over(self, msg_id: str) -> None:
        if msg_id in self._late:
            self._late = tuple(each for each in self._late if each != msg_id)
        if self.listeners and (listener := self.listeners.get(msg_id)):
            listener(ExecutionOver())

    def _hear_answer(self, message: KernelMessage, parent_id: str | None, now: float) -> ClientMessage | None:
        """Take in what came on another channel than iopub: replies and questions."""
        msg_type = message.header.msg_type
        if msg_type == "input_request":
            self.open_input = OpenInput(message.payload, parent_id, self.voice.next_number - 1)
        elif parent_id is not None and msg_type == "execute_reply":
            return self._hear_execute_reply(message, parent_id, now)
        elif message.parent is not None and msg_type.endswith("_reply"):
            self.requests.replied(message.parent.msg_id)
            self.activity.reply(message.parent.msg_id, now)
            self._expect_more(now)
        return None

    def _hear_execute_reply(self, reply: KernelMessage, parent_id: str, now: float) -> ClientMessage | None:
        self.active_at = now
        self.requests.replied(parent_id)
        self.activity.reply(parent_id, now)
        self._expect_more(now)
        if self.open_input is not None and self.open_input.parent_id == parent_id:
            self.open_input = None
        if not self.queue.on_reply(parent_id, now):
            return None
        if self.status.idle_since is not None:
            # Its idle came before, or nothing ever said that the kernel was busy.
            self.on_rest()
        if self._has_failed(reply):
            self.drop_pending("an execution before it failed")
        return self.queue.proceed(now)

    def _has_failed(self, reply: KernelMessage) -> bool:
        """Whether the reply to the active execution says that what waits behind it is not to run."""
        if reply.excerpt.status != "error":
            return False
        active = self.queue.active
        if active is None or active.msg_id == self._interrupted:
            # What waited when it was interrupted is gone already; what came since was sent in spite of it.
            return False
        return stops_on_error(active)

    def look_again(self, now: float, read_directory: Callable[[], str | None]) -> ClientMessage | None:
        """Conclude that what was replied to a while ago is over; return the execution that is to be sent next, if any.

        The next execution does not wait any longer. Whoever listens does, and so does the status, as long as the kernel
        still publishes something: then it is only behind, and its idle comes.
        """
        active_id, due = self.queue.active_id, self.queue.look_at
        released = None
        if active_id is not None and due is not None and now >= due:
            if self.queue.is_replied:
                self._note_late(active_id)
            released = self.queue.proceed(now)
        if now < self.published_at + GRACE:
            self.activity.postpone(now)
        else:
            for msg_id in self._late:
                self.move_to(read_directory())
                self._tell_over(msg_id)
            if self.activity.expire(now):
                self._follow(None, now)
        later = (self.queue.look_at, self.activity.look_at, now + GRACE if self._late else None)
        self.look_at = min((at for at in later if at is not None), default=None)
        return released

    def _expect_more(self, now: float) -> None:
        """Note that one of the signs of an end has come, and the other is due."""
        if self.look_at is None:
            self.look_at = now + GRACE

    def learn_kernel_info(self, message: KernelMessage) -> dict[str, Any]:
        """Keep a ``kernel_info_reply`` and its prompts, and return its content as an object."""
        # Where it is too deep for us: it is the kernel's description of itself, and no reason not to work with it.
        info = _read(message.content)
        self.is_introduced = True
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

    def tell(self, message: ClientMessage, now: float) -> ClientMessage | None:
        """Decide on a client's message: return it if it is to be sent now, or None if it waits in the queue."""
        self.requests.add(message)
        if message.msg_type in ACTIVITY:
            self.active_at = now
        if message.msg_type == "input_reply":
            self.open_input = None
        elif message.is_execution and not self.queue.submit(message.msg_id, message, now):
            self.say("executionQueued", message.msg_id)
            if message.msg_id in self.listeners:
                self.given.note(message.msg_id, self.voice.next_number - 1)
            return None
        else:
            self.clear_for(message.msg_type)
        return message

    def clear_for(self, msg_type: str) -> None:
        """Drop what a request of this type ends: the executions that wait, and the kernel's open question."""
        if why := CLEARS_PENDING.get(msg_type):
            self.open_input = None
            self._interrupted = self.queue.active_id
            self.drop_pending(why)

    def was_interrupted(self, msg_id: str) -> bool:
        """Tell whether an execution was interrupted, if it is the latest that was."""
        return self._interrupted == msg_id

    def announce(self, message: ClientMessage, date: str) -> None:
        """Tell clients of an execution that is about to go to the kernel, where somebody is to be named for it."""
        announcement = self.announcements.pop(message.msg_id, None)
        if announcement is None:
            return
        self.say(
            "executionRequested",
            {
                "msg_id": message.msg_id,
                "code": announcement.code,
                "requested_at": date,
                "attribution": announcement.attribution,
            },
        )
        if message.msg_id in self.listeners:
            self.given.note(message.msg_id, self.voice.next_number - 1)

    def sent(self, message: ClientMessage, timestamp: int) -> None:
        """Note that a message went to the kernel, at so many milliseconds since the epoch."""
        if message.msg_id == self.queue.active_id:
            self._latest = message.msg_id
        self.history.begin(message, timestamp)

    # For another process

    def marks(self) -> tuple[Any, ...]:
        """Return what is equal as long as `save` returns the same, and takes less time."""
        return _talk_of(self)

    def save(self) -> SavedTalk:
        """Return what it remembers that is of no other class, for `load`."""
        return SavedTalk(*_talk_of(self))

    def load(self, saved: SavedTalk, shift: float) -> None:
        """Remember what was saved; times move by ``shift`` seconds."""
        self.working_directory, self.memory_warning = saved.working_directory, saved.memory_warning
        self.created_at = saved.created_at + shift
        self.active_at = NEVER if saved.active_at is None else saved.active_at + shift
        self.look_at = moved(saved.look_at, shift)
        self._latest, self._late = saved.latest, saved.late
        self._interrupted, self._is_answered = saved.interrupted, saved.is_answered
        self._silent_requests = saved.silent_requests


@lru_cache(64)
def _status_message(status: Status, reason: str | None) -> bytes:
    """Return the message that tells a status: mostly one of few, with each request."""
    return kernel_message("status", {"status": status.value, "reason": reason})


_talk_of = attrgetter(
    *("working_directory", "created_at", "active_at", "look_at", "_latest", "_late", "_interrupted", "_is_answered"),
    *("_silent_requests", "memory_warning"),
)
"""Returns the members of a `SavedTalk`, none of which is ever changed in its place."""


def _read(document: bytes) -> Any:
    """Return what a document says; None for one that is too deep to be read."""
    try:
        return decode(document)
    except EnvelopeError:
        return None
