"""The audience of a session: who is in it, what each is handed, and who is woken or asked to leave."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from kallichore.conversation.delivery import UNDER_WAY, Ending
from kallichore.conversation.journal import Journal
from kallichore.session.clients import BATCH_MESSAGES, LIVE_MESSAGES, Attendance, Audience, ClientSlot, Wish
from kallichore.session.overflow_file import OverflowFile
from kallichore.wire.client_messages import kernel_message
from kallichore.wire.envelope import encode

SHARE, WATCH = Wish(Attendance.SHARE), Wish(Attendance.WATCH)


def make_audience(messages: int = 0) -> Audience:
    """Return the audience of a session that has said so many messages, and whose journal keeps nothing for long."""
    audience = Audience(Journal(1 << 20, 0, OverflowFile(), 0))
    audience.journal.extend([b"%d" % number for number in range(messages)])
    return audience


def take(slot: ClientSlot) -> list[bytes]:
    """Send a client what there is, and return it in the order in which it went."""
    sent: list[bytes] = []
    while (batch := slot.take_nowait()) is not None:
        sent += batch.payloads
        if not batch.is_ahead:
            slot.delivery.give(batch.next_position)
    return [payload for payload in sent if payload]


def confirm(slot: ClientSlot) -> None:
    """Let a client answer a ping behind all that it was given."""
    slot.deliveries.pong(slot.delivery, slot.delivery.ping(slot.delivery.given))


def count_wakes(slot: ClientSlot) -> list[bool]:
    """Return a list that grows whenever the client is woken."""
    wakes: list[bool] = []
    slot.on_news = lambda: bool(wakes.append(True)) or True
    return wakes


# Who is there


def test_more_may_wait_in_memory_for_a_client_that_keeps_up() -> None:
    """While it takes what it is sent, the journal has room beyond its own; when it stands still, not."""
    audience = make_audience()
    slot = audience.attach(Wish())
    seen = [audience.journal.allowance]
    for keeps_up in (True, False):
        slot.note_pace(keeps_up=keeps_up)
        seen.append(audience.journal.allowance)

    assert [0, UNDER_WAY, 0] == seen


def test_client_that_takes_over_displaces_the_one_that_had() -> None:
    """It is told why, has to leave, is not among those who are there any more, and gets nothing more."""
    audience = make_audience(3)
    older = audience.attach(Wish())
    hastened: list[bool] = []
    older.on_displaced = lambda: hastened.append(True)
    wakes = count_wakes(older)
    newer = audience.attach(Wish())
    seen = len(audience), older.displaced, older.leaving, newer.older, len(hastened), len(wakes)
    older.tell(b"live")
    audience.wake()
    audience.tell(b"sample")
    audience.leave("over")

    assert seen == (1, True, "Another client connected to this session", older, 1, 1)
    # What it was told itself, and no more: nobody else is asked to wake it.
    assert 2 == len(wakes)
    assert older.leaving == "Another client connected to this session"
    assert older.take_nowait() is None
    assert older.take_live() == []
    assert (newer.displaced, newer.leaving) == (False, "over")
    assert not audience.detach(older)
    assert audience.detach(newer)
    assert len(audience) == 0


def test_displaced_client_is_told_by_whom() -> None:
    """As the newer one names itself."""
    audience = make_audience()
    older = audience.attach(Wish())
    audience.attach(Wish(name="the console of Ada"))

    assert "Another client connected to this session: the console of Ada" == older.leaving


def test_client_is_hastened_once() -> None:
    """It is displaced once, whatever is asked of it then."""
    slot = make_audience().attach(Wish())
    hastened: list[bool] = []
    slot.leave("early")
    slot.on_displaced = lambda: hastened.append(True)
    slot.leave("displaced", displaced=True)
    slot.leave("displaced", displaced=True)

    assert ("early", True, [True]) == (slot.leaving, slot.displaced, hastened)


@pytest.mark.parametrize("wish", [SHARE, WATCH])
def test_clients_that_share_or_watch_displace_nobody_and_are_not_displaced(wish: Wish) -> None:
    """They stay beside whoever has the session."""
    audience = make_audience()
    having = audience.attach(Wish())
    joining = audience.attach(wish)
    following = audience.attach(Wish())

    assert (None, having) == (joining.older, following.older)
    assert [True, False, False] == [slot.displaced for slot in (having, joining, following)]
    assert len(audience) == 2


def test_socket_is_that_of_who_took_over_last() -> None:
    """Of those who share it is the first's."""
    audience = make_audience()
    paths = [audience.socket_path]
    for attendance, path in ((Attendance.SHARE, "a"), (Attendance.WATCH, "b"), (Attendance.TAKE_OVER, "c")):
        audience.attach(Wish(attendance, socket_path=path))
        paths.append(audience.socket_path)

    assert [None, "a", "a", "c"] == paths


