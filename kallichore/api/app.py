"""The app: routing, the token, and the one place where errors become answers.

The operations are a table in `kallichore.api.operations`, what they do is in `kallichore.api.handlers`. Paths are
matched as they were sent: percent-escapes are decoded only in a session's id, so that the id ``a/b`` is reachable as
``a%2Fb``, and nothing is redirected.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from hypercorn.typing import ASGIFramework
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.routing import BaseConverter, MapAdapter

from kallichore.api.admission import LARGEST_STRANGERS_BODY, SPAN_ID, Admission, log_refusal
from kallichore.api.event_streams import accepts_events, answer_changes, answer_execution, answer_log
from kallichore.api.operations import OPERATIONS, Operation
from kallichore.api.pages import PAGES, Page
from kallichore.api.refusals import explain
from kallichore.errors import (
    AdoptionError,
    BadBodyError,
    BadPathError,
    BadQueryError,
    KallichoreError,
    NoSuchPathError,
    StartupError,
    UnauthorizedError,
)
from kallichore.models.bodies import ErrorBody, StartupErrorBody
from kallichore.models.converter import to_json
from kallichore.session.intake import LARGEST_MESSAGE, Intake, TooMuchError
from kallichore.transport.request_head import decode_segment

logger = logging.getLogger(__name__)

T = TypeVar("T")

Handler = Callable[..., Awaitable[Any]]

LONGEST_WARNING = 2000
"""Characters of a warning at most: clients refuse responses with long heads."""

_SUBJECT = re.compile(r"\{\w+\}")

_UNFIT_FOR_A_HEADER = re.compile(r"[^ -~]")


class _Segment(BaseConverter):
    """One part of a path, possibly empty, as sent."""

    regex = "[^/]*"


class _App(QuartTrio):
    """Routes by the path alone: which host a request may name is `create_app`'s business, and werkzeug's routing fails
    at names that are none, before there is anybody to answer for it.
    """

    def create_url_adapter(self, request: Any) -> MapAdapter | None:
        if request is None:
            return super().create_url_adapter(None)
        return self.url_map.bind("localhost", path_info=request.path, default_method=request.method)


def _json(body: bytes, status: int) -> Response:
    return Response(body, status=status, content_type="application/json")


def _refuse(status: HTTPStatus) -> Response:
    """Return the answer to a request that no operation looks at."""
    return _json(to_json(explain(status)), status)


def _answer_error(error: KallichoreError) -> Response:
    """Return the answer to an error: its model, or plain text, as the API has it."""
    if isinstance(error, BadBodyError | BadPathError | BadQueryError):
        return Response(str(error), status=error.http_status, content_type="text/plain; charset=utf-8")
    body = ErrorBody(code=error.code, message=error.message, details=error.details)
    if error.http_status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND):
        logger.error("%s: %s", error.code, error.message)
    if isinstance(error, StartupError) and not isinstance(error, AdoptionError):
        answer = StartupErrorBody(
            error=body, exit_code=error.exit_code, output=error.output, reason=error.reason, hint=error.hint
        )
        return _json(to_json(answer), 500)
    return _json(to_json(body), error.http_status)


def _span_id() -> str:
    given = request.headers.get(SPAN_ID)
    if given is not None and given.isascii() and (given.isprintable() or not given):
        return given
    return str(uuid.uuid4())


async def _read_body(intake: Intake, *, has_token: bool) -> bytes:
    """Return the request's body.

    Raises:
        RequestEntityTooLarge: It is larger than a body, or a stranger's, may be; or all that clients are sending is.
    """
    most = LARGEST_MESSAGE if has_token else LARGEST_STRANGERS_BODY
    body = bytearray()
    with intake.open() as portion:
        try:
            if (request.content_length or 0) > most:
                portion.refuse()
            async for piece in request.body:
                body += piece
                portion.add(len(piece))
                if len(body) > most:
                    portion.refuse()
        except TooMuchError:
            raise RequestEntityTooLarge from None
    return bytes(body)


def _in_one_line(paths: list[str]) -> str:
    """Return paths for a header and a log line. They are a client's words: any characters, and any number of them."""
    text = _UNFIT_FOR_A_HEADER.sub("?", ", ".join(f'"{path}"' for path in paths))
    return text if len(text) <= LONGEST_WARNING else text[:LONGEST_WARNING] + "..."


def _log(operation: Operation, session_id: str | None, span_id: str) -> None:
    if operation.log_level is not None:
        subject = "" if session_id is None else f"({session_id})"
        logger.log(operation.log_level, "%s%s - X-Span-ID: %s", operation.name, subject, span_id)


