"""What others on the machine can see of a server: no file, no socket and no secret."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.session.overflow_file import OverflowFile
from kernels import LOCAL, REAL_TIME, body, open_started, run_code

TOKEN = "open-sesame"


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let files be open to everybody, unless whoever makes them sees to it."""
    before = os.umask(0)
    yield
    os.umask(before)


@asynccontextmanager
async def run_kcserver(place: Path, transport: str) -> AsyncIterator[tuple[trio.Process, ApiClient]]:
    """Run kcserver with everything that makes files, and with all of its log."""
    token, log = place / "token", place / "kc.log"
    token.write_text(TOKEN)
    log.write_text("what an older server said")
    files = {"--connection-file": place / "kc.json", "--log-file": log, "--token": token}
    options = [str(word) for option in files.items() for word in option]
    command = [sys.executable, "-m", "kallichore.cli.kcserver", *options, "--transport", transport, "-l", "trace"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
    try:
        with trio.fail_after(REAL_TIME):  # noqa: ASYNC100  # the block of the caller waits
            while not files["--connection-file"].exists():
                assert process.returncode is None
                await trio.sleep(0.01)
            document = json.loads(files["--connection-file"].read_text())
            client = ApiClient(from_connection_document(document))
            yield process, client
            # A signal would do as well, but Windows has none.
            await client.call("POST", "/shutdown")
            await process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.posix_only("modes of files, and Unix sockets")
@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("protocol", ["5.3", "5.5"], ids=["connection file", "registration file"])
async def test_everything_that_a_server_makes_is_for_its_owner_only(private_place: Path, protocol: str) -> None:
    """Connection file, log, folder, kernel's file and both kinds of sockets, whatever the umask and what was there."""
    async with run_kcserver(private_place, "socket") as (_, client):
        async with open_started(client, body(protocol_version=protocol)):
            modes = {path: stat.filemode(path.lstat().st_mode) for path in private_place.rglob("*")}

    assert {"drwx------", "srw-------", "-rw-------"} == set(modes.values())
    assert [1, 2, 2] == [
        len([path for path in modes if path.suffix == suffix]) for suffix in (".log", ".sock", ".json")
    ]


@pytest.mark.posix_only("modes of files, and /proc")
@pytest.mark.usefixtures("open_umask")
def test_overflow_file_has_no_name_and_is_for_its_owner_only(private_place: Path) -> None:
    """What undelivered messages say can be read by nobody else, not even by its descriptor in /proc."""
    overflow = OverflowFile()
    overflow.push(b"secret")
    ours = [link for link in Path("/proc/self/fd").iterdir() if str(private_place) in os.path.realpath(link)]
    modes, names = [stat.filemode(link.stat().st_mode) for link in ours], os.listdir(private_place)
    overflow.close()

    assert (["-rw-------"], []) == (modes, names)


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_secrets_are_in_no_command_line_environment_or_log(private_place: Path, transport: str) -> None:
    """The token and a session's key: not with the server's process, nor those that it starts, nor in a log of all."""
    async with run_kcserver(private_place, transport) as (process, client):
        async with open_started(client, body()) as channel:
            await run_code(channel, "print hello")
            await client.call("POST", "/client_heartbeat", {"process_id": None})
            key = (await client.call("GET", "/sessions/s/connection_info"))["key"]
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            visible = repr([(each.cmdline(), each.environ()) for each in family])
            log = (private_place / "kc.log").read_text()
            left = (private_place / "token").exists()

    # The server, its watchdog and the kernel; on Windows, jobs are watchdog enough.
    assert len(family) >= (2 if sys.platform == "win32" else 3)
    assert "TRACE" in log
    assert [] == [secret for secret in (TOKEN, key) if secret in visible + log]
    assert not left
