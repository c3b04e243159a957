"""Envelopes: clients get a kernel's JSON byte for byte, repaired where a strict reader would refuse it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.wire.envelope import (
    LARGE,
    EnvelopeError,
    Excerpt,
    Header,
    KernelMessage,
    KernelReader,
    decode,
    decode_header,
    encode,
    excerpt_of,
)
from kallichore.wire.frames import FramesError, MessageParts, join
from kallichore.wire.signing import Signer

SIGNER = Signer("key")
HEADER = b'{"msg_id":"1","msg_type":"stream","session":"s","unknown":[1]}'
PARENT = b'{"msg_id":"0","msg_type":"execute_request"}'

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
rough_scalars = st.floats() | st.text(st.characters(codec=None, categories=("L", "Cs")), max_size=4)
rough_values = st.recursive(
    rough_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def parts_with(content: bytes = b"{}", **others: Any) -> MessageParts:
    """Return a kernel's message with this content."""
    return MessageParts(HEADER, PARENT, b"{}", content, [])._replace(**others)


def from_kernel(channel: str, parts: MessageParts) -> KernelMessage:
    """Return what is read of one message."""
    return KernelReader(channel, SIGNER).read(join(parts, SIGNER))


def read_strictly(document: bytes) -> Any:
    """Return what strict JSON says; what is not strict fails the test."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {document!r}")

    return json.loads(document.decode(), parse_constant=refuse)


@given(
    values,
    values,
    st.lists(st.binary(max_size=20), max_size=3),
    st.sampled_from(["shell", "iopub", "stdin", "control"]),
)
def test_message_arrives_as_it_was_sent(content: Any, metadata: Any, buffers: list[bytes], channel: str) -> None:
    """Any JSON content and metadata, and any buffers, reach the client under the names of the API."""
    message = from_kernel(channel, MessageParts(HEADER, PARENT, encode(metadata), encode(content), buffers))
    envelope = read_strictly(message.payload)

    assert [b64decode(buffer) for buffer in envelope.pop("buffers")] == buffers
    assert envelope == {
        "kind": "jupyter",
        "header": json.loads(HEADER),
        "parent_header": json.loads(PARENT),
        "channel": channel,
        "content": content,
        "metadata": metadata,
    }


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1])
def test_large_message_is_read_as_a_small_one(size: int) -> None:
    """Also what has to be repaired, and the buffers; and the next message is read as ever."""
    reader, beginning, end = KernelReader("iopub", SIGNER), b'{"text":"', b'\\ud800"}'
    content = beginning + b"x" * (size - len(beginning) - len(end)) + end
    large = reader.read(join(parts_with(content, buffers=[b"12"]), SIGNER))
    small = reader.read(join(parts_with(), SIGNER))

    assert len(content) == size
    assert large.header.msg_type == "stream"
    assert large.parent == small.parent
    assert large.buffers == [b"12"]
    text = read_strictly(large.payload)["content"]["text"]
    assert text == "x" * (len(text) - 1) + "\ufffd"
    assert read_strictly(small.payload)["content"] == {}


def test_only_large_messages_are_hashed_meanwhile() -> None:
    """Below that size, to begin something costs more than it spares."""
    begun = []

    def begin(work: Callable[[], bytes]) -> Callable[[], bytes]:
        begun.append(work)
        return work

    reader = KernelReader("iopub", SIGNER, begin)
    for size in (10, LARGE - 100, LARGE):
        reader.read(join(parts_with(b'{"text":"%s"}' % (b"x" * size)), SIGNER))

    assert len(begun) == 1


@pytest.mark.parametrize("content", [b'{"text":"%s"}' % (b"x" * LARGE), b"x" * LARGE], ids=["JSON", "none"])
def test_large_message_of_a_stranger_is_refused(content: bytes) -> None:
    """That somebody else signed it is what is said of it, whatever else is wrong with it."""
    with pytest.raises(FramesError, match="signature"):
        KernelReader("iopub", SIGNER).read(join(parts_with(content), Signer("other")))


def test_large_message_that_is_no_json_is_refused() -> None:
    """As a small one is."""
    with pytest.raises(EnvelopeError):
        from_kernel("iopub", parts_with(b"x" * LARGE))


def test_session_is_told_what_it_looks_at() -> None:
    """The message names its channel, both headers' ids and types, and its content beside the client's bytes."""
    message = from_kernel("iopub", parts_with(b'{"name":"stdout"}'))

    assert message.channel == "iopub"
    assert (message.header, message.parent) == (Header("1", "stream"), Header("0", "execute_request"))
    assert message.content == b'{"name":"stdout"}'


@pytest.mark.parametrize(
    "document",
    [
        b'{"b" : 1,\n "a": [1.0, 1E5, -0, 123456789012345678901234567890, 1e999]}',
        b'{"same":1,"same":2}',
        b'"\\u00fc\\/\\ud83d\\ude00\\n"',
        '"ü\u2028😀"'.encode(),
        b'"\\\\ud800 is no escape"',
    ],
)
def test_good_json_is_passed_on_byte_for_byte(document: bytes) -> None:
    """White space, order, doubled names, long numbers and escapes stay as the kernel wrote them."""
    message = from_kernel("shell", parts_with(document, metadata=document))

    assert message.content == document
    assert b'"content":' + document + b',"metadata":' + document + b',"buffers":[]}' in message.payload


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b'{"a":NaN}', {"a": None}),
        (b"[Infinity,-Infinity,1.5]", [None, None, 1.5]),
        (b"[NaN,1e999,-1e999]", [None, None, None]),
        (b"[NaN," + b"1" * 5000 + b"]", [None, None]),
        (b'["\\ud83d\\ude00",1e999]', ["😀", None]),
        (b'["\\ud83d\\ude00",12345678901234567890123]', ["😀", 12345678901234567890123]),
        (b'"\\ud800"', "\ufffd"),
        (b'"a\\uDC00b\\uD83D\\uDE00"', "a\ufffdb😀"),
        (b'{"\\udfff":"name"}', {"\ufffd": "name"}),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    ],
)
@pytest.mark.parametrize("member", ["content", "metadata"])
def test_what_strict_readers_refuse_is_repaired(sent: bytes, received: Any, member: str) -> None:
    """Numbers that are none become null, half surrogate pairs and bad UTF-8 become U+FFFD, and the rest is kept."""
    message = from_kernel("iopub", parts_with(**{member: sent}))

    assert read_strictly(message.payload)[member] == received


def test_repair_of_content_leaves_the_rest_alone() -> None:
    """Metadata stays as it came, byte for byte, when the content beside it is repaired."""
    message = from_kernel("iopub", parts_with(b"NaN", metadata=b'{"a" : 1.0}'))

    assert b'"content":null,"metadata":{"a" : 1.0},' in message.payload


def test_bad_utf8_in_a_header_is_repaired() -> None:
    """A user name that is not UTF-8 does not cost the message."""
    header = b'{"msg_id":"1","msg_type":"stream","username":"Ren\xe9"}'
    message = from_kernel("iopub", parts_with(header=header))

    assert read_strictly(message.payload)["header"]["username"] == "Ren\ufffd"


@given(rough_values)
def test_whatever_python_calls_json_becomes_strict(content: Any) -> None:
    """What Python's json module writes, with NaN and lone surrogates, reaches clients as strict JSON."""
    message = from_kernel("iopub", parts_with(json.dumps(content).encode()))

    assert read_strictly(message.payload)["content"] == read_strictly(message.content)


