"""How starts go wrong, and what the user is told: every failure ends the process and says what it printed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from kallichore.config import ServerConfig
from kallichore.errors import KernelDiedError, StartupError
from kallichore.models.bodies import NewSession, Status, VarAction, VarActionType
from kallichore.server import open_server
from kallichore.wire.envelope import KernelReader
from kernels import KILLED, REAL_TIME, START_LIMIT, freeze, has_ended, scripted, scripted_argv

FAST = ServerConfig(token=None, shutdown_grace=0.5, terminate_grace=0.5)


async def fail_to_start(request: Any) -> tuple[StartupError, Any]:
    """Start a session that must not start; return the error and the session."""
    async with open_server(FAST) as server:
        session = server.create_session(request)
        with trio.fail_after(REAL_TIME), pytest.raises(StartupError) as info:
            await session.start()
        assert session.status is Status.EXITED
        assert session.process_id is None
        assert not session.is_running
        server.delete_session(session.session_id)
    return info.value, session


def journal_of(session: Any) -> list[bytes]:
    """Return what a session's client would be told."""
    return list(session.conversation.journal.read(0, 1 << 30, 1 << 30).payloads)


@pytest.mark.parametrize("code", [0, 3])
async def test_kernel_that_exits_at_once_is_reported_with_its_output(code: int) -> None:
    """Exit code and both streams of a kernel that ends while starting are in the error, also for code 0."""
    error, _ = await fail_to_start(scripted("s", f"exit-at-start={code}"))

    assert (error.code, error.exit_code) == ("KS-8", code)
    assert set((error.output or "").splitlines()) == {"last words on stdout", "last words on stderr"}
    assert "ended before it answered" in (error.details or "")


async def test_kernel_that_exits_when_asked_for_its_info_is_reported() -> None:
    """An exit between the connection and the kernel_info reply is an exit during start too."""
    error, _ = await fail_to_start(scripted("s", "exit-before-info=7"))

    assert (error.code, error.exit_code) == ("KS-8", 7)


@pytest.mark.parametrize("behaviour", ["never-bind", "deaf"])
async def test_kernel_that_cannot_be_reached_is_ended_after_the_timeout(behaviour: str) -> None:
    """No sockets, or open sockets with nobody behind, are KS-7 with exit code 130 after connection_timeout."""
    error, _ = await fail_to_start(scripted("s", behaviour, connection_timeout=1))

    assert (error.code, error.exit_code) == ("KS-7", 130)
    assert "1 seconds" in error.message


@pytest.mark.posix_only("permissions to execute")
async def test_program_that_cannot_be_executed_is_reported_with_the_system_error(private_place: Path) -> None:
    """A file without execute permission is accepted at creation and fails at start with the system's error number."""
    program = private_place / "program"
    program.write_text("text")
    error, _ = await fail_to_start(NewSession(session_id="s", argv=(str(program),)))
    program.unlink()

    assert (error.code, error.exit_code) == ("KS-5", 13)


@pytest.mark.posix_only("shells around kernels")
async def test_missing_startup_script_is_reported() -> None:
    """A startup script that is not there fails the start before anything is launched."""
    error, _ = await fail_to_start(
        scripted("s", startup_environment="script", startup_environment_arg="/no/such/script")
    )

    assert error.code == "KS-5"
    assert "/no/such/script" in error.message


@pytest.mark.posix_only("shells around kernels")
async def test_failing_startup_command_is_told_from_a_failing_kernel() -> None:
    """The details say whether the command failed or the kernel did; marker lines show nowhere."""
    failing, session = await fail_to_start(
        scripted("s", startup_environment="command", startup_environment_arg="echo trying; false")
    )
    succeeding, _ = await fail_to_start(
        scripted("s", "exit-at-start=4", startup_environment="command", startup_environment_arg="true")
    )

    assert "failed, so the kernel was not started" in (failing.details or "")
    assert "trying" in (failing.output or "")
    assert "KALLICHORE" not in (failing.output or "")
    assert b"KALLICHORE_STARTUP" not in b"".join(journal_of(session))
    assert succeeding.exit_code == 4
    assert "succeeded" in (succeeding.details or "")


