"""Kernels that are ready before they are asked for: taken once, then like any other, and gone with the server."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from jupyter_requests import install_kernels
from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError, StartupError
from kallichore.kernel.kernelspecs import find_kernelspec
from kallichore.models.bodies import NewSession, RestartSession, Status, VarAction, VarActionType
from kallichore.server import Server, open_server
from kallichore.server.warm import describe_warm
from kallichore.session import warm_keeping, warm_kernel
from kallichore.session.session import Session
from kallichore.session.warm_kernel import WarmKernel
from kernels import REAL_TIME, freeze, has_ended, ipykernel_argv, scripted, wait_ended
from warm import wait_until, wait_warm

pytestmark = pytest.mark.posix_only("kernels that are kept ready")

FAST: dict[str, Any] = {"token": None, "shutdown_grace": 0.5, "terminate_grace": 0.5}


@pytest.fixture(autouse=True)
def kernelspecs(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the scripted kernel as ``script``; return where kernelspecs are."""
    return install_kernels(private_place, monkeypatch)


@asynccontextmanager
async def open_warm(count: int = 1, **settings: Any) -> AsyncIterator[Server]:
    """Run a server that keeps so many of the scripted kernel, and wait until they are ready."""
    async with open_server(ServerConfig(**{**FAST, "warm": {"script": count}, **settings})) as server:
        await wait_warm(server, count)
        yield server


def of_spec(session_id: str = "s", **members: Any) -> NewSession:
    """Return a request for a session as who starts the installed kernel would send it."""
    return find_kernelspec("script").new_session(session_id, **members)


async def start(server: Server, request: NewSession) -> Session:
    """Create and start a session."""
    session = server.create_session(request)
    with trio.fail_after(REAL_TIME):
        await session.start()
    return session


async def text_of(session: Session, code: str) -> str:
    """Run code and return what it prints."""
    with trio.fail_after(REAL_TIME):
        return (await session.run(code)).text


def told(session: Session) -> list[dict[str, Any]]:
    """Return what a client of the session would be told."""
    return [json.loads(payload) for payload in session.conversation.journal.read(0, 1 << 30, 1 << 30).payloads]


def is_taken(server: Server, session: Session, kernel: WarmKernel) -> bool:
    """Whether a session has the kernel that was ready."""
    return session.process_id == kernel.pid and kernel in server.facilities.warm.running


# Taking


async def test_start_takes_the_kernel_that_is_ready() -> None:
    """The session has its process, which works as any other, and another is launched in its place."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        session = await start(server, of_spec())
        assert is_taken(server, session, kernel)
        assert "hello\n" == await text_of(session, "print hello")
        (other,) = await wait_warm(server)
        assert other.pid != kernel.pid


async def test_two_starts_never_get_the_same_kernel() -> None:
    """Of two sessions that start at once, one gets what is ready, the other its own."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        sessions = [server.create_session(of_spec(name)) for name in ("a", "b")]
        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:
                for session in sessions:
                    nursery.start_soon(session.start)
        pids = [session.process_id for session in sessions]

        assert [True, True] == [pids.count(kernel.pid) == 1, len(set(pids)) == 2]
        assert (1, 1) == (server.facilities.warm.stock.taken, server.facilities.warm.stock.missed)


@pytest.mark.parametrize("difference", ["directory", "variable", "command", "registration"])
async def test_kernel_that_was_started_otherwise_is_not_taken(difference: str, private_place: Path) -> None:
    """A session that wants another directory, environment, command or connection is started as it wants."""
    request = of_spec()
    members: dict[str, Any] = {
        "directory": {"working_directory": str(private_place)},
        "variable": {"env": (VarAction(VarActionType.REPLACE, "OTHER", "1"),)},
        "command": {"argv": (*request.argv, "--behaviour", "prompts")},
        "registration": {"protocol_version": "5.5"},
    }[difference]
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        session = await start(server, attrs.evolve(request, **members))

        assert session.process_id != kernel.pid


