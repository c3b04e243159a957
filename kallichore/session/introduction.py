"""The wait for a kernel to say who it is: asked again and again, until it is heard on shell and on iopub."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from kallichore.conversation.patience import StartPatience
from kallichore.conversation.start_report import NOT_CONNECTED
from kallichore.errors import StartupError
from kallichore.session.pending import Pending
from kallichore.wire.envelope import KernelMessage

logger = logging.getLogger(__name__)

ASK_AGAIN = 1.0
"""Seconds after which a kernel that did not answer kernel_info is asked again, as by jupyter_client: some miss what
comes before they are ready."""

IOPUB_PATIENCE = 0.5
"""Seconds that a kernel which answered kernel_info is given to be heard on iopub too, before it is asked again: a
subscription takes a moment to reach the kernel, and what was published before that is gone."""

IOPUB_ATTEMPTS = 3


@attrs.define(eq=False)
class Introduction:
    """One kernel's introduction.

    Args:
        ask: Sends it a ``kernel_info_request``.
        patience: For how long it may go on without an answer.
    """

    ask: Callable[[], None]
    patience: StartPatience
    _reply: Pending[KernelMessage] = attrs.field(factory=Pending, init=False)
    _heard_on_iopub: trio.Event = attrs.field(factory=trio.Event, init=False)

    def answer(self, reply: KernelMessage) -> None:
        """Take the kernel's answer."""
        self._reply.set(reply)

    def hear_iopub(self) -> None:
        """Note that the kernel is heard on iopub."""
        self._heard_on_iopub.set()

    async def wait(self) -> KernelMessage:
        """Return the kernel's ``kernel_info_reply``, once it was heard on iopub too. Cancelling it leaves nothing.

        Raises:
            StartupError: ``KS-7``, it does not answer, or not so that it could be understood.
        """
        for _ in range(IOPUB_ATTEMPTS):
            reply = await self._ask_until_answered()
            with trio.move_on_after(IOPUB_PATIENCE):
                await self._heard_on_iopub.wait()
            if self._heard_on_iopub.is_set():
                return reply
        logger.warning("The kernel answers on shell, but says nothing on iopub")
        return reply

    async def _ask_until_answered(self) -> KernelMessage:
        self._reply = Pending()
        while True:
            self.ask()
            ask_again_at = trio.current_time() + ASK_AGAIN
            while (now := trio.current_time()) < ask_again_at:
                if now >= self.patience.ends_at:
                    text, reason = self.patience.complaint()
                    raise StartupError("KS-7", text, exit_code=NOT_CONNECTED, reason=reason)
                with trio.move_on_at(min(ask_again_at, self.patience.ends_at)):
                    return await self._reply.wait()
