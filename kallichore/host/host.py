"""The program beside one Jupyter kernel: its parent, which keeps what the kernel sends for whichever server comes next.

A server may be stopped, upgraded or killed while its kernels compute. So each kernel has this small program, which
holds the kernel's connections and the pipes that it writes to, carries bytes between them and a server without knowing
what they mean, and keeps what comes from the kernel until a server has confirmed it. It ends when a server says so, or
when none has come for as long as it was told to wait. If it is killed itself, its kernel ends with it.

One file and only the standard library of Python 3.8, so that it starts wherever a kernel does:
``python -I -S host.py < what-to-do.json``, or as a part of the text that `kallichore/engines/host_program.py` makes for
another machine. It says ``ready`` when servers can attach. It imports nothing of Kallichore: the frames that it reads
and writes are described in `kallichore/wire/host_frames.py`.

What it is told, a document, has these members:

==================  ================================================================================================
``secret``          what servers prove that they know, in hexadecimal
``argv``            the kernel's program and arguments; `{connection_file}` in them is replaced where there is ``meet``
``environment``     the kernel's whole environment
``actions``         in place of that, what is changed in the host's own: lists of ``replace``, ``append`` or
                    ``prepend``, a name, and a value, in their order
``directory``       where the kernel starts, where a leading ``~`` is somebody's home; null for where the host is. With
                    ``actions``, one that is not there is said to be so, and the kernel starts at home
``abandon_after``   seconds without a server after which the kernel is ended; 0 for never
``keep_limit``      bytes that are kept at most
``socket``          where the host listens; without it, in a private directory that the host makes, which has a log too
``name``            what comes last in that directory's name: by it a host is found of which it is not known whether it
                    was started, and there is no second one. Otherwise that is random
``meet``            a connection file's members without ports and address: the host chooses those, and writes the file
``stays``           whether it is what was started: a batch job, or process 1 of a container. Otherwise it detaches
``dial``            the server that it connects to: ``address``, the ``certificate`` that this one has, and what it is
                    known by there, its ``id``
==================  ================================================================================================

Everything here is one loop that calls a function for each descriptor that has something; nothing waits anywhere else.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections import deque
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Union

    Payload = Union[bytes, memoryview]

# Where there are no process groups, nothing of this could work.
assert sys.platform != "win32"


def load_sha256() -> Any:
    """Return the function. Python's own is preferred: with hashlib OpenSSL is loaded, 4 MB for a few hashes."""
    for name in ("_sha2", "_sha256"):
        try:
            return import_module(name).sha256
        except ImportError:
            pass
    return import_module("hashlib").sha256


sha256 = load_sha256()

VERSION = 1
HEAD = struct.Struct(">BBHIQ")
ATTACH, OPEN, CLOSE, SEND, CONFIRM = range(1, 6)
RELEASE, PACE, ASK, AGAIN = range(7, 11)
CHALLENGE, HELLO, DATA, OPENED, LOST, ACCEPTED, ENDED, REPLACED, TOLD = range(16, 25)

IOPUB, STDOUT, STDERR = 1, 5, 6
SOCKETS = range(5)
SIGNALS = 7
"""Not a channel: a payload for it is the number of a signal for the kernel's group, in decimal digits."""
LINE = (3, 0, 2, 4, 1, 5, 6)
"""Channels in the order in which what was kept of them is sent: what somebody waits for before floods."""
PATIENT = (IOPUB, STDOUT, STDERR)
"""Channels that are not read while too much is kept. Without the others a kernel could not be talked to."""

PIECE = 1 << 16
"""Bytes that are read at once."""
MOST_PIECES = 256
"""Pieces that are sent together; the system takes 1024 at most."""
LARGE = 1 << 12
"""Bytes of a payload from which on it is not copied."""
OVERHEAD = 64
"""Bytes that Python needs for a piece besides what is in it."""
LARGEST_PROOF = 1 << 12
"""Bytes that a frame may have of somebody who has not proved to be a server."""
MOST_STRANGERS = 16
"""Connections of such; the oldest has to make way for the next."""

NEVER = float("inf")
PROOF_PATIENCE = 5.0
"""Seconds that somebody may take to prove to be a server."""
ACCEPTED_DELAY = 0.5
"""Seconds after which a server is told what was taken, if no other frame has told it."""
TERM_PATIENCE = 2.0
"""Seconds that a kernel has to end by itself when it is asked to."""
LAST_PATIENCE = 5.0
"""Seconds that a host that stays, and was told to end, gives a server to take the rest: less than the 30 that Slurm and
Kubernetes give it before they kill it."""
DIAL_PAUSE = 1.0
"""Seconds until what dials is started anew when it was killed."""
LONGEST_REST = 1.0
"""Seconds that a channel is not read at most because its server wants more at once."""
ACCEPT_PAUSE = 1.0
"""Seconds until somebody is let in again when there were no descriptors left."""

RECEIVE_BUFFER = 4 << 20
"""Bytes that a kernel's connection is asked to hold, so that a flood goes on while other things are done."""
SO_BUF_LOCK = 72
"""Linux's option that lets such a buffer grow beyond what may be asked for."""

PROC, GROUPS = "/proc", "/sys/fs/cgroup"
"""Where Linux tells of processes and of control groups."""
NO_LIMIT = 1 << 60
"""Bytes from which on a number of version 1's control groups means that there is no limit."""
PS_PATIENCE = 2.0
"""Seconds that ``ps`` may take, in which nothing is carried."""

MOST_DESCRIPTORS = 256
"""More than this program ever has."""

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
"""What a connection file calls the ports of the five channels, in the order of their numbers here."""

PREFIX = "kallichore-"
"""With what the names of private directories begin."""
SOCKET, LOG, NODE = "host.sock", "host.log", "node"
"""What is in one: where the host listens, a file that has what went wrong in this program itself, and a link that names
the machine."""
STARTING = 60.0
"""Seconds in which a host that was started certainly listens."""

LONGEST_PLACE = 70
"""Bytes that the path of a directory may have if sockets are to be in it: theirs may have 100."""

CANNOT_START = 127
"""A staying host's exit code where the kernel could not be started: the one that shells have for it."""

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}

READ, WRITE = select.POLLIN, select.POLLOUT
AT_END = select.POLLHUP | select.POLLERR | select.POLLNVAL


