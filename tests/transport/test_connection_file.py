"""The connection file: complete, private, there at once, and gone with the server; and the handshake in its place."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from kallichore.errors import ConfigurationError
from kallichore.transport import connection_file as module
from kallichore.transport.connection_file import (
    ServerAddress,
    connection_document,
    open_connection_file,
    read_connection_file,
    send_handshake,
)
from kallichore.transport.held_files import HELD, PATIENCE, PAUSE
from permissions import is_for_owner_only

DOCUMENT: dict[str, Any] = {"transport": "socket", "socket_path": "/tmp/ü.sock", "bearer_token": "t", "log_path": None}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
LOG = Path("/tmp/log")
ADDRESSES = [
    (ServerAddress(transport="tcp", port=8080, base_path="http://127.0.0.1:8080"), ["port", "base_path"]),
    (ServerAddress(transport="socket", socket_path="/tmp/kc.sock"), ["socket_path"]),
    (ServerAddress(transport="named-pipe", named_pipe=r"\\.\pipe\kallichore-1"), ["named_pipe"]),
]


@pytest.mark.parametrize(("address", "members"), ADDRESSES)
def test_document_names_the_address_first_and_only_what_applies(address: ServerAddress, members: list[str]) -> None:
    """The address members of the other transports are left out; the rest follows in the API's order."""
    document = connection_document(
        address, server_path="/bin/kcserver", bearer_token="secret", log_path=LOG, server_id="id"
    )

    assert {name: getattr(address, name) for name in members} == {name: document[name] for name in members}
    assert list(document) == [
        *members,
        *("transport", "server_path", "server_pid", "bearer_token", "log_path", "server_id"),
    ]
    assert document["server_pid"] == os.getpid()
    assert (document["bearer_token"], document["log_path"]) == ("secret", str(LOG))


def test_token_and_log_are_null_where_there_is_none() -> None:
    """Both members are always there."""
    document = connection_document(
        ADDRESSES[0][0], server_path="/bin/kcserver", bearer_token=None, log_path=None, server_id="id"
    )

    assert (document["bearer_token"], document["log_path"]) == (None, None)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_file_is_for_its_owner_only_and_goes_at_the_end(tmp_path: Path, umask: int) -> None:
    """Whatever the umask, nobody else can read the token in it."""
    path = tmp_path / "connection.json"
    before = os.umask(umask)
    try:
        async with open_connection_file(path, DOCUMENT):
            is_private, text = is_for_owner_only(path), path.read_text(encoding="utf-8")
            files = os.listdir(tmp_path)
    finally:
        os.umask(before)

    assert is_private
    assert text == json.dumps(DOCUMENT, indent=2)
    assert files == ["connection.json"]
    assert os.listdir(tmp_path) == []


@pytest.mark.posix_only("what is open cannot be replaced on Windows; it is waited for")
async def test_old_file_is_replaced_not_written_over(tmp_path: Path) -> None:
    """Who has the old file open goes on reading it whole, and its open permissions do not pass on."""
    path = tmp_path / "connection.json"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reader:
        async with open_connection_file(path, DOCUMENT):
            old, is_private = reader.read(), is_for_owner_only(path)
            document = read_connection_file(path)

    assert (old, is_private, document) == ("old", True, DOCUMENT)


async def test_file_goes_when_the_server_fails(tmp_path: Path) -> None:
    """An error inside passes, and leaves no file behind."""
    with pytest.raises(KeyError):
        async with open_connection_file(tmp_path / "connection.json", DOCUMENT):
            raise KeyError

    assert os.listdir(tmp_path) == []


async def test_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    """If the next server has written its own by then, that one stays."""
    path = tmp_path / "connection.json"
    async with open_connection_file(path, DOCUMENT):
        (tmp_path / "other").write_text("theirs")
        os.replace(tmp_path / "other", path)

    assert path.read_text() == "theirs"


async def test_file_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    """Whoever removes the file early does not disturb the end of the server."""
    path = tmp_path / "connection.json"
    async with open_connection_file(path, DOCUMENT):
        path.unlink()

    assert os.listdir(tmp_path) == []


def held(number: int) -> OSError:
    """Return what Windows says where somebody else has a file open."""
    error = PermissionError(errno.EACCES, "Access is denied")
    error.winerror = number
    return error


