"""Each class of a conversation becomes again what was saved of it, by another clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from kallichore.conversation.activity import NEVER, Activity, moved
from kallichore.conversation.delivery import Deliveries, Ending
from kallichore.conversation.execution_queue import ExecutionQueue
from kallichore.conversation.history import MOST_BYTES, MOST_ENTRIES, History, SavedEntry
from kallichore.conversation.journal import Journal
from kallichore.conversation.requests import Requests
from kallichore.conversation.status import SavedStatus, SessionStatus, StatusEvent
from kallichore.models.bodies import ExecutionHistoryEntry, Status
from kallichore.session.overflow_file import OverflowFile
from kallichore.wire.envelope import Excerpt, Header, KernelMessage
from talk import request

T = TypeVar("T")


def through_json(saved: T) -> T:
    """Return what is read of what was written."""
    return msgspec.json.decode(msgspec.json.encode(saved), type=type(saved))


def a_journal(keep_limit: int = 0) -> Journal:
    """Return a journal with room for everything, that keeps so many bytes of what everybody has."""
    return Journal(1 << 20, 0, OverflowFile(), keep_limit)


@pytest.mark.parametrize(("time", "expected"), [(None, None), (NEVER, NEVER), (1.5, 3.5)])
def test_time_moves_if_there_is_one(time: float | None, expected: float | None) -> None:
    """No time stays none, and what has not been has not been by another clock either."""
    assert expected == moved(time, 2.0)


# The queue


def a_queue() -> ExecutionQueue[str]:
    """Return a queue in which one execution has its reply, and two wait."""
    queue: ExecutionQueue[str] = ExecutionQueue()
    for msg_id in "abc":
        queue.submit(msg_id, msg_id.upper(), 1.0)
    queue.on_reply("a", 2.0)
    return queue


def test_queue_goes_on() -> None:
    """The idle that is missing releases the next, and time does so from when the reply came."""
    queue: ExecutionQueue[str] = ExecutionQueue()
    lost = queue.load(through_json(a_queue().save(ord)), lambda number: (chr(number).lower(), chr(number)), "?", 10.0)
    seen = (lost, queue.active_id, queue.active, queue.active_since, queue.is_replied, queue.look_at, queue.pending)
    queue.on_idle("a", 12.0)

    assert seen == (0, "a", "A", 11.0, True, 12.5, ("B", "C"))
    assert queue.proceed(12.0) == "B"


def test_queue_goes_on_without_what_is_lost() -> None:
    """An execution that waited is left out and counted; the active one, which the kernel has, is stood in for."""
    queue: ExecutionQueue[str] = ExecutionQueue()
    known = {ord("C"): ("c", "C")}
    lost = queue.load(through_json(a_queue().save(ord)), known.get, "?", 0.0)
    queue.on_idle("a", 3.0)

    assert (lost, queue.pending) == (1, ("C",))
    assert queue.proceed(3.0) == "C"


@pytest.mark.parametrize(
    "step",
    [
        lambda queue: queue.submit("d", "D", 3.0),
        lambda queue: queue.on_idle("a", 3.0),
        lambda queue: queue.withdraw("b"),
        lambda queue: queue.clear_pending(),
        lambda queue: queue.proceed(9.0),
        lambda queue: queue.load(ExecutionQueue().save(ord), lambda number: None, "?", 0.0),
    ],
    ids=["one more", "idle", "withdrawn", "none waits", "the next", "load"],
)
def test_whatever_changes_a_queue_is_counted(step: Callable[[ExecutionQueue[str]], object]) -> None:
    """So what was saved is saved again."""
    queue = a_queue()
    saved, changes = queue.save(ord), queue.changes
    step(queue)

    assert saved != queue.save(ord)
    assert queue.changes > changes


# Activity, status, requests


def test_activity_goes_on() -> None:
    """What is open, how many idles it takes, and what was replied to, are as before."""
    before, after = Activity(), Activity()
    before.begin("a", "execute_request", 1.0)
    before.begin_nameless("a", 2.0)
    before.reply("b", 2.5)
    after.load(through_json(before.save()), 10.0)
    seen = after.since, after.at_rest_since, after.look_at
    is_over = after.end_nameless("a", 13.0), after.end_nameless("a", 13.0)

    assert seen == (11.0, None, 13.0)
    assert (is_over, after.at_rest_since) == ((False, True), 13.0)


@pytest.mark.parametrize(
    ("is_at_work", "step"),
    [
        (False, lambda activity: activity.begin("a", "execute_request", 3.0)),
        (True, lambda activity: activity.end("a", 3.0)),
        (True, lambda activity: activity.end_nameless("a", 3.0)),
        (True, lambda activity: activity.reply("c", 3.0)),
        (True, lambda activity: activity.postpone(3.0)),
        (True, lambda activity: activity.expire(9.0)),
        (True, lambda activity: activity.clear()),
        (True, lambda activity: activity.load(Activity().save(), 0.0)),
    ],
    ids=["begin", "end", "idle without a name", "reply", "postpone", "expire", "clear", "load"],
)
def test_whatever_changes_an_activity_is_counted(is_at_work: bool, step: Callable[[Activity], object]) -> None:
    """So what was saved is saved again."""
    activity = Activity()
    if is_at_work:
        activity.begin("a", "execute_request", 1.0)
        activity.begin_nameless("a", 1.5)
        activity.reply("b", 2.0)
    saved, changes = msgspec.json.encode(activity.save()), activity.changes
    step(activity)

    assert saved != msgspec.json.encode(activity.save())
    assert activity.changes > changes


def test_reply_behind_its_idle_is_expected_after_a_load() -> None:
    """It says nothing new: no idle is due."""
    before, after = Activity(), Activity()
    before.begin("a", "execute_request", 1.0)
    before.end("a", 2.0)
    after.load(through_json(before.save()), 10.0)
    after.reply("a", 12.5)

    assert after.look_at is None


def test_kernel_that_never_worked_has_never_come_to_rest() -> None:
    """Nothing that JSON says is as long ago."""
    after = Activity()
    after.begin("a", "", 1.0)
    after.load(through_json(Activity().save()), 10.0)

    assert (after.since, after.at_rest_since) == (None, NEVER)


def test_status_goes_on() -> None:
    """What offline covers is there again when the heartbeat is."""
    before, after = SessionStatus(created=1.0), SessionStatus(created=50.0)
    for event in (StatusEvent.START_REQUESTED, StatusEvent.KERNEL_BUSY, StatusEvent.HEARTBEAT_LOST):
        before.apply(event, "why", 2.0)
    after.load(through_json(before.save()), 10.0)
    seen = after.current, after.reason, after.since, after.idle_since
    after.apply(StatusEvent.HEARTBEAT_BACK, None, 20.0)

    assert seen == (Status.OFFLINE, "why", 12.0, None)
    assert after.current is Status.BUSY


def test_status_of_which_nothing_was_written_is_the_first() -> None:
    """It is so from the beginning of the clock on."""
    after = SessionStatus(created=50.0)
    after.load(msgspec.json.decode(b"{}", type=SavedStatus), 10.0)

    assert (after.current, after.reason, after.since, after.idle_since) == (Status.UNINITIALIZED, None, 10.0, None)


def test_marks_of_a_status_change_with_it() -> None:
    """And are the same as long as it is."""
    status = SessionStatus(created=1.0)
    before, same = status.marks(), status.marks()
    status.apply(StatusEvent.START_REQUESTED, None, 1.0)

    assert same == before
    assert status.marks() != before


def test_requests_go_on() -> None:
    """What is owed an answer is owed one, in its order, and what is beside is."""
    before, after = Requests(), Requests()
    messages = [request("b"), request("a", "debug_request", "control")]
    for message in messages:
        before.add(message)
    numbers = through_json(msgspec.Raw(msgspec.json.encode(before.save_owed(messages.index))))
    after.load([messages[number] for number in (0, 1)], before.save_beside())

    assert bytes(numbers) == b"[[0,2]]"
    assert (list(after), after.is_beside("a"), after.is_beside("b")) == (messages, True, False)


@pytest.mark.parametrize(
    "step",
    [
        lambda requests: requests.add(request("c")),
        lambda requests: requests.add(request("c", "debug_request", "control")),
        lambda requests: requests.replied("b"),
        lambda requests: requests.ended("a"),
        lambda requests: requests.take(request("b")),
        lambda requests: requests.load([], []),
    ],
    ids=["one more", "one more beside", "replied", "ended beside", "taken", "load"],
)
def test_whatever_changes_requests_is_counted(step: Callable[[Requests], object]) -> None:
    """What is owed and what is beside, each for itself."""
    requests = Requests()
    for message in (request("b"), request("a", "debug_request", "control")):
        requests.add(message)
    before = list(requests), requests.save_beside(), requests.changes, requests.changes_beside
    step(requests)

    assert (before[0] != list(requests)) == (requests.changes > before[2])
    assert (before[1] != requests.save_beside()) == (requests.changes_beside > before[3])


# The history


def printed(msg_id: str, text: str) -> KernelMessage:
    """Return what code prints."""
    literal = msgspec.json.encode(text)
    return KernelMessage(
        "iopub", Header("k", "stream"), Header(msg_id, ""), b"{}", Excerpt(text=msgspec.Raw(literal)), b""
    )


def nothing_saved() -> dict[str, dict[int, Any]]:
    """Return what is saved of a history before anything is."""
    return {"entries": {}, "tails": {}}


def saved_of(history: History, saved: dict[str, dict[int, Any]]) -> History:
    """Add what changed to what is saved, and return a history that has loaded that."""
    for change in history.take_changes():
        if change.is_gone:
            saved["entries"].pop(change.place, None)
            saved["tails"].pop(change.place, None)
        if change.entry is not None:
            saved["entries"][change.place] = through_json(change.entry)
        if change.tail is not None:
            saved["tails"][change.place] = through_json(change.tail)
    after = History()
    after.load(saved["entries"], saved["tails"])
    return after


def test_output_goes_on_at_any_byte() -> None:
    """What is printed before and behind becomes the same text, wherever it is cut."""
    history, saved = History(), nothing_saved()
    history.begin(request("a"), 1)
    for count in (1, 700, 1, 900, 2000):
        history.hear(printed("a", "\u2603" * count))
        after = saved_of(history, saved)

        assert after.entries() == history.entries()

        for each in (history, after):
            each.hear(printed("a", "\u2603more"))

        assert after.entries() == history.entries()


def test_history_has_the_latest_in_their_order() -> None:
    """What fell out of it is gone for good; what has the id of an older one takes no other's place."""
    history, saved = History(), nothing_saved()
    for number in range(MOST_ENTRIES):
        history.begin(request(str(number), code=str(number)), number)
    saved_of(history, saved)
    history.begin(request("5", code="again"), 200)
    history.begin(request("new", code="new"), 201)
    history.begin(request("newer", code="newer"), 202)
    after = saved_of(history, saved)

    assert after.entries() == history.entries()
    assert [entry.input for entry in after.entries()][:1] == ["2"]
    assert [entry.input for entry in after.entries()][-3:] == ["again", "new", "newer"]
    assert len(saved["entries"]) == MOST_ENTRIES


