"""The process of the program that runs provisioners, as its server has it: started, asked, and replaced if it hangs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.engines.provisioner_words import decode, encode
from kallichore.errors import EngineError

logger = logging.getLogger(__name__)

MODULE = "kallichore.engines.provisioner_program"

WHO_LIMIT = 3.0
"""Seconds for the answer to who blocks. It comes from a thread of its own, so that only a process that does nothing at
all does not give it."""

MOST_WAITING = 1000
"""Requests that wait to be written. Each is one of somebody who waits for its answer, so that more are a fault."""

_ENDED = "the program that runs provisioners has ended"

LAST_WORD = 2000
"""Characters of a line of a provisioner's that are logged."""


@attrs.frozen
class Patience:
    """How long a server waits for provisioners, in seconds.

    Attributes:
        start: Until the program says that it is there; it imports jupyter_client.
        ping: Between two questions whether its loop turns.
        loop: Until an answer to that; provisioners' own calls may block it for a while.
        launch: Until a kernel is launched that does not say how long that may take.
        kill: Until a kernel that was killed is gone.
        farewell: Until the program has ended its kernels, when the server ends.
    """

    start: float = 60.0
    ping: float = 5.0
    loop: float = 30.0
    launch: float = 120.0
    kill: float = 30.0
    farewell: float = 20.0


@attrs.frozen
class Blocked:
    """Why a process was given up.

    Attributes:
        text: What happened, as the end of a sentence that begins with a provisioner.
        kernel_id: Whose call it is in; None if that is not known.
    """

    text: str
    kernel_id: str | None = None


@attrs.define(eq=False)
class _Answer:
    known: trio.Event = attrs.field(factory=trio.Event)
    message: Mapping[str, Any] | None = None


