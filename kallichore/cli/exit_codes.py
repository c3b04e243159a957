"""What kcclient's exit codes mean, and which one an execution ends with. [pure]

docs/reference/kcclient.md has them as a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORKED = 0

FAILED = 1
"""The code raised an error, the kernel ended before it was done, or the server refused."""

WRONG_USE = 2
"""The command line cannot be meant, or more than one session could be."""

TIME_IS_UP = 124
"""The time that ``--timeout`` gives the code is up: as of timeout(1)."""

INTERRUPTED = 130
"""Ctrl-C: 128 and the number of SIGINT, as shells have it."""

LARGEST = 0xFF
"""What a process can end with, at most: what is larger loses its higher bits, as in Python."""


def of_reply(reply: Mapping[str, Any]) -> int:
    """Return the exit code for the content of an ``execute_reply``: what Python itself would end with."""
    if reply.get("status") == "ok":
        return _of_exit_wish(reply)
    match reply.get("ename"):
        case "SystemExit":
            return _of_system_exit(str(reply.get("evalue", "")))
        case "KeyboardInterrupt":
            return INTERRUPTED
    return FAILED


def wants_exit(reply: Mapping[str, Any]) -> bool:
    """Tell whether code asked for the end: ``exit()`` or ``sys.exit()``, with whatever code."""
    return reply.get("ename") == "SystemExit" or _exit_wish(reply) is not None


def _exit_wish(reply: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the payload by which IPython's ``exit()`` asks its client to end (messaging spec, "Payloads")."""
    payloads = reply.get("payload") or ()
    return next((payload for payload in payloads if payload.get("source") == "ask_exit"), None)


def _of_exit_wish(reply: Mapping[str, Any]) -> int:
    wish = _exit_wish(reply)
    # IPython takes the number of exit(3) for another parameter of its own, and hands it on.
    number = 0 if wish is None else wish.get("keepkernel", 0)
    return number & LARGEST if isinstance(number, int) and not isinstance(number, bool) else WORKED


def _of_system_exit(value: str) -> int:
    if value in ("", "None", "False"):
        return WORKED
    try:
        return int(value) & LARGEST
    except ValueError:
        # A message, which Python prints on standard error.
        return FAILED
