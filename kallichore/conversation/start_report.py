"""Why a start came to nothing, where the kernel's process has ended, out of what is known about it. [pure]"""

from __future__ import annotations

import attrs

from kallichore.errors import StartupError, StartupReason
from kallichore.kernel.ending import Ending
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.output import StartupRecord

NOT_CONNECTED = 130
"""The exit code that the API reports for a kernel whose sockets could not be reached."""


@attrs.frozen
class FailedStart:
    """What was known of a start when the kernel's process ended.

    Args:
        plan: What was launched.
        record: What it printed.
        failure: Why it was ended, if the wait for it failed.
        was_asked_to_stop: Whether somebody else ended it.
        in_handshake: Whether it had not registered yet (JEP 66).
    """

    plan: LaunchPlan
    record: StartupRecord
    failure: StartupError | None
    was_asked_to_stop: bool
    in_handshake: bool

    def as_error(self, ending: Ending) -> StartupError:
        """Return what who waits for the start is told."""
        output, failure = self.record.text, self.failure
        if failure is not None:
            code = None if failure.code == "KS-17" else NOT_CONNECTED
            return StartupError(
                failure.code, failure.message, failure.details, exit_code=code, output=output, reason=failure.reason
            )
        if self.was_asked_to_stop:
            text, reason = "The start was given up because the kernel was asked to stop", StartupReason.GIVEN_UP
            return StartupError("KS-8", text, exit_code=ending.code, output=output, reason=reason)
        text = f"The kernel's process {ending.describe()} while it was starting"
        details = self.record.diagnose(self.plan, "exit")
        api_code = "KS-14" if self.in_handshake else "KS-8"
        return StartupError(api_code, text, details, exit_code=ending.code, output=output, reason=self._reason(ending))

    def _reason(self, ending: Ending) -> StartupReason:
        if self.plan.stage is not None and not self.record.succeeded:
            return StartupReason.STARTUP_FAILED
        return StartupReason.EXITED if ending.signal is None else StartupReason.KILLED
