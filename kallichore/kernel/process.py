"""One kernel process: started in a group of its own, watched, signalled, and reaped with everything that it started.

A kernel leads its own process group, so that signals reach its workers too, and a terminal's Ctrl-C does not; whether
also a session of its own is a matter of terminals, see `kallichore.kernel.terminal`. When the kernel ends, what is left
of its group is killed *before* the kernel is reaped: as long as its zombie stands, the group's number cannot have
become somebody else's.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio
import trio_util

from kallichore.kernel.batch_files import batch_command_line, is_batch_file
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.here import ProcessHere
from kallichore.kernel.memory_limits import GROUPS, PROC, own_kill_counters
from kallichore.kernel.survivors import describe_survivors
from kallichore.kernel.terminal import has_controlling_terminal
from kallichore.kernel.windows_codes import signed


class Job(Protocol):
    """A process with all its descendants, as Windows knows it."""

    def kill(self) -> None:
        """Kill them; raises `OSError`."""

    def close(self) -> None:
        """Let go of the job, which kills what is left of it."""


def signal_name(number: int) -> str:
    """Return what a signal is called; its number where it has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def count_memory_kills(proc: Path = PROC, groups: Path = GROUPS) -> int:
    """Return how many processes were killed for memory so far: in our control group, of either version, or where it
    does not tell, on the whole machine, which others use as well; 0 where nothing is told.
    """
    counts = map(_find_kills, (*own_kill_counters(proc, groups), proc / "vmstat"))
    return next((count for count in counts if count is not None), 0)


def _find_kills(counters: Path) -> int | None:
    """Return the count of killed processes in a file of counters; None if there is none."""
    with suppress(OSError):
        lines = map(str.split, counters.read_text().splitlines())
        return next((int(line[1]) for line in lines if line[:1] == ["oom_kill"]), None)
    return None


def _own_peak() -> int:
    """Return the most memory that this process ever had, in KiB; 0 where that is not told."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reap_ended(pid: int) -> tuple[int, int] | None:
    """Reap a child that has ended; return its exit code and the most memory that it had, in KiB. None if it is gone.

    Of all ways to reap, this is the one that tells what it used. None also where it is not done this way.
    """
    if sys.platform != "linux":
        return None
    try:
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss


@attrs.define(eq=False)
class KernelProcess(ProcessHere):
    """A running kernel. Made by `open_kernel_process`; its owner must `wait` for it."""

    _process: trio.Process
    _job: Job | None = None
    """On Windows, what the kernel's descendants are ended by."""
    _count_memory_kills: Callable[[], int] = count_memory_kills
    _memory_kills: int = attrs.field(init=False)
    _inherited_peak: int = attrs.field(factory=_own_peak, init=False)
    _killed_by_us: bool = attrs.field(default=False, init=False)
    _given_up: trio.Event = attrs.field(factory=trio.Event, init=False, repr=False)
    _waiting: trio.Lock = attrs.field(factory=trio.Lock, init=False, repr=False)
    ending: Ending | None = attrs.field(default=None, init=False)
    """How it ended, once it was reaped."""

    def __attrs_post_init__(self) -> None:
        self._memory_kills = self._count_memory_kills()

    def __repr__(self) -> str:
        return f"<KernelProcess {self.pid} {'running' if self.ending is None else self.ending.describe()}>"

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    @property
    def stdout(self) -> trio.abc.ReceiveStream:
        """What it prints."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> trio.abc.ReceiveStream:
        """What it complains about."""
        assert self._process.stderr is not None
        return self._process.stderr

    def send_signal_to_group(self, number: int) -> None:
        """Send a signal to the kernel and to everything in its group.

        Raises:
            ProcessLookupError: It has ended.
        """
        if self.ending is not None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        if sys.platform == "win32":
            self._process.send_signal(number)
        else:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill the kernel and everything in its group.

        Raises:
            ProcessLookupError: It has ended.
            PermissionError: It is another user's, as behind ``sudo``; the text says which processes are left.
        """
        if sys.platform == "win32":
            if self._job is None or self.ending is not None:
                raise ProcessLookupError(f"process {self.pid} has ended")
            self._job.kill()
        else:
            refused = None
            try:
                self.send_signal_to_group(signal.SIGKILL)
            except PermissionError as error:
                refused = error
            # Some of a group may be ended, sudo for one, while others stay, what it started for one.
            self._killed_by_us = refused is None
            survivors = describe_survivors(self.pid)
            if survivors is not None or refused is not None:
                raise PermissionError(errno.EPERM, survivors or f"Not permitted to end process {self.pid}") from refused
        self._killed_by_us = True

    def kill_or_give_up(self) -> None:
        """Kill the kernel and everything in its group; where it may not be signalled, wait for its end no longer."""
        try:
            self.kill()
        except ProcessLookupError:
            pass
        except PermissionError:
            if not self._killed_by_us:
                self._given_up.set()

    async def wait(self) -> Ending:
        """Wait for the end, kill what is left of the group, reap. Cancelling leaves the process as it is.

        A process that was given up is not waited for: it goes on, and is reaped by nobody as long as we live.
        """
        # One at a time: a second waiter that woke after the first has reaped would signal somebody else's group.
        async with self._waiting:
            if self.ending is None:
                await trio_util.wait_any(self._wait_unreaped, self._given_up.wait)
                if self._given_up.is_set():
                    # Nobody can say when it ends, and nothing of it is ours to end.
                    survivors = describe_survivors(self.pid)
                    self.ending = Ending(self.pid, ENDED_BY_SIGNAL, survivors=survivors, given_up=True)
                    return self.ending
                if sys.platform != "win32":
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.pid, signal.SIGKILL)
                survivors = describe_survivors(self.pid)
                self.ending = attrs.evolve(await self._reap(), survivors=survivors)
                if self._job is not None:
                    self._job.close()
        return self.ending

    async def _reap(self) -> Ending:
        reaped = _reap_ended(self.pid)
        # Where that reaped it, subprocess finds nothing left, and takes it for the end.
        code = await self._process.wait()
        if reaped is None:
            return self._describe_end(code)
        code, peak = reaped
        # A process begins with the peak of the one that made it, and with less it tells nothing of its own.
        return self._describe_end(code, peak * 1024 if peak > self._inherited_peak else None)

    def _describe_end(self, code: int, peak: int | None = None) -> Ending:
        if sys.platform == "win32":
            return Ending(self.pid, signed(code), killed_by_us=self._killed_by_us)
        if code >= 0:
            return Ending(self.pid, code, peak_memory_bytes=peak)
        name = signal_name(-code)
        # The machine kills with SIGKILL. The count is not this process's: an own kill, or another signal, is no proof.
        suspect = name == "SIGKILL" and not self._killed_by_us
        return Ending(
            self.pid,
            ENDED_BY_SIGNAL,
            name,
            out_of_memory=suspect and self._count_memory_kills() > self._memory_kills,
            killed_by_us=self._killed_by_us,
            peak_memory_bytes=peak,
        )

    async def _wait_unreaped(self) -> None:
        """Wait for the end without reaping, where the system has a way to."""
        if sys.platform == "linux":
            try:
                descriptor = os.pidfd_open(self.pid)
            except OSError:
                # No descriptor left, or a sandbox without this call: a thread has to wait. Cancelled, it is left behind
                # and ends with the process.
                await trio.to_thread.run_sync(
                    os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT, abandon_on_cancel=True
                )
                return
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)


