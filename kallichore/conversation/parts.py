"""What a conversation and its deliveries have to remember, as named parts, so that another process can go on with it.

Each part is a JSON document. Most are a line; what may be large (a client's message, what an execution printed) has a
part of its own, which is written when it changes and not with all that changes beside it. Messages of clients are told
by numbers elsewhere: one that waits, and is owed an answer, is one message, and is one again afterwards.

Left out is what ends with its process: clients that are here, callers in this process and what they were given, and
what the kernel used when it was last looked at. The messages for clients are kept by others, see `Journal.refill`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import attrs
import msgspec

from kallichore.conversation.activity import EXECUTION, NEVER, SavedActivity
from kallichore.conversation.conversation import Announcement, Conversation, OpenInput, SavedTalk
from kallichore.conversation.delivery import Deliveries, SavedDeliveries
from kallichore.conversation.execution_queue import SavedQueue
from kallichore.conversation.history import SavedEntry, SavedText
from kallichore.conversation.journal import SavedJournal
from kallichore.conversation.runs import Runs, numbers_in, runs_of
from kallichore.conversation.status import SavedStatus
from kallichore.models.bodies import KernelExit
from kallichore.wire.client_messages import ClientMessage, make
from kallichore.wire.envelope import UNREADABLE

T = TypeVar("T")

GONE = b""
"""Stands for a part that is no more."""

_MESSAGE, _ENTRY, _TAIL = "message:", "history:", "tail:"


class SavedKernel(msgspec.Struct, omit_defaults=True):
    """What a kernel said of itself, as JSON."""

    info: dict[str, Any] = {}
    input_prompt: str = ""
    continuation_prompt: str = ""
    is_introduced: bool = False


def write_part(value: Any) -> bytes:
    """Return a part as JSON: as exactly as it is, be it a directory whose name is no text."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
    except RecursionError:
        # Nested too deep for a reader too, which says so by its name.
        return b"null"


def read_part(document: bytes, kind: type[T]) -> T:
    """Return what `write_part` was given; members that this version does not know are passed over.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        return msgspec.json.decode(document, type=kind)
    except msgspec.ValidationError:
        raise
    except UNREADABLE:
        # Half a surrogate pair, as file names have, is taken by the more patient reader.
        return msgspec.convert(json.loads(document), kind)


@attrs.define(eq=False)
class _Messages:
    """Clients' messages that are somewhere in a conversation, each with a number."""

    _numbers: dict[int, tuple[int, ClientMessage]] = attrs.field(factory=dict, init=False)
    """By the identity of the message, which is kept here, so that no other has it."""
    _next: int = attrs.field(default=0, init=False)
    _new: list[tuple[int, ClientMessage]] = attrs.field(factory=list, init=False)
    _used: set[int] = attrs.field(factory=set, init=False)
    """Which of them were asked for since `take_changes`, by identity."""

    def number_of(self, message: ClientMessage) -> int:
        """Return the number of a message; a new one for one that has none."""
        identity = id(message)
        self._used.add(identity)
        known = self._numbers.get(identity)
        if known is None:
            known = self._numbers[identity] = self._next, message
            self._next += 1
            self._new.append(known)
        return known[0]

    def numbers_of(self, messages: tuple[ClientMessage, ...]) -> Runs:
        """Return the numbers of messages."""
        return runs_of([self.number_of(message) for message in messages])

    def know(self, number: int, message: ClientMessage) -> None:
        """Take over a message with the number that it has, which is not to be written again."""
        self._numbers[id(message)] = number, message
        self._next = max(self._next, number + 1)

    def take_changes(self) -> Iterator[tuple[str, bytes]]:
        """Yield the parts of new messages, and of those whose number nobody asked for: they are gone."""
        for number, message in self._new:
            yield f"{_MESSAGE}{number}", write_part(message)
        if len(self._numbers) > len(self._used):
            for identity in [identity for identity in self._numbers if identity not in self._used]:
                yield f"{_MESSAGE}{self._numbers.pop(identity)[0]}", GONE
        self._new, self._used = [], set()


