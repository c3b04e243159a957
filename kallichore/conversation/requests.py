"""Who has to be answered: what clients asked and the kernel has not replied to, and answers where it never will.

Each request has one reply (messaging spec, "Messages on the shell channel"), and a client may wait for it for ever. So
whatever becomes of a request, it is answered: by the kernel, or in its place, truly. What the kernel never began is
``aborted``, as ipykernel says of what waits behind an error; what it was at work on when it ended is an ``error``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import msgspec

from kallichore.conversation.runs import Runs, runs_of
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import UNREADABLE, encode

MOST_OPEN = 10_000
"""Requests that are remembered at most. Who sends more than that without an answer has a kernel that gives none."""

Answer = dict[str, Any]
"""The content of a reply."""

ABORTED: Answer = {"status": "aborted"}

KERNEL_DIED = "KernelDied"
"""The error's name where the kernel ended while it was at work on a request."""

WriteHeader = Callable[[str], dict[str, Any]]
"""Makes the header of a message of this type."""


class _Choices(msgspec.Struct):
    stop_on_error: bool = True
    silent: bool = False


class _Restart(msgspec.Struct):
    restart: bool = False


def failure(name: str, text: str) -> Answer:
    """Return the content of a reply that tells an error which is not the code's own."""
    return {"status": "error", "ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def reply_type(request: ClientMessage) -> str | None:
    """Return the type of a request's reply; None if it has none, as comm messages and what goes elsewhere."""
    if not request.msg_type.endswith("_request") or request.channel not in ("shell", "control"):
        return None
    return request.msg_type.removesuffix("request") + "reply"


def stops_on_error(request: ClientMessage) -> bool:
    """Whether executions that wait are not to run if this one fails; ipykernel makes a silent one an exception."""
    try:
        choices = msgspec.json.decode(request.content, type=_Choices)
    except UNREADABLE:
        return True
    return choices.stop_on_error and not choices.silent


def answer_at_the_end(request: ClientMessage, has_begun: bool, why: str) -> Answer:
    """Return what a request is answered with whose kernel has ended.

    Args:
        request: The request.
        has_begun: Whether the kernel was at work on it.
        why: Why the kernel ended.
    """
    if request.msg_type == "shutdown_request":
        # Many kernels just end; what was asked for has happened.
        return {"status": "ok", "restart": _wants_restart(request)}
    return failure(KERNEL_DIED, why) if has_begun else ABORTED


def _wants_restart(request: ClientMessage) -> bool:
    try:
        return msgspec.json.decode(request.content, type=_Restart).restart
    except UNREADABLE:
        return False


def write_answer(request: ClientMessage, answer: Answer, write_header: WriteHeader) -> list[bytes]:
    """Return the messages that answer a request in the kernel's place: the reply, and the idle that ends it."""
    msg_type = reply_type(request)
    assert msg_type is not None
    idle = {"execution_state": "idle"}
    return [
        _write(request, msg_type, request.channel, answer, write_header),
        _write(request, "status", "iopub", idle, write_header),
    ]


def _write(request: ClientMessage, msg_type: str, channel: str, content: Answer, write_header: WriteHeader) -> bytes:
    return encode(
        {
            "kind": "jupyter",
            "header": write_header(msg_type),
            "parent_header": request.header,
            "channel": channel,
            "content": content,
            "metadata": {},
            "buffers": [],
        }
    )


@attrs.define
class Requests:
    """The requests of a session's clients that are open."""

    changes: int = attrs.field(default=0, init=False)
    """How often what has to be answered may have changed: who saves it need not look at all of it."""
    changes_beside: int = attrs.field(default=0, init=False)
    """The same of what is served beside the main shell."""
    _owed: dict[str, ClientMessage] = attrs.field(factory=dict, init=False)
    """Those that have to be answered, by ``msg_id``."""
    _beside: dict[str, None] = attrs.field(factory=dict, init=False)
    """The ids of those that are served beside the main shell, whether they are answered or not."""

    def __iter__(self) -> Iterator[ClientMessage]:
        return iter(tuple(self._owed.values()))

    def add(self, message: ClientMessage) -> None:
        """Note what a client sent."""
        if reply_type(message) is not None:
            self.changes += 1
            self._owed[message.msg_id] = message
            if len(self._owed) > MOST_OPEN:
                del self._owed[next(iter(self._owed))]
        if message.is_beside:
            self.changes_beside += 1
            self._beside[message.msg_id] = None
            if len(self._beside) > MOST_OPEN:
                del self._beside[next(iter(self._beside))]

    def is_beside(self, msg_id: str) -> bool:
        """Whether a request was sent to control or to a subshell."""
        return msg_id in self._beside

    def replied(self, msg_id: str) -> None:
        """Note that a request has its reply."""
        self.changes += 1
        self._owed.pop(msg_id, None)

    def ended(self, msg_id: str) -> None:
        """Note that the kernel is done with a request beside the main shell: no status of it will follow."""
        self.changes_beside += 1
        self._beside.pop(msg_id, None)

    def take(self, message: ClientMessage) -> bool:
        """Take a request that is to be answered in the kernel's place; False if it has its reply already."""
        self.changes += 1
        return self._owed.pop(message.msg_id, None) is not None

    # For another process

    def save_owed(self, number_of: Callable[[ClientMessage], int]) -> Runs:
        """Return what has to be answered, as numbers that ``number_of`` gives."""
        return runs_of([number_of(message) for message in self._owed.values()])

    def save_beside(self) -> tuple[str, ...]:
        """Return the ids of what is served beside the main shell."""
        return tuple(self._beside)

    def load(self, owed: Iterable[ClientMessage], beside: Iterable[str]) -> None:
        """Become what was saved."""
        self._owed = {message.msg_id: message for message in owed}
        self._beside = dict.fromkeys(beside)
        self.changes += 1
        self.changes_beside += 1