async def test_next_is_ready_where_kernels_were_started(private_place: Path) -> None:
    """The first start elsewhere finds none; the second finds one that was started there."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        await start(server, of_spec("a", working_directory=str(private_place)))
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)
        (renewed,) = await wait_warm(server)
        session = await start(server, of_spec("b", working_directory=str(private_place)))

        assert is_taken(server, session, renewed)
        assert str(private_place) == await text_of(session, "cwd")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({}, id="tcp"),
        pytest.param({"protocol_version": "5.5"}, id="handshake"),
        pytest.param({"kernel_transport": "ipc", "argv": ipykernel_argv()}, id="ipc"),
        pytest.param(
            {"transport_encryption": "required", "supported_encryption": ("curve",), "argv": ipykernel_argv()},
            id="encrypted",
        ),
    ],
)
async def test_every_way_of_connecting_can_be_ready(members: dict[str, Any]) -> None:
    """Over TCP, Unix sockets and encrypted, and for a kernel that registers: a restart takes the one that is ready."""
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, attrs.evolve(scripted(), spares=1, **members))
        (kernel,) = await wait_warm(server)
        with trio.fail_after(REAL_TIME):
            await session.restart()
        assert is_taken(server, session, kernel)
        assert session.connection_info() == kernel.info
        code = "print('hello')" if "argv" in members else "print hello"
        assert "hello\n" == await text_of(session, code)
        handshakes = [message for message in told(session) if "handshakeCompleted" in message]
        assert (2 if "protocol_version" in members else 0) == len(handshakes)


async def test_restart_takes_the_sessions_own(private_place: Path) -> None:
    """What a session keeps is like its kernel, environment and directory included, and another is kept then."""
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, scripted(working_directory=str(private_place), spares=1))
        first = session.process_id
        (kernel,) = await wait_warm(server)
        with trio.fail_after(REAL_TIME):
            await session.restart()
        assert is_taken(server, session, kernel)
        assert str(private_place) == await text_of(session, "cwd")
        report = session.conversation.last_exit
        assert report is not None
        assert (first, "restart") == (report.process_id, report.requested_by)
        (other,) = await wait_warm(server)
        assert other.pid not in (first, kernel.pid)


async def test_restart_elsewhere_renews_the_sessions_own(private_place: Path) -> None:
    """After a restart in another directory, what is kept is for that one."""
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, scripted(spares=1))
        (kernel,) = await wait_warm(server)
        with trio.fail_after(REAL_TIME):
            await session.restart(RestartSession(working_directory=str(private_place)))
            assert session.process_id != kernel.pid
            await wait_ended(kernel.pid or 0)
        (renewed,) = await wait_warm(server)

        assert str(private_place.resolve()) == renewed.spare.recipe.directory


async def test_sessions_own_ends_with_the_session() -> None:
    """When a session is deleted, what was kept for its restarts is gone."""
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, scripted(spares=1))
        (kernel,) = await wait_warm(server)
        session.kill()
        with trio.fail_after(REAL_TIME):
            await session.wait_ended()
            server.delete_session("s")
            await wait_ended(kernel.pid or 0)

        assert 0 == describe_warm(server.facilities.warm).wanted


# As if it had just been started


async def test_first_words_are_the_sessions() -> None:
    """What the process printed and what the kernel published before it was taken are told to its session, once."""
    request = scripted(
        "s",
        "burst=3",
        startup_environment="command",
        startup_environment_arg="echo banner; echo warning >&2",
        spares=1,
    )
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, request)
        (kernel,) = await wait_warm(server)
        before = len(told(session))
        with trio.fail_after(REAL_TIME):
            await session.restart()
        assert is_taken(server, session, kernel)
        new = told(session)[before:]

    printed = [tuple(message["output"]) for message in new if "output" in message]
    contents = [message["content"] for message in new if message["kind"] == "jupyter"]
    assert [1, 1] == [printed.count(("stdout", "banner\n")), printed.count(("stderr", "warning\n"))]
    assert ["burst 0\n", "burst 1\n", "burst 2\n"] == [content["text"] for content in contents if "text" in content]


async def test_taken_kernel_is_interrupted_and_killed_as_any_other() -> None:
    """Its running code is interrupted by a signal; killed, it is reported with what is known of it."""
    async with open_warm() as server:
        session = await start(server, of_spec(interrupt_mode="signal"))
        pid = session.process_id
        results = []
        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    results.append(await session.run("sleep 600"))

                nursery.start_soon(run)
                await wait_until(lambda: session.status is Status.BUSY)
                session.interrupt()
            session.kill()
            await session.wait_ended()
        report = session.conversation.last_exit

    assert ["error"] == [result.status for result in results]
    assert report is not None
    assert (pid, "kill", -1) == (report.process_id, report.requested_by, report.exit_code)


async def test_session_that_promised_its_ports_keeps_them() -> None:
    """Who asked where the kernel will be finds it there: no other is taken."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        session = server.create_session(of_spec())
        promised = session.connection_info()
        with trio.fail_after(REAL_TIME):
            await session.start()

        assert session.process_id != kernel.pid
        assert promised == session.connection_info()


