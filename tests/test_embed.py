"""Kallichore inside another Trio program: as a task, as a block, and without HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

import kallichore
from kallichore.client.api_client import ApiClient
from kallichore.errors import ConfigurationError, KernelDiedError, SessionNotReadyError
from kallichore.models.bodies import NewSession
from kernels import REAL_TIME, address_of, body, ipykernel_argv, scripted


async def test_run_hands_out_a_server_that_listens(private_place: Path) -> None:
    """``await nursery.start(run, config)`` returns a handle with address, token and sessions; cancelling ends it
    all.
    """
    async with trio.open_nursery() as nursery:
        server = await nursery.start(kallichore.run, kallichore.ServerConfig())
        assert len(server.token) == 64
        assert (await ApiClient(address_of(server)).call("GET", "/status"))["sessions"] == 0
        session = server.create_session(scripted())
        await session.start()
        assert server.sessions == [session]
        nursery.cancel_scope.cancel()

    assert session.process_id is None
    with pytest.raises(OSError, match="Could not reach"):
        await ApiClient(address_of(server)).call("GET", "/status")


async def test_shutdown_of_the_handle_ends_the_task() -> None:
    """The handle's shutdown ends kernels and server in order, and then the task."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(kallichore.run, kallichore.ServerConfig())
        session = server.create_session(scripted())
        await session.start()
        with trio.fail_after(REAL_TIME):
            server.request_shutdown()
            await session.wait_ended()


async def test_two_servers_fit_in_one_process() -> None:
    """Two servers on sockets in one process have their own addresses, tokens and sessions."""
    config = kallichore.ServerConfig(transport="socket")
    async with kallichore.serve(config) as one, kallichore.serve(kallichore.ServerConfig(transport="socket")) as two:
        one.create_session(scripted())
        assert one.address != two.address
        assert one.token != two.token
        assert (await ApiClient(address_of(two)).call("GET", "/sessions"))["total"] == 0


@pytest.mark.parametrize("name", ["with space", "café", "x" * 60, "missing", "file"])
async def test_sockets_go_where_clients_can_reach_them(
    name: str, private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the runtime directory will not do, main socket and sessions' sockets go to the temporary directory."""
    (private_place / "file").write_text("")
    if name not in ("missing", "file"):
        (private_place / name).mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private_place / name))
    async with kallichore.serve(kallichore.ServerConfig(transport="socket")) as server:
        client = ApiClient(address_of(server))
        await client.call("PUT", "/sessions", body())
        channels = await client.call("GET", "/sessions/s/channels")

    assert server.address.socket_path is not None
    assert Path(server.address.socket_path).parent == private_place
    assert Path(channels).parent.parent == private_place


async def test_chosen_directory_has_the_main_socket_only_where_its_name_is_odd(private_place: Path) -> None:
    """The main socket goes where it was asked for; clients put the paths of sessions' sockets into addresses."""
    config = kallichore.ServerConfig(transport="socket", socket_directory=private_place / "with space")
    async with kallichore.serve(config) as server:
        client = ApiClient(address_of(server))
        await client.call("PUT", "/sessions", body())
        channels = await client.call("GET", "/sessions/s/channels")

    assert server.address.socket_path is not None
    assert Path(server.address.socket_path).parent == private_place / "with space"
    assert Path(channels).parent.parent == private_place


async def test_chosen_directory_that_will_not_do_is_named(private_place: Path) -> None:
    """One that is too long, or is no directory, ends the start with its name and what is wrong with it."""
    (private_place / "file").write_text("")
    for name, reason in (("x" * 90, "at most work; choose a shorter one"), ("file", "File exists")):
        config = kallichore.ServerConfig(transport="socket", socket_directory=private_place / name)
        with pytest.raises(ConfigurationError) as info:
            async with kallichore.serve(config):
                pass
        message = str(info.value)

        assert name in message
        assert reason in message


async def test_code_runs_without_http() -> None:
    """A session of a server without listeners runs code, and its messages are iterated over."""
    async with kallichore.open_server() as server:
        session = server.create_session(NewSession(session_id="python", argv=ipykernel_argv()))
        await session.start()
        async with session.execute("print(6 * 7)\n'done'") as execution:
            messages = [message async for message in execution]

    seen = [(message["header"]["msg_type"], message["content"]) for message in messages]
    assert ("stream", {"name": "stdout", "text": "42\n"}) in seen
    assert [content["data"]["text/plain"] for kind, content in seen if kind == "execute_result"] == ["'done'"]
    assert execution.reply is not None
    assert execution.reply["status"] == "ok"


async def test_input_is_asked_and_answered_in_process() -> None:
    """An execution that asks for input gets its answer from the program that iterates over it."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        texts = []
        async with session.execute("input name?", allow_stdin=True) as execution:
            async for message in execution:
                if message["header"]["msg_type"] == "input_request":
                    execution.answer_input("Kallichore")
                texts.append(message["content"].get("text", ""))

        assert "Kallichore\n" in texts


async def test_death_of_the_kernel_ends_an_execution_with_its_reason() -> None:
    """A kernel that dies in the middle of an execution ends the iteration with an error that names the signal."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        with pytest.raises(KernelDiedError, match="SIGKILL"):
            async with session.execute("kill 9") as execution:
                async for _ in execution:
                    pass
        with pytest.raises(KernelDiedError, match=r"no kernel.*SIGKILL"):
            async with session.execute("print x"):
                pass