SPARE_DESCRIPTORS = 48
"""Descriptors that have to be free where a kernel begins to take its ten: what is left is for connections, since
nobody could ask for the status, or stop a kernel and so give some back, if kernels had them all."""


def require_descriptors() -> None:
    """See that a kernel can be had, and that then the server can still be talked to.

    Raises:
        OSError: There are too few free descriptors.
    """
    spare: list[int] = []
    try:
        while len(spare) < SPARE_DESCRIPTORS:
            spare.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in spare:
            os.close(descriptor)


async def open_kernel_process(
    argv: Sequence[str], environment: Mapping[str, str], working_directory: str | None, handles: Sequence[int] = ()
) -> KernelProcess:
    """Start a kernel process; the caller must wait for it.

    Its input is empty: a kernel that read the server's terminal would take what others typed. Cancelling either comes
    before the process is made or does not come: `trio.lowlevel.open_process` sees to that.

    Args:
        argv: Program and arguments.
        environment: The whole environment.
        working_directory: Where it starts; None for the server's own directory.
        handles: On Windows, what it inherits besides its input and output.

    Raises:
        OSError: It could not be started.
        ValueError: There is something in its arguments that cannot be passed on.
    """
    require_descriptors()
    process = await trio.lowlevel.open_process(
        _command(argv),
        env=environment,
        cwd=working_directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **_own_group(handles),
    )
    return KernelProcess(process, _open_job(process))


def _command(argv: Sequence[str]) -> Any:
    """Return what Popen takes for a command: a line for a batch file, which is read by other rules."""
    # Trio types what Popen takes by platform.
    if sys.platform == "win32" and is_batch_file(argv[0]):
        return batch_command_line(argv, os.path.join(os.environ["SYSTEMROOT"], "System32", "cmd.exe"))
    return list(argv)


def _own_group(handles: Sequence[int]) -> dict[str, Any]:
    """Return Popen's options for a process that leads its group and has no controlling terminal."""
    # Trio types what Popen takes by platform.
    if sys.platform == "win32":
        from kallichore.kernel.windows import CREATE_SUSPENDED

        # By name: a kernel that inherited whatever is inheritable just then would hold the ends of another's output.
        inheriting = subprocess.STARTUPINFO(lpAttributeList={"handle_list": list(handles)})
        # A group of its own, so that a console's Ctrl-C does not hit it; suspended until it is in its job.
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED
        return {"close_fds": True, "startupinfo": inheriting, "creationflags": flags}
    # Asked anew each time: the program around an embedded server may have changed that.
    return {"start_new_session": True} if has_controlling_terminal() else {"process_group": 0}


def _open_job(process: trio.Process) -> Job | None:
    """Let a process run that was made suspended, on Windows: in a job, with all that it starts."""
    if sys.platform == "win32":
        from kallichore.kernel.windows import run_in_job

        try:
            return run_in_job(process.pid)
        except OSError:
            process.kill()
            raise
    return None
