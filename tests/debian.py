"""Programs that tests need and that are Debian's packages: ``python tests/debian.py PROGRAM=PACKAGE ...``.

What is missing is installed where root may; else a line says why it is not there. The exit code is 77 then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

INSTALL_LIMIT = 300
"""Seconds for packages, which may be 200 MB."""

MISSING = 77


class Missing(Exception):
    """Something is not there, and cannot be had; the text says why."""


def get_packages(what: str, packages: Sequence[str], is_there: Callable[[], bool]) -> None:
    """See that something is there; where root may, install it.

    Raises:
        Missing: It is not, and cannot be had.
    """
    if is_there():
        return
    if not shutil.which("apt-get"):
        raise Missing(f"{what} is not installed, and there is no apt-get to install it with")
    if os.geteuid() != 0:
        command = f"apt-get install --no-install-recommends {' '.join(packages)}"
        raise Missing(f"{what} is not installed; as root: {command}")
    for words in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", *packages)):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            subprocess.run(
                ["apt-get", *words], check=True, timeout=INSTALL_LIMIT, env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            raise Missing(f"{what} is not installed, and apt-get {words[0]} failed: {error}") from error
    if not is_there():
        raise Missing(f"Debian's packages brought no {what}: {' '.join(packages)}")


def main() -> int:
    """Get the programs that are named, and say which cannot be had."""
    code = 0
    for program, _, package in (word.partition("=") for word in sys.argv[1:]):
        try:
            get_packages(program, [package], lambda name=program: shutil.which(name) is not None)
        except Missing as reason:
            print(reason)
            code = MISSING
    return code


if __name__ == "__main__":
    sys.exit(main())
