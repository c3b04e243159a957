"""Metrics for Prometheus, and the same counters in the server's status."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from kallichore.client.api_client import ApiClient, ApiError, send_request
from kallichore.client.channel_client import make_execute_request, open_channel
from kallichore.config import ServerConfig
from kallichore.embed import serve
from kallichore.models.bodies import Status
from kernels import (
    REAL_TIME,
    address_of,
    body,
    execute,
    is_kernel,
    is_status,
    open_client,
    open_started,
    receive_until,
)

SMALLEST_JOURNAL = 1 << 16


async def scrape(client: ApiClient) -> dict[str, float]:
    """Return a server's samples: names, with the value of the label where there is one, and values."""
    text = await client.call("GET", "/metrics")
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def flood_alone(client: ApiClient, messages: int, size: int) -> None:
    """Start session ``s`` and have its kernel send messages that are kept, while nobody is connected."""
    await client.call("PUT", "/sessions", body(journal_keep=1))
    await client.call("POST", "/sessions/s/start")
    await client.call("POST", "/sessions/s/execute", {"code": f"flood {messages} {size}"})


async def end(client: ApiClient) -> None:
    """Kill the kernel of session ``s`` and delete the session."""
    await client.call("POST", "/sessions/s/kill")
    with trio.fail_after(REAL_TIME):
        while (await client.call("GET", "/sessions/s"))["status"] != "exited":
            pass
    await client.call("DELETE", "/sessions/s")


async def test_sessions_kernels_and_clients_are_counted() -> None:
    """Every status has its number of sessions, also where that is none; kernels and clients are those of now."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body("other"))
        async with open_started(client, body()) as channel:
            await execute(channel, "print x")
            found = await scrape(client)
            await channel.send(make_execute_request("sleep 60"))
            await receive_until(channel, is_status("busy"))
            busy = await scrape(client)

    expected = {f"kallichore_sessions {status}": 0 for status in Status}
    assert {**expected, "kallichore_sessions uninitialized": 1, "kallichore_sessions idle": 1} == {
        name: found[name] for name in expected
    }
    assert (1, 1) == (found["kallichore_kernels"], found["kallichore_clients"])
    assert (0, 1) == (busy["kallichore_sessions idle"], busy["kallichore_sessions busy"])


async def test_tasks_are_counted() -> None:
    """A session has tasks, which are gone with it."""
    async with open_client() as client:
        # The task of the request before may have ended by now, or not.
        before = max([(await scrape(client))["kallichore_tasks"] for _ in range(10)])
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        during = (await scrape(client))["kallichore_tasks"]
        await end(client)
        with trio.fail_after(REAL_TIME):
            while (await scrape(client))["kallichore_tasks"] > before:
                pass

    assert during > before


async def test_answer_is_text_in_the_format_that_prometheus_asks_for() -> None:
    """The content type names the format and its version; each metric has a type and a sentence."""
    async with open_client() as client:
        answer = await send_request(client.address, "GET", "/metrics")

    lines = answer.body.decode().splitlines()
    assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["content-type"]
    assert "# TYPE kallichore_messages_dropped_total counter" in lines
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == {
        line.split()[2] for line in lines if line.startswith("# HELP") and line.endswith(".")
    }


async def test_metrics_need_the_token() -> None:
    """Nobody reads the metrics without it."""
    async with open_client() as client:
        stranger = ApiClient(type(client.address)(host="127.0.0.1", port=client.address.port))
        with pytest.raises(ApiError, match="token"):
            await stranger.call("GET", "/metrics")


async def test_messages_that_wait_are_counted_where_they_are() -> None:
    """What nobody was sent yet is in memory up to its limit, and beyond that in a file; the status has the sum."""
    async with open_client(journal_memory=SMALLEST_JOURNAL) as client:
        await flood_alone(client, 200, 1000)
        found = await scrape(client)
        status = await client.call("GET", "/status")
        await end(client)
        after = await scrape(client)

    memory, file = found["kallichore_journal_bytes memory"], found["kallichore_journal_bytes file"]
    assert SMALLEST_JOURNAL // 2 < memory <= SMALLEST_JOURNAL
    assert 200 * 1000 < memory + file == status["journal_bytes"]
    assert (0, 0) == (after["kallichore_journal_bytes memory"], after["kallichore_journal_bytes file"])


async def test_bytes_that_wait_to_be_looked_at_are_counted() -> None:
    """What was read of a kernel and not taken apart is in the metrics and the status; with its kernel it is gone."""
    async with serve(ServerConfig()) as server:
        client = ApiClient(address_of(server))
        async with open_started(client, body()) as channel:
            await execute(channel, "print x")
            before = (await scrape(client))["kallichore_unread_bytes"]
            life = server.server.session("s").supervisor.life
            assert life is not None
            assert life.channels is not None
            life.channels.unread.used += 1234
            found = (await scrape(client))["kallichore_unread_bytes"], (await client.call("GET", "/status"))
        await end(client)
        after = (await scrape(client))["kallichore_unread_bytes"]

    assert (0, 1234, 1234, 0) == (before, found[0], found[1]["unread_bytes"], after)


async def test_large_messages_that_a_client_has_read_take_no_file() -> None:
    """However long a client has been there, and so is rarely pinged, what is large is confirmed before more comes."""
    size = 2 << 20
    async with open_client(journal_memory=2 * size) as client, open_started(client, body()) as channel:
        await execute(channel, "flood 1000 1")
        for _ in range(6):
            await execute(channel, f"flood 1 {size}")
        found = await scrape(client)

    assert found["kallichore_journal_bytes file"] == 0


async def test_dropped_messages_stay_counted_when_their_session_is_deleted() -> None:
    """They are those that the client is told of, and a counter never goes back."""
    async with open_client(journal_memory=SMALLEST_JOURNAL, journal_file=0) as client:
        await flood_alone(client, 200, 1000)
        found = await scrape(client)
        status = await client.call("GET", "/status")
        async with open_channel(client.address, "s") as channel:
            told = (await receive_until(channel, is_kernel("messagesLost")))[-1]["messagesLost"]
        await end(client)
        after = await scrape(client)

    assert 100 < told == found["kallichore_messages_dropped_total"] == status["dropped_messages"]
    assert told == after["kallichore_messages_dropped_total"]


@pytest.mark.posix_only("prometheus_client reads what it says of a process from /proc")
async def test_process_is_measured() -> None:
    """CPU time, memory and descriptors are the process's of now, in the metrics and the status alike."""
    async with open_client() as client:
        before, status = await scrape(client), await client.call("GET", "/status")
        with ExitStack() as stack:
            for _ in range(100):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            opened, opened_status = await scrape(client), await client.call("GET", "/status")

    assert before["process_open_fds"] + 90 < opened["process_open_fds"] < before["process_open_fds"] + 110
    assert status["open_descriptors"] + 90 < opened_status["open_descriptors"] < status["open_descriptors"] + 110
    assert 0 < before["process_cpu_seconds_total"] <= opened["process_cpu_seconds_total"]
    assert 1 << 20 < before["process_resident_memory_bytes"]
    assert 0 < before["kallichore_uptime_seconds"] < opened["kallichore_uptime_seconds"]


