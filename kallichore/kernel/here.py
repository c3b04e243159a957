"""What can be asked about a process by its number, where it runs on this machine."""

from __future__ import annotations

from kallichore.kernel.resources import Usage
from kallichore.kernel.stopped import is_stopped
from kallichore.kernel.working_directory import read_working_directory


class ProcessHere:
    """A process on this machine."""

    is_here = True

    @property
    def pid(self) -> int:
        """Its number."""
        raise NotImplementedError

    def is_stopped(self) -> bool:
        """Whether it exists and is stopped."""
        return is_stopped(self.pid)

    def read_directory(self) -> str | None:
        """Return its current directory; None where that cannot be told."""
        return read_working_directory(self.pid)

    def sample(self) -> Usage | None:
        """Return nothing: the sampler looks at all that are here, together."""
        return None


class ProcessSomewhere(ProcessHere):
    """A process of which nobody can be asked where it is and what it uses."""

    is_here = False

    def is_stopped(self) -> bool:
        """Return False: nobody knows."""
        return False

    def read_directory(self) -> str | None:
        """Return None: nobody knows."""
        return None
