"""What Jupyter's API says of kernels and sessions, and of what went wrong. [pure]"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import attrs

from kallichore.models.bodies import Status
from kallichore.models.jupyter import KernelModel

EXECUTION_STATES = {
    Status.UNINITIALIZED: "starting",
    Status.STARTING: "starting",
    Status.READY: "idle",
    Status.IDLE: "idle",
    Status.BUSY: "busy",
    # Front ends know no other word for a kernel that is there and does not answer.
    Status.OFFLINE: "busy",
    Status.EXITED: "dead",
}


def utc_time(time: datetime) -> str:
    """Return a time as clients parse it: UTC, always with six decimals."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@attrs.frozen
class JupyterError(Exception):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        message: For people: what is wrong, and what to do.
        short: The same in a few words, where clients look for that.
    """

    status: HTTPStatus
    message: str
    short: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the answer's body: some clients show ``message``, others ``reason``."""
        body = {"message": self.message, "reason": self.status.phrase}
        return body if self.short is None else {**body, "short_message": self.short}


@attrs.define
class NotebookSession:
    """What ties a document to a kernel ("session" in Jupyter's words): VS Code and JupyterLab keep theirs this way."""

    id: str
    path: str
    name: str
    type: str
    kernel_id: str

    def model(self, kernel: KernelModel) -> dict[str, Any]:
        """Return it as it is listed."""
        body = {"id": self.id, "path": self.path, "name": self.name, "type": self.type, "kernel": attrs.asdict(kernel)}
        # From the days when all sessions were notebooks.
        return {**body, "notebook": {"path": self.path, "name": self.name}} if self.type == "notebook" else body