def test_visitors_own_are_the_answers_to_its_requests_and_what_is_printed_from_then_on() -> None:
    """All else that it is sent is others'."""
    audience = make_audience()
    visitor = audience.attach(Wish(Attendance.VISIT))
    visitor.note_request("mine")
    answers = [
        encode({"kind": "jupyter", "parent_header": None if parent is None else {"msg_id": parent}, "content": {}})
        for parent in ("mine", "theirs", None)
    ]
    line, news = kernel_message("output", ["stdout", "printed"]), kernel_message("exited", 0)
    audience.journal.extend([line, news, b"no JSON", *answers, news, line])
    visitor.take_nowait()

    assert {3, 7} == visitor.delivery.own


def test_client_that_is_gone_is_finished() -> None:
    """Who waits for it goes on; that it was not displaced before is told."""
    audience = make_audience()
    slot = audience.attach(Wish())

    assert not slot.finished.is_set()
    assert audience.detach(slot)
    assert slot.finished.is_set()


def test_only_who_watches_may_not_speak() -> None:
    """To share is to speak as well; and only who has a number goes by the numbers."""
    audience = make_audience(9)
    slots = [audience.attach(wish) for wish in (Wish(), SHARE, WATCH, Wish(since=0))]

    assert [(True, False), (True, False), (False, False), (True, True)] == [
        (slot.may_speak, slot.is_numbered) for slot in slots
    ]
    assert [True, True, False, True] == [slot.delivery.speaks for slot in slots]


# What each is handed


def test_client_is_handed_what_is_next() -> None:
    """In order, until it has all; what was not noted as given comes again."""
    audience = make_audience(3)
    slot = audience.attach(Wish())
    twice = [slot.take_nowait(), slot.take_nowait()]
    behind = slot.is_behind
    all_of_it = take(slot)

    assert twice[0] is not None
    assert twice[0] == twice[1]
    assert [b"0", b"1", b"2"] == twice[0].payloads == all_of_it
    assert (behind, slot.is_behind) == (True, False)
    assert slot.take_nowait() is None


def test_client_that_has_to_leave_gets_first_what_is_there() -> None:
    """Only one that was displaced does not: the rest is another's."""
    audience = make_audience(2)
    slot = audience.attach(Wish())
    audience.leave("The session was deleted")

    assert [b"0", b"1"] == take(slot)


def test_ending_is_a_cut_until_a_close_frame_has_come() -> None:
    """What followed the last answered ping is owed; who closes in order has what it was given."""
    audience = make_audience(3)
    slots = [audience.attach(SHARE), audience.attach(SHARE)]
    for slot in slots:
        take(slot)
    audience.detach(slots[0])
    after_cut = audience.attach(SHARE).delivery.given
    slots[1].ending = Ending.CLOSED
    audience.detach(slots[1])

    assert (0, 3) == (after_cut, audience.attach(SHARE).delivery.given)


def test_exit_of_an_earlier_kernel_is_not_handed_to_who_comes_after_the_next_start() -> None:
    """To who was there before, it is, in order."""
    audience = make_audience(1)
    there_before = audience.attach(SHARE)
    audience.journal.note_exit(1)
    audience.journal.extend([b"exited"])
    audience.journal.note_start()
    audience.journal.extend([b"starting"])

    assert [b"0", b"exited", b"starting"] == take(there_before)
    assert [b"0", b"starting"] == take(audience.attach(SHARE))
    assert [b"0", b"exited", b"starting"] == take(audience.attach(Wish(Attendance.SHARE, since=0)))


def say_much(audience: Audience, *, reply: bytes) -> list[bytes]:
    """Let a session say more than a batch, and then reply; return all but the reply."""
    output = [b"o%d" % number for number in range(BATCH_MESSAGES + 1)]
    audience.journal.extend(output)
    audience.journal.extend([reply], urgent=True)
    return output


