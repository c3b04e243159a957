"""A machine with a network of its own, for tests: an sshd in one network namespace, and ssh in another.

The cable between them can be pulled. It needs root, Debian's iproute2, and what `far_machine` needs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from debian import Missing, get_packages
from far_machine import Far, find_sshd, kill_daemon

HOME, FAR = "10.78.0.1", "10.78.0.2"

SSH = """#!/bin/sh
exec ip netns exec {name} ssh "$@"
"""


@attrs.define(eq=False, kw_only=True)
class FarNamespace(Far):
    """The machine.

    Attributes:
        name: What both namespaces' names begin with.
    """

    name: str
    sshd: str
    _daemon: trio.Process | None = None

    @property
    def home(self) -> str:
        """The namespace that ssh runs in."""
        return f"{self.name}-home"

    @property
    def far(self) -> str:
        """The namespace that the machine is."""
        return f"{self.name}-far"

    def make(self) -> None:
        """Make both namespaces, with a cable between them.

        Raises:
            subprocess.CalledProcessError: That may not be done here.
        """
        for each in (self.home, self.far):
            run("netns", "add", each)
            run("-n", each, "link", "set", "lo", "up")
        run("-n", self.home, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.far)
        for each, address in ((self.home, HOME), (self.far, FAR)):
            run("-n", each, "addr", "add", f"{address}/24", "dev", "eth0")
        self.plug()

    def plug(self) -> None:
        """Plug the cable in."""
        for each in (self.home, self.far):
            run("-n", each, "link", "set", "eth0", "up")

    def pull(self) -> None:
        """Pull the cable: nothing is said on connections that there are."""
        run("-n", self.home, "link", "set", "eth0", "down")

    def remove(self) -> None:
        """Remove both namespaces, as far as they are there."""
        for each in (self.home, self.far):
            subprocess.run(["ip", "netns", "del", each], stderr=subprocess.DEVNULL, check=False)

    async def come(self) -> None:
        """Start its sshd."""
        log = self.place / "daemon.log"
        command = ["ip", "netns", "exec", self.far, self.sshd, "-D", "-f", str(self.place / "sshd_config")]
        log.write_text("")
        self._daemon = await trio.lowlevel.open_process([*command, "-E", str(log)], stdin=subprocess.DEVNULL)
        while "Server listening" not in log.read_text():  # noqa: ASYNC110
            await trio.sleep(0.02)

    async def go(self) -> None:
        """Kill its sshd with all connections; what users have started goes on."""
        if self._daemon is not None:
            await kill_daemon(self._daemon)
            self._daemon = None


def run(*words: str) -> None:
    """Have `ip` do something."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


@asynccontextmanager
async def open_far_namespace(place: Path) -> AsyncIterator[FarNamespace]:
    """Have the machine for the block; skips the test where there can be none."""
    sshd = find_sshd()
    try:
        get_packages("ip", ["iproute2"], lambda: any(os.path.exists(f"{each}/ip") for each in ("/sbin", "/usr/sbin")))
    except Missing as reason:
        pytest.skip(str(reason))
    machine = FarNamespace(place, name=f"kt{os.getpid()}", sshd=sshd)
    machine.prepare()
    machine.configure(f"ListenAddress {FAR}\nPort 22\n")
    machine.tell_ssh(FAR, 22)
    program = place / "ssh"
    program.write_text(SSH.format(name=machine.home))
    program.chmod(0o700)
    machine.more_options["ssh"] = str(program)
    try:
        try:
            machine.make()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"there can be no network namespaces here: {error}")
        await machine.come()
        yield machine
    finally:
        with trio.CancelScope(shield=True):
            await machine.go()
        machine.remove()
