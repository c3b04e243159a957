"""kcserver's options, read: spellings, defaults, and what contradicts what."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kallichore.cli.launch import read_command_line
from kallichore.cli.logs import LineFormatter
from kallichore.errors import ConfigurationError


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
        (["--transport", "TCP"], "linux", "tcp, socket, named-pipe"),
        (["--transport", ""], "linux", "tcp, socket, named-pipe"),
    ],
)
def test_contradictions_are_named(arguments: list[str], platform: str, named: str) -> None:
    """Options that do not go together are refused with what would."""
    with pytest.raises(ConfigurationError, match=named):
        read_command_line(arguments, {}, platform)


@pytest.mark.parametrize(
    ("arguments", "transport"),
    [
        ([], "tcp"),
        (["--connection-file", "f"], "socket"),
        (["--connection-file", "f", "--port", "0"], "socket"),
        (["--connection-file", "f", "--transport", "tcp", "--port", "8080"], "tcp"),
        (["--handshake-socket", "s"], "tcp"),
        (["--handshake-socket", "s", "--connection-file", "f"], "socket"),
        (["--unix-socket", "s"], "socket"),
        (["--socket-dir", "d"], "tcp"),
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
    [(b"x" * 65, "64 bytes"), ("ü".encode() * 33, "64 bytes"), (b"\xff", "UTF-8"), (None, "No such")],
)
def test_token_file_that_is_no_good_is_refused_and_left(tmp_path: Path, content: bytes | None, named: str) -> None:
    """Too long, no text, or not there: said in words, and the file stays."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=named):
        read_command_line(["-t", str(file)], {}, "linux")

    assert (content is not None) == file.exists()


def test_line_ends_in_a_message_make_no_second_line() -> None:
    """What a client sends cannot forge lines of the log."""
    record = logging.LogRecord("n", logging.INFO, "f", 1, "get_session(%s)", ("a\n12:00:00 [INFO] forged\r",), None)
    line = LineFormatter(colours=False).format(record)

    assert "\n" not in line
    assert "\r" not in line
    assert "a\\n12:00:00" in line
