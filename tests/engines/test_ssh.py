"""Kernels on a machine that is reached by SSH: a real sshd, real hosts, and all that can go wrong on the way."""

from __future__ import annotations

import os
import random
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from far_machine import FarMachine, kill_ssh, make_key, open_far_machine, ssh_processes
from hosts import CONTROL, IOPUB, SHELL, connect_all, read, read_line, tell, wait_gone
from kallichore.engines import ssh
from kallichore.engines.engine import EngineServices
from kallichore.engines.host_link import HostLink
from kallichore.engines.ssh import SshJob, open_engine
from kallichore.errors import EngineError, HostGoneError
from plain_kernel import lines
from ssh_setting import PATIENCE, SLEEP, Setting, wait_until

if sys.platform != "linux":
    pytest.skip("processes are looked at through pidfds", allow_module_level=True)

MOST_KILLS = 3
"""Connections that are lost in a flood."""

LOSE_THE_FIRST = """#!/bin/sh
# An ssh whose connection is cut when the host over there has started for the first time, and before it is told.
case "$*" in *" -") ;; *) exec ssh "$@" ;; esac
mkdir '{mark}' 2>/dev/null || exec ssh "$@"
{lost}
echo 'client_loop: send disconnect: Broken pipe' >&2
exit 255
"""


@pytest.fixture
async def setting(private_place: Path) -> AsyncIterator[Setting[FarMachine]]:
    """A machine and an engine."""
    async with open_far_machine(private_place / "m") as machine:
        services = EngineServices(private_place, "owner", lambda: None)
        async with open_engine(services) as engine:
            yield Setting(machine, engine)


async def test_kernel_runs_over_there_and_nothing_is_left(setting: Setting[FarMachine]) -> None:
    """It is started, reached, does what it is told, tells its exit code, and is gone with all that it had."""
    async with setting.open_job() as job:
        [directory] = setting.machine.directories()
        async with setting.open_link(job) as link:
            await connect_all(link)
            link.send(SHELL, b"there and back")
            data = await read(link, SHELL, 14)
            told = link.hello
            tell(link, "exit 7")
            await link.ended.wait()
        explanation = await job.explain(None)
        mode = stat.S_IMODE(directory.stat().st_mode)

    assert b"there and back" == data
    assert ("far", "on far", None) == (job.node, job.name, job.time_left)
    assert told.connection is not None
    assert ("k", "plain") == (told.connection["key"], told.connection["kernel_name"])
    assert link.ending is not None
    assert 7 == link.ending.code
    assert "" == explanation
    assert 0o700 == mode
    assert [] == setting.machine.directories()
    assert setting.cuts == [None]


async def test_signal_arrives_and_what_it_does_is_told(setting: Setting[FarMachine]) -> None:
    """A signal goes through the stream, and a kernel that it ends was ended by it."""
    async with setting.open_job(SLEEP) as job, setting.open_link(job) as link:
        link.signal(signal.SIGINT)
        await link.ended.wait()

    assert link.ending is not None
    assert (None, signal.SIGINT) == (link.ending.code, link.ending.signal)


async def test_nothing_is_missing_and_nothing_comes_twice_while_ssh_is_killed(setting: Setting[FarMachine]) -> None:
    """A flood goes through however often the connection is lost, in order; that is told, and so is its end."""
    kills, rounds, data = 0, 0, bytearray()

    async def kill_again_and_again() -> None:
        nonlocal kills
        while True:
            await wait_until(lambda: setting.cuts[-1] is None)
            await trio.sleep(random.uniform(0.3, 1.0))
            kills += kill_ssh()
            await wait_until(lambda: setting.cuts[-1] is not None)

    async with setting.open_job() as job, setting.open_link(job) as link:
        await connect_all(link)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_again_and_again)
            while kills < MOST_KILLS:
                rounds += 1
                tell(link, "flood 5000 100")
                data += await read(link, IOPUB, 500_000)
            nursery.cancel_scope.cancel()
        tell(link, "say all")
        last = await read_line(link, CONTROL)

    assert lines(5000, 100) * rounds == bytes(data)
    assert b"all" == last
    assert not link.channels[IOPUB].pieces
    assert setting.cuts.count(None) >= MOST_KILLS


