"""The frames of Jupyter's kernel WebSocket: what is written is read again, what is no message is refused in words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from kallichore.wire.jupyter_frames import (
    CHANNELS,
    MOST_PARTS,
    V1,
    JupyterFrameError,
    Parts,
    read_default,
    read_v1,
    write_default,
    write_v1,
)

HEADER = b'{"msg_id":"m1","msg_type":"comm_msg"}'
BUFFERS = (bytes.fromhex("deadbeef"), b"\1")
PARTS = Parts("shell", HEADER, b"{}", b"{}", b'{"comm_id":"c"}', BUFFERS)

DEFAULT_EXAMPLE = (
    bytes.fromhex("00000003 00000010 0000008d 00000091")
    + b'{"header":{"msg_id":"m1","msg_type":"comm_msg"},"parent_header":{},"metadata":{},"content":{"comm_id":"c"}'
    + b',"channel":"shell"}'
    + bytes.fromhex("deadbeef 01")
)
"""The one in the description of the default framing."""

V1_EXAMPLE = (
    bytes.fromhex("0800000000000000 4800000000000000 4d00000000000000 7200000000000000 7400000000000000")
    + bytes.fromhex("7600000000000000 8500000000000000 8900000000000000 8a00000000000000")
    + b'shell{"msg_id":"m1","msg_type":"comm_msg"}{}{}{"comm_id":"c"}'
    + bytes.fromhex("deadbeef 01")
)
"""The one in the description of the subprotocol."""

DEEP = b"[" * 2000 + b"]" * 2000

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
objects = st.dictionaries(st.text(max_size=8), values | st.lists(values, max_size=2), max_size=3)
documents = st.builds(
    lambda value, is_ascii, indent: json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode(),
    objects,
    st.booleans(),
    st.sampled_from([None, 1]),
)
headers = st.builds(
    lambda more, msg_id, msg_type: json.dumps({**more, "msg_id": msg_id, "msg_type": msg_type}).encode(),
    objects,
    st.text(),
    st.text(),
)
buffers = st.lists(st.binary(max_size=40) | st.integers(0, 70_000).map(bytes), max_size=4).map(tuple)
messages = st.builds(Parts, st.sampled_from(CHANNELS), headers, documents, documents, documents, buffers)


def default_frame(parts: Parts) -> str | bytes:
    """Return what a message is on the way: text without buffers, else binary."""
    payload = b"".join(write_default(parts))
    return payload if parts.buffers else payload.decode()


def v1_frame(parts: Parts) -> bytes:
    """Return what a message is on the way."""
    return b"".join(write_v1(parts))


@given(messages)
def test_message_of_the_subprotocol_comes_apart_as_it_was(message: Parts) -> None:
    """Whatever its documents and buffers, byte for byte, however they are spelled."""
    assert message == read_v1(v1_frame(message))


@given(messages)
def test_message_of_the_default_framing_comes_apart_as_it_was(message: Parts) -> None:
    """Its documents keep their spelling, although they stand in another one."""
    assert message == read_default(default_frame(message))


@given(st.builds(Parts, st.text(min_size=1), headers, documents, documents, documents, buffers))
def test_channel_may_have_any_name(message: Parts) -> None:
    """Names are read in either framing; which of them there are is not the framing's business."""
    assert message.channel == read_v1(v1_frame(message)).channel
    assert message.channel == read_default(default_frame(message)).channel


def test_example_of_the_subprotocol_is_written_and_read_byte_for_byte() -> None:
    """The example that was checked with a server's reader and with a browser's."""
    assert V1 == "v1.kernel.websocket.jupyter.org"
    assert v1_frame(PARTS) == V1_EXAMPLE
    assert read_v1(V1_EXAMPLE) == PARTS


def test_example_of_the_default_framing_is_read_byte_for_byte() -> None:
    """The example that was checked with a server's reader and with a browser's."""
    assert len(DEFAULT_EXAMPLE) == 0x92
    assert read_default(DEFAULT_EXAMPLE) == PARTS


