"""A directory for one server alone: kernels' connection files and channel sockets are in it, and it goes with the
server.

It is made in the first place that will do for sockets (`kallichore.transport.places`) and that can be written to: the
configured one, the user's runtime directory, the temporary one, and in the end /tmp. Variables that name places outlive
their truth: sudo, su and snaps leave behind what belongs to somebody else.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError
from kallichore.transport.places import why_unfit

logger = logging.getLogger(__name__)


def candidate_directories(config: ServerConfig) -> list[Path]:
    """Return where sockets may go, best first: as configured, the user's runtime directory, temporary ones."""
    configured = [] if config.socket_directory is None else [config.socket_directory]
    runtime = None if sys.platform == "win32" else os.environ.get("XDG_RUNTIME_DIR")
    candidates = [*configured, *([Path(runtime)] if runtime else []), *_temporary_directories()]
    return list(dict.fromkeys(candidates))


def _temporary_directories() -> list[Path]:
    # On Windows that would be a place that everybody may write to, if it is there.
    last = [] if sys.platform == "win32" else [Path("/tmp")]  # noqa: S108  # what is made in it is private
    try:
        return [Path(tempfile.gettempdir()), *last]
    except OSError:
        # There is none that can be written to.
        return last


@contextmanager
def open_runtime_directory(config: ServerConfig) -> Iterator[Path]:
    """Make a server's private directory (0700); on leaving it is removed with all that is in it.

    Raises:
        ConfigurationError: There is no place where it can be made.
    """
    problems: list[str] = []
    for parent in candidate_directories(config):
        is_configured = parent == config.socket_directory
        problem = why_unfit(str(parent), len(os.fsencode(parent)))
        if problem is None:
            try:
                if is_configured:
                    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory = Path(tempfile.mkdtemp(prefix=f"kc-{os.getpid()}-", dir=parent))
                break
            except OSError as error:
                problem = str(error.strerror)
        problems.append(f"{parent}: {problem}")
        # What somebody asked for is missed; a variable that is left over is not.
        logger.log(logging.WARNING if is_configured else logging.DEBUG, "Not used for sockets: %s", problems[-1])
    else:
        raise ConfigurationError("There is no place for the server's sockets; set --socket-dir", "\n".join(problems))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
