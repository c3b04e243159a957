"""Real servers with one state directory, one after another: started, killed, started again. For tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import psutil
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kernels import REAL_TIME

FRAGILE = Path(__file__).with_name("fragile.py")

OPTIONS = ("--resource-sample-interval", "0", "--log-level", "debug")
"""What tests compare is the same in each run without samples of memory among it."""


@attrs.define
class Servers:
    """One server at a time.

    Args:
        place: Where the state directory is, or is to be, and what the servers log.
        options: Of each server.
    """

    place: Path
    options: Sequence[str] = ()
    state: Path = attrs.field(init=False)
    process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)
    client: ApiClient = attrs.field(init=False)
    """Of the server that was started last."""

    def __attrs_post_init__(self) -> None:
        self.state = self.place / "state"

    @property
    def log(self) -> str:
        """What they logged."""
        return (self.place / "log").read_text(errors="replace")

    @property
    def lives(self) -> bool:
        """Whether the server that was started last has not ended."""
        return self.process is not None and self.process.poll() is None

    def launch(self, *options: str, fault: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a server, beside the one that there is.

        Args:
            options: More of them.
            fault: Where it is to kill itself: the arguments of `fragile`.
        """
        program = [str(FRAGILE), *fault] if fault else ["-m", "kallichore"]
        arguments = ["--state-dir", str(self.state), *OPTIONS, *self.options, *options]
        with open(self.place / "log", "ab") as log:
            return subprocess.Popen([sys.executable, *program, *arguments], stdout=log, stderr=log)

    async def start(self, *options: str, fault: Sequence[str] = ()) -> ApiClient | None:
        """Start a server, and return a client of it when it listens; None if it ended before that."""
        self.process = process = self.launch(*options, fault=fault)
        return await self.wait_listening(process)

    async def wait_listening(self, process: subprocess.Popen[bytes]) -> ApiClient | None:
        """Wait until this server has the state directory and listens; return None if it ends before that."""
        with trio.fail_after(REAL_TIME):
            while True:
                try:
                    document = json.loads((self.state / "address.json").read_bytes())
                except (OSError, ValueError):
                    document = {}
                if document.get("server_pid") == process.pid:
                    self.process = process
                    self.client = ApiClient(from_connection_document(document))
                    return self.client
                if process.poll() is not None:
                    return None
                await trio.sleep(0.01)

    async def kill(self) -> None:
        """Kill the server, without a word, and wait until it is gone."""
        await self.end(signal.SIGKILL)

    async def end(self, number: int) -> int:
        """Send the server a signal, wait until it has ended, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.wait()

    async def wait(self) -> int:
        """Wait until the server has ended, and return its exit code."""
        assert self.process is not None
        with trio.fail_after(REAL_TIME):
            while self.process.poll() is None:  # noqa: ASYNC110  # there is no event for it
                await trio.sleep(0.01)
        return self.process.returncode

    def sessions(self) -> list[Path]:
        """Return what is in the place of the sessions' directories."""
        return sorted((self.state / "sessions").iterdir())

    def hosts(self) -> list[psutil.Process]:
        """Return the hosts, and their guardians, that are there because of this test."""
        return [process for process in processes_below(self.place) if "host.py" in " ".join(process.cmdline())]


def processes_below(place: Path) -> list[psutil.Process]:
    """Return the processes that a test with this private place has started, or their children, as far as they run."""
    mark = f"TMPDIR={place}".encode()
    found = []
    for pid in psutil.pids():
        try:
            if pid != os.getpid() and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                process = psutil.Process(pid)
                if process.cmdline():
                    found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


async def wait_nothing_left(servers: Servers) -> list[str]:
    """Wait until no process is there but the server, and return the command lines of those that stay."""
    left: list[str] = ["not looked at yet"]
    with trio.move_on_after(5):
        while left:
            await trio.sleep(0.02)
            own = None if servers.process is None else servers.process.pid
            left = []
            for process in processes_below(servers.place):
                try:
                    line = " ".join(process.cmdline())
                    # A server has a watchdog, which ends with it.
                    if process.pid != own and process.ppid() != own and line:
                        left.append(line)
                except psutil.Error:
                    continue
    return left


@asynccontextmanager
async def open_servers(place: Path, *options: str) -> AsyncIterator[Servers]:
    """Have servers with one state directory; what is left of them at the end is killed."""
    servers = Servers(place, options)
    try:
        yield servers
    finally:
        if servers.lives:
            with trio.CancelScope(shield=True):
                await servers.kill()
