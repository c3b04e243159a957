"""Where a server is reached, for the one that comes after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kallichore.config import ServerConfig
from kallichore.state.address import go_on_at_the_same_address, read_address, write_address

pytestmark = pytest.mark.posix_only("state directories are for Linux and macOS")

DOCUMENT = {"transport": "tcp", "port": 4711, "bearer_token": "abc"}


def test_port_and_token_that_nobody_chose_are_those_of_before(tmp_path: Path) -> None:
    """Clients come back to the same address, with the token that they have."""
    write_address(tmp_path, DOCUMENT)
    config = go_on_at_the_same_address(ServerConfig(state_directory=tmp_path))

    assert (config.port, config.token) == (4711, "abc")


def test_what_was_chosen_stays(tmp_path: Path) -> None:
    """A port, a token, no token and another transport are somebody's wish."""
    write_address(tmp_path, DOCUMENT)

    assert go_on_at_the_same_address(ServerConfig(state_directory=tmp_path, port=1, token="x")).port == 1
    assert go_on_at_the_same_address(ServerConfig(state_directory=tmp_path, token="x")).token == "x"
    assert go_on_at_the_same_address(ServerConfig(state_directory=tmp_path, token=None)).token is None
    assert go_on_at_the_same_address(ServerConfig(state_directory=tmp_path, transport="socket")).unix_socket is None


def test_socket_that_nobody_chose_is_that_of_before(tmp_path: Path) -> None:
    """A Unix socket has the path that it had."""
    write_address(tmp_path, {"transport": "socket", "socket_path": "/tmp/s", "bearer_token": None})
    config = ServerConfig(state_directory=tmp_path, transport="socket")

    assert go_on_at_the_same_address(config).unix_socket == Path("/tmp/s")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"transport": "tcp", "port": null}'])
def test_damaged_note_is_none(tmp_path: Path, content: bytes) -> None:
    """A server that cannot read where the one before was is reached at a new address."""
    (tmp_path / "address.json").write_bytes(content)
    config = ServerConfig(state_directory=tmp_path)

    assert go_on_at_the_same_address(config) == config


def test_note_is_its_owners_alone(tmp_path: Path) -> None:
    """There is a token in it. Without a state directory nothing is read or changed."""
    write_address(tmp_path, DOCUMENT)
    config = ServerConfig()

    assert (tmp_path / "address.json").stat().st_mode & 0o777 == 0o600
    assert read_address(tmp_path) == DOCUMENT
    assert go_on_at_the_same_address(config) is config or go_on_at_the_same_address(config) == config
