"""Which server to talk to, however it was named: a URL, a socket, a connection file. [pure]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from kallichore.errors import ConfigurationError

DEFAULT_URL = "http://localhost:8182"


@attrs.frozen
class Address:
    """A server's address and token. Set are ``host`` and ``port``, or ``socket_path``, or ``named_pipe``."""

    host: str | None = None
    port: int | None = None
    socket_path: str | None = None
    named_pipe: str | None = None
    token: str | None = attrs.field(default=None, repr=False)

    @property
    def authority(self) -> str:
        """What goes into a Host header."""
        if self.host is None:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.host is not None:
            return f"http://{self.authority}"
        return f"unix:{self.socket_path}" if self.socket_path is not None else str(self.named_pipe)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers that every request needs."""
        token = [] if self.token is None else [("authorization", f"Bearer {self.token}")]
        return [("host", self.authority), *token]


def from_url(url: str, token: str | None = None) -> Address:
    """Return the address of ``http://host:port``, or of a socket as ``unix:/path``.

    Raises:
        ConfigurationError: It is neither.
    """
    if url.startswith("unix:") and (path := url.removeprefix("unix:").removeprefix("//")):
        return Address(socket_path=path, token=token)
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            return Address(host=parts.hostname, port=parts.port or 80, token=token)
    except ValueError:
        # A port that is no number, or a bracket that is not closed.
        pass
    raise ConfigurationError(f"{url!r} is no server's address; use http://host:port or unix:/path")


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
