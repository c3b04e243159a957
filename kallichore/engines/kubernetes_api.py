"""A cluster's API as far as kernels need it: plain REST, with the credentials of a kubeconfig or of a pod."""

from __future__ import annotations

import json
import os
import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from kallichore.engines.kubernetes_account import (
    SERVICE_ACCOUNT,
    Account,
    Credentials,
    ExecPlugin,
    Source,
    in_cluster,
    read_credentials,
    read_kubeconfig,
)
from kallichore.engines.kubernetes_words import describe_refusal
from kallichore.errors import EngineError

PATIENCE = 10.0
"""Seconds that an answer may take."""

SILENCE = 45.0
"""Seconds that a watch may say nothing. It is asked to end before that, and begun anew."""

WATCH_SECONDS = 30
"""Seconds after which the API is to end a watch."""

PLUGIN_PATIENCE = 60.0
"""Seconds that a program for credentials may take: it may ask somebody over the network."""

UNAUTHORIZED, NOT_FOUND, CONFLICT, EXPIRED = 401, 404, 409, 410


class RefusedError(Exception):
    """The API does not do what it was asked for.

    Args:
        status: HTTP's status.
        text: Why, in its words.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class SilentError(OSError):
    """The API does not answer, or not with sense: nothing is known then of what was asked."""


@attrs.frozen
class Event:
    """What a watch tells.

    Attributes:
        kind: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``.
        item: What it is about, as it is now.
    """

    kind: str
    item: Mapping[str, Any]


def find_account(kubeconfig: str | None, context: str | None) -> Account:
    """Return whose API is meant, as ``kubectl`` finds it: the kubeconfig, else what a pod is given. Reads files.

    Args:
        kubeconfig: The file; None for that of the variable KUBECONFIG, or ``~/.kube/config``.
        context: Which of its contexts.

    Raises:
        EngineError: There is none, or it cannot be understood.
    """
    named = kubeconfig or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(named or "~/.kube/config").expanduser()
    if not named and not path.exists():
        namespace = Path(SERVICE_ACCOUNT, "namespace")
        account = in_cluster(os.environ, namespace.read_text() if namespace.exists() else None)
        if account is None:
            raise EngineError(f"There is no cluster known here: no KUBECONFIG, no {path}, and this is no pod")
        return account
    # Only whoever has a kubeconfig needs this.
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise EngineError(f"The kubeconfig {path} cannot be read: {error}") from error
    return read_kubeconfig(document, str(path.parent), context)


def _read(source: Source) -> str | None:
    if source.path is None:
        return source.text
    try:
        return Path(source.path).read_text()
    except (OSError, UnicodeError) as error:
        raise EngineError(f"{source.path}, which the kubeconfig names, cannot be read: {error}") from error


@attrs.define(eq=False)
class KubernetesApi:
    """The API of one cluster. Made by `open_api`."""

    account: Account
    _client: httpx.AsyncClient
    _token: str | None = attrs.field(default=None, init=False)
    _credentials: Credentials | None = attrs.field(default=None, init=False)

    async def ask(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask for something and return the answer.

        Args:
            method: HTTP's.
            path: Below the server's address.
            body: What is sent, as JSON.
            query: The parameters.

        Raises:
            RefusedError: It is not done.
            SilentError: Nobody knows whether it is done.
        """
        answer = await self._send(method, path, body, query)
        if answer.status_code == UNAUTHORIZED:
            # What tells the token may tell another one now.
            self._token = None
            answer = await self._send(method, path, body, query)
        try:
            document = json.loads(answer.content)
        except ValueError:
            document = {}
        if not answer.is_success:
            raise RefusedError(answer.status_code, describe_refusal(answer.status_code, document))
        return document if isinstance(document, dict) else {}

    async def _send(self, method: str, path: str, body: Any, query: Mapping[str, str] | None) -> httpx.Response:
        try:
            with trio.fail_after(PATIENCE):
                return await self._client.send(await self._request(method, path, body, query))
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
            raise SilentError(0, describe_silence(self.account.server, error)) from error

    async def _request(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None, silence: float = PATIENCE
    ) -> httpx.Request:
        if self._token is None:
            self._token = await self._find_token()
        data = b"" if body is None else json.dumps(body).encode()
        url = httpx.URL(f"{self.account.server}{path}", params=query)
        # A request with a stream of its own gets none of httpx's.
        headers = {"Host": url.netloc.decode("ascii"), "Accept": "application/json", "User-Agent": "kallichore"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        extensions: dict[str, Any] = {"timeout": httpx.Timeout(PATIENCE, read=silence).as_dict()}
        if self.account.server_name:
            extensions["sni_hostname"] = self.account.server_name
        return httpx.Request(method, url, headers=headers, stream=_Body(data), extensions=extensions)

    async def _find_token(self) -> str:
        if self.account.plugin is not None:
            self._credentials = await ask_plugin(self.account.plugin)
            return self._credentials.token or ""
        return (_read(self.account.token) or "").strip()

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[Event, None]:
        """Yield what happens from a version on, until the API ends that.

        Args:
            path: What is watched.
            query: The parameters, with the version.

        Raises:
            RefusedError: The version is too old (`EXPIRED`), or it is not allowed.
            SilentError: The connection broke, or nothing came for long.
        """
        parameters = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        try:
            request = await self._request("GET", path, None, parameters, silence=SILENCE)
            async with aclosing(await self._client.send(request, stream=True)) as answer:
                if not answer.is_success:
                    if answer.status_code == UNAUTHORIZED:
                        self._token = None
                    await answer.aread()
                    raise RefusedError(answer.status_code, describe_refusal(answer.status_code, _json(answer.content)))
                error: RefusedError | None = None
                async for line in answer.aiter_lines():
                    # An error is the last that comes. The end behind it is read as well: what httpx reads with is
                    # left lying about otherwise.
                    try:
                        event = _read_event(line)
                    except RefusedError as told:
                        error = told
                    else:
                        yield event
                if error is not None:
                    raise error
        except (httpx.HTTPError, httpx.InvalidURL) as broken:
            raise SilentError(0, describe_silence(self.account.server, broken)) from broken


class _Body(httpx.AsyncByteStream):
    """What is sent, once.

    httpx has a generator for it, which it leaves lying about where the connection breaks meanwhile.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        data, self._data = self._data, b""
        return data


def _json(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read_event(line: str) -> Event:
    told = _json(line)
    item = told.get("object")
    item = item if isinstance(item, dict) else {}
    if told.get("type") == "ERROR" or not told:
        raise RefusedError(int(item.get("code") or 0), describe_refusal(int(item.get("code") or 0), item))
    return Event(str(told.get("type")), item)


def describe_silence(server: str, error: Exception) -> str:
    """Return that a cluster does not answer, and why."""
    why = f"not within {PATIENCE:g} s" if isinstance(error, trio.TooSlowError) else _innermost_words(error)
    return f"Kubernetes at {server} does not answer: {why}"


def _innermost_words(error: BaseException) -> str:
    """Return what an error says, or what was behind it: httpx's own words are often none."""
    words = type(error).__name__
    behind: BaseException | None = error
    while behind is not None:
        words = str(behind) or words
        behind = behind.__cause__ or behind.__context__
    return words


async def ask_plugin(plugin: ExecPlugin) -> Credentials:
    """Return what a program for credentials tells. Cancelling ends it.

    Raises:
        EngineError: It tells none; with what it complained about.
    """
    spec = {"interactive": False}
    told = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    environment = {**os.environ, **plugin.environment, "KUBERNETES_EXEC_INFO": json.dumps(told)}
    program = plugin.argv[0]
    try:
        with trio.fail_after(PLUGIN_PATIENCE):
            done = await trio.run_process(
                list(plugin.argv), capture_stdout=True, capture_stderr=True, check=False, env=environment
            )
    except OSError as error:
        text = f"{program}, which the kubeconfig names by exec, cannot be run: {error.strerror}"
        raise EngineError(text) from error
    except trio.TooSlowError as error:
        raise EngineError(f"{program}, which the kubeconfig names by exec, took too long") from error
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip()[-500:]
        raise EngineError(f"{program}, which the kubeconfig names by exec, failed: {complaint or done.returncode}")
    return read_credentials(_json(done.stdout), program)


async def make_context(account: Account, directory: Path) -> ssl.SSLContext:
    """Return how the connection to an API is encrypted.

    Args:
        account: Whose.
        directory: A private directory: a client's certificate has to be in a file for a moment.

    Raises:
        EngineError: A certificate cannot be read, or is none.
    """
    try:
        context = ssl.create_default_context(cadata=_read(account.authority))
        if account.is_unchecked:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate, key = _read(account.certificate), _read(account.key)
        if account.plugin is not None and not certificate:
            told = await ask_plugin(account.plugin)
            certificate, key = told.certificate, told.key
        if certificate and key:
            _load(context, certificate, key, directory)
    except (ssl.SSLError, OSError) as error:
        raise EngineError(f"The certificates for {account.server} cannot be used: {error}") from error
    return context


def _load(context: ssl.SSLContext, certificate: str, key: str, directory: Path) -> None:
    # Readable for us alone, and gone at once.
    with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".pem") as file:
        file.write(f"{certificate.rstrip()}\n{key.rstrip()}\n")
        file.flush()
        context.load_cert_chain(file.name)


@asynccontextmanager
async def open_api(account: Account, directory: Path) -> AsyncIterator[KubernetesApi]:
    """Have a cluster's API for a block.

    Args:
        account: Which, and who we are there.
        directory: A private directory.

    Raises:
        EngineError: What we are there cannot be found out.
    """
    verify = await make_context(account, directory) if account.server.startswith("https:") else True
    async with httpx.AsyncClient(verify=verify, timeout=PATIENCE) as client:
        yield KubernetesApi(account, client)
