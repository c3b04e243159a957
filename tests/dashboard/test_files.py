"""The dashboard's files: open to everybody who may reach the server, whole, and with a policy that is strict."""

from __future__ import annotations

import gzip
import re
from html.parser import HTMLParser
from http import HTTPStatus

import pytest

from kallichore.api.admission import Admission
from kallichore.client.address import Address
from kallichore.client.api_client import send_request
from kallichore.config import ServerConfig
from kallichore.dashboard.files import FRAME, PLACE, load_files
from kallichore.dashboard.side import DashboardScreen
from kallichore.embed import serve
from kallichore.transport.request_head import RequestHead
from kernels import address_of

MOST_BYTES = 150_000
"""Of all files together, as they could travel."""

IMPORT = re.compile(r'(?:from|import) "\./([a-z-]+\.js)"')


class _References(HTMLParser):
    """Collects what a page refers to, and what a strict policy would not run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note them."""
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag in ("script", "style") and "src" not in dict(attrs):
            self.inline.append(tag)


def _references(page: bytes) -> _References:
    parser = _References()
    parser.feed(page.decode())
    return parser


async def test_page_and_its_files_are_there_without_the_token() -> None:
    """All of it is served without the token, with a policy that lets nothing come from elsewhere nor go there."""
    async with serve(ServerConfig()) as server:
        where = address_of(server)
        anonymous = Address(where.host, where.port)
        answers = {path: await send_request(anonymous, "GET", path) for path in load_files()}
        data = {path: (await send_request(anonymous, "GET", path)).status for path in ("/events", "/sessions")}

    assert {200} == {answer.status for answer in answers.values()}
    assert {"/events": 401, "/sessions": 401} == data
    for path, answer in answers.items():
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "no-referrer" == answer.headers["referrer-policy"]
        assert ("no-cache" if path == "/" else "immutable") in answer.headers["cache-control"]


def test_policy_of_the_page_allows_no_inline_script_and_no_frame_around_it() -> None:
    """The page's own policy has no unsafe-inline, talks to this server only, and lets nobody frame it."""
    policy = load_files()["/"].headers["content-security-policy"]

    assert "unsafe" not in policy
    for rule in ("script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"):
        assert f"{rule};" in f"{policy};"


def test_policy_of_the_frame_gives_it_an_origin_that_is_nobodys() -> None:
    """What shows a kernel's HTML is sandboxed without same-origin, also where it is opened by itself, and has no
    network.
    """
    frame = next(file for path, file in load_files().items() if path.endswith(FRAME))
    policy = frame.headers["content-security-policy"]

    assert policy.startswith("sandbox allow-scripts;")
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy


def test_page_refers_to_files_that_are_there_by_addresses_that_hold_anywhere() -> None:
    """What the page and its modules refer to is served, and is relative, so that it holds below any path."""
    files = load_files()
    found = _references(files["/"].content)
    modules = {path.rpartition("/")[2]: file.content.decode() for path, file in files.items() if path.endswith(".js")}
    imported = {name for text in modules.values() for name in IMPORT.findall(text)}

    assert [] == found.inline
    assert {f"/{reference}" for reference in found.found} <= set(files)
    assert {*modules} == {*imported, "app.js"}


def test_path_of_the_files_changes_with_their_contents() -> None:
    """The path names the contents, since browsers keep for good what is below it."""
    paths = {path.split("/")[2] for path in load_files() if path != "/"}

    assert 1 == len(paths)
    assert re.fullmatch("[0-9a-f]{16}", paths.pop())


def test_all_is_small() -> None:
    """All files together, compressed, stay within what was promised."""
    assert MOST_BYTES > sum(len(gzip.compress(file.content)) for file in load_files().values())


def test_licences_are_beside_what_they_are_for() -> None:
    """What others wrote has its licence beside it, which is not served."""
    names = {path.rpartition("/")[2] for path in load_files()}

    for name, words in (("HTM-LICENSE.txt", "Apache License"), ("PREACT-LICENSE.txt", "MIT")):
        assert words in (PLACE / name).read_text(encoding="utf-8")
        assert name not in names


async def test_page_of_another_machine_gets_none_of_it() -> None:
    """A foreign Host or Origin is 403, other methods are 405, and files of another version are 404."""
    async with serve(ServerConfig()) as server:
        where = address_of(server)
        for client in (Address(where.host, where.port), where):
            foreign = await send_request(client, "GET", "/", headers=[("origin", "https://evil.example")])
            posted = await send_request(client, "POST", "/")
            stale = await send_request(client, "GET", "/dashboard/0000000000000000/app.js")

            assert [403, 405, 404] == [answer.status for answer in (foreign, posted, stale)]


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("/", "127.0.0.1:8888", None),
        ("/?x=1", "localhost", None),
        ("/", "evil.example", HTTPStatus.FORBIDDEN),
        ("/", "evil.example@127.0.0.1", HTTPStatus.BAD_REQUEST),
        ("/dashboard/none", "localhost", HTTPStatus.NOT_FOUND),
        ("/sessions", "localhost", HTTPStatus.UNAUTHORIZED),
    ],
)
def test_host_is_looked_at_before_the_page_is_given(target: str, host: str, expected: HTTPStatus | None) -> None:
    """The page is for this machine's own names; what is not the page's is the API's to judge."""
    screen = DashboardScreen(Admission(token="t", over_tcp=True))

    assert expected == screen.judge(RequestHead("GET", target, "HTTP/1.1", (("host", host),)))


async def test_page_is_served_over_tcp_only() -> None:
    """Browsers come over TCP; on a Unix socket the path is as unknown as any other."""
    async with serve(ServerConfig(transport="socket")) as server:
        answer = await send_request(address_of(server), "GET", "/")

    assert 404 == answer.status


@pytest.mark.parametrize("jupyter", [True, False])
async def test_page_and_api_are_below_the_base_path_as_well(jupyter: bool) -> None:
    """Where a proxy passes on a path in front, the page, the API and its refusals are what they are without."""
    async with serve(ServerConfig(base_url="/user/me", jupyter=jupyter)) as server:
        where = address_of(server)
        anonymous = Address(where.host, where.port)
        page = await send_request(anonymous, "GET", "/user/me/")
        app = next(path for path in load_files() if path.endswith("app.js"))
        script = await send_request(anonymous, "GET", f"/user/me{app}")
        listed = await send_request(where, "GET", "/user/me/sessions")
        refused = await send_request(anonymous, "GET", "/user/me/sessions")
        alike = await send_request(where, "GET", "/user/mesessions")
        here = await send_request(where, "GET", "/sessions")

    statuses = [answer.status for answer in (page, script, listed, refused, alike, here)]
    assert [200, 200, 200, 401, 404, 200] == statuses
    assert load_files()["/"].content == page.body