def test_binary_frame_of_the_default_framing_begins_as_in_the_example() -> None:
    """Its number of parts, their big-endian offsets, the document without its buffers, the buffers."""
    frame = b"".join(write_default(PARTS))
    count, first, *others = struct.unpack_from(">4I", frame)
    document = json.loads(frame[first : others[0]])

    assert (count, first) == (3, 16)
    assert [frame[others[0] : others[1]], frame[others[1] :]] == list(BUFFERS)
    assert "buffers" not in document
    assert document["content"] == {"comm_id": "c"}


@given(messages)
def test_default_framing_is_binary_only_for_buffers(message: Parts) -> None:
    """Browsers refuse a binary frame without a buffer, so what has none is one JSON object, which says so."""
    pieces = write_default(msgspec.structs.replace(message, buffers=()))

    assert len(pieces) == 1
    assert json.loads(pieces[0])["buffers"] == []


@given(messages)
def test_ids_stand_beside_the_header_as_well(message: Parts) -> None:
    """Clients in Python read the copies of msg_id and msg_type, browsers the header."""
    (document,) = write_default(msgspec.structs.replace(message, buffers=()))
    read, header = json.loads(document), json.loads(message.header)

    assert read["header"] == header
    assert (read["msg_id"], read["msg_type"]) == (header["msg_id"], header["msg_type"])
    assert read["channel"] == message.channel


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"{}", ["", ""]),
        (b'{"msg_id":1,"msg_type":null}', [1, None]),
        (b'{"msg_id":"m"}', ["m", ""]),
        (b'{"msg_id":"\\ud800","msg_type":"status"}', ["", ""]),
        (b'{"msg_type":"status","msg_id":"m","date":"2026-11-23"}', ["m", "status"]),
    ],
)
def test_header_without_ids_is_written_all_the_same(header: bytes, expected: list[object]) -> None:
    """The copies are what the header has; where it has none, or none that can be read, they are empty."""
    (document,) = write_default(Parts("iopub", header, b"{}", b"{}", b"{}"))
    read = json.loads(document)

    assert [read["msg_id"], read["msg_type"]] == expected


FROM_GATEWAY_CLIENT = (
    '{"header":{"msg_id":"m","date":1795415792.558397},"msg_id":"m","msg_type":"t","parent_header":{},'
    '"content":{"code":"1"},"metadata":{}}'
)
"""jupyter_client's, for gateways: no channel, no buffers, the date a number, the ids beside the header."""

