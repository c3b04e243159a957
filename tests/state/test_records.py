"""The records of a log: read as they were written, up to wherever the bytes end."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.state.records import LARGE, Damage, Head, Kind, Record, encode, read_records

CONTENTS = st.lists(st.binary(max_size=50), max_size=5)


def encoded(serial: int, parts: dict[str, bytes], messages: list[bytes]) -> bytes:
    """Return a record as bytes."""
    values = [*parts.values()]
    head = Head(serial, 0, 0, [*map(len, messages)], [*parts], [*map(len, values)])
    return b"".join(encode(Kind.CHANGES, head, [*values, *messages]))


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=50), max_size=4), CONTENTS)
def test_record_is_read_as_it_was_written(parts: dict[str, bytes], messages: list[bytes]) -> None:
    """Parts and messages come back, all of them or some."""
    (record,) = read_records(encoded(3, parts, messages))

    assert isinstance(record, Record)
    assert (3, parts, messages) == (record.head.serial, record.parts(), record.messages(0, len(messages)))
    assert messages[1:3] == record.messages(1, 3)


@given(st.lists(CONTENTS, max_size=4), st.floats(0, 1))
def test_stream_that_is_cut_has_all_whole_records(commits: list[list[bytes]], share: float) -> None:
    """Wherever the bytes end: the whole records are read, and the rest is known to be a record's beginning."""
    records = [encoded(serial, {}, messages) for serial, messages in enumerate(commits)]
    stream = b"".join(records)
    stream = stream[: round(share * len(stream))]
    whole = rest = 0
    while whole < len(records) and len(stream) - rest >= len(records[whole]):
        rest += len(records[whole])
        whole += 1
    found = list(read_records(stream))
    damage = [Damage(rest, len(stream) - rest, is_cut=True)] if rest < len(stream) else []

    assert [*range(whole)] == [record.head.serial for record in found if isinstance(record, Record)]
    assert damage == found[whole:]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    """Bytes that were never a record are damage, and nothing is raised."""
    found = list(read_records(data))

    assert len(data) == sum(each.size for each in found if isinstance(each, Damage))


def test_large_messages_are_not_copied() -> None:
    """What is large is written as it is, in its place among the small ones."""
    large = bytes(LARGE)
    messages = [b"a", large, b"b", b"c", large]
    pieces = encode(Kind.CHANGES, Head(0, 0, 0, [*map(len, messages)]), messages)
    (record,) = read_records(b"".join(pieces))

    assert 2 == sum(piece is large for piece in pieces)
    assert isinstance(record, Record)
    assert messages == record.messages(0, 5)


@pytest.mark.parametrize(
    "head",
    [Head(0, 0, 0, [2, -1]), Head(0, 0, 0, [1], ["a"], [])],
    ids=["size", "name"],
)
def test_record_that_contradicts_itself_is_damage(head: Head) -> None:
    """A record that says what cannot be is not read, whole as it may be."""
    stream = b"".join(encode(Kind.CHANGES, head, [b"x"]))

    assert [Damage(0, len(stream), is_cut=False)] == list(read_records(stream))


def test_record_of_an_unknown_kind_is_damage() -> None:
    """What nobody here has written is not read."""
    stream = b"".join(encode(9, Head(0, 0, 0, [1]), [b"x"]))

    assert [Damage(0, len(stream), is_cut=False)] == list(read_records(stream))
