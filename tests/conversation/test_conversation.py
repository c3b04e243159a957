"""What a session makes of what is said: its status, what runs, whose output it is, and what its clients are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from kallichore.conversation.activity import GRACE
from kallichore.conversation.conversation import ExecutionOver, OpenInput, ProcessOutput
from kallichore.conversation.status import StatusEvent
from kallichore.models.bodies import ResourceUsage
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import Excerpt, Header, KernelMessage
from talk import INTRODUCTION, Talk, request

DEEP = b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"

BESIDE = [
    request("z", "kernel_info_request", "control"),
    request("z", "usage_request", "control"),
    request("z", "debug_request", "control"),
    request("z", "execute_request", "control"),
    request("z", subshell="1"),
    request("z", "comm_msg", subshell="1"),
]
"""What is served beside the main shell."""


@pytest.fixture
def talk() -> Talk:
    """Return a talk with a kernel that has started."""
    return Talk().start()


def test_session_is_busy_from_the_kernels_busy_to_its_idle(talk: Talk) -> None:
    """The status follows the kernel's word, with the request's type as its reason, and is told with each change."""
    a = request("a")
    talk.tell(a)
    talk.busy(a)
    during = talk.status
    talk.now += 5
    talk.idle(a)

    assert (during, talk.status) == ("busy", "idle")
    assert talk.news("status") == [
        {"status": "busy", "reason": "execute_request"},
        {"status": "idle", "reason": "execute_request"},
    ]
    assert (talk.rests, talk.conversation.status.idle_since) == (1, talk.now)


@pytest.mark.parametrize("beside", BESIDE, ids=lambda message: f"{message.msg_type} on {message.channel}")
@pytest.mark.parametrize("names_it", [True, False])
def test_what_is_served_beside_says_nothing_about_the_session(
    talk: Talk, beside: ClientMessage, names_it: bool
) -> None:
    """A request on control or a subshell during a cell has a busy and an idle of its own; the cell runs on."""
    a = request("a")
    talk.tell(a)
    talk.busy(a)
    talk.told()
    talk.now += 1
    talk.tell(beside)
    # Some kernels give back the id alone.
    parent = beside if names_it else Header("z", "")
    talk.busy(parent)
    talk.reply(beside)
    talk.idle(parent)

    assert (talk.sent, talk.status, talk.conversation.busy_since) == (["a", "z"], "busy", 10)
    assert talk.news("status") == []
    assert talk.rests == 0


@pytest.mark.parametrize("beside", BESIDE, ids=lambda message: f"{message.msg_type} on {message.channel}")
def test_what_is_served_beside_an_idle_kernel_leaves_it_idle(talk: Talk, beside: ClientMessage) -> None:
    """Nothing of its main shell runs, however often it says so."""
    talk.tell(beside)
    talk.busy(beside)
    talk.run(beside)

    assert (talk.status, talk.news("status"), talk.conversation.busy_since) == ("idle", [], None)


@pytest.mark.parametrize("msg_type", ["shutdown_request", "interrupt_request", "debug_request", "usage_request"])
def test_what_kernels_take_on_control_only_is_beside_whoever_asked(talk: Talk, msg_type: str) -> None:
    """The server itself asks, too, and does not remember."""
    talk.busy(Header("server", msg_type))

    assert talk.status == "idle"


@pytest.mark.parametrize("msg_type", ["create_subshell_request", "delete_subshell_request", "list_subshell_request"])
def test_requests_about_subshells_are_beside(talk: Talk, msg_type: str) -> None:
    """They go to control (JEP 91)."""
    talk.busy(Header("server", msg_type))

    assert talk.status == "idle"


def test_what_follows_in_a_subshell_is_beside(talk: Talk) -> None:
    """Its parent says so, whoever sent that."""
    talk.busy(Header("other", "execute_request", "1"))

    assert talk.status == "idle"


def test_ended_request_beside_is_forgotten(talk: Talk) -> None:
    """Its id may come again, on the main shell."""
    talk.tell(request("z", "kernel_info_request", "control"))
    talk.busy(Header("z", "kernel_info_request"))
    talk.idle(Header("z", "kernel_info_request"))
    talk.busy(Header("z", "kernel_info_request"))

    assert talk.status == "busy"


@pytest.mark.parametrize(("running", "expected"), [(True, "busy"), (False, "idle")])
def test_word_from_beside_ends_offline(talk: Talk, running: bool, expected: str) -> None:
    """A kernel that speaks at all is there, and is what it was."""
    if running:
        talk.busy(request("a"))
    talk.change(StatusEvent.HEARTBEAT_LOST)
    talk.told()
    talk.busy(Header("z", "usage_request"))

    assert talk.news("status") == [{"status": expected, "reason": "usage_request"}]


def test_look_at_what_was_served_beside_does_not_end_offline(talk: Talk) -> None:
    """The kernel has said nothing since it fell silent: that time went by after a reply of before is no word of it."""
    z = request("z", "usage_request", "control")
    talk.tell(z)
    talk.run(z)
    talk.change(StatusEvent.HEARTBEAT_LOST)
    talk.told()
    talk.wait()

    assert (talk.status, talk.told(), talk.conversation.look_at) == ("offline", [], None)


def test_comm_message_within_a_cell_does_not_make_the_session_idle(talk: Talk) -> None:
    """Code that serves them while it waits still runs."""
    a, c = request("a"), request("c", "comm_msg")
    talk.tell(a, c)
    talk.busy(a)
    talk.busy(c)
    talk.idle(c)

    assert (talk.status, talk.conversation.busy_since) == ("busy", 10)


@pytest.mark.parametrize("content", [{"execution_state": "starting"}, {}, b"[]", DEEP])
def test_other_states_say_nothing_and_are_passed_on(talk: Talk, content: Any) -> None:
    """What is neither busy nor idle changes nothing here."""
    talk.hear("status", request("a"), content)

    assert (talk.status, len(talk.told())) == ("idle", 1)


def test_statuses_without_a_parent_belong_to_what_the_kernel_has(talk: Talk) -> None:
    """They begin and end the execution, and with its reply release the next."""
    talk.tell(request("a"), request("b"))
    talk.listen(request("a"))
    talk.busy(None)
    during = talk.status
    talk.idle(None)
    over = (talk.status, talk.sent[:], talk.heard[-2])
    talk.hear("execute_reply", None, {"status": "ok"}, "shell")

    assert (during, *over) == ("busy", "idle", ["a"], ExecutionOver())
    assert talk.sent == ["a", "b"]


def test_kernel_without_an_execution_may_be_at_work_without_a_name(talk: Talk) -> None:
    """It runs something of its own."""
    talk.busy(None)
    during = talk.status
    talk.idle(None)

    assert (during, talk.status) == ("busy", "idle")
    assert talk.news("status") == [{"status": "busy", "reason": None}, {"status": "idle", "reason": None}]


def test_nameless_work_that_ends_does_not_end_what_waits_behind_it(talk: Talk) -> None:
    """The execution that was sent meanwhile has not begun, and the next one waits on."""
    talk.busy(None)
    talk.tell(request("a"), request("b"))
    talk.listen(request("a"))
    talk.idle(None)

    assert (talk.status, talk.sent, ExecutionOver() in talk.heard) == ("idle", ["a"], False)


def test_parent_without_a_type_is_known_by_the_execution(talk: Talk) -> None:
    """Some kernels give back the id alone."""
    talk.tell(request("a"))
    talk.busy(Header("a", ""))
    talk.busy(Header("c", ""))
    talk.idle(Header("c", ""))

    assert (talk.status, talk.news("status")) == ("busy", [{"status": "busy", "reason": "execute_request"}])


def test_unknown_parent_without_a_type_is_at_work_without_a_reason(talk: Talk) -> None:
    """It is no execution that others could run inside of."""
    talk.busy(Header("c", ""))
    talk.busy(request("d", "comm_msg"))
    talk.idle(request("d", "comm_msg"))

    assert talk.status == "idle"
    assert talk.news("status")[0] == {"status": "busy", "reason": None}


# Since when


def test_busy_counts_from_what_was_first(talk: Talk) -> None:
    """The execution was sent before the kernel began it; another request may have begun before it was sent."""
    talk.tell(request("a"))
    sent = talk.conversation.busy_since
    talk.now += 1
    talk.busy(request("a"))
    begun = talk.conversation.busy_since
    talk.reply(request("a"))
    talk.idle(request("a"))
    over = talk.conversation.busy_since
    talk.busy(request("c", "inspect_request"))
    talk.now += 1
    talk.tell(request("b"))

    assert (sent, begun, over, talk.conversation.busy_since) == (10, 10, None, 11)


def test_kernel_that_starts_is_not_busy() -> None:
    """What waits for it has not begun."""
    talk = Talk()
    talk.tell(request("a"))
    before = talk.conversation.busy_since
    talk.begin()

    assert (before, talk.conversation.busy_since) == (None, None)


def test_what_runs_is_told_with_its_code_and_time(talk: Talk) -> None:
    """For whoever asks why the kernel died."""
    nothing = talk.conversation.running(12)
    talk.tell(request("a", code="x = 1"))
    running = talk.conversation.running(12.5)

    assert nothing is None
    assert running is not None
    assert (running.msg_id, running.code, running.seconds) == ("a", "x = 1", 2.5)


def test_client_that_comes_back_is_told_what_is(talk: Talk) -> None:
    """The status, what runs, the open question, and how many messages there were."""
    empty = json.loads(talk.conversation.state())["sessionState"]
    talk.tell(request("a"))
    talk.busy(request("a"))
    talk.hear("input_request", request("a"), {"prompt": "?"}, "stdin")
    state = json.loads(talk.conversation.state())["sessionState"]

    assert (empty["status"], empty["active_request"], empty["input_request"]) == ("idle", None, None)
    assert (state["status"], state["active_request"]["header"]["msg_id"]) == ("busy", "a")
    assert (state["input_request"]["msg_type"], state["seq"]) == ("input_request", talk.journal.end)


# Offline, and the end


@pytest.mark.parametrize(("running", "expected"), [(True, "busy"), (False, "idle")])
def test_silent_kernel_is_said_to_live_before_it_exits(talk: Talk, running: bool, expected: str) -> None:
    """A client that stopped sending goes on only at a living status, and not at the one that follows."""
    if running:
        talk.busy(request("a"))
    talk.change(StatusEvent.HEARTBEAT_LOST, "silent")
    talk.change(StatusEvent.EXITED, "it was killed")

    assert talk.news("status")[-3:] == [
        {"status": "offline", "reason": "silent"},
        {"status": expected, "reason": "the kernel is ending"},
        {"status": "exited", "reason": "it was killed"},
    ]


def test_kernel_that_was_not_silent_just_exits(talk: Talk) -> None:
    """No other status is told."""
    talk.change(StatusEvent.EXITED, "it was killed")

    assert talk.news("status") == [{"status": "exited", "reason": "it was killed"}]
    assert talk.rests == 1


def test_exit_is_old_news_once_another_kernel_starts(talk: Talk) -> None:
    """A client that comes back then is not told of it as if it were its kernel's; other messages stay what they are."""
    talk.conversation.say_output("stdout", "bye")
    number = talk.journal.end
    talk.conversation.say("exited", {"exit_code": 0})
    talk.conversation.say_output("stdout", "late")
    before = talk.journal.old_exits
    talk.change(StatusEvent.EXITED)
    talk.begin()

    assert (before, talk.journal.old_exits) == (set(), {number})


