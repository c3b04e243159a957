"""Who is let in: the right token, and on TCP only this machine's own programs and pages."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, strategies as st

from kallichore.transport.auth import (
    authorization_of_page,
    host_of,
    is_authorized,
    is_loopback,
    offers_ours,
    refuse_source,
)

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


@pytest.mark.parametrize(
    ("subprotocols", "expected"),
    [
        ("kallichore, kallichore.token.dDBrZW4", "Bearer t0ken"),
        ("kallichore.token.dDBrZW4,kallichore", "Bearer t0ken"),
        ("kallichore.token.dDBrZW4, kallichore.token.eA", "Bearer t0ken"),
        ("kallichore.token.Pz8_fn4-", "Bearer ???~~>"),
        ("kallichore.token.", "Bearer "),
        ("kallichore.token.a", None),
        ("kallichore.token._w", None),
        ("kallichore.token.é", None),
        ("kallichore", None),
        ("token.dDBrZW4", None),
        ("", None),
    ],
)
def test_token_of_a_page_is_in_a_subprotocol(subprotocols: str, expected: str | None) -> None:
    """It is read from the first subprotocol with the prefix, as base64url; what is none is no token."""
    assert expected == authorization_of_page(subprotocols)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_token_can_be_a_subprotocol(token: str) -> None:
    """Whatever visible characters a token has, what a page makes of it is read as that token."""
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")

    assert is_authorized(authorization_of_page(f"kallichore, kallichore.token.{encoded}"), token)


@pytest.mark.parametrize(
    ("subprotocols", "expected"),
    [("kallichore", True), ("x , kallichore", True), ("kallichore.token.x", False), ("", False)],
)
def test_our_subprotocol_is_chosen_where_it_is_offered(subprotocols: str, expected: bool) -> None:
    """It is one of the list, whole."""
    assert offers_ours(subprotocols) is expected


LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1:8080",
    "127.1.2.3",
    "localhost",
    "localhost:",
    "LOCALHOST:1",
    "app.localhost",
    "[::1]",
    "[::1]:80",
    "[0:0:0:0:0:0:0:1]",
]
ELSEWHERE = [
    *("example.com", "127.0.0.1.example.com", "localhost.example.com", "notlocalhost", "0.0.0.0", "192.168.0.1"),
    *("[::2]", "127.1", "%6cocalhost", "127.0.0.1,evil.com", "localhost."),
]
NO_HOSTS = [
    *("[::1]evil.com", "[::1]:80evil.com", "127.0.0.1/evil.com", "evil.com@127.0.0.1", "127.0.0.1@evil.com", "[::1"),
    *("::1", "127.0.0.1:80:80", "127.0.0.1:http", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\tevil.com", "a b"),
    *("local\0host", "127.0.0.1?evil.com", "127.0.0.1#evil.com", "127.0.0.1\\evil.com", "[127.0.0.1]"),
    *("[::1%25eth0]", "[v1.a]", "[]", "localhost%", "localhost%2", "lo\xe4lhost", "[::1].evil.com", "x[::1]"),
]


@pytest.mark.parametrize("authority", LOOPBACK)
def test_loopback_names_are_known(authority: str) -> None:
    """Loopback addresses of both kinds and localhost's names are this machine, with or without a port."""
    assert is_loopback(host_of(authority) or "")


@pytest.mark.parametrize("authority", [*ELSEWHERE, ""])
def test_other_names_are_elsewhere(authority: str) -> None:
    """A name that only looks like this machine's is not."""
    name = host_of(authority)

    assert name is not None
    assert not is_loopback(name)


@pytest.mark.parametrize("authority", NO_HOSTS)
def test_what_is_no_host_is_none(authority: str) -> None:
    """A host is read by its grammar to its end: a user, a path or a rest behind a bracket make it none."""
    assert host_of(authority) is None


@given(st.text(st.characters(max_codepoint=255), max_size=12))
def test_whatever_comes_is_a_host_or_none(text: str) -> None:
    """What has a character in it that divides an address never counts as this machine."""
    for authority in (f"127.0.0.1{text}", f"{text}127.0.0.1", f"[::1]{text}", f"{text}localhost"):
        if set(authority) & set("/@?#\\ \t\n\r") and "[" not in text:
            assert host_of(authority) is None


@pytest.mark.parametrize(
    ("hosts", "origins", "status"),
    [
        ([], [], None),
        ([""], [], None),
        (["127.0.0.1:1"], [], None),
        (["localhost"], ["http://localhost:3000"], None),
        (["localhost"], ["https://[::1]"], None),
        (["localhost"], ["vscode-file://vscode-app"], None),
        (["localhost"], ["vscode-webview://1a2b"], None),
        (["localhost"], ["file://"], None),
        (["rebound.example.com"], [], 403),
        (["rebound.example.com"], ["http://localhost"], 403),
        (["localhost"], ["http://example.com"], 403),
        (["localhost"], ["null"], 403),
        (["localhost"], ["http://localhost.example.com"], 403),
        ([], ["https://example.com"], 403),
        (["[::1]evil.com"], [], 400),
        (["evil.com@127.0.0.1"], ["http://example.com"], 400),
        (["localhost"], ["http://[::1]evil.com"], 400),
        (["localhost"], ["http://evil.com@127.0.0.1"], 400),
        (["localhost"], ["http://localhost/evil.com"], 400),
        (["localhost"], ["http://localhost http://evil.com"], 400),
        (["localhost"], ["localhost"], 400),
        (["localhost"], [""], 400),
        (["localhost"], ["file://evil.com/a"], 400),
        (["localhost"], ["://localhost"], 400),
        (["localhost", "evil.com"], [], 400),
        (["localhost", "localhost"], [], 400),
        (["localhost"], ["http://localhost", "http://evil.com"], 400),
    ],
)
def test_other_machines_pages_are_kept_out(hosts: list[str], origins: list[str], status: int | None) -> None:
    """A foreign Host is DNS rebinding and a foreign Origin a cross-site request; programs send no Origin. What is no
    Host or Origin is no request.
    """
    assert refuse_source(hosts, origins) == status
