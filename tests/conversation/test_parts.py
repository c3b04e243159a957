"""A conversation that goes on in another process goes on exactly as it would have."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kallichore.conversation.activity import GRACE
from kallichore.conversation.conversation import Announcement, SavedTalk
from kallichore.conversation.delivery import Deliveries, Delivery, Ending
from kallichore.conversation.history import MOST_ENTRIES
from kallichore.conversation.journal import Shift
from kallichore.conversation.parts import ConversationParts, SavedKernel, read_part, write_part
from kallichore.conversation.status import TRANSITIONS, StatusEvent
from kallichore.models.bodies import ExitCause, KernelExit, RunningRequest
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import Excerpt, Header
from talk import INTRODUCTION, Talk, request

KEPT = 400
"""Bytes of messages that journals keep here although everybody has them: a few messages."""


@attrs.define(eq=False)
class Side:
    """One conversation, with its clients, in one process."""

    talk: Talk
    shift: float = 0.0
    """Seconds by which its clock is ahead of the other side's."""
    outbox: deque[ClientMessage] = attrs.field(factory=deque)
    deliveries: Deliveries = attrs.field(init=False)
    parts: ConversationParts = attrs.field(init=False)
    here: list[Delivery] = attrs.field(factory=list, init=False)
    """Its clients, in the order in which they came."""

    def __attrs_post_init__(self) -> None:
        self.deliveries = Deliveries(self.talk.journal)
        self.parts = ConversationParts(self.talk.conversation, self.deliveries, self.outbox)

    def shown(self) -> dict[str, Any]:
        """Return all that anybody can see of it, in the other side's time."""
        said, journal = self.talk.conversation, self.talk.journal
        queue, status = said.queue, said.status

        def at(time: float | None) -> float | None:
            return None if time is None else time - self.shift

        return {
            "state": said.state(),
            "status": (status.current, status.reason, at(status.since), at(status.idle_since)),
            "busy": (at(said.busy_since), said.is_at_work, said.running(self.talk.now)),
            "times": (at(said.look_at), at(said.active_at), at(said.created_at), at(said.published_at)),
            "queue": (queue.active_id, at(queue.active_since), queue.is_replied, at(queue.look_at), queue.active),
            "pending": queue.pending,
            "activity": (at(said.activity.since), at(said.activity.at_rest_since), at(said.activity.look_at)),
            "requests": (tuple(said.requests), said.held, list(self.outbox)),
            "active is owed": any(each is queue.active for each in said.requests),
            "question": said.open_input,
            "kernel": (said.kernel_info, said.input_prompt, said.continuation_prompt, said.is_introduced),
            "rest": (said.working_directory, said.memory_warning, said.last_exit, said.announcements),
            "history": said.history.entries(),
            "numbers": (journal.first, journal.end, journal.needed, journal.dropped),
            "messages": journal.read(journal.first, 1 << 30, 1 << 20).payloads,
            "exits": (journal.exits, journal.old_exits, journal.urgent_after(0)),
            "owed": self.deliveries.owed,
            "here": [(each.began, each.given, each.confirmed, each.left_out, each.own) for each in self.here],
        }


@attrs.define(eq=False)
class Log:
    """What outlives a process: parts and messages, as they were when they were written last."""

    parts: dict[str, bytes] = attrs.field(factory=dict)
    messages: dict[int, bytes] = attrs.field(factory=dict)
    end: int = 0

    def commit(self, side: Side) -> None:
        """Write what is new."""
        journal = side.talk.journal
        for name, part in side.parts.take_changes().items():
            if part:
                self.parts[name] = part
            else:
                self.parts.pop(name, None)
        batch = journal.read(self.end, 1 << 30, 1 << 20)
        self.messages.update(enumerate(batch.payloads, batch.next_position - len(batch.payloads)))
        self.end = journal.end

    def take_back(self, shift: Shift) -> None:
        """Follow the journal."""
        self.messages = {shift(number): each for number, each in self.messages.items() if not shift.has(number)}
        self.end = shift(self.end)


def new_side(now: float, shift: float = 0.0) -> Side:
    """Return a conversation that nothing was said in."""
    talk = Talk(now)
    talk.journal.keep_limit = KEPT
    return Side(talk, shift)


