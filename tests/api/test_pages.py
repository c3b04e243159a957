"""The page in the browser: open, whole, and loading nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest

from kallichore.api import pages
from kallichore.client.address import Address
from kallichore.client.api_client import send_request
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kernels import LOCAL, address_of

ROOT = Path(__file__).parents[2]
HOME = pages.PLACE


class _References(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note references, and what a strict policy would not run."""
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "spec-url")]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag == "script" and "src" not in dict(attrs):
            self.inline.append(tag)


def _references() -> _References:
    parser = _References()
    parser.feed((HOME / "index.html").read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_page_and_what_it_needs_are_there_without_the_token(transport: str) -> None:
    """The page, all that it refers to, and the description, are served without the token, with a strict policy."""
    async with serve(ServerConfig(transport=transport)) as server:
        anonymous = attrs.evolve(address_of(server), token=None)
        answers = {path: await send_request(anonymous, "GET", path) for path in pages.PAGES}

    assert {200} == {answer.status for answer in answers.values()}
    assert {"/docs", *_references().found} == set(pages.PAGES)
    for path, answer in answers.items():
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert pages.PAGES[path].content_type == answer.headers["content-type"]
    assert json.loads((ROOT / "kallichore.json").read_text(encoding="utf-8")) == answers["/kallichore.json"].json()


async def test_page_of_another_machine_gets_none_of_it() -> None:
    """Who is refused elsewhere is refused here: a foreign host or origin is 403, and other methods are 405."""
    async with serve() as server:
        where = address_of(server)
        for token in (None, where.token):
            client = Address(where.host, where.port, token=token)
            for path in pages.PAGES:
                foreign = await send_request(client, "GET", path, headers=[("origin", "https://evil.example")])
                posted = await send_request(client, "POST", path)

                assert (403, "forbidden") == (foreign.status, foreign.json()["code"])
                assert (405, "no_such_method") == (posted.status, posted.json()["code"])


async def test_page_that_was_not_installed_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server without the file, as one that was packed without it, says so."""
    monkeypatch.setitem(pages.PAGES, "/docs", pages.Page("text/html", (tmp_path / "nothing",)))
    async with serve() as server:
        answer = await send_request(address_of(server), "GET", "/docs")

    assert (404, "no_such_path") == (answer.status, answer.json()["code"])


def test_page_itself_has_nothing_that_its_policy_forbids() -> None:
    """Scripts and styles are files of this server, and all that is referred to is on it."""
    found = _references()

    assert [] == found.inline
    assert [] == [reference for reference in found.found if not re.fullmatch(r"/[a-z./-]+", reference)]
    assert 'load-fonts="false"' in (HOME / "index.html").read_text(encoding="utf-8")


def test_licence_is_beside_what_it_is_for() -> None:
    """The vendored file says its version, and its licence and those of its parts are there."""
    head = (HOME / "rapidoc-min.js").read_text(encoding="utf-8")[:100]
    licence = (HOME / "RAPIDOC-LICENSE.txt").read_text(encoding="utf-8")

    assert re.search(r"RapiDoc \d+\.\d+\.\d+", head)
    assert "MIT License" in licence
    assert "BSD-3-Clause" in licence