@attrs.define(eq=False)
class ConversationParts:
    """What a conversation and its deliveries have to remember, as named parts.

    Args:
        conversation: The conversation.
        deliveries: What its clients were given.
        outbox: Clients' messages for a kernel that is not ready yet, which the conversation knows of.
    """

    conversation: Conversation
    deliveries: Deliveries
    outbox: deque[ClientMessage] = attrs.field(factory=deque)
    _written: dict[str, Any] = attrs.field(factory=dict, init=False)
    """What was written last, by part, as far as it is looked at as a whole."""
    _messages: _Messages = attrs.field(factory=_Messages, init=False)
    _gone: list[str] = attrs.field(factory=list, init=False)
    """Parts that were there when it was restored, and belong to nothing."""

    def take_changes(self) -> dict[str, bytes]:
        """Return the parts that are not what they were at the last call, as JSON; no bytes for one that is gone.

        Not while a batch of the kernel's messages is taken in.
        """
        changes: dict[str, bytes] = dict.fromkeys(self._gone, GONE)
        self._gone = []
        self._take_messages(changes)
        self._take_whole(changes)
        for change in self.conversation.history.take_changes():
            if change.is_gone:
                changes[f"{_ENTRY}{change.place}"] = changes[f"{_TAIL}{change.place}"] = GONE
            if change.entry is not None:
                changes[f"{_ENTRY}{change.place}"] = write_part(change.entry)
            if change.tail is not None:
                changes[f"{_TAIL}{change.place}"] = write_part(change.tail)
        return changes

    def _take_messages(self, changes: dict[str, bytes]) -> None:
        """Look at what consists of clients' messages, if any of it changed."""
        queue, requests = self.conversation.queue, self.conversation.requests
        held, outbox = tuple(self.conversation.held), tuple(self.outbox)
        if not self._is_new("-messages", (queue.changes, requests.changes, held, outbox)):
            return
        known = self._messages
        self._put(changes, "queue", queue.save(known.number_of))
        self._put(changes, "requests", requests.save_owed(known.number_of))
        self._put(changes, "held", known.numbers_of(held))
        self._put(changes, "outbox", known.numbers_of(outbox))
        changes.update(known.take_changes())

    def _take_whole(self, changes: dict[str, bytes]) -> None:
        """Look at what is small, or is replaced as a whole."""
        said, deliveries = self.conversation, self.deliveries
        self._put(changes, "talk", said.save())
        self._put(changes, "published", said.published_at)
        self._put(changes, "activity", said.activity.save())
        self._put(changes, "status", said.status.save())
        self._put(changes, "journal", said.journal.save())
        if self._is_new("-beside", said.requests.changes_beside):
            self._put(changes, "beside", said.requests.save_beside())
        if self._is_new("-deliveries", deliveries.changes):
            self._put(changes, "deliveries", deliveries.save())
        if said.announcements or self._written.get("announcements") != {}:
            self._put(changes, "announcements", said.announcements.copy())
        kernel = (said.kernel_info, said.input_prompt, said.continuation_prompt, said.is_introduced)
        if self._is_new("-kernel", kernel):
            changes["kernel"] = write_part(SavedKernel(*kernel))
        for name, value in (("question", said.open_input), ("exit", said.last_exit)):
            if self._written.get(name) is not value:
                self._written[name] = value
                changes[name] = GONE if value is None else write_part(value)

    def _is_new(self, name: str, value: Any) -> bool:
        """Whether something is not what it was when this was last asked."""
        if name in self._written and self._written[name] == value:
            return False
        self._written[name] = value
        return True

    def _put(self, changes: dict[str, bytes], name: str, value: Any) -> None:
        """Write a part if it is another than before."""
        if self._is_new(name, value):
            changes[name] = write_part(value)

    def restore(self, parts: Mapping[str, bytes], shift: float) -> list[str]:
        """Have a new conversation, whose journal is empty yet, go on where another process's was.

        What times are part of is a change for the next `take_changes`, as they are this process's then.

        Args:
            parts: All parts of the other process's, by name. What has another name is passed over.
            shift: Seconds by which the clock of this process is ahead of the other's.

        Returns:
            What could not be read and is as in a new conversation, in words.
        """
        return _Restoring(self, parts, shift).run()