@pytest.mark.parametrize("number", sorted(HELD))
async def test_file_that_somebody_holds_open_is_waited_for(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """A scanner that looks at the old file, or at ours at the end, delays the server and does not end it."""
    path = tmp_path / "connection.json"
    answers: Iterator[OSError | None] = iter([held(number)] * 3 + [None])
    replace, unlink = os.replace, Path.unlink

    def replace_when_free(source: Path, target: Path) -> None:
        if error := next(answers):
            raise error
        replace(source, target)

    def unlink_when_free(path: Path) -> None:
        if error := next(answers):
            raise error
        unlink(path)

    monkeypatch.setattr(os, "replace", replace_when_free)
    monkeypatch.setattr(Path, "unlink", unlink_when_free)
    began = trio.current_time()
    async with open_connection_file(path, DOCUMENT):
        written, waited = read_connection_file(path), trio.current_time() - began
        answers = iter([held(number)] * 2 + [None])

    assert (DOCUMENT, pytest.approx(3 * PAUSE)) == (written, waited)
    assert os.listdir(tmp_path) == []


async def test_file_that_is_held_for_good_is_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """Patience has an end, and the server says what it could not write; nothing with the token in it is left."""

    def refuse(_source: Path, _target: Path) -> None:
        raise held(32)

    monkeypatch.setattr(os, "replace", refuse)
    began = trio.current_time()
    with pytest.raises(ConfigurationError, match=r"connection\.json: Access is denied"):
        async with open_connection_file(tmp_path / "connection.json", DOCUMENT):
            pytest.fail("it cannot be there")

    assert trio.current_time() - began == pytest.approx(PATIENCE, abs=PAUSE)
    assert os.listdir(tmp_path) == []


async def test_cancelled_wait_for_a_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.abc.Clock
) -> None:
    """A server that is ended while it waits leaves no file with its token behind."""

    def refuse(_source: Path, _target: Path) -> None:
        raise held(32)

    monkeypatch.setattr(os, "replace", refuse)
    with trio.move_on_after(PATIENCE / 2) as scope:
        async with open_connection_file(tmp_path / "connection.json", DOCUMENT):
            pytest.fail("it cannot be there")

    assert scope.cancelled_caught
    assert os.listdir(tmp_path) == []


async def test_unwritable_place_is_named(tmp_path: Path) -> None:
    """A missing directory, or one in the file's place, is an error of the settings and leaves nothing behind."""
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "missing" / "connection.json", tmp_path / "directory"):
        with pytest.raises(ConfigurationError, match=re.escape(f"{path}: ")):
            async with open_connection_file(path, DOCUMENT):
                pass

    assert os.listdir(tmp_path) == ["directory"]


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_connection_file_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, or has no JSON object with a transport, is named in the error."""
    path = tmp_path / "connection.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"connection\.json"):
        read_connection_file(path)


@given(
    st.binary(max_size=60) | st.dictionaries(st.text(max_size=9), json_values).map(lambda one: json.dumps(one).encode())
)
def test_file_of_any_content_is_read_or_refused(lasting_place: Path, content: bytes) -> None:
    """Whatever is in it, it is an object that names a transport, or the one error."""
    path = lasting_place / "any.json"
    path.write_bytes(content)
    try:
        document = read_connection_file(path)
    except ConfigurationError:
        return

    assert document == json.loads(content)
    assert "transport" in document


@given(st.dictionaries(st.text(max_size=9), json_values))
async def test_document_is_read_as_it_was_written(lasting_place: Path, others: dict[str, Any]) -> None:
    """Any members come back from the file, and the file goes."""
    path = lasting_place / "written.json"
    async with open_connection_file(path, {**others, **DOCUMENT}):
        document = read_connection_file(path)

    assert ({**others, **DOCUMENT}, False) == (document, path.exists())


@asynccontextmanager
async def open_launcher(place: Path) -> AsyncIterator[tuple[str, trio.abc.Listener[Any]]]:
    """Listen as a launcher does, on a Unix socket or a pipe; yield its address and the listener."""
    if sys.platform == "win32":
        from kallichore.transport.named_pipe import open_pipe_listener

        name = rf"\\.\pipe\kallichore-launcher-{secrets.token_hex(6)}"
        async with open_pipe_listener(name) as listener:
            yield name, listener
    else:
        path = str(place / "launcher")
        with trio.socket.socket(trio.socket.AF_UNIX) as listening:
            await listening.bind(path)
            listening.listen(1)
            yield path, trio.SocketListener(listening)


async def received_by_a_launcher(place: Path, document: dict[str, Any]) -> bytes:
    """Send a handshake to a launcher; return all that it gets until the end of the stream."""
    async with open_launcher(place) as (path, listener):
        await send_handshake(path, document)
        async with await listener.accept() as stream:
            return b"".join([bytes(chunk) async for chunk in stream])


@pytest.mark.parametrize("log_path", [None, "/tmp/log"])
async def test_handshake_is_one_document_and_the_end(private_place: Path, log_path: str | None) -> None:
    """A launcher reads the document to the end of the stream; a log path of null is left out of it."""
    data = await received_by_a_launcher(private_place, {**DOCUMENT, "log_path": log_path})
    expected = {
        name: value for name, value in {**DOCUMENT, "log_path": log_path}.items() if name != "log_path" or value
    }

    assert data.endswith(b"}\n")
    assert json.loads(data) == expected


async def test_handshake_with_nobody_is_an_error_of_the_settings(private_place: Path) -> None:
    """Where nobody listens, the server says so instead of running unknown to everybody."""
    with pytest.raises(ConfigurationError, match=r"handshake on .*nowhere failed"):
        await send_handshake(str(private_place / "nowhere"), DOCUMENT)


async def test_handshake_that_nobody_takes_ends(private_place: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A launcher that listens and does not read holds the server up for its patience and no longer."""
    async with open_launcher(private_place) as (path, _):
        began = trio.current_time()
        with pytest.raises(ConfigurationError, match="nobody took it"):
            await send_handshake(path, {**DOCUMENT, "padding": "x" * 10_000_000})

    assert trio.current_time() - began == pytest.approx(module.HANDSHAKE_PATIENCE)
