"""Images of a MIME bundle, and terminals that can show images: what is what. [pure]"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/svg+xml": ".svg"}
"""The kinds of images that become files, the best first, and how their files end."""

SWITCH = "KALLICHORE_IMAGES"
"""The variable that says whether a terminal is to be shown images: 1, or 0 for never."""

_TERMINALS = {
    "TERM_PROGRAM": {"iTerm.app", "WezTerm", "ghostty", "mintty", "contour"},
    "TERM": {"xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "mlterm", "wezterm", "contour", "yaft-256color"},
}
"""Variables, and their values in terminals that have one of kitty's protocol and sixel. iTerm2 has sixel as well."""

_MARKS = ("KITTY_WINDOW_ID", "KONSOLE_VERSION", "WEZTERM_PANE")
"""Variables that only such terminals set."""


def image_of(bundle: Mapping[str, Any]) -> tuple[str, bytes] | None:
    """Return the suffix and the content of the best image in a MIME bundle; None if there is none, or a broken one."""
    for kind, suffix in SUFFIXES.items():
        data = bundle.get(kind)
        if data is None:
            continue
        text = "".join(data) if isinstance(data, list) else str(data)
        if suffix == ".svg":
            return suffix, text.encode("utf-8", "replace")
        try:
            return suffix, base64.b64decode(text)
        except (binascii.Error, ValueError):
            continue
    return None


def file_name(number: int, suffix: str) -> str:
    """Return the name of the image with this number, the first being 1; in a listing they are in order."""
    return f"image-{number:03}{suffix}"


def may_show_images(environ: Mapping[str, str]) -> bool:
    """Tell whether a terminal with these variables can be expected to show images, and is to.

    Inside of tmux and screen, which pass on nothing of it, none can.
    """
    if SWITCH in environ:
        return environ[SWITCH] not in ("", "0")
    if "TMUX" in environ or environ.get("TERM", "").startswith(("screen", "tmux")):
        return False
    known = any(environ.get(name) in values for name, values in _TERMINALS.items())
    return known or any(mark in environ for mark in _MARKS)
