"""What a server and a host say to each other: it survives any cutting, and what is no host's is refused in words."""

from __future__ import annotations

import json
import runpy
import sys
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.host import HOST_PROGRAM
from kallichore.wire.host_frames import (
    HEAD,
    LARGEST_NOTE,
    NONCE_SIZE,
    VERSION,
    ChannelState,
    HostChannelNumber,
    HostDecoder,
    HostEnding,
    HostFacts,
    HostFailure,
    HostFrameError,
    Kind,
    Opening,
    Received,
    decode_ending,
    decode_facts,
    decode_hello,
    decode_opening,
    encode_ask,
    encode_attach,
    encode_open,
    head,
    is_proven,
    prove,
)

CHANNELS = {str(number): {"is_open": number > 4, "begin": number, "end": 2 * number} for number in range(7)}
SAID = b'{"version": 1, "proof": "00", "host_pid": 7, "pid": 8, "started": 1.5, "accepted": 3, "ended": null}'
HELLO: dict[str, Any] = {**json.loads(SAID), "channels": CHANNELS, "failed": None}

notes = st.tuples(
    st.sampled_from([kind for kind in Kind if kind > 15 and kind != Kind.DATA]),
    st.integers(0, 6),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=100),
)
streams = st.tuples(
    st.just(Kind.DATA), st.integers(0, 6), st.integers(0, 2**63), st.one_of(st.binary(max_size=9), st.just(bytes(5000)))
)


