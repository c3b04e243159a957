"""Which server is meant: URLs, sockets and connection files, and what is none of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from kallichore.client.address import Address, from_connection_document, from_url
from kallichore.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8182", Address(host="localhost", port=8182)),
        ("http://127.0.0.1:9000/", Address(host="127.0.0.1", port=9000)),
        ("http://localhost", Address(host="localhost", port=80)),
        ("http://[::1]:8182", Address(host="::1", port=8182)),
        ("unix:/run/kc.sock", Address(socket_path="/run/kc.sock")),
        ("unix:///run/kc.sock", Address(socket_path="/run/kc.sock")),
        ("unix:./kc.sock", Address(socket_path="./kc.sock")),
    ],
)
def test_url_names_a_host_or_a_socket(url: str, address: Address) -> None:
    """Without a port it is HTTP's; a socket's path may be relative."""
    assert address == from_url(url)


@pytest.mark.parametrize(
    ("url", "base_path", "token"),
    [
        ("http://h:8888/?token=abc", "", "abc"),
        ("http://h:8888/lab?token=abc&reset", "", "abc"),
        ("http://h:8888/user/me/lab/tree/a.ipynb?token=abc", "/user/me", "abc"),
        ("http://h:8888/deep/er/tree", "/deep/er", None),
        ("http://h:8888//deep//er//", "/deep/er", None),
        ("http://h:8888/user/a%20b c/", "/user/a%20b%20c", None),
        ("http://h:8888/t/abc", "", "abc"),
        ("http://h:8888/base/t/a%2Fc/", "/base", "a/c"),
        ("http://h:8888/base/t/", "/base/t", None),
        ("http://h:8888/?token=", "", None),
    ],
)
def test_url_may_be_as_a_browser_has_it(url: str, base_path: str, token: str | None) -> None:
    """With a page behind the server's own path, and with the token in the query or in the path."""
    expected = Address(host="h", port=8888, token=token, base_path=base_path)

    assert expected == from_url(url)
    assert f"http://h:8888{base_path}" == str(expected)


def test_token_that_is_given_counts_before_the_urls_and_that_before_others() -> None:
    """The one that was typed, the one that was pasted, the one that is always there."""
    with_token, without = "http://h/?token=pasted", "http://h"
    tokens = [from_url(url, typed, "usual").token for url in (with_token, without) for typed in ("typed", None)]

    assert ["typed", "pasted", "typed", "usual"] == tokens


@pytest.mark.parametrize("url", ["ftp://h/?token=secret", "ftp://h/t/secret/x", "h/?a=b&token=secret#end"])
def test_token_in_what_is_no_address_is_not_repeated(url: str) -> None:
    """Error messages are pasted, and logged."""
    with pytest.raises(ConfigurationError) as refused:
        from_url(url)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["two\nlines", "caf\xe9", "nul\0"])
def test_token_that_cannot_be_sent_is_refused_and_not_repeated(token: str) -> None:
    """Wherever it comes from: it would be in the middle of the headers."""
    for make in (lambda: from_url("http://h", token), lambda: from_url(f"http://h/?token={quote(token)}")):
        with pytest.raises(ConfigurationError, match="has a character that no header can carry") as refused:
            make()

        assert token not in str(refused.value)


@pytest.mark.parametrize("scheme", ["Bearer", "token"])
def test_token_goes_into_a_header_only(scheme: str) -> None:
    """By the word that the server knows it by; neither str nor repr have it."""
    address = Address(host="h", port=1, token="secret", scheme=scheme)

    assert [("host", "h:1"), ("authorization", f"{scheme} secret")] == address.headers
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8182",
        "https://localhost:8182",
        "http://",
        "http://localhost:99999",
        "http://localhost:port",
        "http://[::1",
        "unix:",
        "unix://",
    ],
)
def test_what_is_no_address_is_refused_with_the_two_forms(url: str) -> None:
    """The message quotes what was given, and says what would do."""
    with pytest.raises(ConfigurationError) as refused:
        from_url(url)

    assert f"{url!r} is no server's address; use http://host:port or unix:/path" == str(refused.value)


@pytest.mark.parametrize(
    ("document", "address"),
    [
        ({"transport": "tcp", "base_path": "http://127.0.0.1:5"}, Address(host="127.0.0.1", port=5)),
        ({"transport": "socket", "socket_path": "/s"}, Address(socket_path="/s")),
        ({"transport": "named-pipe", "named_pipe": r"\\.\pipe\kc"}, Address(named_pipe=r"\\.\pipe\kc")),
    ],
)
@pytest.mark.parametrize("token", ["secret", None])
def test_connection_document_names_each_transport(document: dict[str, Any], address: Address, token: str) -> None:
    """The token in it, or its absence, comes along."""
    found = from_connection_document({**document, "bearer_token": token})

    assert (address, token) == (Address(found.host, found.port, found.socket_path, found.named_pipe), found.token)


def test_transport_that_is_not_known_is_named() -> None:
    """A document of a newer server, without any address that we can use, says which transport it has."""
    with pytest.raises(ConfigurationError, match="transport pigeon"):
        from_connection_document({"transport": "pigeon", "bearer_token": None})


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://localhost:8182", "localhost:8182"), ("http://[::1]:8182", "[::1]:8182"), ("unix:/s", "localhost")],
)
def test_requests_carry_host_and_token(url: str, host: str) -> None:
    """A Host header that the server takes, and the token only where there is one."""
    assert [("host", host)] == from_url(url).headers
    assert [("host", host), ("authorization", "Bearer secret")] == from_url(url, "secret").headers


@pytest.mark.parametrize("url", ["http://localhost:8182", "http://[::1]:8182", "unix:/run/kc.sock"])
def test_address_reads_as_its_url_and_keeps_its_token(url: str) -> None:
    """What messages and logs show is the URL, and never the token."""
    address = from_url(url, "secret")

    assert url == str(address)
    assert "secret" not in repr(address)
