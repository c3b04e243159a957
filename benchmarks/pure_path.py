"""What a message costs between two sockets, without them: ``python -m benchmarks.pure_path``.

The pure part of a message's way, from the kernel's frames to the bytes for one client, in a loop in this process. Each
step is timed alone as well. CPU time of the fastest round, which noise can only lengthen.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from kallichore.attach.frames import join_small, text_frames
from kallichore.models.bodies import NewSession
from kallichore.session.clients import BATCH_BYTES, BATCH_MESSAGES, Audience, Wish
from kallichore.session.conversation import Conversation
from kallichore.session.overflow_file import OverflowFile
from kallichore.session.replay import Journal
from kallichore.session.status import SessionStatus
from kallichore.wire.client_messages import make
from kallichore.wire.envelope import from_kernel
from kallichore.wire.frames import DELIMITER, split
from kallichore.wire.signing import Signer

MESSAGES = 512
ROUNDS = 60
SIZE = 100


def make_frames(signer: Signer, number: int) -> list[bytes]:
    """Return the frames of a stream message as ipykernel sends it, about 450 bytes."""
    header = {
        "msg_id": f"0b7ba1b8-6e81f5e4b0dc{number:06}_18_31", "msg_type": "stream", "username": "username",
        "session": "0b7ba1b8-6e81f5e4b0dc", "date": "2026-11-24T09:00:00.123456Z", "version": "5.3",
    }  # fmt: skip
    parent = {"msg_id": "request", "msg_type": "execute_request", "session": "c", "date": "", "version": "5.3"}
    content = {"name": "stdout", "text": "x" * SIZE}
    parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
    return [b"stream", DELIMITER, signer.sign(parts), *parts]


class PurePath:
    """One session's pure objects, and what passes through them."""

    def __init__(self) -> None:
        self.signer = Signer("key")
        self.batch = [make_frames(self.signer, number) for number in range(MESSAGES)]
        self.journal = Journal(16 << 20, 0, OverflowFile(), 4 << 20)
        request = NewSession(session_id="s", argv=("kernel",))
        self.conversation = Conversation(request, self.journal, SessionStatus(created=0.0))
        self.conversation.history.begin(make("execute_request", "request", {"code": "print()"}), 0)
        self.slot = Audience(self.journal).attach(Wish())

    def take(self) -> None:
        """From frames to the journal."""
        hear, signer = self.conversation.hear, self.signer
        for frames in self.batch:
            hear(from_kernel("iopub", split(frames, signer)), 0.0, lambda: None)

    def send(self) -> None:
        """From the journal to bytes for a socket."""
        while (batch := self.slot.take_nowait()) is not None:
            list(join_small(text_frames(batch.payloads)))
            self.slot.delivered(batch.next_position)

    def both(self) -> None:
        """The whole way."""
        self.take()
        self.send()


def cost(step: Callable[[], object]) -> float:
    """Return the CPU microseconds a message of ``step``, which handles `MESSAGES` of them."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        step()
        times.append(time.process_time_ns() - began)
    return min(times) / MESSAGES / 1000


def measure() -> dict[str, float]:
    """Return the microseconds a message of each step."""
    path = PurePath()
    signer, batch = path.signer, path.batch
    parts = [split(frames, signer) for frames in batch]
    messages = [from_kernel("iopub", each) for each in parts]
    steps: dict[str, Callable[[], object]] = {
        "split and verify": lambda: [split(frames, signer) for frames in batch],
        "envelope": lambda: [from_kernel("iopub", each) for each in parts],
        "session": lambda: [path.conversation.hear(message, 0.0, lambda: None) for message in messages],
        "history": lambda: [path.conversation.history.hear(message) for message in messages],
        "read": lambda: path.journal.read(path.journal.first, BATCH_BYTES, BATCH_MESSAGES),
    }
    return {name: cost(step) for name, step in steps.items()} | {"all": cost(path.both)}


def main() -> None:
    """Print the costs."""
    for name, microseconds in measure().items():
        print(f"{name:20} {microseconds:6.2f} µs a message")


if __name__ == "__main__":
    main()