def mac(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA256 of some bytes (RFC 2104)."""
    key = (sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = sha256(bytes(byte ^ 0x36 for byte in key) + data).digest()
    digest: bytes = sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    return digest


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two proofs are the same. How long it takes tells nothing of them."""
    key = os.urandom(32)
    return mac(key, one) == mac(key, other)


def head(kind: int, channel: int = 0, number: int = 0, size: int = 0) -> bytes:
    """Return the head of a frame."""
    return HEAD.pack(kind, channel, 0, size, number)


def note(kind: int, content: Any, channel: int = 0, number: int = 0) -> bytes:
    """Return a frame whose payload is JSON."""
    payload = json.dumps(content).encode()
    return head(kind, channel, number, len(payload)) + payload


class Loop:
    """Calls a function for each descriptor that has something, and others when their time has come."""

    def __init__(self) -> None:
        # Not epoll: for a dozen descriptors this takes as long, and to watch one in another way is no system call.
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._deadlines: dict[object, tuple[float, Callable[[], None]]] = {}
        self._soonest = NEVER
        """A time before which nothing is to be called."""
        self.is_over = False

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        """Call a function whenever a descriptor has one of these events, with the events; in place of another."""
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Look at a descriptor no more. Idempotent."""
        if self._handlers.pop(descriptor, None):
            self._poll.unregister(descriptor)

    def call_later(self, key: object, seconds: float, function: Callable[[], None]) -> None:
        """Call a function once; another with this key is not called then."""
        when = time.monotonic() + seconds
        self._deadlines[key] = (when, function)
        self._soonest = min(self._soonest, when)

    def end(self) -> None:
        """Call nothing any more."""
        self.is_over = True

    def will_call(self, key: object) -> bool:
        """Whether something is to be called later."""
        return key in self._deadlines

    def call_off(self, key: object) -> None:
        """Do not call what was to be called later, if it was."""
        self._deadlines.pop(key, None)

    def run(self) -> None:
        poll, handlers = self._poll.poll, self._handlers
        while not self.is_over:
            for descriptor, events in poll(None if self._soonest == NEVER else self._milliseconds()):
                # One that was called before it may have closed this one.
                handler = handlers.get(descriptor)
                if handler:
                    handler(events)

    def _milliseconds(self) -> float:
        """Return how long to wait at most, having called what is due."""
        left = self._soonest - time.monotonic()
        if left > 0:
            return left * 1000 + 1
        self._soonest = NEVER
        for key, (when, function) in list(self._deadlines.items()):
            if key not in self._deadlines:
                # One that was called just now has called it off.
                continue
            if when <= time.monotonic():
                del self._deadlines[key]
                function()
            else:
                self._soonest = min(self._soonest, when)
        # What was called may have ended it all; otherwise this only looks again.
        return 0


class Channel:
    """One of the kernel's connections or pipes, and what is kept of what came on it.

    Positions count bytes over all connections that it had: ``begin`` is that of the first byte kept, ``end`` that
    behind the last. What the server has been sent is in ``sent``, and what it has not, from ``next`` on, in ``unsent``.
    """

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self._loop = host.loop
        self.number = number
        self.begin = self.next = self.end = 0
        self.sent: deque[bytes] = deque()
        self.unsent: deque[bytes] = deque()
        self.is_paused = False
        self.pace = 0.0
        """Seconds in which what comes gathers before it is read again: in a flood, a wake-up costs more than what it
        brings."""
        self._is_resting = False
        self._descriptor: int | None = None
        self._socket: socket.socket | None = None
        self._unwritten: deque[Payload] = deque()
        self._is_stuck = False
        """Whether the kernel does not take what is in ``_unwritten`` now."""
        self._request: int | None = None
        """The number of the wish to have it connected, while that is not done."""
        self.has_ended = self.is_end_told = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._descriptor is not None and self._request is None

    def open_pipe(self, descriptor: int) -> None:
        """Read a pipe to its end."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._watch()

    def _watch(self) -> None:
        assert self._descriptor is not None
        events = 0 if self.is_paused or self._is_resting or self._request is not None else READ
        if self._is_stuck or self._request is not None:
            events |= WRITE
        if events:
            self._loop.watch(self._descriptor, events, self._act)
        else:
            # Not even its end is of interest now, and poll would tell that whatever is asked for.
            self._loop.forget(self._descriptor)

    def _act(self, events: int) -> None:
        if self._request is not None and self._socket is not None:
            self._finish(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return
        if events & WRITE:
            self._write_more()
        if events & (READ | AT_END) and not self.is_paused and not self._is_resting:
            self._read()

    # Connecting

    def connect(self, request: int, family: str, numbers: Any) -> None:
        """Connect it in one try; the server is told what came of it."""
        self.close()
        self._request = request
        try:
            code = self._begin(family, numbers)
        except OSError as error:
            code = error.errno or errno.EIO
        except (LookupError, TypeError, ValueError, OverflowError):
            code = errno.EINVAL
        if code == errno.EINPROGRESS:
            self._watch()
        else:
            self._finish(code)

    def _begin(self, name: str, numbers: Any) -> int:
        family = FAMILIES[name]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._descriptor = self._socket.fileno()
        self._socket.setblocking(False)
        if family != socket.AF_UNIX:
            ask_for_space(self._socket)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket.connect_ex(numbers if isinstance(numbers, str) else tuple(numbers))

    def _finish(self, code: int) -> None:
        assert self._request is not None
        if not code and is_itself(self._socket):
            code = errno.ECONNREFUSED
        request, self._request = self._request, None
        if code:
            self._close_connection()
        else:
            self._watch()
            self._write_more()
        self._host.tell(note(OPENED, {"position": self.end, "errno": code or None}, self.number, request))

    def close(self) -> None:
        """Close the connection, and forget what is kept of it."""
        self._close_connection()
        self._host.kept -= sum(len(piece) + OVERHEAD for pieces in (self.sent, self.unsent) for piece in pieces)
        self.sent.clear()
        self.unsent.clear()
        self.begin = self.next = self.end
        self.has_ended = self.is_end_told = False
        self._host.check_limit()

    def give_up_connecting(self) -> None:
        """Close a connection that is being made."""
        if self._request is not None:
            self._close_connection()

    def _close_connection(self) -> None:
        self._request, self._is_stuck = None, False
        self._unwritten.clear()
        if self._descriptor is None:
            return
        self._loop.forget(self._descriptor)
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._descriptor)
        self._descriptor = self._socket = None

    # To the kernel

    def write(self, payload: Payload) -> None:
        """Send bytes to the kernel: now, or as soon as it takes them. They are dropped if there is no connection."""
        if self._descriptor is None:
            return
        self._unwritten.append(payload)
        if len(self._unwritten) == 1 and self._request is None:
            self._write_more()

    def _write_more(self) -> None:
        unwritten = self._unwritten
        assert self._descriptor is not None
        try:
            while unwritten:
                count = os.write(self._descriptor, unwritten[0])
                if count < len(unwritten[0]):
                    unwritten[0] = memoryview(unwritten[0])[count:]
                else:
                    unwritten.popleft()
        except BlockingIOError:
            pass
        except OSError:
            # Whoever reads will notice.
            unwritten.clear()
        if self._is_stuck != bool(unwritten):
            self._is_stuck = not self._is_stuck
            self._watch()

    # From the kernel

    def _read(self) -> None:
        assert self._descriptor is not None
        try:
            data = os.read(self._descriptor, PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_connection()
            self.has_ended = True
            self._host.push()
            return
        position = self.end
        self.end += len(data)
        self._host.keep(self, position, data)
        if self.pace and len(data) < PIECE:
            self._is_resting = True
            self._watch()
            self._loop.call_later(self, self.pace, self._go_on)

    def _go_on(self) -> None:
        self._is_resting = False
        if self._descriptor is not None:
            self._watch()

    def confirm(self, position: int) -> None:
        """Keep no more what is before a position."""
        sent = self.sent
        while sent and self.begin + len(sent[0]) <= position:
            size = len(sent.popleft())
            self.begin += size
            self._host.kept -= size + OVERHEAD
        self._host.check_limit()

    def rewind(self, position: int) -> None:
        """Send again what is kept from a position on, or all of it where that is gone."""
        pieces, self.sent, self.unsent = self.sent + self.unsent, deque(), deque()
        self.next = min(max(self.begin, position), self.end)
        self.is_end_told = False
        place = self.begin
        for piece in pieces:
            behind = position - place
            place += len(piece)
            if behind >= len(piece):
                self.sent.append(piece)
            elif behind > 0:
                self.sent.append(piece[:behind])
                self.unsent.append(piece[behind:])
                self._host.kept += OVERHEAD
            else:
                self.unsent.append(piece)

    def next_frame(self) -> list[bytes] | None:
        """Return the next frame of what was not sent, in pieces; None if there is none."""
        unsent = self.unsent
        if not unsent:
            if not self.has_ended or self.is_end_told:
                return None
            self.is_end_told = True
            return [head(LOST, self.number, self.end)]
        frame, size = [b""], 0
        while unsent and len(frame) <= MOST_PIECES and (size + len(unsent[0]) <= PIECE or not size):
            piece = unsent.popleft()
            self.sent.append(piece)
            frame.append(piece)
            size += len(piece)
        frame[0] = head(DATA, self.number, self.next, size)
        self.next += size
        return frame

    def set_paused(self, is_paused: bool) -> None:
        """Read what comes no more, or again."""
        self.is_paused = is_paused
        if self._descriptor is not None:
            self._watch()


def ask_for_space(connection: socket.socket) -> None:
    """Ask for a large buffer, before connecting, since what is announced then depends on it."""
    try:
        if sys.platform == "linux":
            # The system may allow less than it would let the buffer grow to by itself, and may be told to go on then.
            connection.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        if sys.platform == "linux":
            connection.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, 0)
    except OSError:
        pass


def is_itself(connection: socket.socket | None) -> bool:
    """Whether a connection's two ends are one: who tries a port of this machine often enough is once given it."""
    if connection is None or connection.family == socket.AF_UNIX:
        return False
    try:
        return bool(connection.getsockname() == connection.getpeername())
    except OSError:
        return False


class Peer:
    """Somebody who connected: a stranger at first, then the server, and at last one that another server replaced."""

    def __init__(self, host: Host, connection: socket.socket) -> None:
        self._host = host
        self._loop = host.loop
        self._socket: socket.socket | None = connection
        self._rest = bytearray()
        self._needed = 0
        self._unsent: list[Payload] = []
        """The rest of a frame that was begun, in pieces; empty while everything is taken at once."""
        self._is_deaf = False
        """Whether it has hung up. What it said before is still to be read: its last word, perhaps."""
        self.nonce = os.urandom(32)
        self.is_stranger, self.is_leaving = True, False
        self._loop.watch(connection.fileno(), READ, self._act)
        self._loop.call_later(self, PROOF_PATIENCE, self.drop)

    def challenge(self) -> None:
        """Ask for a proof."""
        self.send([head(CHALLENGE, size=len(self.nonce)), self.nonce])

    @property
    def is_blocked(self) -> bool:
        """Whether it does not take more now."""
        return self._is_deaf or bool(self._unsent)

    def drop(self) -> None:
        """Close the connection. Idempotent."""
        if self._socket is not None:
            self._loop.call_off(self)
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self._host.forget(self)

    def become_server(self) -> None:
        """Note that it has proved itself."""
        self.is_stranger = False
        self._loop.call_off(self)

    def replace(self) -> None:
        """Say that another server has come, and hang up, behind what was begun."""
        self.is_leaving = True
        self._loop.call_later(self, PROOF_PATIENCE, self.drop)
        self.send([head(REPLACED)])
        if self._socket is not None and not self._unsent:
            self.drop()

    def _act(self, events: int) -> None:
        if events & WRITE:
            self._send_more()
        if events & (READ | AT_END) and self._socket is not None:
            self._receive()

    def send(self, pieces: list[Payload]) -> None:
        """Send a frame; what is not taken now goes out when it can."""
        if self._socket is None or self._is_deaf:
            return
        if self._unsent:
            self._unsent += pieces
            return
        try:
            count = self._socket.send(pieces[0]) if len(pieces) == 1 else self._socket.sendmsg(pieces)
        except BlockingIOError:
            count = 0
        except OSError:
            # Whoever reads will notice, and drops it.
            self._is_deaf = True
            return
        for place, piece in enumerate(pieces):
            if count < len(piece):
                self._unsent = [memoryview(piece)[count:], *pieces[place + 1 :]]
                self._loop.watch(self._socket.fileno(), READ | WRITE, self._act)
                return
            count -= len(piece)

    def _send_more(self) -> None:
        pieces, self._unsent = self._unsent, []
        if pieces:
            self.send(pieces)
        if self._socket is None or self._unsent:
            return
        self._loop.watch(self._socket.fileno(), READ, self._act)
        if self.is_leaving:
            self.drop()
        else:
            self._host.push()

    def _receive(self) -> None:
        assert self._socket is not None
        data: bytes | bytearray
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop()
            return
        if self.is_leaving:
            return
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data, self._rest = self._rest, bytearray()
        try:
            self._take(data)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            # No server says that.
            self.drop()

    def _take(self, data: bytes | bytearray) -> None:
        place, limit, self._needed = 0, len(data), HEAD.size
        while limit - place >= HEAD.size:
            kind, channel, _, size, number = HEAD.unpack_from(data, place)
            if self.is_stranger and (kind != ATTACH or size > LARGEST_PROOF):
                raise ValueError
            begin, end = place + HEAD.size, place + HEAD.size + size
            if end > limit:
                self._needed += size
                break
            payload: Payload = memoryview(data)[begin:end] if size >= LARGE else bytes(data[begin:end])
            place = end
            if self.is_stranger:
                self._host.attach(self, payload)
            else:
                self._host.take(kind, channel, number, payload)
            if self._socket is None or self.is_leaving or self._loop.is_over:
                return
        self._rest += memoryview(data)[place:]


class Host:
    """Holds it all together: the kernel, its channels, and the server that there is or is to come."""

    def __init__(self, conf: dict[str, Any], dial: Callable[[dict[str, Any], str], None] | None = None) -> None:
        self.loop = Loop()
        self._conf = conf
        self.kept = 0
        self._stays = conf.get("stays", False)
        self._limit = conf["keep_limit"]
        self._secret = bytes.fromhex(conf["secret"])
        self._abandon_after = conf["abandon_after"]
        self._channels = [Channel(self, number) for number in range(7)]
        self._is_paused = False
        self._server: Peer | None = None
        self._strangers: list[Peer] = []
        self._accepted = self._told = 0
        self._will_tell = False
        """Whether the server will be told after a while what was accepted, if nothing has told it by then."""
        self._news: deque[bytes] = deque()
        self._is_abandoned = self._is_told_to_end = self._has_failed = False
        self._moved = ""
        """Why the kernel starts at home, if it was to start somewhere else."""
        self._signals = wake_on_signals(signal.SIGCHLD, signal.SIGTERM)
        self.loop.watch(self._signals, READ, self._take_signals)
        self.place = Place(conf.get("socket"), conf.get("meet"), conf.get("name"))
        try:
            self._listener = self.place.listen()
            self._kernel = Kernel(self.place.directory)
            self._start()
        except BaseException:
            self.place.remove()
            raise
        self._await_servers()
        self._await_server()
        self._dialer = None
        if dial is not None and conf.get("dial"):
            self._dialer = Dialer(dial, conf["dial"], self.place.socket)
            self._start_dialling()

    def _plan(self, conf: dict[str, Any]) -> tuple[list[str], dict[str, str], str | None]:
        """Return the kernel's arguments, environment and directory."""
        directory = conf["directory"]
        if directory is not None:
            directory = os.path.expanduser(directory)
        actions = conf.get("actions")
        if actions is None:
            return self.place.fill_in(conf["argv"]), conf["environment"], directory
        if directory is not None and not os.path.isdir(directory):
            self._moved = f"{directory} is no directory on {socket.gethostname()}"
            directory = os.path.expanduser("~")
        return self.place.fill_in(conf["argv"]), change(dict(os.environ), actions), directory

    # Servers

    def _await_servers(self) -> None:
        self.loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            self.loop.forget(self._listener.fileno())
            self.loop.call_later("accept", ACCEPT_PAUSE, self._await_servers)
            return
        connection.setblocking(False)
        if len(self._strangers) >= MOST_STRANGERS:
            self._strangers[0].drop()
        self._strangers.append(Peer(self, connection))
        self._strangers[-1].challenge()

    def _await_server(self) -> None:
        if self._abandon_after:
            self.loop.call_later("abandon", self._abandon_after, self._abandon)

    def _abandon(self) -> None:
        self._is_abandoned = True
        if self._kernel.is_running:
            self._terminate()
        else:
            self.loop.is_over = True

    def forget(self, peer: Peer) -> None:
        """A connection is gone."""
        if peer in self._strangers:
            self._strangers.remove(peer)
        if peer is self._server:
            self._server = None
            self._await_server()

    def attach(self, peer: Peer, payload: Payload) -> None:
        """Make somebody the server who proves to be one; raises where that is not so."""
        wish = json.loads(bytes(payload))
        nonce = bytes.fromhex(wish["nonce"])
        positions = {int(number): int(position) for number, position in wish["positions"].items()}
        expected = mac(self._secret, b"server" + peer.nonce + nonce)
        if len(nonce) < 16 or not is_same(bytes.fromhex(wish["proof"]), expected):
            raise ValueError
        before, self._server = self._server, None
        if before is not None:
            before.replace()
        self._strangers.remove(peer)
        peer.become_server()
        self._server = peer
        self._is_abandoned = False
        self.loop.call_off("abandon")
        # What the server before wished is none of this one's.
        self._news.clear()
        self._told = self._accepted
        for channel in self._channels:
            channel.give_up_connecting()
            channel.pace = 0.0
            channel.rewind(positions.get(channel.number, 0))
        peer.send([note(HELLO, self._describe(mac(self._secret, b"host" + nonce + peer.nonce)))])
        self.push()

    def _describe(self, proof: bytes) -> dict[str, Any]:
        return {
            "version": VERSION,
            "proof": proof.hex(),
            "node": socket.gethostname(),
            "connection": self.place.connection,
            "moved": self._moved,
            "host_pid": os.getpid(),
            "pid": self._kernel.pid,
            "started": self._kernel.started,
            "accepted": self._accepted,
            "channels": {
                str(channel.number): {"is_open": channel.is_open, "begin": channel.begin, "end": channel.end}
                for channel in self._channels
            },
            "ended": self._kernel.ended,
            "failed": self._kernel.failed,
        }

    def take(self, kind: int, channel: int, number: int, payload: Payload) -> None:
        """Do what the server says; raises where it makes no sense."""
        if kind == SEND:
            if number:
                if number != self._accepted + 1:
                    return
                self._accepted = number
                if not self._will_tell:
                    self._will_tell = True
                    self.loop.call_later("accepted", ACCEPTED_DELAY, self._tell_accepted)
            if channel == SIGNALS:
                self._kernel.send_signal(int(bytes(payload)))
            else:
                self._socket_channel(channel).write(payload)
        elif kind == CONFIRM:
            self._any_channel(channel).confirm(number)
        elif kind == OPEN:
            family, numbers = json.loads(bytes(payload))
            self._socket_channel(channel).connect(number, family, numbers)
        elif kind == CLOSE:
            self._socket_channel(channel).close()
        elif kind == RELEASE:
            self.loop.is_over = True
        elif kind == PACE:
            self._any_channel(channel).pace = min(number / 1e6, LONGEST_REST)
        elif kind == AGAIN:
            self._start_again(json.loads(bytes(payload)))
        elif kind == ASK:
            self.tell(note(TOLD, describe_tree(self._kernel.pid if self._kernel.is_running else None), 0, number))
        else:
            raise ValueError

    def _start_again(self, changes: dict[str, Any]) -> None:
        """Start the kernel anew, if it has ended, and hang up: who attaches then is told of the new one."""
        assert self._server is not None
        if not self._kernel.is_running and not self._is_told_to_end:
            self._conf.update(changes)
            for channel in self._channels:
                channel.close()
            self._moved = ""
            self._kernel.forget()
            self._start()
        self._server.drop()

    def _start(self) -> None:
        for number, pipe in zip((STDOUT, STDERR), self._kernel.start(*self._plan(self._conf))):
            self._channels[number].open_pipe(pipe)

    def _any_channel(self, channel: int) -> Channel:
        if channel >= len(self._channels):
            raise ValueError
        return self._channels[channel]

    def _socket_channel(self, channel: int) -> Channel:
        if channel not in SOCKETS:
            raise ValueError
        return self._channels[channel]

    # To the server

    def keep(self, channel: Channel, position: int, data: bytes) -> None:
        """Keep what came on a channel, and send it if nothing is before it."""
        self.kept += len(data) + OVERHEAD
        server = self._server
        if server is None or server.is_blocked:
            channel.unsent.append(data)
        else:
            channel.sent.append(data)
            channel.next = channel.end
            beginning = HEAD.pack(DATA, channel.number, 0, len(data), position)
            self._send([beginning + data] if len(data) < LARGE else [beginning, data])
        if self.kept > self._limit:
            self.check_limit()

    def check_limit(self) -> None:
        """Read what may be large, or leave it to the kernel's own queues."""
        is_over = self.kept > self._limit
        if is_over != self._is_paused:
            self._is_paused = is_over
            for number in PATIENT:
                self._channels[number].set_paused(is_over)

    def tell(self, frame: bytes) -> None:
        """Have the server told something, if there is one; the next is told by HELLO."""
        if self._server is not None:
            self._news.append(frame)
            self.push()

    def _tell_accepted(self) -> None:
        self._will_tell = False
        if self._server is None or self._told == self._accepted:
            return
        if self._server.is_blocked:
            self._will_tell = True
            self.loop.call_later("accepted", ACCEPTED_DELAY, self._tell_accepted)
        else:
            self._send([])

    def _send(self, pieces: list[Payload]) -> None:
        assert self._server is not None
        if self._told != self._accepted:
            self._told = self._accepted
            accepted = head(ACCEPTED, number=self._accepted)
            pieces = [accepted + pieces[0], *pieces[1:]] if pieces else [accepted]
        self._server.send(pieces)

    def push(self) -> None:
        """Send what waits, as much as the server takes."""
        while self._server is not None and not self._server.is_blocked:
            frame = self._next_frame()
            if frame is None:
                return
            self._send([*frame])

    def _next_frame(self) -> list[bytes] | None:
        if self._news:
            return [self._news.popleft()]
        for number in LINE:
            frame = self._channels[number].next_frame()
            if frame is not None:
                return frame
        return None

    # The kernel

    def _take_signals(self, _events: int) -> None:
        numbers = os.read(self._signals, 512)
        if signal.SIGTERM in numbers:
            self._is_told_to_end = True
            self._terminate()
        if signal.SIGCHLD in numbers:
            self._look_at_children()
        is_leaving = self._stays and self._is_told_to_end and not self._kernel.is_running
        if is_leaving and not self.loop.will_call("leave"):
            # A server that has taken everything lets go of it.
            self.loop.call_later("leave", LAST_PATIENCE, self.loop.end)

    def _start_dialling(self) -> None:
        assert self._dialer is not None
        try:
            self._dialer.start()
        except OSError:
            # A job may have as many processes as it is allowed to.
            self.loop.call_later("dial", DIAL_PAUSE, self._start_dialling)

    def _look_at_children(self) -> None:
        if self._kernel.look():
            self.loop.call_off("kill")
            self.tell(note(ENDED, self._kernel.ended))
            if self._is_abandoned:
                self.loop.is_over = True
        if self._dialer is not None and self._dialer.look():
            self.loop.call_later("dial", DIAL_PAUSE, self._start_dialling)
        if self._stays:
            dialer = None if self._dialer is None else self._dialer.pid
            reap_orphans({self._kernel.pid, self._kernel.guardian, dialer})

    def _terminate(self) -> None:
        """End the kernel: ask it to, then kill it. To be told again puts nothing off."""
        self._kernel.send_signal(signal.SIGTERM)
        if not self.loop.will_call("kill"):
            self.loop.call_later("kill", TERM_PATIENCE, lambda: self._kernel.send_signal(signal.SIGKILL))

    def run(self) -> None:
        """Go on to the end, and leave nothing."""
        try:
            self.loop.run()
        except Exception:
            self._has_failed = True
            # It has to be in the log before that is left or removed.
            sys.excepthook(*sys.exc_info())
        finally:
            if self._dialer is not None:
                self._dialer.end()
            self.place.remove(keeps_log=self._has_failed)
            self._kernel.end()

    @property
    def code(self) -> int:
        """The exit code of who is what was started: the kernel's, and for a signal what shells make of it."""
        ended = self._kernel.ended
        if self._has_failed:
            return 1
        if ended is None:
            return CANNOT_START
        code: int = ended["code"] if ended["signal"] is None else 128 + ended["signal"]
        return code


class Place:
    """Where a host's files are: its socket, and in a private directory of its own what its kernel is told.

    The directory is one for temporary files. What ``XDG_RUNTIME_DIR`` names would be gone when its owner's last session
    on this machine ends: with the connection that the kernel is to outlive.

    Args:
        socket_path: Where to listen; None for in a private directory.
        meet: The members of a connection document without ports and address; None if the kernel is not to be given one.
        name: What is last in the private directory's name; None for something random.

    Raises:
        OSError: There is no place, or no port left; or another host has that name.
    """

    def __init__(self, socket_path: str | None, meet: dict[str, Any] | None, name: str | None) -> None:
        self.directory: str | None = None
        self.connection: dict[str, Any] | None = None
        self._file: str | None = None
        self._is_listening = False
        self._held: list[socket.socket] = []
        if socket_path is None or meet is not None:
            self.directory = make_private_directory(name or os.urandom(6).hex())
        self.socket = socket_path or os.path.join(self.directory or "", SOCKET)
        if meet is not None:
            try:
                self._prepare_meeting(meet)
            except BaseException:
                self.remove()
                raise

    def _prepare_meeting(self, meet: dict[str, Any]) -> None:
        assert self.directory is not None
        if meet.get("transport") == "ipc":
            # A socket's path is this, a hyphen, and the number.
            ip, numbers = os.path.join(self.directory, "kernel"), list(range(1, len(PORTS) + 1))
        else:
            ip, self._held = "127.0.0.1", hold_ports("127.0.0.1", len(PORTS))
            numbers = [held.getsockname()[1] for held in self._held]
            if sys.platform != "linux":
                # There the kernel could not have them.
                self._let_go()
        self.connection = {"transport": "tcp", **meet, "ip": ip, **dict(zip(PORTS, numbers))}
        self._file = os.path.join(self.directory, "connection.json")
        with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self.connection, file, indent=2)

    def listen(self) -> socket.socket:
        """Listen, and return the socket.

        Raises:
            OSError: It cannot be done: another host listens there, for one.
        """
        listener = listen(self.socket)
        self._is_listening = True
        return listener

    def fill_in(self, argv: list[str]) -> list[str]:
        """Return arguments with the path of the connection file where it belongs."""
        file = self._file
        return argv if file is None else [argument.replace("{connection_file}", file) for argument in argv]

    def open_log(self) -> None:
        """Have errors written to a file in the private directory."""
        assert self.directory is not None
        path = os.path.join(self.directory, LOG)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def _let_go(self) -> None:
        for held in self._held:
            held.close()
        self._held = []

    def remove(self, keeps_log: bool = False) -> None:
        """Leave nothing of it, or only a log that says something. Idempotent."""
        self._let_go()
        try:
            if self._is_listening:
                os.unlink(self.socket)
        except OSError:
            # Somebody has removed it, perhaps with the directory.
            pass
        self._is_listening = False
        if self.directory is not None:
            remove_directory(self.directory, keeps_log)


