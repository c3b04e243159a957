"""What a kernel used in the last minutes, for who comes to look at it now. [pure]

The samples are those that are taken anyway, for somebody who watches; nothing is sampled for this. It takes four
kilobytes of a session that is watched for minutes, and nothing of one that nobody ever watched.
"""

from __future__ import annotations

from array import array

import attrs

KEPT = 300_000
"""Milliseconds into the past: what the plots of the dashboard show."""

STEP = 2_000
"""Milliseconds between two samples that are kept, at least: a plot is a hundred points wide."""

MOST = KEPT // STEP


@attrs.define
class UsageRecord:
    """Samples of one session's kernels, the latest ones."""

    _figures: array[int] = attrs.field(factory=lambda: array("q"), init=False)
    """Of each sample three: when, in milliseconds since 1970, bytes of memory, and percent of CPU."""

    def __len__(self) -> int:
        return len(self._figures) // 3

    def add(self, timestamp: int, memory_bytes: int, cpu_percent: int) -> None:
        """Take in a sample. One that comes too soon after the one before is left out.

        Args:
            timestamp: When it was taken, in milliseconds since 1970.
            memory_bytes: Memory.
            cpu_percent: CPU; 100 is one core.
        """
        figures = self._figures
        if figures and timestamp < figures[-3]:
            # The clock was put back, and nobody knows by how much.
            del figures[:]
        if figures and timestamp < figures[-3] + STEP:
            return
        figures.extend((timestamp, memory_bytes, cpu_percent))
        del figures[: -3 * MOST]

    def columns(self, now: int) -> dict[str, list[int]]:
        """Return the samples of the last minutes, oldest first, as one list for each figure; all are equally long.

        Args:
            now: Milliseconds since 1970.
        """
        times = self._figures[::3]
        first = sum(time < now - KEPT for time in times)
        memory, cpu = self._figures[1::3], self._figures[2::3]
        return {"time": list(times[first:]), "memory_bytes": list(memory[first:]), "cpu_percent": list(cpu[first:])}