def test_replies_go_ahead_for_who_is_behind_by_more_than_a_batch() -> None:
    """Once, and the output follows; the next ones go ahead of what is left."""
    audience = make_audience()
    slot = audience.attach(Wish())
    output = say_much(audience, reply=b"one")
    first, second = slot.take_nowait(), slot.take_nowait()
    assert first is not None
    assert second is not None
    more = say_much(audience, reply=b"two")
    rest = take(slot)

    assert ([b"one"], 0, 0, True) == first
    assert (output[:BATCH_MESSAGES], BATCH_MESSAGES, 0, False) == second
    assert [b"two", *output, *more] == rest


@pytest.mark.parametrize("wish", [SHARE, Wish(since=0)])
def test_replies_stay_in_order_for_who_comes_back_or_goes_by_the_numbers(wish: Wish) -> None:
    """What was said before it came is told in its order; one with numbers would not know what it has."""
    audience = make_audience()
    output = say_much(audience, reply=b"one")
    slot = audience.attach(wish)
    if wish.since is not None:
        output += [b"one", *say_much(audience, reply=b"two"), b"two"]
    else:
        output += [b"one"]

    assert output == take(slot)


@pytest.mark.parametrize("past", [1, BATCH_MESSAGES, BATCH_MESSAGES + 1])
def test_replies_go_ahead_only_behind_what_was_said_before_a_client_came(past: int) -> None:
    """First all of that, in order and with what shares a batch with it, then what is urgent of the rest."""
    audience = make_audience(past)
    slot = audience.attach(Wish())
    output = [*(b"%d" % number for number in range(past)), *say_much(audience, reply=b"one")]
    output += say_much(audience, reply=b"two")[:-1]
    told = -(-past // BATCH_MESSAGES) * BATCH_MESSAGES
    sent = take(slot)

    assert output[:past] == sent[:past]
    assert output[:told] == sent[:told]
    assert sent.index(b"one") < sent.index(b"two")
    assert told == min(sent.index(b"one"), sent.index(b"two"))
    assert len(output) + 3 == len(sent)


@pytest.mark.parametrize("place", [0, 5, BATCH_MESSAGES - 1])
def test_reply_that_is_in_the_next_batch_needs_no_haste(place: int) -> None:
    """It comes with that, where there is no later one."""
    audience = make_audience()
    slot = audience.attach(Wish())
    output = [b"o%d" % number for number in range(2 * BATCH_MESSAGES)]
    audience.journal.extend(output[:place])
    audience.journal.extend([b"reply"], urgent=True)
    audience.journal.extend(output[place:])

    assert [*output[:place], b"reply", *output[place:]] == take(slot)


def test_reply_right_behind_the_next_batch_goes_ahead() -> None:
    """It would wait for all of that."""
    audience = make_audience()
    slot = audience.attach(Wish())
    output = [b"o%d" % number for number in range(BATCH_MESSAGES)]
    audience.journal.extend(output)
    audience.journal.extend([b"reply"], urgent=True)

    assert [b"reply", *output] == take(slot)


def test_replies_stay_in_their_order() -> None:
    """One in the next batch is not overtaken by a later one that goes ahead: they may be on the same channel."""
    audience = make_audience()
    slot = audience.attach(Wish())
    audience.journal.extend([b"early"], urgent=True)
    output = say_much(audience, reply=b"late")

    assert [b"early", b"late", *output] == take(slot)


# Live messages


def test_live_messages_are_taken_once_and_the_latest_are_kept() -> None:
    """What newer ones have overtaken goes."""
    slot = make_audience().attach(Wish())
    for number in range(LIVE_MESSAGES + 3):
        slot.tell(b"%d" % number)

    assert [b"%d" % number for number in range(3, LIVE_MESSAGES + 3)] == slot.take_live()
    assert slot.take_live() == []


def test_everybody_is_told_what_is_live() -> None:
    """And woken for it, and when the journal grew."""
    audience = make_audience()
    slots = [audience.attach(SHARE), audience.attach(SHARE)]
    wakes = [count_wakes(slot) for slot in slots]
    audience.tell(b"sample")
    audience.wake()

    assert [[b"sample"]] * 2 == [slot.take_live() for slot in slots]
    assert [2, 2] == [len(each) for each in wakes]


# Turns and waking


@pytest.mark.parametrize("sends", [None, False, True])
async def test_client_is_woken_unless_all_was_sent_already(sends: bool | None, autojump_clock: object) -> None:
    """Its writer sleeps on where whoever brought the news has sent it."""
    slot = make_audience().attach(Wish())
    slot.on_news = None if sends is None else lambda: bool(sends)
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slot.wait_woken)
            await trio.testing.wait_all_tasks_blocked()
            slot.wake()

    assert scope.cancelled_caught == bool(sends)


