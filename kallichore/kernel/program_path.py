"""Where a kernel's program is, by the rules of its operating system. [pure]

Whether files exist is asked through an argument, so that Windows' rules can be read and tested anywhere.
"""

from __future__ import annotations

import ntpath
import posixpath
from collections.abc import Callable, Iterator, Mapping

DEFAULT_PATH = "/bin:/usr/bin"
"""Where programs are looked for without a PATH, as `os.defpath` has it. On Windows that is nowhere."""

RUNNABLE = (".com", ".exe", ".bat", ".cmd")
"""What Windows starts as a process; whatever else PATHEXT has is opened by some other program."""


def find_program(
    program: str, environment: Mapping[str, str], *, directory: str, platform: str, is_file: Callable[[str], bool]
) -> str | None:
    """Return where a kernel's program is, or None. The execute permission is not looked at.

    Args:
        program: An absolute path; a bare name, looked up in ``PATH``; or a path with a slash, relative to
            ``directory``. On Windows its extension may be left out.
        environment: The kernel's own, of which ``PATH`` counts, and ``PATHEXT`` on Windows.
        directory: The session's working directory; what is relative or empty in ``PATH`` counts from there.
        platform: As ``sys.platform``.
        is_file: Whether a path is a regular file.
    """
    if not program:
        return None
    is_windows = platform == "win32"
    candidates = _on_windows(program, environment) if is_windows else _on_posix(program, environment)
    join = ntpath.join if is_windows else posixpath.join
    return next((path for candidate in candidates if is_file(path := join(directory, candidate))), None)


def _on_posix(program: str, environment: Mapping[str, str]) -> Iterator[str]:
    if "/" in program:
        yield program
        return
    for entry in environment.get("PATH", DEFAULT_PATH).split(":"):
        yield posixpath.join(entry, program)


def _on_windows(program: str, environment: Mapping[str, str]) -> Iterator[str]:
    names = _names_on_windows(program, environment.get("PATHEXT", ""))
    if ntpath.dirname(program) or ntpath.splitdrive(program)[0]:
        yield from names
        return
    for entry in environment.get("PATH", "").split(";"):
        # It passes over what is empty, and an entry may be in quotes.
        if place := entry.strip('"'):
            for name in names:
                yield ntpath.join(place, name)


def _names_on_windows(program: str, extensions: str) -> list[str]:
    """Return the names that a program may have: with each extension, and as it is; first as it is if it has one."""
    known = [extension for extension in extensions.lower().split(";") if extension in RUNNABLE] or list(RUNNABLE)
    completed = [program + extension for extension in known]
    has_one = ntpath.splitext(program)[1].lower() in known
    return [program, *completed] if has_one else [*completed, program]
