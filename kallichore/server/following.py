"""Following a server: what is new about its sessions, told in steps, for ``GET /events``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from kallichore.models.bodies import Changes
from kallichore.server.changes import Account
from kallichore.session.news import Listener

if TYPE_CHECKING:
    from kallichore.server.server import Server


@attrs.define(eq=False)
class Follower:
    """One who follows a server. Made by `follow`."""

    _server: Server
    _listener: Listener
    _account: Account = attrs.field(factory=Account, init=False)

    def look(self) -> Changes | None:
        """Return what is new, if anything is; the first time, that is all there is."""
        now, server = trio.current_time(), self._server
        sessions = server.find_sessions(self._listener.take())
        return self._account.settle(
            [session.summarize(server.epoch) for session in sessions.values() if session is not None],
            [session_id for session_id, session in sessions.items() if session is None],
            server.status() if self._account.wants_server(now) else None,
            now,
            round(time.time() * 1000),
        )

    async def wait_news(self) -> Changes | None:
        """Wait until something is new, and return it; None when the server has ended and nothing will be.

        At most four times a second; what happens meanwhile comes together. Cancelling loses nothing.
        """
        while True:
            if not self._listener.is_over:
                await trio.sleep(self._account.pause(trio.current_time()))
            news = self.look()
            if news is not None or self._listener.is_over:
                return news
            await self._listener.wait()


@contextmanager
def follow(server: Server) -> Iterator[Follower]:
    """Follow a server while the block runs; its kernels' resource usage is sampled for that long."""
    with server.facilities.news.listen() as listener:
        for session in server.sessions:
            listener.note(session.session_id)
        yield Follower(server, listener)
