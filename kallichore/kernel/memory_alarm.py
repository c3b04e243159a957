"""When a kernel's memory is near a limit: said once, before the limit is reached and the kernel is killed. [pure]

What the limits are, and how much of them is used, is found by `kallichore.kernel.memory_limits`.
"""

from __future__ import annotations

import attrs

NEAR = 0.9
"""The share of a limit from which on its use is worth a warning."""

CLEAR = 0.8
"""The share below which the warning is over: use that sways around 90 % is one crossing, not many."""


@attrs.frozen
class MemoryLimit:
    """A limit of memory.

    Args:
        most: Bytes.
        what: What sets it, as in "… of 4,000 MB that *this* allows".
        consequence: What happens beyond it, as the end of a sentence.
    """

    most: int
    what: str
    consequence: str


@attrs.define
class MemoryAlarm:
    """Whether the use of one limit is near it. Arithmetic only."""

    limit: MemoryLimit
    _is_near: bool = attrs.field(default=False, init=False)

    def measure(self, used: int) -> str | None:
        """Return a warning in words if so much is near the limit; or still near, after it was."""
        share = used / self.limit.most if self.limit.most else 1.0
        self._is_near = share >= (CLEAR if self._is_near else NEAR)
        if not self._is_near:
            return None
        return (
            f"Memory is running out: {used / 1e6:,.0f} MB ({share:.0%}) of the {self.limit.most / 1e6:,.0f} MB that "
            f"{self.limit.what} allows are in use; {self.limit.consequence}"
        )
