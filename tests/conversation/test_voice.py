"""What a session says to its clients gets into the journal: at once, or with the batch that is taken in."""

from __future__ import annotations

import json

import attrs
import pytest

from kallichore.conversation.journal import Journal
from kallichore.conversation.voice import Voice
from kallichore.session.overflow_file import OverflowFile


@attrs.define
class Listener:
    """Reads the journal as it grows."""

    journal: Journal = attrs.field(factory=lambda: Journal(1 << 20, 0, OverflowFile(), 0))
    sizes: list[int] = attrs.field(factory=list)
    """How much there was at each growth."""
    voice: Voice = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.voice = Voice(self.journal, lambda: self.sizes.append(self.journal.end))

    def messages(self) -> list[bytes]:
        """Return all that is in the journal."""
        return list(self.journal.read(0, 1 << 20, 100).payloads)


@pytest.fixture
def listener() -> Listener:
    """Return somebody who listens to a voice."""
    return Listener()


def test_news_is_told_at_once(listener: Listener) -> None:
    """It is in the journal, and who reads that is woken."""
    listener.voice.say("status", {"a": 1})

    assert [json.loads(each) for each in listener.messages()] == [{"kind": "kernel", "status": {"a": 1}}]
    assert (listener.sizes, listener.voice.next_number) == ([1], 1)


def test_several_messages_wake_once(listener: Listener) -> None:
    """A reply and its idle go together."""
    listener.voice.put(iter([b"a", b"b"]))

    assert (listener.messages(), listener.sizes) == ([b"a", b"b"], [2])


def test_batch_comes_in_one_piece(listener: Listener) -> None:
    """What is told meanwhile stands where it was told; nobody is woken before the end."""
    batch = listener.voice.begin_batch(urgent=False)
    batch.append(b"a")
    listener.voice.put([b"b", b"c"])
    batch.append(b"d")
    during = (listener.messages(), listener.sizes[:], listener.voice.next_number)
    listener.voice.end_batch()

    assert during == ([], [], 4)
    assert (listener.messages(), listener.sizes) == ([b"a", b"b", b"c", b"d"], [4])


def test_next_number_counts_what_was_told_before(listener: Listener) -> None:
    """Also what the batch has brought so far."""
    listener.voice.put([b"a"])
    batch = listener.voice.begin_batch(urgent=False)
    batch.append(b"b")

    assert listener.voice.next_number == 2


def test_after_a_batch_news_is_told_at_once_again(listener: Listener) -> None:
    """A batch has an end."""
    listener.voice.begin_batch(urgent=False).append(b"a")
    listener.voice.end_batch()
    listener.voice.put([b"b"])

    assert (listener.messages(), listener.sizes) == ([b"a", b"b"], [1, 2])


def test_empty_batch_wakes_nobody(listener: Listener) -> None:
    """There is nothing to read; the end of a batch that was not begun is nothing either."""
    listener.voice.begin_batch(urgent=True)
    listener.voice.end_batch()
    listener.voice.end_batch()

    assert listener.sizes == []


def test_only_what_is_urgent_may_go_ahead(listener: Listener) -> None:
    """Replies and questions; neither output, nor what the session says by itself."""
    for urgent, payload in ((False, b"output"), (True, b"reply")):
        listener.voice.begin_batch(urgent=urgent).append(payload)
        listener.voice.end_batch()
    listener.voice.put([b"news"])

    assert listener.journal.urgent_after(0) == [1]


def test_what_is_held_back_has_its_numbers_until_it_is_published(listener: Listener) -> None:
    """What came together stays so, and what was urgent is."""
    voice = listener.voice
    voice.is_held = True
    voice.put((b"a", b"b"))
    batch = voice.begin_batch(urgent=True)
    within = voice.is_within_batch
    batch.append(b"c")
    voice.end_batch()
    held = (list(voice.held), voice.next_number, listener.messages())
    voice.publish()

    assert (within, voice.is_within_batch) == (True, False)
    assert held == ([((b"a", b"b"), False), ([b"c"], True)], 3, [])
    assert (listener.messages(), list(voice.held), voice.next_number) == ([b"a", b"b", b"c"], [], 3)
    assert voice.journal.urgent_after(0) == [2]