def test_same_status_again_is_not_told(talk: Talk) -> None:
    """Nor is anybody told that the session is at rest."""
    talk.change(StatusEvent.KERNEL_IDLE)

    assert (talk.told(), talk.rests) == ([], 0)


def test_end_of_a_kernel_ends_all_that_was_true_of_it(talk: Talk) -> None:
    """What it ran and asked, and that its memory is short."""
    talk.tell(request("a"), request("b"))
    talk.busy(request("a"))
    talk.hear("input_request", request("a"), {}, "stdin")
    talk.reply(request("a"))
    talk.conversation.memory_warning = "nearly full"
    talk.hear("input_request", request("a"), {}, "stdin")
    talk.change(StatusEvent.EXITED)
    conversation = talk.conversation

    assert (conversation.queue.active, talk.pending, conversation.busy_since) == (None, [], None)
    assert (conversation.open_input, conversation.memory_warning) == (None, None)
    assert talk.look_finds_nothing()


def test_next_kernel_begins_anew(talk: Talk) -> None:
    """Nothing of the one before counts: neither what it was at work on, nor what it asked, nor who it was."""
    talk.tell(request("a"))
    talk.busy(request("a"))
    talk.reply(request("a"))
    talk.wait(GRACE - 0.1)
    talk.hear("stream", request("a"), {})
    talk.wait(0.1)
    talk.hear("input_request", request("a"), {}, "stdin")
    before = talk.conversation.look_at is not None and talk.conversation.open_input is not None
    talk.conversation.begin_life()
    talk.listen(request("a"))

    assert before
    assert (talk.conversation.look_at, talk.conversation.open_input) == (None, None)
    assert talk.conversation.look_again(talk.now + 9, lambda: None) is None
    assert talk.heard == []
    assert (talk.conversation.activity.since, talk.conversation.is_introduced) == (None, False)
    # The server's request to the kernel before is a client's like any other now.
    talk.conversation.is_introduced = True
    talk.hear("kernel_info_reply", INTRODUCTION, {}, "shell")

    assert talk.told()[-1]["msg_type"] == "kernel_info_reply"