# What is not taken


async def test_frozen_kernel_is_not_taken() -> None:
    """One that does not answer any more is ended, and the session starts its own."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        freeze(kernel.pid or 0)
        session = await start(server, of_spec())
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)

        assert session.process_id != kernel.pid
        assert "hello\n" == await text_of(session, "print hello")


async def test_dead_kernel_is_replaced_and_the_reason_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One that ends by itself is no session's affair; another is launched after a pause, and why is told."""
    caplog.set_level(logging.WARNING)
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        os.kill(kernel.pid or 0, signal.SIGKILL)
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)
            while not describe_warm(server.facilities.warm).problem:
                await server.facilities.warm.changed.wait()
        (other,) = await wait_warm(server)
        answer = describe_warm(server.facilities.warm)

    assert other.pid != kernel.pid
    assert "SIGKILL" in str(answer.problem)
    assert any("SIGKILL" in line and kernel.name in line for line in caplog.messages)


async def test_kernel_that_cannot_start_is_named_with_its_last_words(caplog: pytest.LogCaptureFixture) -> None:
    """One that ends before it answers is tried again later; the log has what it complained about."""
    caplog.set_level(logging.WARNING)
    async with open_server(ServerConfig(**FAST, warm={"broken": 1})) as server:
        with trio.fail_after(REAL_TIME):
            while not (answer := describe_warm(server.facilities.warm)).problem:
                await server.facilities.warm.changed.wait()

    assert "code 3" in str(answer.problem)
    assert "last words on stderr" in str(answer.problem)
    assert any("Another is launched in 1 s" in line for line in caplog.messages)


async def test_kernel_of_a_directory_that_was_made_anew_is_not_taken(private_place: Path) -> None:
    """A kernel in a directory that was deleted since is in none: another is started in the one that is there."""
    place = private_place / "work"
    place.mkdir()
    async with open_server(ServerConfig(**FAST)) as server:
        session = await start(server, scripted(working_directory=str(place), spares=1))
        (kernel,) = await wait_warm(server)
        place.rename(private_place / "gone")
        place.mkdir()
        with trio.fail_after(REAL_TIME):
            await session.restart(RestartSession(working_directory=str(place)))
            await wait_ended(kernel.pid or 0)

        assert session.process_id != kernel.pid


