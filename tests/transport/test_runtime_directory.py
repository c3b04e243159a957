"""The server's private directory: in the best place whose paths are short enough, and gone at the end."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError
from kallichore.transport.places import LONGEST_NAME, LONGEST_SOCKET_PATH
from kallichore.transport.runtime_directory import open_runtime_directory

CONFIG = ServerConfig(token="t")
ROOM = LONGEST_SOCKET_PATH - LONGEST_NAME
"""Bytes that the path of the directory around may have."""


def folder_of(place: Path, size: int) -> Path:
    """Return a path below ``place`` of this many bytes."""
    rest = size - len(os.fsencode(place)) - 1
    return place / ("d" * rest)


no_sockets = pytest.mark.posix_only("on Windows there are no sockets in it, and any path will do")


@pytest.mark.posix_only("modes of directories")
def test_directory_is_private_and_goes_with_all_that_is_in_it(private_place: Path) -> None:
    """It is made for its owner only, under XDG_RUNTIME_DIR, and removed with what is left in it."""
    before = os.umask(0)
    try:
        with open_runtime_directory(CONFIG) as directory:
            mode = stat.S_IMODE(directory.stat().st_mode)
            (directory / "inner").mkdir()
            (directory / "inner" / "kernel.json").write_text("{}")
    finally:
        os.umask(before)

    assert mode == 0o700
    assert directory.parent == private_place
    assert list(private_place.iterdir()) == []


def test_two_servers_have_two_directories() -> None:
    """A second server in the same process gets a place of its own."""
    with open_runtime_directory(CONFIG) as first, open_runtime_directory(CONFIG) as second:
        assert first != second
        assert first.is_dir()
        assert second.is_dir()


@pytest.mark.posix_only("modes of directories")
def test_configured_directory_is_made_and_used(private_place: Path) -> None:
    """A directory that is set comes before all others, and is made, private, if it is not there."""
    wanted = private_place / "a" / "b"
    with open_runtime_directory(ServerConfig(token="t", socket_directory=wanted)) as directory:
        parent = directory.parent

    assert parent == wanted
    assert stat.S_IMODE(wanted.stat().st_mode) == 0o700
    assert list(wanted.iterdir()) == []


@no_sockets
@pytest.mark.parametrize(("size", "is_used"), [(ROOM, True), (ROOM + 1, False)])
def test_directory_too_long_for_sockets_gives_way(
    private_place: Path, caplog: pytest.LogCaptureFixture, size: int, is_used: bool
) -> None:
    """The longest path that fits is used; one byte more, and the next place is, with a warning that says why."""
    wanted = folder_of(private_place, size)
    with caplog.at_level(logging.WARNING):
        with open_runtime_directory(ServerConfig(token="t", socket_directory=wanted)) as directory:
            parent = directory.parent

    assert parent == (wanted if is_used else private_place)
    assert [f"Not used for sockets: {wanted}: too long for sockets"][is_used:] == caplog.messages


@no_sockets
def test_longest_socket_in_the_directory_fits(private_place: Path) -> None:
    """What is put behind the directory, with the longest pid and name, is within what was reckoned with."""
    wanted = folder_of(private_place, ROOM)
    with open_runtime_directory(ServerConfig(token="t", socket_directory=wanted)) as directory:
        longest = directory.with_name(directory.name.replace(f"-{os.getpid()}-", "-4194304-")) / ("s" * 24 + ".sock")

    assert len(os.fsencode(longest)) <= LONGEST_SOCKET_PATH


@pytest.mark.parametrize(
    "runtime", [None, "", "relative", "missing", "co:lon", "with space", "caf\xe9", "long", "file", "file/below"]
)
def test_unfit_runtime_directory_gives_way_to_the_temporary_one(
    private_place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, runtime: str | None
) -> None:
    """An XDG_RUNTIME_DIR that is unset, relative, missing, too long, oddly named or no directory is not used.

    It may be somebody else's, left behind by sudo; so that is worth no warning.
    """
    for name in ("co:lon", "with space", "caf\xe9"):
        (private_place / name).mkdir()
    (private_place / "file").write_text("")
    folder_of(private_place, ROOM + 1).mkdir()
    if runtime is None:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    elif runtime == "long":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder_of(private_place, ROOM + 1)))
    else:
        monkeypatch.setenv(
            "XDG_RUNTIME_DIR", f"{private_place}/{runtime}" if runtime not in ("", "relative") else runtime
        )
    with open_runtime_directory(CONFIG) as directory:
        assert directory.parent == Path(tempfile.gettempdir()) == private_place
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


@pytest.mark.parametrize("place", ["shut", "shut/below"])
def test_closed_runtime_directory_gives_way(private_place: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """One that may not be written to, or lies below one that may not be entered, is passed over."""
    make = tempfile.mkdtemp

    def refuse(**options: Any) -> str:
        if "shut" in options["dir"].parts:
            raise PermissionError(13, "Permission denied", str(options["dir"]))
        return make(**options)

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private_place / place))
    with open_runtime_directory(CONFIG) as directory:
        assert directory.parent == private_place


@pytest.mark.posix_only("/tmp")
def test_no_temporary_directory_at_all_leaves_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python finds no place for temporary files, /tmp is tried nevertheless."""

    def find_none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "gettempdir", find_none)
    with open_runtime_directory(CONFIG) as directory:
        parent = directory.parent

    assert parent == Path("/tmp")


@no_sockets
@pytest.mark.parametrize("name", ["with space", "caf\xe9", "co:lon"])
def test_odd_configured_directory_gives_way_with_a_warning(
    private_place: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Clients could not put the path of a session's socket into an address: it goes elsewhere, and that is told."""
    wanted = private_place / name
    with open_runtime_directory(ServerConfig(token="t", socket_directory=wanted)) as directory:
        parent = directory.parent

    assert parent == private_place
    assert not wanted.exists()
    assert [message.partition(": clients")[0] for message in caplog.messages] == [f"Not used for sockets: {wanted}"]


@no_sockets
def test_long_temporary_directory_gives_way_to_tmp(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TMPDIR is long as well, as on macOS, sockets go to /tmp."""
    long = folder_of(private_place, ROOM + 1)
    long.mkdir()
    for variable in ("XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(variable, str(long))
    with open_runtime_directory(CONFIG) as directory:
        parent = directory.parent

    assert parent == Path("/tmp")
    assert not directory.exists()


def test_place_that_is_no_directory_gives_way(private_place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file where the directory should be is told in a warning, and the next place is used."""
    wanted = private_place / "file"
    wanted.write_text("")
    with caplog.at_level(logging.WARNING):
        with open_runtime_directory(ServerConfig(token="t", socket_directory=wanted)) as directory:
            assert directory.parent == private_place

    assert [message.rpartition(": ")[0] for message in caplog.messages] == [f"Not used for sockets: {wanted}"]
    assert "exists" in caplog.text


def test_no_place_at_all_is_an_error_with_every_reason(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting to change, and why each place would not do."""
    wanted = private_place / "file"
    wanted.write_text("")
    config = ServerConfig(token="t", socket_directory=wanted)
    monkeypatch.setattr("kallichore.transport.runtime_directory.candidate_directories", lambda _: [wanted])
    with pytest.raises(ConfigurationError, match="--socket-dir") as caught:
        with open_runtime_directory(config):
            pass

    assert str(caught.value.details).startswith(f"{wanted}: ")
    assert "exists" in str(caught.value.details)
