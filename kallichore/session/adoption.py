"""The life of a kernel that somebody else launched: it is talked to, and never killed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio

from kallichore.conversation.status import StatusEvent
from kallichore.errors import StartupError
from kallichore.models.bodies import ConnectionInfo
from kallichore.session.life import KernelLife

logger = logging.getLogger(__name__)


async def run_adopted(life: KernelLife, info: ConnectionInfo, when_connected: Callable[[], None]) -> None:
    """Look after a kernel that somebody else launched, until one of its connections is lost.

    Must run shielded, as `KernelLife.run_launched`. A kernel that was asked to stop is left to itself after the grace
    period: it is not ours to kill.

    Args:
        life: The life that is lived.
        info: Where the kernel is.
        when_connected: Called when its sockets are connected.
    """
    # There is no process of ours that could be waited for.
    life.placed.set()
    with life.scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(life.relay, info, when_connected=when_connected))
            nursery.start_soon(_end_adoption_when_asked, life, nursery.cancel_scope)
            with suppress(StartupError):
                await _wait_adopted(life)
                assert life.channels is not None
                await life.channels.wait_any_lost()
                await life.drain()
            nursery.cancel_scope.cancel()
    if life.is_left:
        return
    text = "The connection to the adopted kernel ended"
    if life.is_culled:
        text += f". {life.why_culled}"
        logger.info("[session %s] %s", life.sender.session, text)
        life.conversation.say_output("stderr", f"[kallichore] {text}\n")
    life.conversation.change_status(StatusEvent.EXITED, text, trio.current_time())
    life.conversation.say("exited", 0)
    if not life.started.is_settled:
        life.started.fail(life.failure or StartupError("KS-6", text))
    life.over.set()


async def _wait_adopted(life: KernelLife) -> None:
    """Return when the kernel has answered; raise when it did not."""
    async with trio.open_nursery() as nursery:

        async def give_up() -> None:
            await life.stop_asked.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(give_up)
        await life.started.wait()
        nursery.cancel_scope.cancel()
    if not life.started.is_settled:
        raise StartupError("KS-16", "The adoption was given up")


async def _end_adoption_when_asked(life: KernelLife, scope: trio.CancelScope) -> None:
    await life.stop_asked.wait()
    if life.failure is None and life.is_relaying:
        life.request("shutdown_request", {"restart": life.restarting}, "control")
        with trio.move_on_after(life.facilities.config.shutdown_grace):
            await life.hurry.wait()
    scope.cancel()