async def test_kernel_that_registers_itself_starts() -> None:
    """A kernel of protocol 5.5 registers its ports, is told ok, and runs code; clients hear of the handshake."""
    async with open_server(FAST) as server:
        session = server.create_session(scripted("s", protocol_version="5.5"))
        info = await session.start()
        assert info["implementation"] == "scripted"
        assert any(b'"handshakeCompleted"' in payload for payload in journal_of(session))
        async with session.execute("print registered") as execution:
            texts = [message["content"]["text"] async for message in execution if "text" in message["content"]]
        assert texts == ["registered\n"]


async def test_bad_registration_does_not_spoil_the_start() -> None:
    """A badly signed registration is refused with an answer; the right one after it counts."""
    async with open_server(FAST) as server:
        session = server.create_session(scripted("s", "bad-registration", protocol_version="5.5"))
        assert (await session.start())["implementation"] == "scripted"


async def test_kernel_that_never_registers_is_ended_after_the_timeout() -> None:
    """A kernel of protocol 5.5 that does not register is KS-17."""
    error, _ = await fail_to_start(scripted("s", "never-register", protocol_version="5.5", connection_timeout=1))

    assert error.code == "KS-17"


async def test_kernel_that_exits_before_it_registers_is_reported() -> None:
    """An exit while the handshake is awaited is KS-14, with code and output."""
    error, _ = await fail_to_start(scripted("s", "exit-at-start=5", protocol_version="5.5"))

    assert (error.code, error.exit_code) == ("KS-14", 5)
    assert "last words on stdout" in (error.output or "")


@pytest.mark.parametrize("behaviour", ["burst=200", "bad-first", "no-iopub-status", "slow-info=0.3"])
async def test_oddities_before_the_kernel_info_reply_do_not_spoil_the_start(behaviour: str) -> None:
    """Bursts, forged replies, a silent iopub or a slow kernel do not keep a session from becoming idle."""
    async with open_server(FAST) as server:
        session = server.create_session(scripted("s", behaviour))
        info = await session.start()

        assert (info["status"], session.status) == ("ok", Status.IDLE)
        if behaviour == "burst=200":
            # The reply came over another socket, perhaps before the last of them. What is published next comes after.
            async with session.execute("print next") as execution:
                assert "next\n" in [message["content"].get("text") async for message in execution]
            bursts = [payload for payload in journal_of(session) if b"burst " in payload]
            assert [f"burst {number}\\n".encode() in bursts[number] for number in range(200)] == [True] * 200


async def test_timeout_of_zero_fails_at_once() -> None:
    """A connection_timeout of 0 leaves no time, and says so."""
    error, _ = await fail_to_start(scripted("s", connection_timeout=0))

    assert error.code == "KS-7"


async def test_kernel_that_ignores_everything_is_killed_after_the_grace_periods() -> None:
    """A kernel deaf to shutdown_request and SIGTERM, which Windows has not, is killed in the end."""
    async with open_server(FAST) as server:
        session = server.create_session(scripted("s", "ignore-shutdown", "ignore-sigterm"))
        await session.start()
        pid = session.process_id
        began = trio.current_time()
    assert pid is not None
    assert has_ended(pid)
    graces = FAST.shutdown_grace + (0 if sys.platform == "win32" else FAST.terminate_grace)
    assert graces <= trio.current_time() - began < 10


@pytest.mark.parametrize(
    "spoilt",
    [
        {"env": (VarAction(VarActionType.REPLACE, "A=B", "c"),)},
        {"env": (VarAction(VarActionType.REPLACE, "A", "\0"),)},
        {"argv": (*scripted().argv, "\0")},
    ],
    ids=["name", "value", "argument"],
)
async def test_what_no_process_can_be_given_fails_only_that_start(spoilt: dict[str, Any]) -> None:
    """A variable's name with an equals sign and zero bytes are KS-5, and the server goes on."""
    request = scripted()
    error, _ = await fail_to_start(attrs.evolve(request, **spoilt))

    assert error.code == "KS-5"