async def test_those_of_a_changed_kernelspec_are_renewed(kernelspecs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its kernel.json says something else, what waits is ended, and started as it says now."""
    monkeypatch.setattr(warm_keeping, "LOOK_EVERY", 0.1)
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        file = kernelspecs / "script" / "kernel.json"
        document = json.loads(file.read_text())
        file.write_text(json.dumps({**document, "env": {"FROM_SPEC": "new"}}))
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)
        (renewed,) = await wait_warm(server)
        session = await start(server, of_spec())

        assert is_taken(server, session, renewed)
        assert "new" == await text_of(session, "env FROM_SPEC")


async def test_kernelspec_that_says_the_same_again_renews_nothing(
    kernelspecs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was only touched, or is broken for a moment, costs nobody his kernel."""
    monkeypatch.setattr(warm_keeping, "LOOK_EVERY", 0.05)
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        file = kernelspecs / "script" / "kernel.json"
        text = file.read_text()
        file.write_text("{")
        await wait_until(lambda: any("as it was before" in line for line in caplog.messages))
        file.write_text(text)
        session = await start(server, of_spec())

        assert is_taken(server, session, kernel)


class FullMachine:
    """Memory that runs out when it is told to."""

    def __init__(self) -> None:
        self.warning: str | None = None

    def look(self) -> str | None:
        """Return what there is to be said."""
        return self.warning


async def test_all_are_ended_when_memory_runs_out_and_come_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is kept ready while memory is near a limit, and the log says so; then it is again."""
    machine = FullMachine()
    monkeypatch.setattr(warm_keeping, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(warm_keeping, "watch_shared_memory", lambda: machine)
    async with open_warm(2) as server:
        pids = [kernel.pid or 0 for kernel in await wait_warm(server, 2)]
        machine.warning = "Memory is running out: 9 of 10"
        with trio.fail_after(REAL_TIME):
            for pid in pids:
                await wait_ended(pid)
        session = await start(server, of_spec())
        assert session.process_id not in pids
        machine.warning = None
        await wait_warm(server, 2)

    assert 1 == sum("9 of 10" in line for line in caplog.messages)


# The server


async def test_none_is_left_when_the_server_ends() -> None:
    """Those that wait, that are on their way, and that were taken end with it; files are gone as well."""
    async with open_warm(2) as server:
        pids = [kernel.pid or 0 for kernel in await wait_warm(server, 2)]
        session = await start(server, of_spec())
        assert session.process_id in pids
        pool = server.facilities.warm
        # The next is on its way.
        await wait_until(lambda: any(kernel.pid and not kernel.spare.is_ready for kernel in pool.kernels))
        pids += [kernel.pid or 0 for kernel in pool.kernels]
        files = [path.name for path in server.facilities.runtime_directory.iterdir()]

    assert [True] * len(pids) == [has_ended(pid) for pid in pids]
    assert 3 == sum(name.startswith("connection-") for name in files)


async def test_shutdown_ends_those_that_wait_at_once() -> None:
    """They do not wait for the server's last session."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        server.request_shutdown("a test")
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)

        assert () == describe_warm(server.facilities.warm).kernels


async def test_hurry_kills_what_does_not_end(kernelspecs: Path) -> None:
    """Kernels that ignore everything are killed when the server is in a hurry."""
    file = kernelspecs / "script" / "kernel.json"
    document = json.loads(file.read_text())
    stubborn = ["--behaviour", "ignore-shutdown", "--behaviour", "ignore-sigterm"]
    file.write_text(json.dumps({**document, "argv": [*document["argv"], *stubborn]}))
    async with open_warm(shutdown_grace=600, terminate_grace=600) as server:
        (kernel,) = await wait_warm(server)
        server.request_shutdown("a test")
        server.hurry()
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)


async def test_what_waits_keeps_no_server_up() -> None:
    """For the idle shutdown, and for the list of sessions, it does not count."""
    async with open_warm() as server:
        assert [False, 0, 0] == [server._is_in_use(), server.status().sessions, server.status().active]


