"""The process of a kernel that was launched before it was asked for: the same one, with what it printed till then."""

from __future__ import annotations

import attrs
import trio

from kallichore.engines.placement import Process
from kallichore.kernel.ending import Ending
from kallichore.kernel.here import ProcessHere


@attrs.frozen(eq=False)
class TakenProcess(ProcessHere):
    """A process whose output was kept; see `kallichore.engines.placement.Process` for what each does."""

    _process: Process
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def send_signal_to_group(self, number: int) -> None:
        """Send a signal to the kernel and to everything in its group."""
        self._process.send_signal_to_group(number)

    def kill(self) -> None:
        """Kill them."""
        self._process.kill()

    def kill_or_give_up(self) -> None:
        """Kill them; where they may not be signalled, wait for the end no longer."""
        self._process.kill_or_give_up()

    async def wait(self) -> Ending:
        """Wait for the end. Cancelling leaves the process as it is."""
        return await self._process.wait()