async def test_servers_of_one_process_have_metrics_of_their_own() -> None:
    """A server counts its own sessions and no others."""
    async with open_client() as first, open_client() as second:
        await first.call("PUT", "/sessions", body("a"))
        await first.call("PUT", "/sessions", body("b"))
        await second.call("PUT", "/sessions", body("a"))
        found = [(await scrape(client))["kallichore_sessions uninitialized"] for client in (first, second, first)]

    assert [2, 1, 2] == found


async def test_status_has_the_counters_without_a_token() -> None:
    """Sessions, clients, bytes, losses and descriptors are in the status, which is open to everybody."""
    async with open_client() as client:
        stranger = ApiClient(type(client.address)(host="127.0.0.1", port=client.address.port))
        empty: dict[str, Any] = await stranger.call("GET", "/status")
        async with open_started(client, body()):
            used: dict[str, Any] = await stranger.call("GET", "/status")

    assert (0, 0, 0, 0) == tuple(empty[name] for name in ("sessions", "clients", "journal_bytes", "dropped_messages"))
    assert (1, 1, 0) == tuple(used[name] for name in ("sessions", "clients", "dropped_messages"))
    assert 0 < used["journal_bytes"]
    if sys.platform != "win32":
        # Nobody lists them there.
        assert empty["open_descriptors"] < used["open_descriptors"]


def test_library_is_not_imported_before_the_first_scrape() -> None:
    """A server that nobody scrapes starts without it."""
    code = "import sys, kallichore.cli.kcserver, kallichore.embed; sys.exit('prometheus_client' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
