"""What is said with a kernel before a session has it: who it is, what it is told, and what it says by itself."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import trio

from kallichore.session.facilities import new_msg_id, utc_date
from kallichore.session.introduction import ASK_AGAIN
from kallichore.session.warm_recipe import telling_code
from kallichore.wire.channels import Channel
from kallichore.wire.client_messages import Sender, make, to_kernel
from kallichore.wire.envelope import EnvelopeError, KernelMessage
from kallichore.wire.frames import Frames, FramesError
from kallichore.zeromq.kernel_channels import KernelChannels

MOST_KEPT = 1 << 20
"""Bytes of a kernel's messages that are kept until it is taken; of more, the latest."""


@attrs.define(eq=False)
class WarmTalk:
    """A conversation with one kernel. Whoever has requests answered does so one at a time.

    Args:
        channels: The connections to it.
        sender: Who it is told our messages come from.
    """

    channels: KernelChannels
    sender: Sender
    _said: deque[Frames] = attrs.field(factory=deque, init=False)
    _said_bytes: int = attrs.field(default=0, init=False)

    def take_said(self) -> Sequence[Frames]:
        """Return what it published so far, oldest first, but for its statuses, and keep it no longer."""
        said, self._said, self._said_bytes = tuple(self._said), deque(), 0
        return said

    # Requests

    async def introduce(self) -> bool:
        """Ask who it is, again and again until it answers; return whether it is a kernel of Python. Cancelling leaves
        the latest request unanswered.
        """
        while True:
            with trio.move_on_after(ASK_AGAIN):
                language = _content(await self._ask("kernel_info_request", {})).get("language_info")
                return isinstance(language, dict) and language.get("name") == "python"

    async def is_there(self) -> None:
        """Return when it has answered once more. Cancelling leaves the request unanswered."""
        await self._ask("kernel_info_request", {})

    async def tell(self, told: Mapping[str, str]) -> bool:
        """Tell a kernel of Python for whom it works; return whether it has understood. Cancelling leaves that open.

        Args:
            told: The variables that it is to have.
        """
        request = {
            "code": telling_code(told),
            "silent": True,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
        }
        return _content(await self._ask("execute_request", request)).get("status") == "ok"

    def ask_to_end(self) -> None:
        """Ask it to end."""
        self._send("shutdown_request", {"restart": False}, Channel.CONTROL)

    async def _ask(self, msg_type: str, content: Mapping[str, Any]) -> KernelMessage:
        socket, read = self.channels.sockets[Channel.SHELL], self.channels.readers[Channel.SHELL].read
        msg_id = self._send(msg_type, content, Channel.SHELL)
        while True:
            for frames in await socket.receive_batch():
                with suppress(FramesError, EnvelopeError):
                    message = read(frames)
                    if message.parent is not None and message.parent.msg_id == msg_id:
                        return message

    def _send(self, msg_type: str, content: Mapping[str, Any], channel: Channel) -> str:
        message = make(msg_type, new_msg_id(), dict(content), channel)
        self.channels.send(channel, to_kernel(message, self.sender, utc_date()))
        return message.msg_id

    # What it says by itself

    async def keep_what_it_says(self) -> None:
        """Read what it publishes, for ever, so that it never has to wait. Cancelling loses nothing."""
        socket, read = self.channels.sockets[Channel.IOPUB], self.channels.readers[Channel.IOPUB].read
        while True:
            for frames in await socket.receive_batch():
                with suppress(FramesError, EnvelopeError):
                    # A status is about a request, and those so far were ours.
                    if read(frames).header.msg_type != "status":
                        self._keep(frames)

    def _keep(self, frames: Frames) -> None:
        self._said.append(frames)
        self._said_bytes += _size(frames)
        while self._said_bytes > MOST_KEPT:
            self._said_bytes -= _size(self._said.popleft())


def _size(frames: Sequence[bytes]) -> int:
    return sum(map(len, frames))


def _content(message: KernelMessage) -> dict[str, Any]:
    content = json.loads(message.content)
    return content if isinstance(content, dict) else {}
