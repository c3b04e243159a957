"""The number that changes most often, in a page of memory that outlives the process.

What a client confirms is noted with each of its pongs, and is one number: up to where it has everything. A write for
each would cost more than all else that a pong leads to; a store into a mapped file costs nothing, and the system keeps
the page when the process is killed.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from struct import Struct

NAME = "confirmed"

_NUMBER = Struct("<QQ")
"""The number, and the same with all bits turned: a page that says anything else says nothing."""

_ALL = (1 << 64) - 1


def _read(page: bytes | mmap.mmap) -> int:
    number, turned = _NUMBER.unpack_from(page)
    return int(number) if number ^ turned == _ALL else 0


def read_confirmed(directory: Path) -> int:
    """Return the number in a session's page, for somebody who only looks; 0 where there is none."""
    try:
        return _read((directory / NAME).read_bytes()[: _NUMBER.size].ljust(_NUMBER.size, b"\0"))
    except OSError:
        return 0


class ConfirmedPage:
    """The page of one session, made if it is not there.

    Args:
        directory: The session's.

    Raises:
        OSError: It could not be made.
    """

    def __init__(self, directory: Path) -> None:
        descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            found = file.read(_NUMBER.size)
            # Not a hole: a full disk would end the process at the first store.
            file.write(bytes(_NUMBER.size - len(found)))
            self._page = mmap.mmap(file.fileno(), _NUMBER.size)

    @property
    def number(self) -> int:
        """The latest number; 0 where there is none, or it was damaged."""
        return _read(self._page)

    def note(self, number: int) -> None:
        """Keep a number in the place of the one before."""
        _NUMBER.pack_into(self._page, 0, number, number ^ _ALL)

    def close(self) -> None:
        """Let go of the page; what it says stays. Idempotent."""
        self._page.close()
