"""The tools of agents beside an IDE: what they do with a workspace's sessions and windows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import attrs
import trio

from kallichore._version import __version__
from kallichore.agents.answers import Budget, Image, ToolAnswer, answer_error, answer_run, fit_entries
from kallichore.agents.problems import Problem, ToolError
from kallichore.agents.protocol import Caller, Resource
from kallichore.agents.tools import DEFAULT_SECONDS, IN_WINDOW, Tool
from kallichore.conversation.run_result import Printed, ResultCollector
from kallichore.errors import (
    ExecuteError,
    ExecutionCancelledError,
    ExecutionTimeoutError,
    InterruptError,
    KernelDiedError,
    SessionNotFoundError,
    SessionNotReadyError,
)
from kallichore.mcp.commands import run_command
from kallichore.mcp.workspace import Workspace, is_visible
from kallichore.models.bodies import Status
from kallichore.models.converter import unstructure
from kallichore.server import Server
from kallichore.session.execute_call import wait_until_ready
from kallichore.session.executions import Execution, open_execution
from kallichore.session.run_call import give_up, next_message
from kallichore.session.session import Session, cancel_when

GONE = "kallichore.gone"
"""In an ASGI scope: an event that is set when the agent is not connected any more."""

CALLER = "kallichore.caller"
"""In an ASGI scope: the session inside which the agent runs, or None."""

CURRENT_PLOT = "positron.mcp.getCurrentPlot"
"""The command that a window serves besides those of its catalogue."""

MOST_COMMANDS = 50

INSTRUCTIONS = """\
These are the sessions of a Positron workspace: running kernels, which the user sees and works in as well. Code that \
you run shows in the user's console. Look before you change: list_sessions, get_session_history, and evaluate_code for \
values. execute_code keeps its state."""


