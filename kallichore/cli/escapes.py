"""Text of others, made fit for a terminal: what could act there is shown as an escape instead. [pure]

Session ids, error texts and what kernels print come from others. ESC begins commands to the terminal (its title, its
clipboard, what it shows), a line end begins a line that somebody else seems to have written, and some characters turn
around the order of what is read.
"""

from __future__ import annotations

import re

_BIDIRECTIONAL = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\u2028\u2029"
# Line feeds and tabs are left out: see below. Surrogates stand alone only where text was no text.
_ACTING = f"\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f{_LINE_ENDS}{_BIDIRECTIONAL}\\ud800-\\udfff"

_IN_LINES = re.compile(f"[{_ACTING}]")
_IN_ONE_LINE = re.compile(f"[{_ACTING}\\n]")
# CSI, numbers, m: colours, bold and the like (ECMA-48, SGR).
_COLOUR_OR_ACTING = re.compile(f"(\\x1b\\[[0-9;:]*m)|[{_ACTING}]")

_HARMLESS_MOVES = frozenset("\r\b")
"""What progress bars go back with, within their line."""


def one_line(text: str) -> str:
    """Return text in which nothing acts on a terminal or ends the line; tabs stay."""
    return _IN_ONE_LINE.sub(_escape, text)


def lines(text: str) -> str:
    """Return text in which nothing acts on a terminal; its line feeds and tabs stay."""
    return _IN_LINES.sub(_escape, text.replace("\r\n", "\n"))


def coloured(text: str) -> str:
    """Return what executed code printed: it may colour, go back within its line, and no more."""
    return _COLOUR_OR_ACTING.sub(_escape_but_colours, text)


def _escape_but_colours(found: re.Match[str]) -> str:
    return found[0] if found[1] or found[0] in _HARMLESS_MOVES else _escape(found)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    short = {"\n": "\\n", "\r": "\\r"}.get(character)
    if short is not None:
        return short
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
