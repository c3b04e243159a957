"""Which server a command is for, and which of its sessions: what the options name, or a person chooses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs

from kallichore.cli import escapes
from kallichore.cli.answers import standard_input
from kallichore.cli.ending import WrongUseError, say
from kallichore.client.address import DEFAULT_URL, Address, from_connection_document, from_url
from kallichore.client.api_client import ApiError
from kallichore.client.finding import find_server
from kallichore.client.kallichore_server import KallichoreServer
from kallichore.client.server import NoSuchThingError, Server, Summary
from kallichore.transport.connection_file import read_connection_file

TOKEN_VARIABLE, JUPYTER_TOKEN_VARIABLE = "KALLICHORE_TOKEN", "JUPYTER_TOKEN"


def token_for(url: str | None, token: str | None) -> str | None:
    """Return the token for a URL that has none, of those that the environment has.

    Jupyter's goes to a server that was named only, and not to whoever listens at our usual address.

    Args:
        url: The URL that was given, if one was.
        token: The token that is ours in the environment.
    """
    return token or (None if url is None else os.environ.get(JUPYTER_TOKEN_VARIABLE)) or None


@attrs.frozen
class Target:
    """The server that the options name, if they name one. A connection file counts first; it needs no token.

    Args:
        url: The URL, which may have a token in it.
        connection_file: The connection file.
        token: The token that counts before these two's.
        other_token: The token for a URL that has none.
    """

    url: str | None
    connection_file: Path | None
    token: str | None = attrs.field(default=None, repr=False)
    other_token: str | None = attrs.field(default=None, repr=False)

    @property
    def is_named(self) -> bool:
        """Whether a running server was named."""
        return self.url is not None or self.connection_file is not None

    def address(self) -> Address:
        """Return the server's address; without options, the usual one."""
        if self.connection_file is not None:
            address = from_connection_document(read_connection_file(self.connection_file))
            return address if self.token is None else attrs.evolve(address, token=self.token)
        return from_url(self.url or DEFAULT_URL, self.token, self.other_token)

    async def server(self) -> Server:
        """Return what speaks to the server: by our API, or by Jupyter's if it has only that."""
        return await find_server(self.address())

    async def named_server(self) -> Server | None:
        """Return what speaks to the server if one was named."""
        return await self.server() if self.is_named else None

    async def kallichore(self, what: str) -> KallichoreServer:
        """Return what speaks to the server by our API, for commands that are about what only that has.

        Args:
            what: What that is.

        Raises:
            NoSuchThingError: The server has Jupyter's API only.
        """
        server = await self.server()
        if isinstance(server, KallichoreServer):
            return server
        raise NoSuchThingError(f"{server.address} is a Jupyter server, which has no {what}")


async def choose_session(server: Server, session_id: str | None) -> str:
    """Return the session to act on: the one that was named, the only one, or the one that a person chooses.

    Raises:
        ApiError: There is none.
        WrongUseError: There are several, and nobody to ask.
    """
    if session_id is not None:
        return session_id
    sessions = await server.sessions()
    if not sessions:
        raise ApiError("The server has no sessions; make one with: kcclient start", 404, None)
    if len(sessions) == 1:
        return sessions[0].session_id
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = "\n".join(f"  {_name(session)}" for session in sessions)
        raise WrongUseError(f"The server has {len(sessions)} sessions; say which one is meant, with -s:\n{names}")
    return await _ask_which(sessions)


def _name(session: Summary) -> str:
    return escapes.one_line(f"{session.session_id} ({session.display_name}, {session.status})")


async def _ask_which(sessions: list[Summary]) -> str:
    for number, session in enumerate(sessions, 1):
        say(f"{number:3}  {_name(session)}")
    answers = standard_input(sys.stderr)
    while True:
        answer = await answers.answer({"prompt": f"Which session [1-{len(sessions)}]? "})
        if answer in {str(number) for number in range(1, len(sessions) + 1)}:
            return sessions[int(answer) - 1].session_id
        if any(session.session_id == answer for session in sessions):
            return answer
        if not answer.strip() or not answer.isprintable():
            raise WrongUseError("No session was chosen; -s names one")
