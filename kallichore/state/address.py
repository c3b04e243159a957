"""Where the server of a state directory is reached: the next one is reached there too, by those who have its token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from kallichore.config import ServerConfig, is_made
from kallichore.state.whole_file import replace_file

_NAME = "address.json"


def write_address(directory: Path, document: dict[str, Any]) -> None:
    """Note where a server is reached, for its owner only.

    Args:
        directory: Its state directory.
        document: A connection document, see `kallichore.transport.connection_file`.

    Raises:
        OSError: It could not be written.
    """
    replace_file(directory / _NAME, json.dumps(document).encode())


def read_address(directory: Path) -> dict[str, Any]:
    """Return what `write_address` was given; empty where there is none, or it cannot be read."""
    try:
        document = json.loads((directory / _NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def go_on_at_the_same_address(config: ServerConfig) -> ServerConfig:
    """Return settings by which a server is reached where the one before was; what was chosen stays as it was chosen."""
    known = {} if config.state_directory is None else read_address(config.state_directory)
    changes: dict[str, Any] = {}
    if is_made(config.token) and known.get("bearer_token"):
        changes["token"] = known["bearer_token"]
    if known.get("transport") == config.transport:
        if config.transport == "tcp" and not config.port and isinstance(known.get("port"), int):
            changes["port"] = known["port"]
        if config.transport == "socket" and config.unix_socket is None and known.get("socket_path"):
            changes["unix_socket"] = Path(known["socket_path"])
    return attrs.evolve(config, **changes)