def make_private_directory(name: str) -> str:
    """Make a directory that only its owner may look into, and return its absolute path.

    Args:
        name: What comes last in its name.

    Raises:
        OSError: There is none in which one can be made, or it is there already.
    """
    for parent in (os.environ.get("TMPDIR", ""), "/tmp"):  # noqa: S108  # nobody else's is taken
        path = os.path.join(parent, PREFIX + name)
        if os.path.isabs(path) and len(os.fsencode(path)) <= LONGEST_PLACE and os.path.isdir(parent):
            sweep(parent)
            os.mkdir(path, 0o700)
            os.symlink(socket.gethostname(), os.path.join(path, NODE))
            return path
    raise FileNotFoundError(errno.ENOENT, "there is no directory for temporary files")


def sweep(parent: str) -> None:
    """Remove the private directories of our user's hosts that were killed with their guardians, as batch systems kill
    jobs: nobody else is left to do that.
    """
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith(PREFIX)]
    except OSError:
        return
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            # Temporary files may be shared by machines, and a socket of another one looks deserted here.
            if is_ours and os.readlink(os.path.join(entry.path, NODE)) == socket.gethostname():
                # One that was made just now is perhaps not listening yet.
                is_old = time.time() - found.st_mtime > STARTING
                if is_old and is_deserted(os.path.join(entry.path, SOCKET)):
                    remove_directory(entry.path, keeps_log=True)
        except OSError:
            # It is gone, or nothing of ours.
            continue


