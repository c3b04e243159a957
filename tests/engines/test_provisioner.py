"""Kernels that Jupyter's provisioners launch, good ones and bad ones, each with the program that runs them for real."""

from __future__ import annotations

import ast
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from engines.provisioning import (
    install_odd_provisioners,
    notes_of,
    open_provisioning,
    provisioned,
    until,
    wait_noted,
)
from kallichore.engines.provisioner import ProvisionerOrder
from kallichore.engines.provisioner_process import Patience, ProgramProcess, open_program
from kallichore.errors import EngineError, StartupError
from kallichore.models.bodies import KernelProvisioner, NewSession, Status, VarAction, VarActionType
from kernels import REAL_TIME, ipykernel_argv, scripted

pytestmark = pytest.mark.posix_only("processes that are found again by their numbers")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where our own provisioners, which are installed for the test, note what happens."""
    return install_odd_provisioners(monkeypatch, tmp_path)


def printed(session: Any) -> str:
    """Return what a session's client would be told."""
    return b"".join(session.conversation.journal.read(0, 1 << 30, 1 << 30).payloads).decode()


async def test_kernel_of_a_provisioner_runs_code(place: Path) -> None:
    """It starts, runs code, is restarted and ends; its provisioner is told of each end, and cleans up behind it."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place))
            await session.start()
            first = (await session.run("print one")).text
            await session.restart()
            second = (await session.run("print two")).text

    assert ("one\n", "two\n") == (first, second)
    told = [note for note in notes_of(place) if not note.startswith(("launched", "environment"))]
    assert ["shutdown_requested True", "cleanup True", "shutdown_requested False", "cleanup False"] == told


async def test_ipykernel_by_jupyters_own_local_provisioner() -> None:
    """jupyter_client's own does it too, where it is asked for by name: with a process of this machine, interrupts and
    an exit code that can be relied on.
    """
    wanted = KernelProvisioner(provisioner_name="local-provisioner")
    request = NewSession(session_id="s", argv=ipykernel_argv(), kernel_provisioner=wanted, interrupt_mode="signal")
    with trio.fail_after(2 * REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(request)
            await session.start()
            pid = session.process_id
            result = await session.run("import os; print(os.getpid())")
            async with trio.open_nursery() as nursery:
                interrupted: list[Any] = []

                async def loop() -> None:
                    interrupted.append(await session.run("import time\nwhile True: time.sleep(0.01)"))

                nursery.start_soon(loop)
                await until(lambda: session.status is Status.BUSY)
                session.interrupt()
            async with session.execute("import os; os._exit(7)"):
                await session.wait_ended()
            code = session.conversation.last_exit

    assert f"{pid}\n" == result.text
    assert "KeyboardInterrupt" == interrupted[0].error.name
    assert code is not None
    assert 7 == code.exit_code


@pytest.mark.parametrize(("by", "has_path"), [("odd-provisioner", True), ("kubernetes-provisioner", False)])
async def test_environment_elsewhere_is_chosen(
    place: Path, monkeypatch: pytest.MonkeyPatch, by: str, has_path: bool
) -> None:
    """A kernel elsewhere has what its session sets and what says who and in which language, and not all of ours. A
    process on this machine that launches it has our PATH besides, unless that would go into a pod.
    """
    monkeypatch.setenv("A_SECRET", "1")
    monkeypatch.setenv("KERNEL_ONE", "1")
    own = (VarAction(VarActionType.REPLACE, "MINE", "a$b"), VarAction(VarActionType.REPLACE, "PRINTED", "$HOME"))
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place, by=by, env=own))
            await session.start()
            pid = int((await wait_noted(place, "launched")).split()[1])
            of_process = psutil.Process(pid).environ()
            names = ast.literal_eval((await wait_noted(place, "environment")).removeprefix("environment "))

    assert {"MINE", "PRINTED", "KERNEL_ONE", "HOME"} <= {*names}
    assert set() == {"A_SECRET", "PATH", "PYTHONPATH"} & {*names}
    assert (has_path, False) == ("PATH" in of_process, "A_SECRET" in of_process)
    assert ("a$b", "$HOME") == (of_process["MINE"], of_process["PRINTED"])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuse", "'odd-provisioner' could not launch the kernel: RuntimeError: no room on planet B"),
        ("leave", "'odd-provisioner' could not launch the kernel: SystemExit: 3"),
        ("nowhere", "'odd-provisioner' could not launch the kernel: The provisioner 'odd-provisioner' says"),
    ],
)
async def test_launch_that_fails_is_told_by_name(place: Path, fault: str, told: str) -> None:
    """What a provisioner says of a launch that it could not do is the error; what it did nevertheless is undone."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place, fault))
            with pytest.raises(StartupError) as info:
                await session.start()
            other = server.create_session(provisioned("other", place))
            await other.start()

    assert told in info.value.message
    assert ("KS-5", Status.EXITED) == (info.value.code, session.status)


