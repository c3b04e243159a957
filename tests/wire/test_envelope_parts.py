"""A message is taken out of its envelope as it was put in, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from kallichore.wire.envelope import KernelReader
from kallichore.wire.envelope_parts import LARGE, LONGEST_HEADER, EnvelopeReader
from kallichore.wire.frames import MessageParts, join
from kallichore.wire.jupyter_frames import Parts
from kallichore.wire.signing import Signer

SIGNER = Signer("key")
HEADER = b'{"msg_id": "m", "msg_type": "stream"}'

BETWEEN = b',"parent_header":null,"channel":"iopub","content":'
"""What an envelope has between its header and its content."""

MARKS = ("parent_header", "channel", "content", "metadata", "buffers", "header")
"""Names that a message may have anywhere, and that must not be taken for the envelope's own."""

TRAPS = (
    '},"parent_header":{',
    ',"channel":"iopub","content":',
    ',"metadata":{},"buffers":[]}',
    '"]}',
    '["',
    ',"metadata":{},"buffers":["AAAA"]}',
    ',"metadata":',
)

leaves = st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(TRAPS)
values = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from(MARKS), inner, max_size=3) | st.lists(inner, max_size=2)
)
objects = st.dictionaries(st.sampled_from(MARKS), values, max_size=3)
documents = st.builds(
    lambda value, separators: json.dumps(value, separators=separators).encode(),
    objects,
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
headers = st.builds(
    lambda more: json.dumps({**more, "msg_id": "m", "msg_type": "t"}, separators=(",", ":")).encode(), objects
)
messages = st.builds(
    Parts,
    st.sampled_from(["iopub", "shell"]),
    headers,
    documents,
    st.just(b"{}") | documents,
    documents,
    st.lists(st.binary(max_size=7), max_size=3).map(tuple),
)


def envelope(parts: Parts) -> bytes:
    """Return a message as the journal has it."""
    given_parts = MessageParts(parts.header, parts.parent_header, parts.metadata, parts.content, tuple(parts.buffers))
    return KernelReader(parts.channel, SIGNER).read(join(given_parts, SIGNER)).payload


@given(st.lists(messages, min_size=1, max_size=3))
def test_what_is_read_is_what_was_put_in(some: list[Parts]) -> None:
    """Whatever names and texts it has in it. What is not read is left to those who read it as JSON."""
    reader = EnvelopeReader()
    for parts in some:
        payload = envelope(parts)
        plain = reader.read_plain(payload)
        read = reader.read(payload)

        assert read in (parts, None)
        if plain is not None:
            assert plain == (parts.header, parts.content)
            assert (parts.metadata, parts.buffers) == (b"{}", ())


@pytest.mark.parametrize("buffers", [(), (b"",), (b"a" * 1000, b"", b"\xff")])
@pytest.mark.parametrize("metadata", [b"{}", b'{"a": 1}'])
@pytest.mark.parametrize("parent", [b'{"msg_id": "q"}', b"{}"])
def test_usual_messages_are_read(parent: bytes, metadata: bytes, buffers: tuple[bytes, ...]) -> None:
    """With and without metadata, buffers and a parent."""
    parts = Parts("iopub", HEADER, parent, metadata, b'{"name": "stdout", "text": "x"}', buffers)

    assert EnvelopeReader().read(envelope(parts)) == parts


def test_message_like_the_one_before_is_read_at_once() -> None:
    """It has its channel and its parent; after another's parent it is not, until one with that was read."""
    reader = EnvelopeReader()
    one, other = (Parts("iopub", HEADER, parent, b"{}", b'{"x": 1}') for parent in (b'{"msg_id": "a"}', b"{}"))
    before = reader.read_plain(envelope(one))
    reader.read(envelope(one))
    same, another = reader.read_plain(envelope(one)), reader.read_plain(envelope(other))

    assert (before, same, another) == (None, (HEADER, b'{"x": 1}'), None)
    assert (reader.channel, reader.parent) == ("iopub", b'{"msg_id": "a"}')


@pytest.mark.parametrize("more", [b'{"a": 1}', b"{}"])
@pytest.mark.parametrize("buffers", [(), (b"x",)])
def test_message_with_metadata_or_buffers_is_not_plain(more: bytes, buffers: tuple[bytes, ...]) -> None:
    """Only what has neither is."""
    reader = EnvelopeReader()
    payload = envelope(Parts("iopub", HEADER, b"{}", more, b"{}", buffers))
    reader.read(payload)

    assert (reader.read_plain(payload) is not None) == (more == b"{}" and not buffers)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b'{"kind":"kernel","status":{"status":"idle"}}',
        envelope(Parts("iopub", b'{"msg_type":"t","msg_id":"%b"}' % (b"m" * LONGEST_HEADER), b"{}", b"{}", b"{}")),
        envelope(Parts("iopub", b'{"msg_type":"t","msg_id":"m","x":{"y":1%b{}}}' % BETWEEN, b"{}", b"{}", b"{}")),
        *(
            b'{"kind":"jupyter","header":{}%b{},"metadata":{},%b' % (BETWEEN, end)
            for end in (
                b'"buffers":["AA',
                b'"buffers":["AAAABBB',
                b'"other":["AAAA"]}',
                b'"buffets":["AAAA"]}',
                b'"buffers":["A"]}',
                b'"buffers":["AA*AA"]}',
            )
        ),
    ],
    ids=[
        *("nothing", "news", "long header", "header like an envelope", "cut off", "cut off in a buffer"),
        *("other member", "other member as long", "no base64", "base64 with a letter of others in it"),
    ],
)
def test_what_is_no_such_envelope_is_left(payload: bytes) -> None:
    """Nothing is returned, and the next one is read."""
    reader, usual = EnvelopeReader(), Parts("iopub", HEADER, b"{}", b"{}", b"{}")
    reader.read(envelope(usual))

    assert (reader.read_plain(payload), reader.read(payload)) == (None, None)
    assert reader.read(envelope(usual)) == usual