def create_app(handlers: dict[str, Handler], admission: Admission, intake: Intake) -> ASGIFramework:
    """Return the ASGI app of a server.

    Args:
        handlers: For each operation id of `kallichore.api.operations` what it does. A handler gets the session id where
            its path has one, may be given the body, and returns what becomes the JSON of the answer.
        admission: Who is let in. Most requests have been asked for that before they come here.
        intake: Counts what clients are sending.
    """
    app = _App(__name__, static_folder=None)
    # How large a body may be is `_read_body`'s business, and the time of a start has no limit.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.url_map.converters["segment"] = _Segment
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False

    async def run(operation: Operation, session_id: str | None) -> Response:
        span_id = _span_id()
        ignored: list[str] = []
        try:
            headers = request.headers
            if status := admission.refuse_source(headers.getlist("host"), headers.getlist("origin")):
                log_refusal(status, operation.name)
                return _refuse(status)
            subject = [] if session_id is None else [decode_segment(session_id)]
            has_token = admission.knows(headers.get("authorization"))
            if operation.needs_token and not has_token:
                log_refusal(HTTPStatus.UNAUTHORIZED, operation.name)
                raise UnauthorizedError(explain(HTTPStatus.UNAUTHORIZED).message)
            _log(operation, subject[0] if subject else None, span_id)
            if operation.body is not None:
                body, ignored[:] = operation.parse(await _read_body(intake, has_token=has_token))
                handler = handlers[operation.operation_id]
                if operation.streams_execution and accepts_events(request):
                    response = await answer_execution(await handler(*subject, body, stream=True))
                else:
                    response = _json(to_json(await handler(*subject, body)), 200)
            elif operation.reads_log:
                response = answer_log(await handlers[operation.operation_id](*subject), request)
            elif operation.streams_changes:
                response = answer_changes(await handlers[operation.operation_id](), request)
            elif operation.text_type is not None:
                response = Response(await handlers[operation.operation_id](*subject), content_type=operation.text_type)
            else:
                response = _json(to_json(await handlers[operation.operation_id](*subject)), 200)
        except KallichoreError as error:
            response = _answer_error(error)
        if response.content_type != "text/plain; charset=utf-8":
            response.headers[SPAN_ID] = span_id
        if ignored:
            paths = _in_one_line(ignored)
            logger.warning("%s: ignored unknown members [%s]", operation.name, paths)
            response.headers["warning"] = f"Ignored unknown members: [{paths}]"
        return response

    def add(operation: Operation) -> None:
        if operation.has_subject:

            async def view(subject: str) -> Response:
                return await run(operation, subject)
        else:

            async def view() -> Response:  # type: ignore[misc]  # with and without the id
                return await run(operation, None)

        rule = _SUBJECT.sub("<segment:subject>", operation.path)
        app.add_url_rule(
            rule, operation.operation_id, view, methods=[operation.method], provide_automatic_options=False
        )

    def add_page(path: str, page: Page) -> None:
        async def show() -> Response:
            headers = request.headers
            if status := admission.refuse_source(headers.getlist("host"), headers.getlist("origin")):
                return _refuse(status)
            try:
                return await page.answer()
            except NoSuchPathError as error:
                return _answer_error(error)

        app.add_url_rule(path, path, show, methods=["GET"], provide_automatic_options=False)

    for operation in OPERATIONS:
        add(operation)
    for path, page in PAGES.items():
        add_page(path, page)
    for rule in app.url_map.iter_rules():
        # werkzeug answers HEAD wherever there is a GET; the API does not.
        if rule.methods is not None:
            rule.methods.discard("HEAD")

    @app.errorhandler(HTTPException)
    async def answer_http_error(error: HTTPException) -> Response:
        return _refuse(HTTPStatus(error.code or 500))

    @app.errorhandler(Exception)
    async def answer_failure(error: Exception) -> Response:
        logger.exception("A request failed", exc_info=error)
        body = ErrorBody(code="KS-16", message="The server failed to answer; its log says why", details=str(error))
        return _json(to_json(StartupErrorBody(error=body)), 500)

    async def as_sent(scope: Any, receive: Any, send: Any) -> None:
        """Put the path as it was sent in the place of the decoded one."""
        if scope["type"] == "http":
            path = scope["raw_path"].decode("latin-1")
            if not path.startswith("/") and "://" in path:
                path = "/" + path.partition("://")[2].partition("/")[2]
            if path.startswith("//"):
                # To Quart they are one slash; to RFC 3986 (6.2) that is another path, which may be written so.
                path = f"/.{path}"
            scope = {**scope, "path": path}
        await app(scope, receive, send)

    return as_sent
