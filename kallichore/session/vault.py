"""The state directory, as a server uses it: a place for each session that outlives it."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from kallichore.errors import KallichoreError
from kallichore.models.bodies import NewSession
from kallichore.models.converter import unstructure
from kallichore.session.keep import Keep, read_body
from kallichore.state.address import write_address
from kallichore.state.confirmed_page import ConfirmedPage
from kallichore.state.directory import StateDirectory, boot_id, open_state_directory
from kallichore.state.recovery import Recovered, recover
from kallichore.state.session_log import SessionLog
from kallichore.state.session_record import SessionRecord

logger = logging.getLogger(__name__)


@attrs.frozen
class Vault:
    """A state directory that this server has.

    Args:
        directory: The directory.
    """

    directory: StateDirectory

    def make(self, request: NewSession, key: str) -> Keep:
        """Make a place for a new session.

        Args:
            request: What it is created with.
            key: What signs its kernel's messages.

        Raises:
            OSError: It could not be written.
        """
        record = SessionRecord(
            session_id=request.session_id,
            request=unstructure(request),
            key=key,
            secret=secrets.token_hex(32),
            created=time.time(),
            boot_id=boot_id(),
        )
        with self.directory.create(request.session_id) as place:
            record.write(place)
            log, page = SessionLog.create(place), ConfirmedPage(place)
        log.move(self.directory.directory_of(request.session_id))
        return Keep(log.directory, record, log, page)

    def announce(self, address: str, document: dict[str, Any]) -> None:
        """Note where this server is reached: for the next one, and for who finds the directory in use.

        Args:
            address: Where, for people.
            document: The same for the next server; see `kallichore.state.address`.
        """
        try:
            self.directory.announce(address)
            write_address(self.directory.path, document)
        except OSError as error:
            logger.error("Could not write down where this server is reached: %s", error)

    def open_all(self, only: Container[str] | None = None) -> Iterator[tuple[Keep, Recovered, NewSession]]:
        """Yield the place of each session that is there, with what its log has and what it was created with.

        A place that cannot be read stays as it is, and is named in the log.

        Args:
            only: The ids of those that are wanted; None for all. With some, who names them knows which can be read.
        """
        for place in self.directory.sessions():
            try:
                record = SessionRecord.read(place)
                if only is not None and record.session_id not in only:
                    continue
                request = read_body(record.request, NewSession)
                recovered = recover(place)
                keep = Keep(place, record, recovered.log, ConfirmedPage(place))
                keep.check()
            except (KallichoreError, OSError) as error:
                if only is None:
                    logger.error("A session could not be found again, its files stay in %s: %s", place, error)
                continue
            yield keep, recovered, request

    def remove(self, keep: Keep) -> None:
        """Remove a session's place, with all that is in it."""
        self.remove_place(keep.directory)

    def remove_place(self, place: Path) -> None:
        """Remove one of the directories of sessions, with all that is in it."""
        try:
            self.directory.remove_place(place)
        except OSError as error:
            logger.error("Could not remove what a session left behind in %s: %s", place, error)


@contextmanager
def open_vault(path: Path) -> Iterator[Vault]:
    """Take a state directory for this server.

    Raises:
        ConfigurationError: It cannot be used, or another server has it.
    """
    with open_state_directory(path, str(os.getpid())) as directory:
        yield Vault(directory)