async def test_failure_of_ours_ends_one_session_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that breaks one session's life ends its kernel, says so, and disturbs nobody else."""
    original = KernelReader.read

    def break_for_one(reader: KernelReader, frames: Any) -> Any:
        if any(b"break me" in frame for frame in frames):
            raise RuntimeError("a bug of ours")
        return original(reader, frames)

    monkeypatch.setattr(KernelReader, "read", break_for_one)
    with trio.fail_after(REAL_TIME):
        async with open_server(FAST) as server:
            broken, other = server.create_session(scripted("broken")), server.create_session(scripted("other"))
            await broken.start()
            await other.start()
            pid = broken.process_id
            with pytest.raises(KernelDiedError, match="a bug of ours"):
                async with broken.execute("no-reply\nprint break me") as execution:
                    async for _ in execution:
                        pass
            async with other.execute("print fine") as execution:
                texts = [message["content"].get("text") async for message in execution]
            await broken.start()

    assert pid is not None
    assert has_ended(pid)
    assert "fine\n" in texts


async def test_restart_in_the_moment_of_a_start_is_refused() -> None:
    """Of a start and a restart in the same moment, whichever comes second is refused, and the first succeeds."""
    outcomes: list[str] = []

    async def act(method: Any) -> None:
        try:
            await method()
        except StartupError as error:
            outcomes.append(error.code)
        else:
            outcomes.append("")

    async with open_server(FAST) as server:
        session = server.create_session(scripted())
        # Its supervisor waits; else it could be between the two, and a restart during a start is another matter.
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, session.start)
            nursery.start_soon(act, session.restart)
        assert session.status is Status.IDLE

    assert sorted(outcomes) in (["", "KS-13"], ["", "KS-2"])


async def test_requests_during_a_restart_are_for_the_new_kernel() -> None:
    """What is sent while the old kernel ends waits for the new one, and takes its turn there."""
    with trio.fail_after(REAL_TIME):
        async with open_server(FAST) as server, trio.open_nursery() as nursery:
            session = server.create_session(scripted())
            await session.start()
            first = session.process_id
            nursery.start_soon(session.restart)
            await wait_all_tasks_blocked()
            async with session.execute("print one\nprint two") as execution:
                texts = [message["content"].get("text") async for message in execution]

            assert session.process_id != first
    assert ["one\n", "two\n"] == [text for text in texts if text]


TELLING = """
import os, runpy, sys
print("process", os.getpid(), flush=True)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program of Python's, whose command line follows, in its own process, and says which that is."""

HANGING_ONCE = """
import os, runpy, sys
mark, behaviour, _, *sys.argv = sys.argv[1:]
if not os.path.exists(mark):
    open(mark, "w").close()
    print("hanging", flush=True)
    sys.argv += ["--behaviour", behaviour]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs such a program, with a behaviour the first time."""


async def test_deaf_kernel_is_ended_and_what_it_printed_is_told() -> None:
    """A kernel whose sockets are open but that never answers is KS-7; its process is gone, its output in the error."""
    argv = (sys.executable, "-c", TELLING, *scripted_argv("deaf"))
    error, _ = await fail_to_start(NewSession(session_id="s", argv=argv, connection_timeout=START_LIMIT))
    word, pid = (error.output or "").split()

    assert (error.code, error.exit_code, word) == ("KS-7", 130, "process")
    assert has_ended(int(pid))
    assert "could not be reached on its sockets" in (error.details or "")


def hanging_once(place: Path, behaviour: str) -> tuple[str, ...]:
    """Return the command line of a kernel that says so and hangs at its first start, and works at its second."""
    return (sys.executable, "-c", HANGING_ONCE, str(place / "hung"), behaviour, *scripted_argv())


