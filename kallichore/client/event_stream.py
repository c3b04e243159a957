"""Server-sent events, as a client reads them: the HTML standard's section 9.2, as far as the API uses it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs
import h11
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import READ_SIZE, ApiError, complaint, open_stream

EVENT_STREAM = "text/event-stream"


@attrs.frozen
class Event:
    """One event: its data, and its id and its name where it has one."""

    data: str
    event_id: str | None = None
    name: str | None = None


@attrs.define
class EventParser:
    """Puts events together from bytes as they come. [pure]"""

    _incomplete: bytes = attrs.field(default=b"", init=False)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        text = self._incomplete + data
        # A line may end in either way. What ends in the middle of a line's end waits for the rest.
        held = b"\r" if text.endswith(b"\r") else b""
        *blocks, rest = text[: len(text) - len(held)].replace(b"\r\n", b"\n").split(b"\n\n")
        self._incomplete = rest + held
        events = [_parse(block.decode("utf-8", "replace")) for block in blocks]
        return [event for event in events if event is not None]


def _parse(block: str) -> Event | None:
    """Return the event of one block of lines, or None for one that is only comments."""
    data: list[str] = []
    event_id = event_name = None
    for line in block.splitlines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id":
            event_id = value
        elif name == "event":
            event_name = value
    return Event("\n".join(data), event_id, event_name) if data else None


@asynccontextmanager
async def open_events(
    address: Address,
    path: str,
    body: Any = None,
    headers: Sequence[tuple[str, str]] = (),
    connect_patience: float = float("inf"),
) -> AsyncIterator[AsyncIterator[Event]]:
    """Ask for a stream of events; yield an iterator that ends when the server ends it. Leaving closes the connection.

    Args:
        address: The server.
        path: What has events.
        body: What becomes the JSON body of a POST; None for a GET.
        headers: More headers.
        connect_patience: Seconds that the connection may take.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    connection = h11.Connection(h11.CLIENT)
    method, content = ("GET", b"") if body is None else ("POST", json.dumps(body).encode())
    types = [("accept", f"application/json, {EVENT_STREAM}"), ("content-type", "application/json")]
    fields = [*address.headers, *types, ("content-length", str(len(content))), *headers]
    request = h11.Request(method=method, target=path, headers=fields)
    sent = (connection.send(request), connection.send(h11.Data(data=content)), connection.send(h11.EndOfMessage()))
    try:
        with trio.fail_after(connect_patience):
            stream = await open_stream(address)
    except trio.TooSlowError as error:
        raise ConnectionError(f"Could not reach {address} within {connect_patience:g} s") from error
    async with stream:
        await stream.send_all(b"".join(part or b"" for part in sent))
        response = await _next(connection, stream)
        assert isinstance(response, h11.Response)
        if response.status_code != 200:
            raise await _refused(connection, stream, method, path, response.status_code)
        kind = dict(response.headers).get(b"content-type", b"")
        iterate = _iterate if EVENT_STREAM.encode() in kind else _whole
        async with aclosing(iterate(connection, stream)) as events:
            yield events


async def _refused(
    connection: h11.Connection, stream: trio.abc.Stream, method: str, path: str, status: int
) -> ApiError:
    """Return what a refusal says."""
    content = b""
    while isinstance(event := await _next(connection, stream), h11.Data):
        content += bytes(event.data)
    try:
        said = json.loads(content)
    except ValueError:
        said = content.decode("utf-8", "replace")
    return ApiError(complaint(method, path, status, said), status, said)


async def _next(connection: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
    return event


async def _whole(connection: h11.Connection, stream: trio.abc.Stream) -> AsyncGenerator[Event, None]:
    """Yield the one event that an answer is which has no events."""
    content = b""
    while isinstance(event := await _next(connection, stream), h11.Data):
        content += bytes(event.data)
    yield Event(content.decode("utf-8", "replace"))


async def _iterate(connection: h11.Connection, stream: trio.abc.Stream) -> AsyncGenerator[Event, None]:
    parser = EventParser()
    while True:
        try:
            event = await _next(connection, stream)
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            # The server is gone, without the last chunk: the end all the same.
            return
        if not isinstance(event, h11.Data):
            return
        for found in parser.feed(bytes(event.data)):
            yield found
