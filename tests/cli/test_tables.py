"""Tables: columns in line, no line broken, nothing that acts on a terminal."""

from __future__ import annotations

from kallichore.cli.tables import format_table


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    """Letters that take two columns count as two; no line ends with spaces."""
    lines = format_table(("A", "Name"), [("日本", "x"), ("a", "")])

    assert ["A     Name", "日本  x", "a"] == lines


def test_long_paths_stay_whole() -> None:
    """However narrow the terminal is."""
    path = "/a/" + "long/" * 100

    assert f"x  {path}" == format_table(("N", "Where"), [("x", path)])[1]


def test_names_cannot_act() -> None:
    """What others chose is shown with what could act escaped."""
    assert r"a\x1b[2Jb\n" == format_table(("N",), [("a\x1b[2Jb\n",)])[1]
