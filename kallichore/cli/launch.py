"""kcserver's command line, read: options to settings, without side effects beyond reading the token file.

The rules are those of two generations of launchers: ``--connection-file`` makes a socket (on Windows a named pipe) the
default transport, ``--handshake-socket`` leaves it at TCP.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import attrs

from kallichore._version import __version__
from kallichore.cli.logs import choose_level
from kallichore.config import (
    ENCRYPTION_POLICIES,
    KERNEL_TRANSPORTS,
    MOST_WARM,
    ON_EXIT,
    TRANSPORTS,
    ServerConfig,
    is_sendable,
    make_token,
)
from kallichore.errors import ConfigurationError

LONGEST_TOKEN = 64

TOKEN_PATIENCE = 5.0
"""Seconds that a token may take to come out of a pipe. Whoever makes the pipe starts us, and has the token."""

LARGEST_TOKEN_FILE = 4096
"""Bytes that are read of a token's file: the token, and white space around it."""

LONGEST_NUMBER = 100
"""Digits of a number at most, with zeros in front of it: Python refuses to read very long ones."""

MOST_SECONDS = 10**9
"""Seconds of a duration at most, as `ServerConfig` has it."""

_MOST = 65535


@attrs.frozen
class Launch:
    """What the command line asks for."""

    config: ServerConfig
    token_file: Path | None = None
    """To be deleted: its name shows in the process list, so its content must not stay. None for a pipe, which keeps
    nothing."""
    bad_level: str | None = None
    token_is_generated: bool = False
    replaces: bool = False
    """Whether it takes over from the server that has the state directory."""


_NO_SOCKETS = "the server has a named pipe there, not a Unix socket"
_NOT_OUTLIVED = "kernels end with their server there"
NOT_ON_WINDOWS = {
    **dict.fromkeys(("socket_dir", "unix_socket"), _NO_SOCKETS),
    **dict.fromkeys(("state_dir", "on_exit", "replace"), _NOT_OUTLIVED),
    "warm": "what interrupts a kernel there is its session's from the start",
}
"""Options that are for other systems, and why."""


class _Once(argparse.Action):
    """Stores a value, and refuses a second one: launchers build these command lines, and one of the two is wrong."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value."""
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"argument {option}: given twice")
        setattr(namespace, self.dest, values)


def _up_to(most: int) -> Callable[[str], int]:
    """Return what reads a number from 0 to this."""

    def read(text: str) -> int:
        digits = text.removeprefix("+")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= LONGEST_NUMBER and int(digits) <= most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most}")
        return int(digits)

    return read


_number = _up_to(_MOST)
_count = _up_to(MOST_WARM)


def _warm(text: str) -> tuple[str, int]:
    """Read a kernel's name and how many of it are to be ready: one, where no number is given."""
    name, sign, count = text.partition("=")
    if not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N, such as python3=1")
    return name.lower(), _count(count) if sign else 1


class _Counts(argparse.Action):
    """Stores how many of what, and refuses the same name twice."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value."""
        name, count = values
        known = getattr(namespace, self.dest) or {}
        if name in known:
            parser.error(f"argument {option}: {name} is given twice")
        setattr(namespace, self.dest, {**known, name: count})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}\n")


def _help_elsewhere(platform: str, text: str) -> str:
    """Return the help for one of `NOT_ON_WINDOWS`: there it is not listed."""
    return argparse.SUPPRESS if platform == "win32" else text


