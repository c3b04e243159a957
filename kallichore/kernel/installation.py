"""Whether what a kernel is started from is still what it was: its program, the packages beside it, its directory.

A process that was started before packages were installed has modules of the ones before in memory, and would load
others of the new ones. What can be told at a glance is looked at: the dates of a few files and directories, a few
microseconds each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs

PACKAGES = ("pyvenv.cfg", "conda-meta", "lib/python*/*-packages", "lib/R/library")
"""Where things are installed for the programs of a ``bin``, beside which these are: a directory's date is that of the
latest thing that came to it or went."""


@attrs.frozen
class Installation:
    """What one kernel is started from. Made by `find_installation`."""

    _paths: Sequence[str]
    _directory: str

    def look(self) -> tuple[object, ...]:
        """Return what it is like now: it is the same as long as this is equal. What is not there is None."""
        found: list[object] = []
        for path in self._paths:
            for read in (os.lstat, os.stat):
                found.append(None)
                with suppress(OSError, ValueError):
                    status = read(path)
                    found[-1] = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        # What is in the directory changes all the time. That it was deleted and made again is something else.
        with suppress(OSError, ValueError):
            status = os.stat(self._directory)
            found.append((status.st_dev, status.st_ino))
        return tuple(found)


def find_installation(program: str, environment: Mapping[str, str], directory: str) -> Installation:
    """Find what a kernel is started from.

    Args:
        program: Its program, as a command line names it.
        environment: Its environment, in whose PATH that is.
        directory: Where it starts.
    """
    place = shutil.which(program, path=environment.get("PATH")) or program
    prefix = Path(place).parent.parent
    packages: list[str] = []
    for pattern in PACKAGES:
        with suppress(OSError, ValueError):
            packages += map(str, prefix.glob(pattern))
    return Installation((place, *sorted(packages)), directory)
