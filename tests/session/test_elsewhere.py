"""Sessions whose kernels are on other machines: they wait, run, are cut off and come back, and end with a reason."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import engine_here
from engine_here import World
from kallichore.client.api_client import ApiError, send_request
from kallichore.client.channel_client import make_execute_request, open_channel
from kallichore.engines import elsewhere, registry
from kallichore.engines.engine import Waiting
from kallichore.server.end_kept import end_kept
from kallichore.session.kept import look_at_kept
from keeping import ending, keeping
from kernels import (
    LONG_SLEEP,
    REAL_TIME,
    ask_until,
    body,
    execute,
    ipykernel_argv,
    is_done,
    is_kernel,
    is_status,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    session_path,
    text_of,
)

pytestmark = pytest.mark.posix_only("hosts")


@pytest.fixture
async def world(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A cluster with one free machine: this one."""
    monkeypatch.setitem(registry.KINDS, "here", "engine_here")
    world = World(private_place)
    world.free.set()
    engine_here.WORLD.append(world)
    yield world
    engine_here.WORLD.pop()
    with trio.CancelScope(shield=True):
        await world.end()


HERE = {"kind": "here"}


def is_value(member: str) -> Any:
    """Return a predicate: news of the session with this member, which is something."""
    return lambda message: message["kind"] == "kernel" and message.get(member) is not None


async def test_kernel_elsewhere_runs_code_and_is_described(world: World) -> None:
    """A session with an engine starts, runs code, is interrupted and shut down like any other, and says where it is."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=list(ipykernel_argv()), interrupt_mode="signal", engine=HERE))
        await client.call("POST", session_path("s", "start"))
        async with open_channel(client.address, "s") as channel:
            assert "2\n" == await run_code(channel, "print(1 + 1)")
            described = await client.call("GET", session_path("s"))
            running = await channel.send(make_execute_request(f"print('on', flush=True)\nimport time; {LONG_SLEEP}"))
            await receive_until(channel, is_type("stream", running))
            await client.call("POST", session_path("s", "interrupt"))
            ended = await receive_until(channel, is_done(running))
            await client.call("POST", session_path("s", "restart"))
            assert "3\n" == await run_code(channel, "print(1 + 2)")

    assert "KeyboardInterrupt" == next(filter(is_type("execute_reply"), ended))["content"]["ename"]
    assert ("here", HERE) == (described["place"]["engine"], described["engine"])
    assert {"pending", "connection_lost"}.isdisjoint(described)
    assert 1 == len(world.submitted)
    assert world.submitted == world.ended


@pytest.mark.parametrize("cut", [False, True])
async def test_restart_keeps_the_machine(world: World, cut: bool) -> None:
    """A restarted kernel is another one in the same job, also where the connection is lost meanwhile."""
    async with open_client() as client:
        async with open_started(client, body(argv=list(ipykernel_argv()), engine=HERE)) as channel:
            before = await run_code(channel, "x = 1; import os; print(os.getpid())")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call, "POST", session_path("s", "restart"))
                if cut:
                    await receive_until(channel, is_kernel("exited"))
                    world.cut()
            after = await run_code(channel, "print(os.getpid() if 'os' in dir() else 'new')")
            await client.call("POST", session_path("s", "restart"))
            again = await run_code(channel, "print(1)")

    assert before.strip().isdigit()
    assert ("new\n", "1\n") == (after, again)
    assert 1 == len(world.submitted)
    assert world.submitted == world.ended


async def test_restart_with_another_environment_takes_another_job(world: World) -> None:
    """What the machine's environment is to be is told to a job when it is submitted."""
    async with open_client() as client, open_started(client, body(engine=HERE)) as channel:
        env = [{"action": "replace", "name": "NEW", "value": "there"}]
        await client.call("POST", session_path("s", "restart"), {"env": env})
        said = await run_code(channel, "env NEW")

    assert "there" == said
    assert 2 == len(world.submitted)
    assert set(world.submitted) == set(world.ended)


async def test_job_of_a_restart_that_comes_to_nothing_is_ended(world: World) -> None:
    """A job that was kept for the next kernel is not kept when there will be none."""
    async with open_client() as client, open_started(client, body("s", "ignore-shutdown", engine=HERE)) as channel:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def restart() -> None:
                with suppress(ApiError, OSError):
                    await client.call("POST", session_path("s", "restart"))

            await receive_until(channel, is_type("shutdown_reply"))
            await client.call("POST", "/shutdown")
    assert world.submitted == world.ended


