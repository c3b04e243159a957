"""What an execution's reply means for a script: the exit code, as Python itself would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kallichore.cli import exit_codes

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kcclient.md"


def error(name: str, value: str) -> dict[str, Any]:
    """Return the reply to code that raised an error."""
    return {"status": "error", "ename": name, "evalue": value}


def exit_wish(keep: Any) -> dict[str, Any]:
    """Return ipykernel's reply to ``exit()``."""
    return {"status": "ok", "payload": [{"source": "ask_exit", "keepkernel": keep}]}


@pytest.mark.parametrize(
    ("reply", "code", "is_end"),
    [
        ({"status": "ok"}, 0, False),
        ({"status": "ok", "payload": [{"source": "page", "data": {}}]}, 0, False),
        (error("ValueError", "3"), 1, False),
        ({"status": "aborted"}, 1, False),
        ({}, 1, False),
        (error("KeyboardInterrupt", ""), 130, False),
        (error("SystemExit", "3"), 3, True),
        (error("SystemExit", "0"), 0, True),
        (error("SystemExit", ""), 0, True),
        (error("SystemExit", "None"), 0, True),
        (error("SystemExit", "False"), 0, True),
        (error("SystemExit", "True"), 1, True),
        (error("SystemExit", "256"), 0, True),
        (error("SystemExit", "-1"), 255, True),
        (error("SystemExit", "out of milk"), 1, True),
        (exit_wish(False), 0, True),
        (exit_wish(True), 0, True),
        (exit_wish(4), 4, True),
    ],
)
def test_reply_becomes_the_exit_code_that_python_would_have(reply: dict[str, Any], code: int, is_end: bool) -> None:
    """Numbers are what code asks for, errors 1, an interrupt 130; who asks for the end wants nothing more to run."""
    assert (code, is_end) == (exit_codes.of_reply(reply), exit_codes.wants_exit(reply))


def test_every_exit_code_is_in_the_table() -> None:
    """The page about kcclient lists each code that it can end with by itself."""
    codes = {value for name, value in vars(exit_codes).items() if name.isupper() and name != "LARGEST"}
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = (line.split("|")[1].strip(" `") for line in lines if line.startswith("| `"))
    listed = {int(cell) for cell in first if cell.isdecimal()}

    assert codes == listed
