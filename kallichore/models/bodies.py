"""The schemas of the HTTP API as frozen values; kallichore.json describes them for everybody else. [pure]

Defaults here are for programs that build a request in Python. What a JSON body must contain is the schema's
``required`` list, which `kallichore.models.converter` holds the bodies of requests to.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import attrs

from kallichore.errors import StartupReason
from kallichore.models.body import Body


class Status(StrEnum):
    """What a session's kernel is doing."""

    UNINITIALIZED = "uninitialized"
    STARTING = "starting"
    READY = "ready"
    IDLE = "idle"
    BUSY = "busy"
    OFFLINE = "offline"
    EXITED = "exited"


class ExitCause(StrEnum):
    """Why a kernel ended."""

    REQUESTED = "requested"
    EXITED = "exited"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED_FROM_OUTSIDE = "killed_from_outside"


class SessionMode(StrEnum):
    """What a session is for; kept and reported, nothing else."""

    CONSOLE = "console"
    NOTEBOOK = "notebook"
    BACKGROUND = "background"


class InterruptMode(StrEnum):
    """How a kernel wants to be interrupted."""

    SIGNAL = "signal"
    MESSAGE = "message"


class TransportEncryption(StrEnum):
    """Whether what passes between the server and a kernel is encrypted."""

    DISABLED = "disabled"
    AUTO = "auto"
    REQUIRED = "required"


class KernelTransport(StrEnum):
    """Over what the server and a kernel are connected."""

    TCP = "tcp"
    IPC = "ipc"


class StartupEnvironment(StrEnum):
    """In what shell, if any, and after what, a kernel is started."""

    NONE = "none"
    SHELL = "shell"
    COMMAND = "command"
    SCRIPT = "script"


class VarActionType(StrEnum):
    """What to do with an environment variable."""

    REPLACE = "replace"
    APPEND = "append"
    PREPEND = "prepend"


class CullHold(StrEnum):
    """What keeps a session's kernel from being ended because it is idle."""

    NO_KERNEL = "no_kernel"
    STARTING = "starting"
    ENDING = "ending"
    RUNNING = "running"
    INPUT = "input"
    CLIENTS = "clients"


class LogLevel(StrEnum):
    """How much the server logs."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@attrs.frozen(eq=False, repr=False)
class VarAction(Body):
    """One change to an environment variable; no separator is inserted."""

    action: VarActionType = attrs.field(converter=VarActionType)
    name: str
    value: str


# Not `tuple` itself, of which type checkers do not know what is to be in it.
def _words(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(words)


def _actions(actions: Iterable[VarAction]) -> tuple[VarAction, ...]:
    return tuple(actions)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelProvisioner(Body):
    """Who is to start a kernel in the server's place, as ``metadata.kernel_provisioner`` of its kernelspec says."""

    provisioner_name: str
    config: dict[str, Any] | None = None
    kernel_name: str | None = None
    resource_dir: str | None = None
    metadata: dict[str, Any] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NewSession(Body):
    """The body of ``PUT /sessions``; see kallichore.json for each member."""

    session_id: str
    argv: tuple[str, ...] = attrs.field(converter=_words)
    display_name: str = ""
    language: str = ""
    username: str = ""
    input_prompt: str = ""
    continuation_prompt: str = ""
    session_mode: SessionMode = attrs.field(default=SessionMode.CONSOLE, converter=SessionMode)
    working_directory: str = ""
    notebook_uri: str | None = None
    env: tuple[VarAction, ...] = attrs.field(default=(), converter=_actions)
    connection_timeout: int = 30
    interrupt_mode: InterruptMode = attrs.field(default=InterruptMode.MESSAGE, converter=InterruptMode)
    protocol_version: str = "5.3"
    startup_environment: StartupEnvironment = attrs.field(default=StartupEnvironment.NONE, converter=StartupEnvironment)
    startup_environment_arg: str | None = None
    workspace_id: str | None = None
    journal_memory: int | None = None
    journal_file: int | None = None
    journal_keep: int | None = None
    transport_encryption: TransportEncryption | None = attrs.field(
        default=None, converter=attrs.converters.optional(TransportEncryption)
    )
    kernel_transport: KernelTransport | None = attrs.field(
        default=None, converter=attrs.converters.optional(KernelTransport)
    )
    supported_encryption: tuple[str, ...] | None = attrs.field(
        default=None, converter=attrs.converters.optional(_words)
    )
    cull_idle_after: int | None = None
    cull_connected: bool | None = None
    cull_busy: bool | None = None
    durable: bool | None = None
    engine: dict[str, Any] | None = None
    spares: int | None = None
    kernel_provisioner: KernelProvisioner | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class StartKernel(Body):
    """The body of ``POST /sessions``: a session with an installed kernel, everything else by default."""

    kernel: str | None = None
    session_id: str | None = None
    working_directory: str | None = None
    env: tuple[VarAction, ...] | None = None
    notebook_uri: str | None = None
    cull_idle_after: int | None = None
    cull_connected: bool | None = None
    cull_busy: bool | None = None
    engine: dict[str, Any] | None = None
    spares: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Kernel(Body):
    """An installed kernel, as its kernelspec describes it."""

    display_name: str
    language: str
    argv: tuple[str, ...]
    interrupt_mode: InterruptMode
    resource_dir: str
    env: dict[str, str]
    supported_encryption: tuple[str, ...]
    kernel_provisioner: KernelProvisioner | None = None
    engine: dict[str, Any] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelList(Body):
    """The answer of ``GET /kernels``: what it says of each kernel, by name."""

    kernels: dict[str, Any]
    default: str | None = None


