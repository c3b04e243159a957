"""Who may ask what of Jupyter's API: where a path leads, the ways of a token, and which pages may pass."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from hypothesis import given, strategies as st

from kallichore.jupyter.access import Access, Place, channels_of, locate
from kallichore.transport.request_head import RequestHead, parse_head

TOKEN = "0123456789abcdef"

FOREIGN = "https://notebooks.example"


def make_access(
    *, token: str | None = TOKEN, over_tcp: bool = True, base_url: str = "/", allow_origin: tuple[str, ...] = ()
) -> Access:
    """Return the rules of a server."""
    return Access(token=token, over_tcp=over_tcp, base_url=base_url, allow_origin=allow_origin)


def head_of(target: str, *lines: str, method: str = "GET") -> RequestHead:
    """Return the head of a request with these headers."""
    parsed = parse_head("\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode())
    assert parsed is not None
    return parsed[0]


# Where a path leads


@pytest.mark.parametrize(
    ("path", "base_url", "expected"),
    [
        ("/api", "/", Place("/api")),
        ("/api/", "/", Place("/api/")),
        ("/api/kernels/a-b", "/", Place("/api/kernels/a-b")),
        ("/kernelspecs/python3/logo-svg.svg", "/", Place("/kernelspecs/python3/logo-svg.svg")),
        ("/hub/api", "/", Place("/hub/api")),
        ("/tree", "/", Place("/tree")),
        ("/login", "/", Place("/login")),
        ("/t/secret/api/kernels", "/", Place("/api/kernels", "secret")),
        ("/t/secret/api", "/", Place("/api", "secret")),
        ("/t//api", "/", Place("/api", "")),
        ("/t/secret/tree", "/", Place("/tree", "secret")),
        ("/lab/api/kernels", "/lab", Place("/api/kernels")),
        ("/lab/api/kernels", "/lab/", Place("/api/kernels")),
        ("/a/b/t/secret/api/kernels", "/a/b/", Place("/api/kernels", "secret")),
        ("/api/api", "/api", Place("/api")),
        ("/t/t/secret/api", "/t", Place("/api", "secret")),
        ("/", "/", None),
        ("", "/", None),
        ("/sessions", "/", None),
        ("/apis", "/", None),
        ("/API", "/", None),
        ("api", "/", None),
        ("//api", "/", None),
        ("/hub", "/", None),
        ("/treehouse", "/", None),
        ("/x/api", "/", None),
        ("/t", "/", None),
        ("/t/", "/", None),
        ("/t/secret", "/", None),
        ("/t/secret/", "/", None),
        ("/t/secret/sessions", "/", None),
        ("/t/secret/t/another/api", "/", None),
        ("/T/secret/api", "/", None),
        ("/api/kernels", "/lab", None),
        ("/lab", "/lab", None),
        ("/lab/", "/lab", None),
        ("/label/api", "/lab", None),
        ("/labapi", "/lab", None),
        ("/lab/sessions", "/lab", None),
        ("/t/secret/lab/api", "/lab", None),
        ("/api", "/api", None),
    ],
)
def test_path_leads_below_the_apis_own(path: str, base_url: str, expected: Place | None) -> None:
    """Behind the base path, and a token if there is one, come Jupyter's routes; all else is none of its business."""
    assert expected == locate(path, base_url)


@given(st.text(st.sampled_from("/apitlb"), max_size=12), st.sampled_from(["/", "/lab", "/lab/"]))
def test_what_is_located_is_below_a_root(path: str, base_url: str) -> None:
    """Whatever stands before it, only what begins like one of Jupyter's routes is."""
    place = locate(path, base_url)

    if place is not None:
        assert path.endswith(place.path)
        assert place.path == "/api" or place.path.startswith("/api/")


def test_token_in_a_path_is_not_shown() -> None:
    """A place may be logged."""
    assert "secret" not in repr(locate("/t/secret/api", "/"))


def test_token_of_the_server_is_not_shown() -> None:
    """Nor that."""
    assert TOKEN not in repr(make_access())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/kernels/a-b-c-d-e/channels", "a-b-c-d-e"),
        ("/api/kernels/%61/channels", "%61"),
        ("/api/kernels//channels", ""),
        ("/api/kernels/a/channels/", None),
        ("/api/kernels/a/Channels", None),
        ("/api/kernels/a", None),
        ("/api/kernels/a/b/channels", None),
        ("/api/kernels/channels", None),
        ("/api/sessions/a/channels", None),
        ("api/kernels/a/channels", None),
        ("/x/api/kernels/a/channels", None),
        ("", None),
    ],
)
def test_kernel_is_found_in_the_path_of_its_channels(path: str, expected: str | None) -> None:
    """It stands where it does, and nowhere else."""
    assert expected == channels_of(path)


