"""Kernels on machines that people reach by SSH: one ssh starts the host over there, another is the way to it.

It is the user's own ``ssh`` with all its configuration, and nothing has to be installed over there but a Python. The
host listens in a private directory, whose name is in the ticket: so one of which nobody knows whether it was started is
looked up, and starting it twice comes to one. What ssh says is read in `kallichore.engines.ssh_words`.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_program import NOBODY_LISTENS, host_script, read_failure, read_ready
from kallichore.engines.ssh_calls import Said, run_command, run_relay
from kallichore.engines.ssh_errands import describe_gone, errand, read_answer, relay_errand
from kallichore.engines.ssh_options import KIND, SshOptions, command_line, read_ssh_options
from kallichore.engines.ssh_words import Complaint, Trouble
from kallichore.errors import EngineError, HostGoneError
from kallichore.kernel.ending import Ending

logger = logging.getLogger(__name__)

PATIENCE = 45.0
"""Seconds that a command over there may take: a Python that starts from a slow network's disk, on a busy machine."""

END_PATIENCE = 12.0
"""Seconds in which one that nobody waits for long has to be done: ending, and explaining an end."""

CANCEL_PATIENCE = 6.0
"""Seconds that it may take to end a host whose start was cancelled."""

MOST_AT_ONCE = 4
"""Connections to a machine that are begun at the same time. From ten on that have not been let in yet, sshd drops some
at random unless it is told otherwise (``MaxStartups``)."""

SWEEP_PAUSES = (5.0, 20.0, 60.0, 300.0, 1800.0)
"""Seconds before each further try to end what could not be reached."""

SLOW = 10.0
"""Seconds from which on it is worth a word how long a machine takes to answer."""


@attrs.define(eq=False)
class _Machine:
    """What one session, or whoever asks, has to do with a machine.

    Args:
        options: Where it is.
        door: What only so many may pass at the same time, until they are let in.
    """

    options: SshOptions
    door: trio.CapacityLimiter

    async def run(self, line: str | None, patience: float = PATIENCE, told: bytes = b"") -> Said | Complaint:
        """Have a Python over there run a line, or what it is told."""
        async with self.door:
            return await run_command(command_line(self.options, line), patience, told)

    async def ask(self, function: str, *arguments: str, patience: float = PATIENCE) -> Mapping[str, Any] | Complaint:
        """Return what an errand over there has answered, or why it has not."""
        said = await self.run(errand(function, *arguments), patience)
        if isinstance(said, Complaint):
            return said
        return read_answer(said.out.decode(errors="replace")) or said.complaint


