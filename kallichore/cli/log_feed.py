"""From Python's logging to the log that the server shows over its API.

Apart from `kallichore.cli.logs`, which is loaded before anything large is.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import trio

from kallichore.cli.logs import level_name


class LineLogHandler(logging.Handler):
    """Gives the server's log to those who read it over the API; records may come from any thread."""

    def __init__(self, append: Callable[[str, str, str], None]) -> None:
        """``append`` takes level, text and time, in the thread that makes this handler."""
        super().__init__()
        self._append = append
        self._token = trio.lowlevel.current_trio_token()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arguments = level_name(record), record.getMessage(), time
        try:
            trio.lowlevel.current_trio_token()
        except RuntimeError:
            # Another thread's, or the run is over.
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._append, *arguments)
        else:
            self._append(*arguments)
