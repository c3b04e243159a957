"""Batch files as kernels' programs: what they are given is what they get, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kallichore.kernel.batch_files import batch_command_line, is_batch_file

SHELL = r"C:\Windows\System32\cmd.exe"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (r"C:\k.bat", True),
        ("k.CMD", True),
        (r"C:\k.bat. .", True),
        (r"C:\k.exe", False),
        (r"C:\k.bat\python", False),
        ("bat", False),
        ("", False),
    ],
)
def test_batch_files_are_known_by_their_names(program: str, expected: bool) -> None:
    """In upper case too, and with the spaces and dots at the end that Windows passes over."""
    assert expected == is_batch_file(program)


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("plain", '"plain"'),
        ("", '""'),
        ("two words", '"two words"'),
        ("a&calc", '"a&calc"'),
        ("^|<>()!", '"^|<>()!"'),
        ('a"&calc', '"a""&calc"'),
        ('a\\"', r'"a\\"""'),
        ("C:\\directory\\", r'"C:\directory\\"'),
        (r"\\host\share", r'"\\host\share"'),
    ],
)
def test_each_argument_is_in_quotes(argument: str, quoted: str) -> None:
    """Whatever it is; a quote in it is doubled, as are backslashes that would be taken for a part of a quote."""
    line = batch_command_line(("k.bat", argument), SHELL)

    assert rf'"C:\Windows\System32\cmd.exe" /d /e:on /v:off /s /c ""k.bat" {quoted}"' == line


@pytest.mark.parametrize("odd", ["%PATH%", "100%", "a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("place", [0, 1])
def test_what_quotes_do_not_protect_is_refused(odd: str, place: int) -> None:
    """Rather no kernel than one with other arguments, or another program: in the file's own name, too."""
    argv = ["C:\\k.bat", "-f"]
    argv[place] += odd

    with pytest.raises(ValueError, match=r"it is a batch file, and .* cannot be passed to one"):
        batch_command_line(argv, SHELL)


def outside_of_quotes(line: str) -> str:
    """Return what cmd.exe takes for its own: each quote begins or ends a part that it leaves alone."""
    return "".join(line.split('"')[::2])


@given(st.lists(st.text(st.characters(exclude_characters="%\r\n\0"), max_size=20), max_size=4))
def test_nothing_of_an_argument_is_read_by_the_shell(arguments: list[str]) -> None:
    """However many quotes are in an argument, all of it is within quotes: only spaces are outside."""
    line = batch_command_line(["k.bat", *arguments], SHELL)
    # As cmd.exe has it after it took the first quote and the last away.
    command = line.partition(" /c ")[2][1:-1]

    assert "" == outside_of_quotes(command).strip(" ")
    assert command.count('"') % 2 == 0