async def test_kernel_computes_on_while_its_machine_cannot_be_reached(setting: Setting[FarMachine]) -> None:
    """With the sshd gone the reason is told, in ssh's words; when it is back, what was computed meanwhile arrives."""
    async with setting.open_job() as job, setting.open_link(job) as link:
        await connect_all(link)
        tell(link, "flood 200000 100")
        data = await read(link, IOPUB, 50_000)
        setting.machine.go()
        await wait_until(lambda: any("Connection refused" in (told or "") for told in setting.cuts))
        link.send(SHELL, b"sent meanwhile")
        await setting.machine.come()
        answer = await read(link, SHELL, 14)
        data += await read(link, IOPUB, 20_000_000 - len(data))

    assert b"sent meanwhile" == answer
    assert lines(200_000, 100) == data
    assert setting.cuts[-1] is None


async def test_next_server_finds_the_host_by_its_ticket(setting: Setting[FarMachine]) -> None:
    """Leaving the block leaves the kernel as it is; who has the ticket goes on with it, and starts no second one."""
    order = setting.order()
    ticket = setting.engine.ticket(order)
    with trio.fail_after(PATIENCE):
        async with setting.engine.open_job(order, ticket, setting.waits.append, is_new=True) as job:
            async with setting.open_link(job) as link:
                await connect_all(link)
                pid = link.hello.pid
        await wait_until(lambda: ssh_processes() == [])
        async with setting.engine.open_job(order, ticket, setting.waits.append, is_new=False) as job:
            async with setting.open_link(job) as link:
                again = link.hello.pid
            await job.end()

    assert pid == again
    assert [] == setting.machine.directories()


async def test_host_that_is_not_there_is_gone(setting: Setting[FarMachine]) -> None:
    """Who was never started, and who was killed, is not taken for one that cannot be reached."""
    order, engine = setting.order(), setting.engine
    with trio.fail_after(PATIENCE):
        async with engine.open_job(order, engine.ticket(order), setting.waits.append, is_new=False) as job:
            with pytest.raises(HostGoneError, match=r"^its host was ended on far, and has left nothing there$"):
                await job.connect()
    async with setting.open_job(SLEEP) as job:
        async with setting.open_link(job) as link:
            os.kill(link.hello.host_pid, signal.SIGKILL)
            await link.lost.wait()
        explanation = await job.explain(None)

    assert "its host was ended on far, and has left nothing there" == link.why_lost
    assert "" == explanation


@pytest.mark.parametrize("is_late", [False, True])
async def test_start_whose_answer_is_lost_makes_one_host(setting: Setting[FarMachine], is_late: bool) -> None:
    """Where it is not known whether it was started that is looked up; one that comes late is not a second one."""
    program, mark = setting.machine.place / "ssh", setting.machine.place / "lost"
    late = 'cat >"$0.told"; (sleep 1.5; ssh "$@" <"$0.told"; mkdir "$0.done") </dev/null >"$0.said" 2>&1 &'
    program.write_text(LOSE_THE_FIRST.format(mark=mark, lost=late if is_late else 'ssh "$@" >/dev/null'))
    program.chmod(0o700)
    async with setting.open_job(ssh=str(program)) as job, setting.open_link(job) as link:
        await connect_all(link)
        link.send(SHELL, b"one")
        data = await read(link, SHELL, 3)
        if is_late:
            await wait_until(Path(f"{program}.done").is_dir)
        directories = setting.machine.directories()

    assert mark.is_dir()
    assert b"one" == data
    assert 1 == len(directories)
    assert ["Broken pipe" in each.reason for each in setting.waits if each is not None] == [True]
    assert [] == setting.machine.directories()


Spoil = Callable[[FarMachine], Mapping[str, Any]]


def _forget(machine: FarMachine) -> Mapping[str, Any]:
    (machine.place / "known_hosts").write_text("")
    return {}


