"""Lines on standard input."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.agents.standard_streams import LARGEST_LINE, Lines


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and line.strip())), st.integers(1, 9))
def test_lines_come_whole_however_they_are_cut(lines: list[bytes], size: int) -> None:
    """Lines come out as they went in, whatever pieces they arrive in; empty lines are none."""
    data = b"\n\n".join([*lines, b""])
    reader = Lines()
    found = [line for start in range(0, len(data), size) for line in reader.feed(data[start : start + size])]

    assert lines == found


def test_line_without_end_is_refused() -> None:
    """A message that does not end is given up before it takes the memory."""
    reader = Lines()
    with pytest.raises(ValueError, match="longer"):
        for _ in range(100):
            reader.feed(b"x" * (LARGEST_LINE // 50))
