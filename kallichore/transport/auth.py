"""Who is let in: the bearer token, and on TCP the Host and the Origin. [pure]

The token says who may use the server at all. Host and Origin guard against a third party between: a web page that the
user visits can make the user's browser talk to 127.0.0.1 (cross-site requests, DNS rebinding), and a server without a
token would obey.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

TRUSTED_SCHEMES = frozenset({"vscode-file", "vscode-webview", "file"})
"""Origins of the IDE's own windows, which no web page can have."""


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


def is_loopback(authority: str | None) -> bool:
    """Tell whether ``name:port`` names this machine by its loopback address or as localhost."""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_same_machine(host: str | None, origin: str | None) -> bool:
    """Tell whether a request over TCP comes from this machine's own programs and pages; missing headers are fine."""
    if host and not is_loopback(host):
        return False
    if not origin or origin.partition("://")[0] in TRUSTED_SCHEMES:
        return True
    return is_loopback(origin.partition("://")[2])
