"""Who is let in: the bearer token, and on TCP the Host and the Origin. [pure]

The token says who may use the server at all. Host and Origin guard against a third party between: a web page that the
user visits can make the user's browser talk to 127.0.0.1 (cross-site requests, DNS rebinding), and a server without a
token would obey. Both are read by their grammar, whole: what only begins, or only ends, like this machine's name is
somebody's attempt.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
from collections.abc import Sequence
from http import HTTPStatus

TRUSTED_SCHEMES = frozenset({"vscode-file", "vscode-webview", "file"})
"""Origins of the IDE's own windows, which no web page can have."""

# RFC 3986, 3.2.2 and 3.2.3. What stands in brackets is looked at further by `ipaddress`; a later version of IP, which
# the grammar allows there, is none of this machine's addresses yet.
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|((?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*))(?::[0-9]*)?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


SUBPROTOCOL = "kallichore"
"""The WebSocket subprotocol that pages ask for: a browser gives up a connection on which none of its own is chosen."""

_TOKEN_SUBPROTOCOL = "kallichore.token."  # noqa: S105  # not a password


def authorization_of_page(subprotocols: str) -> str | None:
    """Return the ``Authorization`` that a page meant to send with a WebSocket, for which browsers have no way.

    It is one of the subprotocols that the page offers: a prefix, and the token as base64url without padding, as a
    token may have characters that subprotocols may not. Unlike an address, no log of a proxy has this header.

    Args:
        subprotocols: The ``Sec-WebSocket-Protocol``; may be empty.
    """
    offered = (each.strip() for each in subprotocols.split(","))
    given = next((each for each in offered if each.startswith(_TOKEN_SUBPROTOCOL)), None)
    if given is None:
        return None
    encoded = given.removeprefix(_TOKEN_SUBPROTOCOL)
    try:
        token = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode("ascii")
    except ValueError:
        return None
    return f"Bearer {token}"


def offers_ours(subprotocols: str) -> bool:
    """Tell whether our own is among the subprotocols that are offered."""
    return SUBPROTOCOL in (each.strip() for each in subprotocols.split(","))


def is_authorized(authorization: str | None, token: str | None) -> bool:
    """Tell whether a request's ``Authorization`` lets it in (RFC 6750, section 2.1). Takes the same time for any token.

    Args:
        authorization: The header, or None.
        token: The server's token; None lets everybody in, an empty one nobody.
    """
    if token is None:
        return True
    scheme, _, given = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return False
    given = given.strip()
    # An empty token, as of an empty file, lets nobody in: "Bearer" alone is no proof of anything.
    return given != "" and hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def host_of(authority: str) -> str | None:
    """Return the host of ``uri-host [":" port]`` (RFC 9110, 7.2), without brackets; it may be empty.

    None if this is no authority: one with a user or a path, for example, or with something behind a bracket.
    """
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return None
    if parts[1] is None:
        return parts[2].lower()
    try:
        return str(ipaddress.IPv6Address(parts[1]))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether a host is a loopback address of this machine or its name, localhost."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_source(hosts: Sequence[str], origins: Sequence[str]) -> HTTPStatus | None:
    """Tell whether a request over TCP comes from elsewhere than this machine's own programs and pages.

    Args:
        hosts: The values of its Host headers; none at all is fine, and so is an empty one.
        origins: The values of its Origin headers; programs send none.

    Returns:
        None if it may pass; 400 if a header comes twice or is not what RFC 9110 and RFC 6454 let it be; 403 if it names
        another machine.
    """
    if len(hosts) > 1 or len(origins) > 1:
        return HTTPStatus.BAD_REQUEST
    verdicts = {_refuse_host(host) for host in hosts} | {_refuse_origin(origin) for origin in origins}
    return min(verdicts - {None}, default=None, key=lambda status: status or 0)


def _refuse_host(host: str) -> HTTPStatus | None:
    name = host_of(host)
    if name is None:
        return HTTPStatus.BAD_REQUEST
    return None if name == "" or is_loopback(name) else HTTPStatus.FORBIDDEN


def _refuse_origin(origin: str) -> HTTPStatus | None:
    if origin == "null":
        return HTTPStatus.FORBIDDEN
    scheme, separator, authority = origin.partition("://")
    name = host_of(authority)
    if not separator or not _SCHEME.fullmatch(scheme) or name is None:
        return HTTPStatus.BAD_REQUEST
    return None if scheme.lower() in TRUSTED_SCHEMES or is_loopback(name) else HTTPStatus.FORBIDDEN