def _change_key(machine: FarMachine) -> Mapping[str, Any]:
    make_key(machine.place / "other")
    machine.trust("other")
    return {}


def _lock_out(machine: FarMachine) -> Mapping[str, Any]:
    (machine.place / "authorized_keys").write_text("")
    return {}


def _leave(machine: FarMachine) -> Mapping[str, Any]:
    machine.go()
    return {}


def _close_account(machine: FarMachine) -> Mapping[str, Any]:
    machine.configure("ForceCommand echo This account is currently not available.; exit 1\n")
    return {}


def _say_nothing(machine: FarMachine) -> Mapping[str, Any]:
    machine.is_silent = True
    return {"options": ["ConnectTimeout=1"]}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_forget, "does not trust it, as its host key is not known here: No ED25519 host key is known for far"),
        (_change_key, "does not trust it, as its host key is another than before: Host key for far has changed"),
        (_lock_out, r"is not let in: \w+@127.0.0.1: Permission denied \(publickey\)"),
        (_leave, "cannot reach it: ssh: connect to host 127.0.0.1 port .*: Connection refused"),
        (_close_account, "could run nothing there: This account is currently not available"),
        (_say_nothing, "cannot reach it: Connection timed out during banner exchange"),
        (lambda _: {"host": "no-such-machine.invalid"}, "does not know its name: ssh: Could not resolve hostname"),
        (lambda _: {"python": "/nowhere/python3"}, "finds no Python there: .*/nowhere/python3: No such file"),
        (lambda _: {"ssh": "/nowhere/ssh"}, "cannot be run here: /nowhere/ssh: No such file or directory"),
        (lambda machine: {"config": f"{machine.place}/none"}, "cannot work with its configuration: Can't open user"),
    ],
)
async def test_what_does_not_work_is_said_at_once(setting: Setting[FarMachine], spoil: Spoil, words: str) -> None:
    """A start that cannot be is refused with ssh's own words, and a check says the same."""
    options = spoil(setting.machine)
    with pytest.raises(EngineError, match=f"^ssh to .* {words}"):
        async with setting.open_job(**options) as job:
            await job.connect()
            raise AssertionError("it was started")
    [problem] = await setting.engine.check({**setting.machine.options, **options})

    assert problem.startswith("ssh to ")
    assert [] == setting.machine.directories()


def old_pythons() -> list[str]:
    """Return Pythons of this machine that are too old."""
    managed = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    found = [path for version in ("2.7", "3.6", "3.7") for path in managed.glob(f"{version}.*/bin/python")]
    return [str(path) for path in found]


async def test_python_that_is_too_old_says_so(setting: Setting[FarMachine]) -> None:
    """A Python before 3.8 is the reason, and its version is told."""
    pythons = old_pythons()
    if not pythons:
        pytest.skip("there is no Python before 3.8 here")
    for python in pythons:
        with pytest.raises(EngineError, match=r"Python 3\.8 or later is needed here, and this is \d"):
            async with setting.open_job(python=python):
                raise AssertionError("it was started")
        [problem] = await setting.engine.check({**setting.machine.options, "python": python})

        assert "Python 3.8 or later is needed" in problem


