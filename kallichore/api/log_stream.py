"""Logs over HTTP: the lines so far as JSON, or as server-sent events that go on as lines come.

The events follow the HTML standard's section 9.2: an ``id`` that a client sends back as ``Last-Event-ID`` when it
reconnects, so that it misses nothing and gets nothing twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import trio
from quart import Request, Response

from kallichore.errors import BadQueryError
from kallichore.models.bodies import LogLine
from kallichore.models.converter import to_json
from kallichore.session.line_log import LineLog

STILL_HERE = 15.0
"""Seconds of silence after which a comment is sent: what finds out that the client is gone, and keeps proxies calm."""

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
    if EVENT_STREAM not in request.headers.get("accept", ""):
        return Response(to_json(log.read(query.after, query.tail)), content_type="application/json")
    response = Response(_events(log, query), content_type=EVENT_STREAM)
    response.headers["cache-control"] = "no-store"
    return response


async def _events(log: LineLog, query: LogQuery) -> AsyncIterator[bytes]:
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
            yield b": still here\n\n"
        with trio.move_on_after(STILL_HERE):
            await log.wait_beyond(after)


def _event(line: LogLine) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (line.number, to_json(line))
