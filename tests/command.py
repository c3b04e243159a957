"""The kcclient command, run to its end."""

from __future__ import annotations

import os
import re
import sys
from subprocess import CompletedProcess

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
    note: str = attrs.field(default="", eq=False)
    """That it waits for a kernel, which it says on a busy machine, and not among its errors here."""

    @property
    def rows(self) -> list[list[str]]:
        """The table that was printed, without its titles."""
        return [line.split() for line in self.out.splitlines()[1:]]


_NOTE = re.compile(r"^Waiting for the kernel .*\n", re.MULTILINE)


def ended_with(code: int, printed: str, said: str) -> Ended:
    """Return how a command ended, its note apart."""
    return Ended(code, printed, _NOTE.sub("", said), "".join(_NOTE.findall(said)))


def ended_as(process: CompletedProcess[bytes]) -> Ended:
    """Return how a command ended."""
    return ended_with(
        process.returncode, *(text.decode().replace(os.linesep, "\n") for text in (process.stdout, process.stderr))
    )


async def kcclient(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
    """Run kcclient to its end."""
    with trio.fail_after(REAL_TIME):
        process = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin,
            env={**os.environ, **environment},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return ended_as(process)