# The ways of a token


@pytest.mark.parametrize(
    ("target", "authorization", "is_let_in"),
    [
        ("/api/kernels", f"token {TOKEN}", True),
        ("/api/kernels", f"Token {TOKEN}", True),
        ("/api/kernels", f"TOKEN   {TOKEN}", True),
        ("/api/kernels", f"Bearer {TOKEN}", True),
        ("/api/kernels", f"bearer {TOKEN}", True),
        (f"/api/kernels?token={TOKEN}", None, True),
        (f"/api/kernels?1795415914417&token={TOKEN}", None, True),
        (f"/api/kernels?token={TOKEN}&session_id=1", None, True),
        (f"/t/{TOKEN}/api/kernels", None, True),
        # What is empty is absent, what is wrong does not spoil what is right.
        (f"/t/{TOKEN}/api/kernels", "token ", True),
        (f"/t/{TOKEN}/api/kernels?token=", "token", True),
        (f"/t/wrong/api/kernels?token={TOKEN}", "token wrong", True),
        (f"/t/wrong/api/kernels?token={TOKEN}", None, True),
        ("/api/kernels?token=", f"token {TOKEN}", True),
        ("/api/kernels?token=wrong", f"token {TOKEN}", True),
        (f"/api/kernels?token={TOKEN}", "token ", True),
        (f"/api/kernels?token={TOKEN}", "token wrong", True),
        (f"/api/kernels?token={TOKEN}", "Basic dXNlcjpwd2Q=", True),
        ("/api/kernels", None, False),
        ("/api/kernels", "", False),
        ("/api/kernels", "token", False),
        ("/api/kernels", "token ", False),
        ("/api/kernels", "Bearer", False),
        ("/api/kernels", TOKEN, False),
        ("/api/kernels", f"token{TOKEN}", False),
        ("/api/kernels", f"token {TOKEN.upper()}", False),
        ("/api/kernels", f"token {TOKEN}0", False),
        ("/api/kernels", f"token {TOKEN[:-1]}", False),
        ("/api/kernels", f"token {TOKEN} {TOKEN}", False),
        ("/api/kernels", f"Basic {TOKEN}", False),
        ("/api/kernels", "token wrong", False),
        ("/api/kernels", "token \u00e9", False),
        ("/api/kernels?token", None, False),
        ("/api/kernels?token=", None, False),
        ("/api/kernels?token=%20", None, False),
        ("/api/kernels?token=wrong", None, False),
        ("/api/kernels?token=%FF%00", None, False),
        (f"/api/kernels?Token={TOKEN}", None, False),
        (f"/api/kernels?x=token={TOKEN}", None, False),
        (f"/api/kernels?token=Bearer%20{TOKEN}", None, False),
        (f"/api/kernels/token={TOKEN}", None, False),
        (f"/api/kernels#token={TOKEN}", None, False),
        ("/t//api/kernels", None, False),
        ("/t/wrong/api/kernels", None, False),
        (f"/t/{TOKEN.upper()}/api/kernels", None, False),
        (f"/api/kernels/t/{TOKEN}/api", None, False),
    ],
)
def test_token_may_come_in_each_way_of_jupyters_clients(
    target: str, authorization: str | None, is_let_in: bool
) -> None:
    """In the header under either name, in the query, in the path; one that is right is enough."""
    lines = [] if authorization is None else [f"Authorization: {authorization}"]
    expected = None if is_let_in else HTTPStatus.UNAUTHORIZED

    assert expected == make_access().judge(head_of(target, *lines))


SPECIAL = "a+b/c=="


@pytest.mark.parametrize("target", ["/api/kernels?token=a%2Bb%2Fc%3D%3D", "/t/a%2Bb%2Fc%3D%3D/api/kernels"])
def test_token_in_an_address_is_percent_decoded(target: str) -> None:
    """As all that stands there: tokens in base64 have characters that mean something else in an address."""
    assert make_access(token=SPECIAL).judge(head_of(target)) is None


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.sampled_from(["token ", "Bearer ", "", "x "]))
def test_whatever_is_no_token_lets_nobody_in(guess: str, scheme: str) -> None:
    """In each of the ways."""
    access = make_access()

    assert not access.knows(scheme + guess, f"token={guess}", guess)
    assert not access.knows(None, guess, None)


@pytest.mark.parametrize("lines", [[], ["Authorization: token wrong"], ["Authorization: "]])
@pytest.mark.parametrize("target", ["/api/kernels", "/api/kernels?token=wrong", "/t/wrong/api/kernels"])
def test_server_without_a_token_lets_everybody_in(target: str, lines: list[str]) -> None:
    """Where there is none to know, one that is sent does no harm."""
    assert make_access(token=None).judge(head_of(target, *lines)) is None


