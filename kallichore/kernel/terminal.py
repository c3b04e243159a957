"""The controlling terminal of this process, which kernels must not have.

A kernel's programs ask at `/dev/tty` for passwords (ssh, sudo, getpass). If that is the terminal that the server was
started at, they are stopped, as they are not in the foreground there. A process group of its own does not keep a kernel
from that terminal, a session of its own does. But Linux shares processors out among sessions (sched(7), autogroup), and
a kernel in one of its own loses output on a busy machine; `docs/explanation/decisions.md` has the figures. So a server
that has a terminal only because it was started there lets go of it, and then a group of its own is enough.
"""

from __future__ import annotations

import errno
import os
import sys

_TERMINAL = "/dev/tty"

_NO_TERMINAL = frozenset({errno.ENXIO, errno.ENODEV, errno.ENOENT})


def has_controlling_terminal() -> bool:
    """Tell whether this process, and so what it starts, has a controlling terminal; True if that cannot be told."""
    if sys.platform == "win32":
        return False
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _NO_TERMINAL
    return True


def drop_controlling_terminal() -> bool:
    """Let go of the controlling terminal, for this process and what it starts from now on; return whether it did.

    Ctrl-C and the end of the terminal still reach it, as they go to the foreground's process group. A session's leader
    keeps its terminal: if that one lets go of it, everybody in the foreground is sent SIGHUP.
    """
    if sys.platform == "win32" or os.getsid(0) == os.getpid():
        return False
    import fcntl
    import termios

    try:
        descriptor = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, termios.TIOCNOTTY)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