async def test_session_that_waits_for_a_machine_says_why(world: World) -> None:
    """While there is no machine the session is starting, with the reason, and nothing else waits for it."""
    world.free = trio.Event()
    world.waiting = Waiting("Resources", 1000.0, expected_start=2000.0, position=3)
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.call("PUT", "/sessions", body(engine=HERE, connection_timeout=1))
        nursery.start_soon(client.call, "POST", session_path("s", "start"))
        async with open_channel(client.address, "s") as channel:
            told = (await receive_until(channel, is_value("pending")))[-1]["pending"]
            described = await client.call("GET", session_path("s"))
            world.free.set()
            messages = await receive_until(channel, is_status("idle"))

    expected = {
        "reason": "Resources",
        "since": "1970-01-01T00:16:40Z",
        "expected_start": "1970-01-01T00:33:20Z",
        "position": 3,
    }
    assert expected == told == described["pending"]
    assert "starting" == described["status"]
    assert any(is_kernel("pending", None)(message) for message in messages)


@pytest.mark.parametrize("way", ["kill", "server"])
async def test_session_that_waits_can_be_given_up(world: World, way: str) -> None:
    """Who wants it no more ends its wait at once, and its job is ended."""
    world.free = trio.Event()
    async with open_client() as client, trio.open_nursery() as nursery:
        await client.call("PUT", "/sessions", body(engine=HERE))
        failed: list[ApiError] = []

        @nursery.start_soon
        async def start() -> None:
            try:
                await client.call("POST", session_path("s", "start"))
            except (ApiError, OSError) as error:
                failed.append(error)

        async with open_channel(client.address, "s") as channel:
            await receive_until(channel, is_value("pending"))
            with trio.fail_after(REAL_TIME):
                if way == "server":
                    await client.call("POST", "/shutdown")
                else:
                    await client.call("POST", session_path("s", "kill"))
    assert world.submitted == world.ended


async def test_refused_start_has_the_engines_words(world: World) -> None:
    """What an engine refuses is an answer at once, in its words, and no session without an end."""
    world.refusal = "There is no partition 'none'; there are main and low"
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(engine=HERE))
        with pytest.raises(ApiError, match="no partition 'none'") as refused:
            await client.call("POST", session_path("s", "start"))
        described = await client.call("GET", session_path("s"))

    assert ("exited", "no_machine") == (described["status"], refused.value.body["reason"])
    assert [] == world.ended


async def test_job_that_can_never_run_is_told_at_once(world: World) -> None:
    """A job that ends before its kernel was reached is the end of the start, with the engine's reason."""
    world.gone = "Job 5 can never run: PartitionConfig"
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(engine=HERE))
        with pytest.raises(ApiError, match="The kernel has no machine: Job 5 can never run: PartitionConfig"):
            await client.call("POST", session_path("s", "start"))

    assert world.submitted == world.ended


