"""A session as the API shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kallichore.models.bodies import ActiveSession, ExecutionQueue, Status

if TYPE_CHECKING:
    from kallichore.session.session import Session

RECENT_ENTRIES = 3
"""Entries of the history that a session's description has; the whole of it has an operation of its own."""


def describe(session: Session, now: float) -> ActiveSession:
    """Return what is known of a session, at a time in seconds of Trio's clock."""
    request, conversation = session.request, session.conversation
    queue, busy_since = conversation.queue, conversation.busy_since
    return ActiveSession(
        session_id=request.session_id,
        argv=request.argv,
        process_id=session.process_id,
        username=request.username,
        display_name=request.display_name,
        language=request.language,
        interrupt_mode=request.interrupt_mode,
        initial_env=session.initial_env,
        connected=len(session.audience) > 0,
        started=session.created,
        session_mode=request.session_mode,
        working_directory=conversation.working_directory,
        notebook_uri=request.notebook_uri,
        input_prompt=conversation.input_prompt,
        continuation_prompt=conversation.continuation_prompt,
        execution_queue=ExecutionQueue(
            active=None if queue.active is None else queue.active.as_body(),
            length=len(queue),
            pending=tuple(message.as_body() for message in queue.pending),
        ),
        status=session.status,
        kernel_info=_with_language(conversation.kernel_info),
        resource_usage=conversation.resource_usage,
        idle_seconds=0 if busy_since is not None else conversation.status.idle_seconds(now),
        busy_seconds=0 if busy_since is None or session.status is Status.OFFLINE else int(now - busy_since),
        socket_path=session.audience.socket_path,
        history=conversation.history.entries(RECENT_ENTRIES),
        last_exit=conversation.last_exit,
        memory_warning=conversation.memory_warning,
        cull=None if session.idle_watch is None else session.idle_watch.describe(now),
        durable=session.keeper is not None,
        not_kept=session.not_kept,
        engine=request.engine,
        pending=conversation.whereabouts.pending,
        connection_lost=conversation.whereabouts.connection_lost,
        place=conversation.whereabouts.place,
    )


def _with_language(info: dict[str, Any]) -> dict[str, Any]:
    """Return what a kernel said of itself with a ``language_info`` in any case: clients that come back while it still
    starts look into that without asking whether it is there.
    """
    language = info.get("language_info")
    return {**info, "language_info": language if isinstance(language, dict) else {}}
