"""Front ends at their kernels' channels: who they are, what they asked, and where they go on when they come back.

A front end names itself by a ``session_id``. It has one WebSocket at a time: a newer one takes its place from the
moment its request arrives, and begins where the one before ended. What is said meanwhile is kept for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from weakref import WeakKeyDictionary

import attrs
import trio

from kallichore.attach.websocket import serve_websocket
from kallichore.config import ServerConfig
from kallichore.conversation.delivery import Delivery, Ending as Leaving
from kallichore.errors import KallichoreError
from kallichore.jupyter.dialect import Asked, JupyterDialect
from kallichore.jupyter.models import JupyterError
from kallichore.models.bodies import Status
from kallichore.session.clients import Attendance, ClientSlot, Wish
from kallichore.session.facilities import new_msg_id, utc_date
from kallichore.session.session import Session
from kallichore.transport.request_head import RequestHead
from kallichore.wire.client_messages import ClientMessage, kernel_message
from kallichore.wire.jupyter_frames import V1

KEPT_FOR = 24 * 3600.0
"""Seconds for which messages are kept for a front end that is gone; the journal's own limits hold as well."""

MOST_KEPT = 16
"""Front ends of one kernel for whom messages are kept: each page that is loaded anew is another one."""


@attrs.define(eq=False)
class _Visit:
    """One WebSocket of a front end, from its request on."""

    waiting: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """For the kernel to be there."""
    slot: ClientSlot | None = attrs.field(default=None, init=False)
    over: trio.Event = attrs.field(factory=trio.Event, init=False)
    is_displaced: bool = attrs.field(default=False, init=False)

    def give_way(self) -> None:
        """Let a newer one take this one's place."""
        self.is_displaced = True
        self.waiting.cancel()
        if self.slot is not None:
            self.slot.leave("This front end connected anew", displaced=True)


@attrs.define(eq=False)
class _FrontEnd:
    """One front end of one kernel."""

    asked: Asked = attrs.field(factory=Asked, init=False)
    visit: _Visit | None = attrs.field(default=None, init=False)
    position: int | None = attrs.field(default=None, init=False)
    """The number of the first message that it does not have; None before its first visit."""
    kept: Delivery | None = attrs.field(default=None, init=False)
    """Keeps what is said while it is away."""
    left_at: float = attrs.field(default=0, init=False)