async def test_turn_comes_when_the_displaced_client_is_settled() -> None:
    """Then the newer one begins with what that one does not have; one that goes by the numbers begins where it said."""
    audience = make_audience(5)
    older = audience.attach(Wish())
    older.delivery.give(2)
    confirm(older)
    older.delivery.give(4)
    newer = audience.attach(Wish())
    older.ending = Ending.CLOSED
    latest = audience.attach(Wish(since=1))
    order: list[str] = []

    async def wait(slot: ClientSlot, name: str) -> None:
        await slot.wait_turn()
        order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, newer, "newer")
        nursery.start_soon(wait, latest, "latest")
        await trio.testing.wait_all_tasks_blocked()
        before = list(order), newer.delivery.given
        audience.detach(older)
        await trio.testing.wait_all_tasks_blocked()
        order.append("|")
        audience.detach(newer)

    assert before == ([], 2)
    assert ["newer", "|", "latest"] == order
    assert (4, 1) == (newer.delivery.given, latest.delivery.given)
    assert newer.older is None


@pytest.mark.parametrize(
    ("ending", "number", "is_shown"),
    [
        (Ending.CUT, 1, True),
        (Ending.CUT, 2, False),
        (Ending.CUT, 4, False),
        (Ending.CLOSED, 3, True),
        (Ending.CLOSED, 4, False),
    ],
)
async def test_open_question_is_shown_to_who_is_not_given_it_anyway(
    ending: Ending, number: int, is_shown: bool
) -> None:
    """Which is known when its turn comes: what the one before it turns out not to have comes again."""
    audience = make_audience(5)
    older = audience.attach(Wish())
    older.delivery.give(2)
    confirm(older)
    older.delivery.give(4)
    newer = audience.attach(Wish())
    newer.show(b"question", number)
    older.ending = ending
    audience.detach(older)
    await newer.wait_turn()

    assert ([b"question"] if is_shown else []) == newer.take_live()


async def test_client_without_a_question_is_shown_none() -> None:
    """Its turn comes at once where nobody was there."""
    slot = make_audience(5).attach(Wish())
    await slot.wait_turn()

    assert (0, []) == (slot.delivery.given, slot.take_live())


def test_answer_that_goes_ahead_to_a_visitor_is_its_own() -> None:
    """Also where its turn has not come yet."""
    audience = make_audience()
    visitor = audience.attach(Wish(Attendance.VISIT))
    visitor.note_request("mine")
    audience.journal.extend([b"x"] * 2000)
    reply = encode({"kind": "jupyter", "parent_header": {"msg_id": "mine"}, "content": {}})
    audience.journal.extend([reply], urgent=True)
    ahead = visitor.take_nowait()

    assert ahead is not None
    assert ahead.is_ahead
    assert {2000} == visitor.delivery.own


def test_what_a_client_has_is_told_once_it_is_gone() -> None:
    """To whoever asked for that, when it is settled."""
    audience, settled = make_audience(2), []
    slot = audience.attach(Wish())
    slot.on_settled = lambda delivery: settled.append(delivery.confirmed)
    slot.delivery.give(2)
    slot.ending = Ending.CLOSED
    audience.detach(slot)

    assert [2] == settled


def test_what_a_caller_got_is_let_go_of_where_no_client_was() -> None:
    """And kept where a client was, or may come for it."""
    quiet, visited = make_audience(3), make_audience(3)
    visited.detach(visited.attach(Wish()))
    kept = Audience(Journal(1 << 20, 0, OverflowFile(), 0), keeps_told=True)
    kept.journal.extend([b"x"] * 3)
    shifts = [audience.told_to_caller([range(2)]) for audience in (quiet, visited, kept)]

    assert [0, 2, 2] == [shift(2) for shift in shifts]
    assert [1, 3, 3] == [audience.journal.end for audience in (quiet, visited, kept)]
