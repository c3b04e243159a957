"""The directory in which sessions outlive their server: who may use it, and which session is where.

It belongs to one user and to one server at a time. Nothing is read of a directory that others may write to: what is in
it names processes, sockets and secrets.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from kallichore.errors import ConfigurationError, StateDirectoryInUseError, StateVersionError
from kallichore.state.whole_file import clear_unfinished, replace_file

logger = logging.getLogger(__name__)

VERSION = 1
"""Of what is in the directory. A version that is not known would be misread, so it is refused."""

_VERSION, _LOCK, _SESSIONS, _GONE, _MADE = "version", "lock", "sessions", ".gone-", ".new-"

NAME_LENGTH = 40
"""Characters of a session's id that its directory's name begins with, for people."""

LARGEST_OWNER = 1 << 12
"""Bytes that are read of what is said of a lock's owner."""

DIGITS = 16
"""Of the id's hash in the name: with eight, two ids could be made that share one."""

LOCK_TRIES, LOCK_PAUSE = 4, 0.01
"""How often the lock is tried for, and seconds between two tries: who only looks whether it is held holds it for some
microseconds, see `is_held`."""


def safe_name(session_id: str) -> str:
    """Return the name of a session's directory: another one for each id, and a plain word whatever the id is."""
    digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]', '_', session_id[:NAME_LENGTH])}-{digest[:DIGITS]}"


@attrs.frozen
class StateDirectory:
    """A directory that this process has to itself, until the block of `open_state_directory` ends.

    Args:
        path: Where it is.
    """

    path: Path
    _lock: int = attrs.field(repr=False)

    def announce(self, owner: str) -> None:
        """Say where this server answers, to whoever wants the directory too.

        Raises:
            OSError: It could not be written.
        """
        os.ftruncate(self._lock, 0)
        os.lseek(self._lock, 0, os.SEEK_SET)
        os.write(self._lock, f"{os.getpid()} {owner}\n".encode("utf-8", "surrogateescape"))

    def sessions(self) -> list[Path]:
        """Return the directories of all sessions, in the order of their names."""
        return _places(self.path)

    def directory_of(self, session_id: str) -> Path:
        """Return where a session's directory is, or would be."""
        return self.path / _SESSIONS / safe_name(session_id)

    @contextmanager
    def create(self, session_id: str) -> Iterator[Path]:
        """Make a session's directory, for its owner only, which the block fills.

        It has another name in the block: it is the session's from one moment to the next when the block is done, and
        is removed if that fails, or by the next server if this process is killed meanwhile.

        Raises:
            FileExistsError: It is there.
            OSError: It could not be made.
        """
        path = self.directory_of(session_id)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        made = path.with_name(_MADE + path.name)
        made.mkdir(mode=0o700)
        try:
            yield made
            made.rename(path)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def remove(self, session_id: str) -> None:
        """Remove a session's directory, with what is in it. Where there is none, nothing happens."""
        self.remove_place(self.directory_of(session_id))

    def remove_place(self, path: Path) -> None:
        """Remove one of the directories that `sessions` returns, with what is in it."""
        # From one moment to the next it is no session any more, whenever this process is killed.
        gone = path.with_name(_GONE + path.name)
        shutil.rmtree(gone, ignore_errors=True)
        try:
            path.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def open_state_directory(path: Path, owner: str) -> Iterator[StateDirectory]:
    """Have a state directory, which is made (0700) if it is not there, to this process alone.

    Args:
        path: Where it is.
        owner: Where this server answers, for who comes second; see `StateDirectory.announce`.

    Raises:
        ConfigurationError: It is not a directory, is or may be written by somebody else, or cannot be used.
        StateDirectoryInUseError: Another server has it.
        StateVersionError: A newer Kallichore wrote it.
    """
    if sys.platform == "win32":
        raise ConfigurationError("--state-dir is for Linux and macOS: on Windows kernels end with their server")
    try:
        _make(path)
        lock = _take_lock(path)
    except OSError as error:
        raise ConfigurationError(f"--state-dir {path}: cannot be used: {error.strerror}") from error
    try:
        directory = StateDirectory(path, lock)
        try:
            _check_version(path)
            (path / _SESSIONS).mkdir(mode=0o700, exist_ok=True)
            _clear_leftovers(directory)
            directory.announce(owner)
        except OSError as error:
            raise ConfigurationError(f"--state-dir {path}: cannot be used: {error}") from error
        yield directory
    finally:
        os.close(lock)


