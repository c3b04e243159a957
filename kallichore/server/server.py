"""The server: who owns the sessions, and what it does for all of them.

Opened by `open_server`, which is also where its nursery is: one supervising task a session, the resource sampler, the
idle clock. Leaving it ends them all.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import trio
import trio_util

from kallichore._version import __version__
from kallichore.config import MOST_WARM, ServerConfig
from kallichore.engines.lasting import open_lasting_nursery
from kallichore.errors import (
    KernelNotFoundError,
    NothingToHandOverError,
    SessionExistsError,
    SessionNotCreatedError,
    SessionNotFoundError,
    SessionRunningError,
    ValueRangeError,
)
from kallichore.kernel.connection_choice import encrypts
from kallichore.kernel.inheritance import this_systems_inheritance
from kallichore.kernel.launch_plan import Surroundings, missing_program
from kallichore.kernel.leftovers import clear_leftovers, hold_lock
from kallichore.kernel.watchdog import open_watchdog
from kallichore.kernel.working_directory import can_enter, current_directory
from kallichore.models.bodies import NewSession, ServerConfiguration, ServerStatus, SessionList
from kallichore.server.border import open_border
from kallichore.server.counters import Counters, take_counters
from kallichore.server.engines import open_engines
from kallichore.server.idle import IdleClock
from kallichore.server.sampling import sample_resources
from kallichore.session.facilities import Facilities
from kallichore.session.for_users import ForUsers
from kallichore.session.line_log import LineLog
from kallichore.session.meeting import can_encrypt
from kallichore.session.session import Session, supervise_session
from kallichore.session.warm_keeping import keep_warm
from kallichore.transport.runtime_directory import open_runtime_directory
from kallichore.zeromq.registration import RegistrationDesk

if TYPE_CHECKING:
    from kallichore.engines.provisioner import Provisioners
    from kallichore.session.keep import Keep
    from kallichore.session.vault import Vault
    from kallichore.session.warm_kernelspecs import WarmKernelspec

logger = logging.getLogger(__name__)

LEAST_SAMPLE_INTERVAL_MS = 100
MOST_IDLE_HOURS = 65535

FINDING = 2.0
"""Seconds that a start waits for the hosts of kernels that outlived a server; each takes milliseconds."""


@attrs.define(eq=False)
class Server(metaclass=ForUsers):
    """The sessions of one server and what is true of all of them. `open_server` makes one."""

    FOR_USERS: ClassVar[tuple[str, ...]] = (
        *("sessions", "create_session", "session", "delete_session", "list_sessions", "status"),
        *("configuration", "configure", "request_shutdown", "hurry", "wait_sessions_ended"),
    )

    config: ServerConfig
    facilities: Facilities
    _nursery: trio.Nursery
    _vault: Vault | None = None
    """Where sessions are kept that outlive the server."""
    server_id: str = attrs.field(factory=lambda: str(uuid.uuid4()), init=False)
    started: datetime = attrs.field(factory=lambda: datetime.now(UTC), init=False)
    log_level: str = attrs.field(init=False)
    set_log_level: Callable[[str], None] | None = attrs.field(default=None, init=False)
    """Applies a log level that a client asks for; None where logging is not ours (embedded)."""
    resource_include_children: bool = attrs.field(init=False)
    log: LineLog = attrs.field(factory=LineLog, init=False)
    """What the server logged lately, where logging is ours (kcserver)."""
    shutdown_requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    is_handed_over: bool = attrs.field(default=False, init=False)
    """Whether another server is about to go on with its sessions."""
    _sessions: dict[str, Session] = attrs.field(factory=dict, init=False)
    _idle: IdleClock = attrs.field(init=False)
    _idle_changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _sample_interval: trio_util.AsyncValue[int] = attrs.field(init=False)
    _client_pid: int | None = attrs.field(default=None, init=False)
    _dropped_before: int = attrs.field(default=0, init=False)
    """Messages that sessions dropped which are deleted by now."""
    _began: float = attrs.field(factory=trio.current_time, init=False)

    def __attrs_post_init__(self) -> None:
        self.log_level = self.config.log_level
        self.resource_include_children = self.config.resource_include_children
        self._idle = IdleClock(self.config.idle_shutdown_hours, trio.current_time())
        self._sample_interval = trio_util.AsyncValue(self.config.resource_sample_interval_ms)

    def __dir__(self) -> Iterable[str]:
        return self.FOR_USERS

    def __repr__(self) -> str:
        return f"<Server {self.server_id} sessions={len(self._sessions)} ending={self.shutdown_requested.is_set()}>"

    # Sessions

    @property
    def sessions(self) -> list[Session]:
        """The sessions, in the order of their creation."""
        return list(self._sessions.values())

    def create_session(self, request: NewSession) -> Session:
        """Create a session; nothing is started yet.

        Raises:
            KernelNotFoundError: Its program is not on this machine.
            SessionExistsError: The id is taken.
            SessionNotCreatedError: The machine has no descriptors left, or no memory.
            EngineError: There is no engine, or profile, of this name.
            ValueRangeError: Its time without activity is negative, or it wants too many kernels to be ready.
        """
        if request.cull_idle_after is not None and request.cull_idle_after < 0:
            raise ValueRangeError(
                f"cull_idle_after is {request.cull_idle_after}; it cannot be negative: seconds, 0 for never"
            )
        if request.spares is not None and not 0 <= request.spares <= MOST_WARM:
            raise ValueRangeError(f"spares is {request.spares}; it can be 0 to {MOST_WARM} kernels that are kept ready")
        elsewhere = request.kernel_provisioner or self.facilities.engines.read(request.engine)
        if request.argv and elsewhere is None:
            self._check_program(request)
        if request.session_id in self._sessions:
            raise SessionExistsError(f"There is a session {request.session_id!r} already; choose another id")
        key = secrets.token_hex(16)
        try:
            keep = self._make_keep(request, key)
            session = Session(request, key, self.facilities, self.nudge, keep)
        except OSError as error:
            raise SessionNotCreatedError(f"Session {request.session_id!r} could not be created: {error}") from error
        if request.spares and (keep is not None or sys.platform == "win32"):
            why = "it outlives its server" if keep is not None else "they are not for Windows"
            logger.warning("[session %s] No kernels are kept ready for its restarts: %s", request.session_id, why)
        self._begin(session)
        logger.info(
            "[session %s] Created: %s, in %s",
            request.session_id,
            request.display_name or " ".join(request.argv[:1]) or "a kernel to be adopted",
            request.working_directory or os.getcwd(),
        )
        return session

    def _make_keep(self, request: NewSession, key: str) -> Keep | None:
        """Return the place of a session that is to outlive this server; None for one that ends with it."""
        if self._vault is None or request.durable is False:
            return None
        if request.kernel_provisioner is not None:
            text = "It will end with this server: kernels that provisioners launch have no host that outlives it"
            logger.warning("[session %s] %s", request.session_id, text)
            return None
        if encrypts(request, self.config, sys.platform, can_encrypt):
            text = "It will end with this server: kernels that encrypt cannot have the host that outlives it"
            logger.warning("[session %s] %s", request.session_id, text)
            return None
        return self._vault.make(request, key)

    def _begin(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self.facilities.news.note(session.session_id)
        self._nursery.start_soon(supervise_session, session, name=f"session {session.session_id}")

    def restore_sessions(self, only: Container[str] | None = None) -> None:
        """Go on with the sessions of the server that had the state directory before.

        Args:
            only: The ids of those to go on with; None for all. Others stay as they are.
        """
        if self._vault is None:
            return
        for keep, recovered, request in self._vault.open_all(only):
            try:
                session = Session(request, keep.record.key, self.facilities, self.nudge, keep)
                session.restore(recovered)
            except Exception:
                # Whatever is wrong with one session is not to keep the others, and this server, from their clients.
                logger.exception(
                    "[session %s] Could not be found again, its files stay in %s", request.session_id, keep.directory
                )
                keep.log.close()
                continue
            self._begin(session)
            logger.info("[session %s] Found: %s", session.session_id, session.status.value)

    async def wait_found(self) -> None:
        """Wait until the kernels of restored sessions are found, or known to be gone, so that clients can be answered
        what is true. A host that does not answer is waited for `FINDING` seconds. Cancelling changes nothing.
        """
        with trio.move_on_after(FINDING):
            for session in self.sessions:
                if (life := session.supervisor.life) is not None:
                    await trio_util.wait_any(life.placed.wait, life.over.wait)

    def _check_program(self, request: NewSession) -> None:
        missing = missing_program(request, self.facilities.surroundings, current_directory())
        if missing is not None:
            raise KernelNotFoundError(
                f"The kernel's program {missing!r} was not found; "
                "give an absolute path, or a name that is in the PATH that the session gets"
            )

    def session(self, session_id: str) -> Session:
        """Return a session.

        Raises:
            SessionNotFoundError: There is none with this id.
        """
        try:
            return self._sessions[session_id]
        except KeyError:
            raise SessionNotFoundError(f"There is no session {_shortened(session_id)!r}") from None

    def delete_session(self, session_id: str) -> None:
        """Forget a session whose kernel is not running; a client that is still connected is told and let go.

        Raises:
            SessionNotFoundError: There is none with this id.
            SessionRunningError: Its kernel has not exited.
        """
        session = self.session(session_id)
        if session.is_running:
            raise SessionRunningError(
                f"Session {session_id!r} is running ({session.status.value}); end its kernel before you delete it"
            )
        del self._sessions[session_id]
        self._dropped_before += session.conversation.journal.dropped
        session.deleted.set()
        if self._vault is not None and session.keep is not None:
            session.stop_keeping()
            self._vault.remove(session.keep)
        self.facilities.news.note(session_id)

    def forget_place(self, place: Path) -> None:
        """Remove a directory in the state directory that is a session's no server can go on with."""
        if self._vault is not None:
            self._vault.remove_place(place)

    def find_sessions(self, session_ids: Iterable[str]) -> dict[str, Session | None]:
        """Return sessions by their ids, None for those that are not there."""
        return {session_id: self._sessions.get(session_id) for session_id in session_ids}

    @property
    def epoch(self) -> float:
        """When Trio's clock was at zero, in seconds since 1970, by what both clocks said at the start."""
        return self.started.timestamp() - self._began

    def list_sessions(self) -> SessionList:
        """Return all sessions as the API shows them."""
        return SessionList(
            total=len(self._sessions), sessions=tuple(session.describe() for session in self._sessions.values())
        )

    # Status, configuration, activity

    def counters(self) -> Counters:
        """Return what there is to count, now and so far."""
        uptime = trio.current_time() - self._began
        return take_counters(self._sessions.values(), self._dropped_before, self.facilities, uptime)

    def status(self) -> ServerStatus:
        """Return how the server is."""
        now = trio.current_time()
        statuses = [session.conversation.status for session in self._sessions.values()]
        running = (session.conversation.busy_since for session in self._sessions.values())
        busy = [since for since in running if since is not None]
        idle = [status.idle_since for status in statuses if status.idle_since is not None]
        uptime = int(now - self._began)
        idle_seconds = uptime if not statuses else int(now - max(idle)) if idle and not busy else 0
        counters = self.counters()
        return ServerStatus(
            sessions=len(statuses),
            active=sum(session.is_running for session in self._sessions.values()),
            busy=bool(busy),
            idle_seconds=idle_seconds,
            busy_seconds=int(now - min(busy)) if busy else 0,
            uptime_seconds=uptime,
            version=self.config.report_version or __version__,
            kallichore_version=__version__,
            process_id=os.getpid(),
            started=self.started,
            server_id=self.server_id,
            clients=counters.clients,
            journal_bytes=counters.memory_bytes + counters.file_bytes,
            unread_bytes=counters.unread_bytes,
            dropped_messages=counters.dropped_messages,
            open_descriptors=counters.open_descriptors,
            memory_bytes=counters.process_memory_bytes,
            state_directory=None if self._vault is None else str(self._vault.directory.path),
            durability=self._durability(),
        )

    def _durability(self) -> str | None:
        """Return ``ok``, or why what happens in sessions is not kept; None if it is not to be."""
        if self._vault is None:
            return None
        # The same disk is full for all of them: each reason once.
        troubles = dict.fromkeys(filter(None, (session.not_kept for session in self._sessions.values())))
        return "; ".join(troubles) or "ok"

    def configuration(self) -> ServerConfiguration:
        """Return the settings that can change while the server runs."""
        return ServerConfiguration(
            idle_shutdown_hours=self._idle.hours,
            resource_sample_interval_ms=self._sample_interval.value,
            log_level=self.log_level,
            resource_include_children=self.resource_include_children,
        )

    def configure(self, change: ServerConfiguration) -> None:
        """Change settings; what is None stays. All or nothing.

        Raises:
            ValueRangeError: A value is out of range.
        """
        hours, interval = change.idle_shutdown_hours, change.resource_sample_interval_ms
        if hours is not None and hours > MOST_IDLE_HOURS:
            raise ValueRangeError(f"idle_shutdown_hours is {hours}; it can be at most {MOST_IDLE_HOURS}, -1 for never")
        if interval is not None and interval < 0:
            raise ValueRangeError(f"resource_sample_interval_ms is {interval}; it cannot be negative, 0 is off")
        if hours is not None:
            self._idle.set_hours(hours if hours >= 0 else None, trio.current_time())
            self._idle_changed.set()
        if interval is not None:
            if 0 < interval < LEAST_SAMPLE_INTERVAL_MS:
                logger.warning("Sampling every %d ms is too often; using %d", interval, LEAST_SAMPLE_INTERVAL_MS)
                interval = LEAST_SAMPLE_INTERVAL_MS
            self._sample_interval.value = interval
        if change.resource_include_children is not None:
            self.resource_include_children = change.resource_include_children
        if change.log_level is not None:
            self.log_level = getattr(change.log_level, "value", change.log_level)
            if self.set_log_level is not None:
                self.set_log_level(self.log_level)

    def nudge(self) -> None:
        """Note activity: the idle clock begins anew."""
        self._idle.nudge(trio.current_time())

    def client_heartbeat(self, process_id: int | None) -> None:
        """Note that a client lives, and which process it is."""
        if process_id is not None:
            self._client_pid = process_id
        self.nudge()

    # The end

    def request_shutdown(self, reason: str) -> None:
        """Begin to end the server: kernels are asked to stop, each with its grace period. Idempotent."""
        self._note_shutdown(reason)
        for session in self._sessions.values():
            session.begin_stop()

    def request_exit(self, reason: str) -> None:
        """Begin to end the server, and the kernels that do not outlive it; see `ServerConfig.on_exit`. Idempotent."""
        self._note_shutdown(reason)
        for session in self._sessions.values():
            session.end_with_server()

    def hand_over(self, reason: str) -> None:
        """Begin to end the server, and leave its sessions to the next one, whatever `ServerConfig.on_exit` says.
        Sessions that do not outlive a server end. Idempotent.

        Raises:
            NothingToHandOverError: It has no state directory.
        """
        if self._vault is None:
            raise NothingToHandOverError("This server has no state directory, so no other could take over its sessions")
        self.is_handed_over = True
        self._note_shutdown(reason)
        for session in self._sessions.values():
            session.leave()

    @property
    def kernels_left(self) -> int:
        """How many kernels were left to the next server."""
        return sum(session.leaves_kernel for session in self._sessions.values())

    def announce(self, address: str, document: dict[str, Any]) -> None:
        """Note where this server is reached, for the one that takes over its sessions.

        Args:
            address: Where, for people.
            document: The connection document.
        """
        if self._vault is not None:
            self._vault.announce(address, document)

    def _note_shutdown(self, reason: str) -> None:
        if not self.shutdown_requested.is_set():
            logger.info("Shutting down: %s", reason)
            self.shutdown_requested.set()

    def hurry(self) -> None:
        """Cut the grace periods short: kernels that still run are killed."""
        self.facilities.warm.close(hurry=True)
        for session in self._sessions.values():
            session.begin_stop(hurry=True)

    async def wait_sessions_ended(self) -> None:
        """Wait until no session has a running kernel. Cancelling changes nothing."""
        for session in self.sessions:
            await session.wait_ended()

    async def _watch_idleness(self) -> None:
        """Ask for a shutdown when nothing happened for the configured time and nobody is there."""
        while True:
            self._idle_changed = trio.Event()
            with trio.move_on_at(self._idle.look_at):
                await self._idle_changed.wait()
            if not self._idle.look(trio.current_time()):
                continue
            if self._is_in_use():
                self.nudge()
            else:
                self.request_exit("idle")
                return

    def _is_in_use(self) -> bool:
        if self._client_pid is not None and self._client_pid > 1:
            import psutil  # 15 ms that no start has to wait for

            if psutil.pid_exists(self._client_pid):
                return True
            self._client_pid = None
        return any(session.is_in_use for session in self._sessions.values())