async def wait_asked_for_info(session: Any) -> None:
    """Wait until a kernel that has printed something has a heartbeat too, and is asked for its info."""
    await session.log.wait_beyond(0)
    life = session.supervisor.life
    while (asked := life._introduction) is None or asked.patience.ends_at < float("inf"):  # noqa: ASYNC110  # untold
        await trio.sleep(0.01)
    await wait_all_tasks_blocked()


async def test_kernel_that_falls_silent_before_it_told_who_it_is_is_ended(private_place: Path) -> None:
    """A kernel may take its time to answer kernel_info while its heart beats, and connection_timeout when it stops."""
    config = attrs.evolve(FAST, heartbeat_limit=0.2, heartbeat_pause=0.05)
    argv = hanging_once(private_place, "silent-shell")
    with trio.fail_after(REAL_TIME):
        async with open_server(config) as server, trio.open_nursery() as nursery:
            session = server.create_session(NewSession(session_id="s", argv=argv, connection_timeout=START_LIMIT))

            async def freeze_when_alive() -> None:
                await wait_asked_for_info(session)
                assert session.process_id is not None
                freeze(session.process_id)

            nursery.start_soon(freeze_when_alive)
            with pytest.raises(StartupError) as info:
                await session.start()
            assert not session.is_running

    assert (info.value.code, info.value.exit_code) == ("KS-7", 130)
    assert "fell silent" in info.value.message


@pytest.mark.parametrize(
    ("behaviour", "protocol_version", "code"),
    [("never-bind", "5.3", "KS-8"), ("silent-shell", "5.3", "KS-8"), ("never-register", "5.5", "KS-14")],
)
async def test_kill_ends_a_start_and_the_session_can_be_started_again(
    behaviour: str, protocol_version: str, code: str, private_place: Path
) -> None:
    """Killed while its kernel is waited for, wherever that is, a start fails for that reason; the next one succeeds."""
    argv = hanging_once(private_place, behaviour)
    request = NewSession(session_id="s", argv=argv, protocol_version=protocol_version)
    with trio.fail_after(REAL_TIME):
        async with open_server(FAST) as server, trio.open_nursery() as nursery:
            session = server.create_session(request)
            pids = []

            async def kill_when_hanging() -> None:
                await session.log.wait_beyond(0)
                if behaviour == "silent-shell":
                    await wait_asked_for_info(session)
                pids.append(session.process_id)
                session.kill()

            nursery.start_soon(kill_when_hanging)
            with pytest.raises(StartupError) as info:
                await session.start()
            error, status, running = info.value, session.status, session.is_running
            again = await session.start()

    exit_code, told = KILLED
    assert (error.code, error.exit_code, error.output) == (code, exit_code, "hanging")
    assert told in error.message
    assert (status, running, again["status"]) == (Status.EXITED, False, "ok")
    assert all(pid is not None and has_ended(pid) for pid in pids)


@pytest.mark.parametrize(
    ("behaviour", "protocol_version"), [("never-bind", "5.3"), ("silent-shell", "5.3"), ("never-register", "5.5")]
)
async def test_end_of_the_server_ends_a_start(behaviour: str, protocol_version: str, private_place: Path) -> None:
    """A kernel that is waited for does not hold up the end of its server, and who waits for it is told why."""
    request = NewSession(session_id="s", argv=hanging_once(private_place, behaviour), protocol_version=protocol_version)
    with trio.fail_after(REAL_TIME):
        async with open_server(FAST) as server, trio.open_nursery() as nursery:
            session = server.create_session(request)

            async def shut_down_when_hanging() -> None:
                await session.log.wait_beyond(0)
                server.request_shutdown("test")

            nursery.start_soon(shut_down_when_hanging)
            with pytest.raises(StartupError, match="asked to stop") as info:
                await session.start()
            with pytest.raises(StartupError, match="shutting down"):
                await session.start()

    assert (info.value.code, info.value.output) == ("KS-8", "hanging")
