"""The page that says what clients have confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kallichore.state.confirmed_page import NAME, ConfirmedPage, read_confirmed

pytestmark = pytest.mark.posix_only("state directories are for Linux and macOS")


@pytest.mark.parametrize("number", [0, 1, 7, 1 << 40, (1 << 64) - 1])
def test_number_is_there_for_the_next_process(tmp_path: Path, number: int) -> None:
    """It is in the file as soon as it is noted, whoever closes the page."""
    page = ConfirmedPage(tmp_path)
    page.note(3)
    page.note(number)

    assert ConfirmedPage(tmp_path).number == number


def test_who_only_looks_makes_no_page(tmp_path: Path) -> None:
    """It can be read without being made or opened for writing."""
    before, is_there = read_confirmed(tmp_path), (tmp_path / NAME).exists()
    ConfirmedPage(tmp_path).note(12)

    assert (before, is_there, read_confirmed(tmp_path)) == (0, False, 12)


def test_new_page_says_nothing(tmp_path: Path) -> None:
    """Nobody has confirmed anything yet; and the file is its owner's alone."""
    assert ConfirmedPage(tmp_path).number == 0
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"\x05", bytes(16), b"\x05" + bytes(15), b"\xff" * 16, b"x" * 100])
def test_damaged_page_says_nothing(tmp_path: Path, content: bytes) -> None:
    """What was cut or turned is no number: nothing is taken as confirmed that may not be."""
    (tmp_path / NAME).write_bytes(content)
    page = ConfirmedPage(tmp_path)

    assert page.number == 0
    page.note(9)
    assert page.number == 9