async def test_session_that_was_never_started_says_so() -> None:
    """Nobody is told that a kernel died which there never was; one that did not start is told of as that."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        with pytest.raises(SessionNotReadyError, match="never started"):
            await session.run("print x")
        broken = server.create_session(scripted("broken", "exit-at-start=3"))
        with pytest.raises(kallichore.StartupError):
            await broken.start()
        with pytest.raises(KernelDiedError, match="no kernel"):
            await broken.run("print x")


async def test_code_is_run_and_what_came_of_it_returned() -> None:
    """One call has text, displays, result and error, of code that prints, shows, has a value, and fails."""
    shown: list[str] = []
    async with kallichore.open_server() as server:
        session = server.create_session(NewSession(session_id="python", argv=ipykernel_argv()))
        await session.start()
        code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay(1)\n6 * 7"
        expressions = {"x": "1 + 1"}
        result = await session.run(code, user_expressions=expressions, on_output=lambda each: shown.append(str(each)))
        failed = await session.run("1 / 0")
        asked = await session.run("input()")
        silent = await session.run("7", silent=True)

    assert ("ok", "42", 1, None) == (result.status, str(result.result), result.execution_count, result.error)
    assert ("out\n", "err\n", ["1"]) == (result.stdout, result.stderr, [str(each) for each in result.displays])
    assert sorted(map(str, result.outputs)) == sorted(shown)
    assert "2" == result.user_expressions["x"]["data"]["text/plain"]
    assert failed.error is not None
    assert ("error", "ZeroDivisionError", 2) == (failed.status, failed.error.name, failed.execution_count)
    assert asked.error is not None
    assert "StdinNotImplementedError" == asked.error.name
    assert None is silent.result


async def test_option_that_does_not_exist_is_an_error() -> None:
    """A misspelt option is refused before anything is run."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        with pytest.raises(TypeError, match="allow_stdn"):
            session.execute("print x", allow_stdn=True)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="timeout"):
            await session.run("print x", timeout=1)  # type: ignore[call-arg]


async def test_code_that_takes_too_long_is_interrupted(private_place: Path) -> None:
    """At its time limit code is interrupted, or taken out of the queue where it waits, and the session goes on."""
    async with kallichore.open_server() as server:
        session = server.create_session(NewSession(session_id="python", argv=ipykernel_argv(), interrupt_mode="signal"))
        await session.start()
        with pytest.raises(kallichore.ExecutionTimeoutError, match="interrupted"):
            await session.run("import time; time.sleep(600)", time_limit=0.5)
        result = await session.run("'free again'", time_limit=REAL_TIME)
        async with session.execute("time.sleep(600)"):
            with pytest.raises(kallichore.ExecutionTimeoutError, match="will not run"):
                await session.run("'waits'", time_limit=0.1)
            assert 0 == session.describe().execution_queue.length
            session.interrupt()

    assert "'free again'" == str(result.result)


async def test_run_that_loses_its_kernel_says_how() -> None:
    """The kernel's end is raised with its reason, be it during the run or before it."""
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        for _ in range(2):
            with pytest.raises(KernelDiedError, match="SIGKILL"):
                await session.run("kill 9")


async def test_execution_that_is_left_early_is_withdrawn_from_the_queue(private_place: Path) -> None:
    """Leaving an execution that still waits takes it out of the queue; the running one goes on."""
    go = private_place / "go"
    async with kallichore.open_server() as server:
        session = server.create_session(scripted())
        await session.start()
        async with session.execute(f"after {go}\nprint first") as first:
            async with session.execute("print second"):
                assert session.describe().execution_queue.length == 1
            assert session.describe().execution_queue.length == 0
            go.touch()
            texts = [message["content"].get("text") async for message in first]

        assert "first\n" in texts


async def test_connection_file_is_private_whole_and_removed(private_place: Path) -> None:
    """The connection file is there when the server is, readable by its owner only, and gone with it."""
    file = private_place / "connection.json"
    async with kallichore.serve(kallichore.ServerConfig(transport="socket", connection_file=file)) as server:
        document = json.loads(file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
        assert Path(document["socket_path"]).stat().st_mode & 0o777 == 0o600
        assert (document["transport"], document["bearer_token"]) == ("socket", server.token)
    assert not file.exists()
    assert not Path(document["socket_path"]).exists()


async def test_taken_port_and_foreign_files_are_refused_in_words(private_place: Path) -> None:
    """A port in use, a regular file and a live socket in the way are errors that name them; nothing is removed."""
    file = private_place / "plain.txt"
    file.write_text("precious")
    async with kallichore.serve(kallichore.ServerConfig(transport="socket")) as live, kallichore.serve() as tcp:
        for config, text in (
            (kallichore.ServerConfig(port=tcp.address.port), str(tcp.address.port)),
            (kallichore.ServerConfig(transport="socket", unix_socket=file), "no socket"),
            (kallichore.ServerConfig(transport="socket", unix_socket=live.address.socket_path), "Another server"),
        ):
            with pytest.raises(ConfigurationError, match=text):
                async with kallichore.serve(config):
                    pytest.fail("it must not start")
        assert file.read_text() == "precious"
        file.unlink()
        assert (await ApiClient(address_of(live)).call("GET", "/status"))["sessions"] == 0
