"""A server that has Jupyter's API and not ours, as commands see it: its kernels are the sessions.

What it does not tell (processes, queues, what programs print past the kernel) is not there. Everybody shares a kernel.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import ApiError, send_request
from kallichore.client.jupyter_complaints import KERNELS, complaint, kernel_path
from kallichore.client.server import Installed, NewKernel, NoSuchThingError, Summary
from kallichore.errors import KallichoreError
from kallichore.models.jupyter import UUID_SHAPED

if TYPE_CHECKING:
    from kallichore.client.jupyter_channel import JupyterChannel

NOT_FOUND = 404

END_PATIENCE = 15.0
"""Seconds that the end of a kernel of ours may take, also when we are cancelled; the server kills it after five."""

END_INTERVAL = 0.2
"""Seconds after which a server that failed to end a kernel is asked again."""

RESTART_PATIENCE = 65.0
"""Seconds that a kernel may take to answer after a restart; Jupyter's servers wait up to 60 themselves."""

_XSRF = "6b616c6c6963686f7265"
"""What stands in a cookie and in a header, for servers without a token: that both are the same is what they look at,
since a page of another origin could send the one, but not the other (Tornado, "XSRF protection")."""

_HEADERS = [("content-type", "application/json"), ("cookie", f"_xsrf={_XSRF}"), ("x-xsrftoken", _XSRF)]


def _with_scheme(address: Address) -> Address:
    """Return an address with the word for its token that gateways know, and others too."""
    return attrs.evolve(address, scheme="token")


