"""When kernels are sampled, and for whom: in virtual time, over processes that are real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.engines.registry import Engines
from kallichore.kernel.resources import Usage
from kallichore.models.bodies import NewSession, ResourceUsage, ServerConfiguration
from kallichore.server.sampling import sample_resources
from kallichore.server.server import Server
from kallichore.session.facilities import Facilities
from kallichore.session.session import Session
from kernels import body, is_kernel, open_client, open_started, receive_until

HOUR = 3600.0


class Kernel(Session):
    """A session whose kernel is a process that is there already, and which keeps its samples."""

    pid: int | None = None
    samples: list[tuple[float, ResourceUsage]]
    on_sample: Callable[[], None] | None = None

    @property
    def process_id(self) -> int | None:
        """The process that stands for the kernel's."""
        return self.pid

    def note_usage(self, usage: ResourceUsage) -> None:
        """Keep a sample, and when it came."""
        super().note_usage(usage)
        self.samples.append((trio.current_time(), usage))
        if self.on_sample is not None:
            self.on_sample()

    def times_since(self, began: float) -> list[float]:
        """Return when samples came, in seconds since ``began``."""
        return [round(time - began, 3) for time, _ in self.samples if time >= began]


class FarProcess:
    """A process on another machine, which always uses the same."""

    def sample(self) -> Usage:
        """Return what it uses."""
        return Usage(1, 1_000_000, 1)


class Machine:
    """A server with kernels, of which nothing runs but the sampling."""

    def __init__(self, server: Server, place: Path) -> None:
        self.server = server
        self.facilities = Facilities(
            config=server.config,
            runtime_directory=place,
            # Nothing is started here.
            desk=None,  # type: ignore[arg-type]
            watchdog=None,  # type: ignore[arg-type]
            surroundings=None,  # type: ignore[arg-type]
            open_inheritance=None,
            engines=Engines({}, None),  # type: ignore[arg-type]
            taken_ports=set(),
        )

    def add(self, session_id: str = "s", pid: int | None = None) -> Kernel:
        """Add a kernel; this process stands for its own where no other is given."""
        kernel = Kernel(NewSession(session_id=session_id, argv=("k",)), "key", self.facilities, self.server.nudge)
        kernel.pid = pid or os.getpid()
        kernel.samples = []
        self.server._sessions[session_id] = kernel
        return kernel

    def configure(self, interval: int | None = None, include_children: bool | None = None) -> None:
        """Change the settings of sampling, as the API does."""
        change = ServerConfiguration(resource_sample_interval_ms=interval, resource_include_children=include_children)
        self.server.configure(change)


@pytest.fixture
async def machine(autojump_clock: Any, nursery: trio.Nursery, private_place: Path) -> Any:
    """Return a machine that samples every second, in virtual time."""
    server = Server(ServerConfig(), None, nursery)  # type: ignore[arg-type]
    machine = Machine(server, private_place)
    nursery.start_soon(
        sample_resources,
        server._sample_interval,
        lambda: server.resource_include_children,
        lambda: server.sessions,
    )
    yield machine
    for session in server.sessions:
        session.close()
    nursery.cancel_scope.cancel()


@pytest.fixture
def family() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has one child; kill and reap both at the end."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & echo ready; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    os.killpg(process.pid, 9)
    process.wait()
    process.stdout.close()


# When


async def test_kernel_is_sampled_once_an_interval_while_a_client_is_connected(
    autojump_clock: Any, machine: Any
) -> None:
    """A connected client is told every second what its kernel uses, and the session shows the latest."""
    kernel = machine.add()
    slot = kernel.attach()
    began = trio.current_time()
    await trio.sleep(4.5)

    assert kernel.times_since(began) in ([0, 1, 2, 3, 4], [1, 2, 3, 4])
    assert len(slot.take_live()) == len(kernel.samples)
    assert kernel.describe().resource_usage == kernel.samples[-1][1]
    assert {1000} == {usage.sampling_period_ms for _, usage in kernel.samples}


