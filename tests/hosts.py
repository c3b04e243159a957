"""Hosts for tests: started with a plain kernel, talked to by a link, and gone with what they held at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from kallichore.engines.engine import KEEP_LIMIT
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.host_program import Ready, host_script, read_ready
from kallichore.engines.local import start_host
from kallichore.engines.reach import beside
from kallichore.wire.host_frames import Frame

SECRET = bytes(range(32))
SHELL, IOPUB, STDIN, CONTROL, HEARTBEAT, STDOUT, STDERR = range(7)
PATIENCE = 30
"""Seconds after which a test has failed; what it waits for takes some hundred milliseconds at most."""

PLAIN_KERNEL = (sys.executable, str(Path(__file__).with_name("plain_kernel.py")))


@attrs.frozen
class Hosted:
    """A host that runs."""

    directory: Path
    pid: int

    def link(
        self, positions: Mapping[int, int] = {}, unaccepted: Sequence[Frame] = ()
    ) -> AbstractAsyncContextManager[HostLink]:
        """Attach to it."""
        return open_link(beside(self.directory), SECRET, positions, unaccepted)


@attrs.frozen
class FarHost(Hosted):
    """A host that was started by a script, which is its own process if it stays."""

    process: trio.Process
    ready: Ready

    @property
    def errors(self) -> trio.abc.ReceiveStream:
        """What it complains about."""
        assert self.process.stderr is not None
        return self.process.stderr


@asynccontextmanager
async def open_host(
    place: Path,
    argv: Sequence[str] = PLAIN_KERNEL,
    *,
    working_directory: str | None = None,
    abandon_after: float = 0,
    keep_limit: int = KEEP_LIMIT,
) -> AsyncIterator[Hosted]:
    """Start a host; on leaving it is killed, if it is still there, and it and its kernel are gone."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = dict(os.environ)
    with trio.fail_after(PATIENCE):
        pid = await start_host(
            place,
            SECRET,
            argv,
            environment,
            working_directory,
            abandon_after=abandon_after,
            keep_limit=keep_limit,
        )
    try:
        yield Hosted(place, pid)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await wait_gone(pid)


@asynccontextmanager
async def open_far_host(
    place: Path, argv: Sequence[str] = PLAIN_KERNEL, *, python: Sequence[str] = (sys.executable, "-I"), **more: Any
) -> AsyncIterator[FarHost]:
    """Start a host as one is started on another machine: by what a Python reads from its input. Gone on leaving.

    Args:
        place: The directory for temporary files of that machine.
        argv: The kernel.
        python: Which one.
        more: Other members of what the host is told.
    """
    document: dict[str, Any] = {
        "secret": SECRET.hex(),
        "argv": list(argv),
        "actions": [],
        "directory": None,
        "abandon_after": 0,
        "keep_limit": KEEP_LIMIT,
        **more,
    }
    process = await trio.lowlevel.open_process(
        [*python, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said, ready = b"", None
    try:
        with trio.fail_after(PATIENCE):
            await process.stdin.send_all(host_script(document))
            await process.stdin.aclose()
            while ready is None:
                data = await process.stdout.receive_some()
                assert data, f"the host ended, having said {said!r}"
                said += data
                ready = read_ready(said)
        yield FarHost(Path(ready.socket).parent, ready.pid, process, ready)
    finally:
        with suppress(ProcessLookupError):
            os.kill(ready.pid if ready is not None else process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()
            assert process.stderr is not None
            await process.stderr.aclose()
            if ready is not None:
                await wait_gone(ready.pid)


def old_pythons() -> list[str]:
    """Return the Pythons of this machine that are older than what we need ourselves, the oldest first."""
    wanted = ("3.8", "3.9", "3.10")
    found = [shutil.which(f"python{version}") for version in wanted]
    managed = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found += [str(path) for version in wanted for path in managed.glob(f"{version}.*/bin/python3")]
    paths = [path for path in found if path is not None]
    return [path for path in paths if subprocess.run([path, "-c", "pass"], capture_output=True).returncode == 0]


async def wait_gone(pid: int) -> None:
    """Wait until a process, which need not be our child, has ended."""
    with trio.fail_after(PATIENCE):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)


async def read_line(link: HostLink, channel: int) -> bytes:
    """Wait for a line on a channel, and take it; what comes behind it has to wait for another."""
    line = b""
    pieces = link.channels[channel].pieces
    while not line.endswith(b"\n"):
        await wait(link, channel)
        assert pieces, f"the channel ended after {line!r}"
        head, end, rest = pieces.popleft().partition(b"\n")
        line += head + end
        if rest:
            pieces.appendleft(rest)
    return line.strip()


async def wait(link: HostLink, channel: int) -> None:
    """Wait for something on a channel, for a while."""
    with trio.fail_after(PATIENCE):
        await link.channels[channel].wait()


async def read(link: HostLink, channel: int, size: int) -> bytes:
    """Take so many bytes that come on a channel, and confirm them."""
    state, data = link.channels[channel], bytearray()
    while len(data) < size:
        await wait(link, channel)
        assert state.pieces, f"it ended after {len(data)} bytes"
        while state.pieces:
            data += state.pieces.popleft()
        link.confirm(channel, state.position)
    return bytes(data)


async def read_to_end(link: HostLink, channel: int) -> bytes:
    """Take what comes on a channel until the kernel closes it."""
    state, data = link.channels[channel], bytearray()
    while state.pieces or not state.ended:
        await wait(link, channel)
        assert state.pieces or state.ended, "the link was lost"
        while state.pieces:
            data += state.pieces.popleft()
        link.confirm(channel, state.position)
    return bytes(data)


async def connect_all(link: HostLink) -> None:
    """Read the ports that a plain kernel prints, and have its channels connected."""
    ports = json.loads(await read_line(link, STDOUT))
    for channel, port in enumerate(ports):
        assert await link.open(channel, "inet", ["127.0.0.1", port]) == 0


def tell(link: HostLink, command: str) -> None:
    """Have a plain kernel do something."""
    link.send(CONTROL, command.encode() + b"\n")
