"""A machine that is reached by SSH, for tests: a real sshd at the loopback address, that can go and come back.

Each connection is taken here and handed to an sshd of its own (``sshd -i``), so the port is one that the system chose,
and connections can be cut, refused and left without an answer. It needs Debian's openssh-server.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import psutil
import pytest
import trio

from debian import Missing, get_packages

PACKAGES = ("openssh-client", "openssh-server")

ALIAS = "far"
"""What the machine is called in ssh's configuration."""

SSHD_CONFIG = """
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
SetEnv TMPDIR={place}/tmp XDG_DATA_HOME={place}/data
"""

SSH_CONFIG = """
Host far
  HostName {address}
  Port {port}
  HostKeyAlias far
  IdentityFile {place}/id
  IdentitiesOnly yes
  UserKnownHostsFile {place}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  # The default of today takes some hundred milliseconds.
  KexAlgorithms curve25519-sha256
  # What a user may have, and a kernel's connection must not.
  ControlMaster auto
  ControlPath {place}/master-%C
  ControlPersist 30
  RemoteCommand echo never
  LocalForward 127.0.0.1:1 127.0.0.1:1
"""


def find_sshd() -> str:
    """Return the path of sshd, installed if need be; skips the test where there is none."""
    try:
        get_packages("sshd", PACKAGES, lambda: _sshd() is not None and shutil.which("ssh") is not None)
    except Missing as reason:
        pytest.skip(str(reason))
    path = _sshd()
    assert path is not None
    if os.geteuid() == 0:
        # sshd wants it, and it is made by what starts the service.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return path


def _sshd() -> str | None:
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def make_key(path: Path) -> None:
    """Make a pair of keys without a passphrase."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test's", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@attrs.define(eq=False)
class Far:
    """A machine and how it is reached.

    Attributes:
        place: Where its keys and configurations are, and its directory for temporary files.
        more_options: What an engine is told besides.
    """

    place: Path
    more_options: dict[str, object] = attrs.field(factory=dict)

    @property
    def config(self) -> Path:
        """The configuration by which ssh reaches it."""
        return self.place / "config"

    @property
    def options(self) -> dict[str, object]:
        """What an engine is told to reach it."""
        return {"host": ALIAS, "config": str(self.config), "python": "/usr/bin/python3", **self.more_options}

    def directories(self) -> list[Path]:
        """Return the private directories of the hosts that are on it."""
        return sorted((self.place / "tmp").iterdir())

    def prepare(self) -> None:
        """Make its keys and directories."""
        for name in ("tmp", "data"):
            (self.place / name).mkdir(parents=True)
        make_key(self.place / "host_key")
        make_key(self.place / "id")
        shutil.copy(self.place / "id.pub", self.place / "authorized_keys")
        self.configure()
        self.trust()

    def configure(self, more: str = "") -> None:
        """Write sshd's configuration; it holds for the next connection.

        Args:
            more: Further lines.
        """
        (self.place / "sshd_config").write_text(SSHD_CONFIG.format(place=self.place) + more)

    def trust(self, key: str = "host_key") -> None:
        """Have a host key be the one that is known here."""
        words = (self.place / f"{key}.pub").read_text().split()
        (self.place / "known_hosts").write_text(f"{ALIAS} {words[0]} {words[1]}\n")

    def tell_ssh(self, address: str, port: int) -> None:
        """Write ssh's configuration."""
        self.config.write_text(SSH_CONFIG.format(address=address, port=port, place=self.place))


@attrs.define(eq=False, kw_only=True)
class FarMachine(Far):
    """A machine at the loopback address, that can go and come back.

    Attributes:
        is_silent: Whether it takes connections, and says nothing on them.
    """

    sshd: str
    nursery: trio.Nursery
    port: int = 0
    is_silent: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _gone: trio.Event | None = None
    """Set when it has hung up on everybody."""

    async def come(self) -> None:
        """Listen: at a port that the system chooses, and later at the same again."""
        if self._gone is not None:
            await self._gone.wait()
        listener = trio.socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await listener.bind(("127.0.0.1", self.port))
        listener.listen(50)
        self.port = listener.getsockname()[1]
        self.tell_ssh("127.0.0.1", self.port)
        self._scope, self._gone = trio.CancelScope(), trio.Event()
        await self.nursery.start(self._serve, self._scope, listener)

    def go(self) -> None:
        """Hang up on everybody, and listen no more."""
        self._scope.cancel()

    async def _serve(
        self, scope: trio.CancelScope, listener: trio.socket.SocketType, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with scope, listener:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._answer, connection)
        assert self._gone is not None
        self._gone.set()

    async def _answer(self, connection: trio.socket.SocketType) -> None:
        with connection:
            if self.is_silent:
                await trio.sleep_forever()
            command = [self.sshd, "-i", "-f", str(self.place / "sshd_config"), "-E", str(self.place / "sshd.log")]
            process = await trio.lowlevel.open_process(
                command, stdin=connection.fileno(), stdout=connection.fileno(), stderr=subprocess.DEVNULL
            )
            try:
                await process.wait()
            finally:
                with trio.CancelScope(shield=True):
                    await kill_daemon(process)


async def kill_daemon(process: trio.Process) -> None:
    """Kill an sshd with its helpers, down to those of each connection, and not what they have started for users."""
    if process.returncode is None:
        with suppress(psutil.NoSuchProcess):
            _kill_sshd(psutil.Process(process.pid))
    await process.wait()


def _kill_sshd(process: psutil.Process) -> None:
    children = [child for child in process.children() if child.name() == "sshd"]
    process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            _kill_sshd(child)


@asynccontextmanager
async def open_far_machine(place: Path) -> AsyncIterator[FarMachine]:
    """Have a machine; when it is left it is not there any more, and what runs on it goes on."""
    sshd = find_sshd()
    async with trio.open_nursery() as nursery:
        machine = FarMachine(place, sshd=sshd, nursery=nursery)
        machine.prepare()
        await machine.come()
        try:
            yield machine
        finally:
            machine.go()
            nursery.cancel_scope.cancel()


def ssh_processes() -> list[psutil.Process]:
    """Return the ssh processes that this one has, with what they started to get there."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if each.name() == "ssh" and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
    return found


def kill_ssh() -> int:
    """Kill them, and return how many they were."""
    found = ssh_processes()
    for each in found:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    return len(found)
