"""What a server that was killed left behind, if its watchdog was killed with it: found and removed by the next one.

Each server's private directory has a lock that is held as long as the server lives, and lists its kernels. A process
id alone would not do: numbers are used again, and are others in another container that shares the directory. So a lock
that can be had means that its server is gone, and a listed kernel is one only if it was started at the time noted.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK, _KERNELS = "lock", "kernels"

_DIRECTORY = re.compile(r"kc-[0-9]+-\w+")
_SOCKET = re.compile(r"kc-[0-9]+-\w+\.sock")


def _start_time(pid: int) -> str | None:
    """Return when a process was started, in the machine's ticks; None if that is not told, or it is gone."""
    with suppress(OSError, IndexError):
        # The name, in parentheses, may have anything in it; the start time is the 22nd field.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None


@contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
    """Hold the lock that says that the server of this directory lives; it is let go however the process ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    new = directory / f"{_LOCK}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Nobody sees it before it is held.
        os.rename(new, directory / _LOCK)
        yield
    finally:
        os.close(descriptor)


def record_kernel(directory: Path, pid: int) -> None:
    """List a kernel's process, which leads its group, in the server's directory."""
    started = _start_time(pid)
    if started is None:
        return
    with suppress(OSError):
        descriptor = os.open(directory / _KERNELS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "w") as file:
            file.write(f"{pid} {started}\n")


def clear_leftovers(parent: Path) -> None:
    """End the kernels and remove the files and sockets of servers that are gone, of this user and in this directory."""
    if sys.platform == "win32":
        return
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith("kc-")]
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            if entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            if _DIRECTORY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _clear_directory(Path(entry.path))
            elif _SOCKET.fullmatch(entry.name) and _is_deserted(entry.path):
                os.unlink(entry.path)


def _clear_directory(directory: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    descriptor = os.open(directory / _LOCK, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _end_kernels(directory)
        shutil.rmtree(directory, ignore_errors=True)
        logger.warning("Removed what a server that was killed had left behind: %s", directory)
    finally:
        os.close(descriptor)


def _end_kernels(directory: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        lines = (directory / _KERNELS).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        pid, _, started = line.partition(" ")
        if pid.isdecimal() and _start_time(int(pid)) == started:
            with suppress(OSError):
                os.killpg(int(pid), signal.SIGKILL)
                logger.warning("Ended kernel process %s, whose server was killed", pid)


def _is_deserted(path: str) -> bool:
    if sys.platform == "win32":
        return False
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
