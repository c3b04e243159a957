"""What a kernel uses: the arithmetic, and the machine's word on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, strategies as st

from kallichore.kernel.resources import (
    REFRESH_EVERY,
    Reading,
    ResourceSampler,
    Usage,
    UsageMeter,
    find_descendants,
    read_process,
)

posix_only = pytest.mark.posix_only("a shell and fork")


def reading(cpu: float, *, started: float = 1, memory: int = 1000, threads: int = 1) -> Reading:
    """Return a reading; what a test does not care about has a value of its own."""
    return Reading(started=started, cpu_seconds=cpu, memory_bytes=memory, threads=threads)


# Arithmetic


def test_first_sample_has_memory_and_threads_but_no_cpu() -> None:
    """The first sample has nothing to compare with: CPU is 0, the rest is there at once."""
    usage = UsageMeter().measure({1: reading(50.0, memory=3000, threads=4)}, now=100.0)

    assert Usage(cpu_percent=0, memory_bytes=3000, thread_count=4) == usage


def test_cpu_is_time_used_over_time_passed() -> None:
    """One core that was busy half of the time is 50; two that were busy all of it are 200."""
    meter = UsageMeter()
    meter.measure({1: reading(1.0), 2: reading(1.0)}, now=10.0)
    half = meter.measure({1: reading(2.0), 2: reading(1.0)}, now=12.0)
    double = meter.measure({1: reading(4.0), 2: reading(3.0)}, now=14.0)

    assert (50, 200) == (half.cpu_percent, double.cpu_percent)


def test_memory_and_threads_are_the_sum_of_the_tree() -> None:
    """A tree uses what all of its processes use now, whatever they used before."""
    meter = UsageMeter()
    meter.measure({1: reading(0, memory=10, threads=1), 2: reading(0, memory=500, threads=9)}, now=0.0)
    usage = meter.measure({1: reading(0, memory=20, threads=2), 3: reading(0, memory=30, threads=3)}, now=1.0)

    assert Usage(cpu_percent=0, memory_bytes=50, thread_count=5) == usage


def test_new_process_adds_no_cpu_until_it_was_seen_twice() -> None:
    """What a child had used before it was first seen is not counted as used since the last sample."""
    meter = UsageMeter()
    meter.measure({1: reading(0)}, now=0.0)
    first = meter.measure({1: reading(0), 2: reading(900)}, now=1.0)
    second = meter.measure({1: reading(0), 2: reading(901)}, now=2.0)

    assert (0, 100) == (first.cpu_percent, second.cpu_percent)


def test_another_process_with_the_same_id_is_a_new_process() -> None:
    """An id that now is somebody else's does not compare two processes with each other."""
    meter = UsageMeter()
    meter.measure({1: reading(0), 2: reading(10, started=1)}, now=0.0)
    usage = meter.measure({1: reading(0), 2: reading(99, started=2)}, now=1.0)

    assert usage.cpu_percent == 0


def test_process_that_was_away_for_a_sample_is_a_new_process() -> None:
    """What is not seen in a sample is forgotten, so its CPU is not charged to a later, shorter period."""
    meter = UsageMeter()
    meter.measure({1: reading(0), 2: reading(0)}, now=0.0)
    meter.measure({1: reading(0)}, now=1.0)
    usage = meter.measure({1: reading(0), 2: reading(5)}, now=2.0)

    assert usage.cpu_percent == 0


def test_two_samples_at_one_moment_do_not_divide_by_zero() -> None:
    """Where no time has passed there is no share of it: CPU is 0."""
    meter = UsageMeter()
    meter.measure({1: reading(0)}, now=1.0)

    assert meter.measure({1: reading(1)}, now=1.0).cpu_percent == 0


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 1e4),
            st.dictionaries(st.integers(1, 5), st.tuples(st.integers(0, 2), st.floats(0, 1e5)), max_size=5),
        ),
        max_size=8,
    )
)
def test_usage_is_never_negative_while_clocks_run_forward(
    ticks: list[tuple[float, dict[int, tuple[int, float]]]],
) -> None:
    """Whatever comes, goes and comes back under the same id, no number is negative and nothing is raised."""
    meter, now = UsageMeter(), 0.0
    used: dict[tuple[int, int], float] = {}
    for step, processes in ticks:
        now += step
        readings = {}
        for pid, (started, seconds) in processes.items():
            used[pid, started] = used.get((pid, started), 0.0) + seconds
            readings[pid] = reading(used[pid, started], started=started)
        usage = meter.measure(readings, now)

        assert usage.cpu_percent >= 0
        assert len(processes) == usage.thread_count


# Real processes


