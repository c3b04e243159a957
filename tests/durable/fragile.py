"""A kcserver that kills itself at a chosen moment: `python fragile.py POINT MOMENT COUNT [kcserver's arguments]`.

It dies before or after the COUNT-th time that it does what the point is named for, or in the middle of it where that is
more than one step. What it keeps is made small, so that each point is passed within a few messages.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kallichore.cli.kcserver import main
from kallichore.engines import beside_host
from kallichore.engines.host_link import HostLink
from kallichore.session import keeper
from kallichore.session.life import KernelLife
from kallichore.state import directory, recovery, session_log, session_record
from kallichore.state.directory import StateDirectory
from kallichore.state.recovery import recover
from kallichore.state.session_log import SessionLog

SEGMENT = 1 << 12
"""Bytes of a segment of the log."""


def die(*_: Any) -> NoReturn:
    """End as a process does that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Fault:
    """Counts how often something is done, and dies at the chosen time."""

    def __init__(self, moment: str, count: int) -> None:
        self.moment, self.left = moment, count

    def around(self, owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
        """Die before or after a function is called, where ``when`` holds for its arguments."""
        function = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            is_it = when(*args) and self.is_it()
            if is_it and self.moment == "before":
                die()
            result = function(*args, **kwargs)
            if is_it and self.moment == "after":
                die()
            return result

        setattr(owner, name, called)

    def around_async(self, owner: Any, name: str) -> None:
        """The same for an async function."""
        function = getattr(owner, name)

        async def called(*args: Any, **kwargs: Any) -> Any:
            is_it = self.is_it()
            if is_it and self.moment == "before":
                die()
            result = await function(*args, **kwargs)
            if is_it and self.moment == "after":
                die()
            return result

        setattr(owner, name, called)

    def is_it(self) -> bool:
        """Count one time, and return whether it is the chosen one."""
        self.left -= 1
        return self.left == 0


def tear_commit(fault: Fault) -> None:
    """Die when half of a record is written."""
    write_all = session_log._write_all

    def write(descriptor: int, pieces: list[bytes]) -> int:
        if fault.is_it():
            whole = b"".join(pieces)
            os.write(descriptor, whole[: len(whole) // 2])
            die()
        return write_all(descriptor, pieces)

    session_log._write_all = write  # type: ignore[assignment]


def break_commit(fault: Fault) -> None:
    """Die around the write of a record to the log."""
    if fault.moment == "within":
        tear_commit(fault)
    else:
        fault.around(session_log, "_write_all")


def break_record(fault: Fault) -> None:
    """Die around the write of a session's record, or between that and its renaming."""
    if fault.moment == "within":
        replace = os.replace

        def stop(*args: Any) -> None:
            if str(args[1]).endswith("session.json") and fault.is_it():
                die()
            replace(*args)

        os.replace = stop  # type: ignore[assignment]
    else:
        fault.around(session_record, "replace_file")


def break_removal(fault: Fault) -> None:
    """Die around the removal of a session's directory, or when it is no session any more and is still there."""
    if fault.moment == "within":
        rename = Path.rename

        def stop(path: Path, target: Path) -> Path:
            renamed = rename(path, target)
            if target.name.startswith(".gone-") and fault.is_it():
                die()
            return renamed

        Path.rename = stop  # type: ignore[method-assign, assignment]
    else:
        fault.around(StateDirectory, "remove")


POINTS: dict[str, Callable[[Fault], None]] = {
    "commit": break_commit,
    "segment": lambda fault: fault.around(SessionLog, "_begin_segment"),
    "record": break_record,
    "host": lambda fault: fault.around_async(beside_host, "start_host"),
    "flush": lambda fault: fault.around(HostLink, "flush", lambda link: bool(link._waiting)),
    "confirm": lambda fault: fault.around(HostLink, "confirm"),
    "conclude": lambda fault: fault.around(KernelLife, "_conclude"),
    "release": lambda fault: fault.around(HostLink, "release"),
    "end": lambda fault: fault.around(KernelLife, "_conclude_for_good"),
    "forget": lambda fault: fault.around(Path, "unlink", lambda path, *_: path.name.startswith("log-")),
    "create": lambda fault: fault.around(SessionLog, "move"),
    "remove": break_removal,
    "lock": lambda fault: fault.around(directory, "_take_lock"),
}
"""What a server does, and how to die at it."""


def make_small() -> None:
    """Have little fit into what the server keeps."""
    keeper.CONFIRM_AT_LEAST = 1 << 10
    SessionLog.create.__func__.__defaults__ = (SEGMENT,)  # type: ignore[attr-defined]
    recover.__defaults__ = recovery.recover.__defaults__ = (SEGMENT,)


if __name__ == "__main__":
    point, moment, count = sys.argv[1:4]
    sys.argv[1:4] = []
    make_small()
    POINTS[point](Fault(moment, int(count)))
    sys.exit(main())
