"""The server's settings: one frozen value, checked when it is made.

Durations are seconds and live here; whoever waits sets the deadline from here. What can change while the server
runs (idle shutdown, sampling, log level) starts with the values from here and is kept by the `Server`.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from kallichore.errors import ConfigurationError

TRANSPORTS = ("tcp", "socket", "named-pipe")
ENCRYPTION_POLICIES = ("disabled", "auto", "required")
KERNEL_TRANSPORTS = ("tcp", "ipc")
ON_EXIT = ("keep", "stop")
MOST_WARM = 100
"""Kernels of one kind, or of one session, that can be kept ready: more is a slip, at 50 MB each."""
LOG_LEVELS = ("trace", "debug", "info", "warn", "error")


_made_tokens: set[str] = set()


def make_token() -> str:
    """Return a new bearer token: 32 random bytes as 64 hexadecimal digits."""
    token = secrets.token_hex(32)
    _made_tokens.add(token)
    return token


def is_made(token: str | None) -> bool:
    """Tell whether nobody chose a token: a server with a state directory goes on with the one before instead."""
    return token in _made_tokens


def is_sendable(token: str) -> bool:
    """Tell whether a client can send a token in a header as it is: visible ASCII characters. It may be empty."""
    return all("!" <= character <= "~" for character in token)


def _check(condition: bool, field: attrs.Attribute[Any], value: object, rule: str) -> None:
    if not condition:
        raise ConfigurationError(f"{field.name} is {value!r}; it must be {rule}")


def _between(low: float, high: float) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _check(number and low <= value <= high, field, value, f"a number from {low} to {high}")

    return validate


def _one_of(choices: tuple[str, ...]) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        _check(value in choices, field, value, "one of " + ", ".join(choices))

    return validate


def _to_path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value).expanduser().absolute()


def _token(_: object, field: attrs.Attribute[Any], value: object) -> None:
    is_fit = value is None or (isinstance(value, str) and is_sendable(value))
    if not is_fit:
        # Without the value, which is a secret.
        raise ConfigurationError(f"{field.name} must be visible ASCII characters without blanks, as a header has them")


def _version(_: object, field: attrs.Attribute[Any], value: object) -> None:
    is_fit = value is None or (isinstance(value, str) and value.isprintable() and 0 < len(value) <= 100)
    _check(is_fit, field, value, "a version, in visible characters")


def _base_url(_: object, field: attrs.Attribute[Any], value: object) -> None:
    # Gateways write the address in lower case, and put "ws" for each "http" in it.
    is_fit = isinstance(value, str) and value.startswith("/") and value == value.lower() and "http" not in value
    _check(is_fit, field, value, "a path in lower case that begins with / and has no 'http' in it")


def _host_and_port(_: object, field: attrs.Attribute[Any], value: object) -> None:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    is_fit = value is None or (bool(host) and port.isdigit() and int(port) <= 65535)
    _check(is_fit, field, value, "HOST:PORT, with port 0 for any")


def _warm(_: object, field: attrs.Attribute[Any], value: Mapping[Any, Any]) -> None:
    for name, count in value.items():
        is_fit = isinstance(name, str) and name and isinstance(count, int) and not isinstance(count, bool)
        _check(bool(is_fit and 0 <= count <= MOST_WARM), field, value, f"kernels' names with 0 to {MOST_WARM} each")


_seconds = _between(0, 1e9)


@attrs.frozen(kw_only=True)
class ServerConfig:
    """How a server listens, whom it lets in, and how long it waits for what.

    Raises:
        ConfigurationError: A value is out of range, or two settings contradict each other.
    """

    transport: str = attrs.field(default="tcp", validator=_one_of(TRANSPORTS))
    """``tcp`` (127.0.0.1), ``socket`` (Unix domain socket) or ``named-pipe`` (Windows)."""
    port: int = attrs.field(default=0, validator=_between(0, 65535))
    """TCP port on 127.0.0.1; 0 lets the system choose."""
    unix_socket: Path | None = attrs.field(default=None, converter=_to_path)
    """Exact path of the main Unix socket; None for a short unique name in the socket directory."""
    socket_directory: Path | None = attrs.field(default=None, converter=_to_path)
    """Where generated sockets go; None for XDG_RUNTIME_DIR, else the temporary directory."""
    token: str | None = attrs.field(factory=make_token, repr=False, validator=_token)
    """The bearer token; a new random one by default, None to let everybody in."""
    connection_file: Path | None = attrs.field(default=None, converter=_to_path)
    """Where to write how to reach the server; None for nowhere. Removed at the end."""
    handshake_socket: str | None = None
    """A Unix socket or pipe on which a launcher listens to be told how to reach the server, once."""
    log_file: Path | None = attrs.field(default=None, converter=_to_path)
    """The log file, as reported in the connection file; the server itself only logs through `logging`."""
    log_level: str = attrs.field(default="info", validator=_one_of(LOG_LEVELS))
    """The level that the configuration endpoint reports at first."""
    report_version: str | None = attrs.field(default=None, validator=_version)
    """What ``GET /status`` says as its version, for clients that want the one that they pin; None for our own."""
    idle_shutdown_hours: int | None = attrs.field(default=None, validator=attrs.validators.optional(_between(0, 65535)))
    """Hours without activity after which the server ends; 0 means 30 s, None means never."""
    cull_idle_after: float | None = attrs.field(default=None, validator=attrs.validators.optional(_seconds))
    """Seconds without activity after which a session's kernel is ended, where its session does not say; None or 0 for
    never. Activity is code that is run, its end, and input."""
    cull_connected: bool = False
    """Whether idle kernels are ended although clients are connected, where their session does not say."""
    cull_busy: bool = False
    """Whether kernels without activity are ended although something runs, waits or asks for input, where their session
    does not say."""
    resource_sample_interval_ms: int = attrs.field(default=1000, validator=_between(0, 2**31 - 1))
    """Milliseconds between two samples of a kernel's resource usage; 0 for no samples. Five times as many for
    kernels on other machines."""
    resource_include_children: bool = True
    """Whether resource usage counts the kernel's child processes too."""

    transport_encryption: str = attrs.field(default="disabled", validator=_one_of(ENCRYPTION_POLICIES))
    """Whether what passes between the server and a kernel is encrypted (CurveZMQ), where its session does not say:
    ``disabled``, ``auto`` (over TCP, where the kernelspec says that the kernel can) or ``required`` (a kernel that
    cannot is not started)."""
    kernel_transport: str = attrs.field(default="tcp", validator=_one_of(KERNEL_TRANSPORTS))
    """Over what the server and a kernel are connected, where its session does not say: ``tcp`` (127.0.0.1) or ``ipc``
    (Unix sockets in a private directory; not on Windows)."""

    shutdown_grace: float = attrs.field(default=5.0, validator=_seconds)
    """How long a kernel that was asked to shut down may take before it is terminated (SIGTERM).
    Five seconds is what Jupyter's own kernel manager gives."""
    terminate_grace: float = attrs.field(default=2.0, validator=_seconds)
    """How long a terminated kernel may take before it is killed (SIGKILL)."""
    drain_grace: float = attrs.field(default=1.0, validator=_seconds)
    """How long the last words of a dead kernel, on its pipes and sockets, are waited for."""
    heartbeat_limit: float = attrs.field(default=5.0, validator=_seconds)
    """How long a heartbeat may stay unanswered before the kernel counts as offline."""
    heartbeat_pause: float = attrs.field(default=2.0, validator=_seconds)
    """The pause between an answered heartbeat and the next; for kernels on other machines at least 10 s."""
    ping_interval: float = attrs.field(default=10.0, validator=_seconds)
    """How often a channel's client is pinged."""
    ping_allowance: int = attrs.field(default=3, validator=_between(0, 1000))
    """How many pings a client may leave unanswered; with one more it counts as gone."""
    journal_memory: int = attrs.field(default=16 << 20, validator=_between(1 << 16, 1 << 40))
    """Bytes of undelivered messages that a session keeps in memory; what is older moves to a file."""
    journal_file: int = attrs.field(default=1 << 30, validator=_between(0, 1 << 44))
    """Bytes of undelivered messages that a session keeps in a file; beyond that the oldest are dropped and the
    client is told how many. 0 for no file."""

    journal_keep: int = attrs.field(default=4 << 20, validator=_between(0, 1 << 40))
    """Bytes of delivered messages that a session keeps for clients that come back and ask for them again."""

    jupyter: bool = True
    """Whether Jupyter's own API is served beside ours."""
    base_url: str = attrs.field(default="/", validator=_base_url)
    """The path below which Jupyter's API is, as behind a proxy; ours and the dashboard are there too, and at ``/``."""
    allow_origin: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    """Origins of web pages that may use Jupyter's API, such as ``https://notebooks.example``; ``*`` for all. Those that
    are named may send requests to ours too, as the dashboard behind a proxy does."""
    warm: Mapping[str, int] = attrs.field(factory=dict, converter=dict, validator=_warm)
    """How many kernels of which kernelspecs are kept ready before anybody asks for them, by their names. Neither on
    Windows nor with a state directory."""
    state_directory: Path | None = attrs.field(default=None, converter=_to_path)
    """Where sessions are kept that outlive the server; None for sessions that end with it. Not on Windows."""
    on_exit: str = attrs.field(default="keep", validator=_one_of(ON_EXIT))
    """What becomes of kernels when a server with a state directory ends and nobody asked for their end: ``keep`` leaves
    them to the next server, ``stop`` ends them. Without a state directory they always end."""
    abandon_after: float = attrs.field(default=86400.0, validator=_seconds)
    """Seconds without a server after which a kernel that outlived its own is ended; 0 for never."""
    profiles: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    """Named sets of options for kernels on other machines, each with its ``kind``; see `kallichore.engines`."""
    listen_hosts: str | None = attrs.field(default=None, validator=_host_and_port)
    """``HOST:PORT`` where the hosts of kernels on other machines connect to, encrypted; None for nowhere. They are told
    the same address, so it has to be one that they can reach."""
    hosts_certificate: Path | None = attrs.field(default=None, converter=_to_path)
    """The certificate that is shown there, as PEM; None for one that the server makes itself."""
    hosts_key: Path | None = attrs.field(default=None, converter=_to_path)
    """The certificate's private key, as PEM."""
    root_directory: Path | None = attrs.field(default=None, converter=_to_path)
    """The directory below which Jupyter's paths are; None for the one that the server runs in."""

    @property
    def keeps_kernels(self) -> bool:
        """Whether kernels go on when the server ends and nobody asked for their end."""
        return self.state_directory is not None and self.on_exit == "keep"

    def __attrs_post_init__(self) -> None:
        if self.port and self.transport != "tcp":
            raise ConfigurationError(
                f"port {self.port} needs the tcp transport, but the transport is {self.transport}; drop one of them"
            )
        if self.unix_socket and self.transport != "socket":
            raise ConfigurationError(
                f"unix_socket {self.unix_socket} needs the socket transport, but the transport is {self.transport}; "
                "drop one of them"
            )
        if (self.hosts_certificate is None) != (self.hosts_key is None):
            raise ConfigurationError("hosts_certificate and hosts_key go together: give both of them, or neither")
        if sys.platform == "win32" and self.transport == "socket":
            raise ConfigurationError("Unix sockets are not served on Windows; use the named-pipe or tcp transport")
        if sys.platform != "win32" and self.transport == "named-pipe":
            raise ConfigurationError("named pipes exist on Windows only; use the socket or tcp transport")
        if sys.platform == "win32" and self.kernel_transport == "ipc":
            raise ConfigurationError("kernel_transport ipc does not work on Windows; use tcp")
        if any(self.warm.values()) and sys.platform == "win32":
            raise ConfigurationError(
                "warm does not work on Windows: what interrupts a kernel there is its session's from the start"
            )
        if any(self.warm.values()) and self.state_directory is not None:
            raise ConfigurationError(
                "warm does not work with a state directory: what is kept ready ends with its server; drop one of them"
            )
        if sys.platform == "win32" and self.state_directory is not None:
            raise ConfigurationError("state_directory does not work on Windows: kernels end with their server there")
