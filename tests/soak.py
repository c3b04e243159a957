"""A soak: sessions live and die in every way for minutes, and afterwards nothing of them may be left.

``python tests/soak.py [--seconds 600]`` runs two kcservers, one on TCP and one on a Unix socket. Against each, a few
workers go through cycles: create, start, connect, execute, flood, drop the connection, come back, interrupt, restart,
kill, delete; most with scripted kernels, some with the Python kernel. Every cycle also checks what it is told. Now and
then all workers pause, and descriptors, tasks, threads, processes, files and memory of the server are compared with
those after a warm-up.

Prints a line for each look; a leak, a server's error or a cycle that fails is a line more, and exit code 1. It is no
test of pytest's because of its length: `nox -s soak` runs it whole, and .ci/run for less than a minute.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import psutil
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, open_channel
from kallichore.client.websocket import ChannelClosedError
from kallichore.transport.connection_file import read_connection_file
from kernels import body, ipykernel_argv, is_idle, is_type, receive_until, run_code
from returning_client import ReturningClient, has_all

WORKERS = 2
"""Cycles at a time against each server: kernels that start keep two cores busy."""

REAL_EVERY = 12
"""One cycle in so many has the Python kernel, which takes ten times as long to start."""

LOOKS = 6
"""How often all pause and the servers are looked at; the first look is after the warm-up, and what is to be kept."""

WARM_UP = 0.4
"""The part of the time after which the first look comes: each worker has loaded and grown what it uses."""

CYCLE_LIMIT = 120.0
"""Seconds after which a cycle has failed."""

PATIENCE = 20.0
"""Seconds that a server gets to be back where it was: threads that idle end after ten."""

GROWTH = 24e6
"""Bytes that a server may grow by after the warm-up. It comes to rest where the floods of some sessions at a time have
left their fragments, 20 MB above an idle start; every other cycle has a flood of 1 MB, which would stay with a leak."""

FLOOD = 2000
"""Messages of a flood; more than ipykernel's own queue takes."""

REFUSAL = re.compile(r"\[ERROR\] KS-(3|4|8|12|14):")
"""Answers that are asked for here: to kill what is not there (any more), and to start what does not come to life."""


@attrs.frozen
class Look:
    """What a server has at one moment. All but the memory has to be what it was."""

    descriptors: int
    threads: int
    processes: int
    files: int
    tasks: int
    sessions: int
    clients: int
    journal_bytes: int
    memory: int = attrs.field(eq=False)

    @property
    def is_quiet(self) -> bool:
        """Whether no session is left."""
        return self.sessions == self.clients == self.journal_bytes == 0

    @classmethod
    def of_all(cls, looks: Sequence[Look], choose: Callable[[Sequence[int]], int]) -> Look:
        """Return the least, or the most, of everything that was seen."""
        return cls(*map(choose, zip(*map(attrs.astuple, looks), strict=True)))

    def leaks(self, before: Look) -> list[str]:
        """Return what there is more of than before, in words."""
        now, then = attrs.asdict(self), attrs.asdict(before)
        counts = [name for name in now if name != "memory"]
        more = [f"{now[name]} {name}, before {then[name]}" for name in counts if now[name] > then[name]]
        if self.memory - before.memory > GROWTH:
            more.append(f"{self.memory / 1e6:.1f} MB of memory, before {before.memory / 1e6:.1f}")
        return more

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.tasks} tasks, {self.threads} threads, {self.processes} processes, "
            f"{self.files} files, {self.memory / 1e6:.1f} MB"
        )


