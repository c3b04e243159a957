"""Running code from inside this process: an execution and its messages, without being the session's client.

The request joins the same queue as those of clients, and a connected client sees all of it. What the kernel says about
it is heard here as well, in the order of its arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.conversation.conversation import Announcement, ExecutionOver, Heard, ProcessOutput
from kallichore.errors import KallichoreError, KernelDiedError, SessionNotReadyError
from kallichore.models.bodies import Status
from kallichore.session.facilities import new_msg_id
from kallichore.session.process_output import PARTIAL_PATIENCE
from kallichore.wire.client_messages import make
from kallichore.wire.envelope import EnvelopeError, KernelMessage, decode, encode

if TYPE_CHECKING:
    from kallichore.session.session import Session

WAITING_BYTES = 1 << 28
"""Bytes of messages that wait for a program that does not read on. What comes beyond is dropped, and counted."""


SETTLING_TURNS = 3
"""Turns of the event loop in which what is in a pipe is seen, read and handed on."""


@attrs.define(eq=False)
class Execution:
    """One running execution: iterate over it for its messages, decoded, each a dict as clients get it.

    The iteration ends when the kernel has replied and is idle again. What its process and children print past the
    kernel's messages is among them, as messages of type ``stream``.

    Attributes:
        msg_id: The request's id, the parent of all its messages.
        reply: The content of the ``execute_reply``, once it is there.
        dropped: How many messages were dropped because nobody took them in time.
    """

    session: Session
    msg_id: str
    reply: dict[str, Any] | None = attrs.field(default=None, init=False)
    dropped: int = attrs.field(default=0, init=False)
    _over: bool = attrs.field(default=False, init=False)
    _is_settled: bool = attrs.field(default=False, init=False)
    _ended: KallichoreError | None = attrs.field(default=None, init=False)
    _waiting: deque[bytes] = attrs.field(factory=deque, init=False)
    _waiting_bytes: int = attrs.field(default=0, init=False)
    _parked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def is_told(self) -> bool:
        """Whether it was iterated over to its end, and nothing was dropped."""
        return self._is_settled and not self._waiting and not self.dropped

    def hear(self, heard: Heard) -> None:
        """Take in what the kernel says, or why no more will come."""
        match heard:
            case KernelMessage():
                if heard.header.msg_type == "execute_reply":
                    self.reply = _object(heard.content)
                self._keep(heard.payload)
            case ProcessOutput():
                self._keep(self._as_stream(heard))
            case ExecutionOver():
                self._over = True
            case _:
                self._ended = heard
        self._parked.unpark_all()

    def _keep(self, payload: bytes) -> None:
        if self._waiting_bytes > WAITING_BYTES:
            self.dropped += 1
        else:
            self._waiting.append(payload)
            self._waiting_bytes += len(payload)

    def _as_stream(self, output: ProcessOutput) -> bytes:
        """Return what the kernel's process printed as if the kernel had: in a terminal there is no difference."""
        message = make("stream", new_msg_id(), {"name": output.stream, "text": output.text}, "iopub")
        parent = {"msg_id": self.msg_id, "msg_type": "execute_request"}
        return encode({"kind": "jupyter", **message.as_body(), "parent_header": parent})

    def answer_input(self, value: str) -> None:
        """Answer the kernel's ``input_request``."""
        self.session.send(make("input_reply", new_msg_id(), {"value": value, "status": "ok"}, "stdin"))

    def __aiter__(self) -> Execution:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """Return the next message. Cancelling the wait loses nothing.

        Raises:
            KernelDiedError: The kernel ended before it had replied.
            ExecutionCancelledError: It was dropped from the queue, by an interrupt for one.
        """
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self.reply is not None and self._over:
                if self._is_settled:
                    raise StopAsyncIteration
                await self._settle()
                continue
            if self._ended is not None:
                raise self._ended
            await self._parked.park()
        payload = self._waiting.popleft()
        self._waiting_bytes -= len(payload)
        message: dict[str, Any] = decode(payload)
        return message

    async def _settle(self) -> None:
        """Let those who read the process's output have their turn: what it printed before it replied is here by now."""
        for _ in range(SETTLING_TURNS):
            await trio.lowlevel.checkpoint()
        while self.session.has_partial_output:  # noqa: ASYNC110  # rare, and over within that time
            await trio.sleep(PARTIAL_PATIENCE / 4)
        self._is_settled = True


def _object(document: bytes) -> dict[str, Any]:
    """Return the object that a document is; empty where it is none."""
    try:
        value = decode(document)
    except EnvelopeError:
        return {}
    return value if isinstance(value, dict) else {}


@asynccontextmanager
async def open_execution(
    session: Session,
    code: str,
    *,
    silent: bool = False,
    store_history: bool = True,
    user_expressions: Mapping[str, str] | None = None,
    allow_stdin: bool = False,
    stop_on_error: bool = True,
    attribution: Mapping[str, Any] | None = None,
) -> AsyncIterator[Execution]:
    """Execute code and hear what the kernel says about it.

    Leaving the block early, or cancelling it, stops listening and takes a request that still waits out of the queue;
    one that runs goes on, until somebody interrupts it.

    Args:
        session: Whose kernel.
        code: What to run.
        silent: Whether the kernel is to say nothing of it, and not to count it. The meaning of this and the following
            is the messaging spec's, "Execute".
        store_history: Whether the kernel is to remember it.
        user_expressions: Expressions to be evaluated when it is done, by names that you choose.
        allow_stdin: Whether it may ask for input, which `Execution.answer_input` answers.
        stop_on_error: Whether what waits behind it is dropped if it fails.
        attribution: Who has it run, for clients and for the history; None for nobody in particular.

    Raises:
        SessionNotReadyError: The session was never started.
        KernelDiedError: Its kernel has ended; the message says how.
    """
    _require_kernel(session)
    message = make(
        "execute_request",
        new_msg_id(),
        {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": allow_stdin,
            "stop_on_error": stop_on_error,
        },
        metadata=None if attribution is None else {"attribution": attribution},
    )
    conversation = session.conversation
    if attribution is not None:
        conversation.announcements[message.msg_id] = Announcement(code, attribution)
    execution = Execution(session, message.msg_id)
    conversation.listeners[message.msg_id] = execution.hear
    has_all = False
    try:
        session.send(message)
        yield execution
        has_all = execution.is_told
    finally:
        del conversation.listeners[message.msg_id]
        conversation.announcements.pop(message.msg_id, None)
        conversation.withdraw(message.msg_id)
        session.end_call(message.msg_id, has_all=has_all)


def _require_kernel(session: Session) -> None:
    if session.is_running:
        return
    name, latest = session.session_id, session.conversation.last_exit
    if session.status is Status.UNINITIALIZED:
        raise SessionNotReadyError(f"Session {name} was never started; start it first")
    why = "it did not start" if latest is None else latest.text
    raise KernelDiedError(f"Session {name} has no kernel: {why}; restart it first")