# The introduction


@pytest.mark.parametrize("parent", [INTRODUCTION, "another", None])
def test_first_kernel_info_reply_is_the_servers_whatever_its_parent(parent: str | None) -> None:
    """Nobody else has asked. Clients are told neither it nor the statuses of the server's request."""
    talk = Talk()
    talk.begin()
    talk.told()
    for state in ("busy", "idle"):
        assert talk.hear("status", INTRODUCTION, {"execution_state": state}) is None
    reply = talk.hear("kernel_info_reply", parent, {"a": 1}, "shell")

    assert isinstance(reply, KernelMessage)
    assert (reply.content, talk.told(), talk.status) == (b'{"a": 1}', [], "starting")


def test_output_of_the_servers_request_is_for_clients(talk: Talk) -> None:
    """What a kernel prints when it is asked who it is, somebody may want to read."""
    talk.hear("stream", INTRODUCTION, {"text": "hello"})

    assert [message["msg_type"] for message in talk.told()] == ["stream"]


def test_later_kernel_info_reply_is_its_clients(talk: Talk) -> None:
    """Who asked gets it; the server's own stays its own."""
    k = request("k", "kernel_info_request")
    talk.tell(k)
    theirs = talk.hear("kernel_info_reply", k, {}, "shell")
    ours = talk.hear("kernel_info_reply", INTRODUCTION, {}, "shell")

    assert theirs is None
    assert isinstance(ours, KernelMessage)
    assert len(talk.told()) == 1


