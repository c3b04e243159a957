"""Where the server's log lines go: a file that is there from the start, and the console, which may not be read.

Launchers start the server with pipes that nobody drains, or with closed streams. So console lines are written by a
thread of their own from a bounded queue: when the reader does not come, lines are dropped, and nothing ever waits.
The file gets each line at once; people watch it while the server runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from kallichore.cli import escapes
from kallichore.errors import ConfigurationError

TRACE = 5

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_COLOURS = {"ERROR": "31", "WARN": "33", "INFO": "32", "DEBUG": "36", "TRACE": "35"}

QUEUED_LINES = 10_000
"""Console lines that wait for a reader; what comes beyond is dropped."""

FLUSH_PATIENCE = 0.5
"""Seconds that the end of the process waits for the console to take its last lines."""


def choose_level(option: str | None, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the log level's name, and the value that was not understood, if any.

    The option counts first, then ``KALLICHORE_LOG``, then ``RUST_LOG``, else it is ``info``.
    """
    asked = option if option is not None else environ.get("KALLICHORE_LOG", environ.get("RUST_LOG"))
    if asked is None or asked in LEVELS:
        return asked or "info", None
    return "info", asked


def level_name(record: logging.LogRecord) -> str:
    """Return a record's level as our options name it, in capitals."""
    return {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(record.levelname, record.levelname)


class LineFormatter(logging.Formatter):
    """``HH:MM:SS [LEVEL] message``, in UTC; DEBUG says where from, TRACE exactly where from."""

    converter = staticmethod(time.gmtime)

    def __init__(self, *, colours: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without an ending."""
        level = level_name(record)
        shown = f"\x1b[{_COLOURS.get(level, '0')}m{level}\x1b[0m" if self._colours else level
        origin = ""
        if record.levelno <= logging.DEBUG:
            place = f"[{record.filename}:{record.lineno}] " if record.levelno <= TRACE else ""
            origin = f"({record.thread}) {record.name}: {place}"
        # What clients send, a session's id for one, must neither look like another line nor act on a terminal.
        message = escapes.one_line(record.getMessage())
        line = f"{self.formatTime(record, self.datefmt)} [{shown}] {origin}{message}"
        if not record.exc_info:
            return line
        # Set in, as an error's text may have lines that look like ours.
        trace = escapes.lines(self.formatException(record.exc_info)).replace("\n", "\n  ")
        return f"{line}\n  {trace}"


class Console:
    """Standard output and error, written to by a thread that may wait as long as it likes."""

    def __init__(self) -> None:
        self._lines: queue.Queue[tuple[int, bytes]] = queue.Queue(QUEUED_LINES)
        threading.Thread(target=self._write, name="console", daemon=True).start()

    def put(self, line: str, descriptor: int = 1) -> None:
        """Write a line, soon, or drop it if too many wait."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait((descriptor, line.encode("utf-8", "replace") + b"\n"))

    def _write(self) -> None:
        while True:
            descriptor, line = self._lines.get()
            # A closed stream or a reader that is gone: there is nobody to tell.
            with contextlib.suppress(OSError):
                while line:
                    line = line[os.write(descriptor, line) :]
            self._lines.task_done()

    def flush(self) -> None:
        """Wait for the lines to be written, at most `FLUSH_PATIENCE`."""
        deadline = time.monotonic() + FLUSH_PATIENCE
        with self._lines.all_tasks_done:
            while self._lines.unfinished_tasks and (left := deadline - time.monotonic()) > 0:
                self._lines.all_tasks_done.wait(left)


class ConsoleHandler(logging.Handler):
    """Sends errors to standard error, everything else to standard output."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        colours = "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
        self._formatters = {fd: LineFormatter(colours=colours and os.isatty(fd)) for fd in (1, 2)}

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        descriptor = 2 if record.levelno >= logging.ERROR else 1
        self._console.put(self._formatters[descriptor].format(record), descriptor)


class FileHandler(logging.Handler):
    """Writes each line to the log file at once. Where the disk takes no more, the console is told, and that is all."""

    def __init__(self, descriptor: int, console: Console) -> None:
        super().__init__()
        self.setFormatter(LineFormatter(colours=False))
        self._descriptor = descriptor
        self._console = console
        self._refused = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or lose it."""
        line = self.format(record).encode("utf-8", "replace") + b"\n"
        # What was refused may have been so in the middle of a line.
        rest = b"\n" + line if self._refused else line
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if not self._refused:
                self._console.put(f"Lines are missing in the log file: {error.strerror}", 2)
            self._refused = True
        else:
            self._refused = False


def keep_standard_streams() -> None:
    """Put the null device where standard streams are closed, or a socket would get their number and our lines."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def set_level(name: str) -> None:
    """Log from this level on."""
    logging.getLogger().setLevel(LEVELS[name])


_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Not waited for: somebody who reads a pipe of that name, and a terminal that takes no more."""


def _open_log(path: Path) -> int:
    """Return the descriptor of a log file, which is empty and its owner's only; or of a device such as /dev/null.

    Raises:
        ConfigurationError: It cannot be made, or is something else.
    """
    try:
        if path.exists() and not _can_hold_a_log(path.stat().st_mode):
            raise ConfigurationError(f"The log file {path} is no regular file; choose another --log-file")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | _NO_WAITING, 0o600)
        try:
            found = os.fstat(descriptor)
            if not _can_hold_a_log(found.st_mode):
                raise ConfigurationError(f"The log file {path} is no regular file; choose another --log-file")
            if stat.S_ISREG(found.st_mode):
                os.ftruncate(descriptor, 0)
                _make_private(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise ConfigurationError(f"Could not make the log file {path}: {error.strerror}") from error
    return descriptor


def _make_private(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        from kallichore.transport.private_files import make_private

        make_private(path)
    else:
        os.chmod(descriptor, 0o600)


def _can_hold_a_log(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISCHR(mode)


def set_up_logging(level: str, log_file: Path | None, console: Console) -> None:
    """Send the log to the console, and to a file of its owner's only, made anew.

    Raises:
        ConfigurationError: The file cannot be made.
    """
    logging.addLevelName(TRACE, "TRACE")
    handlers: list[logging.Handler] = [ConsoleHandler(console)]
    if log_file is not None:
        handlers.append(FileHandler(_open_log(log_file), console))
    root = logging.getLogger()
    root.handlers[:] = handlers
    set_level(level)
    logging.raiseExceptions = False
