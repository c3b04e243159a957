"""Work in a thread: what comes of it is what would have come of it here, and no thread is left."""

from __future__ import annotations

import threading

import pytest

from kallichore.zeromq.beside import begin


def test_work_is_done_in_another_thread_which_is_gone_afterwards() -> None:
    """Who waits for it gets what came of it."""
    before = threading.active_count()
    wait = begin(threading.current_thread)

    assert wait() is not threading.current_thread()
    assert threading.active_count() == before


def test_work_is_done_here_where_there_is_no_thread_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says so when one is started."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert begin(threading.current_thread)() is threading.current_thread()
