"""The server's sessions as Jupyter's kernels, and the documents that are tied to them."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

import attrs
import trio

from kallichore.config import ServerConfig
from kallichore.errors import KallichoreError, KernelNotFoundError, StartupError
from kallichore.jupyter.models import EXECUTION_STATES, JupyterError, NotebookSession, utc_time
from kallichore.kernel.kernelspecs import NATIVE_KERNEL, default_kernel, find_kernelspec, list_kernelspecs
from kallichore.models.bodies import NewSession, SessionMode, VarAction, VarActionType
from kallichore.models.jupyter import UUID_SHAPED, KernelModel
from kallichore.server import Server
from kallichore.session.session import Session

DOCUMENT = "JPY_SESSION_NAME"
"""The variable that tells a kernel which document it works for."""

REMEMBERED = "jupyter"
"""The name under which sessions that outlive a server have what is known of them here."""

PATIENCE_ELSEWHERE = 5.0
"""Seconds that a start on another machine is waited for, so that what is refused at once is told in the answer. Front
ends wait for an answer for half a minute or so, and for a kernel that is starting as long as it takes."""

LARGEST_VARIABLE = 100_000
"""Bytes of a variable and its name; Linux takes 131,072, and then says no more than that a list is too long."""


@attrs.define(eq=False)
class Kernels:
    """What Jupyter's API has to say of one server's sessions.

    Args:
        server: The server.
        config: Its settings.
    """

    server: Server
    config: ServerConfig
    _names: dict[str, str] = attrs.field(factory=dict, init=False)
    """The kernelspec of each session that was started here."""
    _notebooks: dict[str, NotebookSession] = attrs.field(factory=dict, init=False)
    _turns: WeakValueDictionary[str, trio.Lock] = attrs.field(factory=WeakValueDictionary, init=False)
    """Who starts a kernel under an id, or opens a document, while others wait who want the same."""

    def __attrs_post_init__(self) -> None:
        for session in self.server.sessions:
            known = session.remembered(REMEMBERED) or {}
            if known.get("name"):
                self._names[session.session_id] = known["name"]
            for members in known.get("notebooks", ()):
                notebook = NotebookSession(**members)
                self._notebooks[notebook.id] = notebook

    def _remember(self, session: Session) -> None:
        """Have the next server know which kernelspec a session's kernel is of, and which documents it works for."""
        kernel_id = self.id_of(session)
        notebooks = [attrs.asdict(each) for each in self._notebooks.values() if each.kernel_id == kernel_id]
        session.remember(REMEMBERED, {"name": self._names.get(session.session_id), "notebooks": notebooks})

    # Kernels

    def id_of(self, session: Session) -> str:
        """Return a session's kernel id: its own id, or one made of it where that is not shaped like others are."""
        if UUID_SHAPED.fullmatch(session.session_id):
            return session.session_id
        # The same with the next server, if it outlives this one.
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session.session_id} {session.created}"))

    def find(self, kernel_id: str) -> Session:
        """Return the session of a kernel id.

        Raises:
            JupyterError: There is none.
        """
        for session in self.server.sessions:
            if self.id_of(session) == kernel_id:
                return session
        raise JupyterError(HTTPStatus.NOT_FOUND, f"Kernel does not exist: {kernel_id}")

    def model(self, session: Session) -> KernelModel:
        """Return a kernel as it is listed."""
        state = "restarting" if session.is_changing else EXECUTION_STATES[session.status]
        return KernelModel(
            id=self.id_of(session),
            name=self._names.get(session.session_id) or _name_like(session.request),
            last_activity=utc_time(_last_activity(session)),
            execution_state=state,
            connections=len(session.audience),
        )

    def models(self) -> list[dict[str, Any]]:
        """Return all kernels."""
        return [attrs.asdict(self.model(session)) for session in self.server.sessions]

    async def start(self, wanted: Mapping[str, Any], document: str | None = None) -> Session:
        """Start a kernel, or return the one that has the id that is wanted, started again if it is dead.

        Args:
            wanted: The request: ``name``, ``path``, ``kernel_id``, ``env``, each of which may be missing.
            document: The path of the document that it is for.

        Raises:
            JupyterError: The request is wrong, there is no such kernel, or it did not start; the message says why.
        """
        kernel_id = _text(wanted, "kernel_id") or str(uuid.uuid4())
        if not UUID_SHAPED.fullmatch(kernel_id):
            raise JupyterError(HTTPStatus.BAD_REQUEST, f"kernel_id is {kernel_id!r}; it must look like a UUID")
        async with self._turns.setdefault(kernel_id, trio.Lock()):
            for session in self.server.sessions:
                if self.id_of(session) == kernel_id and session.is_ending:
                    await self.end(session)
                elif self.id_of(session) == kernel_id:
                    if not session.is_running:
                        await self.restart(session)
                    return session
            return await self._start(wanted, kernel_id, document)

    async def _start(self, wanted: Mapping[str, Any], kernel_id: str, document: str | None) -> Session:
        environment = _environment(wanted.get("env"))
        name = _text(wanted, "name")
        directory = self._directory(_text(wanted, "path"), environment.get("KERNEL_WORKING_DIR"))
        if document is not None:
            environment[DOCUMENT] = str(self._root / document.lstrip("/"))
        try:
            found, request = await trio.to_thread.run_sync(_make_request, name, kernel_id, directory, environment)
            session = self.server.create_session(request)
        except KallichoreError as error:
            raise _unavailable(name, error) from error
        self._names[kernel_id] = found
        self._remember(session)
        try:
            # One that waits for a machine is there, and is starting, for as long as that takes.
            with trio.move_on_after(math.inf if request.engine is None else PATIENCE_ELSEWHERE):
                await session.start()
        except KallichoreError as error:
            if not session.is_running:
                self._forget(session)
            raise _unavailable(name, error) from error
        return session

    async def end(self, session: Session) -> None:
        """End a kernel and forget its session. Cancelling the wait leaves the kernel ending."""
        session.begin_stop()
        await session.wait_ended()
        if session in self.server.sessions:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        self._names.pop(session.session_id, None)
        self.server.delete_session(session.session_id)

    async def restart(self, session: Session) -> None:
        """Restart a kernel and wait until it answers; where a restart is under way, wait for that.

        Raises:
            JupyterError: It did not start again, or was ended meanwhile; the message says why.
        """
        try:
            await (session.wait_ready() if session.is_changing else session.restart())
        except KallichoreError as error:
            if session.is_ending:
                raise JupyterError(HTTPStatus.NOT_FOUND, f"The kernel was ended: {self.id_of(session)}") from error
            raise _unavailable(self._names.get(session.session_id), error) from error

    @property
    def _root(self) -> Path:
        return (self.config.root_directory or Path.cwd()).resolve()

    def _directory(self, path: str | None, working_directory: str | None) -> str:
        """Return where a kernel is started: the directory of a document below the root, as near as there is one."""
        if working_directory and os.path.isdir(working_directory):
            return working_directory
        below = _sendable(unquote(path or ""), "path").lstrip("/")
        # What is too long, or leads round in circles, is only found to be no directory; Path's own way would raise.
        folder = Path(os.path.realpath(self._root / below))
        if not folder.is_relative_to(self._root):
            raise JupyterError(HTTPStatus.BAD_REQUEST, f"path is {path!r}; it must be below the server's directory")
        while not os.path.isdir(folder):
            folder = folder.parent
        return str(folder)

    # Documents

    def notebooks(self) -> list[dict[str, Any]]:
        """Return the documents whose kernels are there."""
        return [self.notebook_model(each) for each in list(self._notebooks.values()) if self._is_there(each)]

    def _is_there(self, notebook: NotebookSession) -> bool:
        try:
            self.find(notebook.kernel_id)
        except JupyterError:
            del self._notebooks[notebook.id]
            return False
        return True

    def notebook_model(self, notebook: NotebookSession) -> dict[str, Any]:
        """Return a document as it is listed."""
        return notebook.model(self.model(self.find(notebook.kernel_id)))

    def notebook(self, notebook_id: str) -> NotebookSession:
        """Return a document by its session's id.

        Raises:
            JupyterError: There is none, or its kernel is gone.
        """
        notebook = self._notebooks.get(notebook_id)
        if notebook is None or not self._is_there(notebook):
            raise JupyterError(HTTPStatus.NOT_FOUND, f"Session not found: session_id={notebook_id!r}")
        return notebook

    async def open_notebook(self, wanted: Mapping[str, Any]) -> NotebookSession:
        """Tie a document to a kernel: the one that it has, the one that is named, or a new one.

        Raises:
            JupyterError: The request is wrong, or the kernel did not start.
        """
        path, kind = _text(wanted, "path"), _text(wanted, "type")
        legacy = wanted.get("notebook")
        if path is None and isinstance(legacy, dict):
            path, kind = _text(legacy, "path"), kind or "notebook"
        if path is None or kind is None:
            missing = "path" if path is None else "type"
            raise JupyterError(HTTPStatus.BAD_REQUEST, f"Missing field in JSON data: {missing}")
        name = _text(wanted, "name") or path.rpartition("/")[2]
        async with self._turns.setdefault(f"document {path}", trio.Lock()):
            for known in list(self._notebooks.values()):
                if known.path == path and self._is_there(known):
                    return known
            session = await self._kernel_for(_part(wanted, "kernel"), path)
            notebook = NotebookSession(str(uuid.uuid4()), path, name, kind, self.id_of(session))
            self._notebooks[notebook.id] = notebook
            self._remember(session)
            return notebook

    async def _kernel_for(self, kernel: Mapping[str, Any], path: str) -> Session:
        kernel_id = _text(kernel, "id")
        if kernel_id:
            try:
                return self.find(kernel_id)
            except JupyterError:
                pass
        folder = path.rpartition("/")[0]
        try:
            return await self.start({**kernel, "kernel_id": kernel_id, "path": folder}, path)
        except JupyterError as error:
            if isinstance(error.__cause__, KernelNotFoundError):
                short = f"{_text(kernel, 'name')} not found"
                raise JupyterError(HTTPStatus.NOT_IMPLEMENTED, error.message, short) from error
            raise

    async def change_notebook(self, notebook: NotebookSession, wanted: Mapping[str, Any]) -> None:
        """Change a document's path, name, type or kernel; a kernel that it had before is ended.

        Raises:
            JupyterError: The request is wrong, or the kernel did not start.
        """
        kernel = _part(wanted, "kernel")
        before = self.find(notebook.kernel_id)
        after = before
        if kernel_id := _text(kernel, "id"):
            try:
                after = self.find(kernel_id)
            except JupyterError as error:
                raise JupyterError(HTTPStatus.BAD_REQUEST, f"No such kernel: {kernel_id}") from error
        elif _text(kernel, "name"):
            after = await self._kernel_for(kernel, _text(wanted, "path") or notebook.path)
        notebook.path = _text(wanted, "path") or notebook.path
        notebook.name = notebook.name if (name := _text(wanted, "name")) is None else name
        notebook.type = _text(wanted, "type") or notebook.type
        notebook.kernel_id = self.id_of(after)
        self._remember(after)
        if after is not before:
            await self.end(before)

    async def close_notebook(self, notebook: NotebookSession) -> None:
        """End a document's kernel, and forget what tied them."""
        del self._notebooks[notebook.id]
        await self.end(self.find(notebook.kernel_id))