def failed(msg_id: str, value: str) -> KernelMessage:
    """Return an error that code ended with."""
    content = msgspec.json.encode({"ename": "E", "evalue": value})
    return KernelMessage("iopub", Header("k", "error"), Header(msg_id, ""), content, Excerpt(), b"")


@pytest.mark.parametrize("value", ["no", "no" * MOST_BYTES], ids=["short", "shortened"])
def test_error_is_saved_once(value: str) -> None:
    """With whether it was shortened, and though the output is saved already; another one changes nothing."""
    history, saved = History(), nothing_saved()
    history.begin(request("a"), 1)
    history.hear(printed("a", "x"))
    before = saved_of(history, saved).entries()
    history.hear(failed("a", value))
    after = saved_of(history, saved).entries()
    history.hear(failed("a", "another"))

    assert [(entry.output, entry.error) for entry in before] == [("x", None)]
    assert after == history.entries()
    assert after[0].error is not None
    assert list(history.take_changes()) == []


def test_of_long_output_only_the_newest_half_is_saved_again() -> None:
    """Also by who has loaded it."""
    history = History()
    history.begin(request("a"), 1)
    history.hear(printed("a", "x" * MOST_BYTES))
    for each in (history, saved_of(history, nothing_saved())):
        each.hear(printed("a", "y"))
        (change,) = each.take_changes()
        assert change.tail is not None

        assert change.entry is None
        assert (change.tail.head, change.tail.tail[-2:]) == (b"", b"xy")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_loaded_history_is_saved_and_counts_on(count: int) -> None:
    """What it had before is gone."""
    history, after, saved = History(), History(), nothing_saved()
    for number in range(count):
        history.begin(request(str(number)), number)
    saved_of(history, saved)
    after.begin(request("before"), 1)
    after.load(saved["entries"], saved["tails"])
    changes = list(after.take_changes())
    after.begin(request("new"), 1)

    assert (changes, [*saved["entries"]]) == ([], [*range(count)])
    assert [change.place for change in after.take_changes()] == [count]
    assert after.entries()[:-1] == history.entries()


