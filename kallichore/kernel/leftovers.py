"""What a server that was killed left behind, if its watchdog was killed with it: found and removed by the next one.

Each server's private directory has a lock that is held as long as the server lives, and lists its kernels. A process
id alone would not do: numbers are used again, and are others in another container that shares the directory. So a lock
that can be had means that its server is gone, and a listed kernel is one only if it was started at the time noted.

On Windows a kernel never outlives its server (`kallichore.kernel.windows`), so only files are left; and nobody can
remove a file that is open, which makes the lock.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_LOCK, _KERNELS = "lock", "kernels"

_DIRECTORY = re.compile(r"kc-[0-9]+-\w+")
_RECORD = re.compile(rb"([1-9][0-9]{0,9}) ([0-9]{1,20})")
_SOCKET = re.compile(r"kc-[0-9]+-\w+\.sock")

LARGEST_RECORD = 1 << 20
"""Bytes that are read of a list of kernels: tens of thousands of them."""


def start_time(pid: int) -> str | None:
    """Return when a process was started, in the machine's ticks; None if that is not told, or it is gone."""
    with suppress(OSError, IndexError):
        # The name, in parentheses, may have anything in it; the start time is the 22nd field.
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    return None


def _open_own_file(path: Path) -> int:
    """Open a regular file of this user's, and return its descriptor. Who made the file is not known: it may be a link,
    or a pipe, which would have us wait for its other end.

    Raises:
        OSError: It is not there, or is something else.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOSYS, "not for Windows")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file of this user's", str(path))
    return descriptor


@contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
    """Hold the lock that says that the server of this directory lives; it is let go however the process ends."""
    if sys.platform == "win32":
        # Open from its first moment, and so nobody else's to remove.
        descriptor = os.open(directory / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOINHERIT, 0o600)
        try:
            yield
        finally:
            os.close(descriptor)
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
    started = start_time(pid)
    if started is None:
        return
    with suppress(OSError):
        descriptor = os.open(directory / _KERNELS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "w") as file:
            file.write(f"{pid} {started}\n")


def clear_leftovers(parent: Path) -> None:
    """End the kernels and remove the files and sockets of servers that are gone, of this user and in this directory."""
    try:
        entries = [entry for entry in os.scandir(parent) if entry.name.startswith("kc-")]
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            # What is in a user's temporary directory on Windows is the user's.
            if sys.platform != "win32" and entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            if _DIRECTORY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _clear_directory(Path(entry.path))
            elif _SOCKET.fullmatch(entry.name) and _is_deserted(entry.path):
                os.unlink(entry.path)


def _clear_directory(directory: Path) -> None:
    if sys.platform == "win32":
        # Refused as long as the server lives.
        os.unlink(directory / _LOCK)
        _remove_directory(directory)
        return
    import fcntl

    descriptor = _open_own_file(directory / _LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _end_kernels(directory)
        _remove_directory(directory)
    finally:
        os.close(descriptor)


def _remove_directory(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    logger.warning("Removed what a server that was killed had left behind: %s", directory)


def _end_kernels(directory: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        with open(_open_own_file(directory / _KERNELS), "rb") as file:
            lines = file.read(LARGEST_RECORD).splitlines()
    except OSError:
        return
    for line in lines:
        record = _RECORD.fullmatch(line)
        if record is None:
            continue
        pid, started = int(record[1]), record[2].decode()
        if is_own_kernel(pid, started):
            with suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
                logger.warning("Ended kernel process %d, whose server was killed", pid)


def is_own_kernel(pid: int, started: str) -> bool:
    """Whether a process is a kernel as servers start them, and the one that was noted.

    It leads its group, which is not ours and not that of process 1: the group 1 is, to the system, every process there
    is. It is of this user, and was started at the time noted.
    """
    if sys.platform == "win32":
        return False
    try:
        leads, user = os.getpgid(pid) == pid, os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return False
    return pid > 1 and leads and pid != os.getpgrp() and user == os.getuid() and start_time(pid) == started


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
