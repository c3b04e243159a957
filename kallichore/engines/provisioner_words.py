"""What a server and the program that runs Jupyter's provisioners say to each other, and what follows from it. [pure]

They exchange lines of JSON, of which each is an object. What a provisioner itself tells is another's word: it is looked
at before anybody builds on it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import attrs

from kallichore.errors import EngineError
from kallichore.models.bodies import ConnectionInfo
from kallichore.wire.connection_info import PORT_NAMES

PASSED_ON = ("HOME", "LANG", "LANGUAGE", "LC_*", "LOGNAME", "TZ", "USER", "KERNEL_*", "JPY_*")
"""The server's variables that a kernel elsewhere gets too. Not PATH, for one: where the kernel runs, programs are in
other places. It gets all that its kernel.json or its session sets."""

LAUNCH_TIMEOUT = "KERNEL_LAUNCH_TIMEOUT"
"""The variable by which kernel.json files say how many seconds a launch may take; several provisioners read it."""

LAUNCH_MARGIN = 30.0
"""Seconds that a provisioner may take longer than the time that it was given, before nobody believes in it any more."""


@attrs.frozen
class Launched:
    """What a provisioner tells of the kernel that it has launched.

    Attributes:
        connection: Where the kernel's sockets are.
        info: What `load_provisioner_info` of another process needs to go on with it.
        pid: Its process, where that is one of this machine; 0 where it is not, or nobody knows.
        is_local: Whether jupyter_client itself started it, as a process of this machine, so that what is told of its
            end is certain.
    """

    connection: ConnectionInfo
    info: Mapping[str, Any]
    pid: int
    is_local: bool


@attrs.frozen
class ToldEnd:
    """What a provisioner tells of a kernel's end.

    Attributes:
        code: The exit code; negative for a signal, as `subprocess` has it. None if there is none.
        is_certain: Whether that is the system's word, rather than a provisioner's.
    """

    code: int | None
    is_certain: bool


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line. What JSON does not have, a provisioner's own objects, is said by its text."""
    return json.dumps(plain(message), default=str).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """Return a line as a message, or None if it is none: others may print where they should not."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def plain(value: Any) -> Any:
    """Return a value with text for bytes: keys of connections are bytes, and have to be the same afterwards."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def choose_environment(environment: Mapping[str, str], own: Collection[str]) -> dict[str, str]:
    """Return the variables that a kernel on another machine gets.

    Args:
        environment: What it would have on this one.
        own: The names that its kernel.json and its session set.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in own or any(fnmatchcase(name, pattern) for pattern in PASSED_ON)
    }


def choose_encryption(policy: str, *, can_encrypt: bool, is_local: bool) -> str:
    """Return what a provisioner is told of encryption, in jupyter_client's words.

    Args:
        policy: What counts for the session.
        can_encrypt: Whether the server can.
        is_local: Whether the kernel is a process of this machine. What one elsewhere says passes where others are.
    """
    return "auto" if policy == "disabled" and can_encrypt and not is_local else policy


def launch_limit(environment: Mapping[str, str], usual: float) -> float:
    """Return how many seconds are waited for a launch.

    Args:
        environment: The kernel's.
        usual: For a kernel that does not say.
    """
    try:
        asked = float(environment[LAUNCH_TIMEOUT])
    except (KeyError, ValueError):
        return usual
    return asked + LAUNCH_MARGIN if 0 <= asked < float("inf") else usual


def read_launched(name: str, told: Mapping[str, Any]) -> Launched:
    """Return what is told of a launch.

    Args:
        name: The provisioner.
        told: The answer of the program that runs it.

    Raises:
        EngineError: It does not say where the kernel is.
    """
    info, pid = told.get("info"), told.get("pid")
    return Launched(
        connection=read_connection(name, told.get("connection")),
        info=info if isinstance(info, dict) else {},
        pid=pid if isinstance(pid, int) else 0,
        is_local=told.get("is_local") is True,
    )


def read_connection(name: str, told: Any) -> ConnectionInfo:
    """Return where a kernel is, as its provisioner told it.

    Raises:
        EngineError: Something is missing, or is not what it has to be; the text names it.
    """
    members = told if isinstance(told, dict) else {}
    wrong = [port for port in PORT_NAMES if not _is_port(members.get(port))]
    wrong += [each for each in ("ip", "key") if not isinstance(members.get(each), str)]
    if not members.get("ip"):
        wrong = list(dict.fromkeys([*wrong, "ip"]))
    if wrong:
        text = f"The provisioner {name!r} says that the kernel was launched, but not where it is: "
        raise EngineError(text + ", ".join(f"{each} is {_shown(members, each)}" for each in wrong))
    chosen = {field.name: members[field.name] for field in attrs.fields(ConnectionInfo) if field.name in members}
    return ConnectionInfo(**{"transport": "tcp", "signature_scheme": "hmac-sha256", **chosen})


def _is_port(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 16


def _shown(members: Mapping[str, Any], name: str) -> str:
    # A key is nobody's business.
    return "missing" if members.get(name) is None else "no text" if name == "key" else repr(members[name])


def read_end(told: Mapping[str, Any]) -> ToldEnd:
    """Return what is told of an end."""
    code = told.get("code")
    return ToldEnd(code if type(code) is int else None, told.get("is_certain") is True)


def uncertain_end(name: str, code: int | None) -> str:
    """Return what is known of an end from a provisioner alone, as the end of a sentence.

    Args:
        name: The provisioner.
        code: The exit code that it told. A 0 says nothing: it is what most tell who do not know.
    """
    told = "does not say how" if code in (0, None) else f"says with exit code {code}"
    return f"ended; its provisioner {name!r} {told}"