async def test_program_that_is_not_there_is_told_with_the_job(world: World) -> None:
    """A kernel whose program is not on that machine is told with the program's name, and the job is ended."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(argv=["/no/kernel"], engine=HERE))
        with pytest.raises(ApiError, match=r"Could not start /no/kernel in job s-.*: No such file"):
            await client.call("POST", session_path("s", "start"))

    assert world.submitted == world.ended


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"kind": "nowhere"}, "engine.kind is 'nowhere'; it can be one of local, "),
        ({}, "engine.kind is None"),
        ({"profile": "small"}, "engine.profile is 'small', which is no profile; there are: big"),
    ],
)
async def test_engine_that_there_is_not_is_refused_when_the_session_is_created(
    world: World, engine: dict[str, Any], words: str
) -> None:
    """What cannot be meant is told to who creates the session."""
    async with open_client(profiles={"big": HERE}) as client:
        with pytest.raises(ApiError) as refused:
            await client.call("PUT", "/sessions", body(engine=engine))

    assert words in str(refused.value)


async def test_option_that_there_is_not_is_named(world: World) -> None:
    """An option that the engine does not know is named, with those that there are."""
    async with open_client() as client:
        await client.call("PUT", "/sessions", body(engine={**HERE, "colour": "red"}))
        with pytest.raises(ApiError, match=r"engine\.colour is no option of here; there is color"):
            await client.call("POST", session_path("s", "start"))


async def test_profile_is_filled_in_and_what_the_session_says_comes_first(world: World) -> None:
    """A session names a profile, and may say something else than that."""
    async with open_client(profiles={"big": {**HERE, "colour": "red"}}) as client:
        await client.call("PUT", "/sessions", body(engine={"profile": "big"}))
        with pytest.raises(ApiError, match=r"engine\.colour"):
            await client.call("POST", session_path("s", "start"))


async def test_lost_connection_is_told_and_nothing_is_missing(world: World) -> None:
    """A kernel that is cut off computes on; clients learn since when and why, and all of its output arrives."""
    code = "import time\nfor n in range(3000):\n    print(n, flush=True)\n    if n % 300 == 0: time.sleep(0.05)"
    async with open_client() as client:
        request = body(argv=list(ipykernel_argv()), engine=HERE)
        async with open_started(client, request) as channel:
            await run_code(channel, "1")
            world.is_reachable = False
            running = await channel.send(make_execute_request(code))
            world.cut()
            lost = await receive_until(channel, lambda message: "No route" in str(message.get("connectionLost")))
            described = await client.call("GET", session_path("s"))
            world.is_reachable = True
            messages = lost + await receive_until(channel, is_done(running))

    assert "No route to host" == described["connection_lost"]["reason"]
    assert "".join(f"{n}\n" for n in range(3000)) == text_of(messages)
    assert any(is_kernel("connectionLost", None)(message) for message in messages)


async def test_end_has_what_the_host_and_the_engine_know(world: World) -> None:
    """The report of a kernel's end has how its process ended, from its host, and why, from the engine."""
    world.explanation = "ran into its time limit of 1:00:00"
    async with open_client() as client, open_started(client, body(engine=HERE)) as channel:
        await channel.send(make_execute_request("exit 7"))
        await receive_until(channel, is_kernel("exited", 7))
        described = await client.call("GET", session_path("s"))

    text = described["last_exit"]["text"]
    assert "exited with code 7" in text
    assert "Its job ran into its time limit of 1:00:00" in text


