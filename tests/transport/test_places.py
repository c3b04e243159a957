"""Which directories will do for sockets: paths that are absolute, short, and the same in an address."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from kallichore.transport.places import LONGEST_NAME, LONGEST_SOCKET_PATH, why_unfit

ROOM = LONGEST_SOCKET_PATH - LONGEST_NAME


@pytest.mark.parametrize(
    "directory", ["/", "/tmp", "/run/user/1000", "/var/folders/zz/zyx_w9/T", "/a.b/~c/D-e_f", "/" + "x" * (ROOM - 1)]
)
def test_short_plain_path_will_do(directory: str) -> None:
    """The usual places, and the longest that leaves room for the names behind it."""
    assert why_unfit(directory, len(directory), "linux") is None


@pytest.mark.parametrize(
    ("directory", "reason"),
    [
        ("", "no absolute path"),
        ("run/user", "no absolute path"),
        ("~/run", "no absolute path"),
        ("/" + "x" * ROOM, "too long for sockets"),
        ("/with space", "could not put ' '"),
        ("/café", "could not put 'é'"),
        ("/co:lon", "could not put ':'"),
        *((f"/a{odd}", "could not put") for odd in "%?#&+@=,;!*'()[]{}|\\\"<>^`\t\n\udc80"),
    ],
)
def test_other_path_is_refused_with_its_reason(directory: str, reason: str) -> None:
    """What is relative, too long, or would look different in an address."""
    assert reason in (why_unfit(directory, len(directory.encode("utf-8", "surrogateescape")), "linux") or "")


def test_length_is_in_bytes() -> None:
    """The system counts bytes, of which a letter may have several."""
    assert why_unfit("/x", ROOM, "linux") is None
    assert why_unfit("/x", ROOM + 1, "linux") == "too long for sockets"


@given(st.text(max_size=20))
def test_what_will_do_is_the_same_in_an_address(name: str) -> None:
    """Whatever URL encoding changes is refused, and nothing else of that kind."""
    directory = f"/{name}"

    assert (why_unfit(directory, 1, "linux") is None) == (quote(directory, errors="replace") == directory)


@pytest.mark.parametrize("directory", ["C:\\Users\\Jos\xe9 P\xe9rez\\AppData\\Local\\Temp", "C:/" + "x" * 200])
def test_any_directory_will_do_on_windows(directory: str) -> None:
    """There are no sockets in it, so a drive's colon, spaces and length are nothing to it."""
    assert why_unfit(directory, len(directory), "win32") is None
