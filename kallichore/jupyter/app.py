"""The REST routes of Jupyter's API."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import attrs
import trio
from hypercorn.typing import ASGIFramework
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from kallichore._version import __version__
from kallichore.errors import KallichoreError, KernelNotFoundError
from kallichore.jupyter.access import PREFLIGHT, Access, locate
from kallichore.jupyter.kernels import Kernels
from kallichore.jupyter.kernelspecs import describe_kernelspec, describe_kernelspecs, read_resource
from kallichore.jupyter.models import JupyterError, utc_time
from kallichore.kernel.kernelspecs import find_kernelspec

logger = logging.getLogger(__name__)

LARGEST_BODY = 1 << 20
"""Bytes of a request's body: names, paths and variables."""

IMAGES_KEPT_FOR = "max-age=2592000"

Handler = Callable[..., Awaitable[Response]]


def create_jupyter_app(kernels: Kernels, access: Access) -> ASGIFramework:
    """Return the ASGI app of Jupyter's API.

    Args:
        kernels: What it is about.
        access: Who is let in. Most requests have been asked for that before they come here.
    """
    app = QuartTrio(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    app.url_map.merge_slashes = False
    routes = _Routes(kernels, access)
    for rule, method, handler in routes.table():
        app.add_url_rule(rule, f"{method} {rule}", handler, methods=[method], provide_automatic_options=False)

    @app.before_request
    async def admit() -> Response | None:
        headers = request.headers
        if status := access.refuse_source(headers.getlist("host"), headers.getlist("origin")):
            return _error(JupyterError(status, status.phrase))
        if request.method == "OPTIONS":
            return Response(b"", status=HTTPStatus.OK, headers=PREFLIGHT)
        query = request.query_string.decode("latin-1")
        token = cast("dict[str, Any]", request.scope).get("kallichore.token")
        if not access.is_open(request.method, request.path) and not access.knows(
            headers.get("authorization"), query, token
        ):
            return _error(JupyterError(HTTPStatus.UNAUTHORIZED, "The token is missing or wrong"))
        return None

    @app.after_request
    async def allow_page(response: Response) -> Response:
        response.headers.update(access.cross_origin(request.headers.get("origin")))
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.errorhandler(JupyterError)
    async def answer_error(error: JupyterError) -> Response:
        return _error(error)

    @app.errorhandler(KallichoreError)
    async def answer_our_error(error: KallichoreError) -> Response:
        return _error(JupyterError(HTTPStatus(error.http_status), str(error)))

    @app.errorhandler(HTTPException)
    async def answer_http_error(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        return _error(JupyterError(status, f"{request.method} {request.path}: {status.phrase}"))

    @app.errorhandler(Exception)
    async def answer_failure(error: Exception) -> Response:
        logger.exception("A request of Jupyter's API failed", exc_info=error)
        return _error(JupyterError(HTTPStatus.INTERNAL_SERVER_ERROR, f"The server failed to answer: {error}"))

    async def below_its_path(scope: Any, receive: Any, send: Any) -> None:
        """Route by the path below the API's own."""
        is_request = scope["type"] == "http"
        place = locate(scope["raw_path"].decode("latin-1"), access.base_url) if is_request else None
        if place is not None:
            raw_path = place.path.encode("latin-1")
            scope = {**scope, "path": unquote(place.path), "raw_path": raw_path, "kallichore.token": place.token}
        await app(scope, receive, send)

    return below_its_path


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    return Response(json.dumps(value), status=status, content_type="application/json", headers=headers)


def _nothing() -> Response:
    response = Response(b"", status=HTTPStatus.NO_CONTENT)
    del response.headers["content-type"]
    return response


def _error(error: JupyterError) -> Response:
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("Jupyter's API: %s", error.message)
    return _json(error.body(), error.status)


async def _body() -> dict[str, Any]:
    """Return the request's body, which is JSON whatever it says that it is; empty is an empty object."""
    data = await request.get_data()
    if not data.strip():
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise JupyterError(HTTPStatus.BAD_REQUEST, "Invalid JSON in body of request") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise JupyterError(HTTPStatus.BAD_REQUEST, "The body of the request must be a JSON object")
    return value


@attrs.frozen(eq=False)
class _Routes:
    """What is answered where."""

    kernels: Kernels
    access: Access

    def table(self) -> list[tuple[str, str, Handler]]:
        """Return the routes: path, method, handler."""
        one, session = "/api/kernels/<kernel_id>", "/api/sessions/<notebook_id>"
        return [
            ("/api", "GET", self.version),
            ("/api/", "GET", self.version),
            ("/api/status", "GET", self.status),
            ("/api/me", "GET", self.me),
            ("/api/kernelspecs", "GET", self.list_kernelspecs),
            ("/api/kernelspecs/<name>", "GET", self.get_kernelspec),
            ("/kernelspecs/<name>/<path:file>", "GET", self.get_resource),
            ("/api/kernels", "GET", self.list_kernels),
            ("/api/kernels", "POST", self.start_kernel),
            (one, "GET", self.get_kernel),
            (one, "DELETE", self.delete_kernel),
            (f"{one}/interrupt", "POST", self.interrupt_kernel),
            (f"{one}/restart", "POST", self.restart_kernel),
            (f"{one}/channels", "GET", self.only_websockets),
            ("/api/events/subscribe", "GET", self.only_websockets),
            ("/api/sessions", "GET", self.list_notebooks),
            ("/api/sessions", "POST", self.open_notebook),
            (session, "GET", self.get_notebook),
            (session, "PATCH", self.change_notebook),
            (session, "DELETE", self.close_notebook),
            ("/tree", "GET", self.page),
            ("/login", "GET", self.page),
        ]

    @property
    def _base(self) -> str:
        return self.access.base_url.rstrip("/")

    # The server

    async def version(self) -> Response:
        """Tell which version this is."""
        return _json({"version": __version__, "kallichore": True})

    async def status(self) -> Response:
        """Tell how the server is."""
        server = self.kernels.server
        connections = sum(len(session.audience) for session in server.sessions)
        latest = max((model["last_activity"] for model in self.kernels.models()), default=utc_time(server.started))
        return _json(
            {
                "connections": connections,
                "kernels": len(server.sessions),
                "last_activity": latest,
                "started": utc_time(server.started),
            }
        )

    async def me(self) -> Response:
        """Tell who the client is: whoever has the token."""
        name = "kallichore"
        identity = {
            "username": name,
            "name": name,
            "display_name": name,
            "initials": "K",
            "avatar_url": None,
            "color": None,
        }
        try:
            asked = json.loads(request.args.get("permissions", "{}"))
        except (ValueError, RecursionError):
            raise JupyterError(HTTPStatus.BAD_REQUEST, "permissions is no JSON") from None
        if not isinstance(asked, dict):
            raise JupyterError(HTTPStatus.BAD_REQUEST, "permissions must be a JSON object")
        return _json({"identity": identity, "permissions": {**asked, "updatable_fields": []}})

    async def page(self) -> Response:
        """Answer VS Code, which takes another answer for a server that wants a password."""
        return Response("This is Kallichore, which has no pages here", content_type="text/plain; charset=utf-8")

    async def only_websockets(self, **_: str) -> Response:
        """Refuse what is no WebSocket."""
        raise JupyterError(HTTPStatus.BAD_REQUEST, 'Can "Upgrade" only to "WebSocket".')

    # Kernelspecs

    async def list_kernelspecs(self) -> Response:
        """List the installed kernels, or describe the one that a gateway asks for in its broken way."""
        _, slash, name = request.args.get("user", "").partition("/")
        if slash:
            return await self.get_kernelspec(name)
        return _json(await trio.to_thread.run_sync(describe_kernelspecs, self._base))

    async def get_kernelspec(self, name: str) -> Response:
        """Describe an installed kernel."""
        try:
            spec = await trio.to_thread.run_sync(find_kernelspec, name)
        except KernelNotFoundError as error:
            text = f"Kernel spec {name} not found: {error.message}"
            raise JupyterError(HTTPStatus.NOT_FOUND, text) from error
        return _json(await trio.to_thread.run_sync(describe_kernelspec, spec, self._base))

    async def get_resource(self, name: str, file: str) -> Response:
        """Return a file that comes with a kernel."""
        try:
            spec = await trio.to_thread.run_sync(find_kernelspec, name)
        except KernelNotFoundError as error:
            raise JupyterError(HTTPStatus.NOT_FOUND, error.message) from error
        data, kind = await trio.to_thread.run_sync(read_resource, spec, file)
        headers = {"cache-control": IMAGES_KEPT_FOR} if file.endswith(".png") else {}
        return Response(data, content_type=kind, headers=headers)

    # Kernels

    async def list_kernels(self) -> Response:
        """List the kernels."""
        return _json(self.kernels.models())

    async def start_kernel(self) -> Response:
        """Start a kernel."""
        session = await self.kernels.start(await _body())
        model = attrs.asdict(self.kernels.model(session))
        return _json(model, HTTPStatus.CREATED, location=f"{self._base}/api/kernels/{model['id']}")

    async def get_kernel(self, kernel_id: str) -> Response:
        """Describe a kernel."""
        return _json(attrs.asdict(self.kernels.model(self.kernels.find(kernel_id))))

    async def delete_kernel(self, kernel_id: str) -> Response:
        """End a kernel."""
        await self.kernels.end(self.kernels.find(kernel_id))
        return _nothing()

    async def interrupt_kernel(self, kernel_id: str) -> Response:
        """Interrupt what a kernel executes."""
        self.kernels.find(kernel_id).interrupt()
        return _nothing()

    async def restart_kernel(self, kernel_id: str) -> Response:
        """Restart a kernel."""
        session = self.kernels.find(kernel_id)
        await self.kernels.restart(session)
        return _json(attrs.asdict(self.kernels.model(session)))

    # Documents

    async def list_notebooks(self) -> Response:
        """List the documents and their kernels."""
        return _json(self.kernels.notebooks())

    async def open_notebook(self) -> Response:
        """Tie a document to a kernel."""
        notebook = await self.kernels.open_notebook(await _body())
        location = f"{self._base}/api/sessions/{notebook.id}"
        return _json(self.kernels.notebook_model(notebook), HTTPStatus.CREATED, location=location)

    async def get_notebook(self, notebook_id: str) -> Response:
        """Describe a document and its kernel."""
        return _json(self.kernels.notebook_model(self.kernels.notebook(notebook_id)))

    async def change_notebook(self, notebook_id: str) -> Response:
        """Change a document's name, path, type or kernel."""
        notebook = self.kernels.notebook(notebook_id)
        await self.kernels.change_notebook(notebook, await _body())
        return _json(self.kernels.notebook_model(notebook))

    async def close_notebook(self, notebook_id: str) -> Response:
        """End a document's kernel."""
        await self.kernels.close_notebook(self.kernels.notebook(notebook_id))
        return _nothing()
