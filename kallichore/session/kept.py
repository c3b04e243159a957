"""What a state directory holds, for somebody who only looks: with no server running as with one, and nothing changed.

A server writes while this reads, so what is found is what was true a moment ago.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from kallichore.conversation.conversation import SavedTalk
from kallichore.conversation.delivery import SavedDeliveries
from kallichore.conversation.execution_queue import SavedQueue
from kallichore.conversation.parts import read_part
from kallichore.conversation.runs import numbers_in
from kallichore.conversation.status import SavedStatus
from kallichore.engines.host_socket import kill_host
from kallichore.errors import KallichoreError
from kallichore.kernel.leftovers import is_own_kernel
from kallichore.kernel.resources import find_descendants, read_process
from kallichore.models.bodies import KernelExit, NewSession, Status
from kallichore.session.keep import TICKET, read_body
from kallichore.session.keeper import read_supervision
from kallichore.state.confirmed_page import read_confirmed
from kallichore.state.directory import look_into
from kallichore.state.recovery import Recovered, recover
from kallichore.state.session_record import SessionRecord
from kallichore.wire.envelope import UNREADABLE

LOOKS = 3
"""How often a log is read that seems to be damaged: a server removes files of it while they are read."""


@attrs.frozen(kw_only=True)
class KeptSession:
    """A session as it was written down last. Times are seconds since 1970.

    Args:
        place: Its directory.
        session_id: Its id; the directory's name if that cannot be read.
        display_name: What its kernel is called.
        status: Its status; None if it cannot be read.
        created: When it was created; None if that cannot be read.
        active_at: When code was last run in it or input given, or its status last changed.
        process_id: Its kernel's process; None if it has none.
        kernel_lives: Whether that process is there now.
        memory_bytes: What it has, with all that it started; None if it is not there.
        queue_length: Executions that run or wait.
        undelivered: Messages that no client has yet.
        last_exit: How its last kernel ended, in words; None if none has.
        is_damaged: Whether it is lost to the next server, which leaves its directory as it is.
        problems: What of it is damaged or missing, in words.
    """

    place: Path
    session_id: str
    display_name: str = ""
    status: str | None = None
    created: float | None = None
    active_at: float | None = None
    process_id: int | None = None
    kernel_lives: bool = False
    memory_bytes: int | None = None
    queue_length: int = 0
    undelivered: int = 0
    last_exit: str | None = None
    is_damaged: bool = False
    problems: tuple[str, ...] = ()


def look_at_kept(path: Path) -> list[KeptSession]:
    """Return the sessions that a state directory holds, the oldest first.

    Raises:
        ConfigurationError: It is no state directory, or cannot be read.
        StateVersionError: A newer Kallichore wrote it.
    """
    found = [session for place in look_into(path) if (session := _look_at(place)) is not None]
    return sorted(found, key=lambda session: (session.created or 0, session.session_id))


async def kill_kernel(place: Path) -> None:
    """Kill the kernel of a session that no server can go on with, and its host, if it is certain which they are.

    Args:
        place: The session's directory.
    """
    await kill_host(place)
    if sys.platform == "win32":
        return
    pid, started = read_supervision(recover(place).parts).get("process") or (0, None)
    if started is not None and is_own_kernel(pid, started):
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _look_at(place: Path) -> KeptSession | None:
    """Return what a session's directory holds; None if it has just been removed."""
    recovered = _recover(place)
    supervision = read_supervision(recovered.parts)
    said = _Said(recovered.parts, list(recovered.problems))
    try:
        record = SessionRecord.read(place)
        request = read_body(record.request, NewSession)
    except (KallichoreError, OSError) as error:
        if not place.exists():
            return None
        said.problems.insert(0, str(error))
        return KeptSession(
            place=place,
            session_id=place.name,
            is_damaged=True,
            problems=tuple(said.problems),
            **_describe_kernel(supervision),
        )
    status, last_exit = said.read("status", SavedStatus), said.read("exit", KernelExit)
    active_at = _latest(record.created, supervision, status, said.read("talk", SavedTalk))
    queue_length = _count_queued(said.read("queue", SavedQueue))
    undelivered = _count_undelivered(recovered, said.read("deliveries", SavedDeliveries), read_confirmed(place))
    return KeptSession(
        place=place,
        session_id=record.session_id,
        display_name=request.display_name,
        status=Status.UNINITIALIZED.value if status is None else status.current.value,
        created=record.created,
        active_at=active_at,
        queue_length=queue_length,
        undelivered=undelivered,
        last_exit=None if last_exit is None else last_exit.text,
        problems=tuple(said.problems),
        **_describe_kernel(supervision, is_here=TICKET not in record.facts),
    )


def _recover(place: Path) -> Recovered:
    for _ in range(LOOKS - 1):
        recovered = recover(place)
        if not recovered.problems:
            return recovered
    return recover(place)


@attrs.frozen
class _Said:
    """Parts to be read; what cannot be read is a problem, and None."""

    parts: Mapping[str, bytes]
    problems: list[str]

    def read(self, name: str, kind: type[Any]) -> Any:
        document = self.parts.get(name)
        if not document:
            return None
        try:
            return read_part(document, kind)
        except (ValueError, *UNREADABLE) as error:
            self.problems.append(f"{name} cannot be read: {error}")
            return None


def _count_queued(queue: SavedQueue | None) -> int:
    if queue is None:
        return 0
    return (queue.active_id is not None) + sum(behind - first for first, behind in queue.pending)


def _latest(
    created: float, supervision: Mapping[str, Any], status: SavedStatus | None, talk: SavedTalk | None
) -> float:
    """Return when something happened last: the times in the parts are of a clock that began at an epoch."""
    epoch = supervision.get("epoch")
    if not isinstance(epoch, int | float):
        return created
    times = (None if status is None else status.since, None if talk is None else talk.active_at)
    return max((created, *(epoch + time for time in times if time is not None)))


def _count_undelivered(recovered: Recovered, deliveries: SavedDeliveries | None, confirmed: int) -> int:
    owed = max(recovered.first, confirmed, 0 if deliveries is None else deliveries.owed)
    had = 0 if deliveries is None else sum(1 for number in numbers_in(deliveries.had) if number >= owed)
    return max(0, recovered.end - owed - had)


def _describe_kernel(supervision: Mapping[str, Any], *, is_here: bool = True) -> dict[str, Any]:
    """Return what is to be said of the kernel's process. Of one on another machine only a server could know the end."""
    process = supervision.get("process")
    if not process:
        return {}
    pid, started = int(process[0]), process[1]
    if not is_here:
        return {"process_id": pid, "kernel_lives": True}
    lives = is_own_kernel(pid, started) if started is not None else _leads_a_group(pid)
    return {"process_id": pid, "kernel_lives": lives, "memory_bytes": _memory_of(pid) if lives else None}


def _leads_a_group(pid: int) -> bool:
    """Whether there is such a process: all that is known where the machine does not tell when it was started."""
    if sys.platform == "win32":
        return False
    try:
        return os.getpgid(pid) == pid
    except OSError:
        return False


def _memory_of(pid: int) -> int | None:
    readings = [reading for each in (pid, *find_descendants(pid)) if (reading := read_process(each)) is not None]
    return sum(reading.memory_bytes for reading in readings) or None
