"""IPython's advice to people, which is not for programs."""

from __future__ import annotations

from typing import Any

import pytest

from kallichore.cli.exit_warning import ExitWarning

WARNING = (
    "/lib/IPython/core/interactiveshell.py:3: UserWarning: To exit: use 'exit', 'quit', or Ctrl-D.\n"
    """  warn("To exit: use 'exit', 'quit', or Ctrl-D.", stacklevel=1)\n"""
)


def message(msg_type: str, **content: Any) -> dict[str, Any]:
    """Return a message."""
    return {"header": {"msg_type": msg_type}, "content": content}


@pytest.mark.parametrize(
    ("ename", "name", "text", "left"),
    [
        ("SystemExit", "stderr", WARNING, None),
        ("SystemExit", "stderr", f"before\n{WARNING}after\n", "before\nafter\n"),
        ("SystemExit", "stderr", "something else\n", "something else\n"),
        ("SystemExit", "stdout", WARNING, WARNING),
        ("ValueError", "stderr", WARNING, WARNING),
    ],
)
def test_warning_is_taken_out_behind_a_system_exit(ename: str, name: str, text: str, left: str | None) -> None:
    """And only there, on standard error; all else is as it was."""
    warning = ExitWarning()
    error = message("error", ename=ename)
    kept = warning.strip(error), warning.strip(message("stream", name=name, text=text))

    assert (error, None if left is None else message("stream", name=name, text=left)) == kept
