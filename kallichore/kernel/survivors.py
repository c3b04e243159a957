"""Processes of a kernel's group that may not be signalled, behind ``sudo`` for one: which they are, for people who can
end them.
"""

from __future__ import annotations

import os
import sys


def describe_survivors(group: int) -> str | None:
    """Return, as a sentence, which processes of a group this server may not signal; None if there are none."""
    if sys.platform == "win32" or os.geteuid() == 0:
        return None
    import psutil

    found = [_describe(pid) for pid in psutil.pids() if _is_out_of_reach(pid, group)]
    return "Not permitted to end " + " and ".join(found) if found else None


def _is_out_of_reach(pid: int, group: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        if os.getpgid(pid) != group:
            return False
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        # It has ended meanwhile.
        pass
    return False


def _describe(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return f"process {pid} ({process.name()}, of user {process.username()})"
    except psutil.Error:
        return f"process {pid}"