@pytest.mark.parametrize(
    ("content", "info", "prompts"),
    [
        (b'{"a":1}', {"a": 1}, (">", "+")),
        (b"[]", {}, (">", "+")),
        (DEEP, {}, (">", "+")),
        (b'{"language_info":[]}', {"language_info": []}, (">", "+")),
        (b'{"language_info":{"positron":1}}', {"language_info": {"positron": 1}}, (">", "+")),
        (
            b'{"language_info":{"positron":{"input_prompt":"In","continuation_prompt":"..."}}}',
            {"language_info": {"positron": {"input_prompt": "In", "continuation_prompt": "..."}}},
            ("In", "..."),
        ),
        (
            b'{"language_info":{"positron":{"input_prompt":1,"continuation_prompt":null}}}',
            {"language_info": {"positron": {"input_prompt": 1, "continuation_prompt": None}}},
            (">", "+"),
        ),
    ],
)
def test_kernel_says_who_it_is_and_what_its_prompts_are(
    content: bytes, info: dict[str, Any], prompts: tuple[str, str]
) -> None:
    """As far as it can be read; the prompts are the session's where it names none."""
    talk = Talk()
    talk.begin()
    message = KernelMessage("shell", Header("k", "kernel_info_reply"), None, content, Excerpt(), b"{}")
    before = talk.conversation.is_introduced

    assert talk.conversation.learn_kernel_info(message) == info
    assert (before, talk.conversation.is_introduced, talk.conversation.kernel_info) == (False, True, info)
    assert (talk.conversation.input_prompt, talk.conversation.continuation_prompt) == prompts


def test_session_begins_with_what_it_was_created_with() -> None:
    """Before any kernel has said otherwise."""
    conversation = Talk().conversation

    assert (conversation.working_directory, conversation.input_prompt) == ("/home", ">")
    assert conversation.is_introduced is False
    assert (conversation.continuation_prompt, conversation.kernel_info, conversation.resource_usage) == ("+", {}, None)


def test_usage_is_kept() -> None:
    """It is the latest sample."""
    usage = ResourceUsage(cpu_percent=1, memory_bytes=2, thread_count=3, sampling_period_ms=4, timestamp=5)
    conversation = Talk().conversation
    conversation.resource_usage = usage

    assert conversation.resource_usage is usage


# The working directory


def test_directory_that_code_changed_is_told(talk: Talk) -> None:
    """After an execution, if it is another, and known."""
    directories = [None, "/home", "/tmp", "/tmp"]
    for number, directory in enumerate(directories):
        message = request(str(number))
        talk.directory = directory
        talk.tell(message)
        talk.run(message)

    assert (talk.news("workingDirChanged"), talk.conversation.working_directory) == (["/tmp"], "/tmp")


