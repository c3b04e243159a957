"""kcserver's options, read: spellings, defaults, and what contradicts what."""

from __future__ import annotations

import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from kallichore.cli.launch import read_command_line
from kallichore.cli.logs import Console, set_up_logging
from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError
from permissions import is_for_owner_only


@pytest.mark.parametrize("spelling", [["-p8080"], ["-p", "8080"], ["-p=8080"], ["--port=8080"], ["--port", "+8080"]])
def test_port_may_be_spelt_in_many_ways(spelling: list[str]) -> None:
    """Short and long options take their value attached, apart, or behind an equals sign."""
    assert 8080 == read_command_line(spelling, {}, "linux").config.port


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["--port"],
        ["--port", "x"],
        ["--port", "65536"],
        ["--port", "-1"],
        ["--port", "1", "-p", "2"],
        ["--por", "1"],
        ["--log-file", "-x"],
        ["positional"],
        ["--idle-shutdown-hours", "1.5"],
        ["--idle-shutdown-hours", "9" * 5000],
        ["--cull-idle-after", "-1"],
        ["--cull-idle-after", "1000000001"],
        ["--cull-idle-after", "60", "--cull-idle-after", "60"],
        ["--cull-connected=yes"],
        ["--warm"],
        ["--warm", "=1"],
        ["--warm", "python3=x"],
        ["--warm", "python3=-1"],
        ["--warm", "python3=101"],
        ["--warm", "python3=1", "--warm", "Python3=2"],
    ],
)
def test_syntax_errors_end_with_code_2(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """What is no option, has no value, or comes twice is explained on standard error."""
    with pytest.raises(SystemExit) as ended:
        read_command_line(arguments, {}, "linux")
    output = capfd.readouterr()

    assert (2, "") == (ended.value.code, output.out)
    assert "error" in output.err


@pytest.mark.parametrize(
    ("arguments", "platform", "named"),
    [
        (["--port", "1", "--transport", "socket"], "linux", "socket"),
        (["--port", "1", "--connection-file", "f"], "linux", "socket"),
        (["--port", "1", "--transport", "bogus"], "linux", "bogus"),
        (["--unix-socket", "s", "--transport", "tcp"], "linux", "tcp"),
        (["--transport", "named-pipe"], "linux", "socket or tcp"),
        (["--transport", "socket"], "win32", "named-pipe or tcp"),
        (["--state-dir", "d"], "win32", "--state-dir does not work on Windows: kernels end with their server"),
        (["--warm", "python3"], "win32", "--warm does not work on Windows"),
        (["--unix-socket", "s"], "win32", "--unix-socket does not work on Windows: the server has a named pipe"),
        (["--replace"], "win32", "--replace does not work on Windows"),
        (["--transport", "TCP"], "linux", "tcp, socket, named-pipe"),
        (["--transport", ""], "linux", "tcp, socket, named-pipe"),
        (["--warm", "python3=1", "--state-dir", "d"], "linux", "--warm does not work with --state-dir"),
    ],
)
def test_contradictions_are_named(arguments: list[str], platform: str, named: str) -> None:
    """Options that do not go together are refused with what would."""
    with pytest.raises(ConfigurationError, match=named):
        read_command_line(arguments, {}, platform)


unix_sockets = pytest.mark.posix_only("settings with Unix sockets, which a server on Windows refuses")


@pytest.mark.parametrize(
    ("arguments", "transport"),
    [
        ([], "tcp"),
        (["--connection-file", "f", "--transport", "tcp", "--port", "8080"], "tcp"),
        (["--handshake-socket", "s"], "tcp"),
        (["--socket-dir", "d"], "tcp"),
        *(
            pytest.param(arguments, "socket", marks=unix_sockets)
            for arguments in (
                ["--connection-file", "f"],
                ["--connection-file", "f", "--port", "0"],
                ["--handshake-socket", "s", "--connection-file", "f"],
                ["--unix-socket", "s"],
            )
        ),
    ],
)
def test_each_launch_form_has_its_generations_transport(arguments: list[str], transport: str) -> None:
    """A connection file means a socket, a handshake leaves it at TCP, and saying it counts most."""
    assert transport == read_command_line(arguments, {}, "linux").config.transport


@pytest.mark.parametrize(
    ("option", "environment", "level", "bad"),
    [
        (None, {}, "info", None),
        ("warn", {"KALLICHORE_LOG": "debug"}, "warn", None),
        (None, {"KALLICHORE_LOG": "debug", "RUST_LOG": "trace"}, "debug", None),
        (None, {"RUST_LOG": "error"}, "error", None),
        (None, {"RUST_LOG": "kcserver=debug"}, "info", "kcserver=debug"),
        ("WARN", {}, "info", "WARN"),
    ],
)
def test_log_level_comes_from_option_or_environment(
    option: str | None, environment: dict[str, str], level: str, bad: str | None
) -> None:
    """The option counts first; what is no level is told and means info."""
    launch = read_command_line(["-l", option] if option else [], environment, "linux")

    assert (level, bad) == (launch.config.log_level, launch.bad_level)


@pytest.mark.parametrize(
    ("arguments", "culling"),
    [
        ([], (None, False, False)),
        (["--cull-idle-after", "0"], (0, False, False)),
        (["--cull-idle-after=604800", "--cull-connected"], (604800, True, False)),
        (["--cull-idle-after", "1000000000", "--cull-busy"], (10**9, False, True)),
    ],
)
def test_idle_kernels_are_ended_where_that_is_asked_for(arguments: list[str], culling: tuple[object, ...]) -> None:
    """A limit may be days; without one the flags say nothing."""
    config = read_command_line(arguments, {}, "linux").config

    assert culling == (config.cull_idle_after, config.cull_connected, config.cull_busy)


def test_token_is_generated_read_or_none(tmp_path: Path) -> None:
    """Without the option there is a new one of 64 digits; a file's is trimmed; none is none."""
    file = tmp_path / "token"
    file.write_text("  secret\n")
    generated = read_command_line([], {}, "linux")

    assert (64, True) == (len(generated.config.token or ""), generated.token_is_generated)
    assert "secret" == read_command_line(["-t", str(file)], {}, "linux").config.token
    assert read_command_line(["-t", "none"], {}, "linux").config.token is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"x" * 65, "64 bytes"),
        (b"x" + b" " * 5000, "64 bytes"),
        ("ü".encode() * 33, "64 bytes"),
        (b"\xff", "UTF-8"),
        (None, "[Nn]o such|find|found"),
        (b"two words", "no header can carry"),
        (b"two\nlines", "no header can carry"),
        (b"tab\there", "no header can carry"),
        (b"nul\0", "no header can carry"),
        (b"\x1b[31m", "no header can carry"),
        (b"\x7f", "no header can carry"),
        ("ünï".encode(), "no header can carry"),
    ],
)
def test_token_file_that_is_no_good_is_refused_and_left(tmp_path: Path, content: bytes | None, named: str) -> None:
    """Too long, no text, or not there: said in words, and the file stays."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=named):
        read_command_line(["-t", str(file)], {}, "linux")

    assert (content is not None) == file.exists()


@pytest.mark.posix_only("links that need no privilege, and devices in files' places")
@pytest.mark.parametrize("kind", ["link", "second name", "directory", "device", "link to a device"])
def test_token_that_would_stay_or_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """With a link, or one of two names, deleted, the secret would still be there; nothing is deleted."""
    secret, file = tmp_path / "secret", tmp_path / "token"
    secret.write_text("sesame")
    match kind:
        case "link":
            file.symlink_to(secret)
        case "second name":
            file.hardlink_to(secret)
        case "directory":
            file.mkdir()
        case "device":
            file = Path("/dev/zero")
        case "link to a device":
            file.symlink_to("/dev/zero")
    with pytest.raises(ConfigurationError, match=r"is a link|second name|no regular file"):
        read_command_line(["-t", str(file)], {}, "linux")

    assert file.exists()
    assert secret.read_text() == "sesame"


@pytest.mark.posix_only("pipes that are files")
@pytest.mark.parametrize("is_named", [True, False])
def test_token_may_come_out_of_a_pipe(tmp_path: Path, is_named: bool) -> None:
    """It is waited for, that is said, and the pipe is not deleted."""
    said: list[str] = []
    if is_named:
        pipe = tmp_path / "token"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=("sesame\n",))
        writer.start()
        launch = read_command_line(["-t", str(pipe)], {}, "linux", said.append)
        writer.join()
    else:
        readable, writable = os.pipe()
        os.write(writable, b"sesame\n")
        os.close(writable)
        pipe = Path(f"/dev/fd/{readable}")
        launch = read_command_line(["-t", str(pipe)], {}, "linux", said.append)
        os.close(readable)

    assert ("sesame", None) == (launch.config.token, launch.token_file)
    assert len(said) == 1
    assert str(pipe) in said[0]
    assert pipe.exists() == is_named


@pytest.mark.posix_only("pipes that are files")
@pytest.mark.parametrize("has_writer", [True, False])
def test_pipe_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_writer: bool) -> None:
    """If nobody writes, or who does never ends, the start fails in words."""
    monkeypatch.setattr("kallichore.cli.launch.TOKEN_PATIENCE", 0.05)
    pipe = tmp_path / "token"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR) if has_writer else None
    if descriptor is not None:
        os.write(descriptor, b"half")
    with pytest.raises(ConfigurationError, match="No token came out of the pipe"):
        read_command_line(["-t", str(pipe)], {}, "linux")
    if descriptor is not None:
        os.close(descriptor)

    assert pipe.exists()


@pytest.mark.posix_only("pipes and sockets that are files")
@pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
def test_log_that_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody reads would be waited for without end."""
    log = tmp_path / "log"
    with socket.socket(socket.AF_UNIX) as bound:
        match kind:
            case "fifo":
                os.mkfifo(log)
            case "directory":
                log.mkdir()
            case "socket":
                bound.bind(str(log))
        with pytest.raises(ConfigurationError, match="no regular file"):
            set_up_logging("info", log, Console())


