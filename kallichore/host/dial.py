"""Connects a host to its server from where no server can connect to: out of a batch job, out of a pod.

It dials the server again and again, by TLS, says which host it is, and carries bytes between that connection and the
socket on which its host listens. So for the host, whoever comes that way is one more who connects, and has to prove
to be a server. `kallichore/host/host.py` runs this in a child, and starts it anew if it is killed.

One file and only the standard library of Python 3.8. What it is told: ``address``, host and port of the server;
``certificate``, PEM of the one certificate that the server may have; ``id``, sixteen bytes in hexadecimal, which are
the first that it sends.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# Where there are no Unix sockets, nothing of this could work.
assert sys.platform != "win32"

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 15.0
"""Seconds between two tries, about: the first when a connection was lost on which the server had said something, the
second in the end, so that a server that is away is not besieged by a thousand hosts."""

PATIENCE = 10.0
"""Seconds that connecting may take, and the server's part of the handshake."""

LAST_PATIENCE = 5.0
"""Seconds in which the server has to take the rest when the host hangs up."""

PIECE = 1 << 16
"""Bytes that are read at once. More is read when these have gone on: who is slow is waited for."""

IDLE, INTERVAL, PROBES = 15, 5, 3
"""Seconds after which a silent connection is probed, between two probes, and how many are lost until it is given up:
a way that forgets silent connections is told of this one, and a dead one is noticed in half a minute."""

PARTIAL_CHAIN = 0x80000
"""OpenSSL's flag that lets a certificate be trusted that another one signed; Python has a name for it from 3.10 on."""

AT_END = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Refused(OSError):
    """What answers is not the server."""


def dial(server: dict[str, Any], path: str) -> None:
    """Connect again and again, until the host is gone.

    Args:
        server: See above.
        path: The host's socket.
    """
    parent, context, pause, told = os.getppid(), make_context(server["certificate"]), SHORTEST_PAUSE, ""
    while os.getppid() == parent:
        carrier = None
        try:
            with connect(server, context) as tls:
                carrier = Carrier(tls, path, bytes.fromhex(server["id"]))
                carrier.run()
            reason = "the server hung up"
        except OSError as error:
            reason = str(error)
        if carrier is not None and carrier.has_answered:
            pause = SHORTEST_PAUSE
        elif reason != told:
            # What is said again and again says nothing.
            told = reason
            os.write(2, f"no connection to the server at {describe(server)}: {reason}\n".encode())
        # Not all of those that have lost their server are to come back in the same moment.
        time.sleep(pause * (0.5 + os.urandom(1)[0] / 256))
        pause = min(2 * pause, LONGEST_PAUSE)


def describe(server: dict[str, Any]) -> str:
    """Return where the server is, for people."""
    host, port = server["address"]
    return f"{host}:{port}"


def make_context(certificate: str) -> ssl.SSLContext:
    """Return what accepts a server with this certificate and no other, whatever it is called."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= PARTIAL_CHAIN
    context.load_verify_locations(cadata=certificate)
    return context


def connect(server: dict[str, Any], context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection to the server, which has shown its certificate.

    Raises:
        OSError: There is none; `Refused` if it has another certificate.
    """
    host, port = server["address"]
    connection = socket.create_connection((host, port), PATIENCE)
    try:
        keep_alive(connection)
        tls = context.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise
    if tls.getpeercert(True) != ssl.PEM_cert_to_DER_cert(server["certificate"]):
        # One that this one has signed would be accepted otherwise.
        tls.close()
        raise Refused("it has another certificate")
    return tls


def keep_alive(connection: socket.socket) -> None:
    """Have a connection probed while it is silent, and each piece sent at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": IDLE, "TCP_KEEPALIVE": IDLE, "TCP_KEEPINTVL": INTERVAL, "TCP_KEEPCNT": PROBES}
    # In milliseconds: what was sent and is not acknowledged.
    options["TCP_USER_TIMEOUT"] = (IDLE + INTERVAL * PROBES) * 1000
    for name, value in options.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Carrier:
    """Carries bytes between a server and the host, until one of them hangs up.

    Args:
        tls: The connection to the server.
        path: The host's socket.
        greeting: What the server is sent first.

    Raises:
        OSError: The host is gone.
    """

    def __init__(self, tls: ssl.SSLSocket, path: str, greeting: bytes) -> None:
        self._tls = tls
        self._near = socket.socket(socket.AF_UNIX)
        try:
            self._near.connect(path)
        except OSError:
            self._near.close()
            raise
        tls.setblocking(False)
        self._near.setblocking(False)
        self._there, self._back = greeting, b""
        self._has_host_ended = self._has_server_ended = False
        self._wanted: dict[int, int] = {}
        """What has to happen until something can go on, by descriptor."""
        self.has_answered = False
        """Whether the server has said anything."""

    def run(self) -> None:
        """Carry on to the end; then both connections are closed.

        Raises:
            OSError: The connection to the server is broken.
        """
        with self._near:
            until = 0.0
            while not self._has_server_ended:
                self._wanted = {}
                # What came out of TLS is in no descriptor: after every step forward all of it is tried again.
                if self._move():
                    continue
                if self._has_host_ended:
                    until = until or time.monotonic() + LAST_PATIENCE
                    if not self._there or time.monotonic() > until:
                        return
                poll = select.poll()
                for descriptor, events in self._wanted.items():
                    poll.register(descriptor, events)
                poll.poll(max(0.0, until - time.monotonic()) * 1000 if until else None)

    def _move(self) -> bool:
        """Do what can be done without waiting; return whether it was anything."""
        has_moved = self._use_server()
        near = self._near.fileno()
        if self._back:
            try:
                self._back = self._back[self._near.send(self._back) :]
                has_moved = True
            except BlockingIOError:
                self._want(near, select.POLLOUT)
            except OSError:
                self._back, self._has_host_ended = b"", True
        if not self._there and not self._has_host_ended:
            try:
                self._there = self._near.recv(PIECE)
                self._has_host_ended = not self._there
                has_moved = True
            except BlockingIOError:
                self._want(near, select.POLLIN)
            except OSError:
                self._has_host_ended = True
        return has_moved

    def _use_server(self) -> bool:
        """Receive from the server if there is room, and send what there is; either may need the other way."""
        has_moved, there = False, self._tls.fileno()
        try:
            if not self._back and not self._has_host_ended:
                self._back = self._tls.recv(PIECE)
                self._has_server_ended = not self._back
                self.has_answered = self.has_answered or bool(self._back)
                has_moved = True
        except ssl.SSLWantReadError:
            self._want(there, select.POLLIN)
        except ssl.SSLWantWriteError:
            self._want(there, select.POLLOUT)
        try:
            if self._there:
                self._there = self._there[self._tls.send(self._there) :]
                has_moved = True
        except ssl.SSLWantReadError:
            self._want(there, select.POLLIN)
        except ssl.SSLWantWriteError:
            self._want(there, select.POLLOUT)
        return has_moved

    def _want(self, descriptor: int, events: int) -> None:
        self._wanted[descriptor] = self._wanted.get(descriptor, 0) | events
