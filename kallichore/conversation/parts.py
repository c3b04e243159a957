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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs
import msgspec

from kallichore.conversation.activity import EXECUTION, NEVER, SavedActivity
from kallichore.conversation.conversation import Announcement, Conversation, OpenInput
from kallichore.conversation.delivery import Deliveries, SavedDeliveries
from kallichore.conversation.execution_queue import SavedQueue
from kallichore.conversation.history import SavedEntry, SavedText
from kallichore.conversation.journal import SavedJournal
from kallichore.conversation.runs import Runs, numbers_in, runs_of
from kallichore.models.bodies import KernelExit
from kallichore.wire.client_messages import ClientMessage, make
from kallichore.wire.envelope import UNREADABLE

T = TypeVar("T")

GONE = b""
"""Stands for a part that is no more."""

_MESSAGE, _ENTRY, _TAIL = "message:", "history:", "tail:"

_PARTS = (
    *("published", "queue", "requests", "beside", "held", "outbox", "talk", "activity", "status", "journal"),
    *("deliveries", "announcements", "kernel", "question", "exit"),
)
"""All parts but those of which there is one for each message, or entry of the history."""

_NOT_WRITTEN = (*[object()] * (len(_PARTS) - 2), None, None)
"""What nothing is equal to; but that there is no question, and was no exit, need not be written."""


class SavedKernel(msgspec.Struct, omit_defaults=True):
    """What a kernel said of itself, as JSON."""

    info: dict[str, Any] = {}
    input_prompt: str = ""
    continuation_prompt: str = ""
    is_introduced: bool = False


_encode = msgspec.json.Encoder().encode


def write_part(value: Any) -> bytes:
    """Return a part as JSON: as exactly as it is, be it a directory whose name is no text."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
    except RecursionError:
        # Nested too deep for a reader too, which says so by its name.
        return b"null"


def read_part(document: bytes, kind: type[T]) -> T:
    """Return what `write_part` was given; members that this version does not know are passed over.

    Raises:
        ValueError: It cannot be read; or what `UNREADABLE` has.
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
    _used: dict[str, set[int]] = attrs.field(factory=dict, init=False)
    """The identities of those that are in a part, by the part's name."""

    def save(self, name: str, save: Callable[[Callable[[ClientMessage], int]], T]) -> T:
        """Return what ``save`` returns, which is given what returns the numbers of the messages in this part."""
        self._used[name] = used = set()

        def number_of(message: ClientMessage) -> int:
            identity = id(message)
            used.add(identity)
            known = self._numbers.get(identity)
            if known is None:
                known = self._numbers[identity] = self._next, message
                self._next += 1
                self._new.append(known)
            return known[0]

        return save(number_of)

    def know(self, number: int, message: ClientMessage) -> None:
        """Take over a message with the number that it has, which is not to be written again."""
        self._numbers[id(message)] = number, message
        self._next = max(self._next, number + 1)

    def take_changes(self) -> Iterator[tuple[str, bytes]]:
        """Yield the parts of new messages, and of those that are in no part any more."""
        for number, message in self._new:
            yield f"{_MESSAGE}{number}", write_part(message)
        self._new.clear()
        if len(self._numbers) > len(used := set().union(*self._used.values())):
            for identity in [identity for identity in self._numbers if identity not in used]:
                yield f"{_MESSAGE}{self._numbers.pop(identity)[0]}", GONE


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
    _marks: tuple[Any, ...] = attrs.field(default=_NOT_WRITTEN, init=False)
    """Of each part of `_PARTS`, what was equal when it was written last."""
    _saves: tuple[Callable[[], Any], ...] = attrs.field(init=False)
    """Return what is to be written of each part of `_PARTS`; None for nothing."""
    _messages: _Messages = attrs.field(factory=_Messages, init=False)
    _gone: list[str] = attrs.field(factory=list, init=False)
    """Parts that were there when it was restored, and belong to nothing."""

    def __attrs_post_init__(self) -> None:
        said, known = self.conversation, self._messages
        self._saves = (
            lambda: said.published_at,
            lambda: known.save("queue", said.queue.save),
            lambda: known.save("requests", said.requests.save_owed),
            said.requests.save_beside,
            lambda: known.save("held", lambda number_of: runs_of([number_of(each) for each in said.held])),
            lambda: known.save("outbox", lambda number_of: runs_of([number_of(each) for each in self.outbox])),
            said.save,
            said.activity.save,
            said.status.save,
            said.journal.save,
            self.deliveries.save,
            lambda: said.announcements,
            self._save_kernel,
            lambda: said.open_input,
            lambda: said.last_exit,
        )

    def take_changes(self) -> dict[str, bytes]:
        """Return the parts that are not what they were at the last call, as JSON; no bytes for one that is gone.

        Not while a batch of the kernel's messages is taken in.
        """
        changes: dict[str, bytes] = {}
        if self._gone:
            changes, self._gone = dict.fromkeys(self._gone, GONE), []
        before, self._marks = self._marks, self._look()
        if before != self._marks:
            self._take_small(changes, before)
        for change in self.conversation.history.take_changes():
            if change.is_gone:
                changes[f"{_ENTRY}{change.place}"] = changes[f"{_TAIL}{change.place}"] = GONE
            if change.entry is not None:
                changes[f"{_ENTRY}{change.place}"] = write_part(change.entry)
            if change.tail is not None:
                changes[f"{_TAIL}{change.place}"] = write_part(change.tail)
        return changes

    def _look(self) -> tuple[Any, ...]:
        """Return what is equal as long as the parts of `_PARTS` are, in their order: after each batch of output nothing
        but that has to be looked at.
        """
        said = self.conversation
        return (
            said.published_at,
            said.queue.changes,
            said.requests.changes,
            said.requests.changes_beside,
            tuple(said.held),
            tuple(self.outbox),
            said.marks(),
            said.activity.changes,
            said.status.marks(),
            said.journal.marks(),
            self.deliveries.changes,
            said.announcements.copy(),
            (said.kernel_info, said.input_prompt, said.continuation_prompt, said.is_introduced),
            said.open_input,
            said.last_exit,
        )

    def _take_small(self, changes: dict[str, bytes], before: tuple[Any, ...]) -> None:
        for name, mark, mark_before, save in zip(_PARTS, self._marks, before, self._saves, strict=True):
            if mark != mark_before:
                value = save()
                changes[name] = GONE if value is None else write_part(value)
        changes.update(self._messages.take_changes())

    def _save_kernel(self) -> SavedKernel:
        said = self.conversation
        return SavedKernel(said.kernel_info, said.input_prompt, said.continuation_prompt, said.is_introduced)

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
        # What was there is written again, or is gone.
        self.into._marks = tuple(self.parts.get(name) for name in _PARTS)
        return self.problems

    def _read(self, name: str, default: T, kind: Any = None) -> T:
        document = self.parts.get(name, GONE)
        if document == GONE:
            return default
        try:
            value: T = read_part(document, kind or type(default))
        except (ValueError, *UNREADABLE) as error:
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
        conversation.announcements = self._read("announcements", {}, dict[str, Announcement])

    def _restore_kernel(self) -> None:
        conversation = self.into.conversation
        default = SavedKernel({}, conversation.input_prompt, conversation.continuation_prompt)
        saved = self._read("kernel", default)
        conversation.kernel_info, conversation.is_introduced = saved.info, saved.is_introduced
        conversation.input_prompt, conversation.continuation_prompt = saved.input_prompt, saved.continuation_prompt
