"""What a window and the server say to each other on a workspace's channel: JSON, each with its ``kind``. [pure]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from kallichore.models.bodies import McpClient
from kallichore.models.converter import to_json
from kallichore.wire.envelope import UNREADABLE


class MalformedFrameError(ValueError):
    """A frame is not what a window may say; the text says what is wrong."""


class Argument(msgspec.Struct):
    """An argument of a command."""

    name: str
    description: str | None = None
    required: bool = False
    schema: Any = None


class Command(msgspec.Struct):
    """A command of a window."""

    id: str
    description: str = ""
    args: list[Argument] = []
    returns: Any = None


class Hello(msgspec.Struct, tag_field="kind", tag="hello"):
    """The first that a window says."""

    positron_version: str | None = None
    commands: list[Command] = []
    session_ids: list[str] = []
    foreground_session_id: str | None = None
    history_api_enabled: bool = False
    focused: bool = False


class CommandsChanged(msgspec.Struct, tag_field="kind", tag="commands_changed"):
    """The commands are these now."""

    commands: list[Command]


class ForegroundChanged(msgspec.Struct, tag_field="kind", tag="foreground_changed"):
    """Another session is in the foreground, or none."""

    session_id: str | None = None


class SessionsChanged(msgspec.Struct, tag_field="kind", tag="sessions_changed"):
    """The window's sessions are these now."""

    session_ids: list[str]


class Focused(msgspec.Struct, tag_field="kind", tag="focused"):
    """The window has the focus now."""


class CommandReply(msgspec.Struct, tag_field="kind", tag="command_reply"):
    """What came of a command."""

    id: str | int
    ok: bool
    result: Any = None
    reason: str | None = None
    message: str | None = None


Frame = Hello | CommandsChanged | ForegroundChanged | SessionsChanged | Focused | CommandReply

_KINDS = {"hello", "commands_changed", "foreground_changed", "sessions_changed", "focused", "command_reply"}


class _Kind(msgspec.Struct):
    kind: str


_read_kind = msgspec.json.Decoder(_Kind).decode
_read_frame = msgspec.json.Decoder(Frame).decode


def parse_frame(text: str) -> Frame | None:
    """Return what a window says; None for a kind that is not known, which a newer window may have.

    Raises:
        MalformedFrameError: It is not JSON, or not what its kind has to be.
    """
    try:
        if _read_kind(text).kind not in _KINDS:
            return None
        frame: Frame = _read_frame(text)
    except UNREADABLE as error:
        raise MalformedFrameError(str(error)) from error
    return frame


def command_request(
    number: str, command_id: str, arguments: Sequence[Any], name: str | None, version: str | None, deadline: float
) -> bytes:
    """Return the request to run a command.

    Args:
        number: The request's id.
        command_id: The command's.
        arguments: By position.
        name: The agent's name, if it told it.
        version: Its version.
        deadline: Seconds that the window has to answer.
    """
    agent = {member: value for member, value in (("name", name), ("version", version)) if value is not None}
    frame = {
        "kind": "command_request",
        "id": number,
        "command_id": command_id,
        "args": list(arguments),
        "agent": agent,
        "deadline_ms": round(deadline * 1000),
    }
    return msgspec.json.encode(frame)


@attrs.frozen
class _ClientsChanged:
    kind: str
    clients: tuple[McpClient, ...]


def clients_changed(clients: Sequence[McpClient]) -> bytes:
    """Return the news of which agents are there."""
    return to_json(_ClientsChanged("clients_changed", tuple(clients)))
