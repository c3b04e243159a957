"""What a message costs between two sockets, without them: ``python -m benchmarks.pure_path``.

The pure part of a message's way, from the kernel's frames to the bytes for one client, in a loop in this process. Each
step is timed alone as well. CPU time of the fastest round, which noise can only lengthen.

``--check`` is a guard: it fails if a step costs twice what it did when `STORED` was written. A count of instructions
would be steadier, but neither CI's machines nor ours let one be taken; so the unit is a loop in plain Python that runs
in turns with the steps, and a slower machine is slower at both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable

from kallichore.attach.frames import join_small, text_frames
from kallichore.conversation.conversation import Conversation
from kallichore.conversation.journal import Journal
from kallichore.conversation.status import SessionStatus
from kallichore.conversation.voice import Voice
from kallichore.models.bodies import NewSession
from kallichore.session.clients import Audience, Wish
from kallichore.session.overflow_file import OverflowFile
from kallichore.wire.client_messages import make
from kallichore.wire.envelope import KernelMessage, KernelReader
from kallichore.wire.frames import DELIMITER
from kallichore.wire.signing import Signer
from kallichore.wire.zmtp import Decoder, encode, opening
from kallichore.zeromq.unread import PIECE

MESSAGES = 512
ROUNDS = 60
SIZE = 100

MARGIN = 2.0

STORED = {"decode": 1.2, "read": 2.0, "session": 0.9, "history": 0.5, "send": 0.3, "all": 4.0}
"""What each step cost, in the time that a pass of `calibrate` takes, with CPython 3.11. Renew it with reason."""


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
        signer = Signer("key")
        data = b"".join(piece for number in range(MESSAGES) for piece in encode(make_frames(signer, number)))
        self.reads = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        self.decoder = Decoder()
        self.decoder.feed(opening("PUB"))
        self.reader = KernelReader("iopub", signer)
        self.journal = Journal(16 << 20, 0, OverflowFile(), 4 << 20)
        request = NewSession(session_id="s", argv=("kernel",))
        voice = Voice(self.journal, lambda: None)
        self.conversation = Conversation(request, voice, SessionStatus(created=0.0), lambda msg_type: {})
        self.conversation.sent(make("execute_request", "request", {"code": "print()"}), 0)
        self.slot = Audience(self.journal).attach(Wish())

    def decode(self) -> list[list[bytes]]:
        """From what reads bring to frames."""
        return [frames for data in self.reads for frames in self.decoder.feed(data)]

    def hear(self, messages: Iterable[KernelMessage]) -> None:
        """From messages to the journal."""
        hear = self.conversation.hear
        self.conversation.begin_hearing(0.0, is_output=True)
        for message in messages:
            hear(message, 0.0, lambda: None)
        self.conversation.voice.end_batch()

    def send(self) -> None:
        """From the journal to bytes for a socket."""
        while (batch := self.slot.take_nowait()) is not None:
            join_small(text_frames(batch.payloads))
            self.slot.delivery.give(batch.next_position)
            self.slot.deliveries.pong(self.slot.delivery, self.slot.delivery.ping(batch.next_position))

    def all(self) -> None:
        """The whole way."""
        self.hear(map(self.reader.read, self.decode()))
        self.send()


def calibrate() -> int:
    """Do what the steps do, in a loop that never changes: small objects, dicts, bytes, calls, a digest."""
    size = 0
    for number in range(MESSAGES):
        header = {"msg_id": str(number), "msg_type": "stream"}
        parts = [value.encode() for value in header.values()]
        joined = b",".join([*parts, b"x" * SIZE])
        size += len(joined) + len(hashlib.sha256(joined).digest()) + sum(map(len, parts))
    return size


def measure() -> dict[str, float]:
    """Return the CPU microseconds a message of each step, and of the calibration as ``unit``."""
    path, whole = PurePath(), PurePath()
    batch = path.decode()
    messages = [path.reader.read(frames) for frames in batch]
    steps: dict[str, Callable[[], object]] = {
        "decode": path.decode,
        "read": lambda: [path.reader.read(frames) for frames in batch],
        "session": lambda: path.hear(messages),
        "history": lambda: [path.conversation.history.hear(message) for message in messages],
        "send": path.send,
        "all": whole.all,
        "unit": calibrate,
    }
    costs = dict.fromkeys(steps, float("inf"))
    # In turns, so that each has its share of the moments in which the machine has nothing else to do.
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.process_time_ns()
            step()
            costs[name] = min(costs[name], (time.process_time_ns() - began) / MESSAGES / 1000)
    return costs


def beyond(costs: dict[str, float]) -> list[str]:
    """Return the steps that cost more than `MARGIN` times what is stored."""
    return [name for name, stored in STORED.items() if costs[name] > MARGIN * stored * costs["unit"]]


def main() -> int:
    """Print the costs, and return 1 if one is to be checked and beyond what is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pure_path", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if a step costs twice what it did")
    options = parser.parse_args()
    costs = measure()
    slow = beyond(costs)
    for name, microseconds in costs.items():
        stored = f"; {microseconds / costs['unit']:.2f} units, stored {STORED[name]:.2f}" if name in STORED else ""
        print(f"{name:16} {microseconds:6.2f} µs a message{stored}{' TOO MUCH' if name in slow else ''}")
    return 1 if options.check and slow else 0


if __name__ == "__main__":
    sys.exit(main())
