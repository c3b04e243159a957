"""Which server to talk to, however it was named: a URL, a socket, a connection file. [pure]"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

import attrs

from kallichore.config import is_sendable
from kallichore.errors import ConfigurationError

DEFAULT_URL = "http://localhost:8182"

_PAGES = {
    *("api", "lab", "tree", "notebooks", "doc", "edit", "view", "files", "consoles", "terminals", "login", "static"),
}
"""What begins the paths that a Jupyter server's pages have: an address pasted from a browser ends before these."""

_TOKEN_IN_PATH = "t"  # noqa: S105  # a part of a path, no password
"""What stands before a token in the path, as in the addresses that a Kallichore server takes."""

_SECRET = re.compile(r"(token=|/t/)[^&#/]*")


def _check_token(_address: object, _attribute: object, token: str | None) -> None:
    if token is not None and not is_sendable(token):
        # It is not repeated: it may be the right one but for the end of a line.
        raise ConfigurationError("The token has a character that no header can carry; use ASCII letters and digits")


@attrs.frozen
class Address:
    """A server's address and token. Set are ``host`` and ``port``, or ``socket_path``, or ``named_pipe``.

    Args:
        base_path: The path below which a Jupyter server's API is, without a slash at its end.
        scheme: How the Authorization header names the token.

    Raises:
        ConfigurationError: The token is none that can be sent.
    """

    host: str | None = None
    port: int | None = None
    socket_path: str | None = None
    named_pipe: str | None = None
    token: str | None = attrs.field(default=None, repr=False, validator=_check_token)
    base_path: str = ""
    scheme: str = "Bearer"

    @property
    def authority(self) -> str:
        """What goes into a Host header."""
        if self.host is None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.host is not None:
            return f"http://{self.authority}{self.base_path}"
        return f"unix:{self.socket_path}" if self.socket_path is not None else str(self.named_pipe)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that every request needs."""
        token = [] if self.token is None else [("authorization", f"{self.scheme} {self.token}")]
        return [("host", self.authority), *token]


def from_url(url: str, token: str | None = None, otherwise: str | None = None) -> Address:
    """Return the address of ``http://host:port``, or of a socket as ``unix:/path``.

    A Jupyter server's may be as a browser has it: below a path, with that of a page behind, and with ``?token=``.

    Args:
        url: What was given.
        token: The token; None for the one in the URL.
        otherwise: The token if there is none in the URL either.

    Raises:
        ConfigurationError: It is neither; the message has no token in it.
    """
    if url.startswith("unix:") and (path := url.removeprefix("unix:").removeprefix("//")):
        return Address(socket_path=path, token=otherwise if token is None else token)
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            base_path, in_url = _read_path(parts)
            token = (in_url or otherwise) if token is None else token
            return Address(host=parts.hostname, port=parts.port or 80, token=token, base_path=base_path)
    except ValueError:
        # A port that is no number, or a bracket that is not closed.
        pass
    shown = _SECRET.sub(r"\1...", url)
    raise ConfigurationError(f"{shown!r} is no server's address; use http://host:port or unix:/path")


def _read_path(parts: SplitResult) -> tuple[str, str | None]:
    """Return the base path of a URL, and the token that it has in its query or path."""
    token = parse_qs(parts.query).get("token", [None])[0]
    segments = [segment for segment in parts.path.split("/") if segment]
    for place, segment in enumerate(segments):
        if segment == _TOKEN_IN_PATH and segments[place + 1 :]:
            return _join(segments[:place]), token or unquote(segments[place + 1])
        if segment in _PAGES:
            return _join(segments[:place]), token
    return _join(segments), token


def _join(segments: list[str]) -> str:
    # What is quoted stays so.
    return "".join(f"/{quote(segment, safe='%~@:!$&()*+,;=')}" for segment in segments)


def from_connection_document(document: Mapping[str, Any]) -> Address:
    """Return the address in a connection file.

    Raises:
        ConfigurationError: It holds none that can be reached from here.
    """
    token = document.get("bearer_token")
    if url := document.get("base_path"):
        return from_url(str(url), token)
    if path := document.get("socket_path"):
        return Address(socket_path=str(path), token=token)
    if name := document.get("named_pipe"):
        return Address(named_pipe=str(name), token=token)
    raise ConfigurationError(f"A server on transport {document.get('transport')} cannot be reached from here")