FROM_KERNEL_CLIENT = (
    '{"header":{"date":"2026-11-23 06:39:22.405165+00:00"},"parent_header":{},"content":{},"metadata":{"a":1},'
    '"channel":"control","buffers":[]}'
)
"""jupyter_kernel_client's: a blank in the date, an empty list of buffers."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            FROM_GATEWAY_CLIENT,
            Parts("shell", b'{"msg_id":"m","date":1795415792.558397}', b"{}", b"{}", b'{"code":"1"}'),
        ),
        (
            FROM_KERNEL_CLIENT,
            Parts("control", b'{"date":"2026-11-23 06:39:22.405165+00:00"}', b"{}", b'{"a":1}', b"{}"),
        ),
        (
            '{"header":{},"parent_header":null,"channel":null}',
            Parts("shell", b"{}", b"{}", b"{}", b"{}"),
        ),
        ('{"header":{},"channel":""}', Parts("shell", b"{}", b"{}", b"{}", b"{}")),
        ('{"header":{},"channel":"stdin","buffers":null}', Parts("stdin", b"{}", b"{}", b"{}", b"{}")),
        (
            ' {"unknown":[1,{}],\n"header" : {"msg_id" : "m"} , "channel":"shell" } ',
            Parts("shell", b'{"msg_id" : "m"}', b"{}", b"{}", b"{}"),
        ),
        ('{"header":{"a":"ä€😀"}}', Parts("shell", '{"a":"ä€😀"}'.encode(), b"{}", b"{}", b"{}")),
    ],
)
def test_what_clients_really_send_is_read(text: str, expected: Parts) -> None:
    """What is missing or null is the shell, no parent, no metadata, no content and no buffers."""
    assert expected == read_default(text)


@pytest.mark.parametrize("rest", [b"", b"buffer"])
def test_binary_frame_of_the_default_framing_may_have_any_number_of_buffers(rest: bytes) -> None:
    """One without a buffer is a message too, when it comes from a client."""
    document = b'{"header":{}}'
    offsets = [4 * 3, 4 * 3 + len(document)] if rest else [4 * 2]
    frame = struct.pack(f">{len(offsets) + 1}I", len(offsets), *offsets) + document + rest

    assert read_default(frame).buffers == ((rest,) if rest else ())


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "no such JSON"),
        ("nonsense", "no such JSON"),
        ("{}", "header"),
        ("[]", "no such JSON"),
        ("null", "no such JSON"),
        ('{"header":{}', "no such JSON"),
        ('{"header":{}} {}', "no such JSON"),
        ('{"header":{},"channel":5}', "no such JSON"),
        ('{"header":{},"content":{"x":NaN}}', "no such JSON"),
        (b"", "0 bytes"),
        (b"\0\0\0", "3 bytes"),
        (bytes(4), "0 offsets"),
        (struct.pack(">2I", 1, 0), r"offsets are \[0\]; they must ascend from 8 to 8"),
        (struct.pack(">2I", 1, 7), "must ascend"),
        (struct.pack(">2I", 1, 9), "must ascend"),
        (struct.pack(">2I", 1, 8), "no such JSON"),
        (struct.pack(">3I", 2, 14, 12) + b"{}", "must ascend"),
        (struct.pack(">2I", 2, 12), "ends before the last"),
        (struct.pack(">2I", 0xFFFFFFFF, 8), "4294967295 offsets"),
        (struct.pack(">I", MOST_PARTS), "ends before the last"),
        (struct.pack(">I", MOST_PARTS + 1), f"{MOST_PARTS + 1} offsets"),
        (struct.pack(">2I", 1, 8) + b"\xff\xfe", "no such JSON"),
    ],
)
def test_error_says_what_is_wrong_with_a_default_frame(frame: str | bytes, reason: str) -> None:
    """What is no message is refused with the reason."""
    with pytest.raises(JupyterFrameError, match=reason):
        read_default(frame)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "0 bytes"),
        (bytes(7), "7 bytes"),
        (bytes(8), "0 offsets"),
        (struct.pack("<7Q", 5, 48, 48, 48, 48, 48, 48), "5 offsets; there are at least 6"),
        (struct.pack("<6Q", 6, *[56] * 5), "ends before the last"),
        (struct.pack("<7Q", 6, *[55] * 6), r"must ascend from 56 to 56"),
        (struct.pack("<7Q", 6, 56, 56, 56, 57, 56, 56) + b"x", "must ascend"),
        (struct.pack("<7Q", 6, *[57] * 6), "must ascend"),
        (struct.pack("<7Q", 6, *[56] * 6) + b"more", "the last offset is 56, but the frame has 60 bytes"),
        (struct.pack("<7Q", 6, *[56] * 5, 1 << 63), "must ascend"),
        (b"\xff" * 64, f"{(1 << 64) - 1} offsets"),
        (struct.pack("<Q", MOST_PARTS + 1), f"{MOST_PARTS + 1} offsets"),
        (DEFAULT_EXAMPLE, "offsets"),
    ],
)
def test_error_says_what_is_wrong_with_a_frame_of_the_subprotocol(frame: bytes, reason: str) -> None:
    """What is no message is refused with the reason."""
    with pytest.raises(JupyterFrameError, match=reason):
        read_v1(frame)


@pytest.mark.parametrize("first", [72, 80])
def test_offsets_may_leave_room_before_the_first_part(first: int) -> None:
    """Only what is between two offsets counts."""
    gap = first - 72
    offsets = [offset + gap for offset in struct.unpack_from("<8Q", V1_EXAMPLE, 8)]
    frame = struct.pack("<9Q", 8, *offsets) + bytes(gap) + V1_EXAMPLE[72:]

    assert read_v1(frame) == PARTS


@pytest.mark.parametrize(("frame", "read"), [(DEFAULT_EXAMPLE, read_default), (V1_EXAMPLE, read_v1)])
def test_frame_that_is_cut_within_its_documents_is_refused(frame: bytes, read: Callable[[bytes], Parts]) -> None:
    """Wherever that is, its offsets lead beyond its end; only the last buffer has no offset behind it."""
    for length in range(len(frame) - len(BUFFERS[-1])):
        with pytest.raises(JupyterFrameError):
            read(frame[:length])


def read_or_refuse(read: Callable[[Any], Parts], frame: str | bytes) -> Parts | None:
    """Return the message, None for what is refused; any other error is the test's."""
    try:
        return read(frame)
    except JupyterFrameError:
        return None


