"""Limits of memory, read from directories that look like Linux's, and from Linux itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kallichore.kernel.memory_limits import MemoryWatch, watch_memory, watch_shared_memory
from kallichore.kernel.resources import ResourceSampler, Usage
from kernels import body, is_kernel, open_client, open_started, receive_until

PID = 7

MANY = 10**15


def write(directory: Path, **files: object) -> None:
    """Write small files; a name's first underscore is a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(f"{text}\n")


class Machine:
    """Directories that look like /proc and /sys/fs/cgroup, with one process."""

    def __init__(self, place: Path) -> None:
        self.proc, self.groups = place / "proc", place / "cgroup"
        self.process = self.proc / str(PID)
        write(self.process, statm="100 50 10 1 0 40 0")
        write(self.groups)
        self.limit()

    def limit(self, address_space: object = "unlimited", data: object = "unlimited") -> None:
        """Set the limits of the process, as bytes."""
        lines = [
            "Limit                     Soft Limit           Hard Limit           Units     ",
            f"Max data size             {data:<20} unlimited            bytes     ",
            "Max stack size            8388608              unlimited            bytes     ",
            f"Max address space         {address_space:<20} unlimited            bytes     ",
        ]
        write(self.process, limits="\n".join(lines))

    def watch(self) -> MemoryWatch | None:
        """Look for the limits of the process."""
        return watch_memory(PID, self.proc, self.groups)

    def watch_shared(self) -> MemoryWatch | None:
        """Look for the limits of what this process shares with others."""
        return watch_shared_memory(self.proc, self.groups)

    def warning(self) -> str:
        """Return what there is to be said at once; "" if nothing is."""
        watch = self.watch()
        assert watch is not None
        return watch.look() or ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without limits or control groups."""
    return Machine(tmp_path)


def test_without_limits_there_is_nothing_to_watch(machine: Machine) -> None:
    """Neither groups nor limits, "max" and version 1's largest number: no watch, and so no work for each sample."""
    bare = machine.watch()
    write(machine.process, cgroup="0::/a")
    write(machine.groups, cgroup_controllers="memory")
    write(machine.groups / "a", memory_max="max", memory_current=MANY)
    unified = machine.watch()
    (machine.groups / "cgroup.controllers").unlink()
    write(machine.process, cgroup="4:memory:/a\n0::/")
    write(machine.groups / "memory" / "a", memory_limit_in_bytes=0x7FFFFFFFFFFFF000, memory_usage_in_bytes=MANY)
    legacy = machine.watch()

    assert (None, None, None) == (bare, unified, legacy)


def test_process_that_is_gone_has_no_limits(machine: Machine) -> None:
    """A process id without a process is no error."""
    assert None is watch_memory(PID + 1, machine.proc, machine.groups)


def test_limit_of_a_group_around_the_kernels_counts(machine: Machine) -> None:
    """The limit may be the group's own or that of one around it; whichever is near is named."""
    write(machine.process, cgroup="0::/slice/job/kernel")
    write(machine.groups, cgroup_controllers="memory")
    write(machine.groups / "slice", memory_max=1000, memory_current=950, memory_stat="anon 950")
    write(machine.groups / "slice" / "job", memory_max=5000, memory_current=940, memory_stat="anon 940")
    write(machine.groups / "slice" / "job" / "kernel", memory_max="max", memory_current=10, memory_stat="anon 10")
    watch = machine.watch()

    assert watch is not None
    assert [5000, 1000] == [limit.most for limit in watch.limits]
    assert "(95%)" in str(watch.look())
    assert "control group /slice (memory.max)" in str(watch.look())


def test_memory_of_the_machine_is_shared(machine: Machine) -> None:
    """What no program could be given is in use: a warning from nine tenths on, until it is less than eight."""
    warnings = []
    watch = None
    for available in (11, 10, 19, 21):
        write(machine.proc, meminfo=f"MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable: {available} kB\nHugePages_Free: 0")
        watch = watch or machine.watch_shared()
        assert watch is not None
        warnings.append(watch.look() is not None)

    assert [False, True, True, False] == warnings


def test_own_groups_are_shared_as_well(machine: Machine) -> None:
    """The limit of the group that this process is in is one of all that it starts; those of one process are not."""
    machine.limit(address_space=1)
    write(machine.proc / str(os.getpid()), cgroup="0::/a")
    write(machine.groups, cgroup_controllers="memory")
    write(machine.groups / "a", memory_max=1000, memory_current=990, memory_stat="anon 990")
    watch = machine.watch_shared()

    assert watch is not None
    assert [1000] == [limit.most for limit in watch.limits]
    assert "control group /a" in str(watch.look())


def test_machine_that_does_not_tell_is_not_watched(machine: Machine) -> None:
    """Without /proc/meminfo, or with one of an old Linux, nothing is known."""
    bare = machine.watch_shared()
    write(machine.proc, meminfo="MemTotal: 100 kB\nMemFree: 1 kB")

    assert (None, None) == (bare, machine.watch_shared())


