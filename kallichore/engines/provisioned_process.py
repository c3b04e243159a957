"""A kernel that a provisioner looks after, as a process: what is asked of it goes to the provisioner."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from kallichore.engines.provisioner_words import Launched, ToldEnd, uncertain_end
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.here import ProcessSomewhere
from kallichore.kernel.leftovers import is_own_kernel, start_time
from kallichore.kernel.process import signal_name

LOOK_EVERY = 0.5
"""Seconds between two looks at a process that is nobody's child here."""


class Silence(trio.abc.ReceiveStream):
    """The output of a kernel of which nobody brings us any: at its end from the beginning."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return nothing."""
        await trio.lowlevel.checkpoint()
        return b""

    async def aclose(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()


class Asking(Protocol):
    """What a process needs of who speaks with provisioners; see `kallichore.engines.provisioner`."""

    def ask_soon(self, process: ProvisionedProcess, op: str, **given: Any) -> None:
        """Ask without waiting; what goes wrong is told to who uses the kernel."""

    def kill_soon(self, process: ProvisionedProcess) -> None:
        """Have a kernel killed; one that is there for long afterwards is given up."""


@attrs.define(eq=False)
class ProvisionedProcess(ProcessSomewhere):
    """A kernel that was launched by a provisioner. Its owner must `wait` for it.

    Args:
        kernel_id: What the provisioner knows it by.
        provisioner: The provisioner's name.
        launched: What it told of the launch.
        making: From what its provisioner can be made again.
        is_restarting: Whether another kernel is to follow this one.
        tell: Told what goes wrong, in a sentence, for who uses the kernel.
        asking: Speaks with the provisioner.
    """

    kernel_id: str
    provisioner: str
    launched: Launched
    making: Mapping[str, Any] = attrs.field(repr=False)
    is_restarting: Callable[[], bool]
    tell: Callable[[str], None]
    _asking: Asking = attrs.field(repr=False)
    stdout: trio.abc.ReceiveStream = attrs.field(factory=Silence, init=False)
    stderr: trio.abc.ReceiveStream = attrs.field(factory=Silence, init=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    """How it ended, once that is known."""
    blocks: int = attrs.field(default=0, init=False)
    """How many times its provisioner has blocked the process that it runs in."""
    is_alone: bool = attrs.field(default=False, init=False)
    """Whether it is watched and signalled from here, as its provisioner cannot any more."""
    _is_to_be_gone: bool = attrs.field(default=False, init=False)
    _started: str | None = attrs.field(init=False)
    """When its process was started, in the machine's words, where it is of this machine."""
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _killed_by_us: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._started = start_time(self.pid) if self.pid else None

    @property
    def pid(self) -> int:
        """Its process id, where it is a process of this machine; else 0."""
        return self.launched.pid

    def send_signal_to_group(self, number: int) -> None:
        """Have its provisioner send a signal. Raises `ProcessLookupError` if it has ended."""
        self._require_it()
        if self.is_alone:
            signal_group(self.pid, number)
        elif number == signal.SIGTERM:
            self._asking.ask_soon(self, "terminate", restart=self.is_restarting())
        else:
            self._asking.ask_soon(self, "signal", number=int(number))

    def _require_it(self) -> None:
        if self.ending is not None:
            raise ProcessLookupError("the kernel has ended")

    def kill(self) -> None:
        """Have its provisioner kill it; where that fails, it is told. Raises `ProcessLookupError` if it has ended."""
        self._require_it()
        self._killed_by_us = True
        if self.is_alone and sys.platform != "win32":
            signal_group(self.pid, signal.SIGKILL)
        else:
            self._asking.ask_soon(self, "kill", restart=self.is_restarting())

    def kill_or_give_up(self) -> None:
        """Have its provisioner kill it; where that cannot, wait for its end no longer."""
        if self.ending is not None:
            return
        if self.is_alone:
            with suppress(ProcessLookupError):
                self.kill()
        elif not self._is_to_be_gone:
            self._killed_by_us = self._is_to_be_gone = True
            self._asking.kill_soon(self)

    async def wait(self) -> Ending:
        """Wait for the end. Cancelling leaves the kernel as it is."""
        await self._ended.wait()
        assert self.ending is not None
        return self.ending

    # What is learnt of its end

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._ended.set()

    def note_end(self, told: ToldEnd) -> None:
        """Take what its provisioner tells of its end. A code is the system's word, or another's, who may not know."""
        code = told.code
        if not told.is_certain or code is None:
            known = code if code else ENDED_BY_SIGNAL
            lost = uncertain_end(self.provisioner, code)
            self._end(Ending(self.pid, known, killed_by_us=self._killed_by_us, lost=lost))
        elif code < 0 and sys.platform != "win32":
            name = signal_name(-code)
            self._end(Ending(self.pid, ENDED_BY_SIGNAL, name, killed_by_us=self._killed_by_us))
        else:
            self._end(Ending(self.pid, code, killed_by_us=self._killed_by_us))

    def give_up(self, why: str) -> None:
        """Look after it no longer, as its provisioner cannot end it."""
        text = f"It may still be there: its provisioner {self.provisioner!r} {why}"
        self._end(Ending(self.pid, ENDED_BY_SIGNAL, survivors=text, given_up=True))

    def lose(self, why: str) -> None:
        """Look after it no longer, as nobody can say what becomes of it."""
        lost = f"is looked after no longer: its provisioner {self.provisioner!r} {why}"
        self._end(Ending(self.pid, ENDED_BY_SIGNAL, lost=lost))

    async def go_on_alone(self) -> None:
        """Watch and signal a process of this machine from here: its provisioner cannot find it again. One that is
        elsewhere is lost.
        """
        if not self._is_there():
            self.lose("could not find it again when its process was replaced")
            return
        self.is_alone = True
        while self._is_there():  # noqa: ASYNC110
            # It is no child of ours, and nothing wakes us when it ends.
            await trio.sleep(LOOK_EVERY)
        lost = f"ended; nobody saw how, as the process of its provisioner {self.provisioner!r} had been replaced"
        self._end(Ending(self.pid, ENDED_BY_SIGNAL, killed_by_us=self._killed_by_us, lost=lost))

    def _is_there(self) -> bool:
        if self._started is None or not is_own_kernel(self.pid, self._started):
            return False
        # What ended and was reaped by nobody has the state Z, behind its name in parentheses.
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
        return False


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a group of processes; raises `OSError`."""
    if sys.platform != "win32":
        os.killpg(pid, number)