@contextmanager
def open_tree(script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell script until it says "ready"; kill its group and reap it at the end."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_this_process_is_read_as_it_is() -> None:
    """The reading agrees with what the process knows of itself: its CPU time, and more than a MiB of memory."""
    found = read_process(os.getpid())

    assert found is not None
    assert abs(found.cpu_seconds - time.process_time()) < 0.1
    assert found.memory_bytes > 1 << 20


@posix_only
def test_threads_are_counted_with_the_main_thread() -> None:
    """A process that has started three threads has four."""
    code = (
        "import threading, time\n"
        "for _ in range(3): threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)\n"
    )
    with open_tree(f'exec "{sys.executable}" -c "{code}"') as process:
        found = read_process(process.pid)

    assert found is not None
    assert found.threads == 4


@posix_only
def test_name_with_parentheses_and_spaces_does_not_confuse(tmp_path: os.PathLike[str]) -> None:
    """A program may be named anything, a piece of /proc syntax too."""
    program = os.path.join(tmp_path, "a) R 1 (b")
    os.symlink("/bin/sh", program)
    process = subprocess.Popen([program, "-c", "read line"], stdin=subprocess.PIPE)
    try:
        found = read_process(process.pid)
    finally:
        process.communicate()

    assert found is not None
    assert found.threads == 1
    assert found.cpu_seconds < 1


@posix_only
def test_ended_process_has_no_usage() -> None:
    """A process that has ended is None, before it is reaped and after."""
    sampler = ResourceSampler()
    with open_tree("echo ready; read line") as process:
        running = sampler.sample(process.pid, include_children=True)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        zombie = sampler.sample(process.pid, include_children=True)
    reaped = sampler.sample(process.pid, include_children=True)

    assert running is not None
    assert (None, None) == (zombie, reaped)


@posix_only
@pytest.mark.parametrize("lists_children", [True, False])
def test_descendants_are_found_at_every_depth_and_in_every_session(
    lists_children: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children, their children, and a child that leads a session of its own all belong to the tree, also on a Linux
    that does not list children.
    """
    if not lists_children:
        monkeypatch.setattr(os.path, "exists", lambda _: False)
    script = "sleep 600 & (sleep 600 & echo ready; wait) & wait"
    with open_tree(script) as process:
        found = set(find_descendants(process.pid))
        parents = {process.pid, *found}

    assert len(found) == 3
    assert len(parents) == 4


@posix_only
def test_children_of_any_thread_are_found() -> None:
    """A child that a worker thread has started belongs to the tree as well."""
    code = (
        "import subprocess, sys, threading\n"
        "def work():\n"
        "    subprocess.Popen(['sleep', '600']); print('ready', flush=True); sys.stdin.read()\n"
        "threading.Thread(target=work).start()\n"
    )
    with open_tree(f'exec "{sys.executable}" -c "{code}"') as process:
        found = find_descendants(process.pid)

    assert len(found) == 1


@posix_only
def test_children_count_only_where_they_shall() -> None:
    """With children a tree has the threads of all of its processes, without them those of its root."""
    child = "import time; print('ready', flush=True); time.sleep(600)"
    with open_tree(f'"{sys.executable}" -c "{child}" & wait') as process:
        with_children = ResourceSampler().sample(process.pid, include_children=True)
        alone = ResourceSampler().sample(process.pid, include_children=False)

    assert with_children is not None
    assert alone is not None
    assert (2, 1) == (with_children.thread_count, alone.thread_count)
    # A small process may be told to have no memory at all: Linux counts in batches. A Python has some.
    assert with_children.memory_bytes > alone.memory_bytes + (1 << 20)


@posix_only
def test_new_children_are_found_within_five_samples() -> None:
    """Children are looked for at every fifth sample: one that came since the first is there at the sixth."""
    sampler = ResourceSampler()
    with open_tree("echo ready; read line; sleep 600 & echo ready; wait") as process:
        counts = [_thread_count(sampler, process.pid)]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        counts.extend(_thread_count(sampler, process.pid) for _ in range(REFRESH_EVERY))

    assert [1] * REFRESH_EVERY + [2] == counts


def _thread_count(sampler: ResourceSampler, pid: int) -> int:
    usage = sampler.sample(pid, include_children=True)
    assert usage is not None
    return usage.thread_count


@posix_only
def test_busy_process_is_seen_to_be_busy() -> None:
    """A process that spins uses a good part of a core; one that waits uses next to nothing."""
    sampler = ResourceSampler()
    with open_tree("echo ready; while :; do :; done") as busy, open_tree("echo ready; read line") as idle:
        for process in (busy, idle):
            sampler.sample(process.pid, include_children=True)
        _spend_until_busy(busy.pid, seconds=0.1)
        usages = [sampler.sample(process.pid, include_children=True) for process in (busy, idle)]

    assert usages[0] is not None
    assert usages[1] is not None
    assert usages[0].cpu_percent > 0
    assert usages[1].cpu_percent == 0


def _spend_until_busy(pid: int, seconds: float) -> None:
    """Return when the process has used that much CPU time more."""
    first = read_process(pid)
    assert first is not None
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        now = read_process(pid)
        assert now is not None
        if now.cpu_seconds - first.cpu_seconds >= seconds:
            return
        time.sleep(0.005)
    raise AssertionError(f"process {pid} is not busy")


@posix_only
def test_forgotten_trees_start_anew() -> None:
    """A tree that is not sampled any more is forgotten: its next sample is a first one."""
    sampler = ResourceSampler()
    with open_tree("echo ready; while :; do :; done") as busy:
        sampler.sample(busy.pid, include_children=True)
        sampler.forget_others([])
        _spend_until_busy(busy.pid, seconds=0.05)
        first = sampler.sample(busy.pid, include_children=True)

    assert first is not None
    assert first.cpu_percent == 0


def test_sampling_leaves_no_descriptors() -> None:
    """Samples, of processes that are gone as well, leave no descriptor open."""
    sampler = ResourceSampler()
    sampler.sample(os.getpid(), include_children=True)
    before = len(os.listdir("/dev/fd"))
    for pid in (os.getpid(), 2**22 + 1) * 10:
        sampler.sample(pid, include_children=True)

    assert before == len(os.listdir("/dev/fd"))
