"""How a kernel's process ended. [pure]"""

from __future__ import annotations

import attrs

from kallichore.kernel.windows_codes import describe_code

ENDED_BY_SIGNAL = -1
"""The exit code that the API reports where a signal ended a process."""


@attrs.frozen
class Ending:
    """How a process ended.

    Args:
        pid: Its process id.
        code: Its exit code; -1 if a signal ended it. On Windows, that of a crash is a large negative number.
        signal: That signal's name.
        out_of_memory: Whether the machine killed a process for memory meanwhile, and this was none of our own kills.
        killed_by_us: Whether `KernelProcess.kill` was called.
        peak_memory_bytes: The most memory that the process had; None where the system does not tell.
        given_up: Whether it goes on, as this server may not end it.
        lost: Why nobody knows how it ended, as the end of a sentence.
        survivors: What is left of it because this server may not signal it, in words; None if nothing is.
        explanation: What the engine that ran it knows of its end, in half a sentence that follows "its job"; empty
            where there is no engine, or it knows nothing.
    """

    pid: int
    code: int
    signal: str | None = None
    out_of_memory: bool = False
    killed_by_us: bool = attrs.field(default=False, eq=False)
    peak_memory_bytes: int | None = attrs.field(default=None, eq=False)
    survivors: str | None = None
    given_up: bool = False
    lost: str | None = None
    explanation: str = ""

    def describe(self) -> str:
        """Return how it ended, as the end of a sentence."""
        if self.given_up:
            return "was given up, as this server may not end it"
        if self.lost is not None:
            return self.lost
        if self.signal is None:
            return describe_code(self.code)
        reason = ": the machine, or its control group, ran out of memory" if self.out_of_memory else ""
        return f"was ended by signal {self.signal}{reason}"