def make_parser(platform: str = sys.platform) -> argparse.ArgumentParser:
    """Return the parser of kcserver's options."""
    parser = _Parser(
        prog="kcserver",
        description="Supervise Jupyter kernels, with one HTTP and WebSocket API in front of them.",
        allow_abbrev=False,
    )
    parser.register("action", None, _Once)
    add = parser.add_argument
    add("-p", "--port", type=_number, metavar="PORT", help="TCP port on 127.0.0.1; 0 (the default) for any")
    add("-t", "--token", metavar="FILE", help="file that holds the bearer token, deleted once read; or 'none'")
    add("--log-file", metavar="FILE", help="write the log there as well")
    add("--connection-file", metavar="FILE", help="write there how to reach the server; implies a socket")
    add("--handshake-socket", metavar="PATH", help="tell the launcher that listens there how to reach the server")
    add("-i", "--idle-shutdown-hours", type=_number, metavar="HOURS", help="end when idle so long; 0 for 30 seconds")
    add(
        "--cull-idle-after",
        type=_up_to(MOST_SECONDS),
        metavar="SECONDS",
        help="end kernels that nobody has used for so long; 0 (the default) for never",
    )
    flag = partial(parser.add_argument, action="store_true")
    flag("--cull-connected", help="end idle kernels although clients are connected")
    flag("--cull-busy", help="end kernels that nobody uses although something runs, waits or asks for input")
    add(
        "-r",
        "--resource-sample-interval",
        type=_number,
        metavar="MS",
        help="milliseconds between two looks at what kernels use (1000); 0 for none",
    )
    add("-l", "--log-level", metavar="LEVEL", help="trace, debug, info, warn or error")
    elsewhere = partial(_help_elsewhere, platform)
    add(
        "--socket-dir",
        metavar="DIR",
        help=elsewhere("where sockets go (XDG_RUNTIME_DIR, else the temporary directory)"),
    )
    add("--unix-socket", metavar="PATH", help=elsewhere("listen on this Unix socket"))
    add(
        "--state-dir",
        metavar="DIR",
        help=elsewhere("keep sessions there: they and their kernels outlive the server"),
    )
    add(
        "--on-exit",
        metavar="WHAT",
        help=elsewhere("keep (the default) or stop kernels when a server with a --state-dir ends"),
    )
    add(
        "--abandon-after",
        type=_up_to(MOST_SECONDS),
        metavar="SECONDS",
        help="end kernels that no server came back for in so long (86400, a day); 0 for never",
    )
    flag("--replace", help=elsewhere("take over from the server that has the --state-dir now"))
    add("--config", metavar="FILE", help="profiles of kernels on other machines, as TOML")
    add("--listen-hosts", metavar="HOST:PORT", help="where hosts of kernels on other machines connect to, encrypted")
    add("--hosts-certificate", metavar="FILE", help="the certificate that is shown there, as PEM; made if left out")
    add("--hosts-key", metavar="FILE", help="the certificate's private key, as PEM")
    add("--report-version", metavar="VERSION", help="what GET /status says as its version, for clients that pin one")
    add("--transport", metavar="KIND", help="tcp, socket or named-pipe")
    add("--transport-encryption", metavar="POLICY", help="to kernels: disabled (the default), auto or required")
    add("--kernel-transport", metavar="KIND", help="to kernels: tcp (the default) or ipc, which is Unix sockets")
    parser.add_argument(
        "--warm",
        action=_Counts,
        type=_warm,
        metavar="NAME=N",
        help=elsewhere("keep N kernels of this kernelspec ready before anybody asks for them; may be repeated"),
    )
    flag("--no-jupyter", help="do not serve Jupyter's own API beside ours")
    add("--base-url", metavar="PATH", help="serve Jupyter's API, and all else too, below this path, as behind a proxy")
    parser.add_argument(
        "--allow-origin",
        action="append",
        metavar="ORIGIN",
        help="let web pages of this origin use Jupyter's API, such as https://notebooks.example; may be repeated",
    )
    add("--root-dir", metavar="DIR", help="the directory below which the paths of Jupyter's API are (this one)")
    parser.add_argument("-V", "--version", action="version", version=f"kcserver {__version__}")
    return parser


def choose_transport(options: argparse.Namespace, platform: str) -> str:
    """Return the transport that the options ask for, however they do it."""
    if options.transport is not None:
        return str(options.transport)
    if options.unix_socket is not None:
        return "socket"
    if options.connection_file is not None:
        return "named-pipe" if platform == "win32" else "socket"
    return "tcp"


