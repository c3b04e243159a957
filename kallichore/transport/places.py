"""Whether a directory will do for sockets. [pure]

A socket's path is put into addresses by clients, and URL encoding changes what is not plain; the system bounds its
length. That a directory is there and can be written to shows when something is made in it.
"""

from __future__ import annotations

import posixpath
import re
import sys

LONGEST_SOCKET_PATH = 103
"""Bytes of a Unix socket's path at most, on macOS; Linux has four more."""

LONGEST_NAME = len("/kc-1234567-abcdefgh") + len("/") + 24 + len(".sock")
"""Bytes that are put behind the chosen directory at most: the server's own directory, and in it a session's socket."""

_PLAIN = re.compile(r"[A-Za-z0-9._~/-]*")
"""What URL encoding leaves as it is (RFC 3986, 2.3), and the slash."""


def why_unfit(directory: str, size: int, platform: str = sys.platform) -> str | None:
    """Return why sockets cannot be in ``directory``, as the end of a sentence; None if their paths will do.

    Args:
        directory: The path.
        size: How many bytes it has, as the system encodes it.
        platform: As ``sys.platform``. Windows has pipes in place of sockets, and any directory will do there.
    """
    if platform == "win32":
        return None
    if not posixpath.isabs(directory):
        return "no absolute path"
    if size + LONGEST_NAME > LONGEST_SOCKET_PATH:
        return "too long for sockets"
    odd = _PLAIN.sub("", directory)
    if odd:
        return f"clients could not put {odd[0]!r} into an address"
    return None