class WarmStatus(StrEnum):
    """What a kernel does that nobody has asked for yet."""

    STARTING = "starting"
    READY = "ready"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WarmKernel(Body):
    """A kernel that is ready, or will be, before anybody asks for it."""

    status: WarmStatus
    working_directory: str
    started: datetime
    kernel: str | None = None
    session_id: str | None = None
    process_id: int | None = None
    memory_bytes: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WarmKernelList(Body):
    """The answer of ``GET /warm``."""

    wanted: int
    taken: int
    missed: int
    kernels: tuple[WarmKernel, ...]
    problem: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RestartSession(Body):
    """The body of ``POST /sessions/{session_id}/restart``."""

    working_directory: str | None = None
    env: tuple[VarAction, ...] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectionInfo(Body):
    """Where a kernel listens and what signs its messages: the members of a connection file."""

    control_port: int
    shell_port: int
    stdin_port: int
    hb_port: int
    iopub_port: int
    signature_scheme: str
    key: str = attrs.field(repr=False)
    transport: str
    ip: str
    curve_publickey: str | None = None
    curve_secretkey: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClientHeartbeat(Body):
    """The body of ``POST /client_heartbeat``."""

    process_id: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ServerConfiguration(Body):
    """What can be changed while the server runs."""

    idle_shutdown_hours: int | None = None
    resource_sample_interval_ms: int | None = None
    resource_include_children: bool | None = None
    log_level: LogLevel | None = attrs.field(default=None, converter=attrs.converters.optional(LogLevel))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpWorkspaceRegistration(Body):
    """The body of ``POST /mcp/workspaces``: an IDE's workspace that agents are to reach."""

    display_name: str
    workspace_id: str | None = None
    preferred_port: int | None = None
    token: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpWorkspace(Body):
    """The answer to a registration: where agents reach the workspace, and their token."""

    workspace_id: str
    token: str = attrs.field(repr=False)
    port: int
    url: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpClient(Body):
    """An agent that holds its presence open."""

    id: int
    connected_at: datetime
    name: str | None = None
    version: str | None = None
    working_directory: str | None = None
    session_id: str | None = None
    pid: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpWorkspaceStatus(Body):
    """One registered workspace."""

    id: str
    display_name: str
    connected: bool
    clients: tuple[McpClient, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpStatus(Body):
    """What there is for agents: in ``GET /status``."""

    active: bool
    port: int
    request_count: int
    workspaces: tuple[McpWorkspaceStatus, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ServerStatus(Body):
    """The answer of ``GET /status``."""

    sessions: int
    active: int
    busy: bool
    idle_seconds: int
    busy_seconds: int
    uptime_seconds: int
    version: str
    kallichore_version: str
    process_id: int
    started: datetime
    server_id: str | None = None
    clients: int | None = None
    journal_bytes: int | None = None
    unread_bytes: int | None = None
    dropped_messages: int | None = None
    open_descriptors: int | None = None
    mcp: McpStatus | None = None
    memory_bytes: int | None = None
    state_directory: str | None = None
    durability: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecutionQueue(Body):
    """What a session's kernel runs, and what waits behind it."""

    active: dict[str, Any] | None
    length: int
    pending: tuple[dict[str, Any], ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ResourceUsage(Body):
    """What a kernel's process tree used when it was last looked at."""

    cpu_percent: int
    memory_bytes: int
    thread_count: int
    sampling_period_ms: int
    timestamp: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecutionError(Body):
    """An error that code raised."""

    name: str
    message: str
    traceback: tuple[str, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecutionHistoryEntry(Body):
    """What ran, and what came of it, in short."""

    input: str
    output: str
    error: ExecutionError | None
    timestamp: int
    source: str | None
    agent: str | None
    truncated: bool


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Attribution(Body):
    """Who has code run, as clients and the history are told."""

    source: str
    agent_name: str | None = None
    agent_version: str | None = None
    workspace_id: str | None = None
    tool: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecuteRequest(Body):
    """The body of ``POST /sessions/{session_id}/execute``."""

    code: str
    silent: bool | None = None
    store_history: bool | None = None
    stop_on_error: bool | None = None
    timeout_seconds: int | None = None
    attribution: Attribution | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecuteOutput(Body):
    """One thing that an execution put out; which members there are depends on ``type``."""

    type: str
    stream_name: str | None = None
    text: str | None = None
    data: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    error_name: str | None = None
    error_message: str | None = None
    error_traceback: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ExecuteReply(Body):
    """The answer of ``POST /sessions/{session_id}/execute``."""

    status: str
    execution_count: int
    output: tuple[ExecuteOutput, ...]
    data: dict[str, str] | None = None
    error_name: str | None = None
    error_message: str | None = None
    error_traceback: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RunningRequest(Body):
    """What a kernel was executing."""

    msg_id: str
    code: str
    seconds: float


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelExit(Body):
    """How a session's latest kernel ended, and what is known of why."""

    text: str
    cause: ExitCause
    time: datetime
    process_id: int
    exit_code: int
    signal: str | None = None
    requested_by: str | None = None
    running: RunningRequest | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int | None = None
    last_words: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Culling(Body):
    """When a session's kernel is ended because it is idle, or what keeps it from that."""

    idle_after: float
    connected: bool
    busy: bool
    deadline: datetime | None = None
    held_by: CullHold | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PendingStart(Body):
    """Why a kernel has no machine yet."""

    reason: str
    since: datetime
    expected_start: datetime | None = None
    position: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectionLost(Body):
    """Since when a kernel on another machine cannot be reached."""

    since: datetime
    reason: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelPlace(Body):
    """Where a kernel on another machine is."""

    engine: str
    job: str
    node: str | None = None
    ends: datetime | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EngineProfile(Body):
    """A named set of options for kernels on other machines, and what is wrong with it."""

    kind: str
    problems: tuple[str, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EngineProfiles(Body):
    """The answer of ``GET /engines``: the profiles by name."""

    profiles: dict[str, Any]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ActiveSession(Body):
    """A session as the API shows it."""

    session_id: str
    argv: tuple[str, ...]
    process_id: int | None
    username: str
    display_name: str
    language: str
    interrupt_mode: InterruptMode
    initial_env: dict[str, str]
    connected: bool
    started: datetime
    session_mode: SessionMode
    working_directory: str
    notebook_uri: str | None
    input_prompt: str
    continuation_prompt: str
    execution_queue: ExecutionQueue
    status: Status
    kernel_info: dict[str, Any]
    resource_usage: ResourceUsage | None
    idle_seconds: int
    busy_seconds: int
    socket_path: str | None
    history: tuple[ExecutionHistoryEntry, ...] | None = None
    last_exit: KernelExit | None = None
    memory_warning: str | None = None
    cull: Culling | None = None
    durable: bool = False
    not_kept: str | None = None
    engine: dict[str, Any] | None = None
    pending: PendingStart | None = None
    connection_lost: ConnectionLost | None = None
    place: KernelPlace | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionList(Body):
    """The answer of ``GET /sessions``."""

    total: int
    sessions: tuple[ActiveSession, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionSummary(Body):
    """A session in short, in the events of ``GET /events``; times are milliseconds since 1970."""

    session_id: str
    display_name: str
    language: str
    session_mode: SessionMode
    notebook_uri: str | None
    working_directory: str
    started: datetime
    status: Status
    status_since: int
    idle_since: int | None
    busy_since: int | None
    running: str | None
    waits_for_input: bool
    queue_length: int
    clients: int
    process_id: int | None
    resource_usage: ResourceUsage | None
    journal_bytes: int
    memory_warning: str | None
    last_exit: KernelExit | None
    cull: Culling | None = None
    pending: PendingStart | None = None
    connection_lost: ConnectionLost | None = None
    place: KernelPlace | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Changes(Body):
    """An event of ``GET /events``: of each session what changed, by its id."""

    time: int
    sessions: dict[str, Any]
    removed: tuple[str, ...]
    server: ServerStatus | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Samples(Body):
    """The answer of ``GET /samples``: what each session's kernels used in the last minutes, by the sessions' ids."""

    sessions: dict[str, dict[str, list[int]]]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogLine(Body):
    """One line that a kernel's process printed, or that the server logged."""

    number: int
    time: str
    stream: str
    text: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogLines(Body):
    """The answer of ``GET /sessions/{session_id}/logs`` and ``GET /logs``."""

    lines: tuple[LogLine, ...]
    missing: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ErrorBody(Body):
    """Why a request was refused."""

    code: str
    message: str
    details: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class StartupErrorBody(Body):
    """Why a kernel did not start, and what it printed."""

    error: ErrorBody
    exit_code: int | None = None
    output: str | None = None
    reason: StartupReason | None = None
    hint: str | None = None
