"""What a kernel uses: CPU, memory and threads of its process tree.

It has to be cheap, since it is done for each watched kernel every second: on Linux two small files of /proc a process
are read, no process table is walked, and who the children are is looked up only at every fifth sample. Elsewhere psutil
does it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable

import attrs

from kallichore.kernel.memory_limits import MemoryWatch, watch_memory

REFRESH_EVERY = 5
"""Samples between two looks at who the children are."""

LIMITS_EVERY = 60
"""Samples between two looks at which limits of memory there are: a process can be given others while it runs."""


@attrs.frozen
class Reading:
    """One process at one moment.

    Args:
        started: When it began, in any unit: tells a process from another with its number.
        cpu_seconds: CPU time so far, user and system.
        memory_bytes: Resident memory.
        threads: Its threads, at least 1.
    """

    started: float
    cpu_seconds: float
    memory_bytes: int
    threads: int


@attrs.frozen
class Usage:
    """What a process tree uses; ``cpu_percent`` is 100 for one busy core, ``memory_warning`` says in words that a limit
    is near.
    """

    cpu_percent: int
    memory_bytes: int
    thread_count: int
    memory_warning: str | None = None


@attrs.define
class UsageMeter:
    """Turns readings of one process tree into usage. Arithmetic only: time and readings are arguments."""

    _at: float | None = attrs.field(default=None, init=False)
    _before: dict[int, Reading] = attrs.field(factory=dict, init=False)

    def measure(self, readings: dict[int, Reading], now: float) -> Usage:
        """Return the usage since the last call; a process that is new since then adds no CPU yet.

        Args:
            readings: One for each process of the tree, by process id.
            now: The time in seconds.
        """
        used = sum(
            reading.cpu_seconds - before.cpu_seconds
            for pid, reading in readings.items()
            if (before := self._before.get(pid)) is not None and before.started == reading.started
        )
        elapsed = 0.0 if self._at is None else now - self._at
        self._at, self._before = now, readings
        return Usage(
            cpu_percent=round(100 * used / elapsed) if elapsed > 0 else 0,
            memory_bytes=sum(reading.memory_bytes for reading in readings.values()),
            thread_count=sum(reading.threads for reading in readings.values()),
        )


if sys.platform == "linux":
    _TICK = os.sysconf("SC_CLK_TCK")
    _PAGE = os.sysconf("SC_PAGE_SIZE")

    def _read_file(path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)

    def read_process(pid: int) -> Reading | None:
        """Return a reading of process ``pid``, or None if it is gone."""
        try:
            stat = _read_file(f"/proc/{pid}/stat")
        except OSError:
            return None
        # The name is in parentheses and may contain anything, more parentheses too. Behind it: proc(5), from field 3.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[0] == b"Z":
            return None
        return Reading(
            started=int(fields[19]),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICK,
            memory_bytes=int(fields[21]) * _PAGE,
            threads=int(fields[17]),
        )

    def _children(pid: int) -> Iterable[int]:
        """Yield the children of a process; Linux lists them by the thread that made them."""
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                yield from map(int, _read_file(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:
            return

    def _children_by_parent() -> dict[int, list[int]]:
        """Return every process's children, from one look at all processes."""
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    stat = _read_file(f"/proc/{name}/stat")
                except OSError:
                    continue
                parent = int(stat[stat.rindex(b")") + 2 :].split(None, 2)[1])
                children.setdefault(parent, []).append(int(name))
        return children

    def find_descendants(pid: int) -> list[int]:
        """Return the process ids below ``pid``."""
        if os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children"):
            return _walk(pid, _children)
        # A Linux without CONFIG_PROC_CHILDREN: dearer, but only at every fifth sample.
        known = _children_by_parent()
        return _walk(pid, lambda parent: known.get(parent, ()))

    def _walk(pid: int, children_of: Callable[[int], Iterable[int]]) -> list[int]:
        found: list[int] = []
        waiting = [pid]
        while waiting:
            children = list(children_of(waiting.pop()))
            found.extend(children)
            waiting.extend(children)
        return found

else:

    def read_process(pid: int) -> Reading | None:
        """Return a reading of process ``pid``, or None if it is gone."""
        import psutil

        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                return Reading(
                    started=process.create_time(),
                    cpu_seconds=times.user + times.system,
                    memory_bytes=process.memory_info().rss,
                    threads=process.num_threads(),
                )
        except psutil.Error:
            return None

    def find_descendants(pid: int) -> list[int]:
        """Return the process ids below ``pid``."""
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return []


@attrs.define
class _Tree:
    """One kernel's process tree, remembered between samples."""

    phase: int
    """Spreads the looks at who the children are: fifty trees that look in the same moment would take 6 ms of it."""
    meter: UsageMeter = attrs.field(factory=UsageMeter)
    descendants: list[int] = attrs.field(factory=list)
    samples: int = 0
    memory: MemoryWatch | None = None

    def look_for_limits(self, pid: int) -> None:
        """Look which limits of memory there are; a warning that stands goes on where they are the same."""
        found = watch_memory(pid)
        if found is None or self.memory is None or found.limits != self.memory.limits:
            self.memory = found


@attrs.define
class ResourceSampler:
    """Samples process trees; remembers of each what the next sample needs."""

    _trees: dict[int, _Tree] = attrs.field(factory=dict, init=False)

    def sample(self, pid: int, *, include_children: bool) -> Usage | None:
        """Return what the tree of process ``pid`` used since its last sample, or None if the process is gone."""
        root = read_process(pid)
        if root is None:
            self._trees.pop(pid, None)
            return None
        tree = self._trees.get(pid)
        if tree is None:
            tree = self._trees[pid] = _Tree(phase=len(self._trees) % REFRESH_EVERY)
        if tree.samples % LIMITS_EVERY == 0:
            tree.look_for_limits(pid)
        readings = {pid: root}
        if include_children:
            if tree.samples == 0 or (tree.samples + tree.phase) % REFRESH_EVERY == 0:
                tree.descendants = find_descendants(pid)
            for child in tree.descendants:
                reading = read_process(child)
                if reading is not None:
                    readings[child] = reading
        tree.samples += 1
        usage = tree.meter.measure(readings, time.monotonic())
        warning = None if tree.memory is None else tree.memory.look()
        return usage if warning is None else attrs.evolve(usage, memory_warning=warning)

    def forget_others(self, pids: Iterable[int]) -> None:
        """Forget the trees that are not among ``pids``, so that sampling does not grow with kernels that are gone."""
        for gone in self._trees.keys() - set(pids):
            del self._trees[gone]
