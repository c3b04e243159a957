"""What ssh and the shell at its other end say when something does not work. [pure]

ssh's exit code tells little: 255 for all that it does not like itself, for a connection that was lost, and for a
command that a signal ended. So its words are read, in English as it has no others.
"""

from __future__ import annotations

import re
from enum import Enum

import attrs

SSH_FAILED = 255
"""ssh's exit code where it failed itself."""

NO_PROGRAM = (126, 127)
"""The exit codes of shells that could not run a command."""

LONGEST_WORDS = 300
"""Characters of what is told of a complaint."""


class Trouble(Enum):
    """What does not work."""

    NO_NAME = "does not know its name"
    NO_WAY = "cannot reach it"
    CHANGED = "does not trust it, as its host key is another than before"
    UNKNOWN = "does not trust it, as its host key is not known here"
    DENIED = "is not let in"
    MISUSED = "cannot work with its configuration"
    NO_PYTHON = "finds no Python there"
    MISSING = "cannot be run here"
    SILENT = "does not answer"
    LOST = "lost the connection"
    REFUSED = "started no host there"
    FAILED = "could run nothing there"

    @property
    def is_refusal(self) -> bool:
        """Whether what was to be run does not run over there, and trying again at once would not help."""
        return self not in (Trouble.LOST, Trouble.SILENT, Trouble.FAILED)


_SAYINGS = (
    (Trouble.MISUSED, r"Bad configuration option|terminating, \d+ bad|Can't open user config|Bad owner or permissions"),
    (Trouble.MISUSED, r"line \d+: .*(?:[Uu]nsupported|[Bb]ad|[Mm]issing|[Ii]nvalid)|unknown option|illegal option"),
    (Trouble.NO_NAME, r"Could not resolve hostname"),
    (Trouble.CHANGED, r"Host key .*has changed"),
    (Trouble.UNKNOWN, r"host key is known for|Host key verification failed"),
    (Trouble.DENIED, r"Permission denied \(|Too many authentication failures"),
    (Trouble.NO_WAY, r"connect to (?:host|address) .* port|open failed: |[Nn]o route to host|Network is unreachable"),
    (Trouble.NO_WAY, r"banner exchange|Unable to negotiate|Protocol major versions differ"),
)
"""What is said in each trouble; the first that is found is the one. Proxies and jump hosts say it before ssh does."""

_LOST = re.compile(
    r"Connection (?:closed|reset)|closed by remote host|not responding|[Bb]roken pipe|timed out|kex_exchange"
    r"|client_loop|Connection to .* closed"
)

_NOT_FOUND = re.compile(r"(?i)not found|unknown command|no such file or directory|is a directory|permission denied")
"""What shells say of a program that is not there or cannot be run."""

_NOT_FOUND_BY_CSH = re.compile(r"^\S+: Command not found\.$")
"""The same from csh, whose exit code is that of any failure."""

_NOISE = re.compile(r"^(?:@+|\*\*.*|debug\d:.*|\s*)$")


@attrs.frozen
class Complaint:
    """Why ssh did not do what it was to do.

    Attributes:
        trouble: What kind of trouble it is.
        words: Its own words, one line.
    """

    trouble: Trouble
    words: str

    def describe(self, host: str) -> str:
        """Return a sentence for people.

        Args:
            host: The machine, as ssh knows it.
        """
        words = f": {self.words}" if self.words else ""
        return f"ssh to {host} {self.trouble.value}{words}"


def read_complaint(code: int, said: str) -> Complaint:
    """Return what did not work.

    Args:
        code: ssh's exit code, which is not 0; negative if a signal ended it.
        said: What came on its standard error.
    """
    lines = [line.strip() for line in said.splitlines() if not _NOISE.match(line)]
    if code == SSH_FAILED:
        for trouble, saying in _SAYINGS:
            for line in lines:
                if re.search(saying, line):
                    return Complaint(trouble, _shorten(line))
        lost = [line for line in lines if _LOST.search(line)]
        return Complaint(Trouble.LOST, _shorten(lost[0] if lost else (lines or [""])[-1]))
    if code < 0:
        return Complaint(Trouble.LOST, f"ssh was ended by signal {-code}")
    not_found = _NOT_FOUND if code in NO_PROGRAM else _NOT_FOUND_BY_CSH
    missing = [line for line in lines if not_found.search(line)]
    last = (missing or lines or [f"exit code {code}"])[-1]
    trouble = Trouble.NO_PYTHON if missing or code in NO_PROGRAM else Trouble.FAILED
    return Complaint(trouble, _shorten(last))


def _shorten(line: str) -> str:
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 3] + "..."
