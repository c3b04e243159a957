"""Where a kernel's process is: its current directory, as the system tells it.

Not on Windows, where no process can be asked for another's directory without debugging it.
"""

from __future__ import annotations

import os
import sys


def read_working_directory(pid: int) -> str | None:
    """Return the current directory of process ``pid``, or None where it cannot be told."""
    if sys.platform == "linux":
        try:
            return os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            return None
    if sys.platform == "darwin":
        import psutil

        try:
            return psutil.Process(pid).cwd()
        except psutil.Error:
            return None
    return None
