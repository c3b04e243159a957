"""Kernel provisioners as nobody wants them, for tests: they run in the program that the server starts for all of them.

Each launches a process of this machine and says nothing of that, as one that launches it elsewhere.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode


class Odd(LocalProvisioner):
    """A provisioner with a fault.

    ``place`` is a directory: what has happened is written there, and some faults begin or end with a file in it.
    """

    fault = Unicode(config=True)
    place = Unicode(config=True)

    def note(self, *words: Any) -> None:
        """Write down what happened."""
        with (Path(self.place) / "notes").open("a") as file:
            print(self.kernel_id, *words, file=file)

    def is_asked_for(self, name: str) -> bool:
        """Whether a test has made a file."""
        return (Path(self.place) / name).exists()

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch it, unless the fault is here."""
        if self.fault == "refuse":
            raise RuntimeError("no room on planet B")
        if self.fault == "leave":
            sys.exit(3)
        if self.fault == "block-launch":
            time.sleep(600)  # noqa: ASYNC251
        info = await super().launch_kernel(cmd, **kwargs)
        self.note("launched", self.pid)
        self.note("environment", sorted(kwargs["env"]))
        while self.fault == "slow-launch" and not self.is_asked_for("go"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return {"shell_port": 5, "ip": ""} if self.fault == "nowhere" else info

    async def poll(self) -> int | None:
        """Look for it, unless the fault is here."""
        if self.fault == "block" and self.is_asked_for("block"):
            self.note("blocks")
            time.sleep(600)  # noqa: ASYNC251
        if self.fault == "forgetful" and not self.is_asked_for("remember"):
            raise ConnectionError("planet B does not answer")
        code = await super().poll()
        return 0 if self.fault == "liar" and code is not None else code

    async def wait(self) -> int | None:
        """Wait for its end."""
        code = await super().wait()
        return 0 if self.fault == "liar" else code

    async def kill(self, restart: bool = False) -> None:
        """Kill it, unless the fault is here."""
        self.note("kill")
        if self.fault == "immortal":
            raise RuntimeError("planet B is out of reach")
        await super().kill(restart=restart)

    async def terminate(self, restart: bool = False) -> None:
        """Ask it to end, unless the fault is here."""
        if self.fault == "immortal":
            raise RuntimeError("planet B is out of reach")
        await super().terminate(restart=restart)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Note that its end is asked for."""
        self.note("shutdown_requested", restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Note that it is over."""
        self.note("cleanup", restart)
        await super().cleanup(restart=restart)

    async def get_provisioner_info(self) -> dict[str, Any]:
        """Tell what finds it again."""
        return {**await super().get_provisioner_info(), "fault": self.fault}


class Finder(Odd):
    """One that finds its kernels again, as those do that ask a cluster."""

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        """Find it again by its process."""
        await super().load_provisioner_info(provisioner_info)
        self.note("found", self.pid)
        self.process = _Found(self.pid)


class _Found:
    """A process that another program has started."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        """Whether it has ended."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            return 0
        return 0 if state == b"Z" else None

    def wait(self) -> int:
        """Tell nothing."""
        return 0
