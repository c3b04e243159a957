"""Kernels in jobs of a Slurm whose nodes are machines of their own: cut off, gone, too late, and a hundred at once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from hosts import IOPUB, connect_all, read, tell
from kallichore.engines import slurm_job
from kallichore.engines.dial_in import Desk, Registration
from kallichore.engines.engine import Waiting
from kallichore.errors import HostGoneError
from plain_kernel import lines
from slurm_cluster import Cluster, open_cluster, use, why_not
from slurm_jobs import Started, ending_of, open_desk, open_slurm, order, start, until

pytestmark = [
    pytest.mark.posix_only("Slurm"),
    pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}"),
    pytest.mark.engines,
]

LONG = 180
"""Seconds for what Slurm takes a minute and a half for."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster whose nodes have networks of their own; it is gone after the last test."""
    place = Path(tempfile.mkdtemp(prefix="ks-", dir="/tmp"))
    place.chmod(0o755)
    try:
        with open_cluster(place, as_machines=True) as cluster:
            yield cluster
    finally:
        shutil.rmtree(place)


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give a test the cluster, and see that it leaves nothing in the queue or on the nodes."""
    yield from use(running_cluster, monkeypatch)


def wire_of(cluster: Cluster, started: Started) -> str:
    """Return the link by which a job's node is reached."""
    assert started.job.node is not None
    return cluster.wires[cluster.nodes.index(started.job.node)]


def switch(wire: str, state: str) -> None:
    """Have a node's link up or down."""
    subprocess.run(["ip", "link", "set", wire, state], check=True)


async def flood(started: Started, count: int) -> bytes:
    """Have the kernel send so many lines, and return what came."""
    tell(started.link, f"flood {count} 100")
    with trio.fail_after(LONG):
        # The host keeps what it sends, up to 64 MiB, and the kernel has it all at first: both are of the job.
        return await read(started.link, IOPUB, count * 100)


async def test_nothing_is_missing_when_a_node_is_cut_off(cluster: Cluster) -> None:
    """A flood from a node whose link is down for seconds, again and again, is whole."""
    async with (
        open_slurm(cluster) as engine,
        start(engine, order(memory="600M")) as started,
        trio.open_nursery() as nursery,
    ):
        await connect_all(started.link)
        await until(lambda: started.job.node is not None)
        wire = wire_of(cluster, started)

        async def cut() -> None:
            try:
                for seconds in (0.5, 2, 0.3, 12, 1):
                    switch(wire, "down")
                    await trio.sleep(seconds)
                    switch(wire, "up")
                    await trio.sleep(1)
            finally:
                switch(wire, "up")

        nursery.start_soon(cut)
        came = await flood(started, 300_000)
        nursery.cancel_scope.cancel()

        assert lines(300_000, 100) == came


async def test_job_whose_node_is_gone_says_so(cluster: Cluster) -> None:
    """A node that nobody hears of any more takes its job along, when Slurm gives it up: that is the reason."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started:
        await connect_all(started.link)
        await until(lambda: started.job.node is not None)
        wire, node = wire_of(cluster, started), started.job.node
        switch(wire, "down")
        try:
            with trio.fail_after(LONG):
                await started.link.lost.wait()
        finally:
            switch(wire, "up")

        assert f"lost its node: Slurm has no word from {node} any more" in started.link.why_lost
        # It was said already.
        assert await started.job.explain(None) == ""
    await until(lambda: not cluster.job_processes())
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)


async def test_time_limit_is_known_and_told(cluster: Cluster) -> None:
    """The time that is left is known from the start, and in the end the limit is the reason."""
    async with open_slurm(cluster) as engine, start(engine, order(time="1")) as started:
        await connect_all(started.link)
        await until(lambda: started.job.time_left is not None)
        assert started.job.time_left is not None
        assert 30 < started.job.time_left <= 60
        with trio.fail_after(LONG):
            await started.link.ended.wait()

        assert await started.job.explain(ending_of(started.link)) == "ran into its time limit of 1:00"


async def test_kernel_does_not_notice_that_the_controller_is_gone(cluster: Cluster) -> None:
    """While Slurm's controller stands still a kernel that runs goes on, and one that waits is told so; both go on."""
    async with open_slurm(cluster) as engine, start(engine, order()) as started, trio.open_nursery() as nursery:
        await connect_all(started.link)
        told: list[Waiting | None] = []
        wanted = order(extra=["--hold"])

        async def wait_in_line() -> None:
            async with engine.open_job(wanted, engine.ticket(wanted), told.append, is_new=True) as job:
                try:
                    (await job.connect()).close()
                finally:
                    with trio.CancelScope(shield=True):
                        await job.end()

        def is_silent() -> bool:
            return bool(told) and told[-1] is not None and told[-1].reason.startswith("Slurm does not answer: ")

        nursery.start_soon(wait_in_line)
        await until(lambda: len(cluster.jobs()) == 2)
        cluster.signal("slurmctld", signal.SIGSTOP)
        try:
            await until(is_silent)
            assert lines(1000, 100) == await flood(started, 1000)
        finally:
            cluster.signal("slurmctld", signal.SIGCONT)
        (held,) = set(cluster.jobs()) - {started.job.job_id}
        cluster.run("scontrol", "release", held)
        with trio.fail_after(LONG):
            await until(lambda: told[-1] is None)
        assert not started.link.lost.is_set()


