"""Programs that run beside kernels and outlive servers: found here by their paths, imported by nobody. [pure]

Each is one file of the standard library's Python, 3.8 or later, so that it can be started wherever a kernel can: beside
a server, by a batch script, at the other end of an SSH connection.
"""

from __future__ import annotations

from pathlib import Path

HOST_PROGRAM = Path(__file__).with_name("host.py")
"""A kernel's parent, to be run as ``python -I -S``."""

DIAL_PROGRAM = HOST_PROGRAM.with_name("dial.py")
"""What connects to a server from where the server cannot connect to, a part of the program above."""

RELAY_PROGRAM = HOST_PROGRAM.with_name("relay.py")
"""What carries standard input and output to a host's socket, to be run with that one's path."""

ERRANDS_PROGRAM = HOST_PROGRAM.with_name("errands.py")
"""What is done on another machine by a command of a moment."""
