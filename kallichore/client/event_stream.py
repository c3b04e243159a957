"""Server-sent events, as a client reads them: the HTML standard's section 9.2, as far as the API uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import attrs
import h11
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import READ_SIZE, ApiError, complaint, open_stream


@attrs.frozen
class Event:
    """One event: its data, and its id where it has one."""

    data: str
    event_id: str | None = None


@attrs.define
class EventParser:
    """Puts events together from bytes as they come. [pure]"""

    _incomplete: bytes = attrs.field(default=b"", init=False)

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that ``data`` completes."""
        *blocks, self._incomplete = (self._incomplete + data).split(b"\n\n")
        events = [_parse(block.decode("utf-8", "replace")) for block in blocks]
        return [event for event in events if event is not None]


def _parse(block: str) -> Event | None:
    """Return the event of one block of lines, or None for one that is only comments."""
    data: list[str] = []
    event_id = None
    for line in block.splitlines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id":
            event_id = value
    return Event("\n".join(data), event_id) if data else None


@asynccontextmanager
async def open_events(address: Address, path: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Ask for a stream of events; yield an iterator that ends when the server ends it. Leaving closes the connection.

    Raises:
        ApiError: The server refused.
        OSError: Nobody listens there.
    """
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=path, headers=[*address.headers, ("accept", "text/event-stream")])
    head = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    async with await open_stream(address) as stream:
        await stream.send_all(head)
        response = await _next(connection, stream)
        assert isinstance(response, h11.Response)
        if response.status_code != 200:
            raise ApiError(complaint("GET", path, response.status_code, ""), response.status_code, None)
        async with aclosing(_iterate(connection, stream)) as events:
            yield events


async def _next(connection: h11.Connection, stream: trio.abc.Stream) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some(READ_SIZE)))
    return event


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
