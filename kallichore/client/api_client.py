"""One HTTP request at a time, over TCP or a Unix socket: all that the API's clients in this project need."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import quote, unquote

import attrs
import h11
import trio

from kallichore.client.address import Address
from kallichore.errors import ConfigurationError, KallichoreError
from kallichore.transport.named_pipe import connect_named_pipe

READ_SIZE = 1 << 16


class ApiError(KallichoreError):
    """The server refused a request; ``status`` is the HTTP status and ``body`` what it said, decoded if it was JSON."""

    def __init__(self, message: str, status: int, body: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@attrs.frozen
class Answer:
    """A response: status, headers with lower-case names, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body decoded."""
        return json.loads(self.body)


async def open_stream(address: Address) -> trio.abc.Stream:
    """Connect to a server.

    Raises:
        OSError: Nobody listens there; the message names the address.
        ConfigurationError: It is on a named pipe, and this is not Windows; or on a Unix socket, and this is.
    """
    try:
        if address.socket_path is not None:
            return await _open_unix_socket(address.socket_path)
        if address.named_pipe is not None:
            return await connect_named_pipe(address.named_pipe)
        assert address.host is not None
        assert address.port is not None
        return await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        # Trio's own error for TCP has no reason, since each attempt has one.
        reason = f": {error.strerror}" if error.strerror else ""
        raise ConnectionError(f"Could not reach a server at {address}{reason}") from error


async def _open_unix_socket(path: str) -> trio.abc.Stream:
    if sys.platform == "win32":
        raise ConfigurationError(f"A Unix socket, {path}, cannot be reached on Windows; use a URL or a connection file")
    return await trio.open_unix_socket(path)


class NoAnswerError(ConnectionResetError, h11.RemoteProtocolError):
    """The connection was closed before an answer began: nobody is there any more, and that is no HTTP either."""


def session_path(session_id: str, operation: str = "") -> str:
    """Return the path of a session, or of an operation on it."""
    path = f"/sessions/{quote(session_id, safe='')}"
    return f"{path}/{operation}" if operation else path


async def send_request(
    address: Address, method: str, path: str, body: bytes | None = None, headers: list[tuple[str, str]] | None = None
) -> Answer:
    """Send one request on a connection of its own and return the answer, whatever its status.

    Cancelling closes the connection; what the request began at the server goes on.

    Raises:
        OSError: Nobody listens there.
        NoAnswerError: The connection was closed without an answer.
        h11.RemoteProtocolError: What came back is no HTTP, or not all of it.
    """
    connection = h11.Connection(h11.CLIENT)
    content = body or b""
    lengths = [("content-length", str(len(content))), ("connection", "close")]
    request = h11.Request(method=method, target=path, headers=[*address.headers, *lengths, *(headers or [])])
    head = connection.send(request) or b""
    data = connection.send(h11.Data(data=content)) or b""
    end = connection.send(h11.EndOfMessage()) or b""
    async with await open_stream(address) as stream:
        try:
            await stream.send_all(head + data + end)
        except trio.BrokenResourceError:
            # A server may answer, and close, before it has read all of a large body.
            pass
        return await _read_answer(connection, stream)


async def _read_answer(connection: h11.Connection, stream: trio.abc.Stream) -> Answer:
    status, headers, chunks = 0, {}, []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            try:
                data = bytes(await stream.receive_some(READ_SIZE))
            except trio.BrokenResourceError:
                data = b""
            if not data and not status and not connection.trailing_data[0]:
                # As of a server that is ending: it accepts, and answers nobody any more.
                raise NoAnswerError("The server closed the connection without an answer")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            chunks.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, headers, b"".join(chunks))


@attrs.frozen
class ApiClient:
    """The API of one server, one method for what every client needs."""

    address: Address

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded answer.

        Args:
            method: The HTTP method.
            path: The path; see `session_path`.
            body: What becomes the JSON body; None for no body.

        Raises:
            ApiError: The server refused it; the message is the server's own.
            OSError: Nobody listens there.
        """
        raw = None if body is None else json.dumps(body).encode()
        answer = await send_request(self.address, method, path, raw)
        is_json = answer.headers.get("content-type") == "application/json"
        content = answer.json() if is_json else answer.body.decode("utf-8", "replace")
        if answer.status != 200:
            raise ApiError(complaint(method, path, answer.status, content), answer.status, content)
        return content


def complaint(method: str, path: str, status: int, content: Any) -> str:
    """Return what a refusal means, in words: the server's where it has any."""
    if isinstance(content, dict) and status not in (401, 404):
        error = content.get("error", content)
        hint = f"Hint: {content['hint']}" if content.get("hint") else None
        lines = [str(error.get("message")), error.get("details"), content.get("output"), hint]
        return "\n".join(str(line) for line in lines if line)
    if status == 404 and path.startswith("/sessions/"):
        session = path.removeprefix("/sessions/").partition("/")[0]
        return f"There is no session {unquote(session)!r}; kcclient list shows those that there are"
    # Here the options of kcclient are more to the point than what the server says to everybody.
    meanings = {
        401: "The server needs a bearer token, and this is not it; use --connection-file or --token",
        404: f"There is no {path}",
    }
    return meanings.get(status) or content or f"{method} {path} was answered with status {status}"
