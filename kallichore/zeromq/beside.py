"""Work in a thread while this one does something else. It pays for what lets go of the interpreter, as hashing does."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def begin(work: Callable[[], T]) -> Callable[[], T]:
    """Begin to do something in a thread.

    Args:
        work: What is done; it raises nothing.

    Returns:
        What waits for it and returns what came of it. By then the thread is gone; so it has to be called.
    """
    found: list[T] = []
    thread = Thread(target=lambda: found.append(work()), name="beside", daemon=True)
    try:
        # Comes back when the thread lets go of the interpreter: it is at work by then.
        thread.start()
    except RuntimeError:
        # The system has no thread to spare.
        return work

    def wait() -> T:
        thread.join()
        return found[0]

    return wait
