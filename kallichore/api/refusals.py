"""What an answer says that refuses a request before any operation has looked at it. [pure]"""

from __future__ import annotations

from http import HTTPStatus

from kallichore.models.bodies import ErrorBody

_EXPLANATIONS = {
    HTTPStatus.BAD_REQUEST: ("bad_request", "The request could not be read: its Host, its Origin or its head is none"),
    HTTPStatus.UNAUTHORIZED: (
        "unauthorized",
        "The bearer token is missing or wrong; send `Authorization: Bearer TOKEN` with the one of the connection file",
    ),
    HTTPStatus.FORBIDDEN: ("forbidden", "The request comes from another machine's page, or names another host"),
    HTTPStatus.NOT_FOUND: ("no_such_path", "The API has nothing at this path; /docs shows what it has"),
    HTTPStatus.METHOD_NOT_ALLOWED: ("no_such_method", "This path has other methods; /docs shows which"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("too_large", "The body is larger than it may be"),
}


def explain(status: HTTPStatus) -> ErrorBody:
    """Return the body of an answer with this status."""
    code, message = _EXPLANATIONS.get(status, ("refused", status.phrase))
    return ErrorBody(code=code, message=message)
