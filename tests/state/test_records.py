"""The records of a log: read as they were written, up to wherever the bytes end."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.state.records import LARGE, MAGIC, Damage, Head, Kind, Record, encode, read_records

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


@pytest.mark.parametrize(
    ("kind", "head", "contents", "written"),
    [
        (
            Kind.SNAPSHOT,
            Head(3, 1, 7, [1, 0], ["queue"], [2], [(8, 9)], [[(0, 1)]]),
            [b"[]", b"a", b""],
            (
                b"\xffKR\x01\x01\0\0\0\x19\0\0\0\0\0\0\0\x1c\x0dmpZ\xd2\x89\xad\xdf"
                b"\x98\x03\x01\x07\x92\x01\0\x91\xa5queue\x91\x02\x91\x92\x08\x09\x91\x91\x92\0\x01[]a"
            ),
        ),
        (
            Kind.CHANGES,
            Head(0, 0, 0),
            [],
            (b"\xffKR\x01\x02\0\0\0\x09\0\0\0\0\0\0\0\x09\x87_\x93\x92\xd8\xf3\xc5\x7f\x98\0\0\0\x90\x90\x90\x90\x90"),
        ),
    ],
    ids=["snapshot", "changes"],
)
def test_record_is_written_as_its_version_says(kind: Kind, head: Head, contents: list[bytes], written: bytes) -> None:
    """Byte by byte: servers of other versions read it. With other bytes, the directory would have another version."""
    assert written == b"".join(encode(kind, head, contents))


def test_large_messages_are_not_copied() -> None:
    """What is large is written as it is, in its place among the small ones, which are written together."""
    large = bytes(LARGE)
    messages = [b"a", large, b"b", b"c", large, b"d", b"e"]
    header, first, *pieces = encode(Kind.CHANGES, Head(0, 0, 0, [*map(len, messages)]), messages)
    (record,) = read_records(b"".join([header, first, *pieces]))

    assert first.endswith(b"a")
    assert [large, b"bc", large, b"de"] == pieces
    assert 2 == sum(piece is large for piece in pieces)
    assert isinstance(record, Record)
    assert messages == record.messages(0, 7)


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


@pytest.mark.parametrize("position", [0, 4, 8, 16, 20, 24, 30, -1])
def test_damage_at_the_end_is_no_write_that_was_cut(position: int) -> None:
    """A byte that turned in the last record, be it in what says how long that is: nothing more would have come."""
    record = bytearray(encoded(0, {}, [b"message"]))
    record[position] ^= 1

    assert [Damage(0, len(record), is_cut=False)] == list(read_records(bytes(record)))


@pytest.mark.parametrize(
    "damage",
    [b"x", MAGIC, MAGIC + b"x", MAGIC * 2, MAGIC[:-1], encoded(0, {}, [b"message"])[:-1]],
    ids=["a byte", "a beginning", "a beginning and more", "two beginnings", "less than a beginning", "a cut record"],
)
def test_record_behind_damage_is_found(damage: bytes) -> None:
    """Directly behind the last byte of it, and at the beginning of the file too."""
    found = list(read_records(damage + encoded(1, {}, [b"a"]) + damage + encoded(2, {}, [b"b"])))
    behind = len(damage + encoded(1, {}, [b"a"]))

    assert [Damage(0, len(damage), is_cut=False), Damage(behind, len(damage), is_cut=False)] == found[::2]
    assert [1, 2] == [record.head.serial for record in found[1::2] if isinstance(record, Record)]
