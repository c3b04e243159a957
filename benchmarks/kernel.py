"""The tests' scripted kernel with more commands. Messages are made and signed beforehand, so that this is no brake.

``prepare display SIZE`` makes a display_data whose image has SIZE characters, ``prepare blob SIZE`` one with a buffer
of SIZE bytes; ``publish`` sends it, ``publish COUNT`` so often in a row. ``tick RATE SECONDS`` prints so many small
messages a second. ``rush SECONDS FILE`` prints as fast as it can until it is interrupted, and writes into the file when
that was.
"""

from __future__ import annotations

import base64
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from scripted_kernel import COMMANDS, Interrupted, Kernel, main  # only now is it found


def prepare(kernel: Kernel, text: str) -> None:
    """Make a large message. Its payload is noise, as a compressed image is."""
    kind, size = text.split()
    noise = random.Random(0).randbytes(int(size))  # noqa: S311  # nothing is hidden by it
    # base64 makes four characters of three bytes.
    image = base64.b64encode(noise[: len(noise) * 3 // 4]).decode() if kind == "display" else ""
    parts = kernel.parts("display_data", {"data": {"image/png": image}, "metadata": {}})
    kernel.prepared = [b"display_data", *kernel.frames(parts, [noise] if kind == "blob" else [])]


def publish(kernel: Kernel, text: str) -> None:
    """Send the large message, so often in a row."""
    for _ in range(int(text or 1)):
        kernel.iopub.send_multipart(kernel.prepared, copy=False)


def small(kernel: Kernel) -> list[bytes]:
    """Make a small message."""
    return [b"stream", *kernel.frames(kernel.parts("stream", {"name": "stdout", "text": "x" * 100}))]


def tick(kernel: Kernel, text: str) -> None:
    """Print at a steady pace; requests on the control channel are answered meanwhile."""
    rate, seconds = map(float, text.split())
    frames = small(kernel)
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        kernel.iopub.send_multipart(frames)
        while (left := began + (number + 1) / rate - time.monotonic()) > 0:
            # Rounded up: with what is left below a millisecond poll() would not wait at all.
            if kernel.control.poll(math.ceil(left * 1000)):
                kernel.on_control()


def rush(kernel: Kernel, text: str) -> None:
    """Flood, and look at the control channel every hundred messages; end after a while also if nobody interrupts."""
    seconds, _, file = text.partition(" ")
    frames = small(kernel)
    deadline = time.monotonic() + float(seconds)
    while not kernel.interrupted and time.monotonic() < deadline:
        for _ in range(100):
            kernel.iopub.send_multipart(frames)
        if kernel.control.poll(0):
            kernel.on_control()
    Path(file).write_text(f"{time.monotonic()}\n")
    if kernel.interrupted:
        raise Interrupted("interrupted")


COMMANDS |= {"prepare": prepare, "publish": publish, "rush": rush, "tick": tick}

if __name__ == "__main__":
    main()