FROM_SERVERS = {"ATTACH": 1, "OPEN": 2, "CLOSE": 3, "SEND": 4, "CONFIRM": 5, "RELEASE": 7, "PACE": 8}
FROM_SERVERS |= {"ASK": 9, "AGAIN": 10}
OF_HOSTS = ("CHALLENGE", "HELLO", "DATA", "OPENED", "LOST", "ACCEPTED", "ENDED", "REPLACED", "TOLD")
FROM_HOSTS = {name: number for number, name in enumerate(OF_HOSTS, 16)}
KINDS = {**FROM_SERVERS, **FROM_HOSTS}
NUMBERS = {"SHELL": 0, "IOPUB": 1, "STDIN": 2, "CONTROL": 3, "HEARTBEAT": 4, "STDOUT": 5, "STDERR": 6}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return data in pieces."""
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]


def together(received: list[Received]) -> list[Received]:
    """Return what was received with the parts of a stream put together that follow each other; empty ones left out."""
    whole: list[Received] = []
    for frame in received:
        last = whole[-1] if whole else None
        if frame.kind == Kind.DATA:
            if last and (last.kind, last.channel) == frame[:2] and last.number + len(last.payload) == frame.number:
                whole[-1] = last._replace(payload=last.payload + frame.payload)
                continue
            if not frame.payload:
                continue
        whole.append(frame)
    return whole


def test_version_has_its_numbers() -> None:
    """A host may be older than its server, and positions are written down by the channels' numbers: with others, this
    would have to be another version.
    """
    assert (1, 32) == (VERSION, NONCE_SIZE)
    assert {kind.name: kind.value for kind in Kind} == KINDS
    assert {channel.name: channel.value for channel in HostChannelNumber} == NUMBERS


@pytest.mark.skipif(sys.platform == "win32", reason="there are no hosts on Windows")
def test_host_has_the_same_numbers() -> None:
    """The program beside a kernel imports nothing of ours, and says the same in its own words."""
    host = runpy.run_path(str(HOST_PROGRAM))
    numbers = {**KINDS, "VERSION": VERSION, "IOPUB": 1, "STDOUT": 5, "STDERR": 6}

    assert {name: host[name] for name in numbers} == numbers
    assert (HEAD.format, [*range(HostChannelNumber.STDOUT)]) == (host["HEAD"].format, [*host["SOCKETS"]])
    assert sorted(NUMBERS.values()) == sorted(host["LINE"])


def test_frame_without_more_is_a_head_of_zeros() -> None:
    """Its kind, and nothing else."""
    assert HEAD.pack(Kind.CLOSE, 0, 0, 0, 0) == head(Kind.CLOSE)


@given(st.lists(st.one_of(notes, streams), max_size=8), st.lists(st.integers(0, 1 << 20), max_size=12), st.booleans())
def test_frames_survive_any_cutting(frames: list[tuple[int, int, int, bytes]], places: list[int], view: bool) -> None:
    """In whatever pieces frames come, and be they views, notes come out whole, and streams with all their bytes."""
    sent = [Received(*frame) for frame in frames]
    data = b"".join(head(frame.kind, frame.channel, frame.number, len(frame.payload)) + frame.payload for frame in sent)
    decoder = HostDecoder()
    pieces = cut(data, places)
    received = [frame for piece in pieces for frame in decoder.feed(memoryview(piece) if view else piece)]

    assert together(sent) == together(received)
    assert {bytes} >= {type(frame.payload) for frame in received}


def test_stream_is_handed_on_before_all_of_it_is_there() -> None:
    """The bytes of a long frame are had as they come, each with the position of its first one."""
    decoder = HostDecoder()
    beginning = list(decoder.feed(head(Kind.DATA, 1, 1000, 6) + b"abc"))
    rest = list(decoder.feed(b"def"))

    assert [Received(Kind.DATA, 1, 1000, b"abc")] == beginning
    assert [Received(Kind.DATA, 1, 1003, b"def")] == rest


def test_note_of_a_size_that_no_host_sends_is_refused_before_it_comes() -> None:
    """The head alone of a note of more than a megabyte is refused: nothing of that size is kept."""
    largest = head(Kind.HELLO, size=LARGEST_NOTE) + bytes(LARGEST_NOTE)

    assert [Received(Kind.HELLO, 0, 0, bytes(LARGEST_NOTE))] == list(HostDecoder().feed(largest))
    with pytest.raises(HostFrameError, match="bytes"):
        list(HostDecoder().feed(head(Kind.HELLO, size=LARGEST_NOTE + 1)))


def test_hello_is_read() -> None:
    """What a host tells of itself comes out as values, its end and its failure too."""
    ended = {"code": None, "signal": 9, "peak_kib": 5, "memory_kill": True}
    failed = {"errno": 2, "filename": "/nowhere", "message": "not there"}
    hello = decode_hello(json.dumps({**HELLO, "ended": ended, "failed": failed}).encode())

    assert (7, 8, 1.5, 3) == (hello.host_pid, hello.pid, hello.started, hello.accepted)
    assert ChannelState(True, 6, 12) == hello.channels[6]
    assert HostEnding(None, 9, 5, True) == hello.ended
    assert HostFailure(2, "/nowhere", "not there") == hello.failed
    assert ("", None) == (hello.node, hello.connection)


def test_hello_of_a_host_far_away_names_its_machine_and_its_kernels_connections() -> None:
    """What a host has chosen for its kernel comes out as it was written."""
    hello = decode_hello(
        json.dumps({**HELLO, "node": "n1", "connection": {"ip": "127.0.0.1", "shell_port": 5}}).encode()
    )

    assert ("n1", {"ip": "127.0.0.1", "shell_port": 5}) == (hello.node, hello.connection)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({**HELLO, "accepted": "many"}).encode(),
        json.dumps({**HELLO, "channels": {"0": CHANNELS["0"]}}).encode(),
        json.dumps({**HELLO, "channels": None}).encode(),
    ],
)
def test_hello_that_is_none_is_refused(payload: bytes) -> None:
    """What cannot be read, or tells nothing of some channel, is refused in words."""
    with pytest.raises(HostFrameError, match="cannot be read"):
        decode_hello(payload)


def test_hello_of_another_version_is_refused_by_its_version() -> None:
    """A host of another version is refused as that, whatever else it says."""
    with pytest.raises(HostFrameError, match="version 2"):
        decode_hello(b'{"version": 2}')


def test_end_and_answers_are_read() -> None:
    """The end of a kernel and the answer to a wish come out as values; null is nothing."""
    assert HostEnding(3, None, None, False) == decode_ending(b'{"code": 3, "signal": null, "peak_kib": null}')
    assert Opening(17, None) == decode_opening(b'{"position": 17, "errno": null}')
    assert Opening(17, 111) == decode_opening(b'{"position": 17, "errno": 111}')
    limited = decode_ending(b'{"code": null, "signal": 9, "limit_kib": 2048, "group_peak_kib": 2047}')
    assert HostEnding(None, 9, limit_kib=2048, group_peak_kib=2047) == limited
    with pytest.raises(HostFrameError, match=r"the end of the kernel cannot be read: .*malformed"):
        decode_ending(b"nothing")
    with pytest.raises(HostFrameError, match=r"the answer to a connection cannot be read: .*malformed"):
        decode_opening(b"nothing")
    with pytest.raises(HostFrameError, match=r"what the kernel uses cannot be read: .*malformed"):
        decode_facts(b"nothing")


amounts = st.one_of(st.none(), st.integers(0, 2**63))
facts = st.builds(
    HostFacts,
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))),
    amounts,
    st.one_of(st.none(), st.floats(0, 1e12)),
    amounts,
    amounts,
    st.one_of(st.none(), st.booleans()),
)


@given(facts)
def test_facts_come_out_as_they_were_told(told: HostFacts) -> None:
    """What a kernel uses is read as it was written; null is what is not known, and so is what is not there."""
    written = attrs.asdict(told)
    known = {name: value for name, value in written.items() if value is not None}

    assert told == decode_facts(json.dumps(written).encode())
    assert told == decode_facts(json.dumps(known).encode())


@given(st.integers(0, 2**64 - 1))
def test_question_is_a_head_with_its_number(request: int) -> None:
    """Who asks what a kernel uses sends a number, by which the answer is known."""
    assert (Kind.ASK, 0, 0, 0, request) == HEAD.unpack(encode_ask(request))


@given(st.binary(max_size=80), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_proof_is_good_for_one_role_and_one_connection(secret: bytes, challenge: bytes, nonce: bytes) -> None:
    """A host's proof convinces who asked for it; a server's proof, sent back, does not."""

    def says(proof: str) -> bool:
        hello = decode_hello(json.dumps({**HELLO, "proof": proof}).encode())
        return is_proven(hello, secret, challenge, nonce)

    assert says(prove(secret, b"host", nonce, challenge))
    assert not says(prove(secret, b"server", challenge, nonce))
    assert not says("é")


def test_wishes_are_as_the_host_reads_them() -> None:
    """A server's proof and positions, and an address, are JSON behind a head."""
    attach = encode_attach(b"s", b"c", b"n", {1: 5})
    opening = encode_open(4, 9, "inet", ["127.0.0.1", 80])

    assert (Kind.ATTACH, 0, 0, len(attach) - HEAD.size, 0) == HEAD.unpack_from(attach)
    proof = prove(b"s", b"server", b"c", b"n")
    assert {"proof": proof, "nonce": b"n".hex(), "positions": {"1": 5}} == json.loads(attach[HEAD.size :])
    assert (Kind.OPEN, 4, 0, len(opening) - HEAD.size, 9) == HEAD.unpack_from(opening)
    assert ["inet", ["127.0.0.1", 80]] == json.loads(opening[HEAD.size :])