@attrs.define(eq=False)
class WindowToolbox:
    """See `kallichore.agents.protocol.Toolbox`.

    Args:
        server: Whose sessions.
        workspace: Whose agents.
        workspaces: All that are registered.
        count: Is called for each call of a tool.
    """

    server: Server
    workspace: Workspace
    workspaces: Callable[[], Sequence[Workspace]]
    count: Callable[[], None]
    name: ClassVar[str] = "positron"
    title: ClassVar[str] = "Positron sessions"
    instructions: ClassVar[str] = INSTRUCTIONS
    tools: ClassVar[Sequence[Tool]] = IN_WINDOW
    resource_template: ClassVar[str | None] = None

    def meet(self, name: str | None, version: str | None) -> None:
        """Take note of nothing: calls say who they are of."""

    async def read(self, uri: str) -> Resource | None:
        """Return nothing: there are no resources."""
        await trio.lowlevel.checkpoint()
        return None

    async def call(self, tool: str, arguments: Mapping[str, Any], caller: Caller) -> ToolAnswer:
        """Do what a tool does, for as long as the agent is there to hear of it."""
        self.count()
        self.server.nudge()
        act: Callable[..., Awaitable[ToolAnswer]] = getattr(self, f"_{tool}")
        answer = answer_error(Problem.CHANNEL_CLOSED, "The agent is gone", {})
        async with trio.open_nursery() as nursery:
            if (gone := caller.request.scope.get(GONE)) is not None:
                nursery.start_soon(cancel_when, gone, nursery.cancel_scope)
            try:
                answer = await act(caller, **arguments)
            except ToolError as error:
                answer = answer_error(error.code, error.message, error.facts)
            nursery.cancel_scope.cancel()
        self.server.nudge()
        return attrs.evolve(answer, members={**answer.members, **self._facts()})

    def _facts(self) -> dict[str, Any]:
        """Return what every answer says besides."""
        workspace = self.workspace
        since = workspace.disconnected_since
        return {
            "positron_connected": workspace.is_connected,
            **({} if since is None else {"positron_disconnected_since": since.isoformat()}),
            **({} if workspace.positron_version is None else {"positron_version": workspace.positron_version}),
            "server_version": __version__,
        }

    # Which session

    def _visible(self) -> list[Session]:
        others = self.workspaces()
        return [session for session in self.server.sessions if is_visible(self.workspace, session.request, others)]

    def _target(self, session_id: str | None) -> Session:
        visible = self._visible()
        if session_id is not None:
            try:
                session = self.server.session(session_id)
            except SessionNotFoundError as error:
                raise ToolError(Problem.SESSION_NOT_FOUND, error.message) from error
            if session not in visible:
                raise ToolError(
                    Problem.SESSION_NOT_VISIBLE,
                    f"Session {session_id[:100]} belongs to another workspace; use your own",
                )
            return session
        for session in visible:
            if session.session_id == self.workspace.foreground:
                return session
        if len(visible) == 1:
            return visible[0]
        words = "There are several sessions; name one by session_id" if visible else "There is no session yet"
        candidates = [session.session_id for session in visible]
        raise ToolError(Problem.NO_SESSION_SELECTED, words, candidates=candidates)

    def _target_for_code(self, session_id: str | None, caller: Caller) -> Session:
        session = self._target(session_id)
        if session.session_id == caller.request.scope.get(CALLER):
            raise ToolError(
                Problem.SESSION_IS_CALLER, f"You run inside session {session.session_id}: it would wait for itself"
            )
        return session

    # The tools

    async def _list_sessions(self, caller: Caller) -> ToolAnswer:
        visible = self._visible()
        sessions = [self._in_short(session) for session in visible]
        default = None
        with suppress(ToolError):
            default = self._target(None).session_id
        await trio.lowlevel.checkpoint()
        others = len(self.server.sessions) - len(visible)
        return ToolAnswer({"sessions": sessions, "default_session_id": default, "other_sessions": others})

    def _in_short(self, session: Session) -> dict[str, Any]:
        described = session.describe()
        return {
            "session_id": session.session_id,
            "display_name": described.display_name,
            "language": described.language,
            "status": session.status.value,
            "working_directory": described.working_directory,
            "is_foreground": session.session_id == self.workspace.foreground,
        }

    async def _get_session_history(self, caller: Caller, session_id: str | None = None, limit: int = 10) -> ToolAnswer:
        session = self._target(session_id)
        entries = [unstructure(entry) for entry in session.conversation.history.entries(limit)]
        await trio.lowlevel.checkpoint()
        return ToolAnswer({"session_id": session.session_id, "entries": fit_entries(entries)})

    async def _interrupt_session(self, caller: Caller, session_id: str | None = None) -> ToolAnswer:
        session = self._target(session_id)
        try:
            session.interrupt()
        except InterruptError as error:
            raise ToolError(Problem.INTERRUPT_FAILED, error.message) from error
        await trio.lowlevel.checkpoint()
        return ToolAnswer({"status": "interrupted", "session_id": session.session_id})

    async def _list_positron_commands(self, caller: Caller, search: str = "") -> ToolAnswer:
        words = search.lower().split()
        found = [
            command
            for command in self.workspace.commands
            if all(word in f"{command.id} {command.description}".lower() for word in words)
        ]
        budget = Budget()
        commands = []
        for command in found[:MOST_COMMANDS]:
            arguments = [
                {"name": argument.name, "description": argument.description or "", "required": argument.required}
                for argument in command.args
            ]
            commands.append({"id": command.id, "description": budget.fit(command.description), "args": arguments})
        await trio.lowlevel.checkpoint()
        return ToolAnswer({"commands": commands, "total": len(found), "truncated": len(found) > len(commands)})

    async def _run_positron_command(self, caller: Caller, command_id: str, args: Sequence[Any] = ()) -> ToolAnswer:
        result = await run_command(self.workspace, command_id, args, (caller.name, caller.version))
        budget = Budget()
        is_text = isinstance(result, str)
        return ToolAnswer({"status": "ok", "result": budget.fit(result) if is_text else result})

    async def _get_plot(self, caller: Caller) -> ToolAnswer:
        plot = await run_command(self.workspace, CURRENT_PLOT, (), (caller.name, caller.version))
        head, _, data = plot.partition(";base64,") if isinstance(plot, str) else ("", "", "")
        if not (head.startswith("data:image/") and data):
            return ToolAnswer({"status": "ok", "images": 0, "message": "The window shows no plot"})
        return ToolAnswer({"status": "ok", "images": 1}, (Image(head.removeprefix("data:"), data),))

    async def _execute_code(
        self, caller: Caller, code: str, session_id: str | None = None, timeout_s: int = DEFAULT_SECONDS
    ) -> ToolAnswer:
        session = self._target_for_code(session_id, caller)
        return await self._run(session, code, caller, timeout_s, tool="execute_code")

    async def _evaluate_code(
        self,
        caller: Caller,
        code: str,
        session_id: str | None = None,
        timeout_s: int = DEFAULT_SECONDS,
        wait: bool = False,
    ) -> ToolAnswer:
        session = self._target_for_code(session_id, caller)
        if not wait and (session.status is Status.BUSY or session.conversation.queue.active is not None):
            raise ToolError(
                Problem.RUNTIME_BUSY,
                f"Session {session.session_id} runs other code; call with wait, or interrupt_session",
            )
        return await self._run(session, code, caller, timeout_s, tool="evaluate_code", store_history=False)

    async def _run(
        self, session: Session, code: str, caller: Caller, seconds: float, *, tool: str, store_history: bool = True
    ) -> ToolAnswer:
        began = trio.current_time()
        collector = ResultCollector()
        attribution = caller.attribution(tool, self.workspace.workspace_id)
        status, words, reply = "", None, {}
        try:
            await wait_until_ready(session, began + seconds)
            opening = open_execution(session, code, store_history=store_history, attribution=attrs.asdict(attribution))
            async with opening as execution:
                await _hear(execution, began + seconds, collector, caller)
            reply = execution.reply or {}
            if reply.get("status") != "ok" and session.conversation.was_interrupted(execution.msg_id):
                status = "interrupted"
        except ExecutionTimeoutError as error:
            status, words = "timed_out", error.message
        except ExecutionCancelledError as error:
            status, words = "interrupted", error.message
        except KernelDiedError as error:
            raise ToolError(Problem.CHANNEL_CLOSED, error.message) from error
        except SessionNotReadyError as error:
            raise ToolError(Problem.SESSION_NOT_READY, error.message) from error
        except ExecuteError as error:
            is_late = error.code == "timeout"
            if not is_late:
                raise ToolError(Problem.SESSION_NOT_READY, error.message) from error
            status, words = "timed_out", error.message
        result = collector.finish(reply)
        facts: dict[str, Any] = {} if words is None else {"message": words}
        return answer_run(
            result,
            status=status or ("ok" if result.status == "ok" else "error"),
            session_id=session.session_id,
            elapsed=trio.current_time() - began,
            **facts,
        )


async def _hear(execution: Execution, deadline: float, collector: ResultCollector, caller: Caller) -> None:
    """Take in an execution to its end. If the call is cancelled, the execution is withdrawn or interrupted."""
    try:
        while (message := await next_message(execution, deadline)) is not None:
            output = collector.take(message)
            if isinstance(output, Printed):
                await caller.report(output.text)
    except BaseException:
        # A cancellation, which may come as a group of several, or what an agent that is gone makes of a report.
        give_up(execution.session, execution.msg_id, "The agent does not wait any more")
        raise
