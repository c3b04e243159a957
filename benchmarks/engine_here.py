"""kcserver with an engine whose machines are this one: ``python -m benchmarks.engine_here`` takes kcserver's options.

Its jobs are hosts, as any engine's, that call the server by TLS (``"calls": true``, as Slurm's jobs and pods do) or are
connected to through a socket (as by SSH, without what ssh itself takes). No queue and no cluster is asked about them.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import trio

from kallichore.cli.kcserver import main
from kallichore.engines.dial_in import Registration
from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_program import Ready, dial_document, host_script, read_ready
from kallichore.engines.registry import KINDS
from kallichore.errors import HostGoneError
from kallichore.kernel.ending import Ending

KIND = "here"


@attrs.define(eq=False)
class JobHere:
    """A host on this machine."""

    script: bytes
    registration: Registration | None
    name: str = "in a job of this machine"
    node: str | None = "here"
    time_left: float | None = None
    ready: Ready | None = None

    async def connect(self) -> socket.socket:
        """Start the host if it was not, and return a connection to it."""
        if self.ready is None:
            done = await trio.run_process([sys.executable, "-I", "-"], stdin=self.script, capture_stdout=True)
            self.ready = read_ready(done.stdout)
            assert self.ready is not None, done.stdout
        if self.registration is not None:
            return await self.registration.next_connection()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.ready.socket)
        except OSError as error:
            connection.close()
            raise HostGoneError("its host is not there any more") from error
        connection.setblocking(False)
        return connection

    async def explain(self, ending: Ending | None) -> str:
        """Return nothing: the host knows it."""
        return ""

    async def end(self) -> None:
        """Kill the host."""
        if self.ready is not None:
            with suppress(ProcessLookupError):
                os.kill(self.ready.pid, signal.SIGKILL)


@attrs.frozen
class EngineHere:
    """See `kallichore.engines.engine.Engine`."""

    services: EngineServices
    kind: str = KIND

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Take all."""

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return nothing: it can be used."""
        return ()

    async def kernelspecs(self, options: Mapping[str, Any]) -> None:
        """Return nothing: they are the same here."""

    def ticket(self, order: Order) -> Ticket:
        """Return by what a host is known when it calls."""
        return {"call": secrets.token_hex(16)}

    @asynccontextmanager
    async def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AsyncIterator[JobHere]:
        """Have a job."""
        if not order.options.get("calls"):
            yield JobHere(host_script(order.document()), None)
            return
        desk, identity = self.services.desk(), bytes.fromhex(ticket["call"])
        with desk.register(identity) as registration:
            dial = dial_document(desk.address, identity, desk.certificate)
            yield JobHere(host_script(order.document(dial=dial)), registration)


@asynccontextmanager
async def open_engine(services: EngineServices) -> AsyncIterator[EngineHere]:
    """Have the engine."""
    yield EngineHere(services)


if __name__ == "__main__":
    KINDS[KIND] = "benchmarks.engine_here"
    sys.exit(main())
