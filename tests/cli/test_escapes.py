"""What others wrote is shown, and does nothing: in the log, in lists, in errors, and in what code printed."""

from __future__ import annotations

import logging
import sys
import unicodedata

import pytest
from hypothesis import given, strategies as st

from kallichore.cli.escapes import coloured, lines, one_line
from kallichore.cli.logs import LineFormatter
from kallichore.cli.show import Printer, print_json, show_log_line

EVIL = "a\x1b]0;title\x07b\x9b2Jc\x85d\u2028e\r\nf\x7fg\u202eh\x00"


@given(st.text())
def test_one_line_is_one_line_and_shows_everything(text: str) -> None:
    """Nothing that acts is left, nothing that does not is changed, and however lines are told apart, there is one."""
    shown = one_line(text)

    assert len(shown.splitlines()) <= 1
    assert [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") and c != "\t"] == []
    assert text == shown or any(not c.isprintable() for c in text)


@given(st.text())
def test_lines_are_those_of_line_feeds(text: str) -> None:
    """In longer texts a line feed is one, and nothing else is."""
    assert (
        lines(text).splitlines()
        == [one_line(line) for line in text.replace("\r\n", "\n").split("\n")][: len(lines(text).splitlines())]
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢 \N{WOMAN}\u200d\N{PERSONAL COMPUTER}", "plain ü 漢 \N{WOMAN}\u200d\N{PERSONAL COMPUTER}"),
        ("a\nb\rc\td", "a\\nb\\rc\td"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x85\u2028\u2029", "\\x85\\u2028\\u2029"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_acts_is_an_escape(text: str, shown: str) -> None:
    """Letters of all kinds stay, also those that are joined; commands, line ends and turns of direction do not."""
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m\n", "\x1b[1;31mred\x1b[0m\n"),
        ("\x1b[38;5;9m \x1b[38:2::1:2:3m\x1b[m", "\x1b[38;5;9m \x1b[38:2::1:2:3m\x1b[m"),
        ("10 %\r20 %\b", "10 %\r20 %\b"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"),
        ("\x1b[2J\x1b[H\x1b[6n\x1bc", "\\x1b[2J\\x1b[H\\x1b[6n\\x1bc"),
        ("\x9b31m", "\\x9b31m"),
        ("\x1b[31", "\\x1b[31"),
    ],
)
def test_code_may_colour_and_no_more(text: str, shown: str) -> None:
    """What code prints has its colours; it does not clear the screen, set titles, or write to the clipboard."""
    assert coloured(text) == shown


def test_log_has_one_line_for_one_record() -> None:
    """An id with line ends and commands in it stays within its line; an error's lines are set in below theirs."""
    try:
        raise ValueError("12:00:00 [INFO] x\n12:00:00 [INFO] forged\x1b[2J")
    except ValueError:
        information = sys.exc_info()
    plain = logging.LogRecord("n", logging.INFO, "f", 1, "get_session(%s)", (EVIL,), None)
    failed = logging.LogRecord("n", logging.ERROR, "f", 1, "failed", (), information)
    formatter = LineFormatter(colours=False)

    assert len(formatter.format(plain).splitlines()) == 1
    assert "\x1b" not in formatter.format(plain) + formatter.format(failed)
    assert [line[:2] for line in formatter.format(failed).splitlines()[1:]] == ["  "] * (
        len(formatter.format(failed).splitlines()) - 1
    )


def test_what_is_printed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of logs, results, errors and JSON: none of them brings a command of a kernel's to the terminal."""
    show_log_line({"time": "t", "stream": "stdout", "text": EVIL}, as_json=False)
    show_log_line({"time": "t", "stream": "stdout", "text": EVIL}, as_json=True)
    print_json({"session_id": EVIL})
    printer = Printer()
    stream = {"header": {"msg_type": "stream"}, "content": {"name": "stdout", "text": f"\x1b[32m{EVIL}"}}
    result = {"header": {"msg_type": "execute_result"}, "content": {"data": {"text/plain": EVIL}}}
    error = {"header": {"msg_type": "error"}, "content": {"traceback": [EVIL]}}
    for message in (stream, result, error):
        printer.show(message)
    out, err = capsys.readouterr()

    acting = [c for c in out + err if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c not in "\n\r"]
    assert acting == ["\x1b"]
    assert "\x1b[32ma" in out