@pytest.mark.parametrize(
    ("target", "authorization"),
    [("/api/kernels", "token "), ("/api/kernels?token=", ""), ("/t//api/kernels", ""), ("/api/kernels", "Bearer")],
)
def test_empty_token_lets_nobody_in(target: str, authorization: str) -> None:
    """The token of an empty file is not "no token"."""
    judged = make_access(token="").judge(head_of(target, f"Authorization: {authorization}"))

    assert judged == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("authorization", [None, "", "token", "x y"])
def test_no_token_is_not_one_that_is_called_none(authorization: str | None) -> None:
    """However a token is spelled, one has to be sent."""
    assert not make_access(token="None").knows(authorization, "", None)
    assert make_access(token="None").knows("token None", "", None)


# What needs no token


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api", None),
        ("GET", "/api?1795415914417", None),
        ("HEAD", "/api", None),
        ("GET", "/t/wrong/api", None),
        ("OPTIONS", "/api/kernels", None),
        ("OPTIONS", "/t/wrong/api/sessions", None),
        ("GET", "/api/", HTTPStatus.UNAUTHORIZED),
        ("GET", "/api/status", HTTPStatus.UNAUTHORIZED),
        ("GET", "/api/kernels", HTTPStatus.UNAUTHORIZED),
        ("POST", "/api/kernels", HTTPStatus.UNAUTHORIZED),
        ("GET", "/kernelspecs/python3/logo-svg.svg", HTTPStatus.UNAUTHORIZED),
        ("GET", "/tree", HTTPStatus.UNAUTHORIZED),
        ("options", "/api/kernels", HTTPStatus.UNAUTHORIZED),
        ("GET", "/sessions", HTTPStatus.NOT_FOUND),
        ("OPTIONS", "/sessions", HTTPStatus.NOT_FOUND),
    ],
)
def test_only_the_version_and_preflights_need_no_token(method: str, target: str, expected: HTTPStatus | None) -> None:
    """Browsers ask beforehand without one, and clients what kind of server this is."""
    assert make_access().judge(head_of(target, method=method)) == expected


def test_base_path_comes_before_all() -> None:
    """What is not below it is not there, with the right token too."""
    access, line = make_access(base_url="/lab"), f"Authorization: token {TOKEN}"

    assert access.judge(head_of("/lab/api/kernels", line)) is None
    assert access.judge(head_of("/lab/api/kernels")) == HTTPStatus.UNAUTHORIZED
    assert access.judge(head_of("/lab/api")) is None
    assert access.judge(head_of("/api/kernels", line)) == HTTPStatus.NOT_FOUND


# Which pages


