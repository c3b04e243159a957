"""What each operation does: a few lines over the server, one short function an operation."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import attrs
import trio

from kallichore.api.app import Handler
from kallichore.api.by_name import describe_kernels, start_by_name
from kallichore.errors import RequestError
from kallichore.kernel.kernelspecs import list_kernelspecs
from kallichore.models.bodies import (
    ActiveSession,
    ClientHeartbeat,
    ConnectionInfo,
    EngineProfile,
    EngineProfiles,
    ExecuteRequest,
    KernelList,
    McpStatus,
    McpWorkspace,
    McpWorkspaceRegistration,
    NewSession,
    RestartSession,
    Samples,
    ServerConfiguration,
    ServerStatus,
    SessionList,
    StartKernel,
    WarmKernelList,
)
from kallichore.models.converter import unstructure
from kallichore.server import Follower, Server, follow
from kallichore.server.warm import describe_warm
from kallichore.session.execute_call import execute_code, stream_execution
from kallichore.session.line_log import LineLog
from kallichore.session.session import Session

ChannelPath = Callable[[Session], Awaitable[str]]


class UpgradeRequiredError(RequestError):
    """The channels of a server on TCP are a WebSocket, and this was no upgrade."""

    code = "upgrade_required"


class Workspaces(Protocol):
    """The workspaces that agents reach: what the API needs of `kallichore.mcp`, which is this room's neighbour."""

    async def register(self, wanted: McpWorkspaceRegistration) -> McpWorkspace:
        """Register a workspace, or register it again; see `kallichore.mcp.way_in.WayIn.register`."""

    async def deregister(self, workspace_id: str) -> None:
        """Forget a workspace."""

    def require(self, workspace_id: str) -> object:
        """Return a workspace, or raise `WorkspaceNotFoundError`."""

    def status(self) -> McpStatus | None:
        """Return how things are; None if agents cannot be served here."""


