"""Where a session's server and its kernel meet: at ports that the server chose, or at those that the kernel registers.

The classic way, a connection file tells the kernel which ports to bind, which are reserved until it has them, or which
Unix sockets; and with which keys to encrypt, if it is to. The other way (JEP 66), a registration file tells it where to
report the ports that it found. Either file holds the session's key. All keys stay the same over all its kernels.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import trio

from kallichore.errors import ConfigurationError, ConnectionInfoError, StartupError, StartupReason
from kallichore.kernel.connection_choice import ConnectionChoice, check_encryption, choose_connection
from kallichore.kernel.launch_plan import CONNECTION_FILE, safe_name
from kallichore.kernel.ports import PortReservation, reserve_ports
from kallichore.models.bodies import ConnectionInfo, KernelTransport, NewSession
from kallichore.session.facilities import Facilities, utc_date
from kallichore.session.kernel_files import open_kernel_file
from kallichore.session.life import Meet
from kallichore.wire.client_messages import Sender
from kallichore.wire.connection_info import PORT_NAMES, connection_document, registration_document
from kallichore.wire.curve_keys import CurveKeys, read_keys
from kallichore.wire.signing import Signer

IPC_PORTS = (1, 2, 3, 4, 5)
"""What stands for ports where a kernel's sockets are files: their paths end in it, as jupyter_client has them."""


