"""The client of a session: who it is, what it has been sent, and when it has to leave.

A session has one client at a time; a newer one displaces it. The slot is the contract between a session and whatever
carries its messages away: a WebSocket, or somebody in this process. It reads the journal at its own pace; the journal,
not the slot, is where messages wait, so a slow client holds up nobody and a client that is gone has lost nothing that
was not delivered.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from kallichore.session.replay import Batch, Journal

BATCH_BYTES = 1 << 18
"""Bytes handed to a client at a time: enough that one send carries hundreds of small messages, little enough that a
send that fails repeats little to the next client."""

BATCH_MESSAGES = 1024


@attrs.define(eq=False)
class ClientSlot:
    """One client's place at a session.

    Args:
        journal: What the session has to say.
        socket_path: The Unix socket that the client came through, if any.
        older: The client that this one displaced: what is on its way to it has to be settled first.
    """

    journal: Journal
    socket_path: str | None = None
    older: ClientSlot | None = None
    finished: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when nothing more is sent to this client."""
    leaving: str | None = attrs.field(default=None, init=False)
    """Why this client has to leave, once it has to."""
    displaced: bool = attrs.field(default=False, init=False)
    """Whether it has to leave because a newer client came."""
    on_displaced: Callable[[], None] | None = attrs.field(default=None, init=False)
    """Called when a newer client came: puts a bound on a send that may never end."""
    _parked: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def wake(self) -> None:
        """Let the client look again: the journal grew, or it has to leave."""
        self._parked.unpark_all()

    def leave(self, reason: str, *, displaced: bool = False) -> None:
        """Ask the client to leave."""
        self.leaving = self.leaving or reason
        if displaced and not self.displaced:
            self.displaced = True
            if self.on_displaced is not None:
                self.on_displaced()
        self.wake()

    async def wait_woken(self) -> None:
        """Wait for the next `wake`. Cancelling changes nothing."""
        await self._parked.park()

    def take_nowait(self) -> Batch | None:
        """Return what is to be sent next, or None. It counts as delivered only with `delivered`.

        A client that was displaced gets nothing more; one that has to leave for another reason gets what is there
        first.
        """
        if self.displaced or not self.journal.has_undelivered:
            return None
        return self.journal.read(self.journal.released, BATCH_BYTES, BATCH_MESSAGES)

    def delivered(self, position: int) -> None:
        """Note that the messages before ``position`` were sent, so that no later client gets them again."""
        self.journal.release(position)

    async def wait_turn(self) -> None:
        """Wait until the client that this one displaced has been sent its last message."""
        if self.older is not None:
            await self.older.finished.wait()
            self.older = None