def test_entry_of_which_little_was_written_has_nothing_else() -> None:
    """No text, no error, and nothing that was left out."""
    history = History()
    history.load({0: msgspec.json.decode(b'{"msg_id":"a","timestamp":1,"input":{}}', type=SavedEntry)}, {})
    before = history.entries()
    history.hear(printed("a", "x" * 2 * MOST_BYTES))

    assert before == (
        ExecutionHistoryEntry(input="", output="", error=None, timestamp=1, source=None, agent=None, truncated=False),
    )
    assert f"[... {MOST_BYTES} bytes left out ...]" in history.entries()[0].output


def test_history_that_nobody_saves_remembers_no_changes() -> None:
    """Or they would be more and more."""
    history = History()
    history.begin(request("a"), 1)
    history.hear(printed("a", "text"))

    assert history._changed is None


# The journal, and what is owed


def test_journal_is_refilled_in_pieces() -> None:
    """Messages have their numbers, urgent ones are urgent, and what nobody needs is not kept."""
    journal = a_journal(keep_limit=2)
    journal.needed = 6
    journal.refill(3, [b"3", b"4"], [range(4, 8)])
    journal.refill(5, [b"5", b"6", b"7"], [range(4, 7)])

    assert (journal.first, journal.end, journal.needed, journal.dropped) == (4, 8, 6, 0)
    assert journal.read(0, 100, 100) == ([b"4", b"5", b"6", b"7"], 8, 4, False)
    assert journal.urgent_after(6) == [6]


