"""How a server attaches to a host: connects by whatever way there is, and has both sides prove themselves."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Mapping
from typing import NamedTuple

import trio

from kallichore.engines.reach import Reach
from kallichore.errors import HostRefusedError
from kallichore.wire.host_frames import (
    NONCE_SIZE,
    Hello,
    HostDecoder,
    HostFrameError,
    Kind,
    Received,
    decode_hello,
    encode_attach,
    is_proven,
)

FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.2, 15.0, 1.6
"""Seconds between two tries to open a connection again, and how they grow: a network that comes back is not to meet all
of its sessions at once, and nobody waits long for one."""

READ_SIZE = 1 << 18
"""Bytes that are read at once: more than a Unix socket holds by default, so that one call takes all that is there."""


class Attachment(NamedTuple):
    """A connection on which both sides have proved themselves."""

    connection: socket.socket
    decoder: HostDecoder
    """What has read from it so far."""
    hello: Hello
    early: list[Received]
    """What came behind that, already."""


async def _receive(connection: socket.socket, decoder: HostDecoder, received: list[Received]) -> None:
    """Add to what was received until there is something.

    Raises:
        ConnectionError: The other side hung up.
        HostFrameError: It is no host.
    """
    while not received:
        await trio.lowlevel.wait_readable(connection)
        data = connection.recv(READ_SIZE)
        if not data:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the host hung up")
        received += decoder.feed(data)


async def _shake_hands(
    connection: socket.socket, decoder: HostDecoder, secret: bytes, positions: Mapping[int, int]
) -> tuple[Hello, list[Received]]:
    """Prove each other that both know the secret; return what the host says, and what came behind that."""
    received: list[Received] = []
    await _receive(connection, decoder, received)
    challenge = received.pop(0)
    if challenge.kind != Kind.CHALLENGE or len(challenge.payload) != NONCE_SIZE:
        raise HostFrameError("it does not begin with a host's challenge")
    nonce = secrets.token_bytes(NONCE_SIZE)
    connection.sendall(encode_attach(secret, challenge.payload, nonce, positions))
    await _receive(connection, decoder, received)
    answer = received.pop(0)
    if answer.kind != Kind.HELLO:
        raise HostFrameError(f"it answers a proof with {answer.kind}")
    hello = decode_hello(answer.payload)
    if not is_proven(hello, secret, challenge.payload, nonce):
        raise HostFrameError("it does not know the secret")
    return hello, received


async def attach(reach: Reach, secret: bytes, positions: Mapping[int, int] = {}) -> Attachment:
    """Connect to a host, and have both sides prove themselves: as often as it takes, where connections can be cut.

    Cancelling disturbs nobody, unless the host has taken the proof already: then the server before is replaced. A host
    that does not answer is waited for without a limit.

    Args:
        reach: The way to the host.
        secret: The session's.
        positions: Where to go on reading, by channel; where there is none, from the first byte that the host has.

    Raises:
        HostGoneError: There is none any more.
        HostRefusedError: The secret is wrong, or the version.
        OSError: It cannot be reached.
    """
    pause = FIRST_PAUSE
    while reach.tell is not None:
        try:
            attachment = await _attach_once(reach, secret, positions)
        except OSError as error:
            reach.tell(error.strerror or str(error))
        else:
            reach.tell(None)
            return attachment
        await trio.sleep(pause)
        pause = min(pause * GROWTH, LONGEST_PAUSE)
    return await _attach_once(reach, secret, positions)


async def _attach_once(reach: Reach, secret: bytes, positions: Mapping[int, int]) -> Attachment:
    connection = await reach.connect()
    decoder = HostDecoder()
    try:
        return Attachment(connection, decoder, *await _shake_hands(connection, decoder, secret, positions))
    except HostFrameError as error:
        connection.close()
        raise HostRefusedError(f"What listens {reach.name} is not this session's host: {error}") from error
    except OSError as error:
        connection.close()
        if reach.tell is not None:
            raise
        hung_up = error
    except BaseException:
        connection.close()
        raise
    # Because it ended just now, or because it does not believe us.
    (await reach.connect()).close()
    raise HostRefusedError(f"The host {reach.name} does not take us for the server of its session") from hung_up
