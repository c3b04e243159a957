"""Why a process did not start: Windows' errors, in the API's words."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kallichore.errors import StartupError, StartupReason
from kallichore.kernel import spawn as module
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.spawn import spawn

PLAN = LaunchPlan(argv=(r"C:\k.exe",), program=r"C:\k.exe", environment={}, working_directory="C:\\work")


@pytest.mark.parametrize(
    ("number", "taken_for", "reason"),
    [
        (2, errno.ENOENT, StartupReason.NOT_FOUND),
        (5, errno.EACCES, StartupReason.NOT_EXECUTABLE),
        (193, errno.ENOEXEC, StartupReason.BAD_INTERPRETER),
        (206, errno.ENOENT, StartupReason.BAD_ARGUMENT),
        (267, errno.ENOTDIR, StartupReason.NO_DIRECTORY),
        (740, errno.EINVAL, StartupReason.NOT_EXECUTABLE),
        (1455, errno.EINVAL, StartupReason.NO_RESOURCES),
    ],
)
async def test_windows_errors_have_reasons(
    number: int, taken_for: int, reason: StartupReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' own number counts where what Python takes it for means something else; the text is the system's."""

    async def refuse(*_: Any) -> None:
        error = OSError(taken_for, "The system's words")
        error.winerror = number
        raise error

    monkeypatch.setattr(module, "open_kernel_process", refuse)
    with pytest.raises(StartupError, match="The system's words") as refused:
        await spawn(PLAN)

    assert reason == refused.value.reason
    assert ("in the directory" in refused.value.message) == (reason is StartupReason.NO_DIRECTORY)