@attrs.define(eq=False)
class Server:
    """A kcserver under test."""

    name: str
    process: psutil.Process
    client: ApiClient
    place: Path
    cycles: int = 0
    first: Look | None = None

    async def look(self) -> Look:
        """Look at the server."""
        status = await self.client.call("GET", "/status")
        metrics = (await self.client.call("GET", "/metrics")).splitlines()
        (tasks,) = (float(line.split()[1]) for line in metrics if line.startswith("kallichore_tasks "))
        with self.process.oneshot():
            return Look(
                descriptors=self.process.num_fds(),
                threads=self.process.num_threads(),
                processes=len(self.process.children(recursive=True)) + len(self._strays()),
                files=sum(len(files) + len(folders) for _, folders, files in os.walk(self.place)),
                tasks=int(tasks),
                sessions=status["sessions"],
                clients=status["clients"],
                journal_bytes=status["journal_bytes"],
                memory=self.process.memory_info().rss,
            )

    def _strays(self) -> list[int]:
        """Return the processes that have the server's private directory from it and are not below it any more."""
        mark, strays = f"TMPDIR={self.place}\0".encode(), []
        below = {self.process.pid, *(child.pid for child in self.process.children(recursive=True))}
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and int(name) not in below and mark in Path("/proc", name, "environ").read_bytes():
                    strays.append(int(name))
        return strays

    def errors(self) -> list[str]:
        """Return what the server complained about, tracebacks with it."""
        texts = [(self.place / name).read_text() for name in ("log", "stderr")]
        # What is logged is on standard error too, without what follows the first line.
        records = {record for text in texts for record in re.split(r"^(?=\d\d:\d\d:\d\d )", text, flags=re.MULTILINE)}
        return sorted(
            record.strip()
            for record in records
            if ("[ERROR]" in record and not REFUSAL.search(record)) or "Traceback" in record
        )


@asynccontextmanager
async def run_server(transport: str) -> AsyncIterator[Server]:
    """Run a kcserver with a private directory for everything that it makes."""
    with tempfile.TemporaryDirectory(prefix="ks-", dir="/tmp") as directory:
        place = Path(directory)
        file = place / "connection.json"
        options = ["--transport", transport, "--connection-file", str(file), "--log-file", str(place / "log")]
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "XDG_RUNTIME_DIR", "JUPYTER_RUNTIME_DIR"), directory)}
        with (place / "stderr").open("wb") as stderr:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "kallichore.cli.kcserver", *options],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        try:
            while not file.exists():  # noqa: ASYNC110  # nobody tells
                assert process.poll() is None, "kcserver ended"
                await trio.sleep(0.01)
            client = ApiClient(from_connection_document(read_connection_file(file)))
            yield Server(transport, psutil.Process(process.pid), client, place)
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                await process.wait()


# What happens to a session


