"""The tools of ``kcclient mcp``: what an agent without an IDE can do with a server's sessions."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import unquote

import attrs
import trio

from kallichore.agents.answers import ToolAnswer, answer_run, fit_entries
from kallichore.agents.problems import Problem, ToolError
from kallichore.agents.protocol import Caller, Resource
from kallichore.agents.tools import ALONE, DEFAULT_SECONDS, Tool
from kallichore.cli.agent.output_log import OutputLog
from kallichore.cli.agent.runs import GONE, Run, follow, stop
from kallichore.cli.installed import find_kernel, list_kernels
from kallichore.cli.options import new_kernel
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.errors import KernelNotFoundError
from kallichore.models.converter import unstructure

INSTRUCTIONS = """\
Sessions are running Jupyter kernels that keep their state: variables, imports, loaded data. Start one with \
start_session, run code in it with execute_code, and look at things with evaluate_code. Plots come back as images. For \
code that takes long, call execute_code with keep_running: it goes on when timeout_s is up, and get_output tells what \
it has put out since. interrupt_session stops what runs, and keeps the state."""

MOST_RUNS = 100
"""Runs of a session that are remembered."""

START_SECONDS = 120
"""Seconds that a kernel may take to start: some install something first."""


FindServer = Callable[[], Awaitable[KallichoreServer]]
"""Waits until there is a server, and returns it."""


@attrs.define(eq=False)
class _Known:
    """What is remembered of one session."""

    log: OutputLog
    runs: deque[Run] = attrs.field(factory=lambda: deque(maxlen=MOST_RUNS))
    count: int = 0

    @property
    def running(self) -> list[Run]:
        return [run for run in self.runs if not run.done.is_set()]


async def _no_report(text: str) -> None:
    """Tell nobody: the agent is not waiting."""
    await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class AloneToolbox:
    """See `kallichore.agents.protocol.Toolbox`.

    Args:
        find_server: Finds the server, which may be on its way while the agent is greeted.
        nursery: Where runs go on.
    """

    find_server: FindServer
    nursery: trio.Nursery
    name: ClassVar[str] = "kallichore"
    title: ClassVar[str] = "Kallichore: Jupyter kernels for agents"
    instructions: ClassVar[str] = INSTRUCTIONS
    tools: ClassVar[Sequence[Tool]] = ALONE
    resource_template: ClassVar[str | None] = "kallichore://sessions/{session_id}/outputs/{number}"
    server: KallichoreServer = attrs.field(init=False)
    """There as soon as a tool is called."""
    _known: dict[str, _Known] = attrs.field(factory=dict, init=False)

    @property
    def client(self) -> ApiClient:
        """What asks the server."""
        return self.server.client

    async def call(self, tool: str, arguments: Mapping[str, Any], caller: Caller) -> ToolAnswer:
        """Do what a tool does.

        Raises:
            ToolError: It cannot.
        """
        self.server = await self.find_server()
        act: Callable[..., Awaitable[ToolAnswer]] = getattr(self, f"_{tool}")
        given = dict(arguments)
        if tool in ("execute_code", "evaluate_code"):
            given["caller"] = caller
        try:
            return await act(**given)
        except ApiError as error:
            problem = Problem.SESSION_NOT_FOUND if error.status == 404 else Problem.SERVER_REFUSED
            raise ToolError(problem, str(error)) from error
        except GONE as error:
            raise ToolError(Problem.CHANNEL_CLOSED, f"The server cannot be reached: {error}") from error

    def meet(self, name: str | None, version: str | None) -> None:
        """Take note of nothing: calls say who they are of."""

    async def read(self, uri: str) -> Resource | None:
        """Return the whole of an output."""
        parts = uri.removeprefix("kallichore://sessions/").split("/")
        if len(parts) != 3 or parts[1] != "outputs" or not (parts[2].isascii() and parts[2].isdigit()):
            return None
        known = self._known.get(parts[0]) or self._known.get(unquote(parts[0]))
        entry = known.log.find(int(parts[2][:18])) if known is not None else None
        await trio.lowlevel.checkpoint()
        if entry is None:
            return None
        kind, content = entry.content
        return Resource(uri, kind, text=content) if kind == "text/plain" else Resource(uri, kind, blob=content)

    # Which session

    async def _sessions(self) -> list[dict[str, Any]]:
        answer = await self.client.call("GET", "/sessions")
        return list(answer["sessions"])

    async def _target(self, session_id: str | None) -> str:
        if session_id is not None:
            return session_id
        sessions = await self._sessions()
        if len(sessions) == 1:
            return str(sessions[0]["session_id"])
        candidates = [session["session_id"] for session in sessions]
        if not candidates:
            raise ToolError(
                Problem.NO_SESSION_SELECTED, "There is no session yet; start one with start_session", candidates=[]
            )
        raise ToolError(
            Problem.NO_SESSION_SELECTED, "There are several sessions; name one by session_id", candidates=candidates
        )

    def _knowing(self, session_id: str) -> _Known:
        return self._known.setdefault(session_id, _Known(OutputLog(session_id)))

    # The tools

    async def _list_sessions(self) -> ToolAnswer:
        sessions = [_in_short(session) for session in await self._sessions()]
        return ToolAnswer({"sessions": sessions, "default_session_id": _only(sessions)})

    async def _list_kernels(self) -> ToolAnswer:
        specs = await list_kernels(self.server)
        kernels = [
            {"name": spec.name, "display_name": spec.display_name, "language": spec.language} for spec in specs.values()
        ]
        return ToolAnswer({"kernels": kernels})

    async def _start_session(
        self, kernel: str | None = None, directory: str | None = None, session_id: str | None = None
    ) -> ToolAnswer:
        try:
            spec = await find_kernel(self.server, kernel)
        except KernelNotFoundError as error:
            raise ToolError(Problem.START_FAILED, str(error)) from error
        name = await self.server.create(new_kernel(spec, directory, (), START_SECONDS), session_id)
        is_started = False
        try:
            await self.server.start_again(name)
            is_started = True
        except ApiError as error:
            raise ToolError(Problem.START_FAILED, str(error)) from error
        finally:
            if not is_started:
                # Also where the agent does not wait any more: it was not told of the session.
                with trio.CancelScope(shield=True), trio.move_on_after(START_SECONDS / 10):
                    await self.server.remove(name)
        session = await self.client.call("GET", session_path(name))
        return ToolAnswer(_in_short(session))

    async def _restart_session(self, session_id: str | None = None) -> ToolAnswer:
        name = await self._target(session_id)
        await self.client.call("POST", session_path(name, "restart"))
        return ToolAnswer({"status": "restarted", "session_id": name})

    async def _stop_session(self, session_id: str | None = None) -> ToolAnswer:
        name = await self._target(session_id)
        await self.client.call("GET", session_path(name))
        await self.server.remove(name)
        self._known.pop(name, None)
        return ToolAnswer({"status": "stopped", "session_id": name})

    async def _interrupt_session(self, session_id: str | None = None) -> ToolAnswer:
        name = await self._target(session_id)
        try:
            await self.client.call("POST", session_path(name, "interrupt"))
        except ApiError as error:
            problem = Problem.SESSION_NOT_FOUND if error.status == 404 else Problem.INTERRUPT_FAILED
            raise ToolError(problem, str(error)) from error
        for run in self._knowing(name).running:
            run.was_interrupted = True
        return ToolAnswer({"status": "interrupted", "session_id": name})

    async def _get_session_history(self, session_id: str | None = None, limit: int = 10) -> ToolAnswer:
        name = await self._target(session_id)
        entries = await self.client.call("GET", session_path(name, "history"))
        return ToolAnswer({"session_id": name, "entries": fit_entries(entries[-limit:])})

    async def _get_output(self, session_id: str | None = None, since: int = 0, wait_s: int = 0) -> ToolAnswer:
        name = await self._target(session_id)
        known = self._known.get(name)
        if known is None:
            await self.client.call("GET", session_path(name))
            known = self._knowing(name)
        with trio.move_on_after(wait_s):
            while known.log.latest <= since and (running := known.running):
                await running[0].changed.wait()
        return known.log.since(since, running=[run.number for run in known.running])

    async def _execute_code(
        self,
        code: str,
        caller: Caller,
        session_id: str | None = None,
        timeout_s: int = DEFAULT_SECONDS,
        keep_running: bool = False,
    ) -> ToolAnswer:
        name = await self._target(session_id)
        request = {"code": code, "attribution": unstructure(caller.attribution("execute_code"))}
        return await self._run(name, request, caller.report, timeout_s, keep_running=keep_running)

    async def _evaluate_code(
        self,
        code: str,
        caller: Caller,
        session_id: str | None = None,
        timeout_s: int = DEFAULT_SECONDS,
        wait: bool = False,
    ) -> ToolAnswer:
        name = await self._target(session_id)
        if not wait:
            session = await self.client.call("GET", session_path(name))
            if session["status"] == "busy" or session["execution_queue"]["length"]:
                raise ToolError(
                    Problem.RUNTIME_BUSY, f"Session {name} runs other code; call with wait, or interrupt_session"
                )
        attribution = unstructure(caller.attribution("evaluate_code"))
        request = {"code": code, "store_history": False, "attribution": attribution}
        return await self._run(name, request, caller.report, timeout_s)

    async def _run(
        self,
        name: str,
        request: dict[str, Any],
        report: Callable[[str], Awaitable[None]],
        seconds: float,
        *,
        keep_running: bool = False,
    ) -> ToolAnswer:
        known = self._knowing(name)
        known.count += 1
        run = Run(known.log, known.count)
        known.runs.append(run)
        if not keep_running:
            # The server knows best whether it has to be withdrawn or interrupted.
            request["timeout_seconds"] = seconds
        # A run that goes on when its call is over must not report to it.
        self.nursery.start_soon(follow, run, self.client.address, request, _no_report if keep_running else report)
        try:
            with trio.move_on_after(seconds if keep_running else float("inf")) as limit:
                await run.done.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await stop(run, self.client)
            raise
        return self._answer(run, goes_on=limit.cancelled_caught and not run.done.is_set())

    def _answer(self, run: Run, *, goes_on: bool) -> ToolAnswer:
        result = run.result()
        status = "ok" if result.status == "ok" else "error"
        if goes_on:
            status = "running"
        elif run.was_late:
            status = "timed_out"
        elif run.was_interrupted and result.status != "ok":
            status = "interrupted"
        elif run.problem is not None:
            raise run.problem
        return answer_run(
            result,
            status=status,
            session_id=run.session_id,
            elapsed=trio.current_time() - run.began,
            links=run.log.links(run.first),
            run=run.number,
            next=run.log.seal(),
            **({"message": run.problem.message} if run.problem is not None else {}),
        )


def _in_short(session: Mapping[str, Any]) -> dict[str, Any]:
    members = ("session_id", "display_name", "language", "status", "working_directory", "process_id")
    return {name: session[name] for name in members if session.get(name) is not None}


def _only(sessions: list[dict[str, Any]]) -> str | None:
    return sessions[0]["session_id"] if len(sessions) == 1 else None
