"""The head of an HTTP request, read just far enough to send its connection the right way. [pure]

What the head means in full is hypercorn's business; the front door needs the method, the path and a few headers, and
the channel sockets, on which only WebSocket upgrades arrive, need little more.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs

from kallichore.errors import BadPathError

LONGEST_HEAD = 1 << 18
"""Bytes of a request head at most: the API promises that a header of 64 kB is fine."""

_END = re.compile(rb"\n\r?\n")
"""As h11 has it: where we and hypercorn did not agree on where a head ends, a body could pass for a request."""

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@attrs.frozen
class RequestHead:
    """A request's first line and headers; names are lower case, of repeated headers the first counts."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path as sent, still percent-encoded, without query and fragment."""
        path = self.target.partition("?")[0].partition("#")[0]
        if not path.startswith("/") and "://" in path:
            path = "/" + path.partition("://")[2].partition("/")[2]
        return path

    @property
    def query(self) -> dict[str, str]:
        """The parameters behind the path, decoded; of repeated ones the last counts."""
        return dict(parse_qsl(self.target.partition("#")[0].partition("?")[2], keep_blank_values=True))

    @property
    def asks_for_websocket(self) -> bool:
        """Whether this is the opening of a WebSocket (RFC 6455, section 4.1)."""
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return self.method == "GET" and "upgrade" in tokens and self.headers.get("upgrade", "").lower() == "websocket"


def parse_head(data: bytes) -> tuple[RequestHead, bytes] | None:
    """Split what arrived into a head and the bytes behind it; None while the head is not complete, or is not one."""
    end = _END.search(data)
    if end is None:
        return None
    first, *lines = (line.removesuffix("\r") for line in data[: end.start()].decode("latin-1").split("\n"))
    words = first.split(" ")
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return RequestHead(words[0], words[1], headers), data[end.end() :]


def decode_segment(segment: str) -> str:
    """Percent-decode one part of a path; sequences that are no escapes are left alone.

    Raises:
        BadPathError: The escapes decode to something that is not UTF-8.
    """
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise BadPathError(f"The path segment {segment!r} does not decode to UTF-8") from None


def channels_session(path: str) -> str | None:
    """Return the still encoded session id of ``/sessions/{id}/channels``, or None if this is another path."""
    parts = path.split("/")
    if len(parts) == 4 and parts[0] == "" and parts[1] == "sessions" and parts[2] and parts[3] == "channels":
        return parts[2]
    return None


def accept_token(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455, section 4.2.2)."""
    return b64encode(sha1(key.encode("latin-1") + _WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
