"""What a session that outlives its server has on the disk, and what the next server finds there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import msgspec

from kallichore.conversation.supervision import Phase
from kallichore.engines.beside_host import end_group
from kallichore.engines.registry import Wish
from kallichore.errors import HostGoneError, KallichoreError, StateDamagedError
from kallichore.kernel.ending import ENDED_BY_SIGNAL, Ending
from kallichore.kernel.leftovers import is_own_kernel
from kallichore.models.bodies import ConnectionInfo, RestartSession, VarAction
from kallichore.models.converter import parse_body, unstructure
from kallichore.session.keeper import read_positions, read_sent, read_supervision
from kallichore.state.confirmed_page import ConfirmedPage
from kallichore.state.directory import boot_id
from kallichore.state.session_log import SessionLog
from kallichore.state.session_record import RECORD_NAME, SessionRecord
from kallichore.wire.host_frames import Frame

logger = logging.getLogger(__name__)

TICKET, WISH = "ticket", "wish"
"""The names, among a record's facts, of what finds a job of an engine again, and of what that engine was asked: the
profile that it came from may be another one by now, or none."""


@attrs.define(eq=False)
class Keep:
    """A session's place in the state directory.

    Args:
        directory: Its own directory.
        record: What changes rarely, as it is written there.
        log: What happens in it.
        page: What its clients have.
    """

    directory: Path
    record: SessionRecord
    log: SessionLog
    page: ConfirmedPage

    @property
    def secret(self) -> bytes:
        """What the host of its kernel and the server know of each other."""
        return bytes.fromhex(self.record.secret)

    def check(self) -> None:
        """See that what the record says can be used.

        Raises:
            StateDamagedError: It cannot.
        """
        try:
            bytes.fromhex(self.record.secret)
            self.launched()
        except (KallichoreError, ValueError, TypeError, AttributeError) as error:
            raise StateDamagedError(f"{self.directory / RECORD_NAME} is damaged: {error}") from error

    def note_launch(
        self, actions: Sequence[VarAction], environment: Mapping[str, str], info: ConnectionInfo | None
    ) -> None:
        """Write down with what a kernel is launched. A full disk is a line in the log: the kernel starts all the same.

        Args:
            actions: The session's changes to the environment.
            environment: What became of them.
            info: Where the kernel is to be, if that is known.
        """
        facts = {
            "actions": [unstructure(action) for action in actions],
            # Bytes that are no text are what nobody can be told.
            "environment": {name: value.encode("utf-8", "replace").decode() for name, value in environment.items()},
            "connection": None if info is None else unstructure(info),
        }
        self.record = attrs.evolve(self.record, boot_id=boot_id())
        self.note(facts)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Write down what the next server has to know, by name. A full disk is a line in the log.

        Args:
            facts: What JSON is made of.
        """
        self.record = attrs.evolve(self.record, facts={**self.record.facts, **facts})
        try:
            self.record.write(self.directory)
        except OSError as error:
            logger.error("Could not write down %s, in %s: %s", ", ".join(facts), self.directory, error)

    @property
    def wish(self) -> Wish | None:
        """What an engine was asked for its kernel; None where none was asked."""
        known = self.record.facts.get(WISH)
        return None if known is None else Wish(known["kind"], known["options"])

    def find(self, parts: Mapping[str, bytes]) -> Found:
        """Return what the log's parts and the record say of a supervisor that is gone; what they do not say was not."""
        record, saved = self.record, read_supervision(parts)
        process = saved.get("process")
        this_boot = boot_id()
        return Found(
            phase=Phase.__members__.get(saved.get("phase", ""), Phase.RESTING),
            is_launched=bool(saved.get("is_launched", True)),
            is_adopted=bool(saved.get("is_adopted")),
            attempt=int(saved.get("attempt", 0)),
            process=(int(process[0]), process[1]) if process else None,
            requested_by=saved.get("requested_by"),
            why_culled=saved.get("why_culled", ""),
            is_stopping=bool(saved.get("is_stopping")),
            last_words=saved.get("last_words", ()),
            positions=read_positions(parts),
            sent=read_sent(parts),
            is_elsewhere=TICKET in record.facts,
            was_rebooted=None not in (this_boot, record.boot_id) and this_boot != record.boot_id,
        )

    def launched(self) -> tuple[Sequence[VarAction], dict[str, str], ConnectionInfo | None]:
        """Return what was written down about the latest launch: what `note_launch` was given."""
        facts = self.record.facts
        connection = facts.get("connection")
        return (
            read_body({"env": facts.get("actions", ())}, RestartSession).env or (),
            dict(facts.get("environment", {})),
            None if connection is None else read_body(connection, ConnectionInfo),
        )


@attrs.frozen
class Found:
    """What the next server finds of a supervisor that is gone.

    Args:
        phase: What it was doing.
        is_launched: Whether a kernel of this phase may have been launched.
        is_adopted: Whether somebody else launched the kernel that there is.
        attempt: How many servers were connecting to the kernel before that one.
        process: The kernel's process id, and when it was started.
        requested_by: What asked the kernel to end.
        why_culled: Why it was ended, where nobody used it.
        is_stopping: Whether it was asked to end.
        last_words: What it complained about last.
        positions: Up to where the kernel's bytes were taken in.
        sent: Frames for the kernel that may not have reached its host.
        was_rebooted: Whether the machine was started anew since.
        is_elsewhere: Whether the kernel was on another machine.
    """

    phase: Phase
    is_launched: bool
    is_adopted: bool
    attempt: int
    process: tuple[int, str | None] | None
    requested_by: str | None
    why_culled: str
    is_stopping: bool
    last_words: Sequence[str]
    positions: Mapping[int, int]
    sent: Sequence[Frame]
    was_rebooted: bool
    is_elsewhere: bool = False

    def lives_here(self) -> bool:
        """Return whether the kernel's process is on this machine, and still the one that was noted."""
        pid, started = self.process or (0, None)
        is_here = not self.is_elsewhere and not self.was_rebooted
        return is_here and pid > 0 and started is not None and is_own_kernel(pid, started)

    def end(self, why: HostGoneError) -> Ending:
        """Return how a kernel ended that has no host any more, once nothing is left of it.

        Args:
            why: What is known of that, where the kernel was on another machine.
        """
        pid = 0 if self.process is None else self.process[0]
        if self.is_elsewhere:
            return Ending(pid, ENDED_BY_SIGNAL, lost=f"was lost while no server was there: {why.message}")
        if self.was_rebooted:
            return Ending(pid, ENDED_BY_SIGNAL, lost="ended when the machine was restarted")
        if self.lives_here():
            end_group(pid)
        if not pid:
            return Ending(0, ENDED_BY_SIGNAL, lost="was not there yet when its server was killed")
        text = "ended while no server was there, with the host beside it: somebody killed them, or the machine did"
        return Ending(pid, ENDED_BY_SIGNAL, lost=text)


T = TypeVar("T")


def read_body(document: Any, kind: type[T]) -> T:
    return parse_body(kind, msgspec.json.encode(document))[0]