def _shortened(text: str) -> str:
    """Return what somebody made up, at a length that an answer may have."""
    return text if len(text) <= 100 else f"{text[:97]}..."


@asynccontextmanager
async def open_server(
    config: ServerConfig | None = None, *, only: Container[str] | None = None
) -> AsyncIterator[Server]:
    """Open a server in this process, without listeners: for programs that need no HTTP.

    Leaving the block, and cancelling it, ends every kernel: asked first, then terminated and killed. Nothing is left:
    no process, socket or file; but with a state directory, where kernels may go on: see `ServerConfig.on_exit`. What is
    raised in the block is raised by it, as it is; if the server fails at the same time, both are in an
    `ExceptionGroup`.

    Args:
        config: How long to wait for what; how to listen is not looked at here.
        only: The ids of those sessions in its state directory that it goes on with; None for all. The others stay as
            they are.

    Raises:
        ConfigurationError: There is no place for the server's private directory, its state directory cannot be used, or
            there is no Trio.
    """
    with open_border() as border:
        async with _open_server(config or ServerConfig(), only) as server:
            with border.block():
                yield server


def _open_vault(config: ServerConfig) -> AbstractContextManager[Vault | None]:
    if config.state_directory is None:
        return nullcontext()
    # What sessions that outlive their server need is imported where there may be some.
    from kallichore.session.vault import open_vault

    return open_vault(config.state_directory)


