"""Who may open a file, as each system tells it. For tests."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path


def is_for_owner_only(path: Path) -> bool:
    """Return whether nobody but its owner may open a file. (Wine adds the system itself to those who may.)"""
    if sys.platform == "win32":
        import msvcrt

        from kallichore.transport.windows_security import access_list, user_sid

        with path.open("rb") as file:
            allowed = access_list(msvcrt.get_osfhandle(file.fileno()), is_file=True)
        return {user_sid()} == {*re.findall(r"\(A;\w*;\w+;;;([^)]+)\)", allowed)} - {"SY"}
    return stat.S_IMODE(path.stat().st_mode) == 0o600
