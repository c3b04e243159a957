"""An engine for tests: its jobs are hosts on this machine, started and reached as those elsewhere are."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from hosts import wait_gone
from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_program import host_script, read_ready
from kallichore.errors import EngineError, HostGoneError
from kallichore.kernel.ending import Ending


@attrs.define(eq=False)
class World:
    """What happens to jobs, as a test wants it. It is there longer than servers, as a cluster is."""

    place: Path
    free: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is a machine."""
    is_reachable: bool = True
    waiting: Waiting | None = None
    refusal: str | None = None
    explanation: str = ""
    gone: str | None = None
    """Why jobs are no more."""
    time_left: float | None = None
    jobs: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """The process and the socket of each host, by name."""
    submitted: list[str] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)
    connections: list[socket.socket] = attrs.field(factory=list)

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    async def end(self) -> None:
        """Leave nothing."""
        for pid, _ in self.jobs.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await wait_gone(pid)


@attrs.define(eq=False)
class JobHere:
    """A job."""

    world: World
    key: str
    order: Order
    tell: Callable[[Waiting | None], None]
    node: str | None = None

    @property
    def name(self) -> str:
        """What it is."""
        return f"in job {self.key}"

    @property
    def time_left(self) -> float | None:
        """Seconds that it has."""
        return self.world.time_left

    async def connect(self) -> socket.socket:
        """Wait for a machine, start the host if it is not there, and reach it."""
        world = self.world
        if world.gone is not None:
            raise HostGoneError(world.gone)
        if not world.free.is_set():
            self.tell(world.waiting or Waiting("Resources", time.time()))
            await world.free.wait()
        if not world.is_reachable:
            raise OSError(113, "No route to host")
        if self.key not in world.jobs:
            world.jobs[self.key] = await self._start()
        self.node = socket.gethostname()
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(world.jobs[self.key][1])
        except OSError as error:
            connection.close()
            raise HostGoneError("the host is not there any more") from error
        connection.setblocking(False)
        world.connections.append(connection)
        return connection

    async def _start(self) -> tuple[int, str]:
        environment = {**os.environ, "TMPDIR": str(self.world.place)}
        script = host_script(self.order.document())
        done = await trio.run_process([sys.executable, "-I", "-"], stdin=script, env=environment, capture_stdout=True)
        ready = read_ready(done.stdout)
        assert ready is not None, done.stdout
        return ready.pid, ready.socket

    async def explain(self, ending: Ending | None) -> str:
        """Return what a test wants to be said."""
        return self.world.explanation

    async def end(self) -> None:
        """Kill the host, if it is there still."""
        self.world.ended.append(self.key)
        if self.key in self.world.jobs:
            pid, _ = self.world.jobs[self.key]
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await wait_gone(pid)


@attrs.define(eq=False)
class EngineHere:
    """The engine."""

    world: World
    kind: str = "here"

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse what is none of ours."""
        for name in options.keys() - {"color"}:
            raise EngineError(f"engine.{name} is no option of here; there is color")

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return what a test wants to be wrong."""
        return () if self.world.refusal is None else (self.world.refusal,)

    async def kernelspecs(self, options: Mapping[str, Any]) -> None:
        """Return nothing: they are the same here."""
        return

    def ticket(self, order: Order) -> Ticket:
        """Return the job's name."""
        return {"name": f"{order.label}-{len(self.world.submitted)}"}

    @asynccontextmanager
    async def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AsyncIterator[JobHere]:
        """Submit a job, or find it."""
        if self.world.refusal is not None:
            raise EngineError(self.world.refusal)
        if is_new:
            self.world.submitted.append(ticket["name"])
        # As engines do that look after jobs meanwhile.
        async with trio.open_nursery():
            yield JobHere(self.world, ticket["name"], order, tell)


WORLD: list[World] = []
"""The world of the test that runs."""


@asynccontextmanager
async def open_engine(services: EngineServices) -> AsyncIterator[EngineHere]:
    """Open the engine in the world of the test that runs."""
    yield EngineHere(WORLD[-1])
