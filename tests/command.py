"""The kcclient command, run to its end."""

from __future__ import annotations

import os
import sys

import attrs
import trio

from kernels import REAL_TIME

COMMAND = [sys.executable, "-m", "kallichore.cli.kcclient"]


@attrs.frozen
class Ended:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


async def kcclient(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
    """Run kcclient to its end."""
    with trio.fail_after(REAL_TIME):
        ended = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            env={**os.environ, **environment},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
