"""A disk that is full: what could not be written is told in words, and nothing else is lost.

The largest file that may be written stands for the disk: a write beyond it is refused likewise, whole or in part.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from abuse import LIMIT, run_victim
from kallichore.client.api_client import ApiError
from kallichore.client.channel_client import open_channel
from kernels import body, execute, is_type, open_client, open_started, text_of

resource = pytest.importorskip("resource")

SMALLEST_JOURNAL = 1 << 16


def limit_files(size: int) -> None:
    """Allow files of this size at most."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Allow this process, and what it starts, files of this size at most, while a block runs."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_files(size)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_undelivered_messages_that_do_not_fit_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A client that comes back is told how many it missed, and gets all that came behind them; the session goes on."""
    async with open_client(journal_memory=SMALLEST_JOURNAL) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        with limited_files(SMALLEST_JOURNAL):
            answer = await client.call("POST", "/sessions/s/execute", {"code": "flood 400 1000"})
        async with open_channel(client.address, "s") as channel:
            first = await channel.receive()
            messages = await execute(channel, "print on")
        status = await client.call("GET", "/status")
    *numbers, said = [text_of([message]).partition(" ")[0] for message in messages if is_type("stream")(message)]

    assert (answer["status"], said) == ("ok", "on\n")
    assert 0 < first["messagesLost"] == status["dropped_messages"]
    assert numbers == [str(number) for number in range(400 - len(numbers), 400)]
    assert "Could not keep undelivered messages in a file" in caplog.text


@pytest.mark.posix_only("kernels end with their server on Windows")
async def test_durable_session_goes_on_and_says_that_it_is_not_kept(private_place: Path) -> None:
    """Its clients, its description and the server's status say why; with space again, what happens is kept again."""
    state = private_place / "state"
    async with (
        open_client(state_directory=state, on_exit="stop") as client,
        open_started(client, body()) as channel,
    ):
        before = await client.call("GET", "/status"), await client.call("GET", "/sessions/s")
        with limited_files(1):
            said = text_of(await execute(channel, "print one"))
            during = await client.call("GET", "/status"), await client.call("GET", "/sessions/s")
        told = await execute(channel, "print two")
        after = await client.call("GET", "/status"), await client.call("GET", "/sessions/s")
    words = [message["output"][1] for message in told if "output" in message]

    assert said == "one\n"
    assert text_of(told) == "two\n"
    assert [str(state)] * 3 == [status["state_directory"] for status, _ in (before, during, after)]
    assert ["ok", "File too large", "ok"] == [status["durability"] for status, _ in (before, during, after)]
    assert [None, "File too large", None] == [session.get("not_kept") for _, session in (before, during, after)]
    assert [True] * 3 == [session["durable"] for _, session in (before, during, after)]
    assert "[kallichore] What happens in this session is kept over a restart of the server again\n" in words


async def test_without_a_state_directory_nothing_is_said_of_it() -> None:
    """The status has neither where sessions are kept nor whether they are, and no session is durable."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        status, session = await client.call("GET", "/status"), await client.call("GET", "/sessions/s")

    assert {"state_directory", "durability"}.isdisjoint(status)
    assert (False, False) == (session["durable"], "not_kept" in session)


async def test_kernel_without_its_file_is_not_started() -> None:
    """The start is refused with the reason, and leaves no part of the file; with space again it succeeds."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body())
        with limited_files(20):
            with pytest.raises(ApiError, match=r"connection file .*File too large") as caught:
                await client.call("POST", "/sessions/s/start")
            files = list(Path(tempfile.gettempdir()).rglob("connection-*"))
        await client.call("POST", "/sessions/s/start")

    assert caught.value.status == 500
    assert files == []


def test_server_without_its_connection_file_ends_in_words(private_place: Path) -> None:
    """A launcher is told why there is no server, and nothing is left behind."""
    command = [sys.executable, "-m", "kallichore.cli.kcserver", "--transport", "tcp", "--connection-file", "kc.json"]
    ended = subprocess.run(
        command, cwd=private_place, preexec_fn=partial(limit_files, 20), capture_output=True, text=True, timeout=LIMIT
    )

    assert ended.returncode == 1
    assert ended.stderr == f"Error: Could not write the connection file {private_place}/kc.json: File too large\n"
    assert os.listdir(private_place) == []


def test_log_that_cannot_be_written_is_told_on_the_console() -> None:
    """Once, however many lines are lost; the server goes on, and so do its kernels."""
    size = 3000
    with run_victim(preexec_fn=partial(limit_files, size), stderr=subprocess.PIPE) as server:
        server.ask("PUT", "/sessions", body())
        server.ask("POST", "/sessions/s/start")
        with server.watched():
            for _ in range(100):
                server.ask("POST", "/server_configuration", {"unknown": 1})
            status, answer = server.ask("POST", "/sessions/s/execute", {"code": "print on"})
        server.ask("POST", "/sessions/s/kill")
        server.wait_kernels()
        log = server.log.read_bytes()
    console = server.process.stderr.read()
    server.process.stderr.close()

    assert (status, json.loads(answer)["status"]) == (200, "ok")
    assert len(log) == size
    assert console == b"Lines are missing in the log file: File too large\n"
