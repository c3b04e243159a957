"""What tests of sessions that outlive their server share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest


@pytest.fixture(autouse=True)
def _no_hosts_stay(private_place: Path) -> Iterator[None]:
    """End the hosts of a test that failed before it could: they are made to outlive everything."""
    yield
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(f"{private_place}/state"):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