@pytest.mark.parametrize("absent", [b"", b"{}", b"null", b" {} "])
def test_absent_parent_header_is_null(absent: bytes) -> None:
    """A message without a parent shows null, whichever way the kernel says so."""
    message = from_kernel("iopub", parts_with(parent_header=absent))

    assert message.parent is None
    assert read_strictly(message.payload)["parent_header"] is None


parents = st.sampled_from([b"", b"{}", b"null", PARENT, b'{"msg_id":"\\u00e4","msg_type":"t"}'])


identities = st.lists(st.binary(max_size=3), max_size=2)
runs = st.lists(st.tuples(identities, parents, values, st.lists(st.binary(max_size=5), max_size=1)), max_size=6)


@given(runs)
def test_messages_of_a_run_are_each_as_if_alone(run: list[tuple[list[bytes], bytes, Any, list[bytes]]]) -> None:
    """What a reader remembers of one message changes nothing of the next, whatever is in front of them."""
    reader = KernelReader("shell", SIGNER)
    parts = [MessageParts(HEADER, parent, b"{}", encode(content), buffers) for _, parent, content, buffers in run]
    came = [[*first, *join(each, SIGNER)] for (first, *_), each in zip(run, parts, strict=True)]

    assert [from_kernel("shell", each) for each in parts] == [reader.read(frames) for frames in came]


@pytest.mark.parametrize(
    ("content", "excerpt"),
    [
        (b'{"execution_state":"busy"}', Excerpt(execution_state="busy")),
        (b'{"payload":[],"status":"error","ename":"E"}', Excerpt(status="error")),
        (b'{"status":7}', Excerpt()),
        (b'{"status":"\\ud800","execution_state":"idle"}', Excerpt(status="\ufffd", execution_state="idle")),
        (b'{"execution_state":null}', Excerpt()),
        (b"[]", Excerpt()),
    ],
)
def test_status_is_told_where_a_content_has_one(content: bytes, excerpt: Excerpt) -> None:
    """A content of another shape is passed on all the same."""
    message = from_kernel("iopub", parts_with(content))

    assert (message.excerpt, excerpt_of(message.content)) == (excerpt, excerpt)


