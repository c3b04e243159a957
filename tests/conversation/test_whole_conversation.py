"""A whole conversation: clients ask anything, the kernel has any habits, and every request is answered once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kallichore.conversation.activity import GRACE
from kallichore.conversation.requests import reply_type
from kallichore.conversation.status import StatusEvent
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import Header
from talk import Talk, request

MAIN: dict[str, Callable[[str], ClientMessage]] = {
    "execute": request,
    "execute, and go on": lambda msg_id: request(msg_id, code="1", stop_on_error=False),
    "inspect": lambda msg_id: request(msg_id, "inspect_request"),
    "comm": lambda msg_id: request(msg_id, "comm_msg"),
}
"""What a client sends to the main shell."""

BESIDE: dict[str, Callable[[str], ClientMessage]] = {
    "usage": lambda msg_id: request(msg_id, "usage_request", "control"),
    "execute on control": lambda msg_id: request(msg_id, channel="control"),
    "execute in a subshell": lambda msg_id: request(msg_id, subshell="1"),
}
"""What it sends elsewhere."""

HABITS = ["all", "idle first", "reply before busy", "no idle", "no status", "idle of another", "nameless"]
"""What a kernel says of a request beside its reply, and in which order that is heard: it comes over two sockets."""

WITHOUT_BUSY = ("reply before busy", "no status")
"""Those by which it has not said that it is at work before it replies."""


class Conversing(RuleBasedStateMachine):
    """Clients, a kernel that takes the requests of its main shell one after the other, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = Talk().start()
        self.count = 0
        self.lives = True
        self.messages: dict[str, ClientMessage] = {}
        self.inbox: list[ClientMessage] = []
        """What the kernel's main shell was sent and is not done with; the first is what it works on."""
        self.beside: list[ClientMessage] = []
        self.seen = 0
        self.begun: str | None = None
        """The habit with which the first is worked on; None if it has not begun."""
        self.replies: Counter[str] = Counter()
        self.executions: list[str] = []
        """What is to run, in order."""
        self.interrupted: str | None = None
        """What the kernel had to execute when it was interrupted last."""

    @initialize()
    def look(self) -> None:
        """Take what the kernel was sent since, and what clients were told."""
        for msg_id in self.talk.sent[self.seen :]:
            message = self.messages[msg_id]
            if message.is_execution:
                assert msg_id in self.executions, "what was aborted, or sent already, is sent"
                # Those before it were aborted.
                del self.executions[: self.executions.index(msg_id) + 1]
            (self.beside if message.is_beside else self.inbox).append(message)
        self.seen = len(self.talk.sent)
        for message_told in self.talk.told():
            if message_told.get("kind") == "jupyter":
                header, parent = message_told["header"], message_told["parent_header"]["msg_id"]
            elif "msg_type" in message_told:
                header, parent = message_told, message_told["parent"]
            else:
                continue
            if header["msg_type"].endswith("_reply"):
                self.replies[parent] += 1
                if parent in self.executions:
                    self.executions.remove(parent)

    def ask(self, make: Callable[[str], ClientMessage]) -> None:
        """Have a client send something."""
        self.count += 1
        message = self.messages[str(self.count)] = make(str(self.count))
        if message.is_execution:
            self.executions.append(message.msg_id)
        self.talk.now += 1 / 16
        self.talk.tell(message)
        self.look()

    @precondition(lambda self: self.lives)
    @rule(kind=st.sampled_from(sorted(MAIN)))
    def ask_the_main_shell(self, kind: str) -> None:
        """Something that the kernel does one after the other."""
        self.ask(MAIN[kind])

    @precondition(lambda self: self.lives)
    @rule(kind=st.sampled_from(sorted(BESIDE)))
    def ask_beside(self, kind: str) -> None:
        """Something that the kernel does at once, whatever else it does."""
        self.ask(BESIDE[kind])

        assert self.talk.sent[-1] == str(self.count)

    @precondition(lambda self: self.lives)
    @rule(by_a_client=st.booleans())
    def interrupt(self, by_a_client: bool) -> None:
        """What waits is answered at once."""
        waiting = self.talk.pending
        self.interrupted = next((message.msg_id for message in self.inbox if message.is_execution), None)
        if by_a_client:
            self.ask(lambda msg_id: request(msg_id, "interrupt_request", "control"))
        else:
            self.talk.conversation.clear_for("interrupt_request")
            self.look()

        assert self.talk.pending == []
        assert all(self.replies[msg_id] == 1 for msg_id in waiting)

    @precondition(lambda self: self.talk.pending)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        """A client takes back what waits."""
        msg_id = data.draw(st.sampled_from(self.talk.pending))

        assert self.talk.conversation.withdraw(msg_id)

        self.look()

        assert self.replies[msg_id] == 1

    @precondition(lambda self: self.lives and self.inbox and self.begun is None)
    @rule(habit=st.sampled_from(HABITS))
    def begin(self, habit: str) -> None:
        """The kernel begins what is next."""
        self.talk.now += 1 / 16
        message = self.inbox[0]
        # A kernel that does not say whose its statuses are says so of executions: it has nothing else to name.
        self.begun = "all" if habit == "nameless" and not message.is_execution else habit
        if self.begun not in WITHOUT_BUSY:
            self.talk.busy(None if self.begun == "nameless" else message)

            assert self.talk.status == "busy"

    @precondition(lambda self: self.lives and self.begun is not None)
    @rule(fails=st.booleans())
    def finish(self, fails: bool) -> None:
        """The kernel is done with what it works on; it says so by its habit."""
        self.talk.now += 1 / 16
        message, habit = self.inbox.pop(0), self.begun
        self.begun = None
        waiting = self.talk.pending
        if reply_type(message) is None:
            self.talk.idle(message)
            self.look()
            return
        if habit == "idle first":
            self.talk.idle(message)

            assert self.talk.pending == waiting, "the reply, which is still to come, may say that they do not run"

        self.answer(message, fails=fails, waiting=waiting, is_last=habit == "idle first")
        if habit == "reply before busy":
            self.talk.busy(message)

            assert self.talk.status == "busy"

        if habit == "idle of another":
            self.talk.idle(Header("unknown", "execute_request"))
        elif habit not in ("idle first", "no idle", "no status"):
            self.talk.idle(None if habit == "nameless" else message)
        self.look()

    def answer(self, message: ClientMessage, *, fails: bool, waiting: list[str], is_last: bool) -> None:
        """Have the kernel reply: a failure ends what waits; else the first of it is sent if this was the last sign."""
        self.talk.reply(message, "error" if fails else "ok")
        self.look()
        goes_on = b"stop_on_error" in message.content or message.msg_id == self.interrupted
        if fails and message.is_execution and not goes_on:
            waiting = []

        assert self.talk.pending == waiting[is_last and message.is_execution :]

    @precondition(lambda self: self.lives and self.beside)
    @rule(data=st.data(), says_it=st.booleans())
    def answer_beside(self, data: st.DataObject, says_it: bool) -> None:
        """What is served beside the main shell changes neither the status nor what waits."""
        message = data.draw(st.sampled_from(self.beside))
        self.beside.remove(message)
        before = (self.talk.status, self.talk.pending)
        if says_it:
            self.talk.busy(message)
        self.talk.reply(message, "error")
        if says_it:
            self.talk.idle(message)
        self.look()

        assert (self.talk.status, self.talk.pending) == before

    @rule(seconds=st.sampled_from([GRACE / 4, GRACE]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.talk.wait(seconds)
        self.look()

    @precondition(lambda self: self.lives)
    @rule()
    def have_a_rest(self) -> None:
        """A kernel that has nothing to do is idle within a second, and nothing waits for it."""
        if self.inbox:
            return
        self.talk.wait(GRACE)
        self.look()
        if self.inbox:
            return
        self.talk.wait(GRACE)

        assert (self.talk.status, self.talk.pending, self.talk.conversation.busy_since) == ("idle", [], None)
        assert self.talk.conversation.look_at is None

    @rule(is_offline=st.booleans())
    @precondition(lambda self: self.lives)
    def exit(self, is_offline: bool) -> None:
        """The kernel is gone: whatever is open is answered, and nothing that has an answer is again."""
        if is_offline:
            self.talk.change(StatusEvent.HEARTBEAT_LOST)
        self.talk.change(StatusEvent.EXITED)
        self.lives, self.begun, self.inbox, self.beside = False, None, [], []
        self.look()
        asked = [msg_id for msg_id, message in self.messages.items() if reply_type(message) is not None]

        assert [(msg_id, self.replies[msg_id]) for msg_id in asked] == [(msg_id, 1) for msg_id in asked]
        assert (self.executions, self.talk.status) == ([], "exited")

    @precondition(lambda self: not self.lives)
    @rule()
    def start(self) -> None:
        """Another kernel is started."""
        self.talk.start()
        self.lives = True

    @invariant()
    def nothing_is_answered_twice(self) -> None:
        """Neither by the kernel and in its place, nor twice in its place."""
        assert all(count == 1 for count in self.replies.values())

    @invariant()
    def one_execution_at_a_time(self) -> None:
        """The kernel's main shell never has two that it did not reply to, and the rest wait in their order."""
        assert sum(message.is_execution for message in self.inbox) <= 1
        assert self.talk.pending == self.executions

    @invariant()
    def busy_while_it_works(self) -> None:
        """What the kernel has begun, and said so, is the session's status."""
        if self.begun is not None and self.begun not in WITHOUT_BUSY:
            assert self.talk.status == "busy"
        if any(message.is_execution for message in self.inbox):
            assert self.talk.conversation.busy_since is not None


TestConversing = Conversing.TestCase