async def test_configuration_may_be_in_the_home(setting: Setting[FarMachine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration's path is understood as in a shell."""
    monkeypatch.setenv("HOME", str(setting.machine.place))

    assert [] == list(await setting.engine.check({**setting.machine.options, "config": "~/config"}))


async def test_profile_that_can_be_used_has_no_problems(setting: Setting[FarMachine]) -> None:
    """A check connects, looks for a Python and a private directory, and leaves nothing behind."""
    assert [] == list(await setting.engine.check(setting.machine.options))
    assert [] == setting.machine.directories()


async def test_kernel_that_is_installed_over_there_is_used(setting: Setting[FarMachine]) -> None:
    """With the name of a kernel of that machine its command is run there: a real one is met at its five sockets."""
    options = {"python": sys.executable, "kernelspec": "python3"}
    specs = await setting.engine.kernelspecs({**setting.machine.options, **options})
    async with setting.open_job((), **options) as job, setting.open_link(job) as link:
        told = link.hello.connection
        assert told is not None
        for channel, name in enumerate(("shell", "iopub", "stdin", "control", "hb")):
            await _connect(link, channel, told["ip"], told[f"{name}_port"])
        command = psutil.Process(link.hello.pid).cmdline()

    assert specs is not None
    assert "python" == specs["python3"]["language"]
    assert "ipykernel_launcher" in command
    assert [] == list(await setting.engine.check({**setting.machine.options, **options}))


async def _connect(link: HostLink, channel: int, ip: str, port: int) -> None:
    """Connect a channel as soon as the kernel listens."""
    while True:
        try:
            await link.open(channel, "inet", [ip, port])
            return
        except ConnectionRefusedError:
            await trio.sleep(0.05)


async def test_kernel_that_is_not_installed_over_there_is_refused(setting: Setting[FarMachine]) -> None:
    """The kernels that are there are named; so they are where no kernel is named at all."""
    options = {"python": sys.executable, "kernelspec": "cobol"}
    with pytest.raises(EngineError, match=r"There is no kernel 'cobol' on far; installed there: .*python3"):
        async with setting.open_job((), **options):
            raise AssertionError("it was started")
    [problem] = await setting.engine.check({**setting.machine.options, **options})
    with pytest.raises(EngineError, match=r"engine\.kernelspec names no kernel"):
        async with setting.open_job(()):
            raise AssertionError("it was started")

    assert problem.startswith("There is no kernel 'cobol' on far")


async def test_greeting_of_a_login_shell_disturbs_nothing(setting: Setting[FarMachine]) -> None:
    """What is printed over there before our programs run is not taken for theirs."""
    setting.machine.configure("ForceCommand printf 'Welcome! ready {} <kall'; eval \"$SSH_ORIGINAL_COMMAND\"\n")
    async with setting.open_job() as job, setting.open_link(job) as link:
        await connect_all(link)
        tell(link, "say hello")

        assert b"hello" == await read_line(link, CONTROL)


async def test_cancelled_start_leaves_nothing(setting: Setting[FarMachine], tmp_path: Path) -> None:
    """Who gives up a start has no host over there, and no ssh here."""
    python = tmp_path / "python"
    # A start goes on for as long as somebody listens: so it is not over when it is cancelled, however slow we are.
    goes_on = 'if [ "$1" = - ]; then while printf .; do sleep 0.05; done; fi'
    python.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\n{goes_on}\n')
    python.chmod(0o700)
    order = setting.order(SLEEP, python=str(python))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await wait_until(lambda: setting.machine.directories() != [])
                scope.cancel()

            nursery.start_soon(cancel)
            async with setting.engine.open_job(order, setting.engine.ticket(order), setting.waits.append, is_new=True):
                await trio.sleep_forever()
    await wait_until(lambda: setting.machine.directories() == [])

    assert scope.cancelled_caught
    assert [] == ssh_processes()


async def test_cancelled_connection_leaves_no_ssh(setting: Setting[FarMachine]) -> None:
    """Who gives up connecting leaves neither a process nor a descriptor that others would wait for."""
    async with setting.open_job(SLEEP) as job:
        setting.machine.is_silent = True
        with trio.move_on_after(0.3) as scope:
            await job.connect()
        await wait_until(lambda: ssh_processes() == [])
        setting.machine.is_silent = False

    assert scope.cancelled_caught


async def test_connection_that_is_being_opened_when_its_job_is_ended_is_refused(setting: Setting[FarMachine]) -> None:
    """Who waits for it is told that there will be none now, and nothing waits on."""
    refused = []

    async def connect(job: SshJob) -> None:
        with pytest.raises(OSError, match="ssh to far lost the connection: it was hung up here"):
            await job.connect()
        refused.append(True)

    async with setting.open_job(SLEEP) as job:
        setting.machine.is_silent = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, job)
            await wait_until(lambda: ssh_processes() != [])
            setting.machine.is_silent = False
            await job.end()

    assert [True] == refused
    assert [] == setting.machine.directories()


async def test_end_that_is_given_up_is_made_up_for(
    setting: Setting[FarMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no time to wait for the end of a kernel leaves it to the engine."""
    monkeypatch.setattr(ssh, "SWEEP_PAUSES", (0.1,) * 100)
    async with setting.open_job(SLEEP) as job:
        setting.machine.is_silent = True
        with trio.move_on_after(0.2):
            await job.end()
        setting.machine.is_silent = False
        setting.machine.go()
        await setting.machine.come()
        await wait_until(lambda: setting.machine.directories() == [])


async def test_what_could_not_be_ended_is_in_the_log(private_place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server goes before a kernel could be ended, its log says where that is."""
    services = EngineServices(private_place, "owner", lambda: None)
    async with open_far_machine(private_place / "m") as machine:
        async with open_engine(services) as engine:
            setting = Setting(machine, engine)
            order = setting.order(SLEEP)
            ticket = engine.ticket(order)
            async with engine.open_job(order, ticket, setting.waits.append, is_new=True) as job:
                machine.go()
                await job.end()
        await machine.come()
        [directory] = machine.directories()
        async with open_engine(services) as engine:
            async with engine.open_job(order, ticket, setting.waits.append, is_new=False) as job:
                await job.end()

    assert f"A kernel on far could not be ended; its directory there is {directory.name}" in caplog.messages


async def test_each_connection_takes_the_place_of_the_one_before(setting: Setting[FarMachine]) -> None:
    """A connection that hangs has an ssh that hangs; the next has its own, and one is enough."""
    async with setting.open_job(SLEEP) as job:
        first = await job.connect()
        second = await job.connect()
        with first, second:
            await trio.lowlevel.wait_readable(first)
            await wait_until(lambda: len(ssh_processes()) == 1)
        await wait_until(lambda: ssh_processes() == [])


async def test_machine_that_does_not_answer_is_not_waited_for_without_an_end(
    setting: Setting[FarMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection on which nothing comes has a bound, and is no death."""
    async with setting.open_job(SLEEP) as job:
        setting.machine.is_silent = True
        with monkeypatch.context() as patch:
            patch.setattr(ssh, "PATIENCE", 0.5)
            patch.setattr(ssh, "END_PATIENCE", 0.5)
            with pytest.raises(OSError, match="ssh to far does not answer: nothing came for"):
                await job.connect()
            explanation = await job.explain(None)
        setting.machine.is_silent = False

    assert explanation.startswith("cannot be asked about: ssh to far does not answer")


async def test_what_could_not_be_ended_is_ended_later(
    setting: Setting[FarMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel whose machine is out of reach when it is ended is ended when the machine is back."""
    monkeypatch.setattr(ssh, "SWEEP_PAUSES", (0.1,) * 100)
    async with setting.open_job(SLEEP) as job:
        async with setting.open_link(job) as link:
            pid = link.hello.pid
        setting.machine.go()
        await job.end()
        there = setting.machine.directories()
        await setting.machine.come()
        await wait_until(lambda: setting.machine.directories() == [])
    assert pid is not None
    await wait_gone(pid)

    assert 1 == len(there)


async def test_engine_that_is_closed_has_no_processes(private_place: Path) -> None:
    """What it ran here is ended with it; what runs over there is not."""
    async with open_far_machine(private_place / "m") as machine:
        services = EngineServices(private_place, "owner", lambda: None)
        async with open_engine(services) as engine:
            setting = Setting(machine, engine)
            order = setting.order(SLEEP)
            ticket = engine.ticket(order)
            async with engine.open_job(order, ticket, setting.waits.append, is_new=True) as job:
                connection = await job.connect()
        connection.close()
        after = ssh_processes(), len(machine.directories())
        async with open_engine(services) as engine:
            async with engine.open_job(order, ticket, setting.waits.append, is_new=False) as job:
                await job.end()

    assert ([], 1) == after