def test_directory_is_looked_at_after_executions_only(talk: Talk) -> None:
    """Another request changes none."""
    talk.directory = "/tmp"
    talk.run(request("i", "inspect_request"))

    assert talk.news("workingDirChanged") == []


@pytest.mark.parametrize("parent", [None, Header("a", ""), Header("other client's", "execute_request")])
def test_directory_is_looked_at_after_any_execution(talk: Talk, parent: Header | None) -> None:
    """Also where the kernel does not say that it is one."""
    talk.tell(request("a"))
    talk.directory = "/tmp"
    talk.busy(parent)
    talk.idle(parent)

    assert talk.news("workingDirChanged") == ["/tmp"]


# Listening


def test_listener_hears_its_execution_and_no_other(talk: Talk) -> None:
    """All that the kernel says about it, and that it is over."""
    a, b = request("a"), request("b")
    talk.tell(a, b)
    talk.listen(a)
    talk.busy(a)
    talk.hear("stream", b, {})
    talk.hear("stream", a, {})
    talk.hear("stream", None, {})
    talk.reply(a)
    talk.idle(a)
    talk.hear("stream", None, {})
    kinds = [heard.header.msg_type for heard in talk.heard if isinstance(heard, KernelMessage)]

    assert kinds == ["status", "stream", "stream", "execute_reply", "status"]
    assert [heard for heard in talk.heard if not isinstance(heard, KernelMessage)] == [ExecutionOver()]


def test_output_of_the_process_goes_to_the_latest_execution(talk: Talk) -> None:
    """What runs, or ran last: it comes through a pipe, perhaps behind the idle. Everybody is told, and the log."""
    talk.conversation.hear_output("stdout", "early")
    talk.listen(request("a"), request("b"))
    talk.tell(request("a"))
    talk.tell(request("i", "inspect_request"))
    talk.conversation.hear_output("stdout", "one")
    talk.run(request("a"))
    talk.heard.clear()
    talk.conversation.hear_output("stderr", "two")
    talk.tell(request("b"))
    talk.conversation.listeners.pop("b")
    talk.conversation.hear_output("stderr", "three")

    assert talk.heard == [ProcessOutput("stderr", "two")]
    assert talk.news("output") == [["stdout", "early"], ["stdout", "one"], ["stderr", "two"], ["stderr", "three"]]
    assert talk.logged == [("stdout", "early"), ("stdout", "one"), ("stderr", "two"), ("stderr", "three")]


def test_what_runs_is_in_the_history(talk: Talk) -> None:
    """From when it was sent, with what it said."""
    talk.tell(request("a", code="1 + 1"), request("b", code="2"))
    talk.hear("error", request("a"), {"ename": "E"})
    (entry,) = talk.conversation.history.entries()

    assert (entry.input, entry.timestamp) == ("1 + 1", 0)
    assert entry.error is not None


# The kernel's question


def ask(talk: Talk, parent: ClientMessage | None = None) -> OpenInput | None:
    """Have the kernel ask something while it runs."""
    a = request("a")
    talk.tell(a)
    talk.busy(a)
    talk.hear("input_request", parent, {"prompt": "?"}, "stdin")
    return talk.conversation.open_input


@pytest.mark.parametrize("parent", [request("a"), None])
def test_question_is_kept_until_it_is_answered(talk: Talk, parent: ClientMessage | None) -> None:
    """With its number in the journal, and whose it is."""
    question = ask(talk, parent)
    assert question is not None
    told = talk.journal.read(question.position, 1 << 20, 1).payloads[0]
    talk.tell(request("r", "input_reply", "stdin", value="x"))

    assert (question.payload, question.parent_id) == (told, "a")
    assert json.loads(told)["msg_type"] == "input_request"
    assert (talk.conversation.open_input, talk.sent) == (None, ["a", "r"])


@pytest.mark.parametrize(("replied", "is_open"), [("a", False), ("other", True)])
def test_question_is_over_with_the_execution_that_asked(talk: Talk, replied: str, is_open: bool) -> None:
    """Its reply says that nobody waits for the answer; that of another does not."""
    ask(talk, request("a"))
    talk.reply(request(replied))

    assert (talk.conversation.open_input is not None) == is_open


