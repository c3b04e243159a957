"""The contract of an engine: how a host, with a kernel beside it, comes to run on another machine.

An engine places hosts and nothing else. What a host says, how it is talked to, how its connection is opened again, and
what follows from a kernel's end is the same wherever it runs (`kallichore.engines.elsewhere`). So an engine answers six
questions: is what is asked for possible (`Engine.check_options`); what finds the job again (`Engine.ticket`); how is it
submitted, and where is it in the queue (`Engine.open_job`); how is its host reached (`Job.connect`); why did it end
(`Job.explain`); and how is it ended for good (`Job.end`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import attrs

from kallichore.kernel.ending import Ending

KEEP_LIMIT = 64 << 20
"""Bytes that a host keeps of what its kernel sent and no server has confirmed: some ten seconds of a flood."""

Ticket = Mapping[str, Any]
"""What finds a job again, as JSON: noted before the job is submitted, so that one of which it is not known whether it
came to be is looked up, and never submitted twice."""


@attrs.frozen
class Waiting:
    """Why a kernel has no machine yet.

    Attributes:
        reason: In words, as the engine has them: ``Resources: waiting for nodes to become free``.
        since: When it began to wait, in seconds since 1970.
        expected_start: When it is expected to run, in seconds since 1970; None where nobody says.
        position: Its place in the queue, 1 for the next; None where nobody says.
    """

    reason: str
    since: float
    expected_start: float | None = None
    position: int | None = None


@attrs.frozen
class Order:
    """What is to run elsewhere.

    Attributes:
        session_id: The session.
        label: A short name for people who look at the engine's own tools, of letters, digits, ``-`` and ``_``.
        secret: What the host and the server prove each other to know. It goes to the machine on no way that others
            can read: not in arguments, names, comments or an environment.
        argv: The kernel's program and arguments there; ``{connection_file}`` stands for what the host writes.
        actions: What is changed in that machine's environment: ``replace``, ``append`` or ``prepend``, a name and a
            value each, in their order.
        working_directory: Where the kernel starts there; None for where the engine starts programs.
        connection: What a connection file is to have besides ports and address.
        abandon_after: Seconds without a server after which the host ends the kernel; 0 for never.
        options: What the session asks of its engine: checked.
    """

    session_id: str
    label: str
    secret: bytes
    argv: Sequence[str]
    actions: Sequence[tuple[str, str, str]]
    working_directory: str | None
    connection: Mapping[str, Any]
    abandon_after: float
    options: Mapping[str, Any]

    def document(self, **members: Any) -> dict[str, Any]:
        """Return what the host is told; see `kallichore/host/host.py`.

        Args:
            members: What the engine adds, and has in place of what is said here.
        """
        return {
            "secret": self.secret.hex(),
            "argv": list(self.argv),
            "actions": [list(action) for action in self.actions],
            "directory": self.working_directory,
            "abandon_after": self.abandon_after,
            "keep_limit": KEEP_LIMIT,
            "meet": dict(self.connection),
            **members,
        }


class Job(Protocol):
    """A host that is somewhere, or on its way there."""

    name: str
    """What it is, in words that follow a verb: ``in job 17 on node2``."""

    node: str | None
    """The machine that it runs on; None while it has none."""

    time_left: float | None
    """Seconds until the engine ends it; None where it has no limit, or none is known."""

    async def connect(self) -> socket.socket:
        """Wait until it runs, and return a new connection to the host: a socket that does not block.

        Cancelling closes what was begun, and leaves the job as it is.

        Raises:
            HostGoneError: It has ended, or cannot ever run; with the reason in words.
            OSError: It cannot be reached now; the text is told to people.
        """

    async def explain(self, ending: Ending | None) -> str:
        """Return why it ended, in half a sentence that follows "its job": ``ran into its time limit of 1:00:00``.

        Empty where the engine knows no more than the host did. Takes a few seconds at most.

        Args:
            ending: What the host told of the kernel's end; None where it could not.
        """

    async def end(self) -> None:
        """See that nothing of it is left, whatever state it is in; one that has ended is no error. Takes a few seconds
        at most; what could not be ended by then is swept later.
        """


class Engine(Protocol):
    """A way to run hosts elsewhere. One of each kind serves all sessions; made by its module's ``open_engine``."""

    kind: str
    """Its name in ``engine.kind``."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        """See that options can be understood.

        Args:
            options: The members of a session's ``engine`` besides ``kind`` and ``profile``.

        Raises:
            EngineError: One cannot; the text names it, and says what it may be.
        """

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return what is wrong with a profile, for ``kcclient engines``: a sentence each; none if it can be used.

        Args:
            options: The profile's.
        """

    async def kernelspecs(self, options: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        """Return the contents of the kernel.json files over there by name; None where the engine cannot tell."""

    def ticket(self, order: Order) -> Ticket:
        """Return what will find the job of an order again."""

    def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AbstractAsyncContextManager[Job]:
        """Submit a job, or find the one that this server or one before has submitted.

        Leaving the block leaves the job as it is; `Job.end` is for its end.

        Args:
            order: What is to run.
            ticket: What finds it.
            tell: Called when it waits, when what is known of that changes, and with None when it waits no longer.
            is_new: Whether it was never submitted. If not, and it is not there, `Job.connect` says so.

        Raises:
            EngineError: It was refused, or can never run; with the engine's words.
        """


@attrs.frozen
class EngineServices:
    """What an engine needs of its server.

    Attributes:
        directory: A private directory, which is there.
        owner: By what jobs of this server are known among others: the same for all servers of a state directory.
        desk: Returns where hosts that dial in are waited for.
            Raises `ConfigurationError` where that was not configured (``--listen-hosts``).
    """

    directory: Path
    owner: str
    desk: Callable[[], Any]
