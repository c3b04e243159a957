"""The command line that starts a batch file on Windows. [pure]

Windows has cmd.exe run ``.bat`` and ``.cmd`` files, and cmd.exe reads a command line by rules of its own: an argument
such as ``a&b``, as any program may be given it, would run ``b``. So we start cmd.exe ourselves, with every argument in
quotes, and refuse what no quotes protect. Source: Microsoft's documentation of cmd, and of how programs in C read their
arguments.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Sequence

_UNPROTECTED = re.compile(r"[%\r\n\0]")
"""Variables are put in wherever they are named, and a line ends where it ends, within quotes too."""

_BEFORE_A_QUOTE = re.compile(r'(\\*)("|\Z)')
"""Backslashes that a program would take for a part of the quote behind them."""


def is_batch_file(program: str) -> bool:
    """Whether it is cmd.exe that runs this program. Windows passes over spaces and dots at the end of a name."""
    return ntpath.splitext(program.rstrip(" ."))[1].lower() in (".bat", ".cmd")


def batch_command_line(argv: Sequence[str], shell: str) -> str:
    """Return the command line with which a batch file gets these arguments, as programs that it calls with ``%*`` read
    them.

    Args:
        argv: The batch file and its arguments.
        shell: Where cmd.exe is.

    Raises:
        ValueError: There is something in them that cmd.exe would change.
    """
    for argument in argv:
        if odd := _UNPROTECTED.search(argument):
            raise ValueError(f"it is a batch file, and {odd[0]!r} cannot be passed to one (in {argument!r})")
    quoted = " ".join(map(_quote, argv))
    # Nothing that a user has configured runs first (/d), and "!" is only a letter (/v:off). With /s, the first quote
    # and the last are taken away, and nothing else.
    return f'"{shell}" /d /e:on /v:off /s /c "{quoted}"'


def _quote(argument: str) -> str:
    escaped = _BEFORE_A_QUOTE.sub(lambda found: found[1] * 2 + found[2] * 2, argument)
    return f'"{escaped}"'