@attrs.define(eq=False)
class SshJob:
    """A host on another machine; see `kallichore.engines.engine.Job`."""

    ticket: Ticket
    _machine: _Machine
    _engine: SshEngine
    name: str = attrs.field(init=False)
    node: str | None = attrs.field(init=False)
    time_left: float | None = attrs.field(default=None, init=False)
    _way: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False, repr=False)
    """In which the ssh runs that is the way to the host."""
    _is_gone: bool = attrs.field(default=False, init=False)
    """Whether it was told that the host is not there any more, and why."""
    _script: bytes | None = attrs.field(default=None, init=False, repr=False)
    """With what it is started again, where it is not known whether it was."""

    def __attrs_post_init__(self) -> None:
        self.node = self._machine.options.host
        self.name = f"on {self.node}"

    @property
    def _id(self) -> str:
        """What the host is called over there."""
        return str(self.ticket["name"])

    @property
    def _host(self) -> str:
        return self._machine.options.host

    # Starting

    async def start(self, order: Order, tell: Callable[[Waiting | None], None]) -> None:
        """Start the host. Where it is not known whether that was done, `connect` finds out.

        Cancelling it ends what was begun, as far as that can be done in a few seconds.

        Raises:
            EngineError: It cannot be started.
        """
        filled_in = await self._fill_in(order)
        script = host_script(filled_in.document(name=self._id))
        try:
            failure = await self._start_once(script)
        except BaseException:
            # A cancellation, which may come as a group of several.
            with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_PATIENCE):
                await self.end()
            raise
        if failure is not None:
            if failure.trouble.is_refusal:
                raise EngineError(failure.describe(self._host))
            self._script = script
            tell(Waiting(f"{failure.describe(self._host)}; trying again", time.time()))

    async def _fill_in(self, order: Order) -> Order:
        """Return an order with the command and the environment of a kernel that is installed over there."""
        wanted = self._machine.options.kernelspec
        if wanted is None:
            if not order.argv:
                raise EngineError("There is no argv, and engine.kernelspec names no kernel over there")
            return order
        specs = await self._engine.find_kernelspecs(self._machine)
        spec = specs.get(wanted.lower())
        if spec is None:
            there = ", ".join(sorted(specs)) or "none"
            raise EngineError(f"There is no kernel {wanted!r} on {self._host}; installed there: {there}")
        variables = [("replace", name, value) for name, value in spec["env"].items()]
        return attrs.evolve(order, argv=spec["argv"], actions=[*variables, *order.actions])

    async def _settle(self, script: bytes) -> None:
        """See that the host is there which was to be started with this script: look for it, or start it.

        Raises:
            EngineError: It cannot be started.
            OSError: It is not there yet, or the machine cannot be reached now.
        """
        if not await self._is_there():
            failure = await self._start_once(script)
            # A start from before may have come first, and then there is no second one.
            if failure is not None and not await self._is_there():
                reason = failure.describe(self._host)
                raise EngineError(reason) if failure.trouble is Trouble.REFUSED else OSError(reason)
        self._script = None

    async def _is_there(self) -> bool:
        """Return whether the host listens, or nothing is there of it.

        Raises:
            EngineError: The machine cannot run anything, or the host ended with an error.
            OSError: It has begun to start; or the machine cannot be reached now.
        """
        left = await self._machine.ask("look", self._id)
        if isinstance(left, Complaint):
            reason = left.describe(self._host)
            raise EngineError(reason) if left.trouble is Trouble.FAILED else OSError(reason)
        if left["log"]:
            raise EngineError(self._describe_gone(left))
        if left["left"] is not None and not left["listens"]:
            raise OSError(f"The host of the kernel is not ready yet in {left['left']} on {self._host}")
        return bool(left["listens"])

    async def _start_once(self, script: bytes) -> Complaint | None:
        """Try to start the host; return why there is none, if nobody said that there is one."""
        said = await self._machine.run(None, told=script)
        if isinstance(said, Complaint):
            return said
        if read_ready(said.out) is not None:
            return None
        failure = read_failure(said.out)
        return said.complaint if failure is None else Complaint(Trouble.REFUSED, failure)

    # Reaching

    async def connect(self) -> socket.socket:
        """Return a new connection to the host, in place of the one before; see `kallichore.engines.engine.Job`."""
        if self._script is not None:
            await self._settle(self._script)
        self.hang_up()
        self._way = trio.CancelScope()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            command = command_line(self._machine.options, relay_errand(self._id))
            said: Said | Complaint | None = Complaint(Trouble.SILENT, f"nothing came for {PATIENCE:.0f} seconds")
            async with self._machine.door:
                with trio.move_on_after(PATIENCE):
                    run = partial(run_relay, command, theirs, ours)
                    said = await self._engine.nursery.start(_run_way, self._way, run)
            if said is not None:
                raise self._why_not(said)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def hang_up(self) -> None:
        """End the way to the host, if there is one."""
        self._way.cancel()

    def _why_not(self, said: Said | Complaint) -> Exception:
        """Return the error for a way that leads nowhere."""
        if isinstance(said, Said):
            left = read_answer(said.err)
            if said.code == NOBODY_LISTENS and left is not None:
                self._is_gone = True
                return HostGoneError(self._describe_gone(left))
            said = said.complaint
        return OSError(said.describe(self._host))

    def _describe_gone(self, left: Mapping[str, Any]) -> str:
        return describe_gone(left, self._host, time.time() - float(self.ticket["since"]))

    # Ending

    async def explain(self, ending: Ending | None) -> str:
        """Return why it ended, as far as its machine tells; see `kallichore.engines.engine.Job`."""
        if self._is_gone or (ending is not None and ending.lost is None):
            # What is known of it was told.
            return ""
        left = await self._machine.ask("look", self._id, patience=END_PATIENCE)
        if isinstance(left, Complaint):
            return f"cannot be asked about: {left.describe(self._host)}"
        return "" if left["listens"] else f"is gone: {self._describe_gone(left)}"

    async def end(self) -> None:
        """Kill the host with its kernel, and remove its directory; see `kallichore.engines.engine.Job`."""
        self.hang_up()
        is_ended = False
        try:
            is_ended = await self.try_to_end()
        finally:
            if not is_ended:
                self._engine.sweep(self)

    async def try_to_end(self) -> bool:
        """Do so if the machine can be reached; return whether nothing is left."""
        answer = await self._machine.ask("end", self._id, patience=END_PATIENCE)
        return not isinstance(answer, Complaint) and not answer.get("left")