@pytest.mark.parametrize("member", ["header", "parent_header", "metadata", "content"])
@pytest.mark.parametrize("document", [b'{"a":}', b"[1,,]", b'"open', b'{"a":1} x', b"[" * 100_000])
def test_part_beyond_repair_is_refused(document: bytes, member: str) -> None:
    """What is no JSON at all in any of the parts is refused."""
    with pytest.raises(EnvelopeError):
        from_kernel("iopub", parts_with(**{member: document}))


DEEP = b'{"data":%s}' % (b"[" * 5000 + b"]" * 5000)


@pytest.mark.parametrize("member", ["metadata", "content"])
def test_part_that_is_too_deep_to_be_read_passes_as_it_is(member: str) -> None:
    """A widget's state or a syntax tree may be nested thousands of levels deep, and is still JSON."""
    message = from_kernel("iopub", parts_with(**{member: DEEP}))

    assert b'"%s":%s' % (member.encode(), DEEP) in message.payload


@pytest.mark.parametrize(
    ("document", "header"),
    [
        (b'{"msg_id":"1","msg_type":"t","other":[1]}', Header("1", "t")),
        (b'{"msg_id":7,"msg_type":"t"}', Header("7", "t")),
        (b'{"msg_id":null,"msg_type":null}', Header("null", "")),
        (b'{"msg_id":"\xff","msg_type":"t"}', Header("\ufffd", "t")),
        (b'{"msg_id":"1","msg_type":"t","subshell_id":"s"}', Header("1", "t", "s")),
    ],
)
def test_header_is_read_as_leniently_as_by_jupyter_client(document: bytes, header: Header) -> None:
    """It needs the members msg_id and msg_type, whatever they are."""
    assert decode_header(document) == header


@pytest.mark.parametrize("document", [b"[]", b'{"msg_id":"1"}', b'{"msg_type":"t"}', b"7"])
def test_header_that_lacks_something_is_refused_by_name(document: bytes) -> None:
    """What is no object, or has no msg_id or no msg_type, is no header."""
    with pytest.raises(EnvelopeError, match=r"the header (has no msg_|is no JSON object)"):
        decode_header(document)


@pytest.mark.parametrize(
    ("document", "parent"),
    [
        (b'{"msg_id":"1"}', Header("1", "")),
        (b'{"msg_id":"1","msg_type":null}', Header("1", "")),
        (b'{"msg_id":1,"msg_type":"t"}', Header("1", "t")),
        (b'{"session":"s"}', None),
        (b'{"msg_id":null,"msg_type":"t"}', None),
        (b'["a", "list"]', None),
    ],
)
def test_parent_may_be_a_part_of_a_header(document: bytes, parent: Header | None) -> None:
    """Kernels answer with an id alone, or with something that says nothing; it goes to the client as it came."""
    message = from_kernel("iopub", parts_with(parent_header=document))

    assert (message.parent, b'"parent_header":%s,' % document in message.payload) == (parent, True)


@given(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=30), st.booleans())
def test_garbage_is_refused_or_repaired(content: bytes, metadata: bytes, other: bytes, is_header: bool) -> None:
    """Whatever the parts are, clients get strict JSON or the message is refused with the one error."""
    header, parent = (other, b"{}") if is_header else (HEADER, other)
    try:
        message = from_kernel("iopub", MessageParts(header, parent, metadata, content, []))
    except EnvelopeError:
        return

    assert read_strictly(message.payload)["kind"] == "jupyter"


@given(rough_values)
def test_everything_encodes_to_strict_json(value: Any) -> None:
    """What Python values have and JSON has not is replaced on the way out, also both in one document."""
    document = read_strictly(encode(value))

    assert document == decode(encode(value))


def test_encoding_is_compact_and_replaces_what_json_has_not() -> None:
    """NaN becomes null and an undecodable byte of a file name U+FFFD."""
    assert (
        encode({"cwd": "/tmp/\udcff", "load": [float("nan"), 1.5]})
        == '{"cwd":"/tmp/\ufffd","load":[null,1.5]}'.encode()
    )


@pytest.mark.parametrize(
    ("document", "value"),
    [(b'{"a":1e999}', {"a": None}), (b"1" * 5000, None), (b'"\xff"', "\ufffd"), (b"[1.5]", [1.5])],
)
def test_checked_document_can_always_be_read(document: bytes, value: Any) -> None:
    """Numbers that Python has no room for are read as None, so that a report can be made of any message."""
    assert decode(document) == value
