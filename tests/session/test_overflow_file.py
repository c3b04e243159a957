"""The file for undelivered messages: a queue that gives its space back and survives a full disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import open_descriptors
from kallichore.session import overflow_file
from kallichore.session.overflow_file import OverflowFile


@pytest.fixture
def overflow() -> Iterator[OverflowFile]:
    """Return an overflow that is closed afterwards."""
    overflow = OverflowFile()
    yield overflow
    overflow.close()


def test_messages_come_back_in_order(overflow: OverflowFile) -> None:
    """What was pushed is read as it was, an empty message included."""
    assert [overflow.push(payload) for payload in (b"a", b"", b"ccc")] == [True] * 3
    assert (overflow.read(0, [1, 0, 3]), overflow.size) == ([b"a", b"", b"ccc"], 4)


def test_reading_can_begin_anywhere(overflow: OverflowFile) -> None:
    """A reader skips what it has."""
    for payload in (b"a", b"bb", b"ccc", b"d"):
        overflow.push(payload)

    assert (overflow.read(1, [2, 3]), overflow.read(3, [3])) == ([b"bb", b"ccc"], [b"ccc"])


def test_pushing_goes_on_after_reading_and_dropping(overflow: OverflowFile) -> None:
    """New messages go to the end, wherever was read, and whatever was dropped."""
    overflow.push(b"a")
    overflow.push(b"bb")
    overflow.read(0, [1])
    overflow.drop(1)
    overflow.push(b"ccc")

    assert (overflow.read(0, [2, 3]), overflow.size) == ([b"bb", b"ccc"], 5)


def test_emptied_overflow_can_be_filled_again(overflow: OverflowFile) -> None:
    """When all was dropped it begins anew."""
    overflow.push(b"a")
    overflow.drop(1)
    overflow.push(b"b")

    assert (overflow.read(0, [1]), overflow.size) == ([b"b"], 1)


def test_space_is_given_back_and_nothing_is_lost(overflow: OverflowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is much longer than what it holds at a time keeps few files, and loses nothing."""
    monkeypatch.setattr(overflow_file, "SEGMENT_BYTES", 16)
    numbers = [b"%d" % number for number in range(500)]
    before = open_descriptors()
    held: list[bytes] = []
    read: list[bytes] = []
    for payload in numbers:
        overflow.push(payload)
        held.append(payload)
        if len(held) > 12:
            taken, held = held[:5], held[5:]
            read += overflow.read(0, list(map(len, taken)))
            overflow.drop(sum(map(len, taken)))
            assert open_descriptors() - before <= 4

    assert read + overflow.read(0, list(map(len, held))) == numbers


def test_nothing_is_left_in_the_directory(overflow: OverflowFile, private_place: Path) -> None:
    """The file has no name: nothing is left behind even by a server that is killed."""
    overflow.push(b"a")

    # Windows has no files without a name; there it goes when it is closed.
    assert (os.listdir(private_place) if os.name == "posix" else []) == []


def test_closed_overflow_is_empty(overflow: OverflowFile) -> None:
    """Closing forgets everything, and again does no harm."""
    overflow.push(b"a")
    overflow.close()
    overflow.close()

    assert overflow.size == 0


def test_directory_that_takes_no_file_is_refused(
    overflow: OverflowFile, private_place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no file can be made messages are refused, with one line in the log, and nothing is counted."""
    monkeypatch.setattr("tempfile.tempdir", str(private_place / "missing"))

    assert [overflow.push(b"a"), overflow.push(b"b")] == [False, False]
    assert (overflow.size, len(caplog.records)) == (0, 1)


def test_disk_that_takes_a_part_only_is_refused(overflow: OverflowFile) -> None:
    """A message of which only the beginning fits is refused whole; later ones that fit are kept intact."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    overflow.push(b"a" * 6)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        pushed = [overflow.push(payload) for payload in (b"b" * 6, b"cccc")]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert (pushed, overflow.read(0, [6, 4])) == ([False, True], [b"a" * 6, b"cccc"])


def test_end_is_cut_off_and_written_anew(overflow: OverflowFile) -> None:
    """What is cut off at the end is gone, and what is pushed then follows what was before it."""
    for payload in (b"one", b"two", b"three"):
        overflow.push(payload)
    overflow.drop(3)
    overflow.cut(5)
    overflow.push(b"four")

    assert (7, [b"two", b"four"]) == (overflow.size, overflow.read(0, [3, 4]))


def test_space_behind_the_cut_is_given_back(overflow: OverflowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files behind the cut are closed, the one that is cut is shorter, and nothing is left of an empty queue."""
    monkeypatch.setattr(overflow_file, "SEGMENT_BYTES", 10)
    for number in range(4):
        overflow.push(b"%d" % number * 8)
    files = [segment.file for segment in overflow._segments]
    overflow.cut(16 + 4)

    assert [False, False, True, True] == [file.closed for file in files]
    assert 4 == files[1].seek(0, 2)
    assert (12, [b"00000000", b"1111"]) == (overflow.size, overflow.read(0, [8, 4]))

    overflow.cut(12)
    assert [True] * 4 == [file.closed for file in files]
    assert 0 == overflow.size
    overflow.push(b"again")
    assert [b"again"] == overflow.read(0, [5])