def _make_request(
    name: str | None, kernel_id: str, directory: str, environment: Mapping[str, str]
) -> tuple[str, NewSession]:
    """Return the name of the kernelspec and the request for its session. Reads files."""
    spec = find_kernelspec(name or default_kernel(list_kernelspecs()) or NATIVE_KERNEL)
    request = spec.new_session(kernel_id, session_mode=SessionMode.NOTEBOOK, working_directory=directory)
    variables = {"KERNEL_GATEWAY": "1", **environment}
    actions = (VarAction(VarActionType.REPLACE, each, value) for each, value in variables.items())
    return spec.name, attrs.evolve(request, env=(*request.env, *actions))


def _name_like(request: NewSession) -> str:
    """Return what a kernel is called that was started otherwise: after its language, as installed ones mostly are."""
    return "python3" if request.language.lower() == "python" else request.language.lower() or "kernel"


def _last_activity(session: Session) -> datetime:
    conversation = session.conversation
    if conversation.busy_since is not None:
        return datetime.now(UTC)
    return session.created + timedelta(seconds=max(0.0, conversation.active_at - conversation.created_at))


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise JupyterError(HTTPStatus.BAD_REQUEST, f"{name} is {value!r}; it must be a string")
    return value if value is None else _sendable(value, name)


