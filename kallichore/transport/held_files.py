"""Files that others have open for a moment, which on Windows keeps us from replacing or removing them.

A virus scanner or an indexer looks at whatever was just written, and is done with it in a fraction of a second.
Elsewhere a file that is open can be replaced and removed, and nothing here ever waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION = 5, 32, 33

HELD = frozenset({_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION})
"""Windows' errors for a file that somebody has open. Of a file that may not be written it says the first one as well,
so that this shows only when patience has ended."""

PATIENCE = 5.0
"""Seconds that somebody may hold a file that the server needs, or removes at its end: scanners take long on a busy
machine."""

PAUSE = 0.05
"""Seconds until the next try."""


def is_held(error: OSError) -> bool:
    """Tell whether an error may be because somebody else has the file open."""
    return getattr(error, "winerror", None) in HELD


async def when_free(action: Callable[[], T], patience: float = PATIENCE) -> T:
    """Return what ``action`` returns, once nobody holds the file that it is about. Cancelling stops the tries.

    Args:
        action: Does something with a file.
        patience: Seconds that it is tried again for.

    Raises:
        OSError: As ``action`` raised it, at last or for another reason.
    """
    deadline = trio.current_time() + patience
    while True:
        try:
            return action()
        except OSError as error:
            if not is_held(error) or trio.current_time() >= deadline:
                raise
        await trio.sleep(PAUSE)
