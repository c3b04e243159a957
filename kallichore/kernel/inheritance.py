"""What a kernel on Windows inherits: the handles with which it is interrupted, and learns of its server's end.

Off Windows a kernel is interrupted by a signal and needs none of this. What the system does is behind `Inheritance`, so
that a session's use of it runs in tests over a double; the real one is `kallichore.kernel.windows`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol


class Inheritance(Protocol):
    """The handles that the kernels of one session inherit, one after another."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that tell a kernel its handles (`ipykernel.parentpoller`)."""

    @property
    def handles(self) -> Sequence[int]:
        """The handles themselves: a kernel inherits these, its own output, and nothing else."""

    def interrupt(self) -> None:
        """Interrupt the kernel; raises `OSError`."""

    def close(self) -> None:
        """Close the handles."""


OpenInheritance = Callable[[bool], Inheritance]
"""Makes the handles of one session; told whether its kernels are interrupted by an event. Raises `OSError`."""


def this_systems_inheritance() -> OpenInheritance | None:
    """Return what makes handles on this operating system, or None where kernels inherit none."""
    if sys.platform == "win32":
        from kallichore.kernel.windows import Handles

        return Handles
    return None
