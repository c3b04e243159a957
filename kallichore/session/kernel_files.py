"""The file that a starting kernel is given: connection file or registration file.

It holds the session's key, so only its owner may read it, and it goes when the kernel goes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kallichore.errors import StartupError, StartupReason
from kallichore.wire.connection_info import to_file


@contextmanager
def open_kernel_file(
    path: Path, document: dict[str, Any], *, stays: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Write ``document`` to ``path``, for its owner only; removed on leaving, unless it stays.

    Yield where it is: beside ``path``, where that is the file of a kernel before and cannot be removed.

    Raises:
        StartupError: ``KS-5``, the file could not be written.
    """
    try:
        path = _free_path(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(to_file(document))
    except OSError as error:
        # A part of it may be there, with the key.
        with suppress(OSError):
            path.unlink()
        raise StartupError(
            "KS-5",
            f"Could not write the kernel's connection file {path}: {error.strerror}",
            reason=StartupReason.NO_RESOURCES,
        ) from error
    try:
        yield path
    finally:
        if not stays():
            with suppress(OSError):
                path.unlink()


def _free_path(path: Path) -> Path:
    """Remove what is at a path and return it; or another one, as Windows keeps what a virus scanner has open."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return path.with_stem(f"{path.stem}-{secrets.token_hex(4)}")
    return path
