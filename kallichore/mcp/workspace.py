"""A workspace: what its windows said, which of them is asked, and which agents are there. [pure]

Several windows share one record. A request goes to the window that had the focus last, else to the newest; if that
closes, to the next; if none is left, it fails. What the last window said stays while none is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from kallichore.mcp.channel_frames import (
    Command,
    CommandReply,
    CommandsChanged,
    Focused,
    ForegroundChanged,
    Frame,
    Hello,
    SessionsChanged,
    clients_changed,
    command_request,
)
from kallichore.models.bodies import McpClient, McpWorkspaceStatus, NewSession

MOST_WAITING = 1000
"""Frames that may wait for a window which does not read; then it is let go. It would be told too late anyway."""

MOST_CLIENTS = 200
"""Agents that are shown for a workspace. Whoever opens more presences than that has lost count."""


def _nobody() -> None:
    """Wake nobody: its connection has not begun to send."""


@attrs.define(eq=False)
class Window:
    """One window of a workspace.

    Attributes:
        rank: When it had the focus last, among the workspace's windows; of those that never had it, when it came.
        outgoing: What it is to be sent.
        wake: Is called when there is more to send, or it is to go.
        is_let_go: Whether its connection is to be closed.
    """

    rank: tuple[int, int]
    wake: Callable[[], None] = _nobody
    outgoing: list[bytes] = attrs.field(factory=list)
    is_let_go: bool = False

    def say(self, frame: bytes) -> None:
        """Have something sent."""
        if len(self.outgoing) >= MOST_WAITING:
            self.is_let_go = True
        else:
            self.outgoing.append(frame)
        self.wake()


@attrs.frozen
class WindowsGone:
    """Why a command has no reply: there is no window any more."""


@attrs.define(eq=False)
class CommandCall:
    """A command that a window is asked to run.

    Attributes:
        frame: The request, which another window may get as well.
        tell: Is given the reply.
        window: Who has been asked.
    """

    number: str
    frame: bytes
    tell: Callable[[CommandReply | WindowsGone], None]
    window: Window


@attrs.define(eq=False)
class Workspace:
    """One registered workspace."""

    workspace_id: str
    display_name: str
    token: str = attrs.field(repr=False)
    commands: list[Command] = attrs.field(factory=list, init=False)
    session_ids: tuple[str, ...] = attrs.field(default=(), init=False)
    foreground: str | None = attrs.field(default=None, init=False)
    positron_version: str | None = attrs.field(default=None, init=False)
    history_api_enabled: bool = attrs.field(default=False, init=False)
    disconnected_since: datetime | None = attrs.field(default=None, init=False)
    clients: dict[int, McpClient] = attrs.field(factory=dict, init=False)
    is_removed: bool = attrs.field(default=False, init=False)
    watchers: set[Callable[[], None]] = attrs.field(factory=set, init=False)
    """Are called when a window or an agent comes or goes, and when the workspace is removed."""
    _windows: list[Window] = attrs.field(factory=list, init=False)
    _calls: dict[str, CommandCall] = attrs.field(factory=dict, init=False)
    _count: int = attrs.field(default=0, init=False)

    @property
    def is_connected(self) -> bool:
        """Whether a window is there."""
        return bool(self._windows)

    # Windows

    def open_window(self) -> Window:
        """Note that a window is there."""
        window = Window((0, self._next()))
        self._windows.append(window)
        self.disconnected_since = None
        window.say(clients_changed(tuple(self.clients.values())))
        self._notify()
        return window

    def close_window(self, window: Window, now: datetime) -> None:
        """Note that a window is gone: what it was asked, another is asked now, if there is one."""
        self._windows.remove(window)
        if not self._windows:
            self.disconnected_since = now
        for call in [call for call in self._calls.values() if call.window is window]:
            if self._windows:
                call.window = self._front()
                call.window.say(call.frame)
            else:
                del self._calls[call.number]
                call.tell(WindowsGone())
        self._notify()

    def hear(self, window: Window, frame: Frame) -> None:
        """Take in what a window says."""
        match frame:
            case Hello():
                self.commands, self.session_ids = frame.commands, tuple(frame.session_ids)
                self.foreground, self.positron_version = frame.foreground_session_id, frame.positron_version
                self.history_api_enabled = frame.history_api_enabled
                if frame.focused:
                    window.rank = (self._next(), 0)
            case CommandsChanged():
                self.commands = frame.commands
            case ForegroundChanged():
                self.foreground = frame.session_id
            case SessionsChanged():
                self.session_ids = tuple(frame.session_ids)
            case Focused():
                window.rank = (self._next(), 0)
            case CommandReply():
                call = self._calls.get(str(frame.id))
                if call is not None and call.window is window:
                    del self._calls[call.number]
                    call.tell(frame)

    def ask(
        self,
        command_id: str,
        arguments: Sequence[Any],
        agent: tuple[str | None, str | None],
        deadline: float,
        tell: Callable[[CommandReply | WindowsGone], None],
    ) -> CommandCall | None:
        """Ask a window to run a command; None if there is no window.

        Args:
            command_id: Which.
            arguments: By position.
            agent: The name and version of the agent that wants it.
            deadline: Seconds that the window has.
            tell: Is given the reply, once.
        """
        if not self._windows:
            return None
        number = str(self._next())
        frame = command_request(number, command_id, arguments, *agent, deadline)
        call = CommandCall(number, frame, tell, self._front())
        self._calls[number] = call
        call.window.say(frame)
        return call

    def give_up(self, call: CommandCall) -> None:
        """Note that nobody waits for a reply any more."""
        self._calls.pop(call.number, None)

    def _front(self) -> Window:
        return max(self._windows, key=lambda window: window.rank)

    # Agents

    def add_client(self, facts: Mapping[str, Any], now: datetime) -> int | None:
        """Note that an agent is there; return its id, None if there are too many.

        Args:
            facts: Members of `McpClient`.
            now: When it came.
        """
        if len(self.clients) >= MOST_CLIENTS:
            return None
        number = self._next()
        self.clients[number] = McpClient(id=number, connected_at=now, **facts)
        self._tell_clients()
        return number

    def remove_client(self, number: int) -> None:
        """Note that an agent is gone."""
        if self.clients.pop(number, None) is not None:
            self._tell_clients()

    def _tell_clients(self) -> None:
        frame = clients_changed(tuple(self.clients.values()))
        for window in self._windows:
            window.say(frame)

    # As a whole

    def remove(self) -> None:
        """Note that it is registered no more: windows and agents are let go."""
        self.is_removed = True
        for window in self._windows:
            window.is_let_go = True
            window.wake()
        self._notify()

    def status(self) -> McpWorkspaceStatus:
        """Return it as the API shows it."""
        return McpWorkspaceStatus(
            id=self.workspace_id,
            display_name=self.display_name,
            connected=self.is_connected,
            clients=tuple(self.clients.values()),
        )

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _notify(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


def is_visible(workspace: Workspace, session: NewSession, others: Sequence[Workspace]) -> bool:
    """Tell whether a workspace's agents may use a session: its owner is this workspace, or a window of it lists it and
    it has no other registered owner.

    Args:
        workspace: Whose agents.
        session: What the session was created with.
        others: All registered workspaces.
    """
    if session.workspace_id == workspace.workspace_id:
        return True
    is_owned = session.workspace_id in {other.workspace_id for other in others}
    return session.session_id in workspace.session_ids and not is_owned
