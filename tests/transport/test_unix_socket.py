"""Unix sockets: private, never over somebody else's file, and gone at the end."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
import trio

from kallichore.errors import ConfigurationError
from kallichore.transport.places import LONGEST_SOCKET_PATH
from kallichore.transport.unix_socket import OwnersListener, open_unix_listener

if sys.platform == "win32":
    pytest.skip("POSIX only: the server is on a named pipe there", allow_module_level=True)

LIMIT = 5
NOBODY = 65534


async def assert_served(listener: OwnersListener, path: Path) -> None:
    """Fail unless a client of ``path`` reaches the listener."""
    async with await trio.open_unix_socket(path) as client, await listener.accept() as server:
        await client.send_all(b"hello")
        assert await server.receive_some() == b"hello"


def leave_stale_socket(path: Path) -> None:
    """Leave the socket file of a server that is gone."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_socket_is_for_its_owner_only_and_goes_at_the_end(private_place: Path, umask: int) -> None:
    """Whatever the umask, which stays as it was, nobody else may connect; at the end there is no file."""
    path = private_place / "a.sock"
    before = os.umask(umask)
    try:
        async with open_unix_listener(path) as listener:
            mode = path.stat().st_mode
            await assert_served(listener, path)
    finally:
        after = os.umask(before)

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert after == umask
    assert not path.exists()


async def test_connection_of_another_user_is_closed(private_place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who is not among the users is not served, and the next one is: the refusal is logged."""
    path = private_place / "a.sock"
    async with open_unix_listener(path, frozenset({os.geteuid() + 1})) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        for _ in range(2):
            async with await trio.open_unix_socket(path) as client:
                with trio.fail_after(LIMIT):
                    assert b"" == await client.receive_some()
        nursery.cancel_scope.cancel()

    assert [f"Refused a connection of user {os.geteuid()} to {path}"] * 2 == caplog.messages


CONNECT_AS_NOBODY = f"""
import os, socket, sys
os.setuid({NOBODY})
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    print(client.recv(1))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_open_permissions_let_nobody_else_in(private_place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A socket that somebody made open to all still serves its owner only."""
    path = private_place / "a.sock"
    async with open_unix_listener(path) as listener:
        private_place.chmod(0o711)
        path.chmod(0o777)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept)
            with trio.fail_after(LIMIT):
                command = [sys.executable, "-I", "-c", CONNECT_AS_NOBODY, str(path)]
                said = (await trio.run_process(command, capture_stdout=True)).stdout
            nursery.cancel_scope.cancel()
        await assert_served(listener, path)

    assert b"b''\n" == said
    assert [f"Refused a connection of user {NOBODY} to {path}"] == caplog.messages


async def test_missing_directories_are_made(private_place: Path) -> None:
    """Parents of the socket are made where they are missing, the nearest for its owner only."""
    path = private_place / "a" / "b" / "c.sock"
    async with open_unix_listener(path) as listener:
        await assert_served(listener, path)

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_socket_of_a_server_that_is_gone_is_replaced(private_place: Path) -> None:
    """A stale socket does not keep the next server from starting."""
    path = private_place / "a.sock"
    leave_stale_socket(path)
    async with open_unix_listener(path) as listener:
        await assert_served(listener, path)


async def test_live_server_keeps_its_socket(private_place: Path) -> None:
    """A second server is refused, and the first goes on serving."""
    path = private_place / "a.sock"
    async with open_unix_listener(path) as first:
        with pytest.raises(ConfigurationError, match="Another server listens on"):
            async with open_unix_listener(path):
                pass
        # The second one's look at the socket is a connection too.
        await (await first.accept()).aclose()
        await assert_served(first, path)


async def test_server_too_busy_to_accept_is_live(private_place: Path) -> None:
    """A server whose backlog is full keeps its socket like any other."""
    path = private_place / "a.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as waiting:
        server.bind(str(path))
        server.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ConfigurationError, match="Another server listens on"):
            async with open_unix_listener(path):
                pass

    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file", "link to nothing", "pipe"])
async def test_what_is_no_socket_is_never_removed(private_place: Path, kind: str) -> None:
    """A file of any other kind is refused, and is still there as it was."""
    path, target = private_place / "a.sock", private_place / "target"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case _:
            path.symlink_to(target)
            if kind == "link to a file":
                target.write_text("precious")
    before = path.lstat()
    with pytest.raises(ConfigurationError, match="exists and is no socket"):
        async with open_unix_listener(path):
            pass

    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)


async def test_socket_of_another_kind_is_never_removed(private_place: Path) -> None:
    """A datagram socket cannot be connected to, and is somebody's all the same."""
    path = private_place / "a.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(ConfigurationError, match="Another server"):
            async with open_unix_listener(path):
                pass

    assert path.exists()


async def test_socket_of_the_next_server_is_left_alone(private_place: Path) -> None:
    """If the file was replaced by another server's, that one stays."""
    path = private_place / "a.sock"
    async with open_unix_listener(path):
        leave_stale_socket(private_place / "other.sock")
        os.replace(private_place / "other.sock", path)

    assert path.exists()


async def test_file_that_is_gone_already_is_no_error(private_place: Path) -> None:
    """Whoever removes the socket early does not disturb the end."""
    path = private_place / "a.sock"
    async with open_unix_listener(path):
        path.unlink()

    assert not path.exists()


@pytest.mark.parametrize("ending", ["error", "cancellation"])
async def test_socket_goes_however_the_server_ends(private_place: Path, ending: str) -> None:
    """An error or a cancellation inside leaves neither the file nor a listener."""
    path = private_place / "a.sock"
    with trio.CancelScope() as scope:
        try:
            async with open_unix_listener(path) as listener:
                if ending == "error":
                    raise KeyError
                scope.cancel()
                await trio.sleep_forever()
        except KeyError:
            pass

    assert not path.exists()
    assert listener.socket.fileno() == -1


async def test_longest_path_works_and_a_longer_one_is_refused(private_place: Path) -> None:
    """104 bytes with the ending zero are the limit on every system; the error says how long the path is."""
    fits = private_place / ("s" * (LONGEST_SOCKET_PATH - len(os.fsencode(private_place)) - 1))
    async with open_unix_listener(fits) as listener:
        await assert_served(listener, fits)
    for longer in (fits.with_name(fits.name + "s"), fits.with_name(fits.name[:-1] + "ü")):
        with pytest.raises(ConfigurationError, match="has 104 bytes, 103 at most"):
            async with open_unix_listener(longer):
                pass

    assert list(private_place.iterdir()) == []


async def test_unusable_directory_is_an_error_of_the_settings(private_place: Path) -> None:
    """A file in the place of a directory is told with the path that was wanted."""
    (private_place / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"Could not listen on .*file/a\.sock"):
        async with open_unix_listener(private_place / "file" / "a.sock"):
            pass
