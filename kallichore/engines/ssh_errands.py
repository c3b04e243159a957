"""What is run at the other end of an SSH connection, as one line of Python each, and what it answers. [pure]

The programs are `kallichore/host/errands.py` and `relay.py` beside it. They travel as an argument: that leaves standard
input to who has bytes for the host, and there is nothing secret in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kallichore.engines.host_program import OLDEST, as_argument
from kallichore.host import ERRANDS_PROGRAM, RELAY_PROGRAM

MARK = b"<kallichore>"
"""What comes before a host's bytes; what comes before it was printed by a login shell."""

SAID = "kallichore: "
"""What the line of an answer begins with, see `errands.py`."""

_VERSION = ".".join(map(str, OLDEST))

_BEGINNING = (
    "import sys;"
    f'sys.version_info<{OLDEST[0], OLDEST[1]} and sys.exit("Python {_VERSION} or later is needed,'
    ' and this is "+sys.version.split()[0]);'
    'sys.path[:1]==[""] and sys.path.pop(0);'
)
"""In a syntax that every Python understands: which one this is, and that a file which lies around in the home is not
taken for one of Python's own."""


def errand(function: str, *arguments: str) -> str:
    """Return a line of Python that runs one of the functions of ``errands.py``."""
    script = f"import sys\n{_load('errands', ERRANDS_PROGRAM.read_text('utf-8'))}"
    return _line(f"{script}sys.exit(errands[{function!r}]{arguments!r})")


def relay_errand(name: str) -> str:
    """Return a line of Python that carries standard input and output to a host and back, after `MARK`.

    Args:
        name: What the host is called, as it was told.
    """
    programs = {"errands": ERRANDS_PROGRAM, "relay": RELAY_PROGRAM}
    script = "".join(_load(each, program.read_text("utf-8")) for each, program in programs.items())
    return _line(f"import sys\n{script}sys.exit(errands['reach']({name!r}, {MARK.decode()!r}, relay['relay']))")


def _load(name: str, program: str) -> str:
    """Return what runs a program in names of its own: each begins with what has to be at the beginning."""
    return f"{name} = {{'__name__': {name!r}}}\nexec({program!r}, {name})\n"


def _line(script: str) -> str:
    return _BEGINNING + as_argument(script.encode())


def read_answer(said: str) -> Mapping[str, Any] | None:
    """Return what an errand said; None if it did not.

    Args:
        said: All that came, with what others printed.
    """
    lines = [line[len(SAID) :] for line in said.splitlines() if line.startswith(SAID)]
    try:
        answer = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def describe_gone(left: Mapping[str, Any], host: str, age: float) -> str:
    """Return why a host is not there any more, as far as its machine tells.

    Args:
        left: What ``look`` or ``reach`` has answered.
        host: The machine, as ssh knows it.
        age: Seconds since the host was to be started.
    """
    uptime = left.get("uptime")
    if isinstance(uptime, int | float) and uptime < age:
        return f"{host} was started anew {_in_words(uptime)} ago, which ended all that ran there"
    if not left.get("left"):
        return f"its host was ended on {host}, and has left nothing there"
    words = f" ends with: {left['log']}" if left.get("log") else " says nothing"
    return f"its host was ended on {host}; the log in {left['left']}{words}"


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{round(seconds)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 7200 else f"{round(seconds / 3600)} hours"
