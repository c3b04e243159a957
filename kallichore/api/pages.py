"""What browsers get: the API's description, and a page that shows it and tries it.

It is open to everybody who reaches the server, as there is nothing in it that is not in the package; what is tried on
it needs the token as always. The page loads nothing from elsewhere, and its policy does not let it. What shows the
description is RapiDoc, one file beside its licence in ``page/``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import attrs
import trio
from quart import Response

from kallichore.errors import NoSuchPathError

PACKAGE = Path(__file__).parents[1]
PLACE = Path(__file__).with_name("page")

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""RapiDoc writes its styles into its elements; everything else comes from this server, or does not come."""


@attrs.frozen
class Page:
    """One file, and where it may be.

    Args:
        content_type: What it is.
        places: Where it is: the first of these that is there.
    """

    content_type: str
    places: tuple[Path, ...]

    async def answer(self) -> Response:
        """Return it.

        Raises:
            NoSuchPathError: It was not installed.
        """
        content = await trio.to_thread.run_sync(_read, self.places)
        return Response(content, content_type=self.content_type, headers=_HEADERS)


PAGES = {
    "/docs": Page("text/html; charset=utf-8", (PLACE / "index.html",)),
    "/docs/rapidoc-min.js": Page("text/javascript; charset=utf-8", (PLACE / "rapidoc-min.js",)),
    "/docs/page.css": Page("text/css; charset=utf-8", (PLACE / "page.css",)),
    # In a clone it is beside the package.
    "/kallichore.json": Page("application/json", (PACKAGE / "kallichore.json", PACKAGE.parent / "kallichore.json")),
}
"""By their paths. All of them are for GET, without the token."""


@cache
def _read(places: tuple[Path, ...]) -> bytes:
    for place in places:
        if place.is_file():
            return place.read_bytes()
    raise NoSuchPathError("This page was not installed with the server")
