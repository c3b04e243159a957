"""The head of an HTTP request, read just far enough to send its connection the right way. [pure]

What the head means in full is hypercorn's business; the front door needs the method, the path and a few headers, and
the channel sockets, on which only WebSocket upgrades arrive, need little more.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha1
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs

from kallichore.errors import BadPathError

LONGEST_HEAD = 1 << 18
"""Bytes of a request head at most: the API promises that a header of 64 kB is fine."""

_END = re.compile(rb"\n\r?\n")
"""As h11 has it: where we and hypercorn did not agree on where a head ends, a body could pass for a request."""

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


_FIRST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) (HTTP/[0-9]\.[0-9])")
"""Method, target and version as h11 lets them be: what is decided here is decided about a request."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNFIT_FOR_A_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class MalformedHeadError(ValueError):
    """A header is not what RFC 9112 lets it be: folded over two lines, for one. Readers could differ about it."""


@attrs.frozen
class RequestHead:
    """A request's first line and headers.

    Attributes:
        method: As sent.
        target: The path and query, as sent.
        version: ``HTTP/`` and two numbers.
        fields: Names, in lower case, and values, in their order.
    """

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    headers: dict[str, str] = attrs.field(init=False, eq=False, repr=False)
    """The headers by name; of repeated ones the first counts."""

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "headers", dict(reversed(self.fields)))

    def all(self, name: str) -> list[str]:
        """Return the values of a header, however often it comes."""
        return [value for field, value in self.fields if field == name]

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
    def subprotocols(self) -> str:
        """The WebSocket subprotocols that are offered, in one line; empty where this asks for no WebSocket."""
        return ",".join(self.all("sec-websocket-protocol")) if self.asks_for_websocket else ""

    @property
    def asks_for_websocket(self) -> bool:
        """Whether this is the opening of a WebSocket (RFC 6455, 4.1). HTTP/1.0 cannot upgrade (RFC 9110, 7.8)."""
        if self.version == "HTTP/1.0" or not speaks_http_1(self.version):
            return False
        tokens = {token.strip() for token in self.headers.get("connection", "").lower().split(",")}
        return self.method == "GET" and "upgrade" in tokens and self.headers.get("upgrade", "").lower() == "websocket"


def speaks_http_1(version: str) -> bool:
    """Tell whether a request's version is spoken here: HTTP/1.0, HTTP/1.1, and what may follow it (RFC 9110, 2.5)."""
    return version.startswith("HTTP/1.")


def parse_head(data: bytes) -> tuple[RequestHead, bytes] | None:
    """Split what arrived into a head and the bytes behind it; None while it is not complete, or begins as no request.

    Raises:
        MalformedHeadError: A header is none.
    """
    end = _END.search(data)
    if end is None:
        return None
    first, *lines = (line.removesuffix("\r") for line in data[: end.start()].decode("latin-1").split("\n"))
    request = _FIRST_LINE.fullmatch(first)
    if request is None:
        return None
    method, target, version = request.groups()
    return RequestHead(method, target, version, tuple(map(_parse_field, lines))), data[end.end() :]


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name) or _UNFIT_FOR_A_VALUE.search(value):
        raise MalformedHeadError(f"{name[:80]!r} is no header's name, or its value is none")
    return name.lower(), value.strip(" \t")


def refusal(
    status: HTTPStatus, message: str = "", *, code: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a whole response that ends the connection.

    Args:
        status: Its status.
        message: What it says, to people.
        code: The same for programs: with it, the body is an error of the API.
        headers: More headers.
    """
    document = json.dumps({"code": code, "message": message}, ensure_ascii=False) if code else message
    body = document.encode("utf-8", "replace")
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {text}" for name, text in (headers or {}).items())]
    if body and "content-type" not in (headers or {}):
        lines.append("content-type: application/json" if code else "content-type: text/plain; charset=utf-8")
    lines += [f"content-length: {len(body)}", "connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


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


def is_channels_path(path: str) -> bool:
    """Tell whether this is ``/sessions/{id}/channels``."""
    return channels_session(path) is not None


def accept_token(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key`` (RFC 6455, section 4.2.2)."""
    return b64encode(sha1(key.encode("latin-1") + _WEBSOCKET_GUID, usedforsecurity=False).digest()).decode()