def test_container_sees_its_limit_at_the_root(machine: Machine) -> None:
    """A path that only the outside of a container knows leads to the root, where the container's limit is."""
    write(machine.process, cgroup="0::/../outside/id")
    write(machine.groups, cgroup_controllers="memory", memory_max=100, memory_current=99, memory_stat="anon 99")

    assert "control group / (memory.max)" in machine.warning()


def test_cache_of_files_is_not_counted(machine: Machine) -> None:
    """What the system can give up before it kills is no reason to warn; what it cannot is one."""
    write(machine.process, cgroup="0::/a")
    write(machine.groups, cgroup_controllers="memory")
    group = machine.groups / "a"
    write(group, memory_max=1000, memory_current=1000, memory_stat="anon 500\nactive_file 300\ninactive_file 200")
    cached = machine.warning()
    write(group, memory_stat="anon 900\nactive_file 60\ninactive_file 40\nfile_dirty 5")
    full = machine.warning()

    assert "" == cached
    assert "(90%)" in full


def test_version_1_is_read_where_version_2_is_missing(machine: Machine) -> None:
    """The older files have other names, and count what is below a group under others."""
    write(machine.process, cgroup="9:name=systemd:/\n4:cpu,memory:/a/b\n0::/")
    write(machine.groups / "memory" / "a" / "b", memory_limit_in_bytes=0x7FFFFFFFFFFFF000)
    stat = "inactive_file 900\ntotal_inactive_file 10\ntotal_active_file 10"
    write(machine.groups / "memory" / "a", memory_limit_in_bytes=1000, memory_usage_in_bytes=960, memory_stat=stat)

    assert "(94%)" in machine.warning()
    assert "control group /a (memory.limit_in_bytes)" in machine.warning()


def test_limits_of_the_process_count(machine: Machine) -> None:
    """RLIMIT_AS limits its address space, RLIMIT_DATA its data; both are counted in pages."""
    page = os.sysconf("SC_PAGE_SIZE")
    machine.limit(address_space=101 * page, data=100 * page)
    space = machine.warning()
    machine.limit(address_space=1000 * page, data=41 * page)
    data = machine.warning()
    machine.limit(address_space=1000 * page, data=100 * page)
    neither = machine.warning()

    assert "(99%)" in space
    assert "RLIMIT_AS" in space
    assert "(98%)" in data
    assert "RLIMIT_DATA" in data
    assert "" == neither


def test_files_that_vanish_or_say_nonsense_are_no_warning(machine: Machine) -> None:
    """A process that ends, and a group that is removed or strange, say nothing."""
    write(machine.process, cgroup="0::/a")
    write(machine.groups, cgroup_controllers="memory")
    write(machine.groups / "a", memory_max=1000, memory_current="lots")
    machine.limit(address_space=1)
    watch = machine.watch()
    assert watch is not None
    write(machine.process, statm="")
    strange = watch.look()
    (machine.process / "statm").unlink()
    (machine.groups / "a" / "memory.current").unlink()

    assert (None, None) == (strange, watch.look())


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits are read from /proc")


@linux_only
def test_sample_without_a_limit_has_no_warning_and_one_near_it_has() -> None:
    """A process is given a limit that it nearly uses: its first sample says so."""
    import resource

    argv = ["/bin/sh", "-c", "echo ready; read line"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        free, hard = resource.prlimit(process.pid, resource.RLIMIT_AS)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE"), hard))
        limited = ResourceSampler().sample(process.pid, include_children=False)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (free, hard))
        unlimited = ResourceSampler().sample(process.pid, include_children=False)

    assert isinstance(limited, Usage)
    assert isinstance(unlimited, Usage)
    assert "RLIMIT_AS" in str(limited.memory_warning)
    assert None is unlimited.memory_warning


@linux_only
async def test_client_is_warned_once_before_a_limit_is_reached() -> None:
    """One line on standard error, however many samples follow; the session has it as well, until the kernel ends."""
    import resource

    async with open_client(resource_sample_interval_ms=0) as client, open_started(client, body()) as channel:
        pid = (await client.call("GET", "/sessions/s"))["process_id"]
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        most, (_, hard) = round(pages * os.sysconf("SC_PAGE_SIZE") * 1.05), resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (most, hard))
        await client.call("POST", "/server_configuration", {"resource_sample_interval_ms": 100})
        messages = []
        for _ in range(3):
            messages += await receive_until(channel, is_kernel("resourceUsage"))
        session = await client.call("GET", "/sessions/s")
        await client.call("POST", "/sessions/s/kill")
        messages += await receive_until(channel, is_kernel("exited"))
        ended = await client.call("GET", "/sessions/s")

    warnings = [message["output"] for message in messages if "Memory is running out" in str(message.get("output"))]
    assert [["stderr", f"[kallichore] {session['memory_warning']}\n"]] == warnings
    assert "RLIMIT_AS" in session["memory_warning"]
    assert "memory_warning" not in ended