def remove_directory(path: str, keeps_log: bool) -> None:
    """Remove a directory with the files in it, as far as that can be done.

    Args:
        path: Its path.
        keeps_log: Whether to leave a log that says something.
    """
    try:
        for entry in list(os.scandir(path)):
            if not keeps_log or entry.name != LOG or not entry.stat().st_size:
                os.unlink(entry.path)
        os.rmdir(path)
    except OSError:
        # Somebody has removed it before, or put something else into it.
        pass


def hold_ports(ip: str, count: int) -> list[socket.socket]:
    """Return sockets that are bound to free ports. On Linux they keep these from being given to others, and not from
    a kernel whose sockets have the same option: libzmq's have.
    """
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            held = socket.socket()
            sockets.append(held)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((ip, 0))
    except OSError:
        for held in sockets:
            held.close()
        raise
    return sockets


class Dialer:
    """A child of this program that connects to the server again and again, and carries bytes between it and the socket
    on which this program listens: so whoever comes that way is one more who connects.

    Args:
        dial: What it does, and never returns from; see `kallichore/host/dial.py`.
        server: Where it connects to, and as what.
        path: That socket.
    """

    def __init__(self, dial: Callable[[dict[str, Any], str], None], server: dict[str, Any], path: str) -> None:
        self._dial, self._server, self._path = dial, server, path
        self.pid: int | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: There cannot be another process.
        """
        pid = os.fork()
        if not pid:
            try:
                # Who looks after this one kills it.
                become_helper(stderr=2)
                die_with_parent()
                self._dial(self._server, self._path)
            except Exception:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        self.pid = pid

    def look(self) -> bool:
        """Reap it if it has ended; return whether that was so."""
        has_ended = self.pid is not None and reap(self.pid, os.WNOHANG) is not None
        if has_ended:
            self.pid = None
        return has_ended

    def end(self) -> None:
        """Kill it, if there is one, and wait for it."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None