@pytest.mark.parametrize(
    ("msg_type", "is_open"),
    [("interrupt_request", False), ("shutdown_request", False), ("usage_request", True)],
)
def test_question_is_over_when_the_kernel_is_interrupted(talk: Talk, msg_type: str, is_open: bool) -> None:
    """Or asked to end."""
    ask(talk, request("a"))
    talk.tell(request("z", msg_type, "control"))

    assert (talk.conversation.open_input is not None) == is_open


def test_question_on_iopub_is_none(talk: Talk) -> None:
    """Kernels ask on stdin; iopub tells everybody, and nobody answers there."""
    talk.hear("input_request", request("a"), {})

    assert talk.conversation.open_input is None


def test_replies_and_questions_may_go_ahead_of_output(talk: Talk) -> None:
    """Who waits for them does not wait for all that was printed before."""
    begin = talk.journal.end
    talk.hear("stream", request("a"), {})
    talk.reply(request("a"))
    talk.hear("input_request", request("a"), {}, "stdin")

    assert talk.journal.urgent_after(begin) == [begin + 1, begin + 2]


def test_other_words_on_stdin_are_no_question(talk: Talk) -> None:
    """They are passed on."""
    talk.hear("odd", request("a"), {}, "stdin")

    assert (talk.conversation.open_input, len(talk.told())) == (None, 1)


# What is over although the kernel does not say so


def test_nothing_is_to_be_looked_at_without_a_reply(talk: Talk) -> None:
    """An execution may take as long as it likes."""
    talk.tell(request("a"), request("b"))
    talk.busy(request("a"))

    assert talk.conversation.look_at is None


@pytest.mark.parametrize("idle_first", [True, False])
def test_both_signs_of_the_end_leave_nothing_to_look_at(talk: Talk, idle_first: bool) -> None:
    """They come over two sockets; the second releases the next, and a look that is still to come finds nothing."""
    a = request("a")
    talk.tell(a, request("b"))
    talk.listen(a)
    talk.busy(a)
    first, second = (talk.idle, talk.reply) if idle_first else (talk.reply, talk.idle)
    first(a)
    after_one = talk.sent[:]
    second(a)

    assert (after_one, talk.sent, talk.heard.count(ExecutionOver())) == (["a"], ["a", "b"], 1)
    assert talk.look_finds_nothing()
    assert talk.status == "idle"


def test_idle_ends_an_execution_without_a_reply(talk: Talk) -> None:
    """The session is idle and who listens is told at once; the next waits a moment for the reply, and no longer."""
    a = request("a")
    talk.tell(a, request("b"))
    talk.listen(a)
    talk.busy(a)
    talk.idle(a)
    at_once = (talk.status, talk.heard.count(ExecutionOver()), talk.sent[:])
    talk.wait(GRACE - 0.01)
    before = talk.sent[:]
    talk.wait(0.01)

    assert at_once == ("idle", 1, ["a"])
    assert (before, talk.sent, talk.heard.count(ExecutionOver())) == (["a"], ["a", "b"], 1)


@pytest.mark.parametrize("has_idle", [True, False])
def test_reply_before_the_busy_ends_the_execution_all_the_same(talk: Talk, has_idle: bool) -> None:
    """The reply comes over another socket, and may be the first that is heard; without an idle it is over as well."""
    a = request("a")
    talk.tell(a, request("b"))
    talk.reply(a)
    talk.busy(a)
    during = (talk.status, talk.sent[:])
    if has_idle:
        talk.idle(a)
    else:
        talk.wait()

    assert (during, talk.status, talk.sent) == (("busy", ["a"]), "idle", ["a", "b"])


def test_directory_is_looked_at_where_no_idle_follows(talk: Talk) -> None:
    """What is concluded to be over may have changed it like anything else, and it is told before the end is."""
    a = request("a")
    talk.tell(a)
    talk.listen(a)
    talk.busy(a)
    talk.reply(a)
    talk.directory = "/tmp"
    before = talk.news("workingDirChanged")
    talk.wait()

    assert (before, talk.news("workingDirChanged")) == ([], ["/tmp"])
    assert talk.heard[-1] == ExecutionOver()


@pytest.mark.parametrize("says_busy", [True, False])
def test_reply_ends_an_execution_without_an_idle(talk: Talk, says_busy: bool) -> None:
    """The next is sent a moment later, who listens is told, and the session is idle after the last."""
    a, b = request("a"), request("b")
    talk.tell(a, b)
    talk.listen(a, b)
    for message in (a, b):
        if says_busy:
            talk.busy(message)
        talk.reply(message)
        before = (talk.sent[-1], ExecutionOver() in talk.heard)
        at = talk.conversation.look_at
        talk.wait()

        assert before == (message.msg_id, False)
        assert at == talk.now
        assert talk.heard.pop() == ExecutionOver()

        talk.heard.clear()

    assert (talk.sent, talk.status, talk.conversation.look_at) == (["a", "b"], "idle", None)
    assert (talk.conversation.busy_since, talk.conversation.queue.active) == (None, None)