async def test_unknown_provisioner_and_setting_are_told(place: Path) -> None:
    """One that is not installed is told with those that are, and a setting that it cannot have by its name."""
    wanted = (
        KernelProvisioner(provisioner_name="mars-provisioner"),
        KernelProvisioner(provisioner_name="odd-provisioner", config={"fault": 7}),
    )
    errors = []
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            for number, each in enumerate(wanted):
                request = NewSession(session_id=f"{number}", argv=("k",), kernel_provisioner=each)
                with pytest.raises(StartupError) as info:
                    await server.create_session(request).start()
                errors.append(info.value.message)

    assert "'mars-provisioner' could not launch the kernel" in errors[0]
    known = "finder-provisioner, kubernetes-provisioner, local-provisioner, odd-provisioner"
    assert f"not installed here; there are {known}" in errors[0]
    assert "'fault' trait" in errors[1]


async def test_what_is_missing_for_provisioners_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without jupyter_client, the start says how to install it; and it is tried again at the next start."""
    (tmp_path / "jupyter_client").mkdir()
    (tmp_path / "jupyter_client" / "__init__.py").write_text("raise ImportError('No jupyter_client here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    errors = []
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            wanted = KernelProvisioner(provisioner_name="local-provisioner")
            session = server.create_session(scripted("s", kernel_provisioner=wanted))
            for _ in range(2):
                with pytest.raises(StartupError) as info:
                    await session.start()
                errors.append(info.value.message)

    assert 2 == len(errors)
    for error in errors:
        assert "No jupyter_client here; python -m pip install 'kallichore[provisioners]'" in error


async def test_program_that_ends_at_its_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the program of all provisioners does not come to its start, nobody waits for it."""
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            wanted = KernelProvisioner(provisioner_name="local-provisioner")
            with pytest.raises(StartupError) as info:
                await server.create_session(scripted("s", kernel_provisioner=wanted)).start()

    assert "the program that runs them ended at its start" in info.value.message


async def test_kernels_end_with_a_server_that_was_killed(place: Path) -> None:
    """At the end of its input the program ends all that it has launched, one that is being launched too."""
    with trio.fail_after(REAL_TIME):
        async with (
            trio.open_nursery() as nursery,
            open_program(place, Patience(), lambda *_: None, nursery) as program,
        ):
            nursery.start_soon(program.run)
            await program.wait_ready()
            for kernel_id, fault in (("one", ""), ("two", "slow-launch")):
                nursery.start_soon(launch_in_vain, program, provisioned(kernel_id, place, fault))
            pids = await until(lambda: pids_launched(place, 2))
            (place / "go").touch()
            # As a server that is killed does.
            await program._process.stdin.aclose()  # type: ignore[union-attr]
            await program._process.wait()

    assert [False, False] == [psutil.pid_exists(pid) for pid in pids]
    assert 2 == notes_of(place).count("cleanup False")


async def launch_in_vain(program: ProgramProcess, request: NewSession) -> None:
    """Have a kernel launched; the answer may not come any more."""
    assert request.kernel_provisioner is not None
    order = ProvisionerOrder(
        session_id=request.session_id,
        wanted=request.kernel_provisioner,
        argv=request.argv,
        environment={},
        own=frozenset(),
        working_directory=None,
        key="key",
    )
    with suppress(EngineError):
        await program.ask("launch", order.kernel_id, **order.launching)


def pids_launched(place: Path, number: int) -> list[int]:
    """Return the processes that were launched, once there are so many."""
    pids = [int(note.split()[1]) for note in notes_of(place) if note.startswith("launched")]
    return pids if len(pids) == number else []


