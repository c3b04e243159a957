"""A Slurm cluster of two nodes on this machine, from Debian's packages: started for tests, and gone with all it ran.

Everything is in a private directory, on ports that the system chose, and every daemon is a child of ours. Where nodes
are to be machines that can be cut off, each has a network namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "munged", "setpriv")

PATIENCE = 60
"""Seconds for the cluster to do what takes it two at most."""

DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""What a daemon is started by, so that it does not outlive a run of tests that is killed."""

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
"""Where control groups of the first version limit memory; of the second, Slurm needs systemd for them."""

CONFIGURATION = """
ClusterName={name}
SlurmctldHost={machine}({controller})
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.%n.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
DefMemPerCPU=100
InactiveLimit=0
BatchStartTimeout=120
MinJobAge=300
KillWait=5
SlurmctldTimeout=10
SlurmdTimeout=20
JobRequeue=0
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherFrequency=task=2
{memory}
NodeName={nodes[0]} NodeHostname={machine} NodeAddr={addresses[0]} Port={ports[1]} CPUs=60 RealMemory=8000
NodeName={nodes[1]} NodeHostname={machine} NodeAddr={addresses[1]} Port={ports[2]} CPUs=60 RealMemory=8000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=10 State=UP
PartitionName=low Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=CANCEL GraceTime=5 State=UP
PartitionName=short Nodes=ALL MaxTime=10 DefaultTime=5 PriorityTier=10 State=UP
"""

WITH_GROUPS = """ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup"""

WITHOUT_GROUPS = """ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux"""

GROUPS = """CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainCores=no
AllowedRAMSpace=100
"""


def why_not() -> str | None:
    """Return why there can be no cluster here; None if there can."""
    missing = [program for program in PROGRAMS if not _find(program)]
    if missing:
        return f"no {', '.join(missing)}: as root, apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    if sys.platform == "win32" or os.geteuid() != 0:
        return "a Slurm cluster is started by root only"
    return None


