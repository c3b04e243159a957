"""Which server a command is for, and which of its sessions: what the options name, or a person chooses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import attrs

from kallichore.cli import escapes
from kallichore.cli.answers import standard_input
from kallichore.cli.ending import WrongUseError, say
from kallichore.client.address import DEFAULT_URL, Address, from_connection_document, from_url
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.transport.connection_file import read_connection_file


@attrs.frozen
class Target:
    """The server that the options name, if they name one. A connection file counts first; it needs no token."""

    url: str | None
    connection_file: Path | None
    token: str | None

    @property
    def is_named(self) -> bool:
        """Whether a running server was named."""
        return self.url is not None or self.connection_file is not None

    def address(self) -> Address:
        """Return the server's address; without options, the usual one."""
        if self.connection_file is not None:
            address = from_connection_document(read_connection_file(self.connection_file))
            return address if self.token is None else attrs.evolve(address, token=self.token)
        return from_url(self.url or DEFAULT_URL, self.token)

    def client(self) -> ApiClient:
        """Return a client of the server."""
        return ApiClient(self.address())


async def choose_session(client: ApiClient, session_id: str | None) -> str:
    """Return the session to act on: the one that was named, the only one, or the one that a person chooses.

    Raises:
        ApiError: There is none.
        WrongUseError: There are several, and nobody to ask.
    """
    if session_id is not None:
        return session_id
    sessions = (await client.call("GET", "/sessions"))["sessions"]
    if not sessions:
        raise ApiError("The server has no sessions; make one with: kcclient start", 404, None)
    if len(sessions) == 1:
        return str(sessions[0]["session_id"])
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = "\n".join(f"  {_name(session)}" for session in sessions)
        raise WrongUseError(f"The server has {len(sessions)} sessions; say which one is meant, with -s:\n{names}")
    return await _ask_which(sessions)


def _name(session: dict[str, Any]) -> str:
    return escapes.one_line(f"{session['session_id']} ({session['display_name']}, {session['status']})")


async def _ask_which(sessions: list[dict[str, Any]]) -> str:
    for number, session in enumerate(sessions, 1):
        say(f"{number:3}  {_name(session)}")
    answers = standard_input(sys.stderr)
    while True:
        answer = await answers.answer({"prompt": f"Which session [1-{len(sessions)}]? "})
        if answer in {str(number) for number in range(1, len(sessions) + 1)}:
            return str(sessions[int(answer) - 1]["session_id"])
        if named := [session for session in sessions if session["session_id"] == answer]:
            return str(named[0]["session_id"])
        if not answer.strip() or not answer.isprintable():
            raise WrongUseError("No session was chosen; -s names one")


def session_members(timeout: int, directory: str | None = None) -> dict[str, Any]:
    """Return what a new session has besides its kernel: it starts here, and may take ``timeout`` seconds, 0 for any.

    Args:
        timeout: Seconds.
        directory: Where its kernel is to start; None for the current directory.
    """
    if directory is None:
        try:
            directory = os.getcwd()
        except OSError as error:
            say(f"The current directory is gone or closed ({error.strerror}); the kernel starts elsewhere")
            directory = os.path.expanduser("~")
    return {"working_directory": directory, "connection_timeout": timeout or -1}
