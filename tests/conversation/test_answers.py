"""Every request of a client's is answered once: by the kernel, or truly in its place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kallichore.conversation.conversation import ExecutionOver
from kallichore.conversation.requests import failure
from kallichore.conversation.status import StatusEvent
from kallichore.errors import ExecutionCancelledError, KernelDiedError
from kallichore.wire.client_messages import ClientMessage
from talk import Talk, aborted, request

A, B, C = (request(msg_id) for msg_id in "abc")

GOES_ON = request("a", code="1", stop_on_error=False)


@pytest.fixture
def talk() -> Talk:
    """Return a talk with a kernel that has started."""
    return Talk().start()


def waiting(talk: Talk, *, first: ClientMessage = A) -> Talk:
    """Have one execution run, and two wait, each with somebody who listens; forget what was told."""
    talk.tell(first, B, C)
    talk.listen(A, B, C)
    talk.busy(first)
    talk.told()
    talk.heard.clear()
    return talk


def reasons(talk: Talk) -> list[str]:
    """Return why executions were cancelled, as those who listen were told."""
    return [str(heard) for heard in talk.heard if isinstance(heard, ExecutionCancelledError)]


def test_execution_is_sent_or_waits_and_clients_are_told(talk: Talk) -> None:
    """The first goes at once, and what waits goes in its order, one at a time."""
    talk.tell(A, B, C)
    queued = talk.told()
    talk.run(A)
    talk.run(B)
    talk.run(C)

    assert [message["executionQueued"] for message in queued] == ["b", "c"]
    assert (talk.sent, talk.answers()) == (["a", "b", "c"], [])


@pytest.mark.parametrize(
    "message",
    [
        request("z", "inspect_request"),
        request("z", "comm_msg"),
        request("z", subshell="1"),
        request("z", channel="control"),
    ],
    ids=["inspect", "comm", "subshell", "control"],
)
def test_only_executions_of_the_main_shell_wait(talk: Talk, message: ClientMessage) -> None:
    """All else goes at once, and answers to it release nothing."""
    waiting(talk)
    talk.tell(message)
    if message.msg_type != "comm_msg":
        talk.reply(message, "error")
    talk.wait()

    assert (talk.sent, talk.pending, talk.answers()) == (["a", "z"], ["b", "c"], [])


# When an execution fails


def test_failure_aborts_what_waits_behind_the_reply(talk: Talk) -> None:
    """Each gets a reply and an idle, behind the reply that caused them; the kernel never sees it. The next runs."""
    waiting(talk)
    talk.reply(A, "error")
    told = talk.told()
    talk.idle(A)
    talk.tell(request("d"))

    assert [message.get("msg_type") or message["header"]["msg_type"] for message in told] == [
        "execute_reply",
        *["execute_reply", "status"] * 2,
    ]
    assert [message["parent"] if "parent" in message else message["parent_header"] for message in told] == [
        "a",
        B.header,
        B.header,
        C.header,
        C.header,
    ]
    assert [message["channel"] for message in told] == ["shell", *["shell", "iopub"] * 2]
    assert [message["content"] for message in told[1:3]] == [{"status": "aborted"}, {"execution_state": "idle"}]
    assert talk.sent == ["a", "d"]
    assert reasons(talk) == ["The execution was taken out of the queue: an execution before it failed"] * 2


def test_failure_that_comes_behind_its_idle_aborts_what_waits(talk: Talk) -> None:
    """Reply and idle come over two sockets, in either order: nothing is sent before the reply has said how it went."""
    waiting(talk)
    talk.idle(A)
    before = (talk.sent[:], talk.pending)
    talk.reply(A, "error")
    talk.wait()

    assert before == (["a"], ["b", "c"])
    assert (talk.sent, talk.pending, talk.answers()) == (["a"], [], aborted("b", "c"))


@pytest.mark.parametrize(
    ("first", "status"), [(GOES_ON, "error"), (request("a", code="1", silent=True), "error"), (A, "ok"), (A, "aborted")]
)
def test_what_does_not_stop_the_queue_lets_it_go_on(talk: Talk, first: ClientMessage, status: str) -> None:
    """With stop_on_error false, silent, or without an error."""
    waiting(talk, first=first)
    talk.reply(first, status)
    talk.idle(first)

    assert (talk.sent, talk.pending, talk.answers()) == (["a", "b"], ["c"], [])


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"status":1}', b'{"status":"error","a":' + b"[" * 2000])
def test_reply_that_cannot_be_read_is_no_failure(talk: Talk, content: bytes) -> None:
    """It does not say that the code failed; the queue goes on."""
    waiting(talk)
    talk.hear("execute_reply", A, content, "shell")
    talk.idle(A)

    assert talk.sent == ["a", "b"]


def test_failure_of_another_execution_stops_nothing(talk: Talk) -> None:
    """What is not the active one, such as one on a subshell, has its own order."""
    waiting(talk)
    talk.reply(request("other"), "error")

    assert (talk.pending, talk.answers()) == (["b", "c"], [])


def test_other_replies_with_an_error_stop_nothing(talk: Talk) -> None:
    """An inspection that failed says nothing about the execution."""
    waiting(talk)
    talk.hear("inspect_reply", A, {"status": "error"}, "shell")
    talk.hear("inspect_reply", None, {"status": "error"}, "shell")

    assert (talk.pending, talk.answers()) == (["b", "c"], [])


# When a client takes back


@pytest.mark.parametrize(
    ("msg_type", "why"),
    [("interrupt_request", "it was interrupted"), ("shutdown_request", "the kernel was asked to shut down")],
)
def test_interrupt_and_shutdown_abort_what_waits(talk: Talk, msg_type: str, why: str) -> None:
    """Whoever asks, and the request itself goes to the kernel."""
    waiting(talk)
    talk.tell(request("z", msg_type, "control"))

    assert (talk.sent, talk.pending, talk.answers()) == (["a", "z"], [], aborted("b", "c"))
    assert reasons(talk) == [f"The execution was taken out of the queue: {why}"] * 2


def test_server_aborts_what_waits_for_its_own_requests(talk: Talk) -> None:
    """An interrupt by signal, or a kill."""
    waiting(talk)
    talk.conversation.clear_for("kernel_info_request")
    before = talk.pending
    talk.conversation.clear_for("interrupt_request")

    assert (before, talk.pending, talk.answers()) == (["b", "c"], [], aborted("b", "c"))


@pytest.mark.parametrize("by_a_client", [True, False])
def test_what_is_sent_after_an_interrupt_runs_though_the_interrupted_fails(talk: Talk, by_a_client: bool) -> None:
    """It was sent in spite of what ran before it. A failure of its own aborts what waits behind it, as always."""
    d, e = request("d"), request("e")
    waiting(talk)
    if by_a_client:
        talk.tell(request("z", "interrupt_request", "control"))
    else:
        talk.conversation.clear_for("interrupt_request")
    talk.told()
    talk.tell(d, e)
    talk.reply(A, "error")
    talk.idle(A)
    after = (talk.sent[-1], talk.pending, talk.answers())
    talk.run(d, "error")

    assert after == ("d", ["e"], [])
    assert (talk.sent[-1], talk.answers()) == ("d", aborted("e"))


def test_interrupt_of_an_idle_kernel_spares_no_later_failure(talk: Talk) -> None:
    """It interrupted nothing."""
    talk.conversation.clear_for("interrupt_request")
    waiting(talk)
    talk.reply(A, "error")

    assert (talk.pending, talk.answers()) == ([], aborted("b", "c"))


def test_killed_kernel_aborts_what_waits(talk: Talk) -> None:
    """The reason is told to who listens."""
    waiting(talk)
    talk.conversation.drop_pending("the kernel was killed")

    assert talk.answers() == aborted("b", "c")
    assert reasons(talk) == ["The execution was taken out of the queue: the kernel was killed"] * 2


def test_withdrawn_execution_is_aborted(talk: Talk) -> None:
    """Only what waits can be withdrawn."""
    waiting(talk)

    assert [talk.conversation.withdraw(msg_id) for msg_id in "bax"] == [True, False, False]
    assert (talk.pending, talk.answers()) == (["c"], aborted("b"))


# When there is no kernel


def test_request_without_a_kernel_is_refused(talk: Talk) -> None:
    """With an error that says why, and an idle behind it."""
    talk.conversation.refuse(A, "KernelExited", "start it first")
    reply, idle = talk.told()

    assert reply["content"] == failure("KernelExited", "start it first")
    assert (reply["parent_header"], reply["header"]["msg_type"]) == (A.header, "execute_reply")
    assert (idle["content"], list(talk.conversation.requests)) == ({"execution_state": "idle"}, [])


def test_what_has_no_reply_is_refused_in_silence(talk: Talk) -> None:
    """A comm message has nobody who waits."""
    talk.conversation.refuse(request("z", "comm_msg"), "KernelExited", "start it first")

    assert talk.told() == []


# When the kernel ends


def test_end_of_the_kernel_answers_all_that_is_open(talk: Talk) -> None:
    """What it was at work on failed, what it never began is aborted, a shutdown was done; then it has exited."""
    waiting(talk)
    comm = request("m", "comm_msg")
    inspect, other = request("i", "inspect_request"), request("n", "inspect_request")
    shutdown = request("z", "shutdown_request", "control", restart=True)
    talk.tell(comm, inspect, other)
    talk.busy(inspect)
    talk.conversation.tell(shutdown, talk.now)
    talk.told()
    talk.change(StatusEvent.EXITED, "it was killed")
    told = talk.told()
    content = {message["parent_header"]["msg_id"]: message["content"] for message in told[:-1:2]}

    assert content == {
        "a": failure("KernelDied", "it was killed"),
        "i": failure("KernelDied", "it was killed"),
        "n": {"status": "aborted"},
        "z": {"status": "ok", "restart": True},
    }
    assert [message["content"] for message in told[1::2]] == [{"execution_state": "idle"}] * 4
    assert told[-1]["status"] == {"status": "exited", "reason": "it was killed"}


def test_what_waits_at_the_end_of_the_kernel_is_aborted_in_order(talk: Talk) -> None:
    """Behind the error of what ran."""
    waiting(talk)
    talk.change(StatusEvent.EXITED)

    assert talk.answers() == [("execute_reply", "a", "error"), ("status", "a", "idle"), *aborted("b", "c")]


def test_execution_that_the_kernel_was_sent_counts_as_begun(talk: Talk) -> None:
    """Even if it did not say so: it may have been its end."""
    talk.tell(A)
    talk.change(StatusEvent.EXITED)

    assert talk.answers()[0] == ("execute_reply", "a", "error")


@pytest.mark.parametrize("reason", [None, ""])
def test_end_without_a_reason_is_told_as_such(talk: Talk, reason: str | None) -> None:
    """All that is known is that the kernel exited."""
    talk.tell(A)
    talk.told()
    talk.change(StatusEvent.EXITED, reason)

    assert talk.told()[0]["content"] == failure("KernelDied", "The kernel exited")


@pytest.mark.parametrize(
    ("reason", "expected"), [(None, "The kernel exited"), ("", "The kernel exited"), ("signal 9", "signal 9")]
)
def test_who_listens_is_told_of_the_end(talk: Talk, reason: str | None, expected: str) -> None:
    """With the reason, also where it waited."""
    waiting(talk)
    talk.change(StatusEvent.EXITED, reason)

    assert [str(heard) for heard in talk.heard if isinstance(heard, KernelDiedError)] == [
        f"The kernel ended during the execution: {expected}"
    ] * 3


def test_who_listens_is_told_of_the_end_once_for_each_kernel(talk: Talk) -> None:
    """What was open is answered before the end is told, with more words than the status has; then it has been said."""
    talk.tell(A)
    talk.listen(A)
    talk.conversation.answer_at_the_end("it was killed, with these words")
    talk.change(StatusEvent.EXITED, "it was killed")
    first = [str(heard) for heard in talk.heard]
    talk.heard.clear()
    talk.start()
    talk.change(StatusEvent.EXITED, "and so was the next")

    assert first == ["The kernel ended during the execution: it was killed, with these words"]
    assert [str(heard) for heard in talk.heard] == ["The kernel ended during the execution: and so was the next"]


def test_last_words_of_a_kernel_do_not_make_the_next_one_busy(talk: Talk) -> None:
    """What it was at work on ended with it, though its socket may say so late."""
    talk.change(StatusEvent.EXITED)
    talk.busy(A)
    talk.start()

    assert talk.conversation.busy_since is None


@pytest.mark.parametrize("is_late", [False, True])
def test_who_listens_to_what_was_replied_to_is_told_that_it_is_over(talk: Talk, is_late: bool) -> None:
    """The end of the kernel is then no reason to say that the code did not run."""
    talk.tell(A, B)
    talk.listen(A, B)
    talk.busy(A)
    talk.reply(A)
    if is_late:
        talk.wait(0.25)
        talk.hear("stream", A, {})
        talk.wait(0.25)
    talk.heard.clear()
    talk.change(StatusEvent.EXITED)

    assert [type(heard) for heard in talk.heard] == [ExecutionOver, KernelDiedError]
    assert talk.look_finds_nothing()


@pytest.mark.parametrize(
    "end",
    [
        lambda talk: talk.run(A),
        lambda talk: talk.reply(A),
        lambda talk: talk.hear("execute_reply", None, {"status": "ok"}, "shell"),
    ],
    ids=["all", "reply", "reply without a parent"],
)
def test_what_was_replied_to_is_not_answered_again(talk: Talk, end: Callable[[Talk], None]) -> None:
    """Whether or not an idle followed."""
    talk.tell(A)
    talk.busy(A)
    end(talk)
    talk.told()
    talk.change(StatusEvent.EXITED)

    assert talk.answers() == []


def test_other_reply_is_no_answer_to_what_runs(talk: Talk) -> None:
    """Without a parent, it is an answer to nothing that is known; and what is no reply answers nothing."""
    talk.tell(A)
    talk.hear("inspect_reply", None, {"status": "ok"}, "shell")
    talk.hear("odd", A, {"status": "ok"}, "shell")
    talk.told()
    talk.change(StatusEvent.EXITED)

    assert talk.answers()[0] == ("execute_reply", "a", "error")


def test_requests_are_answered_at_one_end_only(talk: Talk) -> None:
    """Not again at the next."""
    talk.tell(A)
    talk.change(StatusEvent.EXITED)
    talk.start()
    talk.change(StatusEvent.EXITED)

    assert talk.answers() == []


def test_what_is_held_for_the_next_kernel_is_not_answered(talk: Talk) -> None:
    """It runs there, and who listens waits on."""
    talk.listen(A, B)
    talk.tell(A)
    talk.conversation.requests.add(B)
    talk.conversation.held.append(B)
    talk.change(StatusEvent.EXITED)
    answers, heard = talk.answers(), len(talk.heard)
    talk.start()
    held = talk.conversation.take_held()
    talk.tell(*held)
    talk.run(B)

    assert answers == [("execute_reply", "a", "error"), ("status", "a", "idle")]
    assert (held, heard, talk.conversation.held, talk.sent) == ([B], 1, [], ["a", "b"])
    assert talk.heard.count(ExecutionOver()) == 1


def test_what_was_held_is_aborted_if_no_kernel_follows(talk: Talk) -> None:
    """With the reason."""
    talk.listen(B)
    talk.conversation.requests.add(B)
    talk.conversation.held.append(B)
    talk.conversation.abort(talk.conversation.take_held(), "the restart failed")

    assert talk.answers() == aborted("b")
    assert reasons(talk) == ["The execution was taken out of the queue: the restart failed"]
