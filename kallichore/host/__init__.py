"""The program beside a kernel, which outlives servers. It is found here by its path, and imported by nobody.

`kallichore/host/host.py` is one file of the standard library's Python, 3.8 or later, so that it can be started wherever
a kernel can: beside a server, by a batch script, at the other end of an SSH connection.
"""

from __future__ import annotations

from pathlib import Path

HOST_PROGRAM = Path(__file__).with_name("host.py")
"""The program, to be run as ``python -I -S``."""