@pytest.fixture
def kernelspec(world: World, private_place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed kernel whose kernel.json names the engine."""
    folder = private_place / "kernels" / "far"
    folder.mkdir(parents=True)
    document = {
        "argv": list(ipykernel_argv()),
        "display_name": "Far",
        "language": "python",
        "metadata": {"kallichore": {"engine": HERE}},
    }
    (folder / "kernel.json").write_text(json.dumps(document))
    monkeypatch.setenv("JUPYTER_PATH", str(private_place))
    return "far"


async def test_kernelspec_says_where_its_kernels_run(world: World, kernelspec: str) -> None:
    """Whoever starts a kernel by its name has it on the machine that its kernel.json asks for."""
    async with open_client() as client:
        session = await client.call("POST", "/sessions", {"kernel": kernelspec, "session_id": "s"})

    assert "here" == session["place"]["engine"]
    assert 1 == len(world.submitted)


async def test_jupyters_clients_need_not_wait_for_a_machine(
    world: World, kernelspec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over Jupyter's API a kernel that waits for a machine is there, and is starting; it runs when it has one."""
    monkeypatch.setattr("kallichore.jupyter.kernels.PATIENCE_ELSEWHERE", 0.2)
    world.free = trio.Event()
    async with open_client() as client:
        wanted = json.dumps({"name": kernelspec}).encode()
        kernel = (await send_request(client.address, "POST", "/api/kernels", wanted)).json()
        before = await client.call("GET", f"/api/kernels/{kernel['id']}")
        world.free.set()
        async with open_channel(client.address, kernel["id"]) as channel:
            said = await run_code(channel, "print(6 * 7)")

    assert ("starting", "starting") == (kernel["execution_state"], before["execution_state"])
    assert "42\n" == said


async def test_kernel_whose_job_is_gone_is_told_with_the_reason(world: World) -> None:
    """Where the host is gone with its job, the engine's reason is the kernel's."""
    async with open_client() as client, open_started(client, body(engine=HERE)) as channel:
        world.gone = "its node failed"
        world.cut()
        await receive_until(channel, is_kernel("exited", -1))
        described = await client.call("GET", session_path("s"))

    assert "was lost: its node failed" in described["last_exit"]["text"]


async def test_end_of_the_time_is_announced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some minutes before the engine ends a kernel people are told, once, and see the time in the description."""
    world.time_left = 250.0
    async with open_client() as client, open_started(client, body(engine=HERE)) as channel:
        messages = await receive_until(channel, lambda message: "time limit" in str(message.get("output")))
        described = await client.call("GET", session_path("s"))

    assert "The time limit of its job ends this kernel in 4 minutes" in str(messages[-1]["output"])
    assert described["place"]["ends"] is not None


async def test_usage_and_directory_are_those_over_there(world: World, private_place: Path) -> None:
    """What the kernel uses, and where it is, come from its host."""
    async with open_client(resource_sample_interval_ms=100) as client:
        request = body(argv=list(ipykernel_argv()), engine=HERE)
        async with open_started(client, request) as channel:
            await execute(channel, f"import os; os.chdir({str(private_place)!r})")
            described = await ask_until(client, lambda session: session.get("resource_usage") is not None)
            await ask_until(client, lambda session: session["working_directory"] == str(private_place))

    assert described["resource_usage"]["memory_bytes"] > 10e6


async def test_kernel_elsewhere_outlives_its_server(world: World, private_place: Path) -> None:
    """With a state directory the next server finds the kernel where it was, and what it said meanwhile."""
    place = private_place / "state"
    async with keeping(place) as client:
        async with open_started(client, body(argv=list(ipykernel_argv()), engine=HERE)) as channel:
            await run_code(channel, "kept = 5")
    async with keeping(place) as client, open_channel(client.address, "s") as channel:
        kept = await run_code(channel, "print(kept)")
        described = await client.call("GET", session_path("s"))

    assert "5\n" == kept
    assert "here" == described["place"]["engine"]
    assert 1 == len(world.submitted)


async def test_kernel_is_found_again_without_its_profile(world: World, private_place: Path) -> None:
    """What the engine was asked is known to the next server, though the profile is another one there, or gone."""
    async with keeping(private_place, profiles={"big": HERE}) as client:
        request = body(engine={"profile": "big"})
        async with open_started(client, request) as channel:
            await run_code(channel, "print there")
    async with keeping(private_place) as client, open_channel(client.address, "s") as channel:
        said = await run_code(channel, "print still")

    assert "still\n" == said
    assert 1 == len(world.submitted)


async def test_kept_kernel_elsewhere_is_ended_without_a_server(world: World, private_place: Path) -> None:
    """Who ends what a state directory holds ends the jobs of other machines too; whose process is here is no matter."""
    async with keeping(private_place, profiles={"big": HERE}) as client:
        async with open_started(client, body(engine={"profile": "big"})) as channel:
            await run_code(channel, "print there")
    kept = look_at_kept(private_place / "state")
    ended: list[str] = []
    await end_kept(private_place / "state", kept, lambda _, what: ended.append(what), forget=True)

    assert [True] == [session.kernel_lives for session in kept]
    assert ["forgotten"] == ended
    assert world.submitted == world.ended


async def test_session_that_waits_outlives_its_server(world: World, private_place: Path) -> None:
    """One that waits for a machine waits on when the next server is there, and is submitted once."""
    place = private_place / "state"
    world.free = trio.Event()
    async with keeping(place) as client, trio.open_nursery() as nursery:
        await client.call("PUT", "/sessions", body(engine=HERE))

        @nursery.start_soon
        async def start() -> None:
            with suppress(ApiError, OSError):
                await client.call("POST", session_path("s", "start"))

        async with open_channel(client.address, "s") as channel:
            await receive_until(channel, is_value("pending"))
        nursery.cancel_scope.cancel()
    assert [] == world.ended
    async with ending(place) as client, open_channel(client.address, "s") as channel:
        world.free.set()
        await receive_until(channel, is_status("idle"))

    assert 1 == len(world.submitted)


async def test_kernel_that_cannot_be_reached_can_be_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was cut off and is to be killed is not waited for without end: its job is ended."""
    monkeypatch.setattr(elsewhere, "KILL_PATIENCE", 0.2)
    async with open_client() as client, open_started(client, body(engine=HERE)) as channel:
        world.is_reachable = False
        world.cut()
        await receive_until(channel, is_value("connectionLost"))
        await client.call("POST", session_path("s", "kill"))
        await receive_until(channel, is_kernel("exited", -1))
        described = await client.call("GET", session_path("s"))

    assert "could not be reached" in described["last_exit"]["text"]
    assert world.submitted == world.ended[:1]