def _check(options: argparse.Namespace, transport: str, platform: str) -> None:
    for name, reason in NOT_ON_WINDOWS.items() if platform == "win32" else ():
        if getattr(options, name) not in (None, False):
            option = name.replace("_", "-")
            raise ConfigurationError(f"--{option} does not work on Windows: {reason}")
    if options.port and transport != "tcp":
        raise ConfigurationError(
            f"--port {options.port} needs --transport tcp, but the transport is {transport!r}; drop one of them"
        )
    if options.unix_socket is not None and transport != "socket":
        raise ConfigurationError(
            f"--unix-socket needs --transport socket, but the transport is {transport!r}; drop one of them"
        )
    if platform == "win32" and transport == "socket":
        raise ConfigurationError("--transport socket does not work on Windows; use named-pipe or tcp")
    if platform != "win32" and transport == "named-pipe":
        raise ConfigurationError("--transport named-pipe works on Windows only; use socket or tcp")
    if transport not in TRANSPORTS:
        raise ConfigurationError(f"--transport {transport!r} is unknown; use {', '.join(TRANSPORTS)}")
    named = (
        ("transport_encryption", ENCRYPTION_POLICIES),
        ("kernel_transport", KERNEL_TRANSPORTS),
        ("on_exit", ON_EXIT),
    )
    for name, choices in named:
        value = getattr(options, name)
        if value is not None and value not in choices:
            option = name.replace("_", "-")
            raise ConfigurationError(f"--{option} {value!r} is unknown; use {', '.join(choices)}")
    for name in ("on_exit", "abandon_after", "replace"):
        # On other machines, kernels may be left by any server that is killed.
        is_about_others = name == "abandon_after" and options.config is not None
        if getattr(options, name) not in (None, False) and options.state_dir is None and not is_about_others:
            option = name.replace("_", "-")
            raise ConfigurationError(f"--{option} is about what outlives a server; give --state-dir as well")
    if options.warm and options.state_dir is not None:
        raise ConfigurationError(
            "--warm does not work with --state-dir: what is kept ready ends with its server; drop one of them"
        )
    if platform == "win32" and options.kernel_transport == "ipc":
        raise ConfigurationError("--kernel-transport ipc does not work on Windows; use tcp")


def read_token(path: Path, say: Callable[[str], None] = lambda _: None) -> tuple[str, bool]:
    """Return the token in a file, without white space around it, and whether the file now has to be deleted.

    A pipe is waited for, for `TOKEN_PATIENCE`.

    Args:
        path: The file, or a pipe.
        say: Tells a person what is waited for.

    Raises:
        ConfigurationError: The file cannot be read, is a link or no file, or what it holds cannot be a token. It is
            left in place.
    """
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)
        if not is_pipe:
            _check_token_file(path)
        # A link is followed to a pipe only, such as /dev/fd/3: there, no secret would stay behind.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (0 if is_pipe else getattr(os, "O_NOFOLLOW", 0))
        with open(os.open(path, flags), "rb", buffering=0) as file:
            if is_pipe != stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"The token file {path} has become something else while it was read")
            if is_pipe:
                say(f"Waiting for the token to come out of the pipe {path}, {TOKEN_PATIENCE:.0f} s at most")
                content = _read_pipe(file, path)
            else:
                content = file.read(LARGEST_TOKEN_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"Could not read the token file {path}: {error.strerror}") from error
    try:
        token = content.decode().strip()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"The token file {path} is not UTF-8 text") from error
    if len(content) > LARGEST_TOKEN_FILE or len(token.encode()) > LONGEST_TOKEN:
        raise ConfigurationError(f"The token in {path} is longer than {LONGEST_TOKEN} bytes")
    if not is_sendable(token):
        raise ConfigurationError(
            f"The token in {path} has a character that no header can carry; use ASCII letters, digits and signs"
        )
    return token, not is_pipe