async def test_server_that_wants_none_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wish there is no task that wakes, and no file or memory is looked at."""
    looks: list[float] = []
    monkeypatch.setattr(warm_keeping, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(warm_keeping, "watch_shared_memory", lambda: looks.append(trio.current_time()))
    async with open_server(ServerConfig(**FAST)) as server:
        await start(server, of_spec())

    assert [] == looks


async def test_unknown_kernelspec_is_refused_and_those_installed_are_named() -> None:
    """A server that cannot keep what it is to keep does not begin."""
    with pytest.raises(ConfigurationError, match=r"(?s)'nosuch'.*installed: broken, .*script"):
        async with open_server(ServerConfig(**FAST, warm={"nosuch": 1})):
            pass


async def test_none_of_a_kernelspec_are_none() -> None:
    """A number of 0 asks for nothing, and for no kernelspec."""
    async with open_server(ServerConfig(**FAST, warm={"nosuch": 0})) as server:
        assert 0 == describe_warm(server.facilities.warm).wanted


async def test_session_that_outlives_its_server_keeps_none_and_says_so(
    private_place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`spares` of a durable session is ignored with a warning; of one that ends with its server it counts."""
    config = ServerConfig(**FAST, state_directory=private_place / "state", on_exit="stop")
    async with open_server(config) as server:
        await start(server, scripted("durable", spares=1))
        assert 0 == describe_warm(server.facilities.warm).wanted
        await start(server, scripted("plain", spares=1, durable=False))
        await wait_warm(server)

    assert 1 == sum("durable" in line and "No kernels are kept ready" in line for line in caplog.messages)


# Cancellation


async def test_start_that_is_given_up_while_it_takes_one_loses_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends while its kernel is asked once more ends that kernel too."""
    asked = trio.Event()
    ask = WarmKernel._ask_once_more

    async def ask_slowly(kernel: WarmKernel, variables: Any) -> str:
        asked.set()
        await trio.sleep(0.05)
        return await ask(kernel, variables)

    monkeypatch.setattr(WarmKernel, "_ask_once_more", ask_slowly)
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        session = server.create_session(of_spec())
        with trio.fail_after(REAL_TIME):
            async with trio.open_nursery() as nursery:

                async def expect_failure() -> None:
                    with pytest.raises(StartupError):
                        await session.start()

                nursery.start_soon(expect_failure)
                await asked.wait()
                session.begin_stop()
            await wait_ended(kernel.pid or 0)


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_cancellation_comes_before_or_after_a_kernel_is_taken(is_frozen: bool) -> None:
    """Who takes a kernel and is cancelled meanwhile has it all the same, or it is ended: there is none between."""
    async with open_warm() as server:
        (kernel,) = await wait_warm(server)
        if is_frozen:
            freeze(kernel.pid or 0)
        with trio.CancelScope() as scope:
            scope.cancel()
            taken = await server.facilities.warm.take(kernel.spare.recipe, "s")
        assert taken is (None if is_frozen else kernel)
        if taken is not None:
            async with taken.place() as placement:
                placement.process.kill()
                await placement.process.wait()
                placement.note_end()
        with trio.fail_after(REAL_TIME):
            await wait_ended(kernel.pid or 0)


async def test_kernel_that_was_taken_and_never_run_is_ended_with_the_server() -> None:
    """A server ends also where whoever took a kernel failed before running it."""
    with trio.fail_after(REAL_TIME):
        async with open_warm() as server:
            (kernel,) = await wait_warm(server)
            assert kernel is await server.facilities.warm.take(kernel.spare.recipe, "s")

    assert has_ended(kernel.pid or 0)


async def test_failure_of_ours_ends_the_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in looking after one costs neither the server nor leaves a process."""
    found: list[int] = []

    async def fail(kernel: WarmKernel, *_: Any) -> None:
        found.append(kernel.pid or 0)
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(WarmKernel, "_meet_and_wait", fail)
    async with open_server(ServerConfig(**FAST, warm={"script": 1})) as server:
        await wait_until(lambda: describe_warm(server.facilities.warm).problem)
        assert "ours" == describe_warm(server.facilities.warm).problem
        assert has_ended(found[0])


async def test_one_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, kernelspecs: Path) -> None:
    """A kernel that binds its sockets and says nothing is ended after its time, and another is tried."""
    monkeypatch.setattr(warm_kernel, "START_PATIENCE", 1.0)
    file = kernelspecs / "script" / "kernel.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "argv": [*document["argv"], "--behaviour", "silent-shell"]}))
    async with open_server(ServerConfig(**FAST, warm={"script": 1})) as server:
        with trio.fail_after(REAL_TIME):
            while not (answer := describe_warm(server.facilities.warm)).problem:
                await server.facilities.warm.changed.wait()

    assert "did not answer within 1 seconds" in str(answer.problem)
