"""Kernels on a machine with a network of its own: its cable is pulled, its sshd killed, its door crowded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from far_machine import kill_ssh
from far_namespace import FarNamespace, open_far_namespace
from hosts import CONTROL, IOPUB, SHELL, connect_all, read, read_line, tell
from kallichore.engines.engine import EngineServices
from kallichore.engines.host_link import HostLink
from kallichore.engines.ssh import open_engine
from plain_kernel import lines
from ssh_setting import SLEEP, Setting, wait_until

pytestmark = [pytest.mark.posix_only("hosts"), pytest.mark.engines]

CROWD = 24
"""Kernels that are started at once: more than the sessions that one connection may have, and than sshd lets wait."""


@pytest.fixture
async def machine(private_place: Path) -> AsyncIterator[FarNamespace]:
    """The machine."""
    async with open_far_namespace(private_place / "m") as machine:
        yield machine


@pytest.fixture
async def setting(machine: FarNamespace, private_place: Path) -> AsyncIterator[Setting[FarNamespace]]:
    """The machine and an engine."""
    async with open_engine(EngineServices(private_place, "owner", lambda: None)) as engine:
        yield Setting(machine, engine)


async def test_everything_arrives_after_the_cable_was_pulled(
    setting: Setting[FarNamespace], machine: FarNamespace
) -> None:
    """A link that is dead says nothing; it is noticed, told, and all comes in order when the cable is back, once."""
    count = 300_000
    async with setting.open_job() as job, setting.open_link(job) as link:
        await connect_all(link)
        tell(link, f"flood {count} 100")
        data = await read(link, IOPUB, 1_000_000)
        machine.pull()
        link.send(SHELL, b"sent meanwhile")
        await wait_until(lambda: any(setting.cuts[1:]))
        machine.plug()
        data += await read(link, IOPUB, count * 100 - len(data))
        answer = await read(link, SHELL, 14)
        tell(link, "say all")
        last = await read_line(link, CONTROL)

    assert lines(count, 100) == data
    assert (b"sent meanwhile", b"all") == (answer, last)
    assert setting.cuts[-1] is None


async def test_kernels_outlive_their_machines_sshd(setting: Setting[FarNamespace], machine: FarNamespace) -> None:
    """With its sshd killed and started anew a machine has the same kernels."""
    async with setting.open_job() as job, setting.open_link(job) as link:
        await connect_all(link)
        pid = link.hello.pid
        await machine.go()
        await wait_until(lambda: any("Connection refused" in (told or "") for told in setting.cuts))
        await machine.come()
        await wait_until(lambda: setting.cuts[-1] is None)
        link.send(SHELL, b"still there")

        assert b"still there" == await read(link, SHELL, 11)
        assert pid == link.hello.pid


async def test_crowd_is_let_in(setting: Setting[FarNamespace]) -> None:
    """Many kernels start at once, are all reached, all reached again when all connections are lost, and all end."""
    done = trio.Event()

    async def hold(task_status: trio.TaskStatus[HostLink]) -> None:
        async with setting.open_job(SLEEP) as job, setting.open_link(job) as link:
            task_status.started(link)
            await done.wait()

    async with trio.open_nursery() as nursery:
        links: list[HostLink] = []

        async def start() -> None:
            links.append(await nursery.start(hold))

        async with trio.open_nursery() as starts:
            for _ in range(CROWD):
                starts.start_soon(start)
        count = len(setting.machine.directories())
        setting.cuts.clear()
        killed = kill_ssh()
        await wait_until(lambda: setting.cuts.count(None) == CROWD)
        done.set()

    assert (CROWD, CROWD) == (count, killed)
    assert CROWD == len({link.hello.pid for link in links})
    assert [] == setting.machine.directories()