async def test_quiet_kernel_that_is_only_looked_at_with_others_is_sampled_rarely(
    autojump_clock: Any, machine: Any
) -> None:
    """While somebody follows all sessions, a kernel without work is sampled at once and then every fifth interval."""
    kernel = machine.add()
    began = trio.current_time()
    with machine.facilities.news.listen():
        await trio.sleep(11.5)
    while_followed = len(kernel.samples)
    await trio.sleep(10)

    assert kernel.times_since(began) in ([0, 5, 10], [1, 5, 10])
    assert {5000} == {usage.sampling_period_ms for _, usage in kernel.samples[1:]}
    assert while_followed == len(kernel.samples)


async def test_kernel_on_another_machine_is_sampled_rarely(
    autojump_clock: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a connected client, and while it is at work, its host is asked at every fifth interval, as is told."""
    kernel = machine.add()
    monkeypatch.setattr(Kernel, "process_elsewhere", FarProcess())
    kernel.attach()
    began = trio.current_time()
    await trio.sleep(11.5)
    monkeypatch.setattr(type(kernel.conversation), "busy_since", 1.0)
    await trio.sleep(10)

    assert kernel.times_since(began) in ([0, 5, 10, 15, 20], [1, 5, 10, 15, 20])
    assert {5000} == {usage.sampling_period_ms for _, usage in kernel.samples[1:]}


async def test_kernel_at_work_is_sampled_each_time_for_who_looks_at_all(
    autojump_clock: Any, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that runs something is sampled at every interval while somebody follows all sessions."""
    kernel = machine.add()
    monkeypatch.setattr(type(kernel.conversation), "busy_since", 1.0)
    began = trio.current_time()
    with machine.facilities.news.listen():
        await trio.sleep(4.5)

    assert kernel.times_since(began) in ([0, 1, 2, 3, 4], [1, 2, 3, 4])


async def test_interval_of_zero_is_off(autojump_clock: Any, machine: Any) -> None:
    """With 0 nothing is sampled, however long somebody looks."""
    machine.configure(0)
    await trio.sleep(1)
    kernel = machine.add()
    kernel.attach()
    await trio.sleep(HOUR)

    assert [] == kernel.samples


async def test_interval_can_be_changed_on_the_fly(autojump_clock: Any, machine: Any) -> None:
    """A new interval begins at once, 0 ends it at once, and another begins it anew."""
    kernel = machine.add()
    kernel.attach()
    await trio.sleep(9.5)
    machine.configure(250)
    began = trio.current_time()
    await trio.sleep(0.9)
    quick = kernel.times_since(began)
    machine.configure(0)
    silence = trio.current_time()
    await trio.sleep(HOUR)
    silent = kernel.times_since(silence)
    machine.configure(20_000)
    began = trio.current_time()
    await trio.sleep(50)

    assert ([0, 0.25, 0.5, 0.75], []) == (quick, silent)
    assert kernel.times_since(began) == [0, 20, 40]
    assert kernel.samples[-1][1].sampling_period_ms == 20_000


@pytest.mark.parametrize("steps", range(8))
async def test_interval_can_be_changed_at_any_moment(autojump_clock: Any, machine: Any, steps: int) -> None:
    """Two changes, however close to each other, leave the second in force."""
    kernel = machine.add()
    kernel.attach()
    machine.configure(0)
    await trio.sleep(10)
    machine.configure(500)
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    machine.configure(0)
    changed = trio.current_time()
    await trio.sleep(60)

    assert [] == kernel.times_since(changed + 0.001)


async def test_late_ticks_are_not_made_up_for(autojump_clock: Any, machine: Any) -> None:
    """A server that was held up for three and a half intervals samples once for all of them, and goes on from there."""
    kernel = machine.add()
    kernel.attach()
    await trio.sleep(9.9)
    kernel.samples.clear()

    def hold_up() -> None:
        kernel.on_sample = None
        autojump_clock.jump(3.5)

    kernel.on_sample = hold_up
    await trio.sleep(6)
    first, *others = kernel.times_since(0)

    assert [round(time - first, 3) for time in others] == [3.5, 4.5, 5.5]


# For whom


async def test_kernel_that_nobody_looks_at_is_not_sampled(autojump_clock: Any, machine: Any) -> None:
    """Without a client, and without anybody who asked for the session, nothing is sampled."""
    kernel = machine.add()
    await trio.sleep(HOUR)

    assert [] == kernel.samples


async def test_who_asks_for_a_session_has_it_sampled_for_a_minute(autojump_clock: Any, machine: Any) -> None:
    """A look at a session has it sampled for a minute, each look for another; a list of all is a look at each."""
    asked, other = machine.add(), machine.add("other")
    await trio.sleep(HOUR + 0.5)
    began = trio.current_time()
    asked.describe()
    await trio.sleep(40)
    asked.describe()
    await trio.sleep(HOUR)
    times = asked.times_since(began)

    assert ([0.5, 99.5], 100) == ([times[0], times[-1]], len(times))
    assert [] == other.samples
    machine.server.list_sessions()
    await trio.sleep(10)
    assert len(other.samples) == 10


async def test_client_that_is_gone_has_nothing_sampled(autojump_clock: Any, machine: Any) -> None:
    """Sampling ends when the last client leaves and begins again with the next."""
    kernel = machine.add()
    slots = [kernel.attach()]
    await trio.sleep(2.5)
    kernel.detach(slots[0])
    left = trio.current_time()
    await trio.sleep(HOUR)
    silent = kernel.times_since(left)
    kernel.attach()
    await trio.sleep(2.5)

    assert [] == silent
    assert len(kernel.times_since(left)) in (2, 3)


async def test_session_without_a_process_is_not_sampled(autojump_clock: Any, machine: Any) -> None:
    """A session that has not started, or whose process has gone just now, has no samples and disturbs no other."""
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])  # noqa: ASYNC220  # real I/O has no place in virtual time
    gone.wait()
    ended, unstarted, running = machine.add("ended", gone.pid), machine.add("unstarted"), machine.add("running")
    unstarted.pid = None
    for kernel in (ended, unstarted, running):
        kernel.attach()
    await trio.sleep(3.5)

    assert ([], []) == (ended.samples, unstarted.samples)
    assert len(running.samples) >= 3


