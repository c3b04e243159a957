"""What a session may ask of SSH, and the command lines that come of it. [pure]"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kallichore.models.converter import read_options

KIND = "ssh"

FIXED = (
    ("BatchMode", "yes"),
    # A master's sessions share one TCP connection, ten at most, and end with it.
    ("ControlMaster", "no"),
    ("ControlPath", "none"),
    # Forwarding is for people who log in: a second connection could not have the same ports.
    ("ClearAllForwardings", "yes"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("RemoteCommand", "none"),
    ("RequestTTY", "no"),
)
"""What is not for anybody to choose: ssh takes the first value that it is given for an option."""

DEFAULTS = (
    # A link that is dead is noticed after some eight seconds.
    ("ServerAliveInterval", "2"),
    ("ServerAliveCountMax", "2"),
    ("ConnectTimeout", "10"),
    # It says why a connection ends.
    ("LogLevel", "INFO"),
)
"""What a session's own `SshOptions.options` come before. They come before those of a configuration file."""

OWN_NAMES = frozenset(name.lower() for name, _ in FIXED)

_HOST = re.compile(r"""(?!-)[^\s\x00-\x1f\x7f'"`$\\;&<>|(){}]+""")
"""As ssh itself has it since 9.6: what it runs to get there, a ``ProxyCommand``, may hand this to a shell."""

_PYTHON = re.compile(r"""(~[A-Za-z0-9_.-]*/)?((?![~-])[^\x00-\x1f\x7f'"!\\`$]+)""")
"""A home that the shell over there fills in, and the rest, which can stand between single quotes in any shell."""

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
"""What means the same in any shell, with and without quotes."""

_OPTION = re.compile(r"\s*([A-Za-z0-9]+)\s*[=\s]\s*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*")


@attrs.frozen
class SshOptions:
    """What a session asks of SSH.

    Attributes:
        host: The machine, as ssh knows it: an alias of its configuration, or ``user@machine``.
        python: The Python over there, which is 3.8 or later; a leading ``~/`` is the user's home.
        config: A configuration file for ssh; None for the user's.
        options: Further options, as they stand in such a file: ``Port=2222``.
        kernelspec: The name of a kernel that is installed there, whose command and environment are used.
        ssh: The program.
    """

    host: str
    python: str = "python3"
    config: str | None = None
    options: tuple[str, ...] = ()
    kernelspec: str | None = None
    ssh: str = "ssh"


def read_ssh_options(options: Mapping[str, Any]) -> SshOptions:
    """Return options that can be used.

    Raises:
        EngineError: One cannot; the text names it, and says what it may be.
    """
    return read_options(SshOptions, options, "engine", _problems)


def _problems(options: SshOptions) -> Sequence[str]:
    found: list[str] = []
    if not _HOST.fullmatch(options.host):
        found.append(
            f"host is {options.host!r}; it can be an alias of ssh's configuration, a machine's name, or "
            "user@machine: without blanks, and without a hyphen at its beginning"
        )
    if not _PYTHON.fullmatch(options.python):
        found.append(
            f"python is {options.python!r}; it can be a program's name or path over there, without quotes, "
            "backslashes, dollars and exclamation marks"
        )
    for option in options.options:
        match = _OPTION.fullmatch(option)
        if match is None:
            found.append(f"options has {option!r}; each is a name and a value of ssh_config, as in Port=2222")
        elif match[1].lower() in OWN_NAMES:
            found.append(f"options has {option!r}; {match[1]} cannot be chosen for a kernel's connection")
    for name in ("config", "kernelspec", "ssh"):
        if getattr(options, name) == "":
            found.append(f"{name} is empty")
    return found


def command_line(options: SshOptions, argument: str | None = None) -> list[str]:
    """Return the command that has a Python over there run a program.

    Args:
        options: Where, and which Python.
        argument: The program as one line without quotes; None for what comes on standard input.
    """
    own = [f"{name}={value}" for name, value in FIXED]
    defaults = [f"{name}={value}" for name, value in DEFAULTS]
    words = [options.ssh, *(("-F", options.config) if options.config is not None else ())]
    for each in (*own, *options.options, *defaults):
        words += ["-o", each]
    rest = "-" if argument is None else f"-c '{argument}'"
    return [*words, "--", options.host, f"{quote(options.python)} {rest}"]


def quote(python: str) -> str:
    """Return the path of a Python as a word for any shell; that fills in the home."""
    match = _PYTHON.fullmatch(python)
    assert match is not None
    home, rest = match[1] or "", match[2]
    return home + (rest if _PLAIN.fullmatch(rest) else f"'{rest}'")
