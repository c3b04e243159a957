"""The head of a request: read far enough to tell a WebSocket's opening from everything else."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given, strategies as st

from kallichore.errors import BadPathError
from kallichore.transport.request_head import (
    MalformedHeadError,
    RequestHead,
    accept_token,
    channels_session,
    decode_segment,
    parse_head,
    refusal,
    speaks_http_1,
)


def head_of(
    method: str = "GET", target: str = "/", headers: dict[str, str] | None = None, version: str = "HTTP/1.1"
) -> RequestHead:
    """Return a head."""
    return RequestHead(method, target, version, tuple((headers or {}).items()))


UPGRADE = {"connection": "Upgrade", "upgrade": "websocket"}


def test_head_is_split_from_what_follows() -> None:
    """Method, target and headers are read, and the bytes behind the head stay as they are."""
    data = b"POST /a?b=1 HTTP/1.1\r\nHost: x:1\r\nX-Empty:\r\nX-Colon:  a:b \r\n\r\n\r\n\r\nbody"

    assert parse_head(data) == (
        head_of("POST", "/a?b=1", {"host": "x:1", "x-empty": "", "x-colon": "a:b"}),
        b"\r\n\r\nbody",
    )


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_may_end_in_lf_alone(end: bytes) -> None:
    """A head ends where it ends for h11, and what follows is not a part of it, whatever its lines end in."""
    data = end.join([b"GET /a HTTP/1.1", b"Host: x", b"", b"GET /b HTTP/1.1\r\nUpgrade: y\r\n\r\n"])

    assert parse_head(data) == (
        head_of("GET", "/a", {"host": "x"}),
        b"GET /b HTTP/1.1\r\nUpgrade: y\r\n\r\n",
    )


def test_first_of_repeated_headers_counts() -> None:
    """Names do not depend on case, and of several Authorization headers the first one is looked at."""
    parsed = parse_head(b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n\r\n")

    assert parsed is not None
    assert parsed[0].headers == {"authorization": "Bearer a"}
    assert parsed[0].all("authorization") == ["Bearer a", "Bearer b"]


@pytest.mark.parametrize(
    "lines",
    [
        b"Host:\r\n evil.com",
        b"Host: localhost\r\n\tevil.com",
        b" Host: localhost",
        b"Host : evil.com",
        b"Host",
        b": evil.com",
        b"Ho st: evil.com",
        b"Host: local\x00host",
        b"Host: localhost\revil: x",
        b"H\xf6st: x",
    ],
)
def test_headers_that_readers_could_differ_about_are_refused(lines: bytes) -> None:
    """A folded header, a blank before its colon, a control character: the head is none (RFC 9112, 5.1, 5.2)."""
    with pytest.raises(MalformedHeadError):
        parse_head(b"GET /sessions/a/channels HTTP/1.1\r\n" + lines + b"\r\nUpgrade: websocket\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [
        *(f"GET / {version}" for version in ("HTTP/2", "HTTP/10.0", "http/2.0", "", "HTTPS/2.0")),
        *(
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "G(T / HTTP/1.1",
            " / HTTP/1.1",
            "GET /\x00 HTTP/1.1",
            "\x00 \x00 \x00",
        ),
    ],
)
def test_line_that_is_no_request_is_left_to_hypercorn(line: str) -> None:
    """Nothing is decided here about what h11 refuses: method, target or version are none."""
    assert parse_head(line.encode() + b"\r\nHost: x\r\n\r\n") is None


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_versions_of_http_1_are_spoken(version: str) -> None:
    """HTTP/1 is spoken, with any number behind the point."""
    assert speaks_http_1(f"HTTP/{version}")


@pytest.mark.parametrize("version", ["2.0", "9.9", "0.9", "3.0"])
def test_other_versions_of_http_are_read_and_not_spoken(version: str) -> None:
    """They are a different protocol, and told so."""
    parsed = parse_head(f"PRI * HTTP/{version}\r\n\r\n".encode())

    assert parsed is not None
    assert not speaks_http_1(parsed[0].version)


def test_refusal_is_a_whole_response() -> None:
    """It ends the connection, says how long it is, and has a text only where one is given."""
    assert refusal(HTTPStatus.NOT_FOUND) == b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert refusal(HTTPStatus.BAD_REQUEST, "why", headers={"x-a": "b"}) == (
        b"HTTP/1.1 400 Bad Request\r\nx-a: b\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"content-length: 3\r\nconnection: close\r\n\r\nwhy"
    )
    assert refusal(HTTPStatus.NOT_FOUND, "why", code="KS-1") == (
        b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n"
        b'content-length: 34\r\nconnection: close\r\n\r\n{"code": "KS-1", "message": "why"}'
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET / a b\r\n\r\n",
    ],
)
def test_what_is_not_yet_a_head_is_none(data: bytes) -> None:
    """A head that is not complete, or is none, is left to others."""
    assert parse_head(data) is None


TOKENS = st.text("abcXYZ-0", min_size=1, max_size=8)


@given(
    TOKENS,
    st.text("/%?#:ab", min_size=1, max_size=10),
    st.dictionaries(TOKENS.map(str.lower), st.text('abc ,;="\xff', max_size=10).map(str.strip), max_size=4),
    st.sampled_from([b"\n", b"\r\n"]),
    st.binary(max_size=20),
)
def test_any_head_is_read_as_it_was_written(
    method: str, target: str, headers: dict[str, str], end: bytes, rest: bytes
) -> None:
    """Method, target, headers and what follows come apart as they were put together."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    data = b"".join(line.encode("latin-1") + end for line in [*lines, ""]) + rest

    assert parse_head(data) == (head_of(method, target, headers), rest)


