"""The files of the page: under which paths they are, and what a browser is told about each.

All but the page itself are below a path that names their contents, so that a browser keeps them for good, and gets new
ones with a new version. They refer to each other by relative addresses, which hold below any path.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

import attrs

PLACE = Path(__file__).with_name("static")

PAGE, FRAME = "index.html", "frame.html"

_MARK = b"HASH"
"""Stands in the page for the name of the path that the other files are below."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by its ending; licences lie beside it and are not."""

_COMMON = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What the page may do. Nothing comes from elsewhere nor goes there; what is not a file of this server is no script."""

FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""What the HTML that a kernel shows may do, in a frame of its own. Its scripts run, as plots need them, in an origin
that is nobody's: the page, its storage and its token are out of their reach, and so is every other machine."""

_FOR_GOOD = "public, max-age=31536000, immutable"


@attrs.frozen
class File:
    """One file, ready to be sent."""

    content: bytes
    headers: Mapping[str, str]


@cache
def load_files() -> Mapping[str, File]:
    """Return the files by their paths."""
    contents = {path.name: path.read_bytes() for path in sorted(PLACE.iterdir()) if path.suffix in _TYPES}
    digest = sha256()
    for name, content in contents.items():
        digest.update(b"%s %d " % (name.encode(), len(content)) + content)
    version = digest.hexdigest()[:16]
    page = contents.pop(PAGE).replace(_MARK, version.encode())
    files = {f"/dashboard/{version}/{name}": _file(name, content, _FOR_GOOD) for name, content in contents.items()}
    return {"/": _file(PAGE, page, "no-cache"), **files}


def _file(name: str, content: bytes, keep: str) -> File:
    headers = {
        "content-type": _TYPES[Path(name).suffix],
        "content-length": str(len(content)),
        "cache-control": keep,
        "content-security-policy": FRAME_POLICY if name == FRAME else POLICY,
        **_COMMON,
    }
    return File(content, headers)