@pytest.mark.parametrize(
    ("lines", "allow_origin", "expected"),
    [
        ([], (), None),
        (["Host: 127.0.0.1:8888", "Origin: http://127.0.0.1:8888"], (), None),
        (["Host: localhost:8888", "Origin: http://localhost:3000"], (), None),
        (["Host: localhost", "Origin: vscode-webview://1a2b"], (), None),
        (["Host: localhost", f"Origin: {FOREIGN}"], (), HTTPStatus.FORBIDDEN),
        (["Host: localhost", "Origin: null"], (), HTTPStatus.FORBIDDEN),
        (["Host: localhost", f"Origin: {FOREIGN}"], (FOREIGN,), None),
        (["Host: localhost", f"Origin: {FOREIGN}"], ("https://other.example", FOREIGN), None),
        (["Host: localhost", f"Origin: {FOREIGN}"], ("*",), None),
        (["Host: localhost", "Origin: null"], ("*",), None),
        (["Host: localhost", "Origin: null"], (FOREIGN,), HTTPStatus.FORBIDDEN),
        (["Host: localhost", f"Origin: {FOREIGN}:8443"], (FOREIGN,), HTTPStatus.FORBIDDEN),
        (["Host: localhost", "Origin: http://notebooks.example"], (FOREIGN,), HTTPStatus.FORBIDDEN),
        (["Host: localhost", f"Origin: {FOREIGN}.evil.example"], (FOREIGN,), HTTPStatus.FORBIDDEN),
        (["Host: localhost", "Origin: http://localhost"], (FOREIGN,), None),
        # Another name for this machine is somebody's attempt, whichever pages are allowed.
        (["Host: rebound.example"], ("*",), HTTPStatus.FORBIDDEN),
        (["Host: notebooks.example", f"Origin: {FOREIGN}"], (FOREIGN,), HTTPStatus.FORBIDDEN),
        (["Host: [::1]evil.example"], ("*",), HTTPStatus.BAD_REQUEST),
        (["Host: localhost", "Host: localhost"], (), HTTPStatus.BAD_REQUEST),
        (["Host: localhost", "Origin: http://localhost/evil"], (FOREIGN,), HTTPStatus.BAD_REQUEST),
        (["Host: localhost", f"Origin: {FOREIGN}", f"Origin: {FOREIGN}"], ("*",), HTTPStatus.BAD_REQUEST),
        (["Host: localhost", f"Origin: {FOREIGN}", "Origin: null"], (FOREIGN,), HTTPStatus.BAD_REQUEST),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_only_this_machines_pages_and_those_that_are_allowed_pass(
    lines: list[str], allow_origin: tuple[str, ...], expected: HTTPStatus | None, method: str
) -> None:
    """An origin is allowed as it is named, whole. What browsers ask beforehand is judged like what they ask for."""
    head = head_of("/api/kernels", f"Authorization: token {TOKEN}", *lines, method=method)

    assert make_access(allow_origin=allow_origin).judge(head) == expected


def test_token_does_not_make_a_foreign_page_a_friend() -> None:
    """Nor does what needs none."""
    line = f"Origin: {FOREIGN}"

    assert make_access().judge(head_of(f"/t/{TOKEN}/api/kernels?token={TOKEN}", line)) == HTTPStatus.FORBIDDEN
    assert make_access().judge(head_of("/api", line)) == HTTPStatus.FORBIDDEN


@pytest.mark.parametrize("lines", [["Host: rebound.example"], [f"Origin: {FOREIGN}"], ["Host: a", "Host: b"]])
def test_on_a_unix_socket_host_and_origin_mean_nothing(lines: list[str]) -> None:
    """No browser gets there; the token is asked for all the same."""
    access = make_access(over_tcp=False)

    assert access.judge(head_of("/api/kernels", f"Authorization: token {TOKEN}", *lines)) is None
    assert access.judge(head_of("/api/kernels", *lines)) == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, {}),
        ("", {}),
        (FOREIGN, {"access-control-allow-origin": FOREIGN, "vary": "Origin"}),
        ("null", {"access-control-allow-origin": "null", "vary": "Origin"}),
    ],
)
def test_page_that_may_pass_is_named_in_the_answer(origin: str | None, expected: dict[str, str]) -> None:
    """Browsers keep an answer from a page that is not; a program sends no origin and is told of none."""
    assert expected == make_access().cross_origin(origin)


# What who is refused is told


def answered(access: Access, head: RequestHead) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the first line, the headers and the body with which a request is refused."""
    status = access.judge(head)
    assert status is not None
    top, _, body = access.answer(head, status).partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers["content-length"] == str(len(body))
    return first, headers, json.loads(body)


@pytest.mark.parametrize(
    ("lines", "first", "reason"),
    [
        ([], "HTTP/1.1 401 Unauthorized", "Unauthorized"),
        ([f"Origin: {FOREIGN}"], "HTTP/1.1 403 Forbidden", "Forbidden"),
        (["Host: rebound.example"], "HTTP/1.1 403 Forbidden", "Forbidden"),
        (["Host: a", "Host: b"], "HTTP/1.1 400 Bad Request", "Bad Request"),
    ],
)
def test_refusal_is_json_for_both_kinds_of_clients(lines: list[str], first: str, reason: str) -> None:
    """Some show the message, others the reason, and both have to be text."""
    told, headers, body = answered(make_access(), head_of("/api/kernels", *lines))

    assert (told, headers["content-type"]) == (first, "application/json")
    assert set(body) == {"message", "reason"}
    assert body["reason"] == reason
    assert body["message"]


def test_refused_token_may_be_seen_by_the_page_that_sent_it() -> None:
    """Else its browser says that there is no such server. A page that may not pass is told nothing."""
    access = make_access(allow_origin=(FOREIGN,))
    _, allowed, _ = answered(access, head_of("/api/kernels", f"Origin: {FOREIGN}"))
    _, foreign, _ = answered(access, head_of("/api/kernels", "Origin: https://evil.example"))
    _, program, _ = answered(access, head_of("/api/kernels"))

    assert (allowed["access-control-allow-origin"], allowed["vary"]) == (FOREIGN, "Origin")
    assert "access-control-allow-origin" not in foreign
    assert "access-control-allow-origin" not in program


def test_refusal_does_not_repeat_a_token(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the log nor in the answer."""
    access = make_access()
    head = head_of("/t/wrong-path/api/kernels?token=wrong-query", "Authorization: token wrong-header")
    answer = access.answer(head, HTTPStatus.UNAUTHORIZED)

    assert "Refused a request of Jupyter's API: The token is missing or wrong" in caplog.text
    assert "wrong-" not in caplog.text + answer.decode()