def make_handlers(
    server: Server,
    channel_path: ChannelPath | None,
    wait_deaf: Callable[[], Awaitable[None]],
    workspaces: Workspaces,
) -> dict[str, Handler]:
    """Return what each operation of `kallichore.api.operations` does.

    Args:
        server: The server.
        channel_path: Makes a session's channel socket and returns its path; None on TCP, where the channels are a
            WebSocket on the same port and never reach these handlers.
        wait_deaf: Waits until no new connection is accepted, once a shutdown is asked for.
        workspaces: Those that agents reach.
    """

    async def list_sessions() -> SessionList:
        return server.list_sessions()

    async def new_session(body: NewSession) -> dict[str, str]:
        return {"session_id": server.create_session(body).session_id}

    async def start_kernel(body: StartKernel | None) -> ActiveSession:
        return (await start_by_name(server, body or StartKernel())).describe()

    async def list_kernels() -> KernelList:
        return describe_kernels(await trio.to_thread.run_sync(list_kernelspecs))

    async def list_engines() -> EngineProfiles:
        engines = server.facilities.engines
        profiles = {
            name: EngineProfile(kind=str(options["kind"]), problems=tuple(await engines.check(name)))
            for name, options in engines.profiles.items()
        }
        return EngineProfiles(profiles={name: unstructure(profile) for name, profile in profiles.items()})

    async def list_warm_kernels() -> WarmKernelList:
        return describe_warm(server.facilities.warm)

    async def get_session(session_id: str) -> Any:
        return server.session(session_id).describe()

    async def delete_session(session_id: str) -> None:
        server.delete_session(session_id)

    async def start_session(session_id: str) -> dict[str, Any]:
        return await server.session(session_id).start()

    async def restart_session(session_id: str, body: RestartSession | None) -> None:
        await server.session(session_id).restart(body)

    async def kill_session(session_id: str) -> None:
        server.session(session_id).kill()

    async def adopt_session(session_id: str, body: ConnectionInfo) -> dict[str, Any]:
        return await server.session(session_id).adopt(body)

    async def connection_info(session_id: str) -> ConnectionInfo:
        return server.session(session_id).connection_info()

    async def interrupt_session(session_id: str) -> None:
        server.session(session_id).interrupt()

    async def channels_upgrade(session_id: str) -> str:
        session = server.session(session_id)
        if channel_path is None:
            raise UpgradeRequiredError(
                f"The channels of session {session_id} are a WebSocket: send an upgrade with a Sec-WebSocket-Key"
            )
        return await channel_path(session)

    async def run_code(session_id: str, body: ExecuteRequest, *, stream: bool = False) -> Any:
        session = server.session(session_id)
        return stream_execution(session, body) if stream else await execute_code(session, body)

    async def get_session_history(session_id: str) -> Any:
        return server.session(session_id).conversation.history.entries()

    async def session_logs(session_id: str) -> LineLog:
        return server.session(session_id).log

    async def server_logs() -> LineLog:
        return server.log

    async def shutdown_server() -> None:
        server.request_shutdown("a client asked for it")
        # Who has the answer may look for the server at once, and must not find one that is about to go.
        await wait_deaf()

    async def hand_over() -> None:
        server.hand_over("another server takes over")
        await wait_deaf()

    async def server_status() -> ServerStatus:
        return attrs.evolve(server.status(), mcp=workspaces.status())

    async def server_events() -> AbstractContextManager[Follower]:
        return follow(server)

    async def server_samples() -> Samples:
        now = round(time.time() * 1000)
        records = ((session.session_id, session.usage_record.columns(now)) for session in server.sessions)
        return Samples(sessions={session_id: columns for session_id, columns in records if columns["time"]})

    @cache
    def exporter() -> Callable[[], bytes]:
        from kallichore.server.metrics import make_exporter  # 25 ms that no start has to wait for

        return make_exporter(server.counters)

    async def server_metrics() -> bytes:
        return exporter()()

    async def client_heartbeat(body: ClientHeartbeat) -> None:
        server.client_heartbeat(body.process_id)

    async def get_server_configuration() -> ServerConfiguration:
        return server.configuration()

    async def set_server_configuration(body: ServerConfiguration) -> None:
        server.configure(body)

    async def register_mcp_workspace(body: McpWorkspaceRegistration) -> McpWorkspace:
        return await workspaces.register(body)

    async def deregister_mcp_workspace(workspace_id: str) -> None:
        await workspaces.deregister(workspace_id)

    async def mcp_workspace_channel(workspace_id: str) -> None:
        workspaces.require(workspace_id)
        raise UpgradeRequiredError(
            f"The channel of workspace {workspace_id} is a WebSocket: send an upgrade with a Sec-WebSocket-Key"
        )

    return {
        "list-sessions": list_sessions,
        "new-session": new_session,
        "start-kernel": start_kernel,
        "list-kernels": list_kernels,
        "list-engines": list_engines,
        "list-warm-kernels": list_warm_kernels,
        "get-session": get_session,
        "delete-session": delete_session,
        "start-session": start_session,
        "restart-session": restart_session,
        "kill-session": kill_session,
        "adopt-session": adopt_session,
        "connection-info": connection_info,
        "interrupt-session": interrupt_session,
        "channels-upgrade": channels_upgrade,
        "execute-code": run_code,
        "get-session-history": get_session_history,
        "session-logs": session_logs,
        "server-logs": server_logs,
        "shutdown-server": shutdown_server,
        "hand-over": hand_over,
        "server-status": server_status,
        "server-events": server_events,
        "server-samples": server_samples,
        "server-metrics": server_metrics,
        "client-heartbeat": client_heartbeat,
        "get-server-configuration": get_server_configuration,
        "set-server-configuration": set_server_configuration,
        "register-mcp-workspace": register_mcp_workspace,
        "deregister-mcp-workspace": deregister_mcp_workspace,
        "mcp-workspace-channel": mcp_workspace_channel,
    }