def reap_orphans(own: set[int | None]) -> None:
    """Reap children that this program did not make: those that lost their parent, if it is process 1 of a container."""
    while hasattr(os, "waitid"):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            # Whoever made that one was told of it just now, and will look.
            return
        os.waitpid(found.si_pid, 0)


def listen(path: str) -> socket.socket:
    """Listen on a socket that only its owner may connect to; one that is left of a host that is gone makes way."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        if is_deserted(path):
            os.unlink(path)
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(MOST_STRANGERS)
    listener.setblocking(False)
    return listener


def is_deserted(path: str) -> bool:
    """Whether there is a socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def wake_on_signals(*numbers: int) -> int:
    """Return a descriptor from which the numbers of signals can be read as they come."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return readable


class Kernel:
    """The kernel's process, which leads a group; and a guardian, which kills that group when this program is killed."""

    def __init__(self, directory: str | None) -> None:
        self.pid: int | None = None
        self.started = time.time()
        self._directory = directory
        self.ended: dict[str, Any] | None = None
        self.failed: dict[str, Any] | None = None
        self._memory_kills = count_memory_kills()
        self._was_killed = False
        self.guardian, self._guard = start_guardian(directory)

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.pid is not None and self.ended is None

    def forget(self) -> None:
        """Forget a process that has ended, or could not be started: another is to be."""
        self.pid = self.ended = self.failed = None
        self.started = time.time()
        self._memory_kills = count_memory_kills()
        self._was_killed = False

    def start(self, argv: list[str], environment: dict[str, str], directory: str | None) -> tuple[int, ...]:
        """Start the process; return the pipes that it writes to, none if it could not be started."""
        (out, out_there), (err, err_there), (report, report_there) = os.pipe(), os.pipe(), os.pipe()
        pid = os.fork()
        if not pid:
            become_kernel(argv, environment, directory, self._guard, (out_there, err_there), report_there)
        for descriptor in (out_there, err_there, report_there):
            os.close(descriptor)
        with open(report, "rb") as file:
            failure = file.read()
        if failure:
            os.waitpid(pid, 0)
            self._guard_group(0)
            os.close(out)
            os.close(err)
            self.failed = json.loads(failure)
            return ()
        self.pid = pid
        return out, err

    def _guard_group(self, group: int) -> None:
        try:
            os.write(self._guard, GROUP.pack(group))
        except OSError:
            # It is gone, and will be replaced.
            pass

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel's group, if the kernel has not ended."""
        if self.pid is not None and self.is_running:
            self._was_killed |= number == signal.SIGKILL
            kill_group(self.pid, number)

    def look(self) -> bool:
        """See what child ended; return whether it was the kernel."""
        if reap(self.guardian, os.WNOHANG) is not None:
            os.close(self._guard)
            self.guardian, self._guard = start_guardian(self._directory)
            self._guard_group(self.pid if self.pid is not None and self.is_running else 0)
        return self._look_at_kernel(os.WNOHANG)

    def _look_at_kernel(self, options: int) -> bool:
        """Reap the kernel if it has ended; return whether that was so."""
        pid = self.pid
        if pid is None or self.ended is not None:
            return False
        reaped = reap(pid, options, lambda: self._end_group(pid))
        if reaped is not None:
            self._note_end(*reaped)
        return reaped is not None

    def _end_group(self, group: int) -> None:
        """Kill what is left of the kernel's group, and have it guarded no more."""
        kill_group(group, signal.SIGKILL)
        self._guard_group(0)

    def _note_end(self, status: int, usage: resource.struct_rusage) -> None:
        peak = to_kib(usage.ru_maxrss)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        # The machine kills with SIGKILL. The count is not this process's: an own kill, or another signal, is no proof.
        is_suspect = number == signal.SIGKILL and not self._was_killed
        self.ended = {
            "code": os.WEXITSTATUS(status) if number is None else None,
            "signal": number,
            # A process begins with the peak of the one that made it, and with less it tells nothing of its own.
            "peak_kib": peak if peak > to_kib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) else None,
            "memory_kill": is_suspect and count_memory_kills() > self._memory_kills,
            **describe_limit(),
        }

    def end(self) -> None:
        """Kill what is left, and wait for it; then let the guardian go."""
        self.send_signal(signal.SIGKILL)
        self._look_at_kernel(0)
        os.close(self._guard)
        os.waitpid(self.guardian, 0)