def test_kernel_that_still_publishes_is_only_behind(talk: Talk) -> None:
    """The next execution does not wait; who listens does, and so does the status, until the output has an end."""
    a, b = request("a"), request("b")
    talk.tell(a, b)
    talk.listen(a)
    talk.busy(a)
    talk.reply(a)
    talk.wait(GRACE / 2)
    talk.hear("stream", a, {})
    talk.wait(GRACE / 2)
    behind = (talk.sent, talk.status, ExecutionOver() in talk.heard, talk.conversation.look_at)
    talk.hear("stream", a, {})
    talk.wait(GRACE - 0.01)
    talk.hear("stream", a, {})
    talk.wait(0.01)
    still = (talk.status, ExecutionOver() in talk.heard, talk.conversation.look_at)
    talk.wait()

    assert behind == (["a", "b"], "busy", False, talk.now - GRACE)
    assert still == ("busy", False, talk.now)
    assert (talk.status, talk.heard[-1], talk.conversation.look_at) == ("idle", ExecutionOver(), None)


def test_replies_are_no_output_that_an_idle_could_follow(talk: Talk) -> None:
    """What comes on shell does not put off the end."""
    a = request("a")
    talk.tell(a)
    talk.busy(a)
    talk.reply(a)
    talk.wait(GRACE / 2)
    talk.reply(request("i", "inspect_request"))
    talk.wait(GRACE / 2)

    assert talk.status == "idle"


def test_look_before_the_time_finds_nothing(talk: Talk) -> None:
    """And one that is late finds what there is."""
    talk.tell(request("a"), request("b"))
    talk.listen(request("a"))
    talk.busy(request("a"))
    talk.now += 60
    talk.reply(request("a"))
    early = talk.conversation.look_again(talk.now + GRACE / 2, lambda: None)
    heard = ExecutionOver() in talk.heard
    talk.wait(GRACE + 1)

    assert (early, heard, ExecutionOver() in talk.heard) == (None, False, True)
    assert (talk.sent, talk.status) == (["a", "b"], "idle")


def test_idle_that_names_another_says_nothing_about_what_was_not_replied_to(talk: Talk) -> None:
    """It runs on."""
    talk.tell(request("a"), request("b"))
    talk.listen(request("a"))
    talk.busy(request("a"))
    talk.idle(Header("other", "execute_request"))

    assert talk.look_finds_nothing()

    talk.wait(9)

    assert (talk.sent, talk.status, ExecutionOver() in talk.heard) == (["a"], "busy", False)


def test_late_idle_tells_who_listens_at_once(talk: Talk) -> None:
    """It is told once."""
    a = request("a")
    talk.tell(a)
    talk.listen(a)
    talk.busy(a)
    talk.reply(a)
    talk.wait(GRACE / 2)
    talk.hear("stream", a, {})
    talk.wait(GRACE / 2)
    talk.idle(a)
    talk.wait(9)

    assert talk.heard.count(ExecutionOver()) == 1


def test_idle_that_comes_seconds_late_ends_nothing_else(talk: Talk) -> None:
    """What runs by then runs on."""
    a, b = request("a"), request("b")
    talk.tell(a, b, request("c"))
    talk.busy(a)
    talk.reply(a)
    talk.wait()
    talk.busy(b)
    talk.idle(a)

    assert (talk.sent, talk.status) == (["a", "b"], "busy")


@pytest.mark.parametrize("waits", [True, False])
def test_idle_that_names_another_releases_what_was_replied_to(talk: Talk, waits: bool) -> None:
    """The next is sent, the session is idle, and who listens is told, whether or not anything waits behind."""
    a, b = request("a"), request("b")
    talk.tell(a)
    if waits:
        talk.tell(b)
    talk.listen(a)
    talk.busy(a)
    talk.reply(a)
    talk.idle(Header("wrong", "execute_request"))

    assert (talk.sent, talk.status) == (["a", "b"] if waits else ["a"], "idle")

    talk.wait()

    assert talk.heard.count(ExecutionOver()) == 1