@attrs.define(eq=False)
class FrontEnds:
    """Those of one server.

    Args:
        config: The server's settings.
    """

    config: ServerConfig
    _known: WeakKeyDictionary[Session, dict[str, _FrontEnd]] = attrs.field(factory=WeakKeyDictionary, init=False)

    async def serve(
        self, session: Session, stream: trio.abc.Stream, request: RequestHead, surplus: bytes
    ) -> JupyterError | None:
        """Serve a front end's WebSocket; closes the stream.

        It is opened once the kernel is there. Cancelling closes it at once.

        Args:
            session: The kernel's session.
            stream: The connection, its request head already read.
            request: The head; it has a ``sec-websocket-key``.
            surplus: What came behind it.

        Returns:
            Why there is no WebSocket, as the kernel did not start, or a newer one came first; then the stream is as it
            was.
        """
        front_ends = self._known.setdefault(session, {})
        self._let_go(session, front_ends)
        session_id = request.query.get("session_id") or str(uuid.uuid4())
        front_end = front_ends.setdefault(session_id, _FrontEnd())
        older, visit = front_end.visit, _Visit()
        front_end.visit = visit
        try:
            with visit.waiting:
                if older is not None:
                    older.give_way()
                    await older.over.wait()
                try:
                    await session.wait_ready()
                except KallichoreError as error:
                    return JupyterError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
            if visit.is_displaced:
                return JupyterError(HTTPStatus.CONFLICT, "This front end has connected anew meanwhile")
            await self._serve(session, front_end, visit, session_id, stream, request, surplus)
            return None
        finally:
            visit.over.set()
            if front_end.visit is visit:
                front_end.visit = None

    async def _serve(
        self,
        session: Session,
        front_end: _FrontEnd,
        visit: _Visit,
        session_id: str,
        stream: trio.abc.Stream,
        request: RequestHead,
        surplus: bytes,
    ) -> None:
        offered = {each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",")}
        dialect = JupyterDialect(
            is_v1=V1 in offered,
            takes_buffers=_takes_buffers(request),
            asked=front_end.asked,
            is_dead=lambda: session.status is Status.EXITED and not session.is_changing,
            write_header=session.conversation.write_header,
            buffers_of=session.conversation.buffers_of,
        )
        since = session.conversation.journal.end if front_end.position is None else front_end.position
        attend = partial(self._attend, session, front_end, visit, session_id)
        wish = Wish(Attendance.SHARE, since)
        await serve_websocket(session, stream, request, surplus, self.config, wish, dialect=dialect, attend=attend)

    @contextmanager
    def _attend(
        self, session: Session, front_end: _FrontEnd, visit: _Visit, session_id: str, slot: ClientSlot
    ) -> Iterator[None]:
        """Note where a front end is, and when it leaves keep what comes for it."""
        visit.slot = slot
        if front_end.kept is not None:
            slot.deliveries.end(front_end.kept, Leaving.CUT)
            front_end.kept = None
        if visit.is_displaced:
            visit.give_way()
        elif session.status is Status.IDLE and slot.delivery.given == session.conversation.journal.end:
            session.send(_nudge(session_id))
        elif session.status is Status.EXITED:
            last_exit = session.conversation.last_exit
            reason = None if last_exit is None else last_exit.text
            slot.tell(kernel_message("status", {"status": "exited", "reason": reason}))
        try:
            yield
        finally:
            # Libraries drop what comes while they close: what is not confirmed comes again, rather than not at all.
            slot.ending = Leaving.CUT
            front_end.kept = slot.deliveries.begin(speaks=False, since=slot.delivery.confirmed)
            front_end.left_at = trio.current_time()
            slot.on_settled = partial(_settle, front_end)

    def _let_go(self, session: Session, front_ends: dict[str, _FrontEnd]) -> None:
        """Forget front ends that have been away for long, and the oldest of too many."""
        away = sorted(
            (name for name, each in front_ends.items() if each.visit is None), key=lambda name: front_ends[name].left_at
        )
        for count, name in enumerate(away):
            front_end = front_ends[name]
            if len(away) - count > MOST_KEPT or trio.current_time() > front_end.left_at + KEPT_FOR:
                del front_ends[name]
                if front_end.kept is not None:
                    session.audience.deliveries.end(front_end.kept, Leaving.CUT)


def _settle(front_end: _FrontEnd, delivery: Delivery) -> None:
    """Note what a front end has after all: what it closed behind, say."""
    front_end.position = delivery.confirmed
    if front_end.kept is not None:
        front_end.kept.began = front_end.kept.given = front_end.kept.confirmed = delivery.confirmed


def _takes_buffers(request: RequestHead) -> bool:
    """Tell whether a client can read binary frames of the default framing.

    A gateway's and jupyter_client's own readers end at the first, without a word, and their front end hears nothing
    any more. The former is Tornado's client without cookies, the latter names no session.
    """
    is_gateway = request.headers.get("user-agent", "").startswith("Tornado/") and "cookie" not in request.headers
    return not is_gateway and "session_id" in request.query


def _nudge(session_id: str) -> ClientMessage:
    """Return the question that Jupyter's servers ask, so that what the kernel publishes shows that it is there."""
    msg_id = new_msg_id()
    header = {
        "msg_id": msg_id,
        "msg_type": "kernel_info_request",
        "session": session_id,
        "username": "kallichore",
        "date": utc_date(),
        "version": "5.3",
    }
    return ClientMessage(msg_id, "kernel_info_request", "shell", header, None, b"{}", keeps_header=True)