def to_kib(size: int) -> int:
    """Return a peak as the system tells it, in KiB: macOS tells bytes."""
    return size // 1024 if sys.platform == "darwin" else size


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group, if it is there and ours, and there is such a signal."""
    try:
        os.killpg(group, number)
    except OSError:
        pass


def reap(
    pid: int, options: int, before: Callable[[], None] = lambda: None
) -> tuple[int, resource.struct_rusage] | None:
    """Reap a child that has ended, and call a function while its zombie stands: until it is reaped, its group's number
    cannot be somebody else's. Where the system has no way to do that, which is macOS, the function is called at once
    after it.

    Args:
        pid: The child.
        options: ``os.WNOHANG`` to return None where it has not ended; 0 to wait.
        before: The function.
    """
    if hasattr(os, "waitid"):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | options) is None:
            return None
        before()
        _, status, usage = os.wait4(pid, 0)
        return status, usage
    found, status, usage = os.wait4(pid, options)
    if not found:
        return None
    before()
    return status, usage


GROUP = struct.Struct("i")


def start_guardian(directory: str | None) -> tuple[int, int]:
    """Start what kills the kernel's group when this program is gone, and removes its private directory if it has one;
    return its process, and a pipe to it.

    It is told the number of the group, or 0 for none, and acts when the pipe ends, however that comes about.
    """
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            guard(readable)
            if directory is not None:
                remove_directory(directory, keeps_log=True)
        finally:
            os._exit(0)
    os.close(readable)
    return pid, writable


def guard(pipe: int) -> None:
    """Be the guardian: read to the end of the pipe, and kill the group named last."""
    become_helper(pipe)
    group, told = 0, os.read(0, GROUP.size)
    while told:
        group = GROUP.unpack(told)[0]
        told = os.read(0, GROUP.size)
    if group > 1:
        kill_group(group, signal.SIGKILL)


def become_helper(stdin: int | None = None, stderr: int | None = None) -> None:
    """Be a child that goes on whatever others are told to do, and has nothing of this program but an input, or where
    errors are written to.
    """
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number, descriptor in enumerate((null if stdin is None else stdin, null, null if stderr is None else stderr)):
        os.dup2(descriptor, number)
    os.closerange(3, MOST_DESCRIPTORS)


def become_kernel(
    argv: list[str], environment: dict[str, str], directory: str | None, guard: int, pipes: tuple[int, int], report: int
) -> NoReturn:
    """Become the kernel, in a child that was just made; never returns. Why it could not is written to ``report``."""
    place = directory
    try:
        signal.set_wakeup_fd(-1)
        os.setpgid(0, 0)
        # From here on its group ends with this program's parent, whatever happens to that.
        os.write(guard, GROUP.pack(os.getpid()))
        die_with_parent()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, number in ((null, 0), (pipes[0], 1), (pipes[1], 2)):
            os.dup2(descriptor, number)
        restore_signals()
        if directory is not None:
            os.chdir(directory)
        place = argv[0]
        os.execvpe(argv[0], argv, environment)  # noqa: S606  # as it was asked for
    except OSError as error:
        failure = {"errno": error.errno, "filename": place, "message": error.strerror or str(error)}
    except Exception as error:
        failure = {"errno": errno.EINVAL, "filename": place, "message": str(error)}
    os.write(report, json.dumps(failure).encode())
    os._exit(127)


def die_with_parent() -> None:
    """Have this process killed when its parent is, where the system can: should the guardian fail, for one."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    except (ImportError, OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(127)


