"""Kernels that Jupyter's kernel provisioners launch: others' ways to other machines, which kernel.json files name.

A provisioner says where a kernel's sockets are and whether it is there, and takes signals for it. There is no host
beside such a kernel, so what it says goes to the server directly and is not kept anywhere else.

All provisioners of a server are in one process (`kallichore.engines.provisioner_program`), which is started for the
first of them. If it hangs it is replaced, and the new one goes on with all kernels that can be found again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import attrs
import trio
import trio_util

from kallichore.engines.placement import Placement
from kallichore.engines.provisioned_process import ProvisionedProcess
from kallichore.engines.provisioner_process import Patience, ProgramProcess, open_program
from kallichore.engines.provisioner_words import Launched, launch_limit, read_end, read_launched
from kallichore.errors import EngineError, StartupError, StartupReason
from kallichore.models.bodies import InterruptMode, KernelProvisioner, TransportEncryption

logger = logging.getLogger(__name__)

MOST_BLOCKS = 2
"""How many times a kernel's provisioner may block the process of all before the kernel is looked after no longer."""

_OWN = uuid4()
"""Of this process alone: two servers may have sessions of the same name, and kernels are to have different ones."""


@attrs.frozen
class ProvisionerOrder:
    """A kernel that is to be launched.

    Attributes:
        session_id: The session.
        wanted: By whom it is launched, and with which settings.
        argv: Its command line, with its placeholders.
        environment: The whole environment that it would have as a process of the server.
        own: The names of those variables that its kernel.json or its session set.
        working_directory: Where it starts; None for where the provisioner starts kernels.
        key: What signs its messages, if the provisioner takes ours.
        display_name: Its name for people.
        language: Its language.
        interrupt_mode: How it is interrupted.
        encryption: Whether what passes between it and the server is to be encrypted. A kernel elsewhere is at least
            asked to, if its kernel.json says that it can and `can_encrypt`.
        can_encrypt: Whether the server can.
    """

    session_id: str
    wanted: KernelProvisioner
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    own: frozenset[str]
    working_directory: str | None
    key: str = attrs.field(repr=False)
    display_name: str = ""
    language: str = ""
    interrupt_mode: InterruptMode = InterruptMode.SIGNAL
    encryption: TransportEncryption = TransportEncryption.DISABLED
    can_encrypt: bool = False

    @property
    def kernel_id(self) -> str:
        """What the provisioner knows the kernel by, over its restarts: the session's id, where that is a UUID."""
        try:
            return str(UUID(self.session_id))
        except ValueError:
            return str(uuid5(NAMESPACE_OID, f"{_OWN}{self.session_id}"))

    @property
    def making(self) -> dict[str, Any]:
        """From what its provisioner is made."""
        asked = {"provisioner_name": self.wanted.provisioner_name, "config": self.wanted.config or {}}
        # jupyter_client fills values into a kernel.json's variables once more.
        variables = {name: self.environment[name].replace("$", "$$") for name in self.own & self.environment.keys()}
        return {
            "provisioner_name": self.wanted.provisioner_name,
            "kernel_name": self.wanted.kernel_name or "kernel",
            "key": self.key,
            "spec": {
                "argv": list(self.argv),
                "name": self.wanted.kernel_name or "",
                "display_name": self.display_name,
                "language": self.language,
                "env": variables,
                "resource_dir": self.wanted.resource_dir or "",
                "interrupt_mode": self.interrupt_mode.value,
                "metadata": {**(self.wanted.metadata or {}), "kernel_provisioner": asked},
            },
        }

    @property
    def launching(self) -> dict[str, Any]:
        """With what it is launched."""
        return {
            **self.making,
            "environment": dict(self.environment),
            "own": sorted(self.own),
            "directory": self.working_directory,
            "encryption": self.encryption.value,
            "can_encrypt": self.can_encrypt,
        }


@attrs.define(eq=False)
class _Launch:
    """A launch, shared by who waits for it and who looks after it."""

    is_restarting: Callable[[], bool]
    tell: Callable[[str], None]
    known: trio.Event = attrs.field(factory=trio.Event)
    process: ProvisionedProcess | None = None
    error: EngineError | None = None
    is_unwanted: bool = False


