"""A directory for one server alone: kernels' connection files and channel sockets are in it, and it goes with the
server.

Sockets have short paths (104 bytes with the ending zero on macOS), so a directory that would make them too long gives
way to the temporary directory, and that to /tmp.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError

logger = logging.getLogger(__name__)

LONGEST_SOCKET_PATH = 103
"""Bytes of a Unix socket's path at most, on macOS; Linux has four more."""

LONGEST_NAME = len("/kc-1234567-abcdefgh") + len("/") + 24 + len(".sock")
"""Bytes that this module and its users put behind the chosen directory."""


def candidate_directories(config: ServerConfig) -> list[Path]:
    """Return where sockets may go, the best place first: as configured, the user's runtime directory, temporary ones.

    A path with a colon is no candidate for what clients put into an address, and a relative one none at all.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    fallbacks = [Path(runtime)] if os.path.isabs(runtime) else []
    fallbacks += [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108  # what is made in it is private
    if config.socket_directory is not None:
        return [config.socket_directory, *fallbacks]
    return [path for path in fallbacks if path.is_dir() and ":" not in str(path)]


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory)) + LONGEST_NAME <= LONGEST_SOCKET_PATH


@contextmanager
def open_runtime_directory(config: ServerConfig) -> Iterator[Path]:
    """Make a server's private directory (0700); on leaving it is removed with all that is in it.

    Raises:
        ConfigurationError: There is no place where it can be made.
    """
    problems: list[str] = []
    for parent in candidate_directories(config):
        if os.name != "nt" and not _fits(parent):
            problems.append(f"{parent}: too long for sockets")
            continue
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory = Path(tempfile.mkdtemp(prefix=f"kc-{os.getpid()}-", dir=parent))
        except OSError as error:
            problems.append(f"{parent}: {error.strerror}")
            continue
        break
    else:
        raise ConfigurationError("There is no place for the server's sockets; set --socket-dir", "\n".join(problems))
    for problem in problems:
        logger.warning("Not used for sockets: %s", problem)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
