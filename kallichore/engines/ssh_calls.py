"""Running ssh: for a command of a moment, or as the way to a host for as long as it lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import trio
import trio_util

from kallichore.engines.ssh_errands import MARK
from kallichore.engines.ssh_words import Complaint, Trouble, read_complaint

LAST_PATIENCE = 1.0
"""Seconds that ssh may take to end when it is asked to, having helpers of its own to end; and for which its outputs are
read when it has ended, since a helper that goes on may hold them open."""

MOST_SAID = 1 << 22
"""Bytes that are kept of what comes, the last ones: a list of kernels has some thousand, a complaint a line."""

PIECE = 1 << 12
"""Bytes that are looked at at once before a host's first: there are none but what a login shell printed."""


@attrs.frozen
class Said:
    """What came of a command.

    Attributes:
        code: ssh's exit code; negative if a signal ended it.
        out: What came on its standard output.
        err: What came on its standard error.
    """

    code: int
    out: bytes
    err: str

    @property
    def complaint(self) -> Complaint:
        """Why it did not do what it was to do. Where nobody complains, what was printed may say it."""
        return read_complaint(self.code, self.err.strip() or self.out.decode(errors="replace"))


async def run_command(command: Sequence[str], patience: float, told: bytes = b"") -> Said | Complaint:
    """Run ssh to its end.

    Cancelling ends ssh; what it has begun over there may go on.

    Args:
        command: Its program and arguments.
        patience: Seconds that it may take.
        told: What the command over there is to read.

    Returns:
        What it said; or why it said nothing: it could not be started, or does not answer.
    """
    out, err = bytearray(), bytearray()
    with trio.move_on_after(patience):
        try:
            async with _open_ssh(command, subprocess.PIPE) as process:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_tell, process.stdin, told)
                    nursery.start_soon(_listen, process.stdout, out)
                    nursery.start_soon(_listen, process.stderr, err)
                    code = await process.wait()
                    nursery.cancel_scope.deadline = trio.current_time() + LAST_PATIENCE
        except OSError as error:
            return _describe_missing(command, error)
        return Said(code, bytes(out), err.decode(errors="replace"))
    return Complaint(Trouble.SILENT, f"nothing came for {patience:.0f} seconds")


async def run_relay(
    command: Sequence[str],
    theirs: socket.socket,
    ours: socket.socket,
    *,
    task_status: trio.TaskStatus[Said | Complaint | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ssh as the way to a host, to its end, which comes when either side hangs up.

    It has started when the host's first byte is there; then the value is None. Or it has ended before: then that is
    what it said, or why it could not be started. Cancelling ends it.

    Args:
        command: Its program and arguments.
        theirs: The socket that becomes its standard input and output; closed here.
        ours: The other end, on which the host's bytes come. Its owner closes it.
    """
    err = bytearray()
    try:
        async with _open_ssh(command, theirs) as process:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, process.stderr, err)
                await trio_util.wait_any(partial(_wait_for_host, ours), process.wait)
                is_there = process.returncode is None
                if is_there:
                    task_status.started(None)
                code = await process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_PATIENCE
    except OSError as error:
        task_status.started(_describe_missing(command, error))
        return
    finally:
        theirs.close()
    if not is_there:
        task_status.started(Said(code, b"", err.decode(errors="replace")))


def _describe_missing(command: Sequence[str], error: OSError) -> Complaint:
    return Complaint(Trouble.MISSING, f"{command[0]}: {error.strerror or error}")


@asynccontextmanager
async def _open_ssh(command: Sequence[str], ends: int | socket.socket) -> AsyncIterator[trio.Process]:
    """Start ssh; on leaving it is ended if it runs, and reaped.

    Args:
        command: Its program and arguments.
        ends: What becomes of its standard input and output; a socket is closed here.

    Raises:
        OSError: It could not be started.
    """
    if sys.platform == "win32":
        raise OSError("Unix sockets are needed, which Windows does not have")
    # What a terminal sends to us is not for it; so it leads a group, with what it starts to get there.
    process = await trio.lowlevel.open_process(
        command, stdin=ends, stdout=ends, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        if isinstance(ends, socket.socket):
            ends.close()
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await trio.aclose_forcefully(stream)


async def _end(process: trio.Process) -> None:
    """End ssh, if it runs, and reap it."""
    if sys.platform == "win32":
        raise NotImplementedError
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with trio.move_on_after(LAST_PATIENCE):
                await process.wait()
    await process.wait()


async def _tell(stream: trio.abc.SendStream | None, told: bytes) -> None:
    """Tell ssh's other end something. One that has ended by then is noticed by what it says."""
    assert stream is not None
    async with stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(told)


async def _listen(stream: trio.abc.ReceiveStream | None, said: bytearray) -> None:
    """Add what comes on a stream to what was said, up to its end."""
    assert stream is not None
    async for data in stream:
        said += data
        del said[:-MOST_SAID]


async def _wait_for_host(connection: socket.socket) -> None:
    """Drop what comes before the mark, and wait for the first byte behind it, which stays where it is.

    Where there will be none, this waits until it is cancelled.
    """
    before = b""
    while not before.endswith(MARK):
        seen = await _peek(connection, PIECE)
        place = (before + seen).find(MARK)
        size = len(seen) if place < 0 else place + len(MARK) - len(before)
        before = (before + connection.recv(size))[-len(MARK) :]
    await _peek(connection, 1)


async def _peek(connection: socket.socket, size: int) -> bytes:
    """Wait for bytes, and return them without taking them; where no more will come, wait until this is cancelled."""
    while True:
        await trio.lowlevel.wait_readable(connection)
        try:
            seen = connection.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        except OSError:
            seen = b""
        if seen:
            return seen
        # Who hung up ends, and that is waited for beside this.
        await trio.sleep_forever()
