"""What ends the kernels of a server that was killed, and takes away its files.

A server that ends in any ordinary way stops its kernels itself. One that is killed (SIGKILL, the machine's memory
killer) cannot, so each server has a companion: a shell that reads from a pipe which process groups there are, and
that kills them all when the pipe closes, which happens exactly when the server is gone, however it went.

Why this way: Linux's parent-death signal is sent when the *thread* that forked ends, and Trio forks in worker threads
that end after ten idle seconds; it reaches only the child itself; and it exists only on Linux. A companion in Python
would cost 10 MB and 33 ms to start, a shell 1.7 MB and 2.8 ms (dash; bash 3.1 MB and 2.4 ms). On Windows a job object
does all this.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

logger = logging.getLogger(__name__)

# The groups are kept as " 12 34 "; a removal cuts one out. At the end, which is the end of input, the files go as
# well. Of the ways to write the signal, `-s KILL --` is POSIX's; dash takes neither `-KILL --` nor `-s KILL` without
# the dashes.
_SCRIPT = """
trap '' HUP INT TERM
groups=' '
while IFS= read -r line; do
  what=${line%% *} value=${line#* }
  case $what in
    +) groups="$groups$value " ;;
    -) case $groups in *" $value "*) groups="${groups%% $value *} ${groups#* $value }" ;; esac ;;
    f) set -- "$@" "$value" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
for path in "$@"; do rm -rf -- "$path"; done
"""

FAREWELL_PATIENCE = 2.0
"""Seconds that the watchdog may take to end once its pipe is closed; then it is killed."""


@attrs.define(eq=False)
class Watchdog:
    """The pipe to a server's companion; None where there is none. None of its methods waits."""

    _pipe: int | None
    _unsent: bytearray = attrs.field(factory=bytearray, init=False)
    """What a full pipe did not take: it goes with the next line. The pipe holds some thousand lines, so this is empty
    unless the companion is stopped; and to close the pipe instead would kill the kernels of a living server."""

    def guard(self, group: int) -> None:
        """Have a process group killed if the server is."""
        self._write(f"+ {group}\n")

    def release(self, group: int) -> None:
        """Forget a process group: it is gone."""
        self._write(f"- {group}\n")

    def guard_file(self, path: Path) -> None:
        """Have a file removed when the server is gone, however it went."""
        if "\n" not in str(path):
            self._write(f"f {path}\n")

    def _write(self, line: str) -> None:
        if self._pipe is None:
            return
        self._unsent += os.fsencode(line)
        try:
            del self._unsent[: os.write(self._pipe, self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("The watchdog is gone (%s); kernels would outlive a killed server", error)
            os.close(self._pipe)
            self._pipe = None

    def close(self) -> None:
        """Let the companion do its last work and end. Idempotent."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


@asynccontextmanager
async def open_watchdog(runtime_directory: Path) -> AsyncIterator[Watchdog]:
    """Start a server's companion; on leaving it ends, and with it what it still guards.

    Cancelling waits for its end as well, at most `FAREWELL_PATIENCE`.

    Args:
        runtime_directory: The server's private directory, removed with all in it when the server is gone.
    """
    if sys.platform == "win32":
        yield Watchdog(None)
        return
    readable, writable = os.pipe()
    try:
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", _SCRIPT, "kallichore-watchdog", str(runtime_directory)],
            stdin=readable,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.defpath},
            cwd="/",
        )
    except BaseException:
        os.close(writable)
        raise
    finally:
        os.close(readable)
    os.set_blocking(writable, False)
    watchdog = Watchdog(writable)
    try:
        yield watchdog
    finally:
        watchdog.close()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(FAREWELL_PATIENCE):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