# What


async def test_samples_of_one_tick_have_one_timestamp(autojump_clock: Any, machine: Any) -> None:
    """What is shown side by side was measured at the same moment, and says so."""
    kernels = [machine.add(name) for name in ("a", "b")]
    for kernel in kernels:
        kernel.attach()
    await trio.sleep(5)
    first, second = ([usage.timestamp for _, usage in kernel.samples] for kernel in kernels)

    assert first == second
    assert first == sorted(first)


@pytest.mark.posix_only("a shell and fork")
async def test_children_count_if_they_shall(autojump_clock: Any, machine: Any, family: subprocess.Popen[bytes]) -> None:
    """A kernel's children are part of its usage or not, as configured; a change holds from the next tick on."""
    kernel = machine.add(pid=family.pid)
    kernel.attach()
    threads = []
    for include in (True, False, True):
        machine.configure(include_children=include)
        await trio.sleep(1.5)
        threads.append(kernel.samples[-1][1].thread_count)

    assert threads == [2, 1, 2]


async def test_interval_is_a_setting_of_the_api() -> None:
    """A server that samples nothing begins to when a client asks for it, no faster than ten times a second."""
    async with open_client(resource_sample_interval_ms=0) as client, open_started(client, body()) as channel:
        assert "resource_usage" not in await client.call("GET", "/sessions/s")
        await client.call("POST", "/server_configuration", {"resource_sample_interval_ms": 7})
        usage = (await receive_until(channel, is_kernel("resourceUsage")))[-1]["resourceUsage"]

        assert usage["sampling_period_ms"] == 100
        assert usage.keys() == (await client.call("GET", "/sessions/s"))["resource_usage"].keys()