readers = st.sampled_from([read_default, read_v1])


@given(readers, st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(read: Callable[[bytes], Parts], frame: bytes) -> None:
    """There is one error, and no other."""
    read_or_refuse(read, frame)


@given(st.text(st.characters(exclude_categories=())), st.sampled_from(["%s", '{"header":%s}', '{"header":{"a":"%s"}}']))
def test_any_text_is_a_message_or_refused(text: str, around: str) -> None:
    """There is one error, and no other; text may have halves of surrogate pairs in it."""
    read_or_refuse(read_default, around % text)


numbers = st.integers(0, 12) | st.integers(0, 0xFFFFFFFF)


@given(st.lists(numbers, min_size=1, max_size=12), st.binary(max_size=40), st.booleans())
def test_any_offsets_are_a_message_or_refused(offsets: list[int], rest: bytes, is_v1: bool) -> None:
    """Offsets that go back, or out of the frame, or into themselves, read nothing that is not the frame's."""
    number = "<{}Q" if is_v1 else ">{}I"
    begin = (8 if is_v1 else 4) * (len(offsets) + 1)
    near = [begin + offset if offset <= 12 else offset for offset in offsets]
    frame = struct.pack(number.format(len(near) + 1), len(near), *near) + rest
    message = read_or_refuse(read_v1 if is_v1 else read_default, frame)

    if message is not None:
        assert near == sorted(near)
        assert begin <= near[0]
        assert near[-1] <= len(frame)


@given(messages, readers, st.data())
def test_frame_that_was_changed_on_the_way_is_a_message_or_refused(
    message: Parts, read: Callable[[bytes], Parts], data: st.DataObject
) -> None:
    """Whichever byte is another, and wherever the frame is cut or goes on."""
    frame = bytearray(v1_frame(message) if read is read_v1 else b"".join(write_default(message)))
    for _ in range(data.draw(st.integers(1, 3))):
        # The numbers are at the beginning, and are what is most worth changing.
        place = data.draw(st.integers(0, min(100, len(frame) - 1)) | st.integers(0, len(frame) - 1))
        frame[place] = data.draw(st.integers(0, 255))
    length = data.draw(st.just(len(frame)) | st.integers(0, len(frame)))

    read_or_refuse(read, bytes(frame[:length]) + data.draw(st.binary(max_size=8)))


def test_most_parts_are_read() -> None:
    """A message may have tens of thousands of buffers, if empty ones."""
    count = MOST_PARTS - 6
    message = msgspec.structs.replace(PARTS, buffers=(b"",) * count)

    assert len(read_v1(v1_frame(message)).buffers) == count
    assert len(read_default(b"".join(write_default(message))).buffers) == count


class Sized(bytes):
    """A buffer that says to be of a size that nobody has the memory for."""

    size = 0

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("beyond", [-1, 0])
def test_offsets_of_the_default_framing_have_32_bits(beyond: int) -> None:
    """A buffer may begin up to there; where one begins later, the message cannot be written."""
    head = write_default(msgspec.structs.replace(PARTS, buffers=(b"", b"")))
    large = Sized()
    large.size = (1 << 32) - sum(map(len, head)) + beyond
    message = msgspec.structs.replace(PARTS, buffers=(large, b"end"))
    if beyond < 0:
        assert struct.pack(">I", (1 << 32) - 1) == write_default(message)[0][-4:]
    else:
        with pytest.raises(JupyterFrameError, match="more than 4 GiB"):
            write_default(message)


def test_channel_that_is_no_utf8_is_a_name_all_the_same() -> None:
    """It is none of ours, and the message is refused by that name."""
    frame = v1_frame(msgspec.structs.replace(PARTS, channel="x")).replace(b"x", b"\xff", 1)

    assert "\ufffd" == read_v1(frame).channel


@pytest.mark.parametrize("text", ['{"header":{"a":"\ud800"}}', '{"header":{"a":"\udcff"},"channel":"shell"}'])
def test_half_of_a_surrogate_pair_in_text_is_replaced(text: str) -> None:
    """Text that has no UTF-8 is a message all the same."""
    assert read_default(text).header == b'{"a":"?"}'


@pytest.mark.parametrize("member", ["parent_header", "metadata", "content"])
def test_deep_document_passes_in_both_directions(member: str) -> None:
    """What is nested deeper than readers go travels as bytes."""
    message = msgspec.structs.replace(PARTS, channel="control", **{member: b'{"a":%s}' % DEEP})

    assert read_v1(v1_frame(message)) == message
    assert read_default(default_frame(message)) == message


def test_deep_document_in_text_passes() -> None:
    """With and without a channel, and with members that nobody knows; a parent that is null is none."""
    text = '{"header":{"msg_id":"m"},"parent_header":null,"\\u00e9":1,"content":%s%s}'
    message = Parts("shell", b'{"msg_id":"m"}', b"{}", b"{}", DEEP)

    assert read_default(text % (DEEP.decode(), "")) == message
    assert read_default(text % (DEEP.decode(), ',"channel":null')) == message
    assert read_default(text % (DEEP.decode(), ',"channel":"stdin"')) == msgspec.structs.replace(
        message, channel="stdin"
    )


def test_deep_document_does_not_hide_the_ids() -> None:
    """The copies beside the header are there whatever the content."""
    (document,) = write_default(Parts("iopub", HEADER, b"{}", b"{}", DEEP))

    assert document.startswith(b'{"msg_id":"m1","msg_type":"comm_msg","channel":"iopub"')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"content":%s}', "has no header"),
        ('{"header":{},"content":%s} more', "no such JSON"),
        ('{"header":{},"content":%s', "no such JSON"),
        ('{"header":{},"content":[%s}', "no such JSON"),
        ('{"header":{},"channel":"\\ud800","content":%s,"x":01}', "no such JSON"),
        ("%s", "no such JSON"),
    ],
)
def test_deep_text_that_is_no_message_is_refused(text: str, reason: str) -> None:
    """With the same error as what is not deep."""
    with pytest.raises(JupyterFrameError, match=reason):
        read_default(text % DEEP.decode())


@pytest.mark.parametrize("depth", [400, 900, 1000, 1100, 5000])
def test_message_passes_at_any_depth(depth: int) -> None:
    """Also about where readers give up."""
    message = msgspec.structs.replace(PARTS, content=b"[" * depth + b"]" * depth, buffers=())

    assert read_default(default_frame(message)) == message
