"""The limits of memory that a kernel lives under, and how much of each is used: from Linux's /proc and control groups.

Where there is no limit, as on most desktops, this costs a look at the kernel's first sample and then once a minute;
where there is one, a small file for each sample. Elsewhere than on Linux no limit is known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs

from kallichore.kernel.memory_alarm import NEAR, MemoryAlarm, MemoryLimit

PROC = Path("/proc")
GROUPS = Path("/sys/fs/cgroup")

NO_LIMIT = 1 << 60
"""Bytes from which on a number of version 1's means that there is no limit: it writes the largest that it can."""

if sys.platform != "win32":
    _PAGE = os.sysconf("SC_PAGE_SIZE")
else:
    _PAGE = 4096

_KILLS = "beyond that the system kills a process of it"
_KILLS_SOME = "beyond that the system kills programs"
_REFUSES = "beyond that the kernel is given no more memory"


@attrs.frozen
class _GroupUse:
    """The memory of a control group."""

    current: Path
    stat: Path
    cache_names: frozenset[str]

    def read(self, limit: int) -> int:
        """Return the bytes in use, without the cache of files: the system gives that up before it kills."""
        used = int(self.current.read_text())
        if used < NEAR * limit:
            # With less cache it is even less, and to list what there is takes the system longer.
            return used
        lines = (line.split() for line in self.stat.read_text().splitlines())
        return used - sum(int(count) for name, count in lines if name in self.cache_names)


@attrs.frozen
class _ProcessUse:
    """A figure of a process, in pages: one of those in its ``statm`` (proc(5))."""

    statm: Path
    field: int

    def read(self, _limit: int) -> int:
        """Return the bytes in use."""
        return int(self.statm.read_text().split()[self.field]) * _PAGE


@attrs.frozen
class _MachineUse:
    """The memory of the whole machine (proc(5), meminfo)."""

    meminfo: Path

    def read(self, limit: int) -> int:
        """Return the bytes that no program could be given."""
        return limit - _meminfo(self.meminfo)["MemAvailable"]


_Use = _GroupUse | _ProcessUse | _MachineUse


@attrs.define
class MemoryWatch:
    """The limits of one kernel, looked at with each of its samples. Made by `watch_memory`."""

    _watched: list[tuple[MemoryAlarm, _Use]]

    @property
    def limits(self) -> list[MemoryLimit]:
        """The limits."""
        return [alarm.limit for alarm, _ in self._watched]

    def look(self) -> str | None:
        """Return a warning if the use of a limit is near it."""
        warnings = []
        for alarm, use in self._watched:
            # The process may have ended, or a group have become somebody else's, since.
            with suppress(OSError, ValueError, IndexError, KeyError):
                warnings.append(alarm.measure(use.read(alarm.limit.most)))
        return next((warning for warning in warnings if warning is not None), None)


def watch_memory(pid: int, proc: Path = PROC, groups: Path = GROUPS) -> MemoryWatch | None:
    """Look for the limits of a process as they are now; None if it has none.

    Args:
        pid: The kernel's process.
        proc: Where processes are described.
        groups: Where control groups are.
    """
    watched: list[tuple[MemoryLimit, _Use]] = [*_group_limits(pid, proc, groups), *_process_limits(pid, proc)]
    return MemoryWatch([(MemoryAlarm(limit), use) for limit, use in watched]) if watched else None


def watch_shared_memory(proc: Path = PROC, groups: Path = GROUPS) -> MemoryWatch | None:
    """Look for the limits of what this process shares with others: the machine's memory, and its control groups'.

    Args:
        proc: Where processes are described.
        groups: Where control groups are.
    """
    watched: list[tuple[MemoryLimit, _Use]] = [*_group_limits(os.getpid(), proc, groups)]
    meminfo = proc / "meminfo"
    with suppress(OSError, ValueError, IndexError, KeyError):
        found = _meminfo(meminfo)
        # Before Linux 3.14 it is not told how much could be given.
        if "MemAvailable" in found:
            watched.append((MemoryLimit(found["MemTotal"], "this machine", _KILLS_SOME), _MachineUse(meminfo)))
    return MemoryWatch([(MemoryAlarm(limit), use) for limit, use in watched]) if watched else None


def _meminfo(path: Path) -> dict[str, int]:
    """Return what /proc/meminfo counts in bytes."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _group_limits(pid: int, proc: Path, groups: Path) -> Iterator[tuple[MemoryLimit, _GroupUse]]:
    """Yield the limits of a process's control group and of those around it: each of them can be the first reached."""
    is_unified = os.path.exists(groups / "cgroup.controllers")
    root = groups if is_unified else groups / "memory"
    limit_name = "memory.max" if is_unified else "memory.limit_in_bytes"
    current_name = "memory.current" if is_unified else "memory.usage_in_bytes"
    # Version 1 counts a group without those in it, and under "total_" with them, as version 2 always does.
    prefix = "" if is_unified else "total_"
    caches = frozenset({f"{prefix}inactive_file", f"{prefix}active_file"})
    for group in _groups_of(pid, proc, root, is_unified=is_unified):
        try:
            most = int((group / limit_name).read_text())
        except (OSError, ValueError):
            # A root has no limit, and "max" is none.
            continue
        if most < NO_LIMIT:
            name = "/" + str(group.relative_to(root)).removeprefix(".")
            use = _GroupUse(group / current_name, group / "memory.stat", caches)
            yield MemoryLimit(most, f"control group {name} ({limit_name})", _KILLS), use


def _groups_of(pid: int | str, proc: Path, root: Path, *, is_unified: bool) -> Iterator[Path]:
    """Yield the directories of a process's control group and of those around it, up to ``root``.

    In a container the path may be one that only the outside knows; then it is the root that has the container's limit.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if (number == "0") if is_unified else ("memory" in controllers.split(",")):
            group = root.joinpath(*(part for part in Path(path).parts if part not in ("/", "..")))
            yield from (directory for directory in (group, *group.parents) if directory.is_relative_to(root))


def own_kill_counters(proc: Path, groups: Path) -> Iterator[Path]:
    """Yield the files that may count who was killed for memory in our own control group and in those around it."""
    is_unified = os.path.exists(groups / "cgroup.controllers")
    root, name = (groups, "memory.events") if is_unified else (groups / "memory", "memory.oom_control")
    yield from (group / name for group in _groups_of("self", proc, root, is_unified=is_unified))


def _process_limits(pid: int, proc: Path) -> Iterator[tuple[MemoryLimit, _ProcessUse]]:
    names = {"Max address space": ("RLIMIT_AS", 0), "Max data size": ("RLIMIT_DATA", 5)}
    try:
        lines = (proc / str(pid) / "limits").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        for title, (name, field) in names.items():
            if line.startswith(title):
                soft = line.removeprefix(title).split()[0]
                if soft != "unlimited":
                    yield MemoryLimit(int(soft), name, _REFUSES), _ProcessUse(proc / str(pid) / "statm", field)
