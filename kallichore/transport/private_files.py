"""Files for their owner only, whatever the system's way to say so."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger(__name__)


def make_private(path: Path) -> None:
    """Let only its owner open a file of ours. Where Windows keeps no such list (a FAT disk), the log is told.

    Raises:
        OSError: It is not there, or not ours.
    """
    if sys.platform == "win32":
        from kallichore.transport.windows_security import OwnerOnly

        try:
            OwnerOnly().restrict_file(path)
        except OSError as error:
            logger.warning("Others may be able to read %s: %s", path, error)
    else:
        os.chmod(path, 0o600)
