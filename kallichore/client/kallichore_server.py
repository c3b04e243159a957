"""A server that has our API, as commands see it.

What speaks WebSocket, and what makes a session's body, is imported by those who need it: most commands do not, and
start sooner without.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.server import Installed, NewKernel, Summary

if TYPE_CHECKING:
    from kallichore.client.channel_client import ChannelClient

NOT_FOUND = 404

DELETE_PATIENCE = 10.0
"""Seconds that the end of a session of ours may take, also when we are cancelled."""

DELETE_INTERVAL = 0.05
"""Seconds after which it is asked again whether a kernel that was killed is gone."""

SHUTDOWN_PATIENCE = 10.0
"""Seconds that a kernel which was asked to end is waited for."""


@attrs.frozen(eq=False)
class KallichoreServer:
    """See `kallichore.client.server.Server`."""

    client: ApiClient

    @property
    def address(self) -> Address:
        """Where it is."""
        return self.client.address

    async def sessions(self) -> list[Summary]:
        """Return its sessions."""
        return [_summary(told) for told in (await self.client.call("GET", "/sessions"))["sessions"]]

    async def describe(self, session_id: str) -> dict[str, Any]:
        """Return all about a session."""
        session: dict[str, Any] = await self.client.call("GET", session_path(session_id))
        return session

    async def session_status(self, session_id: str) -> str:
        """Return what a session's kernel does."""
        return str((await self.describe(session_id))["status"])

    async def has_exited(self, session_id: str) -> bool:
        """Return whether the kernel is gone: of an earlier one's end tells a server that knows no visitors."""
        return await self.session_status(session_id) == "exited"

    async def installed(self) -> Installed | None:
        """Return the kernels that it can start; None if it is one that does not tell, as the original."""
        try:
            answer = await self.client.call("GET", "/kernels")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return Installed(answer["kernels"])

    async def status(self) -> dict[str, Any]:
        """Return how the server is."""
        answer: dict[str, Any] = await self.client.call("GET", "/status")
        return answer

    async def create(self, kernel: NewKernel, session_id: str | None = None) -> str:
        """Create a session without starting its kernel, and return its id."""
        from kallichore.models.converter import unstructure

        chosen = session_id or f"{kernel.name}-{secrets.token_hex(4)}"
        await self.client.call("PUT", "/sessions", unstructure(kernel.make_request(chosen)))
        return chosen

    async def start_new(self, kernel: NewKernel, session_id: str | None = None) -> str:
        """Create a session and start its kernel."""
        chosen = await self.create(kernel, session_id)
        await self.start_again(chosen)
        return chosen

    async def start_again(self, session_id: str) -> None:
        """Start a session's kernel."""
        await self.client.call("POST", session_path(session_id, "start"))

    @asynccontextmanager
    async def open_new(self, kernel: NewKernel) -> AsyncIterator[str]:
        """Create and start a session; yield its id. It is ended and deleted afterwards."""
        session_id = await self.create(kernel)
        try:
            await self.start_again(session_id)
            yield session_id
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(DELETE_PATIENCE):
                await self.remove(session_id)

    async def remove(self, session_id: str) -> None:
        """Kill and delete a session. Its kernel ends a moment after the kill; deleting works from then on."""
        try:
            with suppress(ApiError):
                await self.kill(session_id)
            while not await self.has_exited(session_id):  # noqa: ASYNC110  # the API has no call that waits for it
                await trio.sleep(DELETE_INTERVAL)
            await self.delete(session_id)
        except ApiError:
            # Somebody else was faster.
            pass

    async def interrupt(self, session_id: str) -> None:
        """Interrupt what a session's kernel runs."""
        await self.client.call("POST", session_path(session_id, "interrupt"))

    async def restart(self, session_id: str) -> None:
        """Restart a session's kernel."""
        await self.client.call("POST", session_path(session_id, "restart"), {})

    async def kill(self, session_id: str) -> None:
        """Kill a session's kernel, with all that it started."""
        await self.client.call("POST", session_path(session_id, "kill"))

    async def delete(self, session_id: str) -> None:
        """Delete a session whose kernel has exited."""
        await self.client.call("DELETE", session_path(session_id))

    async def shut_down_kernel(self, session_id: str) -> str:
        """Ask a kernel to end, wait for that a while, and return what came of it."""
        from kallichore.client.channel_client import make_message

        async with self.open_channel(session_id, attach="visit") as channel:
            await channel.send(make_message("shutdown_request", {"restart": False}, "control"))
            with trio.move_on_after(SHUTDOWN_PATIENCE) as waiting:
                # An earlier kernel's end may come first, from a server that knows no visitors.
                while not ("exited" in await channel.receive() and await self.has_exited(session_id)):
                    pass
        return "asked to shut down" if waiting.cancelled_caught else "exited"

    async def shut_down(self) -> None:
        """End the server with all its kernels."""
        await self.client.call("POST", "/shutdown")

    def open_channel(
        self, session_id: str, *, since: int | None = None, attach: str | None = None, name: str | None = None
    ) -> AbstractAsyncContextManager[ChannelClient]:
        """Return a block in which a session's channels are open."""
        from kallichore.client.channel_client import open_channel

        return open_channel(self.address, session_id, since=since, attach=attach, name=name)

    async def send_and_leave(self, session_id: str, message: dict[str, Any]) -> None:
        """Send a message to a session and leave what is said about it to others."""
        from kallichore.client.channel_client import send_and_leave

        await send_and_leave(self.address, session_id, message)


def _summary(told: dict[str, Any]) -> Summary:
    # It is 0 as long as it starts or works, and for a second after that.
    idle_seconds = None if told["status"] in ("starting", "busy", "offline") else told.get("idle_seconds")
    return Summary(
        session_id=told["session_id"],
        display_name=told["display_name"],
        status=told["status"],
        is_connected=told["connected"],
        told=told,
        process_id=told.get("process_id"),
        queued=told["execution_queue"]["length"],
        started=datetime.fromisoformat(told["started"]) if "started" in told else None,
        idle_since=datetime.now(UTC) - timedelta(seconds=idle_seconds) if idle_seconds is not None else None,
        memory_bytes=(told.get("resource_usage") or {}).get("memory_bytes"),
    )
