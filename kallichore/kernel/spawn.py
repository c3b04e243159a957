"""Starting a kernel's process by its plan, and why it did not start, in the API's words."""

from __future__ import annotations

import errno
import os

from kallichore.errors import StartupError, StartupReason
from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.process import KernelProcess, open_kernel_process

_NO_DIRECTORY = 267
"""Windows' own error for a directory in which no program can be started; it does not name it."""

_WINDOWS_REASONS = {
    206: StartupReason.BAD_ARGUMENT,  # the command line, or the environment, is too long
    740: StartupReason.NOT_EXECUTABLE,  # only an administrator may
    1450: StartupReason.NO_RESOURCES,
    1455: StartupReason.NO_RESOURCES,  # the paging file is too small
}
"""Errors of Windows for which Python has an ``errno`` that means something else. Source: the list of system error
codes in the Win32 documentation."""


async def spawn(plan: LaunchPlan) -> KernelProcess:
    """Start a kernel's process. Cancelling leaves none behind.

    Raises:
        StartupError: ``KS-5``, there is no process.
    """
    try:
        return await open_kernel_process(plan.argv, plan.environment, plan.working_directory, plan.handles)
    except OSError as error:
        raise startup_error(plan, error) from error
    except ValueError as error:
        # A zero byte in an argument or a value, or a variable's name that is empty or has an "=" in it.
        text = f"Could not start {plan.argv[0]}: {error}"
        raise StartupError("KS-5", text, reason=StartupReason.BAD_ARGUMENT) from error


def startup_error(plan: LaunchPlan, error: OSError) -> StartupError:
    """Return why there is no process, for whoever asked for it."""
    why = error.strerror or str(error)
    is_directory = error.filename == plan.working_directory or _windows_code(error) == _NO_DIRECTORY
    if plan.working_directory is not None and is_directory:
        # It went, or was closed, since the plan was made.
        text = f"Could not start {plan.argv[0]} in the directory {plan.working_directory}: {why}"
        return StartupError("KS-5", text, exit_code=error.errno, reason=StartupReason.NO_DIRECTORY)
    text = f"Could not start {plan.argv[0]}: {why}"
    return StartupError("KS-5", text, exit_code=error.errno, reason=_reason(plan.argv[0], error))


def _windows_code(error: OSError) -> int | None:
    return getattr(error, "winerror", None)


def _reason(program: str, error: OSError) -> StartupReason:
    if found := _WINDOWS_REASONS.get(_windows_code(error) or 0):
        return found
    match error.errno:
        case errno.ENOENT if os.path.exists(program):
            # It is there, so what it names in its first line is not.
            return StartupReason.BAD_INTERPRETER
        case errno.ENOENT | errno.ENOTDIR:
            return StartupReason.NOT_FOUND
        case errno.EACCES | errno.EPERM | errno.EISDIR:
            return StartupReason.NOT_EXECUTABLE
        case errno.ENOEXEC:
            return StartupReason.BAD_INTERPRETER
        case errno.E2BIG | errno.ENAMETOOLONG:
            return StartupReason.BAD_ARGUMENT
        case errno.EAGAIN | errno.ENOMEM | errno.EMFILE | errno.ENFILE | errno.ENOSPC:
            return StartupReason.NO_RESOURCES
    return StartupReason.FAILED
