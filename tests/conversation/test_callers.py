"""What callers in this process got counts as told, where no client may come for it."""

from __future__ import annotations

import pytest

from kallichore.conversation.callers import GivenToCallers
from kallichore.conversation.conversation import Announcement
from kallichore.conversation.delivery import Deliveries, Ending
from kallichore.conversation.journal import Journal, Shift
from kallichore.conversation.status import StatusEvent
from kallichore.session.overflow_file import OverflowFile
from talk import Talk, request


def finish(talk: Talk, msg_id: str) -> None:
    """Let a caller have got all of its execution."""
    conversation = talk.conversation
    del conversation.listeners[msg_id]
    conversation.renumber(talk.journal.take_back(conversation.given.take(msg_id)))


def left(talk: Talk) -> list[object]:
    """Return what is still in the journal: of the kernel's messages the type, of the session's news the member."""
    talk._read = talk.journal.first
    return [message.get("msg_type") or next(iter(message.keys() - {"kind"})) for message in talk.told()]


def started() -> Talk:
    """Return a talk with a kernel that is idle, of which everything so far was let go of."""
    talk = Talk().start()
    talk.journal.keep_limit = 0
    talk.change(StatusEvent.KERNEL_IDLE)
    talk.journal.release(talk.journal.end)
    return talk


def test_execution_of_a_caller_leaves_nothing() -> None:
    """All of it is the caller's: what the kernel said, what its process printed, and the status in between."""
    talk = started()
    for msg_id in ("a", "b"):
        code = request(msg_id)
        talk.listen(code)
        talk.tell(code)
        talk.busy(code)
        talk.hear("stream", code, {"name": "stdout", "text": "x"})
        talk.conversation.hear_output("stdout", "past the kernel\n")
        talk.reply(code)
        talk.idle(code)
        finish(talk, msg_id)

        assert [] == left(talk)
        assert "idle" == talk.status


def test_execution_that_waited_leaves_no_word_of_that() -> None:
    """That it was queued is its caller's alone, and the numbers of one that waits follow what goes before it."""
    talk = started()
    first, second = request("a"), request("b")
    talk.listen(first, second)
    talk.tell(first, second)
    talk.run(first)
    finish(talk, "a")
    assert ["executionQueued"] == left(talk)
    talk.run(second)
    finish(talk, "b")

    assert [] == left(talk)


def test_what_nobody_was_given_stays_in_order() -> None:
    """Output of others, and news that are no caller's, wait for a client."""
    talk = started()
    code = request("a")
    talk.listen(code)
    talk.tell(code)
    talk.busy(code)
    talk.hear("stream", request("earlier"), {"name": "stdout", "text": "a thread goes on"})
    talk.conversation.move_to("/elsewhere")
    talk.hear("display_data", code, {})
    talk.conversation.say("resourceUsage", {})
    talk.reply(code)
    talk.idle(code)
    finish(talk, "a")

    assert ["stream", "workingDirChanged", "resourceUsage"] == left(talk)


def test_execution_without_a_caller_is_told_whole() -> None:
    """A client's own request, and one whose caller left, stay with the status that they had."""
    talk = started()
    code = request("a")
    talk.tell(code)
    talk.run(code)

    assert ["status", "status", "execute_reply", "status", "status"] == left(talk)


def test_status_that_is_no_mere_turn_stays() -> None:
    """A kernel that was offline in the middle is told of, back to where it is: the last status told is the one."""
    talk = started()
    code = request("a")
    talk.listen(code)
    talk.tell(code)
    talk.busy(code)
    talk.change(StatusEvent.HEARTBEAT_LOST)
    talk.busy(code)
    talk.reply(code)
    talk.idle(code)
    finish(talk, "a")
    talk._read = talk.journal.first

    assert ["offline", "busy", "idle"] == [news["status"] for news in talk.news("status")]


def test_open_question_keeps_its_place() -> None:
    """The number of a question that waits for an answer follows what goes before it."""
    talk = started()
    code, asking = request("a"), request("b")
    talk.listen(code)
    talk.tell(code)
    talk.run(code)
    talk.tell(asking)
    talk.hear("input_request", asking, {"prompt": "?"}, channel="stdin")
    finish(talk, "a")
    question = talk.conversation.open_input
    assert question is not None

    assert [question.payload] == talk.journal.read(question.position, 1, 1).payloads


def test_status_that_does_not_change_is_nothing_that_a_caller_was_given() -> None:
    """A kernel that says twice that it is busy: what came in between is somebody else's, and stays."""
    talk = started()
    code = request("a")
    talk.listen(code)
    talk.tell(code)
    talk.busy(code)
    talk.hear("stream", request("earlier"), {"name": "stdout", "text": "a thread goes on"})
    talk.busy(code)
    talk.reply(code)
    talk.idle(code)
    finish(talk, "a")

    assert ["stream"] == left(talk)


