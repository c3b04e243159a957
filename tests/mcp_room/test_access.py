"""Who is let in to the agents' endpoint: the guards, in their order."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given, strategies as st

from kallichore.mcp.access import Access, Place, locate
from kallichore.transport.request_head import RequestHead

MINE, THEIRS = "a" * 64, "b" * 64


def judge(
    path: str,
    token: str | None = MINE,
    *,
    method: str = "POST",
    host: str = "127.0.0.1:1",
    origin: str | None = None,
    ending: bool = False,
) -> HTTPStatus | None:
    """Return what becomes of a request to a server with two workspaces, in which the session ``s/1`` runs."""
    access = Access({"mine": MINE, "theirs": THEIRS}, lambda session_id: session_id == "s/1", lambda: ending)
    fields = [("host", host)]
    fields += [] if token is None else [("authorization", f"Bearer {token}")]
    fields += [] if origin is None else [("origin", origin)]
    return access.judge(RequestHead(method, path, "HTTP/1.1", tuple(fields)))


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (None, {"path": "/mcp/w/mine"}),
        (None, {"path": "/mcp/w/mine", "method": "GET"}),
        (None, {"path": "/mcp/w/mine", "method": "DELETE"}),
        (None, {"path": "/mcp/w/mine/s/s%2F1"}),
        (None, {"path": "/mcp/w/mine/presence", "method": "GET"}),
        (None, {"path": "/mcp/w/mine/server-card", "method": "GET", "token": None}),
        (None, {"path": "/mcp/w/mine", "origin": "http://localhost:3"}),
        # Each line is refused for what its predecessors lack, whatever else is wrong with it.
        (403, {"path": "/mcp/w/mine", "host": "evil.example"}),
        (403, {"path": "/other", "host": "evil.example", "token": None}),
        (403, {"path": "/mcp/w/mine", "origin": "https://evil.example"}),
        (403, {"path": "/mcp/w/mine/server-card", "method": "GET", "origin": "https://evil.example"}),
        (403, {"path": "/mcp/w/mine", "host": "not a host"}),
        (401, {"path": "/mcp/w/mine", "token": None}),
        (401, {"path": "/mcp/w/mine", "token": "c" * 64}),
        (401, {"path": "/mcp/w/mine", "token": ""}),
        (401, {"path": "/other", "token": None}),
        (401, {"path": "/mcp/w/mine", "token": None, "ending": True}),
        (403, {"path": "/mcp/w/mine", "token": THEIRS}),
        (403, {"path": "/mcp/w/theirs"}),
        (403, {"path": "/mcp/w/nobody"}),
        (404, {"path": "/"}),
        (404, {"path": "/mcp/w/mine/other"}),
        (404, {"path": "/mcp/w/mine/"}),
        (404, {"path": "/mcp/w/mine/s/gone"}),
        (404, {"path": "/mcp/w/mine/s/gone", "ending": True}),
        (503, {"path": "/mcp/w/mine", "ending": True}),
        (405, {"path": "/mcp/w/mine/presence"}),
        (404, {"path": "/mcp/w/nobody/server-card", "method": "GET"}),
        (405, {"path": "/mcp/w/mine/server-card", "token": None}),
        (405, {"path": "/mcp/w/mine/server-card", "method": "HEAD", "token": None}),
    ],
)
def test_request_is_let_in_or_refused_in_the_order_of_the_guards(
    status: int | None, request_: dict[str, object]
) -> None:
    """Source, token, workspace, path, and whether the server ends: the first that is wrong decides."""
    assert status == judge(**request_)  # type: ignore[arg-type]


@given(st.text(alphabet="/mcpwspresencerver-card%2F0\xff", max_size=40).map("/mcp/w/".__add__) | st.text(max_size=20))
def test_any_path_leads_somewhere_or_nowhere(path: str) -> None:
    """Whatever a path is, it is located or it is not, and only what is below the root is."""
    place = locate(path)

    assert place is None or (isinstance(place, Place) and path.startswith("/mcp/w/"))


def test_refusal_starts_no_login() -> None:
    """A 401 has no WWW-Authenticate: agents would begin a login that is not offered here."""
    access = Access({}, lambda session_id: False, lambda: False)
    answer = access.answer(RequestHead("POST", "/mcp/w/x", "HTTP/1.1", ()), HTTPStatus.UNAUTHORIZED)

    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"www-authenticate" not in answer.lower()
