"""A conversation without a kernel, a client or a clock: what both say is said by a test, and so is the time."""

from __future__ import annotations

import json
from typing import Any

import attrs

from kallichore.conversation.activity import GRACE
from kallichore.conversation.conversation import Conversation, Heard
from kallichore.conversation.journal import Journal
from kallichore.conversation.status import SessionStatus, StatusEvent
from kallichore.conversation.voice import Voice
from kallichore.models.bodies import NewSession
from kallichore.session.overflow_file import OverflowFile
from kallichore.wire.client_messages import ClientMessage, make
from kallichore.wire.envelope import Excerpt, Header, KernelMessage, excerpt_of

INTRODUCTION = "server-1"
"""The id of the server's own kernel info request."""


def request(
    msg_id: str,
    msg_type: str = "execute_request",
    channel: str = "shell",
    *,
    subshell: str | None = None,
    **content: Any,
) -> ClientMessage:
    """Return what a client sends; code, unless there is other content."""
    message = make(msg_type, msg_id, content or {"code": "1"}, channel)
    if subshell is not None:
        message.header["subshell_id"] = subshell
    return message


def header_of(message: ClientMessage) -> Header:
    """Return what the kernel names as the parent in its answers."""
    return Header(message.msg_id, message.msg_type, message.header.get("subshell_id"))