def test_numbers_of_one_caller_follow_when_anothers_are_let_go_of() -> None:
    """Two that run at a time, as one is beside the main shell: each takes back its own, wherever these are by then."""
    talk = started()
    first, second = request("a", subshell="1"), request("b", subshell="2")
    talk.listen(first, second)
    talk.tell(first, second)
    talk.hear("stream", first, {"name": "stdout", "text": "a"})
    talk.hear("stream", request("earlier"), {"name": "stdout", "text": "a thread goes on"})
    talk.hear("display_data", second, {})
    finish(talk, "a")
    talk.conversation.say("resourceUsage", {})
    finish(talk, "b")

    assert ["stream", "resourceUsage"] == left(talk)


def test_announced_execution_is_told_to_clients_when_it_is_sent() -> None:
    """Once, with its code, when that was, and who has it run; for its caller that is part of it."""
    talk = started()
    code, plain = request("a"), request("b")
    talk.conversation.announcements["a"] = Announcement("1 + 1", {"source": "agent"})
    talk.conversation.announce(plain, "today")
    talk.conversation.announce(code, "today")
    talk.conversation.announce(code, "later")
    told = {"msg_id": "a", "code": "1 + 1", "requested_at": "today", "attribution": {"source": "agent"}}

    assert talk.news("executionRequested") == [told]


def test_announcement_belongs_to_the_execution_of_its_caller() -> None:
    """It is let go of with the rest; where nobody listens it waits for a client."""
    talk = started()
    mine, anothers = request("a"), request("b")
    talk.listen(mine)
    for message in (anothers, mine):
        talk.conversation.announcements[message.msg_id] = Announcement("1", {})
        talk.conversation.announce(message, "today")
    talk.tell(mine)
    talk.run(mine)
    finish(talk, "a")
    talk._read = talk.journal.first

    assert [news["msg_id"] for news in talk.news("executionRequested")] == ["b"]


@pytest.mark.parametrize("interrupt", ["interrupt_request", None])
def test_interrupted_execution_is_known_as_such(interrupt: str | None) -> None:
    """The one that ran then, and no other; nor is one that nobody interrupted."""
    talk = started()
    talk.tell(request("a"), request("b"))
    talk.busy(request("a"))
    if interrupt is not None:
        talk.conversation.clear_for(interrupt)

    assert talk.conversation.was_interrupted("a") is (interrupt is not None)
    assert talk.conversation.was_interrupted("b") is False


def test_numbers_in_a_row_are_one_range() -> None:
    """A million messages are one range; others stand apart, and each caller's are its own."""
    given = GivenToCallers()
    for number in (3, 4, 5, 7, 9):
        given.note("a", number)
    given.note("b", 6)

    assert [range(3, 6), range(7, 8), range(9, 10)] == given.take("a")
    assert [] == given.take("a")
    assert [range(6, 7)] == given.take("b")


def test_numbers_follow_the_journal() -> None:
    """When another caller's messages are gone, those of one who still listens are smaller."""
    given = GivenToCallers()
    for number in (2, 5, 6):
        given.note("a", number)
    given.renumber(Shift((range(1), range(3, 5))))
    given.note("a", 4)

    assert [range(1, 2), range(2, 5)] == given.take("a")


def deliveries_of(*payloads: bytes, keeps_told: bool = False) -> Deliveries:
    """Return the deliveries of a journal with these messages."""
    journal = Journal(1 << 20, 0, OverflowFile(), 1 << 20)
    journal.extend(payloads)
    return Deliveries(journal, keeps_told)


def test_what_a_caller_got_is_let_go_of_where_no_client_ever_was() -> None:
    """It is gone at once, though the journal keeps what clients were told for those who come back."""
    deliveries = deliveries_of(b"a", b"b", b"c")
    shift = deliveries.told_to_caller([range(2)])

    assert (range(2),) == shift.gone
    assert [b"c"] == list(deliveries.journal.read(0, 1 << 10, 10).payloads)


@pytest.mark.parametrize("speaks", [True, False])
@pytest.mark.parametrize("is_gone", [True, False])
def test_what_a_caller_got_stays_for_a_client_that_is_or_was_there(speaks: bool, is_gone: bool) -> None:
    """A client may come back for it, be it one that only watches: its numbers stay as they are."""
    deliveries = deliveries_of(b"a", b"b", b"c")
    client = deliveries.begin(speaks=speaks)
    if is_gone:
        deliveries.end(client, Ending.CUT)

    assert () == deliveries.told_to_caller([range(2)]).gone
    assert 3 == deliveries.journal.end


def test_what_a_caller_got_stays_where_that_is_asked_for() -> None:
    """A session that is to keep more than others keeps this."""
    deliveries = deliveries_of(b"a", b"b", b"c", keeps_told=True)

    assert () == deliveries.told_to_caller([range(2)]).gone
    assert 3 == deliveries.journal.end
