"""What a server and a kernel's host say to each other, as the server's side of it. [pure]

A host (`kallichore.host`) is the small program beside a kernel that outlives servers. It carries bytes, and knows
nothing of what they mean: what comes from a kernel is counted, for each channel, from the kernel's first byte to its
last, over all connections that the channel had. Such a count is a *position*. A host keeps what has not been confirmed,
so a server that attaches says from which positions on it goes on reading.

Each frame is a head, as in `HEAD`, and a payload. The payloads of `Kind.DATA` are handed on in pieces as they come:
they are parts of a stream, and to collect them would only take time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple, TypeVar

import attrs
import msgspec

T = TypeVar("T")

VERSION = 1
"""The version of all this that a host has to name."""

HEAD = Struct(">BBHIQ")
"""The head of a frame: kind, channel, zero, bytes of the payload, and a number."""

NONCE_SIZE = 32
"""Random bytes by which each side makes the other's proof one of its own."""

LARGEST_NOTE = 1 << 20
"""Bytes that a payload other than `Kind.DATA` may have; those that there are have some hundred."""


class Kind(IntEnum):
    """What a frame is: below 16 from the server, the others from the host."""

    ATTACH = 1
    OPEN = 2
    CLOSE = 3
    SEND = 4
    CONFIRM = 5
    RELEASE = 7
    PACE = 8
    ASK = 9
    AGAIN = 10
    CHALLENGE = 16
    HELLO = 17
    DATA = 18
    OPENED = 19
    LOST = 20
    ACCEPTED = 21
    ENDED = 22
    REPLACED = 23
    TOLD = 24


class HostChannelNumber(IntEnum):
    """The numbers of what a host carries: a kernel's five sockets, and the two pipes that its process writes to."""

    SHELL = 0
    IOPUB = 1
    STDIN = 2
    CONTROL = 3
    HEARTBEAT = 4
    STDOUT = 5
    STDERR = 6


SIGNALS = 7
"""Where a payload is the number of a signal, in decimal digits, for the kernel and all that is in its process group: so
it arrives exactly once, and behind what was sent before it."""


class HostFrameError(ValueError):
    """The other side is no host that we understand; the text says why."""


class Frame(NamedTuple):
    """A payload for the kernel that has to arrive exactly once."""

    number: int
    channel: int
    data: bytes


class Received(NamedTuple):
    """A frame from a host, or of a `Kind.DATA` a part."""

    kind: int
    channel: int
    number: int
    """Of a part, the position of its first byte."""
    payload: bytes


@attrs.frozen
class ChannelState:
    """What a host has of a channel.

    Attributes:
        is_open: Whether it is connected.
        begin: The position of the first byte that is kept.
        end: The position behind the last one.
    """

    is_open: bool
    begin: int
    end: int


@attrs.frozen
class HostEnding:
    """How a kernel's process ended.

    Attributes:
        code: Its exit code; None if a signal ended it.
        signal: That signal's number.
        peak_kib: The most memory that it had, in KiB; None where the system does not tell.
        memory_kill: Whether the machine killed a process for memory meanwhile, and this was none of our own kills.
        limit_kib: The memory, in KiB, that the host's control group may have with all that is in it, as a batch job or
            a container gives one; None where there is no such limit.
        group_peak_kib: The most that this group had; None where the system does not tell.
    """

    code: int | None = None
    signal: int | None = None
    peak_kib: int | None = None
    memory_kill: bool = False
    limit_kib: int | None = None
    group_peak_kib: int | None = None


@attrs.frozen
class HostFailure:
    """Why a kernel's process could not be started.

    Attributes:
        errno: The system's error number; ``EINVAL`` also for arguments that no program can be given.
        filename: The program or the directory that it is about, if it is about one.
        message: The error in words.
    """

    errno: int | None
    filename: str | None
    message: str


@attrs.frozen
class Hello:
    """What a host tells a server that attaches.

    Attributes:
        version: The version of what it speaks.
        proof: That it knows the secret.
        host_pid: Its own process.
        pid: The kernel's process, which leads its group; None if it could not be started.
        started: When the kernel was started, in seconds since 1970.
        accepted: The number of the last payload for the kernel that it was given.
        channels: The channels by number, see `HostChannelNumber`.
        ended: How the kernel ended, if it has.
        failed: Why it could not be started, if it could not.
        node: What the host's machine calls itself; empty where the host does not say.
        connection: The members of the kernel's connection file, where the host has written it.
        moved: Why the kernel started at home, if it was to start in another directory; empty if that is not so.
    """

    version: int
    proof: str
    host_pid: int
    pid: int | None
    started: float
    accepted: int
    channels: dict[int, ChannelState]
    ended: HostEnding | None = None
    failed: HostFailure | None = None
    node: str = ""
    connection: dict[str, Any] | None = None
    moved: str = ""


@attrs.frozen
class HostFacts:
    """What a kernel and the processes below it use, as their host sees it. None is what it cannot know.

    Attributes:
        directory: The kernel's working directory.
        memory: Resident bytes of all of them.
        cpu_seconds: CPU time so far, with that of children that have ended.
        processes: How many they are.
        threads: How many threads these have.
        is_stopped: Whether the kernel's process is stopped, as by SIGSTOP.
    """

    directory: str | None = None
    memory: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    threads: int | None = None
    is_stopped: bool | None = None


