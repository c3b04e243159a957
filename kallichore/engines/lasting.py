"""Tasks that are there until others have ended by them, whoever is cancelled meanwhile."""

from __future__ import annotations

import math
from typing import Any

import trio


def start_lasting(scope: trio.CancelScope, task_status: trio.TaskStatus[Any], value: Any) -> None:
    """Say that a task has started, and have nobody cancel it any more but by its own scope.

    A task whose starter was cancelled in this very moment stays with that one, which waits for its end (see
    `trio.TaskStatus.started`): so it has to notice the cancellation, and is not shielded.

    Args:
        scope: What the task runs in.
        task_status: Of the task.
        value: What its starter is given.
    """
    is_cancelled = trio.current_effective_deadline() == -math.inf
    task_status.started(value)
    scope.shield = not is_cancelled
