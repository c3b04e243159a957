"""What changed since somebody was last told, of all sessions: the decisions behind ``GET /events``. [pure]

The first thing that a listener is told is all there is; from then on, of each session only the members that are others
than before. So a page of a hundred quiet sessions gets a hundred figures a second, not a hundred descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from kallichore.models.bodies import Changes, ServerStatus, SessionSummary

LEAST_PAUSE = 0.25
"""Seconds between two events at least: people see no more, and what changes meanwhile goes into one."""

SERVER_EVERY = 5.0
"""Seconds between two looks at the server's own figures, which count descriptors and bytes."""

MEMBERS = tuple(field.name for field in attrs.fields(SessionSummary))


@attrs.define
class Account:
    """What one listener has been told, and when."""

    _told: dict[str, SessionSummary] = attrs.field(factory=dict, init=False)
    _told_at: float | None = attrs.field(default=None, init=False)
    _server_at: float | None = attrs.field(default=None, init=False)

    def pause(self, now: float) -> float:
        """Return the seconds until the next event may go."""
        return 0.0 if self._told_at is None else max(0.0, self._told_at + LEAST_PAUSE - now)

    def wants_server(self, now: float) -> bool:
        """Whether the server's own figures are due."""
        return self._server_at is None or now >= self._server_at + SERVER_EVERY

    def settle(
        self,
        sessions: Iterable[SessionSummary],
        gone: Iterable[str],
        server: ServerStatus | None,
        now: float,
        time: int,
    ) -> Changes | None:
        """Return what the listener is to be told, and take it for told; None if nothing is new to it.

        Args:
            sessions: Those that may have changed, as they are now.
            gone: The ids of those that may have been there and are not any more.
            server: The server's figures, where they are due.
            now: The caller's clock, in seconds.
            time: The same moment in milliseconds since 1970.
        """
        is_first = self._told_at is None
        changed = {each.session_id: patch for each in sessions if (patch := self._settle_one(each))}
        removed = tuple(session_id for session_id in gone if self._told.pop(session_id, None) is not None)
        if not (is_first or changed or removed or server is not None):
            return None
        self._told_at = now
        if server is not None:
            self._server_at = now
        return Changes(time=time, sessions=changed, removed=removed, server=server)

    def _settle_one(self, session: SessionSummary) -> dict[str, Any]:
        before = self._told.get(session.session_id)
        self._told[session.session_id] = session
        if before is None:
            return {name: getattr(session, name) for name in MEMBERS}
        return differences(before, session)


def differences(before: SessionSummary, after: SessionSummary) -> dict[str, Any]:
    """Return the members of ``after`` that are others in ``before``."""
    values = ((name, getattr(after, name)) for name in MEMBERS)
    return {name: value for name, value in values if value != getattr(before, name)}