def _check_token_file(path: Path) -> None:
    """See that a token's file is one file by one name, so that the secret is gone when that is deleted.

    Raises:
        ConfigurationError: It is something else.
        OSError: It is not there.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigurationError(f"The token file {path} is a link, and the secret would stay where it leads")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"The token file {path} is no regular file, and no pipe")
    if found.st_nlink > 1:
        raise ConfigurationError(f"The token file {path} has a second name, under which the secret would stay")


def _read_pipe(file: IO[bytes], path: Path) -> bytes:
    """Return what comes out of a pipe up to its end.

    Raises:
        ConfigurationError: It has not all come in time.
    """
    import select

    content, deadline = b"", time.monotonic() + TOKEN_PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        # Not by reading: without a writer, a pipe seems to have ended.
        if sys.platform != "win32":
            waiting = select.poll()
            waiting.register(file, select.POLLIN)
            if not waiting.poll(left * 1000):
                break
        piece = file.read(LARGEST_TOKEN_FILE + 1 - len(content))
        if not piece:
            return content
        content += piece
        if len(content) > LARGEST_TOKEN_FILE:
            return content
    raise ConfigurationError(f"No token came out of the pipe {path} within {TOKEN_PATIENCE:.0f} s")


def read_command_line(
    argv: Sequence[str],
    environ: Mapping[str, str],
    platform: str = sys.platform,
    say: Callable[[str], None] = lambda _: None,
) -> Launch:
    """Read kcserver's arguments.

    Args:
        argv: The arguments, without the program's name.
        environ: The environment, for the log level.
        platform: As ``sys.platform``.
        say: Tells a person what is waited for.

    Raises:
        ConfigurationError: The options contradict each other, or the token file is no good.
        SystemExit: 0 after help or version, 2 after a syntax error.
    """
    options = make_parser(platform).parse_args(argv)
    transport = choose_transport(options, platform)
    _check(options, transport, platform)
    level, bad_level = choose_level(options.log_level, environ)
    token: str | None
    token_file = None if options.token in (None, "none") else Path(options.token)
    if token_file is not None:
        token, is_left = read_token(token_file, say)
        token_file = token_file if is_left else None
    else:
        token = None if options.token == "none" else make_token()  # noqa: S105  # an option's value, no password
    interval = options.resource_sample_interval
    config = ServerConfig(
        transport=transport,
        port=options.port or 0,
        unix_socket=options.unix_socket,
        socket_directory=options.socket_dir,
        token=token,
        connection_file=options.connection_file,
        handshake_socket=options.handshake_socket,
        log_file=options.log_file,
        log_level=level,
        report_version=options.report_version,
        idle_shutdown_hours=options.idle_shutdown_hours,
        cull_idle_after=options.cull_idle_after,
        cull_connected=options.cull_connected,
        cull_busy=options.cull_busy,
        resource_sample_interval_ms=1000 if interval is None else interval,
        transport_encryption=options.transport_encryption or "disabled",
        kernel_transport=options.kernel_transport or "tcp",
        jupyter=not options.no_jupyter,
        base_url=options.base_url or "/",
        allow_origin=tuple(options.allow_origin or ()),
        root_directory=options.root_dir,
        warm=options.warm or {},
        state_directory=options.state_dir,
        on_exit=options.on_exit or "keep",
        profiles={} if options.config is None else _read_profiles(options.config),
        listen_hosts=options.listen_hosts,
        hosts_certificate=options.hosts_certificate,
        hosts_key=options.hosts_key,
        abandon_after=86400 if options.abandon_after is None else options.abandon_after,
    )
    return Launch(config, token_file, bad_level, token_is_generated=options.token is None, replaces=options.replace)


def _read_profiles(path: str) -> Mapping[str, Mapping[str, Any]]:
    from kallichore.engines.profiles import read_profiles

    try:
        text = Path(path).expanduser().read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"Could not read --config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"--config {path} is not UTF-8 text") from error
    return read_profiles(text, path)


def forget_token_file(path: Path) -> str | None:
    """Delete a token file; return why it could not be, if so."""
    try:
        os.unlink(path)
    except OSError as error:
        return error.strerror
    return None