@attrs.define
class _Restoring:
    """One call of `restore`."""

    into: ConversationParts
    parts: Mapping[str, bytes]
    shift: float
    problems: list[str] = attrs.field(factory=list, init=False)
    messages: dict[int, ClientMessage] = attrs.field(factory=dict, init=False)

    def run(self) -> list[str]:
        """Read the parts, and return the problems."""
        self._restore_messages()
        self._restore_history()
        self._restore_talk()
        self._restore_kernel()
        self.into.conversation.journal.load(self._read("journal", SavedJournal()))
        self.into.deliveries.load(self._read("deliveries", SavedDeliveries()))
        return self.problems

    def _read(self, name: str, default: T, kind: Any = None) -> T:
        document = self.parts.get(name, GONE)
        if document == GONE:
            return default
        try:
            value: T = read_part(document, kind or type(default))
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{name} cannot be read: {error}")
            return default
        return value

    def _numbered(self, prefix: str, kind: type[T]) -> dict[int, T]:
        """Return what has a part each, by number."""
        found: dict[int, T] = {}
        for name in self.parts:
            number = name.removeprefix(prefix)
            if name.startswith(prefix) and number.isdecimal():
                value = self._read(name, None, kind)
                if value is None:
                    self.into._gone.append(name)
                else:
                    found[int(number)] = value
        return found

    def _restore_messages(self) -> None:
        conversation, known = self.into.conversation, self.into._messages
        self.messages = self._numbered(_MESSAGE, ClientMessage)
        for number, message in self.messages.items():
            known.know(number, message)
        saved = self._read("queue", SavedQueue())
        lost = make(EXECUTION, saved.active_id or "", {})
        missing = conversation.queue.load(saved, self._find, lost, self.shift)
        if missing:
            self.problems.append(f"{missing} executions that waited are lost")
        conversation.requests.load(self._find_all("requests"), self._read("beside", (), tuple[str, ...]))
        conversation.held.extend(self._find_all("held"))
        self.into.outbox.extend(self._find_all("outbox"))

    def _find(self, number: int) -> tuple[str, ClientMessage] | None:
        message = self.messages.get(number)
        return None if message is None else (message.msg_id, message)

    def _find_all(self, name: str) -> list[ClientMessage]:
        numbers = list(numbers_in(self._read(name, (), Runs)))
        found = [self.messages[number] for number in numbers if number in self.messages]
        if len(found) < len(numbers):
            self.problems.append(f"{len(numbers) - len(found)} messages of {name} are lost")
        return found

    def _restore_history(self) -> None:
        entries, tails = self._numbered(_ENTRY, SavedEntry), self._numbered(_TAIL, SavedText)
        self.into.conversation.history.load(entries, tails)
        self.into._gone.extend(f"{_TAIL}{place}" for place in tails if place not in entries)

    def _restore_talk(self) -> None:
        conversation = self.into.conversation
        if self.parts.get("talk"):
            conversation.load(self._read("talk", conversation.save()), self.shift)
        published = self._read("published", None, float | None)
        conversation.published_at = NEVER if published is None else published + self.shift
        conversation.activity.load(self._read("activity", SavedActivity()), self.shift)
        if self.parts.get("status"):
            conversation.status.load(self._read("status", conversation.status.save()), self.shift)
        conversation.open_input = self._read("question", None, OpenInput)
        conversation.last_exit = self._read("exit", None, KernelExit)
        # To be written again, or to be gone, whatever it was.
        self.into._written.update((name, self.parts[name]) for name in ("question", "exit") if name in self.parts)
        conversation.announcements = self._read("announcements", {}, dict[str, Announcement])

    def _restore_kernel(self) -> None:
        conversation = self.into.conversation
        default = SavedKernel({}, conversation.input_prompt, conversation.continuation_prompt)
        saved = self._read("kernel", default)
        conversation.kernel_info, conversation.is_introduced = saved.info, saved.is_introduced
        conversation.input_prompt, conversation.continuation_prompt = saved.input_prompt, saved.continuation_prompt
