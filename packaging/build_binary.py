"""Make one self-contained kcserver in dist/, for the system that this runs on: ``python packaging/build_binary.py``.

Further arguments are PyInstaller's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import PyInstaller.__main__

PROJECT = Path(__file__).parents[1]

UNUSED = ("IPython", "ipykernel", "prompt_toolkit", "tkinter", "hypothesis", "mcp", "pytest")
"""What others' modules import if it is there, and the server has no use for."""


def options() -> list[str]:
    """Return PyInstaller's arguments."""
    data = [(PROJECT / "kallichore.json", "kallichore")]
    data += [(path, "kallichore/host") for path in sorted((PROJECT / "kallichore" / "host").glob("[a-z]*.py"))]
    return [
        *("--onefile", "--name", "kcserver", "--noconfirm", "--log-level", "WARN"),
        *("--collect-submodules", "kallichore", "--collect-data", "kallichore"),
        *(f"--add-data={path}{os.pathsep}{target}" for path, target in data),
        *(f"--exclude-module={name}" for name in UNUSED),
        *("--distpath", str(PROJECT / "dist"), "--workpath", str(PROJECT / "build")),
        *("--specpath", str(PROJECT / "build")),
        str(PROJECT / "packaging" / "kcserver.py"),
    ]


if __name__ == "__main__":
    PyInstaller.__main__.run([*options(), *sys.argv[1:]])
