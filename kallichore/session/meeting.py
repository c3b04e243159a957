"""Where a session's server and its kernel meet: at ports that the server chose, or at those that the kernel registers.

The classic way, a connection file tells the kernel which ports to bind; they are reserved until it has them. The other
way (JEP 66), a registration file tells it where to report the ports that it found. Either file holds the session's
key, which stays the same over all its kernels.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import attrs
import trio

from kallichore.errors import ConnectionInfoError, StartupError, StartupReason
from kallichore.kernel.launch_plan import safe_name
from kallichore.kernel.ports import PortReservation, reserve_ports
from kallichore.models.bodies import ConnectionInfo
from kallichore.session.facilities import Facilities, utc_date
from kallichore.session.kernel_files import open_kernel_file
from kallichore.wire.client_messages import Sender
from kallichore.wire.connection_info import PORT_NAMES, connection_document, registration_document
from kallichore.wire.signing import Signer

Meet = Callable[[], Awaitable[ConnectionInfo]]


@attrs.define(eq=False)
class MeetingPlace:
    """The connection information of one session, over all its kernels.

    Args:
        session_id: The session.
        key: The key that signs messages.
        facilities: The server's things.
    """

    session_id: str
    key: str
    facilities: Facilities
    info: ConnectionInfo | None = attrs.field(default=None, init=False)
    """Where the kernel is, or is to be."""
    _reservation: PortReservation | None = attrs.field(default=None, init=False)

    def ports_info(self) -> ConnectionInfo:
        """Return where the kernel is, or is to be: ports are reserved if there are none yet.

        Raises:
            ConnectionInfoError: There are no free ports.
        """
        if self.info is None:
            self.info = self._to_info(self._reserve())
        return self.info

    def release_ports(self) -> None:
        """Let go of reserved ports: the kernel has them, or no kernel will."""
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    @asynccontextmanager
    async def open_connection(self) -> AsyncIterator[tuple[Path, Meet]]:
        """Write a connection file; yield its path, and what is awaited to learn where the kernel is.

        Leaving removes the file and lets go of the ports.

        Raises:
            StartupError: ``KS-5``, no free ports, or no file.
        """
        try:
            ports = self._reserve()
        except ConnectionInfoError as error:
            raise StartupError("KS-5", error.message, reason=StartupReason.NO_RESOURCES) from error
        self.info = info = self._to_info(ports)

        async def meet() -> ConnectionInfo:
            return info

        try:
            with open_kernel_file(self._file("connection"), connection_document(ports, self.key)) as path:
                yield path, meet
        finally:
            self.release_ports()

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
            StartupError: ``KS-17``, there is no socket to register at; ``KS-5``, no file.
        """
        async with AsyncExitStack() as stack:
            registration = await stack.enter_async_context(self.facilities.desk.open(Signer(self.key)))
            document = registration_document(registration.port, self.key)
            path = stack.enter_context(open_kernel_file(self._file("registration"), document))

            async def meet() -> ConnectionInfo:
                with trio.move_on_after(timeout if timeout >= 0 else float("inf")):
                    ports = await registration.receive(sender, lambda: (str(uuid4()), utc_date()))
                    self.info = self._to_info([getattr(ports, name) for name in PORT_NAMES])
                    on_registered(self.info)
                    return self.info
                reason = f": {registration.refused[-1]}" if registration.refused else ""
                text = f"The kernel of session {self.session_id} did not register within {timeout:g} seconds{reason}"
                raise StartupError("KS-17", text)

            yield path, meet

    def _file(self, kind: str) -> Path:
        return self.facilities.runtime_directory / f"{kind}-{safe_name(self.session_id)}.json"

    def _to_info(self, ports: Sequence[int]) -> ConnectionInfo:
        return ConnectionInfo(**connection_document(ports, self.key))

    def _reserve(self) -> Sequence[int]:
        if self._reservation is None:
            self._reservation = reserve_ports(taken=self.facilities.taken_ports)
        return self._reservation.ports