@given(st.text("/%?#:ab", max_size=12).map("/".__add__))
def test_paths_and_queries_of_any_kind_are_read(target: str) -> None:
    """Whatever a target is, its path is a part of it, and at most its escapes are refused."""
    head = head_of("GET", target)

    assert (head.path in target, type(head.query)) == (True, dict)


@given(st.binary(max_size=60), st.binary(max_size=10))
def test_garbage_is_a_head_or_none(head: bytes, rest: bytes) -> None:
    """Whatever arrives, it is a head and what follows it, or None, or refused."""
    try:
        parsed = parse_head(head + b"\r\n\r\n" + rest)
    except MalformedHeadError:
        return

    assert parsed is None or parsed[1].endswith(rest)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/sessions/a%2Fb/channels?token=1", "/sessions/a%2Fb/channels"),
        ("/sessions#part", "/sessions"),
        ("/a?b#c?d", "/a"),
        ("/a?u=http://host/b", "/a"),
        ("/a://b/c", "/a://b/c"),
        ("http://host:1/a/b?c", "/a/b"),
        ("http://host", "/"),
        ("http://host?b=/c", "/"),
        ("*", "*"),
    ],
)
def test_path_is_the_target_without_query_and_fragment(target: str, path: str) -> None:
    """The path stays as encoded, and of an absolute target (RFC 9112, section 3.2.2) only the path counts."""
    assert head_of("GET", target).path == path


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", UPGRADE, True),
        ("GET", {"connection": "keep-alive, Upgrade", "upgrade": "WebSocket"}, True),
        ("POST", UPGRADE, False),
        ("GET", {**UPGRADE, "connection": "keep-alive"}, False),
        ("GET", {**UPGRADE, "connection": "not-upgrade"}, False),
        ("GET", {**UPGRADE, "upgrade": "h2c"}, False),
        ("GET", {"upgrade": "websocket"}, False),
        ("GET", {}, False),
    ],
)
def test_opening_of_a_websocket_is_recognised(method: str, headers: dict[str, str], expected: bool) -> None:
    """It is a GET whose Connection and Upgrade say so, among other things and in any case."""
    assert head_of(method, "/", headers).asks_for_websocket is expected


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/2.0", "HTTP/9.9"])
def test_only_http_1_1_opens_a_websocket(version: str) -> None:
    """HTTP/1.0 has no upgrades (RFC 9110, 7.8), and other versions have other ways."""
    assert not head_of(headers=UPGRADE, version=version).asks_for_websocket


@pytest.mark.parametrize(
    ("segment", "decoded"),
    [
        ("plain", "plain"),
        ("a%20b%2Fc", "a b/c"),
        ("%C3%BC", "ü"),
        ("a+b", "a+b"),
        ("50%", "50%"),
        ("%zz", "%zz"),
        ("", ""),
    ],
)
def test_segment_is_percent_decoded(segment: str, decoded: str) -> None:
    """Escapes are UTF-8, a plus is a plus, and what is no escape stays."""
    assert decode_segment(segment) == decoded


@pytest.mark.parametrize("segment", ["%ff", "a%C3", "%ed%a0%80"])
def test_segment_that_is_not_utf8_is_refused(segment: str) -> None:
    """Escapes of other bytes than UTF-8 name no session."""
    with pytest.raises(BadPathError, match=segment):
        decode_segment(segment)


@pytest.mark.parametrize(
    ("path", "session"),
    [
        ("/sessions/a/channels", "a"),
        ("/sessions/a%2Fb/channels", "a%2Fb"),
        ("/sessions//channels", None),
        ("/sessions/a/channels/", None),
        ("/sessions/a/b/channels", None),
        ("/sessions/a", None),
        ("sessions/a/channels", None),
        ("/Sessions/a/channels", None),
        ("//sessions/a/channels", None),
    ],
)
def test_only_the_path_of_channels_has_a_session(path: str, session: str | None) -> None:
    """The session's id is taken from exactly one form of path, still encoded."""
    assert channels_session(path) == session


def test_key_is_answered_as_in_the_rfc() -> None:
    """The example of RFC 6455, section 1.3."""
    assert accept_token("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