def restore_signals() -> None:
    """Have the usual signals, as far as they were before this program changed them."""
    for name in ("SIGPIPE", "SIGXFSZ", "SIGTERM", "SIGCHLD", "SIGINT", "SIGHUP"):
        number = getattr(signal, name)
        if IGNORED.get(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


IGNORED: dict[int, Any] = {}
"""What was done for signals that this program ignores, before it did."""


def ignore_signals() -> None:
    """Ignore what is meant for a terminal's programs: this one goes on."""
    for number in (signal.SIGINT, signal.SIGHUP):
        IGNORED[number] = signal.signal(number, signal.SIG_IGN)


def read_bytes(path: str) -> bytes:
    """Return what a small file of the system has; nothing where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, PIECE)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def read_text(path: str) -> str:
    """Return the same as text."""
    return read_bytes(path).decode("utf-8", "replace")


def own_groups() -> list[tuple[bool, str]]:
    """Return the control groups that account for this process's memory, and whether each is of version 1 (cgroups(7)).

    In a container, the path that the system tells is often not to be seen, and the group is the root of what is.
    """
    groups = []
    for line in read_text(PROC + "/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        is_first = "memory" in controllers.split(",")
        if number == "0" or is_first:
            root = GROUPS + "/memory" if is_first else GROUPS
            # Seen from a container, the way to a group may lead up first.
            place = "/".join([root, *(part for part in path.split("/") if part not in ("", ".."))])
            groups.append((is_first, place if os.path.isdir(place) else root))
    return groups


def count_memory_kills() -> int:
    """Return how many processes were killed for memory so far: in our control group, or where it does not tell, on the
    whole machine, which others use as well; 0 where nothing is told.
    """
    texts = [
        read_text(place + ("/memory.oom_control" if is_first else "/memory.events")) for is_first, place in own_groups()
    ]
    counts = find_kills("\n".join(texts)) or find_kills(read_text(PROC + "/vmstat"))
    return sum(counts)


def change(environment: dict[str, str], actions: list[list[str]]) -> dict[str, str]:
    """Return an environment as it is after changes: values that are put in the place of what is there, or beside it."""
    for action, name, value in actions:
        before = environment.get(name, "")
        environment[name] = {"append": before + value, "prepend": value + before}.get(action, value)
    return environment


def find_kills(text: str) -> list[int]:
    """Return the counts of killed processes in a file of counters."""
    lines = (line.split() for line in text.splitlines())
    return [int(line[1]) for line in lines if line[:1] == ["oom_kill"]]


def describe_limit() -> dict[str, int | None]:
    """Return the smallest limit of memory that our control groups have, and the most that was used of it, in KiB."""
    found = []
    for is_first, group in own_groups():
        names = ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if is_first else ("memory.max", "memory.peak")
        while len(group) >= len(GROUPS):
            limit, peak = (read_text(group + "/" + name).strip() for name in names)
            # Without a limit version 2 says so in a word, and version 1 has the largest number.
            if limit.isdigit() and int(limit) < NO_LIMIT:
                found.append((int(limit) // 1024, int(peak) // 1024 if peak.isdigit() else None))
            group = group.rpartition("/")[0]
    limit_kib, peak_kib = min(found, key=lambda each: each[0], default=(None, None))
    return {"limit_kib": limit_kib, "group_peak_kib": peak_kib}


def describe_tree(pid: int | None) -> dict[str, Any]:
    """Return what a process and all below it use, and where and how that process is; null is what is not known.

    The CPU time has in it that of children which have ended and were waited for, so that it does not shrink.
    """
    told: dict[str, Any] = dict.fromkeys(("directory", "memory", "cpu_seconds", "processes", "threads", "is_stopped"))
    table = (read_table(pid) or ask_for_table()) if pid is not None else {}
    if pid not in table:
        return told
    tree = find_tree(pid, table)
    threads = [row[4] for row in tree]
    told["memory"] = sum(row[3] for row in tree)
    told["cpu_seconds"] = round(sum(row[2] for row in tree), 2)
    told["processes"] = len(tree)
    told["threads"] = None if None in threads else sum(threads)
    told["is_stopped"] = table[pid][1] == "T"
    try:
        told["directory"] = os.readlink(f"{PROC}/{pid}/cwd")
    except OSError:
        pass
    return told


def find_tree(pid: int, table: dict[int, Any]) -> list[Any]:
    """Return the rows of a process and of all below it; what has ended and was not waited for uses nothing."""
    children: dict[int, list[int]] = {}
    for each, row in table.items():
        children.setdefault(row[0], []).append(each)
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        waiting += children.get(each, ())
        if table[each][1] != "Z":
            found.append(table[each])
    return found


def read_table(pid: int) -> dict[int, Any]:
    """Return of a process and of those below it, and perhaps of others, the parent, state, CPU seconds, resident bytes
    and threads, from Linux's files (proc(5)); nothing where there are none.
    """
    if sys.platform != "linux":
        return {}
    own = os.getpid()
    if os.path.exists(f"{PROC}/{own}/task/{own}/children"):
        # Who the children are is told, so no other process has to be looked at.
        pids = find_descendants(pid)
    else:
        pids = [int(name) for name in os.listdir(PROC) if name.isdigit()]
    rows = {each: read_process(each) for each in pids}
    return {each: row for each, row in rows.items() if row is not None}


def read_process(pid: int) -> Any:
    """Return that of one process on Linux; None if it is gone."""
    # The program's name is in parentheses and may have anything in it, more parentheses too.
    row = read_bytes(f"{PROC}/{pid}/stat").rpartition(b")")[2].split()
    if not row:
        return None
    cpu = sum(map(int, row[11:15])) / os.sysconf("SC_CLK_TCK")
    return int(row[1]), row[0].decode(), cpu, int(row[21]) * os.sysconf("SC_PAGE_SIZE"), int(row[17])


def find_descendants(pid: int) -> list[int]:
    """Return a process and all below it, as Linux tells it: the children of each by the thread that made them."""
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        try:
            threads = os.listdir(f"{PROC}/{each}/task")
        except OSError:
            continue
        for thread in threads:
            waiting += map(int, read_bytes(f"{PROC}/{each}/task/{thread}/children").split())
    return found


def ask_for_table() -> dict[int, Any]:
    """Return the same as `read_table` from ``ps``, which does not tell of threads; nothing where it does not answer."""
    import subprocess

    columns = [argument for name in ("pid", "ppid", "state", "time", "rss") for argument in ("-o", name + "=")]
    try:
        said = subprocess.run(["ps", "-A", *columns], stdout=subprocess.PIPE, timeout=PS_PATIENCE, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return {}
    table = {}
    for line in said.decode(errors="replace").splitlines():
        row = line.split()
        if len(row) == 5:
            table[int(row[0])] = (int(row[1]), row[2][:1], read_time(row[3]), int(row[4]) * 1024, None)
    return table


def read_time(text: str) -> float:
    """Return the seconds of a time as ``ps`` writes it: minutes and seconds, behind hours and days where there are."""
    days, _, rest = text.rpartition("-")
    seconds = 0.0
    for part in rest.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds + int(days or 0) * 86400


def remove_own_log() -> None:
    """Remove the file that errors are written to, if it is in this directory and empty."""
    found = os.fstat(2)
    try:
        for entry in os.scandir("."):
            if not found.st_size and os.path.samestat(found, entry.stat(follow_symlinks=False)):
                os.unlink(entry.path)
    except OSError:
        # The directory may be gone.
        pass


def detach(conf: dict[str, Any]) -> None:
    """Go on as a child that nobody has to wait for: that is process 1's work from the first moment."""
    if os.fork():
        os._exit(0)
    if "socket" not in conf:
        # Where that one was started from far away, the connection ends when nobody has its ends, and its session's
        # programs may be ended with it.
        os.setsid()


def point_to_null(*descriptors: int) -> None:
    """Have nothing more to read from some descriptors, nor anything written to them."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def run(conf: dict[str, Any], dial: Callable[[dict[str, Any], str], None] | None = None) -> int:
    """Start the kernel, and go on until a server lets go of it; return the exit code.

    It says one line: ``ready`` and a JSON object with its process and the path of its socket, or ``failed:`` and why.

    Args:
        conf: What to do, see above.
        dial: What connects to the server that is named in it, see `kallichore/host/dial.py`.
    """
    stays, is_local = conf.get("stays", False), "socket" in conf
    if not stays:
        detach(conf)
    point_to_null(0)
    ignore_signals()
    try:
        host = Host(conf, dial)
        if not stays and not is_local:
            # Who started it may be waiting for the end of its errors, as of what it says.
            host.place.open_log()
    except OSError as error:
        os.write(1, f"failed: {error}\n".encode())
        return 1
    try:
        os.write(1, "ready {}\n".format(json.dumps({"pid": os.getpid(), "socket": host.place.socket})).encode())
    except OSError:
        # Nobody will know of it.
        host.loop.is_over = not stays
    if not stays:
        point_to_null(1)
    host.run()
    if is_local:
        remove_own_log()
    return host.code if stays else 0


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.stdin.buffer.read())))