def prove(secret: bytes, role: bytes, theirs: bytes, own: bytes) -> str:
    """Return the proof that somebody knows the secret, for who gave a nonce.

    Args:
        secret: What both know.
        role: Who proves it: ``b"server"`` or ``b"host"``.
        theirs: The nonce of who is to be convinced.
        own: The nonce of who proves it.
    """
    return hmac.new(secret, role + theirs + own, hashlib.sha256).hexdigest()


def head(kind: int, channel: int = 0, number: int = 0, size: int = 0) -> bytes:
    """Return the head of a frame whose payload has ``size`` bytes."""
    return HEAD.pack(kind, channel, 0, size, number)


def _note(kind: Kind, content: Any, channel: int = 0, number: int = 0) -> bytes:
    payload = json.dumps(content).encode()
    return head(kind, channel, number, len(payload)) + payload


def encode_attach(secret: bytes, challenge: bytes, nonce: bytes, positions: Mapping[int, int]) -> bytes:
    """Return the frame by which a server proves itself and says what it goes on with.

    Args:
        secret: What both know.
        challenge: The host's nonce.
        nonce: The server's own.
        positions: Where it goes on reading, by channel; from the first byte that is kept where there is none.
    """
    proof = prove(secret, b"server", challenge, nonce)
    places = {str(int(channel)): position for channel, position in positions.items()}
    return _note(Kind.ATTACH, {"proof": proof, "nonce": nonce.hex(), "positions": places})


def encode_open(channel: int, request: int, family: str, numbers: Any) -> bytes:
    """Return the frame that has a channel connected.

    Args:
        channel: Its number.
        request: A number by which the answer is told.
        family: ``inet``, ``inet6`` or ``unix``.
        numbers: The address as that family has it.
    """
    return _note(Kind.OPEN, [family, numbers], channel, request)


def encode_again(directory: str | None) -> bytes:
    """Return the frame that has a kernel started anew which has ended; the host hangs up then.

    Args:
        directory: Where it is to start; see `kallichore/host/host.py`.
    """
    return _note(Kind.AGAIN, {"directory": directory})


def encode_ask(request: int) -> bytes:
    """Return the frame that asks for `HostFacts`; the answer, `Kind.TOLD`, has the same number."""
    return head(Kind.ASK, 0, request)


def is_proven(hello: Hello, secret: bytes, challenge: bytes, nonce: bytes) -> bool:
    """Tell whether a host knows the secret; takes the same time whatever its proof is."""
    return hmac.compare_digest(prove(secret, b"host", nonce, challenge).encode(), hello.proof.encode())


def decode_hello(payload: bytes) -> Hello:
    """Return what a host tells of itself.

    Raises:
        HostFrameError: It cannot be read, or is of another version.
    """
    try:
        version = msgspec.json.decode(payload, type=dict[str, Any])["version"]
        if version == VERSION:
            hello = msgspec.json.decode(payload, type=Hello)
            for number in HostChannelNumber:
                hello.channels[number]
            return hello
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError) as error:
        raise HostFrameError(f"what the host says of itself cannot be read: {error}") from error
    raise HostFrameError(f"the host speaks version {version}, and we speak {VERSION}")


def _read_note(payload: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HostFrameError(f"{what} cannot be read: {error}") from error


def decode_ending(payload: bytes) -> HostEnding:
    """Return how a kernel's process ended.

    Raises:
        HostFrameError: It cannot be read.
    """
    return _read_note(payload, HostEnding, "the end of the kernel")


def decode_facts(payload: bytes) -> HostFacts:
    """Return what a kernel and those below it use.

    Raises:
        HostFrameError: It cannot be read.
    """
    return _read_note(payload, HostFacts, "what the kernel uses")


@attrs.frozen
class Opening:
    """What came of connecting a channel.

    Attributes:
        position: The position of the first byte that will come.
        errno: Why it was not connected; None if it was.
    """

    position: int
    errno: int | None = None


def decode_opening(payload: bytes) -> Opening:
    """Return what came of connecting a channel.

    Raises:
        HostFrameError: It cannot be read.
    """
    return _read_note(payload, Opening, "the answer to a connection")


_DATA = int(Kind.DATA)


class HostDecoder:
    """Reads what comes from a host."""

    def __init__(self) -> None:
        self._rest = b""
        self._missing = 0
        """Bytes that are still to come of a `Kind.DATA`."""
        self._channel = 0
        self._position = 0

    def feed(self, data: bytes | memoryview) -> Iterator[Received]:
        """Take in what came, and yield what is complete; it is taken in as far as the iterator goes.

        Args:
            data: What came; of a memoryview all that is handed on is copied.

        Raises:
            HostFrameError: No host says that.
        """
        if self._rest:
            data = self._rest + data
        place, limit = 0, len(data)
        while place < limit:
            if self._missing:
                size = min(self._missing, limit - place)
                piece = bytes(data[place : place + size])
                place += size
                position = self._position
                self._missing -= size
                self._position += size
                yield Received(_DATA, self._channel, position, piece)
                continue
            if limit - place < HEAD.size:
                break
            kind, channel, _, size, number = HEAD.unpack_from(data, place)
            if kind == _DATA:
                self._missing, self._channel, self._position = size, channel, number
                place += HEAD.size
                continue
            if size > LARGEST_NOTE:
                raise HostFrameError(f"a frame of kind {kind} has {size} bytes")
            end = place + HEAD.size + size
            if end > limit:
                break
            payload = bytes(data[place + HEAD.size : end])
            place = end
            yield Received(kind, channel, number, payload)
        self._rest = bytes(data[place:])
