"""A server and its page in a browser, for tests."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from chromium import Page, find_chromium, open_page
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.models.bodies import NewSession
from kallichore.session.session import Session

TOKEN = "t0ken/with=signs+"


@attrs.frozen
class Browsing:
    """A server, and a page that is logged in."""

    server: RunningServer
    page: Page

    @property
    def url(self) -> str:
        """The address of the page, without the token."""
        return f"{self.server.address}{self.server.server.config.base_url.rstrip('/')}/"

    async def open_list(self) -> None:
        """Show all sessions, logged in."""
        await self.page.go(f"{self.url}#token={TOKEN.replace('+', '%2B')}")
        await self.page.wait_for("document.querySelector('.link-state.live')")

    async def open_session(self, session_id: str) -> None:
        """Show one session, and wait until its channels are open."""
        await self.page.evaluate(f"location.hash = '#/session/' + encodeURIComponent({json.dumps(session_id)})")
        await self.page.wait_for("document.querySelector('#code:enabled')")
        await self.page.wait_for("document.querySelector('.cells[aria-busy=false]')")

    async def open_started(self, request: NewSession) -> Session:
        """Create and start a session, and show it."""
        session = self.server.create_session(request)
        await session.start()
        await self.open_list()
        await self.open_session(session.session_id)
        return session

    async def choose(self, act: str, within: str = "tbody") -> None:
        """Choose what to do in the first menu of a part of the page."""
        await self.page.click(f"document.querySelector({json.dumps(within)})?.querySelector('.menu button')")
        await self.click(act, ".menu-items")

    async def run(self, code: str) -> None:
        """Type code and run it, as one does."""
        await self.page.focus("document.querySelector('#code')")
        await self.page.type(code)
        await self.page.click("document.querySelector('.entry button')")

    async def wait_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        await self.page.wait_for(f"document.body?.innerText.includes({json.dumps(text)})")

    async def click(self, text: str, within: str = "body") -> None:
        """Click the button, link or item with this text."""
        all_of = f"[...document.querySelectorAll({json.dumps(within)})].at(-1)"
        buttons = f"[...({all_of}?.querySelectorAll('button, a') ?? [])]"
        await self.page.click(f"{buttons}.find((each) => each.innerText.trim().startsWith({json.dumps(text)}))")


@asynccontextmanager
async def browse(**settings: Any) -> AsyncIterator[Browsing]:
    """Run a server and a browser, in which nothing is open yet."""
    program = find_chromium()
    assert program is not None
    with tempfile.TemporaryDirectory() as place:
        async with serve(ServerConfig(token=TOKEN, **settings)) as server:
            async with open_page(program, Path(place)) as page:
                yield Browsing(server, page)