@attrs.define(eq=False)
class ProgramProcess:
    """A running program.

    Args:
        on_event: Is given what it says without being asked, and about which kernel.
    """

    _process: trio.Process
    _patience: Patience
    _on_event: Callable[[str, Mapping[str, Any]], None]
    gone: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing can be asked any more."""
    blocked: Blocked | None = attrs.field(default=None, init=False)
    """Why it was given up; None as long as it was not."""
    _ready: trio.Event = attrs.field(factory=trio.Event, init=False)
    failed: str | None = attrs.field(default=None, init=False)
    """Why it cannot be used at all."""
    _numbers: Any = attrs.field(factory=lambda: count(1), init=False)
    _answers: dict[int, _Answer] = attrs.field(factory=dict, init=False)
    _to_write: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _written: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._to_write, self._written = trio.open_memory_channel[bytes](MOST_WAITING)

    async def wait_ready(self) -> None:
        """Wait until it can be asked.

        Raises:
            EngineError: It cannot; the text says why.
        """
        with trio.move_on_after(self._patience.start):
            await self._ready.wait()
        if self.failed is not None:
            raise EngineError(f"Kernel provisioners cannot be used: {self.failed}")
        if not self._ready.is_set():
            raise EngineError(f"The program that runs provisioners was not there within {self._patience.start:g} s")

    async def ask(self, op: str, kernel_id: str = "", **given: Any) -> Any:
        """Ask for something, and return what comes of it. Cancelling leaves it to go on, and its answer to nobody.

        Args:
            op: What; see `kallichore.engines.provisioner_program`.
            kernel_id: For which kernel.
            given: With what.

        Raises:
            EngineError: It failed, in the provisioner's words; or the process is gone.
        """
        number = next(self._numbers)
        answer = self._answers[number] = _Answer()
        try:
            self._send({"number": number, "op": op, "kernel": kernel_id, "with": given})
            await answer.known.wait()
        finally:
            self._answers.pop(number, None)
        if answer.message is None:
            raise EngineError(f"it {self.blocked.text}" if self.blocked else _ENDED)
        if (error := answer.message.get("error")) is not None:
            raise EngineError(str(error))
        return answer.message.get("result")

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.gone.is_set():
            raise EngineError(_ENDED)
        try:
            self._to_write.send_nowait(encode(message))
        except trio.WouldBlock:
            raise EngineError("too many requests wait for the program that runs provisioners") from None

    # Its tasks

    async def run(self) -> None:
        """Look after the process until it is gone: it ended, or its loop does not turn any more."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._read, nursery.cancel_scope)
            nursery.start_soon(self._ping, nursery.cancel_scope)

    async def _write(self) -> None:
        assert self._process.stdin is not None
        async for line in self._written:
            # That it has ended is seen by who reads.
            with suppress(trio.BrokenResourceError):
                await self._process.stdin.send_all(line)

    async def _read(self, scope: trio.CancelScope) -> None:
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = decode(line)
                if message is not None:
                    self._take(message)
        scope.cancel()

    def _take(self, message: Mapping[str, Any]) -> None:
        if "answer" in message:
            answer = self._answers.get(message["answer"])
            if answer is not None:
                answer.message = message
                answer.known.set()
        elif "kernel" in message:
            self._on_event(message["kernel"], message)
        else:
            self.failed = message.get("failed")
            self._ready.set()

    async def _ping(self, scope: trio.CancelScope) -> None:
        """Ask again and again whether its loop turns; return when it does not."""
        await self._ready.wait()
        while True:
            with trio.move_on_after(self._patience.loop) as within:
                await self.ask("ping")
            if within.cancelled_caught:
                self.blocked = await self._find_culprit()
                scope.cancel()
                return
            await trio.sleep(self._patience.ping)

    async def _find_culprit(self) -> Blocked:
        long = f"{self._patience.loop:g} s"
        with trio.move_on_after(WHO_LIMIT), suppress(EngineError):
            told = await self.ask("who")
            return Blocked(f"blocks in {told['call'] or 'a call'} for {long} ({told['place']})", told["kernel"])
        return Blocked(f"does not answer for {long}: its whole process stands still")

    def close(self) -> None:
        """Let nobody wait any more for it, or for an answer."""
        self.gone.set()
        if not self._ready.is_set():
            self.failed = "the program that runs them ended at its start"
            self._ready.set()
        for answer in self._answers.values():
            answer.known.set()

    async def end(self) -> None:
        """Have the process end: in order where it can, else by force. Takes `Patience.farewell` at most."""
        assert self._process.stdin is not None
        if self.blocked is None:
            await self._process.stdin.aclose()
            with trio.move_on_after(self._patience.farewell):
                await self._process.wait()
        if self._process.poll() is None:
            self._process.kill()
        await self._process.wait()


async def log_lines(stream: trio.abc.ReceiveStream) -> None:
    """Log what provisioners print, to its end."""
    rest = b""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    logger.info("Provisioners: %s", line.decode(errors="replace")[:LAST_WORD])


@asynccontextmanager
async def open_program(
    directory: Path, patience: Patience, on_event: Callable[[str, Mapping[str, Any]], None], nursery: trio.Nursery
) -> AsyncIterator[ProgramProcess]:
    """Start the program for a block, which has to call `run`; on leaving it ends, and with it its kernels.

    Args:
        directory: Where kernels' files may go.
        patience: How long to wait for what.
        on_event: Is given what it says without being asked.
        nursery: Where what it prints is read; that may go on longer, as kernels of this machine print there too.

    Raises:
        EngineError: It cannot be started.
    """
    if getattr(sys, "frozen", False):
        raise EngineError("Kernel provisioners need an installed Python, and this kcserver is a single file")
    group: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
    try:
        process = await trio.lowlevel.open_process(
            # Not what lies in the current directory by chance.
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **group,
        )
    except OSError as error:
        raise EngineError(f"The program that runs provisioners could not be started: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    nursery.start_soon(partial(log_lines, process.stderr))
    program = ProgramProcess(process, patience, on_event)
    try:
        with suppress(trio.BrokenResourceError):
            await process.stdin.send_all(encode({"directory": os.fspath(directory)}))
        yield program
    finally:
        program.close()
        with trio.CancelScope(shield=True):
            await program.end()
            await process.stdout.aclose()
            await process.stdin.aclose()