def test_channel_is_empty_where_none_was_read() -> None:
    """Before the first message, and after one that has to be read as JSON."""
    reader, usual = EnvelopeReader(), Parts("iopub", HEADER, b'{"msg_id": "q"}', b"{}", b"{}")
    before = reader.channel, reader.parent
    reader.read(envelope(usual))
    read = reader.channel, reader.parent
    reader.read(b'{"kind":"jupyter","header":{}}')

    assert (("", b""), ("iopub", b'{"msg_id": "q"}'), "") == (before, read, reader.channel)


@pytest.mark.parametrize("size", [LARGE - 3, LARGE - 2, 2 * LARGE])
def test_large_content_is_not_copied(size: int) -> None:
    """It is a view of the envelope, with the same bytes."""
    parts = Parts("iopub", HEADER, b"{}", b"{}", b'"%s"' % (b"a" * size))
    payload = envelope(parts)

    read = EnvelopeReader().read(payload)

    assert read is not None
    assert (read.content, isinstance(read.content, memoryview)) == (parts.content, size + 2 >= LARGE)


@pytest.mark.parametrize("size", [0, 1 << 14, 1 << 15])
@pytest.mark.parametrize("member", ["content", "metadata"])
def test_buffer_is_found_behind_whatever_it_belongs_to(size: int, member: str) -> None:
    """Also where that is long, or has what looks like a buffer in it."""
    document = json.dumps({"metadata": {}, "x": "a" * size, "buffers": ["AAAA"]}, separators=(",", ":")).encode()
    parts = Parts("iopub", HEADER, b"{}", b'{"a":1}', b'{"b":2}', (b"c" * 9,))
    parts = replace(parts, **{member: document})

    assert EnvelopeReader().read(envelope(parts)) == parts


def test_header_that_looks_like_an_envelope_is_not_cut() -> None:
    """What would be cut in its middle is no JSON, and is left to those who read it whole."""
    reader = EnvelopeReader()
    usual = Parts("iopub", HEADER, b"{}", b"{}", b"{}")
    header = b'{"msg_id":"m","msg_type":"t","a":{"b":1%b{}}}' % BETWEEN
    first = reader.read(envelope(usual))
    payload = envelope(replace(usual, header=header))

    assert (first, reader.read_plain(payload)) == (usual, None)


@given(messages)
def test_known_buffers_are_not_decoded(parts: Parts) -> None:
    """They are what would be, and the message is the same."""
    payload = envelope(parts)
    alone, read = EnvelopeReader().read(payload), EnvelopeReader().read(payload, parts.buffers)

    assert read == alone
    assert not parts.buffers or read is None or read.buffers is parts.buffers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_known_buffers_are_found(count: int) -> None:
    """Of whatever sizes: base64 fills up with signs, and something stands between two of them."""
    buffers = tuple(b"a" * number for number in range(1, count + 1))
    read = EnvelopeReader().read(envelope(Parts("iopub", HEADER, b"{}", b"{}", b"{}", buffers)), buffers)

    assert read is not None
    assert read.buffers is buffers


@pytest.mark.parametrize("known", [(b"abcd",), (b"",), (b"a", b"b")])
def test_buffers_of_another_message_are_refused(known: tuple[bytes, ...]) -> None:
    """Those of the same sizes in base64 cannot be told from its own."""
    payload = envelope(Parts("iopub", HEADER, b"{}", b"{}", b"{}", (b"abc",)))

    assert EnvelopeReader().read(payload, known) is None