@attrs.define(eq=False)
class Visit:
    """One session of a cycle."""

    server: Server
    session_id: str
    chance: random.Random
    is_scripted: bool

    async def call(self, method: str, operation: str = "", body: object = None) -> Any:
        """Call an operation on the session."""
        return await self.server.client.call(method, session_path(self.session_id, operation), body)

    def code(self, text: str) -> str:
        """Return code that prints some text."""
        return f"print {text}" if self.is_scripted else f"print({text!r})"

    async def describe(self) -> dict[str, Any]:
        """Return what the server says of the session."""
        session: dict[str, Any] = await self.call("GET")
        return session

    async def wait_exited(self) -> None:
        """Wait until the session has no kernel."""
        while (await self.describe())["status"] != "exited":  # noqa: ASYNC110  # a server is asked
            await trio.sleep(0.01)

    async def execute(self, channel: ChannelClient) -> None:
        """Run code and hear what it prints."""
        text = await run_code(channel, self.code("hello"))
        assert "hello\n" in text, text

    async def execute_in_one_call(self, _: ChannelClient) -> None:
        """Run code over HTTP."""
        result = await self.call("POST", "execute", {"code": self.code("hello")})
        assert "hello" in str(result), result

    async def interrupt(self, channel: ChannelClient) -> None:
        """Interrupt what would take a minute, with something waiting behind it."""
        code = "sleep 60" if self.is_scripted else "import time; time.sleep(60)"
        msg_id = await channel.send(make_execute_request(f"{self.code('on')}\n{code}"))
        # Not before it runs: an interrupt that comes as it begins is lost in the Python kernel.
        await receive_until(channel, is_type("stream", msg_id))
        await channel.send(make_execute_request(self.code("never")))
        await self.call("POST", "interrupt")
        await receive_until(channel, is_idle(msg_id))

    async def restart(self, _: ChannelClient) -> None:
        """Restart the kernel."""
        await self.call("POST", "restart")

    async def die_and_restart(self, _: ChannelClient) -> None:
        """Have the kernel killed from outside, and start it again."""
        os.kill((await self.describe())["process_id"], signal.SIGKILL)
        await self.wait_exited()
        await self.call("POST", "restart")

    async def ask_and_leave(self, channel: ChannelClient) -> None:
        """Leave a question of the kernel open, and interrupt what asked it."""
        msg_id = await channel.send(make_execute_request("input name?" if self.is_scripted else "input('name?')"))
        await receive_until(channel, is_type("input_request", msg_id))
        if self.is_scripted:
            await channel.send(_answer(msg_id))
        else:
            await self.call("POST", "interrupt")
        await receive_until(channel, is_idle(msg_id))

    async def spawn(self, channel: ChannelClient) -> None:
        """Have the kernel start a process that outlives it, unless somebody ends it."""
        code = "spawn 600" if self.is_scripted else "import os; os.system('sleep 600 &')"
        await run_code(channel, code)

    async def come_back_during_a_flood(self) -> None:
        """Drop the connection in the middle of a flood, come back with a number, and have every message once."""
        code = f"flood {FLOOD} 100" if self.is_scripted else f"for n in range({FLOOD}): print(n, flush=True)"
        client = await self._returning()
        await client.visit(has_all)
        first = client.last
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.call, "POST", "execute", {"code": code + "\nprint flood-end" * self.is_scripted})
            for _ in range(self.chance.randrange(1, 5)):
                enough = client.last + self.chance.randrange(1, FLOOD // 10)
                await client.visit(lambda client, enough=enough: client.last >= enough)
        await client.visit(has_all)
        expected = list(range(1, client.last + 1))
        assert client.last > first + 20, "no flood"
        assert client.numbers == expected, f"{len(client.numbers)} messages of {client.last}"

    async def _returning(self) -> ReturningClient:
        address = self.server.client.address
        if address.socket_path is None:
            return ReturningClient(address, session_path(self.session_id, "channels"))
        path = await self.call("GET", "channels")
        return ReturningClient(
            attrs.evolve(address, socket_path=path), f"/api/channels/{quote(self.session_id, safe='')}"
        )

    # How it ends

    async def kill(self) -> None:
        """Kill the kernel."""
        await self.call("POST", "kill")

    async def shut_down(self) -> None:
        """Ask the kernel to shut down, as clients do."""
        async with open_channel(self.server.client.address, self.session_id) as channel:
            message = make_execute_request("")
            message["header"]["msg_type"] = "shutdown_request"
            await channel.send({**message, "channel": "control", "content": {"restart": False}})
            with suppress(ChannelClosedError):
                # However long that takes: the Python kernel waits up to half a minute for what it has started.
                while "exited" not in await channel.receive():
                    pass

    async def be_killed(self) -> None:
        """Have the kernel killed from outside."""
        os.kill((await self.describe())["process_id"], signal.SIGKILL)


def _answer(msg_id: str) -> dict[str, object]:
    message = make_execute_request("")
    message["header"]["msg_type"] = "input_reply"
    return {**message, "channel": "stdin", "content": {"value": "Ada", "status": "ok"}, "parent_header": None}


ACTS: list[Callable[[Visit, ChannelClient], Awaitable[None]]] = [
    Visit.execute,
    Visit.execute_in_one_call,
    Visit.interrupt,
    Visit.restart,
    Visit.die_and_restart,
    Visit.ask_and_leave,
    Visit.spawn,
]
ENDS: list[Callable[[Visit], Awaitable[None]]] = [Visit.kill, Visit.shut_down, Visit.be_killed]


# Cycles


async def live(visit: Visit, done: Counter[str]) -> None:
    """Take one session through its life."""
    await visit.call("POST", "start")
    async with open_channel(visit.server.client.address, visit.session_id) as channel:
        for act in visit.chance.sample(ACTS, 3):
            await act(visit, channel)
            done[act.__name__] += 1
    if visit.chance.randrange(2):
        await visit.come_back_during_a_flood()
        done["come_back_during_a_flood"] += 1
    end = visit.chance.choice(ENDS)
    await end(visit)
    done[end.__name__] += 1


async def give_up_starting(visit: Visit, done: Counter[str]) -> None:
    """Go away at any moment of a start, whose end is then another's to see, and kill the kernel."""
    with trio.move_on_after(visit.chance.random() / 2):
        await visit.call("POST", "start")
    while (status := (await visit.describe())["status"]) != "exited":
        with suppress(ApiError):
            # It may have gone away before the start was even asked for.
            await visit.call("POST", "start" if status == "uninitialized" else "kill")
    done["give_up_starting"] += 1


async def fail_to_start(visit: Visit, done: Counter[str]) -> None:
    """Start a kernel that does not come to life."""
    try:
        await visit.call("POST", "start")
    except ApiError:
        done["fail_to_start"] += 1
    else:
        raise AssertionError("the start should have failed")


async def run_cycle(server: Server, session_id: str, chance: random.Random, done: Counter[str]) -> None:
    """Create a session, have something happen to it, and delete it."""
    visit = Visit(server, session_id, chance, is_scripted=chance.randrange(REAL_EVERY) > 0)
    cycle, request = live, body(session_id)
    if not visit.is_scripted:
        request |= {"argv": list(ipykernel_argv()), "interrupt_mode": "signal", "connection_timeout": 60}
        done["real kernel"] += 1
    else:
        cycle = chance.choice([live, live, give_up_starting, fail_to_start])
        fault = [chance.choice(["exit-at-start=3", "exit-before-info=4"])] if cycle is fail_to_start else []
        request = body(session_id, *fault, **chance.choice([{}, {"protocol_version": "5.5"}]))
    try:
        with trio.fail_after(CYCLE_LIMIT):
            await server.client.call("PUT", "/sessions", request)
            await cycle(visit, done)
            await visit.wait_exited()
            await visit.call("DELETE")
    except Exception as error:
        error.add_note(f"{cycle.__name__} of {session_id} on {server.name}, with {request['argv']}")
        with trio.move_on_after(PATIENCE, shield=True), suppress(ApiError, OSError):
            error.add_note(f"it is {await visit.describe()}")
        raise


# Looking


async def work(server: Server, worker: int, until: float, chance: random.Random, done: Counter[str]) -> None:
    """Run cycles until the time has come."""
    while trio.current_time() < until:
        await run_cycle(server, f"s{worker}-{server.cycles}", chance, done)
        server.cycles += 1


async def settle(server: Server) -> tuple[Look, list[str]]:
    """Look at a server until it is where it was; return what it has at least, and what is left over."""
    looks = [await server.look()]
    with trio.move_on_after(PATIENCE):
        while not looks[-1].is_quiet:
            await trio.sleep(0.1)
            looks = [await server.look()]
        if server.first is None:
            # A request that was answered a moment ago has a task and a descriptor still, or not.
            server.first = Look.of_all([await server.look() for _ in range(10)], max)
        while Look.of_all(looks, min).leaks(server.first):
            await trio.sleep(0.1)
            looks.append(await server.look())
    least = Look.of_all(looks, min)
    return least, ["sessions, clients or messages"] if server.first is None else least.leaks(server.first)


async def soak(seconds: float, seed: int) -> list[str]:
    """Soak for about so many seconds; return what went wrong."""
    chance, done, faults = random.Random(seed), Counter[str](), []
    began = time.monotonic()
    async with run_server("tcp") as tcp, run_server("socket") as unix:
        servers = [tcp, unix]
        begins = trio.current_time()
        for number in range(LOOKS):
            share = WARM_UP + (1 - WARM_UP) * number / (LOOKS - 1)
            async with trio.open_nursery() as nursery:
                for server in servers:
                    for worker in range(WORKERS):
                        nursery.start_soon(work, server, worker, begins + seconds * share, chance, done)
            for server in servers:
                look, leaks = await settle(server)
                passed = time.monotonic() - began
                print(f"{passed:4.0f} s  {server.name:6} {server.cycles:5} cycles  {look}", flush=True)
                faults += [f"LEAK on {server.name} after {server.cycles} cycles: {leak}" for leak in leaks]
        faults += [f"ERROR of {server.name}: {line}" for server in servers for line in server.errors()]
    print("done:", ", ".join(f"{count} {name}" for name, count in sorted(done.items())))
    return faults


def main() -> int:
    """Run the soak and say what went wrong."""
    parser = argparse.ArgumentParser(description="Run a soak")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    print(f"soak of {options.seconds:g} s, seed {options.seed}", flush=True)
    try:
        faults = trio.run(soak, options.seconds, options.seed)
    except BaseExceptionGroup:
        traceback.print_exc()
        faults = ["FAILED: a cycle"]
    print("\n".join(faults) or "nothing was left behind")
    return min(1, len(faults))


if __name__ == "__main__":
    sys.exit(main())