def go_on(log: Log, before: Side, shift: float) -> Side:
    """Have another process go on, with a clock that is ahead by so much."""
    side = new_side(before.talk.now + shift, before.shift + shift)
    # The kernel is where it was.
    side.talk.directory = before.talk.directory
    assert side.parts.restore(log.parts, shift) == []
    first = before.talk.journal.first
    payloads = [log.messages[number] for number in range(first, log.end)]
    # In two pieces, as a file is read.
    urgent = [range(number, number + 1) for number in before.talk.journal.urgent_after(0)]
    for start, stop in ((0, len(payloads) // 2), (len(payloads) // 2, len(payloads))):
        side.talk.journal.refill(first + start, payloads[start:stop], urgent)
    return side


REQUESTS: dict[str, Callable[[str], ClientMessage]] = {
    "execute": request,
    "execute, and go on": lambda msg_id: request(msg_id, code="x" * 5000, stop_on_error=False),
    "execute silently": lambda msg_id: request(msg_id, code="1", silent=True),
    "execute beside": lambda msg_id: request(msg_id, subshell="1"),
    "with buffers": lambda msg_id: msgspec.structs.replace(request(msg_id, "comm_msg"), buffers=(b"\0\xff", b"")),
    "for somebody": lambda msg_id: msgspec.structs.replace(
        request(msg_id), metadata=b'{"attribution":{"source":"agent"}}', keeps_header=True, parent_header={"msg_id": ""}
    ),
    "inspect": lambda msg_id: request(msg_id, "inspect_request"),
    "debug": lambda msg_id: request(msg_id, "debug_request", "control"),
    "answer": lambda msg_id: request(msg_id, "input_reply", "stdin"),
    "interrupt": lambda msg_id: request(msg_id, "interrupt_request", "control"),
    "shut down": lambda msg_id: request(msg_id, "shutdown_request", "control", restart=True),
}
"""What clients send."""

TEXTS = st.sampled_from(["a line\n", "\u2603" * 700 + "\n", "\U0001f600" * 30_000])
"""What code prints, some of which is cut in the middle of a character."""

EXIT = KernelExit(
    text="It died",
    cause=ExitCause.SIGNAL,
    time=datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
    process_id=7,
    exit_code=-9,
    running=RunningRequest(msg_id="1", code="1", seconds=0.5),
    last_words=("a", "b"),
)


class Restoring(RuleBasedStateMachine):
    """The same is said to two: one goes on for ever, the other dies at any moment and is followed by another."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = new_side(10.0), new_side(10.0)
        self.log = Log()
        self.count = 0
        self.asked: dict[str, ClientMessage] = {}
        for side in (self.one, self.other):
            side.talk.start()

    def both(self, act: Callable[[Side], Any]) -> None:
        """Have the same happen to both, a while later; what they do and return is the same."""
        results = []
        for side in (self.one, self.other):
            side.talk.now += 1 / 16
            before = len(side.talk.sent), side.talk.rests
            result = act(side)
            results.append((result, side.talk.sent[before[0] :], side.talk.rests - before[1]))

        assert results[0] == results[1]

    # The process

    @rule()
    def write(self) -> None:
        """What is new is written."""
        self.log.commit(self.other)

    @rule(shift=st.sampled_from([-3600.0, -0.25, 0.0, 86400.5]))
    def die(self, shift: float) -> None:
        """Another process goes on, without the clients of this one; a line that this process cut is not a bad one."""
        self.write()
        self.other = go_on(self.log, self.other, shift)
        deliveries = self.one.deliveries
        distance = deliveries._distance
        for delivery in self.one.here:
            deliveries.end(delivery, Ending.CUT)
        deliveries._distance = distance
        self.one.here.clear()

    # The kernel

    def parents(self) -> st.SearchStrategy[ClientMessage | Header | None]:
        """Return whom the kernel may name: what it was asked, itself, somebody else, or nobody."""
        others = st.sampled_from([None, Header("other", "execute_request"), Header("other", "comm_msg")])
        silent = st.just(Header(INTRODUCTION, "kernel_info_request"))
        # What has no type is what some kernels give back.
        known = [*self.asked.values(), *(Header(msg_id, "") for msg_id in self.asked)]
        return st.one_of(st.sampled_from(known), others, silent) if known else others | silent

    @rule(data=st.data(), state=st.sampled_from(["busy", "idle", "starting"]))
    def publish_status(self, data: st.DataObject, state: str) -> None:
        """The kernel says that it is busy, or idle."""
        parent = data.draw(self.parents())
        self.both(lambda side: side.talk.hear("status", parent, {"execution_state": state}))

    @rule(data=st.data(), text=TEXTS)
    def print_text(self, data: st.DataObject, text: str) -> None:
        """Code prints."""
        parent, literal = data.draw(self.parents()), json.dumps(text).encode()
        excerpt = Excerpt(text=msgspec.Raw(literal))
        self.both(lambda side: side.talk.hear("stream", parent, b'{"text":%s}' % literal, excerpt=excerpt))

    @rule(data=st.data())
    def show(self, data: st.DataObject) -> None:
        """Code has a result."""
        parent, excerpt = data.draw(self.parents()), Excerpt({"text/plain": msgspec.Raw(b'"42"')})
        self.both(lambda side: side.talk.hear("execute_result", parent, {}, excerpt=excerpt))

    @rule(data=st.data(), name=st.sampled_from(["NameError", "N" * 300]))
    def fail(self, data: st.DataObject, name: str) -> None:
        """Code raises an error."""
        parent = data.draw(self.parents())
        self.both(lambda side: side.talk.hear("error", parent, {"ename": name, "evalue": "", "traceback": ["x"]}))

    @rule(data=st.data(), status=st.sampled_from(["ok", "error"]), kind=st.sampled_from(["execute", "inspect"]))
    def reply(self, data: st.DataObject, status: str, kind: str) -> None:
        """The kernel replies."""
        parent = data.draw(self.parents())
        self.both(lambda side: side.talk.hear(f"{kind}_reply", parent, {"status": status}, channel="shell"))

    @rule(data=st.data())
    def ask_for_input(self, data: st.DataObject) -> None:
        """The kernel has a question."""
        parent = data.draw(self.parents())
        self.both(lambda side: side.talk.hear("input_request", parent, {"prompt": "?"}, channel="stdin"))

    @rule(content=st.sampled_from([{}, {"language_info": {"positron": {"input_prompt": "R>"}}, "n": 10**30}]))
    def introduce_itself(self, content: dict[str, Any]) -> None:
        """The kernel says who it is."""

        def learn(side: Side) -> None:
            reply = side.talk.hear("kernel_info_reply", INTRODUCTION, content, channel="shell")
            if reply is not None and not isinstance(reply, ClientMessage):
                side.talk.conversation.learn_kernel_info(reply)

        self.both(learn)

    @rule(directory=st.sampled_from([None, "/home", "/tmp/\udcff", "/tmp"]))
    def be_moved(self, directory: str | None) -> None:
        """The kernel is in another directory from now on."""

        def move(side: Side) -> None:
            side.talk.directory = directory

        self.both(move)

    @rule(event=st.sampled_from(StatusEvent), reason=st.sampled_from([None, "why"]))
    def change_status(self, event: StatusEvent, reason: str | None) -> None:
        """Something happens to the kernel: it is there, it is silent, it is gone."""
        if (self.one.talk.conversation.status.current, event) in TRANSITIONS:
            self.both(lambda side: side.talk.change(event, reason))

    @rule()
    def exit(self) -> None:
        """The kernel is gone, and clients are told why."""

        def end(side: Side) -> None:
            side.talk.conversation.last_exit = EXIT
            side.talk.change(StatusEvent.EXITED, "It died")
            side.talk.conversation.say("exited", -9)

        self.both(end)

    @rule()
    def begin_life(self) -> None:
        """Another kernel is started."""
        if (self.one.talk.conversation.status.current, StatusEvent.START_REQUESTED) in TRANSITIONS:
            self.both(lambda side: side.talk.begin())

    @rule(seconds=st.sampled_from([GRACE / 4, GRACE, 60.0]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.both(lambda side: side.talk.wait(seconds))

    @rule(line=st.sampled_from(["a line\n", "a b\xff"]))
    def process_prints(self, line: str) -> None:
        """The kernel's process prints."""
        self.both(lambda side: side.talk.conversation.hear_output("stdout", line))

    @rule(warning=st.sampled_from([None, "near its limit"]))
    def warn(self, warning: str | None) -> None:
        """The kernel takes much memory."""

        def note(side: Side) -> None:
            side.talk.conversation.memory_warning = warning

        self.both(note)

    # Its clients' words

    def ask(self, kind: str, msg_id: str | None = None) -> ClientMessage:
        """Return what a client sends; an id that there was already is another client's."""
        self.count += 1
        message = REQUESTS[kind](msg_id or str(self.count))
        self.asked[message.msg_id] = message
        return message

    @rule(kind=st.sampled_from(sorted(REQUESTS)), data=st.data(), again=st.sampled_from([False] * 9 + [True]))
    def tell(self, kind: str, data: st.DataObject, again: bool) -> None:
        """A client says something."""
        msg_id = data.draw(st.sampled_from(sorted(self.asked))) if again and self.asked else None
        message = self.ask(kind, msg_id)
        self.both(lambda side: side.talk.tell(message))

    @rule(kind=st.sampled_from(sorted(REQUESTS)))
    def refuse(self, kind: str) -> None:
        """A client says something that nobody takes."""
        message = self.ask(kind)
        self.both(lambda side: side.talk.conversation.refuse(message, "No", "There is no kernel"))

    @rule(kind=st.sampled_from(sorted(REQUESTS)))
    def hold(self, kind: str) -> None:
        """A client says something during a restart."""
        message = self.ask(kind)

        def hold(side: Side) -> None:
            side.talk.conversation.requests.add(message)
            side.talk.conversation.held.append(message)

        self.both(hold)

    @rule()
    def take_held(self) -> None:
        """The kernel that it was for is there."""
        self.both(lambda side: side.talk.tell(*side.talk.conversation.take_held()))

    @rule(kind=st.sampled_from(sorted(REQUESTS)))
    def keep(self, kind: str) -> None:
        """A client says something to a kernel that is not ready."""
        message = self.ask(kind)

        def keep(side: Side) -> None:
            if following := side.talk.conversation.tell(message, side.talk.now):
                side.outbox.append(following)

        self.both(keep)

    @precondition(lambda self: self.one.outbox)
    @rule()
    def send_kept(self) -> None:
        """The kernel is ready."""
        self.both(lambda side: side.talk._send(side.outbox.popleft()))

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client takes back what waits, or does not any more."""
        if self.asked:
            msg_id = data.draw(st.sampled_from(sorted(self.asked)))
            self.both(lambda side: side.talk.conversation.withdraw(msg_id))

    @rule()
    def signal(self) -> None:
        """The kernel is interrupted."""
        self.both(lambda side: side.talk.conversation.clear_for("interrupt_request"))

    @rule()
    def expect_kernel_info(self) -> None:
        """The server asks the kernel who it is once more."""
        self.both(lambda side: side.talk.conversation.expect_kernel_info("server-2"))

    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        """Something is run for somebody, which clients are told when it is sent."""
        message = self.ask("for somebody")
        announced = Announcement("1", {"source": "agent", "names": ["a"]})

        def announce(side: Side) -> None:
            side.talk.conversation.announcements[message.msg_id] = announced

        self.both(announce)

    @precondition(lambda self: self.one.talk.conversation.announcements)
    @rule()
    def tell_announced(self) -> None:
        """It is sent."""
        message = self.asked[next(iter(self.one.talk.conversation.announcements))]
        self.both(lambda side: side.talk.conversation.announce(message, "now"))

    # Its clients, and what they are given

    @rule(kind=st.sampled_from(["speaks", "watches", "visits", "has a number"]))
    def come(self, kind: str) -> None:
        """A client comes."""
        since = self.one.talk.journal.end // 2 if kind == "has a number" else None

        def come(side: Side) -> None:
            side.here.append(side.deliveries.begin(speaks=kind != "watches", visits=kind == "visits", since=since))

        self.both(come)

    def client(self, data: st.DataObject) -> int:
        """Return one of those that are here."""
        return data.draw(st.integers(0, len(self.one.here) - 1))

    @precondition(lambda self: self.one.here)
    @rule(data=st.data(), count=st.integers(1, 9), pings=st.booleans(), is_own=st.booleans())
    def give(self, data: st.DataObject, count: int, pings: bool, is_own: bool) -> None:
        """It is given more."""
        who = self.client(data)

        def give(side: Side) -> None:
            delivery = side.here[who]
            behind = min(delivery.given + count, side.talk.journal.end)
            if delivery.own is not None and is_own:
                delivery.own.update(range(delivery.given, behind))
            delivery.give(behind)
            if pings:
                delivery.ping(behind)

        self.both(give)

    @precondition(lambda self: self.one.here)
    @rule(data=st.data(), count=st.integers(1, 3))
    def give_ahead(self, data: st.DataObject, count: int) -> None:
        """It is given replies ahead of output."""
        who = self.client(data)

        def give(side: Side) -> None:
            delivery = side.here[who]
            numbers = side.talk.journal.urgent_after(delivery.given)[-count:]
            delivery.give_ahead(numbers)
            if delivery.own is not None:
                delivery.own.update(numbers)
            delivery.ping(delivery.given)

        self.both(give)

    @precondition(lambda self: self.one.here)
    @rule(data=st.data(), back=st.integers(0, 2))
    def answer_ping(self, data: st.DataObject, back: int) -> None:
        """It answers a ping."""
        who = self.client(data)
        self.both(lambda side: side.deliveries.pong(side.here[who], side.here[who]._pings - back))

    @precondition(lambda self: self.one.here)
    @rule(data=st.data(), ending=st.sampled_from(Ending))
    def leave(self, data: st.DataObject, ending: Ending) -> None:
        """It leaves."""
        who = self.client(data)
        self.both(lambda side: side.deliveries.end(side.here.pop(who), ending))

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """A caller got messages that no client will come for."""
        self.write()
        journal = self.one.talk.journal
        start = data.draw(st.integers(journal.first, journal.end))
        stop = data.draw(st.integers(start, journal.end))

        def take_back(side: Side) -> Shift:
            shift = side.deliveries.told_to_caller([range(start, stop)])
            side.talk.conversation.renumber(shift)
            return shift

        self.log.take_back(take_back(self.other))
        take_back(self.one)

    @invariant()
    def look_the_same(self) -> None:
        """Whoever looks at them sees the same."""
        one, other = self.one.shown(), self.other.shown()
        different = {name: (value, other[name]) for name, value in one.items() if value != other[name]}

        assert {} == different

    def teardown(self) -> None:
        """All that is open is answered in the same way."""
        self.die(1024.0)
        self.exit()
        self.look_the_same()


Restoring.TestCase.settings = settings(stateful_step_count=40)
TestRestoring = Restoring.TestCase


# Parts one by one


def a_side() -> Side:
    """Return a side with one execution that runs, one that waits, and one that is open on control."""
    side = new_side(10.0)
    side.talk.start()
    for message in (request("a"), request("b"), request("c", "debug_request", "control")):
        side.talk.tell(message)
    side.talk.busy(request("a"))
    return side


def restored(parts: dict[str, bytes]) -> tuple[Side, list[str]]:
    """Return what goes on with these parts, and what is wrong with them."""
    side = new_side(10.0)
    return side, side.parts.restore(parts, 0.0)


def printed(side: Side) -> None:
    """Have the execution that runs print."""
    side.talk.hear("stream", request("a"), {}, excerpt=Excerpt(text=msgspec.Raw(b'"%s"' % (b"x" * 3000))))


def test_nothing_new_is_no_change() -> None:
    """Only what is not what it was is written."""
    side = a_side()

    assert side.parts.take_changes() != {}
    assert side.parts.take_changes() == {}


def test_output_changes_little() -> None:
    """When it came, and the newest of it: what clients wait for, and what ran, is written once."""
    side = a_side()
    printed(side)
    side.parts.take_changes()
    side.talk.now += 1
    printed(side)

    assert sorted(side.parts.take_changes()) == ["published", "tail:0"]


def test_message_is_written_once_and_gone_when_nobody_has_it() -> None:
    """It waits, runs and is owed an answer; when all of that is over it is no more."""
    side = a_side()
    messages = [name for name in side.parts.take_changes() if name.startswith("message:")]
    side.talk.run(request("a"))
    first = side.parts.take_changes()
    side.talk.run(request("b"))
    second = side.parts.take_changes()

    assert messages == ["message:0", "message:1", "message:2"]
    assert {name: part for name, part in {**first, **second}.items() if name in messages} == {
        "message:0": b"",
        "message:1": b"",
    }
    assert "message:1" not in first


def test_another_process_goes_on_with_its_own_numbers() -> None:
    """Its first changes have all times by its clock, and a new message takes the place of none that is there."""
    side = a_side()
    parts = side.parts.take_changes()
    other, problems = restored(parts)
    other.talk.tell(request("d"))
    changes = other.parts.take_changes()

    assert problems == []
    assert {"queue", "activity", "status", "talk", "published"} < set(changes)
    assert [name for name in changes if ":" in name] == ["message:3"]


def test_what_newer_versions_say_beside_is_passed_over() -> None:
    """Members and parts that are not known here; a part that is not there is as in a new conversation."""
    side = a_side()
    parts = side.parts.take_changes()
    newer = {name: b'{"is_newer":[1],' + part[1:] if part[:2] == b'{"' else part for name, part in parts.items()}
    del newer["announcements"]
    other, problems = restored({**newer, "what:1": b"x", "stream": b"{", "message:x": b"{"})

    assert problems == []
    assert other.talk.conversation.queue.pending == side.talk.conversation.queue.pending
    assert not {"what:1", "stream", "message:x"} & set(other.parts.take_changes())


@pytest.mark.parametrize(
    "name", ["talk", "published", "queue", "requests", "status", "activity", "journal", "deliveries", "kernel", "exit"]
)
@pytest.mark.parametrize("part", [b"{", b"7.5.", b'"no"', b'[["x"]]', b"\xff"])
def test_part_that_cannot_be_read_is_named(name: str, part: bytes) -> None:
    """It is as in a new conversation, and the others are as they were."""
    side = a_side()
    other, problems = restored({**side.parts.take_changes(), name: part})
    fresh = new_side(10.0).parts.take_changes()
    written = other.parts.take_changes()

    assert len(problems) == 1
    assert problems[0].startswith(f"{name} cannot be read: ")
    assert written[name] == fresh.get(name, b"")


def test_executions_that_are_lost_are_told() -> None:
    """What waited is left out; what runs has the kernel, and ends as it would have."""
    side = a_side()
    parts = side.parts.take_changes()
    parts["message:0"] = parts["message:1"] = b"?"
    other, problems = restored(parts)
    other.talk.tell(request("d"))
    other.talk.run(request("a"))
    changes = other.parts.take_changes()

    assert [problem.partition(":")[0] for problem in problems] == [
        "message",
        "message",
        "1 executions that waited are lost",
        "2 messages of requests are lost",
    ]
    assert other.talk.sent == ["d"]
    assert changes["message:1"] == b""


def test_execution_whose_message_is_lost_is_still_the_one_that_runs() -> None:
    """It has its id, as the kernel's answers name it."""
    parts = a_side().parts.take_changes()
    del parts["message:0"]
    active = restored(parts)[0].talk.conversation.queue.active

    assert active is not None
    assert (active.msg_id, active.msg_type) == ("a", "execute_request")


def test_parts_have_the_names_that_other_versions_know() -> None:
    """A directory is read by a server of another version. Under other names, nothing would be found."""
    side = a_side()
    printed(side)
    side.talk.hear("input_request", request("a"), {"prompt": "?"}, channel="stdin")
    side.talk.conversation.last_exit = EXIT
    small = {"published", "queue", "requests", "beside", "held", "outbox", "talk", "activity", "status", "journal"}
    large = {"deliveries", "announcements", "kernel", "question", "exit"}
    messages = {"message:0", "message:1", "message:2", "history:0", "tail:0"}

    assert side.parts.take_changes().keys() == small | large | messages


def test_what_was_never_said_is_not_written() -> None:
    """And is read as nothing: of the talk, and of what a kernel says of itself."""
    parts = new_side(10.0).parts.take_changes()
    nothing = SavedTalk("", 0.0, None, None, None, (), None, False, frozenset(), None)

    assert json.loads(parts["kernel"]) == {"input_prompt": ">", "continuation_prompt": "+"}
    assert read_part(b"{}", SavedTalk) == nothing
    assert (read_part(b"{}", SavedKernel), write_part(SavedKernel({}, "", "", False))) == (
        SavedKernel({}, "", "", False),
        b"{}",
    )


def test_entry_that_makes_way_is_gone_with_what_it_printed() -> None:
    """Of the history the latest are kept; its parts are as many as its entries."""
    side = a_side()
    printed(side)
    before = side.parts.take_changes()
    for number in range(MOST_ENTRIES):
        side.talk.conversation.history.begin(request(f"later {number}"), 0)
    changes = side.parts.take_changes()

    assert {"history:0", "tail:0"} < before.keys()
    assert (changes["history:0"], changes["tail:0"]) == (b"", b"")
    assert [name for name, part in changes.items() if name.startswith("history:") and not part] == ["history:0"]


def test_output_whose_entry_is_lost_is_let_go_of() -> None:
    """It belongs to nothing that anybody could see; what has its entry stays."""
    side = a_side()
    printed(side)
    parts = side.parts.take_changes()
    other, problems = restored({**parts, "tail:7": parts["tail:0"]})
    changes = other.parts.take_changes()

    assert problems == []
    assert changes["tail:7"] == b""
    assert "tail:0" not in changes


def test_open_question_is_there_for_the_next_server() -> None:
    """Until it is answered."""
    side = a_side()
    side.talk.hear("input_request", request("a"), {"prompt": "?"}, channel="stdin")
    parts = side.parts.take_changes()
    other, _ = restored(parts)
    question = side.talk.conversation.open_input
    side.talk.tell(request("answer", "input_reply", "stdin"))
    parts.update(side.parts.take_changes())

    assert question is not None
    assert other.talk.conversation.open_input == question
    assert restored(parts)[0].talk.conversation.open_input is None


def test_directory_whose_name_is_no_text_is_the_same_directory() -> None:
    """Names of files are bytes, and a kernel is started there again."""
    side = a_side()
    side.talk.conversation.move_to("/tmp/\udcff")

    assert restored(side.parts.take_changes())[0].talk.conversation.working_directory == "/tmp/\udcff"


def test_what_is_nested_too_deep_to_be_written_is_named_afterwards() -> None:
    """Rather than that the session ends of it."""
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    message = request("d")
    message.header["deep"] = deep
    side = a_side()
    side.talk.tell(message)
    other, problems = restored(side.parts.take_changes())

    assert [problem.partition(" ")[0] for problem in problems] == ["message:2", "1", "1"]
    assert [each.msg_id for each in other.talk.conversation.queue.pending] == ["b"]


STEPS: dict[str, Callable[[Side], object]] = {
    "replied": lambda side: side.talk.conversation.requests.replied("c"),
    "ended": lambda side: side.talk.conversation.requests.ended("c"),
    "withdrawn": lambda side: side.talk.conversation.queue.withdraw("b"),
    "dropped": lambda side: side.talk.conversation.queue.clear_pending(),
    "queue replied": lambda side: side.talk.conversation.queue.on_reply("a", 11.0),
    "queued": lambda side: side.talk.conversation.queue.submit("d", request("d"), 11.0),
    "begun": lambda side: side.talk.conversation.activity.begin("d", "comm_msg", 11.0),
    "activity replied": lambda side: side.talk.conversation.activity.reply("a", 11.0),
    "activity ended": lambda side: side.talk.conversation.activity.end("a", 11.0),
    "activity cleared": lambda side: side.talk.conversation.activity.clear(),
    "status": lambda side: side.talk.change(StatusEvent.HEARTBEAT_LOST),
    "exit noted": lambda side: side.talk.journal.note_exit(1),
    "start noted": lambda side: side.talk.journal.note_start(),
    "held": lambda side: side.talk.conversation.held.append(request("d")),
    "outbox": lambda side: side.outbox.append(request("d")),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_each_step_is_written(step: Callable[[Side], object]) -> None:
    """One alone, behind what was written before, is known to the next process."""
    side = a_side()
    parts = side.parts.take_changes()
    step(side)
    parts.update(side.parts.take_changes())
    other, problems = restored(parts)
    rest = {"state", "numbers", "messages", "exits", "busy"}
    before, after = side.shown(), other.shown()

    assert problems == []
    assert {name: after[name] for name in after.keys() - rest} == {name: before[name] for name in before.keys() - rest}
    assert side.talk.conversation.requests.save_beside() == other.talk.conversation.requests.save_beside()
    assert (side.talk.journal.exits, side.talk.journal.old_exits) == (
        other.talk.journal.exits,
        other.talk.journal.old_exits,
    )
