"""What a script's cells are, and what a notebook keeps of what they put out."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest
from nbformat import v4

from kallichore.cli.cells import Cell, NotANotebookError, split_script
from kallichore.cli.notebook import Outputs, clear, kernel_name, new_notebook, read_notebook, to_text


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", []),
        (" \n", []),
        ("x = 1\ny = 2\n", ["x = 1\ny = 2\n"]),
        ("# %%\nx\n# %% title\ny\n", ["x", "y"]),
        ("before\n#%%\nx", ["before", "x"]),
        ("# %%\n\n# %%\nx", ["x"]),
        ("# %% [markdown]\n# words\n# %%\nx", ["x"]),
        ("# %% notes [md]\n# words", []),
        ("print('# %% is no mark')", ["print('# %% is no mark')"]),
        ("# %%", []),
    ],
)
def test_script_is_one_cell_or_those_that_its_marks_make(text: str, sources: list[str]) -> None:
    """Lines that begin with ``# %%`` begin a cell; cells that are empty, or text, do not run."""
    assert sources == [cell.source for cell in split_script(text)]


def test_title_is_the_first_line_that_says_something() -> None:
    """It stands for a cell in a message, so it is short."""
    assert ["", "x = 1", "y" * 50] == [Cell(source).title for source in ("\n", "\n  x = 1\ny", "y" * 99)]


def test_notebooks_cells_are_those_with_code() -> None:
    """Each knows its place; the notebook knows its kernel."""
    cells = [v4.new_markdown_cell("words"), v4.new_code_cell("x"), v4.new_code_cell(" "), v4.new_code_cell("y")]
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "ir", "display_name": "R"}})
    read, found = read_notebook(nbformat.writes(notebook))

    assert [Cell("x", 1), Cell("y", 3)] == found
    assert ("ir", None) == (kernel_name(read), kernel_name(v4.new_notebook()))


@pytest.mark.parametrize("text", ["", "x = 1", "[]", '{"nbformat": 4, "nbformat_minor": 5, "cells": 1}'])
def test_what_is_no_notebook_is_refused_in_one_line(text: str) -> None:
    """Whatever its readers stumble over."""
    with pytest.raises(NotANotebookError) as caught:
        read_notebook(text)

    assert "\n" not in str(caught.value)


def test_notebook_of_an_older_format_is_converted() -> None:
    """Version 3 had its cells in worksheets."""
    cell = {"cell_type": "code", "input": "x", "language": "python", "outputs": []}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [cell], "metadata": {}}]}
    _, found = read_notebook(json.dumps(old))

    assert [Cell("x", 0)] == found


def test_notebook_of_a_script_is_valid_and_names_its_kernel() -> None:
    """What is written can be read again, and run in the same kernel."""
    notebook, cells = new_notebook([Cell("x"), Cell("y")], ("bash", "Bash", "bash"))
    notebook.cells[0].outputs = [v4.new_output("stream", text="old")]
    clear(notebook)
    again, found = read_notebook(to_text(notebook))

    assert [Cell("x", 0), Cell("y", 1)] == cells == found
    assert ("bash", []) == (kernel_name(again), again.cells[0].outputs)


# What is put out


def take(outputs: Outputs, *messages: tuple[str, dict[str, Any]]) -> list[Any]:
    """Return the outputs of an execution with these messages."""
    outputs.begin()
    for msg_type, content in messages:
        outputs.take({"header": {"msg_type": msg_type}, "content": content})
    return outputs.latest


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    """Return a stream message."""
    return "stream", {"name": name, "text": text}


def display(text: str, display_id: str | None = None, msg_type: str = "display_data") -> tuple[str, dict[str, Any]]:
    """Return a display message."""
    transient = {} if display_id is None else {"display_id": display_id}
    return msg_type, {"data": {"text/plain": text}, "metadata": {}, "transient": transient}


def shown(outputs: list[Any]) -> list[str]:
    """Return what outputs say."""
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


def test_streams_are_joined_up_to_the_next_output() -> None:
    """Of each stream, what comes in a row is one output."""
    latest = take(Outputs(), stream("a"), stream("b"), stream("c", "stderr"), stream("d"), display("x"), stream("e"))

    assert ["ab", "c", "d", "x", "e"] == shown(latest)


@pytest.mark.parametrize(("wait", "left"), [(False, []), (True, ["a"])])
def test_clear_output_clears_now_or_with_the_next_output(wait: bool, left: list[str]) -> None:
    """With ``wait``, nothing is cleared before there is something new."""
    cleared = take(Outputs(), stream("a"), ("clear_output", {"wait": wait}))
    replaced = take(Outputs(), stream("a"), ("clear_output", {"wait": wait}), stream("b"), stream("c"))

    assert left == shown(cleared)
    assert ["bc"] == shown(replaced)


def test_display_is_updated_wherever_it_is_shown() -> None:
    """In earlier cells too; an update alone puts out nothing."""
    outputs = Outputs()
    first = take(outputs, display("old", "d"), display("other"))
    second = take(outputs, display("old", "d"), display("new", "d", "update_display_data"))
    third = take(outputs, display("newest", "d", "update_display_data"))

    assert (["newest", "other"], ["newest"], []) == (shown(first), shown(second), shown(third))


def test_number_and_error_are_kept() -> None:
    """As the kernel says them."""
    outputs = Outputs()
    error = {"ename": "E", "evalue": "v", "traceback": ["t"]}
    latest = take(outputs, ("execute_input", {"code": "x", "execution_count": 7}), ("error", error))

    assert (7, [{"output_type": "error", **error}]) == (outputs.count, latest)


def test_all_of_it_is_valid() -> None:
    """nbformat has nothing to complain about."""
    notebook, _ = new_notebook([Cell("x")], ("k", "K", "k"))
    result = ("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3})
    outputs = Outputs()
    notebook.cells[0].outputs = take(outputs, stream("a"), display("x", "d"), result)
    notebook.cells[0].execution_count = outputs.count
    nbformat.validate(notebook)

    assert ["a", "x", "1"] == shown(read_notebook(to_text(notebook))[0].cells[0].outputs)
