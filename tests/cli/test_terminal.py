"""A kcserver that was started at a terminal: its kernels have none, and what is typed there reaches it all the same."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.transport.connection_file import read_connection_file
from kernels import REAL_TIME, body, has_ended, wait_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

BEHIND_A_SHELL = "trap : INT; {}; exit $?"
"""What an interactive shell does for one that runs in the foreground: it leads the session; Ctrl-C is not for it."""

LEADER = "exec {}"


@attrs.frozen
class Terminal:
    """A terminal, and what runs in it."""

    descriptor: int
    leader: trio.Process
    client: ApiClient
    server: int
    kernel: int

    def close(self) -> None:
        """Close its window."""
        os.close(self.descriptor)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@asynccontextmanager
async def open_terminal(script: str, place: Path) -> AsyncIterator[Terminal]:
    """Run a script with a kcserver in a terminal of its own, and a kernel in that."""
    file = place / "connection.json"
    command = [sys.executable, "-m", "kallichore.cli.kcserver", "--connection-file", str(file), "--transport", "tcp"]
    import pty

    ours, theirs = pty.openpty()
    with trio.fail_after(REAL_TIME):  # noqa: ASYNC100  # the block of the caller waits
        leader = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", script.format(shlex.join(command))], stdin=theirs, stdout=theirs, stderr=theirs,
            cwd=place, start_new_session=True, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(theirs)
        try:
            while not file.exists():
                assert leader.poll() is None, "kcserver ended"
                await trio.sleep(0.01)
            document = read_connection_file(file)
            client = ApiClient(from_connection_document(document))
            await client.call("PUT", "/sessions", body())
            await client.call("POST", "/sessions/s/start")
            kernel = (await client.call("GET", "/sessions/s"))["process_id"]
            yield Terminal(ours, leader, client, document["server_pid"], kernel)
        finally:
            if leader.poll() is None:
                leader.kill()
            with trio.CancelScope(shield=True):
                await leader.wait()


def terminal_of(pid: int) -> int:
    """Return the number of a process's controlling terminal; 0 for none (proc(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


@pytest.mark.parametrize("script", [BEHIND_A_SHELL, LEADER])
@pytest.mark.parametrize("way", ["Ctrl-C", "closed"])
async def test_terminal_reaches_the_server_and_not_its_kernels(script: str, way: str, private_place: Path) -> None:
    """Its kernels cannot open the terminal; Ctrl-C, or the end of the terminal, ends the server in order."""
    async with open_terminal(script, private_place) as terminal:
        found = terminal_of(terminal.leader.pid) > 0, terminal_of(terminal.kernel)
        group = os.getpgid(terminal.kernel)
        shares_session = os.getsid(terminal.kernel) == os.getsid(terminal.server)
        if way == "closed":
            terminal.close()
        else:
            os.write(terminal.descriptor, b"\x03")
        await wait_ended(terminal.server)
        code = await terminal.leader.wait()
        if way == "Ctrl-C":
            terminal.close()
        ended, left = has_ended(terminal.kernel), [path.name for path in private_place.iterdir()]

    assert (True, 0) == found
    assert terminal.kernel == group
    # A session's leader cannot let go of its terminal alone, so its kernels are in sessions of their own.
    assert (script == BEHIND_A_SHELL) == shares_session
    # The shell has its own end with its terminal.
    assert (-signal.SIGHUP if (script, way) == (BEHIND_A_SHELL, "closed") else 0) == code
    assert (True, []) == (ended, left)


async def test_address_of_the_dashboard_is_printed_at_a_terminal(private_place: Path) -> None:
    """One line at the terminal is the address that opens the page logged in: the server's, with the token behind #."""
    async with open_terminal(LEADER, private_place) as terminal:
        said = ""
        while not (found := re.search(r"Dashboard: (\S+)\r\n", said)):
            said += (await trio.to_thread.run_sync(os.read, terminal.descriptor, 4096)).decode()
        url, _, token = found[1].partition("#token=")
        address = terminal.client.address
        terminal.close()
        await wait_ended(terminal.server)

    assert (f"http://127.0.0.1:{address.port}/", address.token) == (url, token)
