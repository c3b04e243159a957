"""A session in short, as somebody sees it who looks at all of them at once.

Times are moments and not durations: what is only older than before has not changed, and nobody has to be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from kallichore.models.bodies import SessionSummary, Status

if TYPE_CHECKING:
    from kallichore.session.session import Session

LONGEST_LINE = 200
"""Characters of what runs that are shown."""


def summarize(session: Session, epoch: float) -> SessionSummary:
    """Return a session in short.

    Args:
        session: The session.
        epoch: When Trio's clock was at zero, in seconds since 1970.
    """

    def moment(since: float | None) -> int | None:
        return None if since is None else round((epoch + since) * 1000)

    request, conversation = session.request, session.conversation
    status, queue = conversation.status, conversation.queue
    journal = conversation.journal
    return SessionSummary(
        session_id=request.session_id,
        display_name=request.display_name,
        language=request.language,
        session_mode=request.session_mode,
        notebook_uri=request.notebook_uri,
        working_directory=conversation.working_directory,
        started=session.created,
        status=status.current,
        status_since=round((epoch + status.since) * 1000),
        idle_since=moment(status.idle_since),
        busy_since=moment(conversation.busy_since),
        running=None if queue.active is None else first_line(conversation.history.code_of(queue.active.msg_id)),
        waits_for_input=conversation.open_input is not None,
        queue_length=len(queue),
        clients=len(session.audience),
        # Its process may be there for a moment longer than itself, for its last words.
        process_id=None if status.current is Status.EXITED else session.process_id,
        resource_usage=conversation.resource_usage,
        journal_bytes=journal.memory_bytes + journal.overflow.size,
        memory_warning=conversation.memory_warning,
        last_exit=conversation.last_exit,
        cull=None if session.idle_watch is None else session.idle_watch.describe(trio.current_time()),
        pending=conversation.whereabouts.pending,
        connection_lost=conversation.whereabouts.connection_lost,
        place=conversation.whereabouts.place,
    )


def first_line(code: str) -> str:
    """Return the first line of code that says anything, shortened."""
    line = next(filter(None, map(str.strip, code.splitlines())), "")
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