@attrs.define(eq=False)
class Provisioners:
    """The provisioners of a server.

    Args:
        directory: Where kernels' connection files may go.
        patience: How long is waited for what.
        nursery: Where their program runs, until the last session has ended. Cancelling it ends the program, if it was
            started, with all kernels that are there.
    """

    directory: Path
    patience: Patience
    _nursery: trio.Nursery
    _program: ProgramProcess | None = attrs.field(default=None, init=False)
    _starting: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _kernels: dict[str, ProvisionedProcess] = attrs.field(factory=dict, init=False)
    _launching: dict[str, str] = attrs.field(factory=dict, init=False)
    """The provisioners of kernels that are being launched, by the kernels' ids."""
    _early: dict[str, list[Mapping[str, Any]]] = attrs.field(factory=dict, init=False)
    """What came about kernels before the answer to their launch was looked at."""

    # The program

    async def _need_program(self) -> ProgramProcess:
        """Return the running program; it is started if there is none.

        Raises:
            EngineError: There cannot be one.
        """
        async with self._starting:
            if self._program is None or self._program.gone.is_set():
                self._program = await self._nursery.start(self._run_program)
            program = self._program
        await program.wait_ready()
        return program

    async def _run_program(self, task_status: trio.TaskStatus[ProgramProcess]) -> None:
        async with open_program(self.directory, self.patience, self._hear, self._nursery) as program:
            task_status.started(program)
            await program.run()
            # What was asked of it and is not answered fails with this.
            self._say_why(program)
        if self._kernels:
            self._nursery.start_soon(self._find_again)

    def _say_why(self, program: ProgramProcess) -> None:
        """Say whose fault it is that a program is gone, and count it."""
        blocked = program.blocked
        if blocked is None and program.failed is not None:
            return
        if blocked is None:
            logger.error("The program that runs kernel provisioners has ended; another takes its place")
            return
        culprit = self._kernels.get(blocked.kernel_id or "")
        name = culprit.provisioner if culprit is not None else self._launching.get(blocked.kernel_id or "")
        whose = f"The provisioner {name!r}" if name is not None else "One of the provisioners"
        logger.error("%s %s; the process of all provisioners is replaced", whose, blocked.text)
        for process in self._kernels.values() if culprit is None and name is None else filter(None, [culprit]):
            process.blocks += 1
            process.tell(f"{whose} {blocked.text}; its process is replaced")

    async def _find_again(self) -> None:
        """Have a new program go on with the kernels of one that is gone."""
        async with trio.open_nursery() as nursery:
            for process in list(self._kernels.values()):
                nursery.start_soon(self._adopt, process)

    async def _adopt(self, process: ProvisionedProcess) -> None:
        if process.blocks >= MOST_BLOCKS:
            process.lose("has blocked again and again")
            return
        try:
            program = await self._need_program()
        except EngineError as error:
            process.lose(f"is gone: {error.message}")
            return
        try:
            is_there = await program.ask("adopt", process.kernel_id, **process.making, info=process.launched.info)
        except EngineError as error:
            if program.gone.is_set():
                # Who follows that one tries again.
                return
            is_there = False
            logger.error("The provisioner %r could not find a kernel again: %s", process.provisioner, error.message)
        if not is_there:
            await process.go_on_alone()

    def _hear(self, kernel_id: str, message: Mapping[str, Any]) -> None:
        process = self._kernels.get(kernel_id)
        if process is None:
            if kernel_id in self._launching:
                # The kernel was launched, and we have yet to look at that.
                self._early.setdefault(kernel_id, []).append(message)
        elif isinstance(ended := message.get("ended"), dict):
            process.note_end(read_end(ended))
        elif trouble := message.get("trouble"):
            process.tell(f"The provisioner {process.provisioner!r} {trouble}")

    # Launching

    async def launch(
        self,
        order: ProvisionerOrder,
        give_up: trio.Event,
        is_restarting: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> ProvisionedProcess:
        """Have a kernel launched; the caller has to wait for its end, and then call `finish`.

        A launch that is given up, as one that takes too long, goes on: when it comes to its end it is undone.

        Args:
            order: What is launched.
            give_up: Set when nobody wants it any more.
            is_restarting: Whether, when it is to end, another is to follow.
            tell: Told what goes wrong with it later, in a sentence.

        Raises:
            StartupError: ``KS-5``, it was not launched; ``KS-8``, it was given up.
        """
        name, launch = order.wanted.provisioner_name, _Launch(is_restarting, tell)
        limit = launch_limit(order.environment, self.patience.launch)
        began = trio.current_time()
        self._nursery.start_soon(self._launch, order, launch)
        try:
            with trio.move_on_after(limit):
                await trio_util.wait_any(launch.known.wait, give_up.wait)
        finally:
            launch.is_unwanted = launch.process is None
        if launch.process is not None:
            return launch.process
        if launch.error is not None:
            text = f"The provisioner {name!r} could not launch the kernel: {launch.error.message}"
            raise StartupError("KS-5", text, reason=StartupReason.FAILED)
        late = f"the provisioner {name!r} has not launched the kernel for {trio.current_time() - began:.0f} s"
        if give_up.is_set():
            text = f"The start was given up because the kernel was asked to stop; {late}"
            raise StartupError("KS-8", text, reason=StartupReason.GIVEN_UP)
        text = f"The start was given up: {late}; a KERNEL_LAUNCH_TIMEOUT in its env says how long it may take"
        raise StartupError("KS-5", text, reason=StartupReason.FAILED)

    async def _launch(self, order: ProvisionerOrder, launch: _Launch) -> None:
        """Have a kernel launched, and see that nothing is left of it if nobody wants it by then."""
        kernel_id, name = order.kernel_id, order.wanted.provisioner_name
        self._launching[kernel_id] = name
        try:
            launched = await self._ask_launch(order)
            if not launch.is_unwanted:
                launch.process = ProvisionedProcess(
                    *(kernel_id, name, launched, order.making, launch.is_restarting, launch.tell, self)
                )
                self._kernels[kernel_id] = launch.process
        except EngineError as error:
            launch.error = error
        finally:
            self._launching.pop(kernel_id, None)
            launch.known.set()
        for message in self._early.pop(kernel_id, ()):
            self._hear(kernel_id, message)
        if launch.process is None and launch.is_unwanted:
            await self._undo(kernel_id, name)

    async def _ask_launch(self, order: ProvisionerOrder) -> Launched:
        program = await self._need_program()
        told = await program.ask("launch", order.kernel_id, **order.launching)
        try:
            return read_launched(order.wanted.provisioner_name, told)
        except EngineError:
            # Cancelled in here, nobody waits for the error any more.
            await self._undo(order.kernel_id, order.wanted.provisioner_name)  # noqa: ASYNC120
            raise

    async def _undo(self, kernel_id: str, name: str) -> None:
        if self._program is None or self._program.gone.is_set():
            return
        try:
            await self._program.ask("forget", kernel_id)
        except EngineError as error:
            logger.error("What the provisioner %r has launched may be left: %s", name, error.message)

    # What is asked of provisioners for kernels that are there

    async def _ask(self, process: ProvisionedProcess, op: str, **given: Any) -> None:
        program = await self._need_program()
        await program.ask(op, process.kernel_id, **given)

    def ask_soon(self, process: ProvisionedProcess, op: str, **given: Any) -> None:
        """Ask a kernel's provisioner for something, without waiting; what goes wrong is told."""

        async def ask() -> None:
            try:
                await self._ask(process, op, **given)
            except EngineError as error:
                process.tell(f"The provisioner {process.provisioner!r} failed in {op}: {error.message}")

        self._nursery.start_soon(ask)

    def kill_soon(self, process: ProvisionedProcess) -> None:
        """Have a kernel killed; one that is there for long afterwards is given up."""
        self._nursery.start_soon(self._kill, process)

    async def _kill(self, process: ProvisionedProcess) -> None:
        """See that a kernel is gone, or give it up."""
        why, patience = f"was asked to kill it {self.patience.kill:g} s ago", self.patience.kill
        with trio.move_on_after(patience):
            try:
                await self._ask(process, "kill", restart=process.is_restarting())
            except EngineError as error:
                # It may be gone nevertheless.
                why, patience = f"could not kill it: {error.message}", patience / 10
            with trio.move_on_after(patience):
                await process.wait()
        process.give_up(why)

    async def _announce_stop(
        self, process: ProvisionedProcess, stop_asked: trio.Event, *, task_status: trio.TaskStatus[trio.CancelScope]
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await stop_asked.wait()
            self.ask_soon(process, "shutdown_requested", restart=process.is_restarting())

    async def open_announcement(self, process: ProvisionedProcess, stop_asked: trio.Event) -> trio.CancelScope:
        """Tell a provisioner when its kernel is asked to shut down: some take its end for a failure otherwise.

        Returns:
            What ends the wait for that.
        """
        scope: trio.CancelScope = await self._nursery.start(self._announce_stop, process, stop_asked)
        return scope

    async def finish(self, process: ProvisionedProcess) -> None:
        """Have a provisioner clean up behind a kernel that has ended. Takes a bounded time."""
        self._kernels.pop(process.kernel_id, None)
        assert process.ending is not None
        if process.ending.given_up:
            # Once more, and nobody waits for it.
            self._nursery.start_soon(self._undo, process.kernel_id, process.provisioner)
            return
        if process.is_alone or self._program is None or self._program.gone.is_set():
            return
        try:
            await self._program.ask("finish", process.kernel_id, restart=process.is_restarting())
        except EngineError as error:
            logger.error("The provisioner %r failed to clean up: %s", process.provisioner, error.message)


@asynccontextmanager
async def place_by_provisioner(
    provisioners: Provisioners,
    order: ProvisionerOrder,
    *,
    stop_asked: trio.Event,
    is_restarting: Callable[[], bool],
    tell: Callable[[str], None],
) -> AsyncIterator[Placement]:
    """Have a kernel launched by its provisioner, for the block, which has to wait for its end; else it is killed.

    Args:
        provisioners: The server's.
        order: What is launched.
        stop_asked: Set when the kernel is to end; a launch is waited for no longer then.
        is_restarting: Whether another is to follow it.
        tell: Told what goes wrong with it, in a sentence.

    Raises:
        StartupError: ``KS-5``, it was not launched; ``KS-8``, it was given up.
    """
    process = await provisioners.launch(order, stop_asked, is_restarting, tell)
    announcement = await provisioners.open_announcement(process, stop_asked)
    try:
        yield Placement(process, info=process.launched.connection)
    finally:
        announcement.cancel()
        with trio.CancelScope(shield=True):
            process.kill_or_give_up()
            await process.wait()
            await provisioners.finish(process)
