"""Notebooks by nbformat's rules: read, filled with outputs as messages come, written as text. [pure]

Imported only by who needs it: nbformat takes a third of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import nbformat
from nbformat import v4

from kallichore.cli.cells import Cell, NotANotebookError

_OUTPUTS = {"stream", "display_data", "execute_result", "error"}

_VERSION = 4
"""The format's version in which notebooks are handled; older ones are converted."""


def read_notebook(text: str) -> tuple[Any, list[Cell]]:
    """Return a notebook and its cells with code.

    Raises:
        NotANotebookError: It is none.
    """
    try:
        notebook = nbformat.reads(text, as_version=_VERSION)
        nbformat.validate(notebook)
        cells = [
            Cell(cell.source, place)
            for place, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and cell.source.strip()
        ]
    except Exception as error:  # its readers raise what they stumble over
        reason = str(error).partition("\n")[0]
        raise NotANotebookError(reason) from error
    return notebook, cells


def new_notebook(cells: Sequence[Cell], kernel: tuple[str, str, str]) -> tuple[Any, list[Cell]]:
    """Return a notebook with these cells, and the cells with their places in it.

    Args:
        cells: The cells.
        kernel: The kernel's name, its name for people, and its language.
    """
    name, display_name, language = kernel
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell.source) for cell in cells])
    notebook.metadata.kernelspec = {"name": name, "display_name": display_name, "language": language}
    return notebook, [attrs.evolve(cell, place=place) for place, cell in enumerate(cells)]


def clear(notebook: Any) -> None:
    """Forget what cells put out when they ran before."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def kernel_name(notebook: Any) -> str | None:
    """Return the name of the kernel that a notebook is for; None where it does not say."""
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return str(name) if name else None


def to_text(notebook: Any) -> str:
    """Return a notebook as its file has it."""
    return str(nbformat.writes(notebook)) + "\n"


@attrs.define
class Outputs:
    """Collects what executions put out, as a notebook's cells have it.

    Streams are joined, ``clear_output`` clears, and a display that is updated changes wherever it is shown, also in
    earlier cells.
    """

    latest: list[Any] = attrs.field(factory=list, init=False)
    """The outputs of the execution that began last."""
    count: int | None = attrs.field(default=None, init=False)
    """The number that the kernel gave it."""
    _is_to_clear: bool = attrs.field(default=False, init=False)
    _displays: dict[str, list[Any]] = attrs.field(factory=dict, init=False)

    def begin(self) -> None:
        """Begin with the outputs of another execution."""
        self.latest, self.count, self._is_to_clear = [], None, False

    def take(self, message: dict[str, Any]) -> None:
        """Take in a message of the execution."""
        msg_type, content = message["header"]["msg_type"], message["content"]
        count = content.get("execution_count")
        if msg_type in ("execute_input", "execute_reply") and isinstance(count, int):
            self.count = count
        elif msg_type == "clear_output":
            self._is_to_clear = bool(content.get("wait"))
            if not self._is_to_clear:
                self.latest.clear()
        elif msg_type == "update_display_data":
            self._update(content)
        elif msg_type in _OUTPUTS:
            self._add(msg_type, content)

    def add_stream(self, name: str, text: str) -> None:
        """Add what a process printed when nothing ran."""
        self._add("stream", {"name": name, "text": text})

    def _add(self, msg_type: str, content: dict[str, Any]) -> None:
        if self._is_to_clear:
            self.latest.clear()
            self._is_to_clear = False
        last = self.latest[-1] if self.latest else None
        if msg_type == "stream" and last is not None and last.get("name") == content["name"]:
            last["text"] += content["text"]
            return
        output = v4.output_from_msg({"header": {"msg_type": msg_type}, "content": {"metadata": {}, **content}})
        self.latest.append(output)
        display_id = (content.get("transient") or {}).get("display_id")
        if display_id is not None:
            self._displays.setdefault(str(display_id), []).append(output)

    def _update(self, content: dict[str, Any]) -> None:
        display_id = (content.get("transient") or {}).get("display_id")
        for output in self._displays.get(str(display_id), ()):
            output["data"] = nbformat.from_dict(content["data"])
            output["metadata"] = nbformat.from_dict(content.get("metadata") or {})