async def _run_way(
    scope: trio.CancelScope, run: Callable[..., Any], *, task_status: trio.TaskStatus[Said | Complaint | None]
) -> None:
    with scope:
        await run(task_status=task_status)
    if scope.cancelled_caught:
        # Who still waits for it is told; otherwise it has been told already.
        with suppress(RuntimeError):
            task_status.started(Complaint(Trouble.LOST, "it was hung up here"))


@attrs.define(eq=False)
class SshEngine:
    """Places kernels by SSH; see `kallichore.engines.engine.Engine`."""

    nursery: trio.Nursery
    kind: str = attrs.field(default=KIND, init=False)
    _doors: dict[str, trio.CapacityLimiter] = attrs.field(factory=dict, init=False)
    """By machine."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        """See that options can be understood; see `kallichore.engines.engine.Engine`."""
        read_ssh_options(options)

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return what is wrong with a profile: whether its machine lets us in, and has what is needed."""
        machine = self._machine(options)
        began = trio.current_time()
        found = await machine.ask("survey")
        if isinstance(found, Complaint):
            return (f"{found.describe(machine.options.host)}.",)
        problems = []
        if found["problem"] is not None:
            problems.append(f"No kernel can have a private directory on {machine.options.host}: {found['problem']}.")
        took = trio.current_time() - began
        if took > SLOW:
            problems.append(f"{machine.options.host} took {took:.0f} seconds to answer.")
        wanted = machine.options.kernelspec
        if wanted is not None and not problems:
            specs = await self.find_kernelspecs(machine)
            if wanted.lower() not in specs:
                there = ", ".join(sorted(specs)) or "none"
                problems.append(f"There is no kernel {wanted!r} on {machine.options.host}; installed there: {there}.")
        return problems

    async def kernelspecs(self, options: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        """Return the contents of the kernel.json files over there by name, with what stands in them filled in.

        Raises:
            EngineError: The machine cannot be asked.
        """
        return await self.find_kernelspecs(self._machine(options))

    async def find_kernelspecs(self, machine: _Machine) -> Mapping[str, Mapping[str, Any]]:
        """Return the kernels of a machine; see `kernelspecs`."""
        answer = await machine.ask("kernelspecs")
        if isinstance(answer, Complaint):
            raise EngineError(answer.describe(machine.options.host))
        for text in answer["broken"].values():
            logger.warning("On %s, %s", machine.options.host, text)
        found: Mapping[str, Mapping[str, Any]] = answer["kernelspecs"]
        return found

    def ticket(self, order: Order) -> Ticket:
        """Return what the host's directory will be called, and since when it is wanted."""
        return {"name": secrets.token_hex(8), "since": time.time()}

    @asynccontextmanager
    async def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AsyncIterator[SshJob]:
        """Start a host, or know of the one that was started; see `kallichore.engines.engine.Engine`."""
        job = SshJob(ticket, self._machine(order.options), self)
        try:
            if is_new:
                await job.start(order, tell)
            yield job
        finally:
            job.hang_up()

    def sweep(self, job: SshJob) -> None:
        """Go on trying to end a job whose machine cannot be reached now."""
        self.nursery.start_soon(self._sweep, job)

    async def _sweep(self, job: SshJob) -> None:
        is_ended = False
        try:
            for pause in SWEEP_PAUSES:
                await trio.sleep(pause)
                is_ended = await job.try_to_end()
                if is_ended:
                    return
        finally:
            if not is_ended:
                name = job.ticket["name"]
                logger.warning("A kernel %s could not be ended; its directory there is kallichore-%s", job.name, name)

    def _machine(self, options: Mapping[str, Any]) -> _Machine:
        read = read_ssh_options(options)
        if read.config is not None:
            read = attrs.evolve(read, config=str(Path(read.config).expanduser()))
        door = self._doors.setdefault(read.host, trio.CapacityLimiter(MOST_AT_ONCE))
        return _Machine(read, door)


@asynccontextmanager
async def open_engine(services: EngineServices) -> AsyncIterator[SshEngine]:
    """Yield the engine for a server. On leaving, its ssh processes are ended; what runs on other machines goes on.

    Args:
        services: The server's.
    """
    async with trio.open_nursery() as nursery:
        try:
            yield SshEngine(nursery)
        finally:
            nursery.cancel_scope.cancel()