def test_gap_takes_what_is_before_it_along() -> None:
    """A gap is at the front, and what was not delivered of it is counted."""
    journal = a_journal()
    journal.needed = 1
    journal.refill(0, [b"0", b"1", b"2"], [range(2, 3)])
    journal.refill(7, [b"7"])

    assert (journal.first, journal.end, journal.dropped, journal.urgent_after(0)) == (7, 8, 6, [])


def test_next_message_has_the_number_that_is_next() -> None:
    """Also where no message is there any more."""
    journal = a_journal()
    journal.needed = 9
    journal.refill(9, [])
    journal.extend([b"9"])

    assert journal.read(9, 100, 100) == ([b"9"], 10, 0, False)


def test_what_nobody_waits_for_is_empty_again() -> None:
    """And what was kept of it counts for what may be kept."""
    before, after = a_journal(keep_limit=2), a_journal(keep_limit=2)
    before.extend([b"a", b"b", b"c", b"d"])
    emptied = before.empty([0, 1, 2])
    after.load(through_json(before.save()))
    after.refill(0, [b"a", b"b", b"c", b"d"])

    assert emptied == [0]
    assert after.read(0, 100, 100) == before.read(0, 100, 100)
    assert (after.empty([3]), after.memory_bytes) == (before.empty([3]), before.memory_bytes)


def test_deliveries_go_on_as_if_all_were_cut() -> None:
    """What is confirmed is, by a ping or by a client's word; what was had ahead is left out."""
    before, after = Deliveries(a_journal()), Deliveries(a_journal())
    before.journal.extend([b"x"] * 9)
    one = before.begin()
    one.give(1)
    one.give_ahead([5])
    before.pong(one, one.ping(1))
    saved = through_json(before.save())
    before.begin(since=2)
    later = through_json(before.save())
    after.load(saved)

    assert (saved.owed, saved.had, later.owed) == (1, ((5, 6),), 2)
    assert (after.journal.needed, after.begin().left_out) == (1, {5})
    before.end(one, Ending.CUT)


def test_client_that_is_always_cut_early_is_known() -> None:
    """The next gets a ping sooner, and nothing is taken back that a caller got."""
    before, after = Deliveries(a_journal()), Deliveries(a_journal())
    before.journal.extend([b"x"] * 9)
    one = before.begin()
    one.give(1)
    before.end(one, Ending.CUT)
    after.load(through_json(before.save()))
    after.journal.refill(0, [b"x"] * 9)

    assert after.told_to_caller([range(1)]).gone == ()
    assert after.begin().distance == before.begin().distance