async def test_launch_that_is_given_up_is_undone_when_it_is_done(place: Path) -> None:
    """A launch that hangs is told as what the session waits for. Nobody waits for it once the session is to end; it
    goes on, and what comes of it is killed.
    """
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place, "slow-launch"))
            errors: list[StartupError] = []

            async def start() -> None:
                with pytest.raises(StartupError) as info:
                    await session.start()
                errors.append(info.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                pid = int((await wait_noted(place, "launched")).split()[1])
                pending = session.describe().pending
                session.begin_stop()
            alive_before = psutil.pid_exists(pid)
            (place / "go").touch()
            await wait_noted(place, "cleanup")

    assert "'odd-provisioner' has not launched the kernel" in errors[0].message
    assert pending is not None
    assert "The provisioner 'odd-provisioner' launches it" == pending.reason
    assert ("KS-8", True, False) == (errors[0].code, alive_before, psutil.pid_exists(pid))


async def test_launch_has_a_limit(place: Path) -> None:
    """A launch that takes longer than it may is an error with the provisioner's name, and is undone."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning(launch=0.1) as server:
            session = server.create_session(provisioned("s", place, "slow-launch"))
            with pytest.raises(StartupError) as info:
                await session.start()
            (place / "go").touch()
            await wait_noted(place, "cleanup")

    assert ("KS-5", True) == (info.value.code, "'odd-provisioner' has not launched the kernel" in info.value.message)


async def test_code_that_a_provisioner_tells_is_no_certainty(place: Path) -> None:
    """A 0 from a provisioner is no word that all was well: the end is told as one of which nobody knows how it was."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place, "liar"))
            await session.start()
            async with session.execute("exit 7"):
                await session.wait_ended()
            report = session.conversation.last_exit

    assert report is not None
    assert -1 == report.exit_code
    assert report.text.startswith("The kernel ended; its provisioner 'odd-provisioner' does not say how")


async def test_question_that_fails_is_no_death(place: Path) -> None:
    """A provisioner that cannot say whether the kernel is there is told once by name, and the kernel computes on."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            session = server.create_session(provisioned("s", place, "forgetful"))
            await session.start()
            await until(lambda: "does not say whether" in printed(session))
            result = await session.run("print on")
            (place / "remember").touch()

    assert "on\n" == result.text
    assert 1 == printed(session).count("'odd-provisioner' does not say whether the kernel is there: ConnectionError")


async def test_kernel_that_cannot_be_killed_is_given_up(place: Path) -> None:
    """Where a provisioner fails to end a kernel, the session ends all the same, and tells that it may be left."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning(kill=2) as server:
            session = server.create_session(provisioned("s", place, "immortal", "ignore-shutdown"))
            await session.start()
            pid = int((await wait_noted(place, "launched")).split()[1])
            session.begin_stop(hurry=True)
            await session.wait_ended()
            report = session.conversation.last_exit
            psutil.Process(pid).kill()

    assert report is not None
    assert "provisioner 'odd-provisioner' could not kill it: RuntimeError: planet B is out of reach" in report.text


async def test_provisioner_that_blocks_is_replaced_and_others_go_on(place: Path) -> None:
    """The process of all is replaced, by the name of who blocked it; kernels are found again, and code runs on."""
    with trio.fail_after(2 * REAL_TIME):
        async with open_provisioning(ping=0.1, loop=1.5) as server:
            bad = server.create_session(provisioned("bad", place, "block"))
            good = server.create_session(provisioned("good", place, by="finder-provisioner"))
            ours = server.create_session(scripted("ours"))
            for session in (bad, good, ours):
                await session.start()
            (place / "block").touch()
            await wait_noted(place, "found")
            (place / "block").unlink()
            texts = [(await session.run(f"print {session.session_id}")).text for session in (good, ours)]
            good.kill()
            await good.wait_ended()
            told = printed(bad)

    assert ["good\n", "ours\n"] == texts
    assert "The provisioner 'odd-provisioner' blocks in poll for 1.5 s (odd_provisioners.py:" in told
    assert "replaced" not in printed(good)


async def test_launch_that_blocks_is_told_by_name(place: Path) -> None:
    """A start whose provisioner blocks the process of all fails with its name and the line that it is in."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning(ping=0.1, loop=2) as server:
            session = server.create_session(provisioned("s", place, "block-launch"))
            with pytest.raises(StartupError) as info:
                await session.start()
            other = server.create_session(provisioned("other", place))
            await other.start()

    told = "The provisioner 'odd-provisioner' could not launch the kernel: it blocks in launch for 2 s (odd_prov"
    assert info.value.message.startswith(told)


async def test_program_of_provisioners_has_nothing_of_ours_that_is_on_trio() -> None:
    """It has an asyncio loop, and imports neither Trio nor what is made for it."""
    code = "import sys, kallichore.engines.provisioner_program; print({'trio', 'zmq', 'quart'} & {*sys.modules})"
    done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)

    assert b"set()\n" == done.stdout


async def test_local_kernel_outlives_the_program_of_its_provisioner() -> None:
    """jupyter_client's own provisioner cannot find a kernel again; as a process of this machine it is watched,
    signalled and ended without it.
    """
    wanted = KernelProvisioner(provisioner_name="local-provisioner")
    request = scripted("s", kernel_provisioner=wanted)
    with trio.fail_after(2 * REAL_TIME):
        async with open_provisioning(ping=0.1, loop=2) as server:
            session = server.create_session(request)
            await session.start()
            assert server.facilities.provisioners is not None
            program = server.facilities.provisioners()._program
            assert program is not None
            program._process.send_signal(signal.SIGSTOP)
            await program.gone.wait()
            result = await session.run("print on")
            await until(lambda: session.supervisor.life.process.is_alone)  # type: ignore[union-attr]
            session.kill()
            await session.wait_ended()
            report = session.conversation.last_exit

    assert "on\n" == result.text
    assert report is not None
    assert "had been replaced" in report.text


async def test_server_that_needs_no_provisioner_has_no_program() -> None:
    """The program is started for the first kernel of a provisioner, and not before."""
    with trio.fail_after(REAL_TIME):
        async with open_provisioning() as server:
            await server.create_session(scripted()).start()
            children = [child.cmdline() for child in psutil.Process().children()]

    assert [] == [line for line in children if any("provisioner_program" in word for word in line)]
