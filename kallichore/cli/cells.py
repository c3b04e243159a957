"""What ``kcclient run`` runs: the cells of a file, in order. [pure]

A notebook's cells are those with code. A script is one cell; or, where it has lines that begin with ``# %%``, as many
as the editors make of it that know this mark.
"""

from __future__ import annotations

import re

import attrs

_MARK = re.compile(r"^# ?%%(?P<title>.*)$", re.MULTILINE)

_NO_CODE = re.compile(r"\[(markdown|md|raw)\]", re.IGNORECASE)
"""What a mark says of a cell that is text."""


class NotANotebookError(ValueError):
    """A file is no notebook; the text says why."""


@attrs.frozen
class Cell:
    """A piece of code that is one execution.

    Args:
        source: The code.
        place: Which of the notebook's cells it is, from 0; None if it is of a script.
    """

    source: str
    place: int | None = None

    @property
    def title(self) -> str:
        """The first line that says something, in short."""
        return next((line.strip()[:50] for line in self.source.splitlines() if line.strip()), "")


def split_script(text: str) -> list[Cell]:
    """Return the cells of a script; those that are empty, or text, are left out."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return [Cell(text)] if text.strip() else []
    begins = [0, *(mark.end() + 1 for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(text)]
    titles = ["", *(mark["title"] for mark in marks)]
    return [
        Cell(text[begin:end].strip("\n"))
        for begin, end, title in zip(begins, ends, titles, strict=True)
        if text[begin:end].strip() and not _NO_CODE.search(title)
    ]