def test_log_may_be_a_device_or_an_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old log begins anew and is its owner's only; a device stays as it is."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log = tmp_path / "log"
    log.write_text("old lines")
    log.chmod(0o644)
    set_up_logging("info", log, Console())
    before = os.stat(os.devnull).st_mode
    set_up_logging("info", Path(os.devnull), Console())

    assert ("", True) == (log.read_text(), is_for_owner_only(log))
    assert before == os.stat(os.devnull).st_mode


@pytest.mark.parametrize("token", ["two words", "ü", "a\n", 5])
def test_no_server_has_a_token_that_cannot_be_sent(token: Any) -> None:
    """An embedded one neither; the message does not show it."""
    with pytest.raises(ConfigurationError, match="visible ASCII") as info:
        ServerConfig(token=token)

    assert str(token) not in str(info.value)


def test_version_to_report_is_an_option() -> None:
    """It is for clients that pin one; without it, the server's own is reported."""
    assert "0.1.69" == read_command_line(["--report-version", "0.1.69"], {}, "linux").config.report_version
    assert read_command_line([], {}, "linux").config.report_version is None
    with pytest.raises(ConfigurationError, match="report_version"):
        read_command_line(["--report-version", "a\nb"], {}, "linux")


@unix_sockets
def test_connection_to_kernels_is_an_option() -> None:
    """Encryption and transport reach the server's settings; what is unknown, or not there on Windows, is refused."""
    config = read_command_line(["--transport-encryption", "auto", "--kernel-transport", "ipc"], {}, "linux").config

    assert ("auto", "ipc") == (config.transport_encryption, config.kernel_transport)
    plain = read_command_line([], {}, "linux").config
    assert ("disabled", "tcp") == (plain.transport_encryption, plain.kernel_transport)
    for words, platform, told in (
        (["--transport-encryption", "yes"], "linux", "--transport-encryption 'yes' is unknown; use disabled, auto"),
        (["--kernel-transport", "inproc"], "linux", "--kernel-transport 'inproc' is unknown; use tcp, ipc"),
        (["--kernel-transport", "ipc"], "win32", "--kernel-transport ipc does not work on Windows"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            read_command_line(words, {}, platform)


@pytest.mark.posix_only("kernels that are kept ready")
@pytest.mark.parametrize(
    ("arguments", "warm"),
    [
        ([], {}),
        (["--warm", "python3"], {"python3": 1}),
        (["--warm", "Python3=2", "--warm=ir=0"], {"python3": 2, "ir": 0}),
    ],
)
def test_kernels_that_are_kept_ready_are_named_with_their_number(arguments: list[str], warm: dict[str, int]) -> None:
    """Each name comes once; without a number it is one kernel, and case does not matter, as for kernelspecs."""
    assert warm == read_command_line(arguments, {}, "linux").config.warm


@pytest.mark.parametrize("warm", [{"python3": -1}, {"python3": 101}, {"python3": True}, {"": 1}, {"python3": "1"}])
def test_numbers_of_kernels_that_make_no_sense_are_refused(warm: dict[Any, Any]) -> None:
    """The setting is named, and what it may be."""
    with pytest.raises(ConfigurationError, match=r"warm is .*0 to 100"):
        ServerConfig(warm=warm)


def test_what_ends_with_its_server_is_refused_where_kernels_outlive_it(tmp_path: Path) -> None:
    """What is to be kept ready needs a server without a state directory; with a number of 0 it needs nothing."""
    assert {"python3": 0} == ServerConfig(warm={"python3": 0}, state_directory=None).warm
    with pytest.raises(ConfigurationError, match="warm"):
        ServerConfig(warm={"python3": 1}, state_directory=tmp_path)


def test_kernels_of_other_machines_may_be_abandoned_sooner_without_a_state_directory(tmp_path: Path) -> None:
    """A server that is killed leaves kernels on other machines for so long, also where nobody can find them again."""
    profiles = tmp_path / "engines.toml"
    profiles.write_text('[profiles.far]\nkind = "ssh"\nhost = "far"\n')
    launch = read_command_line(["--config", str(profiles), "--abandon-after", "60"], {})

    assert (60, {"far": {"kind": "ssh", "host": "far"}}) == (launch.config.abandon_after, launch.config.profiles)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[profiles", "is no TOML"),
        ("port = 7", "has 'port'; it can have tables"),
        ("profiles = 7", "has to be tables"),
        ("[profiles]\nbig = 7", "profiles.big .* has to be a table"),
        ("[profiles.big]\npartition = 'x'", "has no kind; add one"),
    ],
)
def test_file_of_profiles_that_is_wrong_is_refused_with_what_is_right(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """A mistake in the file is named where the server starts."""
    profiles = tmp_path / "engines.toml"
    profiles.write_text(text)

    with pytest.raises(ConfigurationError, match=complaint):
        read_command_line(["--config", str(profiles)], {})