@attrs.define(eq=False)
class MeetingPlace:
    """The connection information of one session, over all its kernels.

    Args:
        request: What the session was created with.
        key: The key that signs messages.
        facilities: The server's things.
        directory: Where the kernel's files go.
        has_host: Whether a host beside its kernels carries what they say.
    """

    request: NewSession
    key: str
    facilities: Facilities
    directory: Path
    has_host: bool = False
    is_left: bool = attrs.field(default=False, init=False)
    """Whether the kernel was left to the next server, with its files."""
    info: ConnectionInfo | None = attrs.field(default=None, init=False)
    """Where the kernel is, or is to be."""
    is_promised: bool = attrs.field(default=False, init=False)
    """Whether somebody was told where a kernel is to be that is not there yet."""
    _reservation: PortReservation | None = attrs.field(default=None, init=False)
    _paths: str = attrs.field(init=False)
    """What the paths of the kernel's sockets begin with, where they are files."""
    _keys: CurveKeys | None = attrs.field(default=None, init=False)
    """With what its kernels encrypt; made for the first that does."""

    def __attrs_post_init__(self) -> None:
        self._paths = str(self.directory / f"ipc-{secrets.token_hex(4)}")

    def ports_info(self) -> ConnectionInfo:
        """Return where the kernel is, or is to be: ports are reserved if there are none yet.

        Raises:
            ConnectionInfoError: There are no free ports, or the connection that the session asks for cannot be had.
        """
        if self.info is None:
            self.is_promised = True
            try:
                self.info = ConnectionInfo(**self._document(self.choose()))
            except StartupError as error:
                raise ConnectionInfoError(error.message) from error
        return self.info

    def check_adopted(self, info: ConnectionInfo) -> None:
        """See whether a kernel that is there already can be talked to.

        Raises:
            StartupError: ``KS-6``: a key is none, the signature scheme is unknown, or it does not encrypt and has to.
        """
        try:
            Signer(info.key, info.signature_scheme)
            read_keys(info.curve_publickey, info.curve_secretkey)
        except ConfigurationError as error:
            raise StartupError("KS-6", error.message) from error
        check_encryption(self.request, self.facilities.config, info)

    def release_ports(self) -> None:
        """Let go of reserved ports: the kernel has them, or no kernel will."""
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    @asynccontextmanager
    async def open_connection(self) -> AsyncIterator[tuple[Path, Meet]]:
        """Write a connection file; yield its path, and what is awaited to learn where the kernel is.

        Leaving removes the file and the kernel's sockets, and lets go of the ports.

        Raises:
            StartupError: ``KS-5``, no free ports, no file, or no connection as the session asks for it.
        """
        choice = self.choose()
        try:
            document = self._document(choice)
        except ConnectionInfoError as error:
            raise StartupError("KS-5", error.message, reason=StartupReason.NO_RESOURCES) from error
        self.info = info = ConnectionInfo(**document)
        self.is_promised = False

        async def meet() -> ConnectionInfo:
            return info

        try:
            with open_kernel_file(self._file("connection"), document, stays=lambda: self.is_left) as path:
                yield path, meet
        finally:
            self.release_ports()
            if choice.transport is KernelTransport.IPC and not self.is_left:
                self._remove_sockets()

    @asynccontextmanager
    async def open_elsewhere(self) -> AsyncIterator[tuple[Path, Meet]]:
        """Leave it to whoever places the kernel to say where it is; see `learn`. Yield what stands for a file's path in
        a command line, and what is awaited to learn where the kernel is.
        """

        yield Path(CONNECTION_FILE), self.known

    async def known(self) -> ConnectionInfo:
        """Return where the kernel is, as `learn` was told."""
        assert self.info is not None
        return self.info

    def learn(self, info: ConnectionInfo) -> None:
        """Take where a kernel is, from whoever placed it.

        Raises:
            StartupError: ``KS-6``, it cannot be talked to as the session asks for it.
        """
        self.check_adopted(info)
        self.info = info

    @contextmanager
    def open_found(self, info: ConnectionInfo | None) -> Iterator[None]:
        """Know where a kernel is that a server before this one launched; leaving removes its files, as theirs does.

        Args:
            info: Where it is; None if it has not registered.
        """
        self.info = info
        try:
            yield
        finally:
            if not self.is_left:
                for kind in ("connection", "registration"):
                    with suppress(OSError):
                        self._file(kind).unlink()
                if info is not None and info.transport == KernelTransport.IPC.value:
                    self._paths = info.ip
                    self._remove_sockets()

    @asynccontextmanager
    async def open_handshake(
        self, sender: Sender, timeout: float, on_registered: Callable[[ConnectionInfo], None]
    ) -> AsyncIterator[tuple[Path, Meet]]:
        """Wait for a kernel's registration (JEP 66); yield the registration file's path, and what is awaited for it.

        Args:
            sender: Who the kernel is told the reply comes from.
            timeout: Seconds that the kernel may take; negative for no limit.
            on_registered: Called when it has registered.

        Raises:
            StartupError: ``KS-17``, there is no socket to register at; ``KS-5``, no file, or no connection as the
                session asks for it.
        """
        self.choose()
        async with AsyncExitStack() as stack:
            registration = await stack.enter_async_context(self.facilities.desk.open(Signer(self.key)))
            document = registration_document(registration.port, self.key)
            path = stack.enter_context(open_kernel_file(self._file("registration"), document))

            async def meet() -> ConnectionInfo:
                with trio.move_on_after(timeout if timeout >= 0 else float("inf")):
                    ports = await registration.receive(sender, lambda: (str(uuid4()), utc_date()))
                    found = [getattr(ports, name) for name in PORT_NAMES]
                    self.info = ConnectionInfo(**connection_document(found, self.key))
                    on_registered(self.info)
                    return self.info
                reason = f": {registration.refused[-1]}" if registration.refused else ""
                named = f"The kernel of session {self.request.session_id}"
                text = f"{named} did not register within {timeout:g} seconds{reason}"
                raise StartupError("KS-17", text)

            yield path, meet

    def _file(self, kind: str) -> Path:
        return self.directory / f"{kind}-{safe_name(self.request.session_id)}.json"

    def choose(self) -> ConnectionChoice:
        """Return how the session's kernels are connected.

        Raises:
            StartupError: ``KS-5``, it cannot be had as the session asks for it.
        """
        return choose_connection(
            self.request, self.facilities.config, sys.platform, can_encrypt, has_host=self.has_host
        )

    def _document(self, choice: ConnectionChoice) -> dict[str, Any]:
        """Return the connection file's members. The keys in it stay the same over all kernels of the session."""
        keys = None
        if choice.encrypts:
            keys = self._keys = self._keys or _make_keys()
        if choice.transport is KernelTransport.IPC:
            return connection_document(IPC_PORTS, self.key, self._paths, "ipc", keys)
        return connection_document(self._reserve(), self.key, keys=keys)

    def _remove_sockets(self) -> None:
        for port in IPC_PORTS:
            with suppress(OSError):
                os.unlink(f"{self._paths}-{port}")

    def _reserve(self) -> Sequence[int]:
        if self._reservation is None:
            self._reservation = reserve_ports(taken=self.facilities.taken_ports)
        return self._reservation.ports


def can_encrypt() -> bool:
    """Return whether this server can encrypt what it says to kernels."""
    # Not before it is needed: libzmq takes a while to load.
    from kallichore.zeromq import curve_socket

    return curve_socket.can_encrypt()


def _make_keys() -> CurveKeys:
    from kallichore.zeromq.curve_socket import make_keys

    return make_keys()