def can_limit_memory() -> bool:
    """Whether a cluster here can limit the memory of its jobs."""
    return os.access(MEMORY_GROUPS, os.W_OK)


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """A cluster that runs.

    Args:
        place: Its directory.
        nodes: The names of its nodes.
        address: Where nodes reach this machine.
        wires: The names of the nodes' links to this machine, where they are machines of their own.
    """

    def __init__(self, place: Path, nodes: Sequence[str], address: str, wires: Sequence[str]) -> None:
        self.place, self.nodes, self.address, self.wires = place, nodes, address, wires
        self.environment: Mapping[str, str] = {"SLURM_CONF": str(place / "slurm.conf")}
        self._prefixes: dict[str, list[str]] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's programs, and return what it said."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd="/"
        )
        assert not (check and done.returncode), f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that have not ended."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def state(self, job_id: str, word: str = "JobState") -> str:
        """Return what Slurm has of a job."""
        words = self.run("scontrol", "show", "job", "--oneliner", job_id).split()
        return next(each.partition("=")[2] for each in words if each.startswith(f"{word}="))

    def start(self, name: str, *command: str) -> None:
        """Start a daemon."""
        program = _find(command[0])
        assert program is not None
        with open(self.place / f"{name}.out", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                [*DIES_WITH_US, *self._prefixes.get(name, ()), program, *command[1:]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.place,
                env={**os.environ, **self.environment, "TMPDIR": "/tmp"}, start_new_session=True,
            )  # fmt: skip

    def start_controller(self) -> None:
        """Start what answers and decides."""
        self.start("slurmctld", "slurmctld", "-D")

    def start_node(self, name: str) -> None:
        """Start a node's daemon."""
        self.start(name, "slurmd", "-D", "-N", name)

    def signal(self, name: str, number: int) -> None:
        """Send a daemon a signal."""
        self._daemons[name].send_signal(number)

    def stop(self, name: str, limit: float = 10) -> None:
        """Stop a daemon, by all means."""
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(signal.SIGCONT)
        daemon.terminate()
        try:
            daemon.wait(limit)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def stop_all(self) -> None:
        """Stop all daemons, and end what is left of their jobs."""
        for name in reversed(list(self._daemons)):
            # munged takes six seconds to end, and keeps nothing.
            self.stop(name, 0.1 if name == "munged" else 10)
        for process in self.job_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def job_processes(self) -> list[psutil.Process]:
        """Return the processes of all jobs, which inherit where their cluster is."""
        found = []
        for process in psutil.process_iter(["pid"]):
            with suppress(psutil.Error):
                variables = process.environ()
                mine = variables.get("SLURM_CONF") == self.environment["SLURM_CONF"] and "SLURM_JOB_ID" in variables
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def wait_empty(self) -> None:
        """Wait until no job and no process of one is left."""
        _wait(lambda: not self.jobs() and not self.job_processes(), "the queue is not empty")

    def wait_up(self) -> None:
        """Wait until a job can run on each node, which is more than that they are said to be idle."""
        _wait(lambda: self._answers("srun", "-Q", "-N2", "--immediate=5", "true"), "the cluster does not come up")
        self.wait_empty()

    def _answers(self, *command: str) -> bool:
        environment = {**os.environ, **self.environment}
        return not subprocess.run(command, env=environment, capture_output=True, check=False, cwd="/").returncode


def _wait(is_so: object, what: str) -> None:
    assert callable(is_so)
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


@contextmanager
def _namespaces(mark: int, nodes: Sequence[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Make each node a network namespace; return our address, theirs, and the names of the links to them."""
    net, bridge, wires = f"10.213.{mark % 250}", f"kb{mark}", [f"kv{mark}-{place}" for place in range(2)]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    with ExitStack() as stack:
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(subprocess.run, ["ip", "link", "del", bridge], check=False)
        ip("addr", "add", f"{net}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for place, (node, wire) in enumerate(zip(nodes, wires, strict=True)):
            ip("netns", "add", node)
            stack.callback(subprocess.run, ["ip", "netns", "del", node], check=False)
            ip("-n", node, "link", "set", "lo", "up")
            ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", node)
            ip("link", "set", wire, "master", bridge, "up")
            ip("-n", node, "addr", "add", f"{net}.1{place}/24", "dev", "eth0")
            ip("-n", node, "link", "set", "eth0", "up")
        yield f"{net}.1", [f"{net}.1{place}" for place in range(2)], wires


@contextmanager
def open_cluster(place: Path, *, as_machines: bool = False) -> Iterator[Cluster]:
    """Start a cluster; on leaving it is gone.

    Args:
        place: An empty directory, which may be read by all.
        as_machines: Whether each node has a network of its own.
    """
    mark = os.getpid() % 100_000
    nodes = [f"kn{mark}a", f"kn{mark}b"]
    with ExitStack() as stack:
        ours, theirs, wires = "127.0.0.1", ["127.0.1.1", "127.0.1.2"], []
        if as_machines:
            ours, theirs, wires = stack.enter_context(_namespaces(mark, nodes))
        cluster = Cluster(place, nodes, ours, wires)
        for node in nodes if as_machines else ():
            # Not `ip netns exec`, which hides control groups.
            cluster._prefixes[node] = ["nsenter", f"--net=/run/netns/{node}"]
        _configure(cluster, f"k{mark}", ours, theirs)
        stack.callback(_remove_groups, nodes)
        stack.callback(cluster.stop_all)
        munge = place / "munge"
        cluster.start(
            *("munged", "munged", "--foreground", "--force", "--num-threads=2", f"--key-file={munge}/key"),
            *(f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed"),
            f"--log-file={munge}/log",
        )
        _wait((munge / "socket").exists, "munged does not come up")
        cluster.start_controller()
        for node in nodes:
            cluster.start_node(node)
        cluster.wait_up()
        yield cluster
        for job_id in cluster.jobs():
            cluster.run("scancel", "--signal=KILL", "--full", job_id, check=False)
            cluster.run("scancel", job_id, check=False)
        cluster.wait_empty()


def use(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Give a test a cluster that runs, and see that it leaves nothing in the queue or on the nodes."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    # Somebody whose login does nothing, which may take seconds otherwise.
    monkeypatch.setenv("HOME", str(cluster.place / "home"))
    yield cluster
    cluster.wait_empty()


def _configure(cluster: Cluster, name: str, controller: str, addresses: Sequence[str]) -> None:
    place = cluster.place
    for folder in ("home", "state", "munge", *(f"spool.{node}" for node in cluster.nodes)):
        (place / folder).mkdir()
    (place / "munge").chmod(0o711)
    key = place / "munge" / "key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    text = CONFIGURATION.format(
        name=name, machine=socket.gethostname().partition(".")[0], controller=controller, place=place,
        ports=_free_ports(3), memory=WITH_GROUPS if can_limit_memory() else WITHOUT_GROUPS, nodes=cluster.nodes,
        addresses=addresses,
    )  # fmt: skip
    (place / "slurm.conf").write_text(text)
    if can_limit_memory():
        (place / "cgroup.conf").write_text(GROUPS)


def _remove_groups(nodes: Sequence[str]) -> None:
    """Remove the control groups that a node's daemon leaves behind."""
    for node in nodes:
        for top in Path("/sys/fs/cgroup").glob(f"*/slurm_{node}"):
            for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                top.rmdir()
