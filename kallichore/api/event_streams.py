"""Server-sent events (the HTML standard's section 9.2): logs that are followed, executions that are watched, and
what changes on a server.

Clients that do not accept events get one JSON document: the log so far, the execution's result, or all there is. A
log's events have an ``id`` that a client sends back as ``Last-Event-ID`` when it reconnects, so that it misses nothing
and gets nothing twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, aclosing
from typing import Any

import attrs
import trio
from quart import Request, Response

from kallichore.errors import BadQueryError, ExecuteError
from kallichore.models.bodies import ErrorBody, ExecuteReply, LogLine
from kallichore.models.converter import to_json
from kallichore.server import Follower
from kallichore.session.line_log import LineLog

STILL_HERE = 15.0
"""Seconds of silence after which a comment is sent: what finds out that the client is gone, and keeps proxies calm."""

STILL_HERE_COMMENT = b": still here\n\n"

EVENT_STREAM = "text/event-stream"


@attrs.frozen
class LogQuery:
    """Which lines: beyond number ``after``, and of those there are already the last ``tail``."""

    after: int = 0
    tail: int | None = None


def read_query(request: Request) -> LogQuery:
    """Return which lines a request asks for.

    Raises:
        BadQueryError: ``tail`` or ``after`` is no number.
    """
    after = request.args.get("after", request.headers.get("last-event-id", "0"))
    tail = request.args.get("tail")
    return LogQuery(_number("after", after), None if tail is None else _number("tail", tail))


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadQueryError(f"{name} is {text!r}; it must be a number of lines, 0 or more")
    return int(text)


def answer_log(log: LineLog, request: Request) -> Response:
    """Return the answer to a request for a log: events if it accepts those, else JSON.

    Raises:
        BadQueryError: As `read_query`.
    """
    query = read_query(request)
    if not accepts_events(request):
        return Response(to_json(log.read(query.after, query.tail)), content_type="application/json")
    return _stream(_log_events(log, query))


def accepts_events(request: Request) -> bool:
    """Return whether a client asks for events."""
    return EVENT_STREAM in request.headers.get("accept", "")


def _stream(events: AsyncIterator[bytes]) -> Response:
    response = Response(events, content_type=EVENT_STREAM)
    response.headers["cache-control"] = "no-store"
    return response


async def _log_events(log: LineLog, query: LogQuery) -> AsyncIterator[bytes]:
    after, tail = query.after, query.tail
    while True:
        found = log.read(after, tail)
        tail = None
        if found.missing:
            yield b": %d lines are gone\n\n" % found.missing
        if found.lines:
            after = found.lines[-1].number
            yield b"".join(map(_event, found.lines))
        elif log.is_closed:
            return
        else:
            yield STILL_HERE_COMMENT
        with trio.move_on_after(STILL_HERE):
            await log.wait_beyond(after)


async def answer_execution(messages: AsyncGenerator[dict[str, Any] | ExecuteReply | None, None]) -> Response:
    """Return the answer that streams an execution: each message as an event, at last one named ``reply`` or ``error``,
    and a comment for each None.

    Raises:
        ExecuteError: It could not begin.
    """
    first = await anext(messages)
    return _stream(_execution_events(first, messages))


async def _execution_events(
    message: dict[str, Any] | ExecuteReply | None, messages: AsyncGenerator[dict[str, Any] | ExecuteReply | None, None]
) -> AsyncIterator[bytes]:
    async with aclosing(messages):
        try:
            while not isinstance(message, ExecuteReply):
                if message is None:
                    yield STILL_HERE_COMMENT  # noqa: ASYNC119  # Quart closes what it iterates
                else:
                    yield b"data: %s\n\n" % to_json(message)  # noqa: ASYNC119  # the same
                message = await anext(messages)
            yield b"event: reply\ndata: %s\n\n" % to_json(message)  # noqa: ASYNC119  # the same
        except ExecuteError as error:
            body = ErrorBody(code=error.code, message=error.message, details=error.details)
            yield b"event: error\ndata: %s\n\n" % to_json(body)  # noqa: ASYNC119  # the same


def answer_changes(following: AbstractContextManager[Follower], request: Request) -> Response:
    """Return the answer that tells what changes: events named ``changes`` if it accepts those, else all there is."""
    if accepts_events(request):
        return _stream(_change_events(following))
    with following as follower:
        return Response(to_json(follower.look()), content_type="application/json")


async def _change_events(following: AbstractContextManager[Follower]) -> AsyncIterator[bytes]:
    with following as follower:
        while True:
            event = b": still here\n\n"
            with trio.move_on_after(STILL_HERE):
                news = await follower.wait_news()
                if news is None:
                    return
                event = b"event: changes\ndata: %s\n\n" % to_json(news)
            yield event  # noqa: ASYNC119  # Quart closes what it iterates


def _event(line: LogLine) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (line.number, to_json(line))
