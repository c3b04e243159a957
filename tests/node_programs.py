"""Programs in Node, for tests of what others' libraries do: installed from npm as a lock file says, and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

needs_node = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="there is no Node with npm here"
)

INSTALL_LIMIT = 120.0
"""Seconds; a Node of its own is fifty megabytes."""


def install(folder: Path) -> Path:
    """Return where the packages are that a folder's lock file names; what npm cannot install skips the test.

    They are installed once for each set of versions, and kept in the cache directory.
    """
    files = [folder / name for name in ("package.json", "package-lock.json")]
    content = b"".join(file.read_bytes() for file in files)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kallichore-node"
    place = cache / hashlib.sha256(content).hexdigest()[:16]
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache))
        for file in files:
            shutil.copy(file, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_LIMIT)
        if done.returncode:
            shutil.rmtree(made)
            pytest.skip(f"npm cannot install what is in {folder.name}: {done.stderr.strip().splitlines()[-1:]}")
        try:
            made.rename(place)
        except OSError:
            # Another run was faster.
            shutil.rmtree(made)
    return place / "node_modules"