def look_into(path: Path) -> list[Path]:
    """Return the directories of all sessions in a state directory, whoever has it. Nothing is changed there.

    Raises:
        ConfigurationError: It is no state directory, or cannot be read.
        StateVersionError: A newer Kallichore wrote it.
    """
    try:
        _read_version(path)
        return _places(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"--state-dir {path}: no server has kept sessions there") from None
    except OSError as error:
        raise ConfigurationError(f"--state-dir {path}: cannot be read: {error.strerror}") from error


def is_held(path: Path) -> bool:
    """Whether a server has a state directory now."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        with open(path / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def read_owner(path: Path) -> tuple[int | None, str | None]:
    """Return the pid and the address that the latest server of a state directory wrote down; see `is_held`."""
    try:
        with open(path / _LOCK, "rb") as lock:
            return _parse_owner(lock.read(LARGEST_OWNER))
    except OSError:
        return None, None


def _places(path: Path) -> list[Path]:
    entries = [entry for entry in os.scandir(path / _SESSIONS) if entry.is_dir(follow_symlinks=False)]
    return [Path(entry.path) for entry in sorted(entries, key=lambda entry: entry.name) if entry.name[0] != "."]


def _make(path: Path) -> None:
    """Make the directory, or see that the one that is there can be trusted."""
    if sys.platform == "win32":
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigurationError(f"--state-dir {path}: this is not a directory; name another place") from None
    found = path.stat()
    if found.st_uid != os.getuid():
        raise ConfigurationError(f"--state-dir {path}: it belongs to another user (uid {found.st_uid}); name your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"--state-dir {path}: others may write to it; `chmod go-w` it, or name another place")


def _take_lock(path: Path) -> int:
    """Return the descriptor that holds the lock; it is let go however the process ends."""
    if sys.platform == "win32":
        return -1
    import fcntl

    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        for tries_left in reversed(range(LOCK_TRIES)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tries_left:
                    raise
                time.sleep(LOCK_PAUSE)
    except BlockingIOError:
        pid, address = _parse_owner(os.read(lock, LARGEST_OWNER))
        os.close(lock)
        who = "another server" if pid is None else f"the server with pid {pid}"
        where = f" at {address}" if address else ""
        raise StateDirectoryInUseError(
            f"--state-dir {path}: {who}{where} has it; end that one, give --replace, or name another place",
            pid,
            address,
        ) from None
    except OSError:
        os.close(lock)
        raise
    return lock


def _parse_owner(said: bytes) -> tuple[int | None, str | None]:
    pid, _, address = said.decode("utf-8", "replace").strip().partition(" ")
    return (int(pid) if pid.isascii() and pid.isdigit() else None), address or None


def _check_version(path: Path) -> None:
    is_new = not (path / _VERSION).exists() and not (path / _SESSIONS).exists()
    if _read_version(path) is not None:
        return
    if not is_new:
        text = "%s does not name a version; what is there is read as version %d"
        logger.warning(text, path / _VERSION, VERSION)
    replace_file(path / _VERSION, f"{VERSION}\n".encode())


def _read_version(path: Path) -> int | None:
    """Return the version of what is in a state directory; None if that is not named.

    Raises:
        StateVersionError: A newer Kallichore wrote it.
        OSError: It could not be read.
    """
    try:
        found = (path / _VERSION).read_bytes().strip()
    except FileNotFoundError:
        return None
    if not found.isdigit():
        return None
    if int(found) > VERSION:
        raise StateVersionError(
            f"--state-dir {path}: its version is {int(found)}, and this Kallichore knows versions up to {VERSION};"
            " use the newer Kallichore that wrote it, or name another place"
        )
    return int(found)


def _clear_leftovers(directory: StateDirectory) -> None:
    """Remove what a server left unfinished that was killed: half-written files, sessions half made or half removed."""
    clear_unfinished(directory.path)
    for prefix in (_GONE, _MADE):
        for unfinished in (directory.path / _SESSIONS).glob(f"{prefix}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
    for session in directory.sessions():
        clear_unfinished(session)


def boot_id() -> str | None:
    """Return what tells this run of the machine from those before; None where that is not known."""
    try:
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "kern.boottime"]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, subprocess.CalledProcessError):
        return None