async def test_submission_while_the_controller_stands_still_is_one_job(cluster: Cluster) -> None:
    """A job that is submitted to a controller that does not answer comes to be once, when it does."""
    async with open_slurm(cluster) as engine, trio.open_nursery() as nursery:
        cluster.signal("slurmctld", signal.SIGSTOP)

        async def come_back() -> None:
            await trio.sleep(13)
            cluster.signal("slurmctld", signal.SIGCONT)

        nursery.start_soon(come_back)
        wanted, told = order(), list[Waiting | None]()
        async with engine.open_job(wanted, engine.ticket(wanted), told.append, is_new=True) as job:
            try:
                (await job.connect()).close()
                await until(lambda: cluster.jobs() == [job.job_id])
            finally:
                with trio.CancelScope(shield=True):
                    await job.end()

        assert "Slurm does not answer" in "".join(each.reason for each in told if each is not None)


async def test_host_that_cannot_call_is_not_waited_for_for_ever(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nodes cannot reach the server that is said after a while, and at last the job is ended."""
    monkeypatch.setattr(slurm_job, "CALL_PATIENCE", 2.0)
    monkeypatch.setattr(slurm_job, "CALL_LIMIT", 5.0)
    async with open_desk(cluster) as desk:
        nowhere = attrs.evolve(desk, address=(cluster.address.rpartition(".")[0] + ".99", 7))
        async with open_slurm(cluster, nowhere) as engine:
            wanted, told = order(), list[Waiting | None]()
            async with engine.open_job(wanted, engine.ticket(wanted), told.append, is_new=True) as job:
                with trio.fail_after(LONG), pytest.raises(HostGoneError) as caught:
                    await job.connect()

    assert told[-1] is not None
    assert told[-1].reason.startswith(f"it runs on {job.node}, and has not called ")
    assert f"can {job.node} reach {cluster.address.rpartition('.')[0]}.99:7?" in caught.value.message


async def test_hundred_jobs_at_once(cluster: Cluster, private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred sessions that begin together all get their jobs, and Slurm is asked for all of them in one question."""
    programs, count = private_place / "programs", private_place / "count"
    programs.mkdir()
    file = programs / "squeue"
    file.write_text(f'#!/bin/sh\necho "$@" >> {count}\nexec {shutil.which("squeue")} "$@"\n')
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    ready = 0
    everybody = trio.Event()
    async with open_slurm(cluster) as engine, trio.open_nursery() as nursery:

        async def one() -> None:
            nonlocal ready
            async with start(engine, order(("/bin/sleep", "600"))):
                ready += 1
                if ready == 100:
                    everybody.set()
                await everybody.wait()

        began = trio.current_time()
        for _ in range(100):
            nursery.start_soon(one)
        with trio.fail_after(LONG):
            await everybody.wait()
        seconds = trio.current_time() - began
        asked = [line for line in count.read_text().splitlines() if "--jobs=" in line]

        assert len(set(cluster.jobs())) == 100
        assert len(asked) <= seconds + 2


@attrs.define(eq=False)
class CutDesk:
    """Where hosts dial in by a way that is cut."""

    desk: Desk
    address: tuple[str, int]

    @property
    def certificate(self) -> str:
        return self.desk.certificate

    def register(self, identity: bytes) -> Registration:
        return self.desk.register(identity)


@asynccontextmanager
async def open_cut_desk(cluster: Cluster, dice: random.Random) -> AsyncIterator[CutDesk]:
    """Have a desk whose connections are all cut again and again, wherever the bytes on them are."""
    async with open_desk(cluster) as desk, trio.open_nursery() as nursery:
        scopes: list[trio.CancelScope] = []

        async def carry(stream: trio.SocketStream) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                other = await trio.open_tcp_stream(*desk.address)
                async with stream, other, trio.open_nursery() as carrying:

                    async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
                        try:
                            while data := await source.receive_some(10_000):
                                await target.send_all(data)
                        except (trio.BrokenResourceError, trio.ClosedResourceError):
                            pass
                        carrying.cancel_scope.cancel()

                    carrying.start_soon(pump, stream, other)
                    carrying.start_soon(pump, other, stream)

        async def cut() -> None:
            while True:
                await trio.sleep(dice.uniform(0.2, 1))
                for scope in scopes:
                    scope.cancel()
                scopes.clear()

        listeners = await nursery.start(partial(trio.serve_tcp, carry, 0, host=cluster.address))
        nursery.start_soon(cut)
        yield CutDesk(desk, (cluster.address, listeners[0].socket.getsockname()[1]))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_missing_wherever_a_connection_is_cut(cluster: Cluster, seed: int) -> None:
    """A flood from a job is whole though its connection is cut every 0.2 to 1 s: nothing is missing, nothing twice."""
    async with open_cut_desk(cluster, random.Random(seed)) as desk, open_slurm(cluster, desk) as engine:
        async with start(engine, order(memory="600M")) as started:
            await connect_all(started.link)
            came = b""
            for _ in range(10):
                came += await flood(started, 20_000)
                await trio.sleep(0.3)

            assert lines(20_000, 100) * 10 == came
            assert started.connection.count(None) >= 2
