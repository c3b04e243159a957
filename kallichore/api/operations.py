"""The operations of the API as a table: what kallichore.json describes and the app serves. [pure]"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import attrs

from kallichore.models.bodies import (
    ClientHeartbeat,
    ConnectionInfo,
    ExecuteRequest,
    McpWorkspaceRegistration,
    NewSession,
    RestartSession,
    ServerConfiguration,
    StartKernel,
)
from kallichore.models.converter import parse_body, parse_optional_body, refuse_unknown

TRACE = 5
"""The level below DEBUG, for what happens all the time."""

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@attrs.frozen
class Operation:
    """One operation.

    Args:
        operation_id: Its name in kallichore.json.
        method: The HTTP method.
        path: The path template.
        name: Its name in the log.
        needs_token: Whether the bearer token is needed.
        body: The class of its body, or None.
        body_optional: Whether the body may be missing.
        body_strict: Whether a member that is not known is an error. The original's clients send some elsewhere.
        log_level: At which level a request is logged; None for not at all.
        reads_log: Whether the answer is a log, whole or followed; see `kallichore.api.event_streams`.
        streams_execution: Whether clients that accept events get messages as they come; see the same.
        text_type: The content type of an answer that is text, which its handler returns as bytes; None for JSON.
        streams_changes: Whether the answer tells what changes, for as long as somebody listens; see the same.
    """

    operation_id: str
    method: str
    path: str
    name: str
    needs_token: bool = True
    body: type | None = None
    body_optional: bool = False
    body_strict: bool = False
    log_level: int | None = logging.INFO
    reads_log: bool = False
    streams_execution: bool = False
    text_type: str | None = None
    streams_changes: bool = False

    @property
    def has_subject(self) -> bool:
        """Whether the path names a session, or a workspace."""
        return "{" in self.path

    def parse(self, raw: bytes) -> tuple[Any, tuple[str, ...]]:
        """Read the body; see `kallichore.models.converter.parse_body`.

        Raises:
            BadBodyError: It does not fit.
        """
        assert self.body is not None
        parse = parse_optional_body if self.body_optional else parse_body
        value, unknown = parse(self.body, raw)
        if unknown and self.body_strict:
            raise refuse_unknown(self.body, unknown)
        return value, unknown


_SESSION = "/sessions/{session_id}"
_WORKSPACES = "/mcp/workspaces"
_WORKSPACE = "/mcp/workspaces/{workspace_id}"

OPERATIONS = (
    Operation("list-sessions", "GET", "/sessions", "list_sessions"),
    Operation("new-session", "PUT", "/sessions", "new_session", body=NewSession),
    Operation(
        "start-kernel", "POST", "/sessions", "start_kernel", body=StartKernel, body_optional=True, body_strict=True
    ),
    Operation("list-kernels", "GET", "/kernels", "list_kernels"),
    Operation("list-engines", "GET", "/engines", "list_engines"),
    Operation("list-warm-kernels", "GET", "/warm", "list_warm_kernels", log_level=TRACE),
    Operation("get-session", "GET", _SESSION, "get_session"),
    Operation("delete-session", "DELETE", _SESSION, "delete_session"),
    Operation("start-session", "POST", f"{_SESSION}/start", "start_session"),
    Operation(
        "restart-session", "POST", f"{_SESSION}/restart", "restart_session", body=RestartSession, body_optional=True
    ),
    Operation("kill-session", "POST", f"{_SESSION}/kill", "kill_session"),
    Operation("adopt-session", "PUT", f"{_SESSION}/adopt", "adopt_session", body=ConnectionInfo),
    Operation("connection-info", "GET", f"{_SESSION}/connection_info", "connection_info"),
    Operation("interrupt-session", "POST", f"{_SESSION}/interrupt", "interrupt_session"),
    Operation("channels-upgrade", "GET", f"{_SESSION}/channels", "channels_upgrade"),
    Operation(
        "execute-code",
        "POST",
        f"{_SESSION}/execute",
        "execute_code",
        body=ExecuteRequest,
        body_strict=True,
        streams_execution=True,
    ),
    Operation("get-session-history", "GET", f"{_SESSION}/history", "get_session_history"),
    # A log that tells of each who reads it would be of little else.
    Operation("session-logs", "GET", f"{_SESSION}/logs", "session_logs", log_level=TRACE, reads_log=True),
    Operation("server-logs", "GET", "/logs", "server_logs", log_level=TRACE, reads_log=True),
    Operation("shutdown-server", "POST", "/shutdown", "shutdown_server"),
    Operation("hand-over", "POST", "/handover", "hand_over"),
    Operation("server-status", "GET", "/status", "server_status", needs_token=False, log_level=None),
    Operation("server-events", "GET", "/events", "server_events", log_level=TRACE, streams_changes=True),
    Operation("server-samples", "GET", "/samples", "server_samples", log_level=TRACE),
    Operation("server-metrics", "GET", "/metrics", "server_metrics", log_level=TRACE, text_type=PROMETHEUS_TEXT),
    Operation(
        "client-heartbeat",
        "POST",
        "/client_heartbeat",
        "client_heartbeat",
        needs_token=False,
        body=ClientHeartbeat,
        log_level=TRACE,
    ),
    Operation("get-server-configuration", "GET", "/server_configuration", "get_server_configuration"),
    Operation(
        "set-server-configuration",
        "POST",
        "/server_configuration",
        "set_server_configuration",
        body=ServerConfiguration,
    ),
    Operation("register-mcp-workspace", "POST", _WORKSPACES, "register_mcp_workspace", body=McpWorkspaceRegistration),
    Operation("deregister-mcp-workspace", "DELETE", _WORKSPACE, "deregister_mcp_workspace"),
    Operation("mcp-workspace-channel", "GET", f"{_WORKSPACE}/channel", "mcp_workspace_channel"),
)

_BY_PATH: dict[str, dict[str, Operation]] = {}
for _operation in OPERATIONS:
    _BY_PATH.setdefault(_operation.path, {})[_operation.method] = _operation


def find_operation(method: str, path: str) -> Operation | HTTPStatus:
    """Return what a request asks for, or 404 or 405. The path is matched as it was sent, as the app's routes do it."""
    parts = path.split("/")
    if len(parts) > 2 and parts[:2] == ["", "sessions"]:
        parts[2] = "{session_id}"
    elif len(parts) > 3 and parts[:3] == ["", "mcp", "workspaces"]:
        parts[3] = "{workspace_id}"
    methods = _BY_PATH.get("/".join(parts))
    if methods is None:
        return HTTPStatus.NOT_FOUND
    return methods.get(method, HTTPStatus.METHOD_NOT_ALLOWED)
