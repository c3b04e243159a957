"""Who is let in: the right token, and on TCP only this machine's own programs and pages."""

from __future__ import annotations

import pytest

from kallichore.transport.auth import is_authorized, is_loopback, is_same_machine

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"BEARER    {TOKEN}", True),
        (f"  Bearer {TOKEN}  ", True),
        (f"Bearer {TOKEN.upper()}", False),
        (f"Bearer {TOKEN}0", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Bearer {TOKEN} {TOKEN}", False),
        (f"Bearer{TOKEN}", False),
        (f"Basic {TOKEN}", False),
        ("Bearer \udcff\u2028", False),
        ("Bearer", False),
        (TOKEN, False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_bearer_token_lets_in(authorization: str | None, expected: bool) -> None:
    """The scheme's case and blanks do not matter, the token has to be exact."""
    assert is_authorized(authorization, TOKEN) is expected


@pytest.mark.parametrize("authorization", [None, "", "Bearer x", "Basic x", "nonsense"])
def test_server_without_a_token_lets_everybody_in(authorization: str | None) -> None:
    """Where authentication is off, a header does no harm."""
    assert is_authorized(authorization, None)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer x"])
def test_empty_token_lets_nobody_in(authorization: str | None) -> None:
    """The token of an empty file is not "no token": no client can send it."""
    assert not is_authorized(authorization, "")


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.1.2.3",
    "localhost",
    "LOCALHOST:1",
    "app.localhost",
    "[::1]",
    "[::1]:80",
]
ELSEWHERE = [
    *("example.com", "127.0.0.1.example.com", "localhost.example.com", "notlocalhost", "0.0.0.0", "192.168.0.1"),
    *("[::2]", "[::1", "", "example.com@", "localhost@example.com", "127.1"),
]


@pytest.mark.parametrize("authority", LOOPBACK)
def test_loopback_names_are_known(authority: str) -> None:
    """Loopback addresses of both kinds and localhost's names are this machine, with or without a port."""
    assert is_loopback(authority)


@pytest.mark.parametrize("authority", [*ELSEWHERE, None])
def test_other_names_are_elsewhere(authority: str | None) -> None:
    """A name that only looks like this machine's is not."""
    assert not is_loopback(authority)


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        (None, None, True),
        ("127.0.0.1:1", None, True),
        ("localhost", "http://localhost:3000", True),
        ("localhost", "https://[::1]", True),
        ("localhost", "vscode-file://vscode-app", True),
        ("localhost", "vscode-webview://1a2b", True),
        ("localhost", "file://", True),
        ("rebound.example.com", None, False),
        ("rebound.example.com", "http://localhost", False),
        ("localhost", "http://example.com", False),
        ("localhost", "null", False),
        ("localhost", "http://localhost.example.com", False),
        (None, "https://example.com", False),
    ],
)
def test_other_machines_pages_are_kept_out(host: str | None, origin: str | None, expected: bool) -> None:
    """A foreign Host is DNS rebinding and a foreign Origin a cross-site request; programs send no Origin."""
    assert is_same_machine(host, origin) is expected