@attrs.define(eq=False)
class Talk:
    """A session's conversation, and what came of it."""

    now: float = 10.0
    sent: list[str] = attrs.field(factory=list)
    """The ids of what the kernel was sent, in order."""
    heard: list[Heard] = attrs.field(factory=list)
    """What listeners were given."""
    rests: int = 0
    """How often it was told that the session is at rest."""
    directory: str | None = None
    """Where the kernel is."""
    logged: list[tuple[str, str]] = attrs.field(factory=list)
    _read: int = attrs.field(default=0, init=False)
    journal: Journal = attrs.field(factory=lambda: Journal(1 << 20, 0, OverflowFile(), 1 << 20), init=False)
    conversation: Conversation = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.conversation = Conversation(
            NewSession(
                session_id="s", argv=("x",), working_directory="/home", input_prompt=">", continuation_prompt="+"
            ),
            Voice(self.journal, lambda: None),
            SessionStatus(created=self.now),
            lambda msg_type: {"msg_id": "ours", "msg_type": msg_type},
            on_rest=self._rest,
            log_output=lambda stream, line: self.logged.append((stream, line)),
        )

    def _rest(self) -> None:
        self.rests += 1

    # What happens

    def change(self, event: StatusEvent, reason: str | None = None) -> None:
        """Have something happen to the kernel."""
        self.conversation.change_status(event, reason, self.now)

    def begin(self) -> None:
        """Start a kernel, and ask it who it is."""
        self.change(StatusEvent.START_REQUESTED)
        self.conversation.begin_life()
        self.conversation.expect_kernel_info(INTRODUCTION)

    def start(self) -> Talk:
        """Start a kernel, up to its introduction; forget what was told so far."""
        self.begin()
        reply = self.hear("kernel_info_reply", INTRODUCTION, {"status": "ok"}, channel="shell")
        assert isinstance(reply, KernelMessage)
        self.conversation.learn_kernel_info(reply)
        self.change(StatusEvent.START_SUCCEEDED)
        self.told()
        self.rests = 0
        return self

    def wait(self, seconds: float = GRACE) -> None:
        """Let time go by, and look again if it is time to."""
        self.now += seconds
        at = self.conversation.look_at
        if at is not None and self.now >= at:
            self._send(self.conversation.look_again(self.now, lambda: self.directory))

    def tell(self, *messages: ClientMessage) -> None:
        """Have a client say something."""
        for message in messages:
            self._send(self.conversation.tell(message, self.now))

    def _send(self, message: ClientMessage | KernelMessage | None) -> None:
        if isinstance(message, ClientMessage):
            self.sent.append(message.msg_id)
            self.conversation.sent(message, 0)

    def hear(
        self,
        msg_type: str,
        parent: ClientMessage | Header | str | None,
        content: dict[str, Any] | bytes,
        channel: str = "iopub",
        excerpt: Excerpt | None = None,
    ) -> ClientMessage | KernelMessage | None:
        """Have the kernel say something; send what that releases, and return what was returned."""
        match parent:
            case str():
                parent = Header(parent, "kernel_info_request")
            case ClientMessage():
                parent = header_of(parent)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {"msg_type": msg_type, "parent": parent and parent.msg_id}
        payload = json.dumps({**named, "channel": channel, "content": body.decode()}).encode()
        message = KernelMessage(channel, Header("k", msg_type), parent, body, excerpt or excerpt_of(body), payload)
        self.conversation.begin_hearing(self.now, is_output=channel == "iopub")
        result = self.conversation.hear(message, self.now, lambda: self.directory)
        self.conversation.voice.end_batch()
        self._send(result)
        return result

    def busy(self, parent: ClientMessage | Header | str | None) -> None:
        """Have the kernel begin something."""
        self.hear("status", parent, {"execution_state": "busy"})

    def idle(self, parent: ClientMessage | Header | str | None) -> None:
        """Have the kernel end something."""
        self.hear("status", parent, {"execution_state": "idle"})

    def reply(self, to: ClientMessage, status: str = "ok") -> None:
        """Have the kernel answer a request."""
        msg_type = to.msg_type.replace("_request", "_reply")
        self.hear(msg_type, to, {"status": status}, channel=to.channel)

    def run(self, message: ClientMessage, status: str = "ok") -> None:
        """Have the kernel do all of a request."""
        self.busy(message)
        self.reply(message, status)
        self.idle(message)

    def listen(self, *messages: ClientMessage) -> None:
        """Have somebody in this process listen to executions."""
        for message in messages:
            self.conversation.listeners[message.msg_id] = self.heard.append

    def look_finds_nothing(self) -> bool:
        """Look again when it is time to; whether that changed nothing, and nothing is to be looked at from then on."""
        before = self._shown()
        if (at := self.conversation.look_at) is not None:
            self.wait(max(at - self.now, 0))
        return (self._shown(), self.conversation.look_at) == (before, None)

    def _shown(self) -> tuple[object, ...]:
        queue, directory = self.conversation.queue, self.conversation.working_directory
        running = (queue.active_id, self.conversation.busy_since, self.status, directory)
        return (len(self.sent), len(self.heard), self.journal.end, self.pending, *running)

    # What came of it

    @property
    def status(self) -> str:
        """The session's status."""
        return self.conversation.status.current.value

    @property
    def pending(self) -> list[str]:
        """The ids of the executions that wait."""
        return [message.msg_id for message in self.conversation.queue.pending]

    def told(self) -> list[dict[str, Any]]:
        """Return what clients were told since this was last called."""
        batch = self.journal.read(self._read, 1 << 30, 1 << 20)
        self._read = batch.next_position
        return [json.loads(payload) for payload in batch.payloads]

    def news(self, member: str) -> list[Any]:
        """Return what clients were told of this kind since they were last told anything."""
        return [message[member] for message in self.told() if member in message]

    def answers(self) -> list[tuple[str, str, str]]:
        """Return the answers in the kernel's place since this was last called: type or state, id, status."""
        return [summary for message in self.told() if (summary := summarize(message))]


def summarize(message: dict[str, Any]) -> tuple[str, str, str] | None:
    """Return the type, the parent's id and the status of an answer in the kernel's place; None for anything else."""
    if message.get("kind") != "jupyter":
        return None
    content = message["content"]
    return message["header"]["msg_type"], message["parent_header"]["msg_id"], content.get("status", "idle")


def aborted(*msg_ids: str, kind: str = "execute") -> list[tuple[str, str, str]]:
    """Return the answers to requests that never run."""
    return [
        answer for msg_id in msg_ids for answer in ((f"{kind}_reply", msg_id, "aborted"), ("status", msg_id, "idle"))
    ]