def test_other_requests_without_an_idle_are_over_as_well(talk: Talk) -> None:
    """Their reply says so, a moment later."""
    i = request("i", "inspect_request")
    talk.tell(i)
    talk.busy(i)
    talk.reply(i)
    talk.wait(GRACE - 0.01)
    before = talk.status
    talk.wait(0.01)

    assert (before, talk.status) == ("busy", "idle")
    assert talk.news("status")[-1] == {"status": "idle", "reason": None}


def test_reply_without_a_parent_is_the_executions_if_it_is_an_execute_reply(talk: Talk) -> None:
    """No other says anything about the execution."""
    talk.tell(request("a"), request("b"))
    talk.busy(request("a"))
    talk.hear("inspect_reply", None, {"status": "ok"}, "shell")
    before = talk.conversation.look_at
    talk.hear("execute_reply", None, {"status": "ok"}, "shell")

    assert (before, talk.conversation.look_at) == (None, talk.now + GRACE)


def test_reply_without_a_parent_or_an_execution_is_passed_on(talk: Talk) -> None:
    """It answers nothing that is known."""
    talk.hear("execute_reply", None, {"status": "ok"}, "shell")

    assert (len(talk.told()), talk.conversation.look_at) == (1, None)


# When somebody last used it


def test_session_is_at_work_from_when_code_is_sent_to_its_end(talk: Talk) -> None:
    """Also while the kernel that is to run it still starts, and while it does anything else."""
    code, question = request("a"), request("i", "inspect_request")
    fresh = Talk()
    fresh.begin()
    before = fresh.conversation.is_at_work
    fresh.tell(code)
    talk.busy(question)
    serving = talk.conversation.is_at_work
    talk.idle(question)

    assert (False, True, True, False) == (
        before,
        fresh.conversation.is_at_work,
        serving,
        talk.conversation.is_at_work,
    )


def test_reply_to_an_execution_is_told_as_rest_where_no_idle_comes(talk: Talk) -> None:
    """Who waits for the end of work hears of it; not for one that was served beside the main shell."""
    code, beside = request("a"), request("z", channel="control")
    talk.tell(code, beside)
    talk.reply(beside)
    before = talk.rests
    talk.reply(code)

    assert (0, 1) == (before, talk.rests)


def test_code_and_answers_are_activity_and_questions_about_the_kernel_are_not(talk: Talk) -> None:
    """Asking for it to run is, and so are its reply and its end, whichever comes alone; a widget is used, too."""
    conversation, code = talk.conversation, request("a")
    moments = [conversation.active_at]
    for act in (
        lambda: talk.tell(request("i", "inspect_request")),
        lambda: talk.tell(code),
        lambda: talk.tell(request("q", "input_reply", "stdin")),
        lambda: talk.reply(request("i", "inspect_request")),
        lambda: talk.reply(code),
        lambda: talk.idle(request("i", "inspect_request")),
        lambda: talk.idle(code),
        lambda: talk.tell(request("w", "comm_msg")),
        lambda: talk.idle(request("w", "comm_msg")),
    ):
        talk.now += 1
        act()
        moments.append(conversation.active_at)

    never, now = float("-inf"), talk.now
    assert moments == [never, never, now - 7, now - 6, now - 6, now - 4, now - 4, now - 2, now - 1, now - 1]
    assert Talk(now=7.0).conversation.created_at == 7.0


def test_buffers_are_known_of_the_latest_message_only(talk: Talk) -> None:
    """Of that very envelope, and until the kernel says something else, or has ended."""
    message = KernelMessage("iopub", Header("k", "display_data"), None, b"{}", Excerpt(), b'{"p":1}', (b"buffer",))
    other = KernelMessage("iopub", Header("k", "stream"), None, b"{}", Excerpt(), b'{"p":2}')

    def hear(*messages: KernelMessage) -> list[Sequence[bytes]]:
        for each in messages:
            talk.conversation.begin_hearing(talk.now, is_output=True)
            talk.conversation.hear(each, talk.now, lambda: None)
            talk.conversation.voice.end_batch()
        return [talk.conversation.buffers_of(each.payload) for each in (message, other)]

    latest, behind, again = hear(message), hear(other), hear(message)
    alike = talk.conversation.buffers_of(bytes(bytearray(message.payload)))
    talk.conversation.answer_at_the_end("it ended")

    assert [latest, behind, again] == [[(b"buffer",), ()], [(), ()], [(b"buffer",), ()]]
    assert (alike, talk.conversation.buffers_of(message.payload)) == ((), ())
