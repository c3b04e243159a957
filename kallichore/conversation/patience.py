"""How long a kernel that can be reached may take to say who it is.

Kernels may run start-up files for minutes, so there is no limit for one that answers its heartbeat. One that answers
nothing gets the session's connection timeout, and so does one whose answers have to be dropped: it will not do better.
"""

from __future__ import annotations

import attrs

from kallichore.errors import StartupReason


@attrs.define
class StartPatience:
    """The wait for one kernel's answer; times are seconds of the caller's clock.

    Args:
        limit: Seconds that it may answer nothing, or nothing that can be understood; infinite for no limit.
        connected: When its sockets were connected.
    """

    limit: float
    _silent_since: float | None = attrs.field(alias="connected")
    """Since when it answers no heartbeat; None while it does."""
    _never_alive: bool = attrs.field(default=True, init=False)
    _refused_since: float | None = attrs.field(default=None, init=False)
    _refused: str = attrs.field(default="", init=False)

    def hear_heartbeat(self) -> None:
        """Note that the kernel answers its heartbeat."""
        self._silent_since, self._never_alive = None, False

    def miss_heartbeat(self, now: float) -> None:
        """Note that it does not."""
        if self._silent_since is None:
            self._silent_since = now

    def refuse(self, reason: str, now: float) -> None:
        """Note that a message of it had to be dropped, and why."""
        self._refused = reason
        if self._refused_since is None:
            self._refused_since = now

    @property
    def ends_at(self) -> float:
        """When it is over, if nothing happens until then."""
        begins = [since for since in (self._silent_since, self._refused_since) if since is not None]
        return min(begins, default=float("inf")) + self.limit

    def complaint(self) -> tuple[str, StartupReason]:
        """Return what is to be said when it is over, in words and in one word."""
        within = f"within {self.limit:g} seconds"
        if self._refused_since is not None:
            text = f"The kernel did not answer kernel_info_request {within}: what it sent was dropped, {self._refused}"
            return text, StartupReason.NOT_UNDERSTOOD
        if self._never_alive:
            text = f"The kernel did not answer on its heartbeat, nor kernel_info_request, {within}"
            return text, StartupReason.SILENT
        text = f"The kernel fell silent before it told who it is, for more than {self.limit:g} seconds"
        return text, StartupReason.SILENT