def _provisioners(directory: Path, nursery: trio.Nursery) -> Callable[[], Provisioners]:
    @cache
    def get() -> Provisioners:
        from kallichore.engines.provisioner import Provisioners
        from kallichore.engines.provisioner_process import Patience

        return Provisioners(directory, Patience(), nursery)

    return get


@asynccontextmanager
async def _open_server(config: ServerConfig, only: Container[str] | None) -> AsyncIterator[Server]:
    desk = RegistrationDesk()
    try:
        with (
            open_runtime_directory(config) as runtime_directory,
            hold_lock(runtime_directory),
            _open_vault(config) as vault,
        ):
            clear_leftovers(runtime_directory.parent)
            async with (
                open_watchdog(runtime_directory) as watchdog,
                open_lasting_nursery() as provisioning,
                open_engines(config, runtime_directory) as engines,
                trio.open_nursery() as nursery,
            ):
                facilities = Facilities(
                    engines=engines,
                    config=config,
                    desk=desk,
                    runtime_directory=runtime_directory,
                    watchdog=watchdog,
                    surroundings=Surroundings(
                        environment=dict(os.environ),
                        home=os.path.expanduser("~"),
                        platform=sys.platform,
                        exists=os.path.exists,
                        is_file=os.path.isfile,
                        is_directory=can_enter,
                    ),
                    open_inheritance=this_systems_inheritance(),
                    provisioners=_provisioners(runtime_directory, provisioning),
                    taken_ports=set(),
                )
                kernelspecs: Sequence[WarmKernelspec] = ()
                if any(config.warm.values()):
                    from kallichore.session.warm_kernelspecs import read_kernelspecs

                    kernelspecs = await trio.to_thread.run_sync(read_kernelspecs, facilities)
                server = Server(config, facilities, nursery, vault)
                server.restore_sessions(only)
                nursery.start_soon(server._watch_idleness)
                nursery.start_soon(keep_warm, facilities, kernelspecs, server.shutdown_requested)
                nursery.start_soon(
                    sample_resources,
                    server._sample_interval,
                    lambda: server.resource_include_children,
                    lambda: server.sessions,
                )
                try:
                    yield server
                finally:
                    server.log.close()
                    facilities.news.close()
                    nursery.cancel_scope.cancel()
    finally:
        desk.close()