@attrs.frozen(eq=False)
class JupyterServer:
    """See `kallichore.client.server.Server`."""

    address: Address = attrs.field(converter=_with_scheme)
    _channels: set[JupyterChannel] = attrs.field(factory=set, init=False)
    """Those that are open."""

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded answer; None for an empty one.

        Args:
            method: The HTTP method.
            path: The path below the server's own.
            body: What becomes the JSON body; None for no body.

        Raises:
            ApiError: The server refused it.
            OSError: Nobody listens there.
        """
        target = self.address.base_path + path
        raw = None if body is None else json.dumps(body).encode()
        answer = await send_request(self.address, method, target, raw, _HEADERS)
        content = answer.body.decode("utf-8", "replace")
        with suppress(ValueError):
            content = json.loads(content)
        if not 200 <= answer.status < 300:
            text = complaint(str(self.address), method, target, answer.status, content)
            raise ApiError(text, answer.status, content)
        if answer.status != HTTPStatus.NO_CONTENT and isinstance(content, str):
            text = f"{method} {target} at {self.address.authority} was answered with what is no JSON"
            raise ApiError(text, answer.status, None)
        return content

    # What there is

    async def sessions(self) -> list[Summary]:
        """Return its kernels."""
        models = await self.call("GET", KERNELS)
        names = await self._names() if models else {}
        return [_summary(model, names) for model in models]

    async def _names(self) -> dict[str, tuple[str, str]]:
        """Return what kernels are called, and their languages, by what they are installed as."""
        with suppress(ApiError):
            specs = (await self.installed()).specs
            return {name: (spec.get("display_name", name), spec.get("language", "")) for name, spec in specs.items()}
        return {}

    async def describe(self, session_id: str) -> dict[str, Any]:
        """Return all about a kernel."""
        model = await self.call("GET", kernel_path(session_id))
        names = await self._names()
        return {**_summary(model, names).told, "language": names.get(model["name"], ("", ""))[1]}

    async def session_status(self, session_id: str) -> str:
        """Return what a kernel does."""
        return _status(await self.call("GET", f"{kernel_path(session_id)}?no_track_activity=1"))

    async def has_exited(self, session_id: str) -> bool:
        """Return that it is true what a channel told: it tells of no earlier kernel."""
        return True

    async def installed(self) -> Installed:
        """Return the kernels that it can start."""
        answer = await self.call("GET", "/api/kernelspecs")
        specs = {name: _flat(told["spec"]) for name, told in answer["kernelspecs"].items()}
        return Installed(specs, answer.get("default"))

    async def status(self) -> dict[str, Any]:
        """Return how the server is."""
        answer: dict[str, Any] = await self._call_if_known("GET", "/api/status", "status")
        return answer

    async def _call_if_known(self, method: str, path: str, what: str) -> Any:
        """Ask for something that only some of these servers have."""
        try:
            return await self.call(method, path)
        except ApiError as error:
            if error.status == NOT_FOUND:
                raise NoSuchThingError(f"The Jupyter server at {self.address} has no {what}") from error
            raise

    # Kernels

    async def start_new(self, kernel: NewKernel, session_id: str | None = None) -> str:
        """Start a kernel, and return its id once it answers. One that does not answer in time is ended."""
        chosen = self._choose_id(session_id)
        try:
            return await self._start(kernel, chosen)
        except BaseException:
            with trio.CancelScope(shield=True), trio.move_on_after(END_PATIENCE):
                await self._remove(chosen)
            raise

    def _choose_id(self, wanted: str | None) -> str:
        if wanted is not None and not UUID_SHAPED.fullmatch(wanted):
            raise NoSuchThingError(f"A Jupyter server's ids look like {uuid.uuid4()}, so -s cannot be {wanted!r} there")
        return wanted or str(uuid.uuid4())

    async def _start(self, kernel: NewKernel, kernel_id: str) -> str:
        if kernel.variables:
            raise NoSuchThingError("A Jupyter server takes no variables for its kernels, so --env is not for it")
        if kernel.directory is not None and kernel.directory.startswith("/"):
            raise NoSuchThingError(
                f"A Jupyter server starts kernels below its own directory, so --cwd has to be relative to that, and "
                f"{kernel.directory} is not"
            )
        with _limit(kernel.start_timeout or math.inf, kernel_id, "; --start-timeout gives it more"):
            path = {} if kernel.directory is None else {"path": kernel.directory}
            model = await self.call("POST", KERNELS, {"name": kernel.name, "kernel_id": kernel_id, **path})
            if model["id"] != kernel_id:
                await self._remove(model["id"])
                raise NoSuchThingError(f"The server at {self.address} is too old: it does not let clients name kernels")
            await self._wait_answer(kernel_id)
        return kernel_id

    async def _wait_answer(self, kernel_id: str) -> None:
        """Wait until a kernel answers."""
        async with self.open_channel(kernel_id) as channel:
            await channel.introduce()

    async def start_again(self, session_id: str) -> None:
        """Start a dead kernel again."""
        await self.restart(session_id)

    @asynccontextmanager
    async def open_new(self, kernel: NewKernel) -> AsyncIterator[str]:
        """Start a kernel; yield its id. It is ended afterwards."""
        kernel_id = self._choose_id(None)
        try:
            yield await self._start(kernel, kernel_id)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(END_PATIENCE):
                await self._remove(kernel_id)

    async def _remove(self, kernel_id: str) -> None:
        """End a kernel that may be there.

        Jupyter's own server fails at it while it starts a kernel again that died, so it is asked once more then.
        """
        while True:
            try:
                await self.kill(kernel_id)
            except ApiError as error:
                if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    await trio.sleep(END_INTERVAL)
                    continue
            except OSError:
                # The server is gone, and its kernels with it.
                pass
            return

    async def interrupt(self, session_id: str) -> None:
        """Interrupt what a kernel runs."""
        await self.call("POST", kernel_path(session_id, "interrupt"), {})

    async def restart(self, session_id: str) -> None:
        """Restart a kernel and wait until it answers."""
        with _limit(RESTART_PATIENCE, session_id):
            await self.call("POST", kernel_path(session_id, "restart"), {})
            await self._wait_answer(session_id)
        for channel in self._channels_of(session_id):
            await channel.renew()

    async def kill(self, session_id: str) -> None:
        """End a kernel."""
        await self.call("DELETE", kernel_path(session_id))
        for channel in self._channels_of(session_id):
            channel.tell_end("it was ended from here")

    async def delete(self, session_id: str) -> None:
        """End a kernel: none that has ended stays."""
        await self.kill(session_id)

    async def shut_down_kernel(self, session_id: str) -> str:
        """End a kernel: the server asks it to end, before it makes it."""
        await self.kill(session_id)
        return "exited"

    async def shut_down(self) -> None:
        """End the server with all its kernels."""
        await self._call_if_known("POST", "/api/shutdown", "way to be shut down from outside")

    # Channels

    def _channels_of(self, kernel_id: str) -> list[JupyterChannel]:
        return [channel for channel in self._channels if channel.kernel_id == kernel_id]

    @asynccontextmanager
    async def open_channel(
        self, session_id: str, *, since: int | None = None, attach: str | None = None, name: str | None = None
    ) -> AsyncIterator[JupyterChannel]:
        """Connect to a kernel's channels; always to share them."""
        from kallichore.client.jupyter_channel import open_jupyter_channel

        if since is not None or attach in ("watch", "takeover"):
            option = "--since" if since is not None else "--watch" if attach == "watch" else "--take-over"
            raise NoSuchThingError(f"All clients of a Jupyter server's kernel share it alike, so it has no {option}")
        async with open_jupyter_channel(self.address, session_id, partial(self._is_there, session_id)) as channel:
            self._channels.add(channel)
            try:
                yield channel
            finally:
                self._channels.discard(channel)

    async def _is_there(self, kernel_id: str) -> bool:
        try:
            await self.session_status(kernel_id)
        except ApiError as error:
            return error.status != NOT_FOUND
        except OSError:
            # Whether the server is there, its channels tell.
            pass
        return True

    async def send_and_leave(self, session_id: str, message: dict[str, Any]) -> None:
        """Send a message to a kernel and leave."""
        async with self.open_channel(session_id) as channel:
            await channel.send(message)
            await channel.confirm()


@contextmanager
def _limit(patience: float, kernel_id: str, way_out: str = "") -> Iterator[None]:
    """Give a kernel ``patience`` seconds to answer.

    Raises:
        KallichoreError: It did not.
    """
    with trio.move_on_after(patience) as waiting:
        yield
    if waiting.cancelled_caught:
        raise KallichoreError(f"The kernel {kernel_id} did not answer within {patience:.3g} seconds{way_out}")


def _status(model: dict[str, Any]) -> str:
    state = str(model.get("execution_state", ""))
    return "exited" if state == "dead" else state


def _summary(model: dict[str, Any], names: dict[str, tuple[str, str]]) -> Summary:
    display_name = names.get(model["name"], (model["name"], ""))[0]
    is_connected = bool(model.get("connections"))
    ours = {"session_id": model["id"], "display_name": display_name, "status": _status(model)}
    told = {**ours, "connected": is_connected, **model}
    idle_since = _moment(model.get("last_activity")) if ours["status"] == "idle" else None
    return Summary(**ours, is_connected=is_connected, told=told, idle_since=idle_since)


def _moment(told: Any) -> datetime | None:
    """Return a time as a server tells it; None where it tells none."""
    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _flat(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a kernel.json as our own API has it."""
    encryption = (spec.get("metadata") or {}).get("supported_encryption")
    return {**spec, "supported_encryption": [encryption] if isinstance(encryption, str) else encryption}
