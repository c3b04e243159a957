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

MARGIN = 2.0

STORED = {"split and verify": 1.50, "envelope": 1.07, "session": 0.97, "history": 0.53, "read": 0.07, "all": 4.32}
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
    signer, batch = path.signer, path.batch
    parts = [split(frames, signer) for frames in batch]
    messages = [from_kernel("iopub", each) for each in parts]
    steps: dict[str, Callable[[], object]] = {
        "split and verify": lambda: [split(frames, signer) for frames in batch],
        "envelope": lambda: [from_kernel("iopub", each) for each in parts],
        "session": lambda: [path.conversation.hear(message, 0.0, lambda: None) for message in messages],
        "history": lambda: [path.conversation.history.hear(message) for message in messages],
        "read": lambda: path.journal.read(path.journal.first, BATCH_BYTES, BATCH_MESSAGES),
        "all": whole.both,
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
