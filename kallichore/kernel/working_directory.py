"""Directories as kernels have them: where a kernel's process is, as the system tells it, and which can be entered.

Where a process is cannot be told on Windows, where nobody can be asked for that without debugging it.
"""

from __future__ import annotations

import os
import sys

DELETED = " (deleted)"
"""What Linux puts behind the path of a directory that is gone (proc(5)); it may be the end of a name as well."""


def can_enter(path: str) -> bool:
    """Return whether ``path`` is a directory in which this user can start a process."""
    return os.path.isdir(path) and os.access(path, os.X_OK)


def current_directory() -> str:
    """Return the server's own directory; one that was deleted, or may not be read, is ``.``: what is relative to it is
    nowhere.
    """
    try:
        return os.getcwd()
    except OSError:
        return os.curdir


def read_working_directory(pid: int) -> str | None:
    """Return the current directory of process ``pid``; None where it cannot be told, or is there no more.

    One that was deleted and made again is told: the path is right, though the process is not in what is there now.
    """
    if sys.platform == "linux":
        link = f"/proc/{pid}/cwd"
        try:
            path = os.readlink(link)
        except OSError:
            return None
        if not path.endswith(DELETED) or _are_one(link, path):
            return path
        return _if_there(path.removesuffix(DELETED))
    if sys.platform == "darwin":
        import psutil

        try:
            return _if_there(psutil.Process(pid).cwd())
        except psutil.Error:
            return None
    return None


def _are_one(link: str, path: str) -> bool:
    try:
        return os.path.samefile(link, path)
    except OSError:
        return False


def _if_there(path: str) -> str | None:
    return path if os.path.isdir(path) else None
