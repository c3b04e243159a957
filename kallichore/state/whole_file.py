"""Small files that are replaced as a whole: whoever reads one finds the old or the new, also after a kill."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SUFFIX = ".new"
"""What the name of a file ends with until it is whole."""

_BINARY = getattr(os, "O_BINARY", 0)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file for its owner only, in the place of what was there.

    Raises:
        OSError: It could not be written; what was there is there still.
    """
    new = path.with_name(path.name + SUFFIX)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def clear_unfinished(directory: Path) -> None:
    """Remove what a process that was killed while it wrote left in a directory."""
    for path in directory.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            path.unlink()