def _sendable(text: str, name: str) -> str:
    """Return a text that the system takes in a path, a variable or an argument.

    Raises:
        JupyterError: It has a NUL, or half a surrogate pair, which JSON can have.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise JupyterError(HTTPStatus.BAD_REQUEST, f"{name} is {text!r}; it must be a string without NUL, and UTF-8")
    return text


def _part(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = members.get(name)
    if value is not None and not isinstance(value, dict):
        raise JupyterError(HTTPStatus.BAD_REQUEST, f"{name} is {value!r}; it must be an object")
    return value or {}


def _environment(given: Any) -> dict[str, str]:
    """Return the variables of a request that reach the kernel: those that begin with ``KERNEL_``, as with a gateway."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise JupyterError(HTTPStatus.BAD_REQUEST, f"env is {given!r}; it must be an object of strings")
    for name, value in given.items():
        if not isinstance(value, str):
            raise JupyterError(HTTPStatus.BAD_REQUEST, f"env.{name} is {value!r}; it must be a string")
        _sendable(name, "a name in env")
        if len(_sendable(value, f"env.{name}").encode()) + len(name.encode()) > LARGEST_VARIABLE:
            text = f"env.{name[:100]} is too long; with its name it may have {LARGEST_VARIABLE} bytes"
            raise JupyterError(HTTPStatus.BAD_REQUEST, text)
    return {name: value for name, value in given.items() if name.startswith("KERNEL_") and "=" not in name}


def _unavailable(name: str | None, error: KallichoreError) -> JupyterError:
    """Return why there is no kernel: what happened, what it printed, and what to do."""
    printed = f"\n{error.output}" if isinstance(error, StartupError) and error.output else ""
    hint = getattr(error, "hint", None) or error.details or ""
    text = ". ".join(part.rstrip(". ") for part in (error.message, hint) if part) + printed
    status = HTTPStatus.NOT_FOUND if isinstance(error, KernelNotFoundError) else HTTPStatus(error.http_status)
    return JupyterError(status, text, f"{name} did not start")
