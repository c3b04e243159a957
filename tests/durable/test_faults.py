"""What goes wrong besides the server: hosts, disks, files, starts without an end; and what is not durable."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from durable.servers import Servers, open_servers, processes_below, wait_nothing_left
from kallichore.client.api_client import ApiClient, ApiError
from kallichore.client.channel_client import make_execute_request, make_message, open_channel
from kallichore.session.session import Session
from kallichore.state import session_log
from kallichore.state.recovery import recover
from kallichore.state.session_log import Commit
from keeping import ending, keeping
from kernels import (
    REAL_TIME,
    ask_until,
    body,
    execute,
    ipykernel_argv,
    is_done,
    is_kernel,
    is_type,
    open_client,
    open_started,
    receive_until,
    run_code,
    text_of,
    wait_ended,
)
from returning_client import ReturningClient

pytestmark = pytest.mark.posix_only("kernels end with their server on Windows")


NO_MORE = "What happens in this session is kept over a restart of the server no more"


def session_place(place: Path) -> Path:
    """Return the directory of the only session."""
    (found,) = (place / "state" / "sessions").iterdir()
    return found


async def pid_of(client: ApiClient) -> int:
    """Return the process id of the session's kernel."""
    return int((await client.call("GET", "/sessions/s"))["process_id"])


async def begin(servers: Servers, session: dict[str, Any] | None = None) -> ApiClient:
    """Start a server with a session whose kernel has started; return the server's client."""
    client = await servers.start()
    assert client is not None
    await client.call("PUT", "/sessions", session or body())
    await client.call("POST", "/sessions/s/start")
    return client


async def wait_connected(client: ApiClient, besides: Collection[int] = ()) -> set[int]:
    """Wait until all five sockets of a kernel that starts have been connected to; return from which ports.

    Args:
        client: The server's.
        besides: Ports of another server's connections, which do not count.
    """
    session = await ask_until(client, lambda session: session.get("process_id") is not None)
    process = psutil.Process(session["process_id"])
    with trio.fail_after(REAL_TIME):
        while len(ports := ports_of_peers(process) - set(besides)) < 5:  # noqa: ASYNC110
            await trio.sleep(0.01)
    return ports


def ports_of_peers(process: psutil.Process) -> set[int]:
    """Return the ports from which a process has connections."""
    return {each.raddr.port for each in process.net_connections() if each.status == psutil.CONN_ESTABLISHED}


async def is_refused(client: ApiClient, path: str) -> str:
    """Return in which words a request is refused."""
    with pytest.raises(ApiError) as caught:
        await client.call("POST", path)
    return str(caught.value)


# What is not durable


async def test_session_that_encrypts_is_not_durable_and_says_so(
    private_place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A host cannot carry what is encrypted, so such a session is this server's alone."""
    encrypted = body(transport_encryption="required", supported_encryption=["curve"])
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", encrypted)
    async with keeping(private_place) as client:
        sessions = (await client.call("GET", "/sessions"))["sessions"]

    assert sessions == []
    assert "[session s] It will end with this server: kernels that encrypt" in caplog.text
    assert list((private_place / "state" / "sessions").iterdir()) == []


async def test_durable_session_is_not_started_where_all_have_to_encrypt(private_place: Path) -> None:
    """With a next server that wants encryption the session is there, and says why its kernel is not started."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body(supported_encryption=["curve"]))
    async with ending(private_place, transport_encryption="required") as client:
        why = await is_refused(client, "/sessions/s/start")
    async with ending(private_place, transport_encryption="auto") as client:
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            said = await run_code(channel, "print plain")

    assert "the session outlives its server; create it with `durable` false" in why
    assert said == "plain\n"


async def test_adopted_kernel_is_found_again(private_place: Path) -> None:
    """A kernel that somebody else started is left as it is, at once, and the next server talks to it again."""
    async with open_client() as owner, open_started(owner, body("owner")) as channel:
        info = await owner.call("GET", "/sessions/owner/connection_info")
        async with keeping(private_place) as client:
            await client.call("PUT", "/sessions", body("s", argv=[]))
            await client.call("PUT", "/sessions/s/adopt", info)
        async with keeping(private_place) as client, open_channel(client.address, "s") as adopted:
            said = await run_code(adopted, "print adopted")
        mine = await run_code(channel, "print mine")

    assert said == "adopted\n"
    assert mine.endswith("mine\n")


# Starts that nobody saw the end of


async def test_kernel_that_had_not_registered_is_ended_and_reported(private_place: Path) -> None:
    """Nobody is there any more with whom it would register (JEP 66); the session can be started again."""
    waiting = body("s", "never-register", protocol_version="5.5")
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", waiting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "POST", "/sessions/s/start")
            pid = (await ask_until(client, lambda session: session.get("process_id") is not None))["process_id"]
            nursery.cancel_scope.cancel()
    async with ending(private_place) as client:
        session = await ask_until(client, lambda session: session["status"] == "exited")
        await wait_ended(pid)
        hosts = [process for process in processes_below(private_place) if "host.py" in " ".join(process.cmdline())]
        for host in hosts:
            await wait_ended(host.pid)
        await client.call("DELETE", "/sessions/s")

    assert "failed start" in session["last_exit"]["text"]


async def test_kernel_that_two_servers_left_while_it_started_can_ask_for_input(private_place: Path) -> None:
    """Its sockets have heard of both, and talk to the third."""
    asked: dict[str, Any] = {}
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body("s", "slow-info=1.5"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "POST", "/sessions/s/start")
            ports = await wait_connected(client)
            nursery.cancel_scope.cancel()
    async with keeping(private_place) as client:
        await wait_connected(client, besides=ports)
    async with ending(private_place) as client, open_channel(client.address, "s") as channel:
        msg_id = await channel.send(make_execute_request("input name?", allow_stdin=True))
        asked = (await receive_until(channel, is_type("input_request")))[-1]
        await channel.send(make_message("input_reply", {"value": "Ada", "status": "ok"}, "stdin"))
        said = text_of(await receive_until(channel, is_done(msg_id)))

    assert asked["content"]["prompt"] == "name?"
    assert said == "Ada\n"


async def test_environment_of_a_restart_is_kept(private_place: Path) -> None:
    """What a restart was asked to change holds for the kernels of the next server."""
    red, green = ([{"action": "replace", "name": "COLOUR", "value": name}] for name in ("red", "green"))
    async with keeping(private_place) as client, open_started(client, body(env=red)) as channel:
        await client.call("POST", "/sessions/s/restart", {"env": green})
        first = await run_code(channel, "env COLOUR")
    async with ending(private_place) as client, open_channel(client.address, "s") as channel:
        await client.call("POST", "/sessions/s/restart")
        second = await run_code(channel, "env COLOUR")

    assert (first, second) == ("green", "green")


async def test_session_that_was_being_ended_can_be_started_again(private_place: Path) -> None:
    """A server that is killed while it ends its kernels leaves that to the next one, which has sessions to start."""
    async with open_servers(private_place) as servers:
        client = await begin(servers, body("s", "ignore-shutdown"))
        async with open_channel(client.address, "s") as channel:
            pid = await pid_of(client)
            await client.call("POST", "/shutdown")
            await receive_until(channel, is_type("shutdown_reply"))
        await servers.kill()
        client = await servers.start()
        assert client is not None
        await ask_until(client, lambda session: session["status"] == "exited")
        await wait_ended(pid)
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            said = await run_code(channel, "print again")
        await client.call("POST", "/shutdown")
        await servers.wait()

    assert said == "again\n"


async def test_signals_end_the_server_and_kernels_as_told(private_place: Path) -> None:
    """SIGTERM and SIGINT leave the kernels to the next server, or end them where they are to stop with it."""
    async with open_servers(private_place) as servers:
        client = await begin(servers)
        pids, codes = [await pid_of(client)], []
        for number, options in ((signal.SIGTERM, ()), (signal.SIGINT, ("--on-exit", "stop"))):
            codes.append(await servers.end(number))
            client = await servers.start(*options)
            assert client is not None
            pids.append(await pid_of(client))
        codes.append(await servers.end(signal.SIGTERM))
        left = await wait_nothing_left(servers)

    assert pids == [pids[0]] * 3
    assert codes == [0, 0, 0]
    assert left == []


# Hosts


async def test_kernel_has_its_process_id_before_its_host_answers(private_place: Path) -> None:
    """The next server knows what it goes on with from the first moment, however long the host takes."""
    async with open_servers(private_place) as servers:
        client = await begin(servers)
        pid = await pid_of(client)
        host = psutil.Process(psutil.Process(pid).ppid())
        codes = [await servers.end(signal.SIGTERM)]
        host.suspend()
        try:
            client = await servers.start()
            assert client is not None
            early = await client.call("GET", "/sessions/s")
        finally:
            host.resume()
        async with open_channel(client.address, "s") as channel:
            said = await run_code(channel, "print again")
        late = await pid_of(client)
        await client.call("POST", "/shutdown")
        codes.append(await servers.wait())

    assert codes == [0, 0]
    assert [early["process_id"], late] == [pid, pid]
    assert said == "again\n"


async def test_end_of_everything_but_the_directory_is_reported(private_place: Path) -> None:
    """Server, host and guardian are killed at once: the kernel ends too, and the next server says what it knows."""
    async with open_servers(private_place) as servers:
        client = await servers.start()
        assert client is not None
        await client.call("PUT", "/sessions", body())
        await client.call("PUT", "/sessions", body("other"))
        for name in ("s", "other"):
            await client.call("POST", f"/sessions/{name}/start")
        pid, other = await pid_of(client), (await client.call("GET", "/sessions/other"))["process_id"]
        host = psutil.Process(psutil.Process(pid).ppid())
        guardian = next(child for child in host.children() if child.pid != pid)
        await servers.kill()
        for process in (guardian, host):
            process.kill()
        await wait_ended(pid)
        client = await servers.start()
        assert client is not None
        session = await ask_until(client, lambda session: session["status"] == "exited")
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s") as channel:
            said = await run_code(channel, "print again")
        still = (await client.call("GET", "/sessions/other"))["process_id"]
        await client.call("POST", "/shutdown")
        await servers.wait()
        left = await wait_nothing_left(servers)

    assert "with the host beside it" in session["last_exit"]["text"]
    assert (said, still, left) == ("again\n", other, [])


async def test_host_of_a_session_that_rests_is_let_go(private_place: Path) -> None:
    """A host that stayed though its kernel's end was written down ends with the next server, and no other."""
    async with keeping(private_place) as client, open_started(client, body()):
        pid = await pid_of(client)
    place = session_place(private_place)
    # As if the server had been killed right after it had written that the kernel is gone.
    recovered = recover(place)
    recovered.log.commit(Commit(recovered.end, parts={"supervision": b'{"phase":"RESTING","is_launched":false}'}))
    recovered.log.close()
    async with ending(private_place):
        await wait_ended(pid)

    assert not (place / "host.sock").exists()


async def test_state_directory_may_be_far_down(private_place: Path) -> None:
    """Paths that are too long for a Unix socket are none for a host and its servers."""
    place = private_place.joinpath(*["d" * 60] * 5)
    async with keeping(place) as client, open_started(client, body()) as channel:
        await run_code(channel, "print one")
    async with ending(place) as client, open_channel(client.address, "s") as channel:
        said = await run_code(channel, "print two")

    assert said == "two\n"


async def test_much_that_nobody_read_is_read_by_the_next_server(private_place: Path) -> None:
    """A kernel that prints thirty megabytes and ends while there is no server loses none of it, nor its exit code."""
    size = 30 << 20
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        code = f"after {private_place / 'go'}\nstderr-flood {size}\nstderr \nexit 4"
        msg_id = await channel.send(make_execute_request(code))
        await receive_until(channel, is_type("execute_input", msg_id))
        pid = await pid_of(client)
    (private_place / "go").touch()
    await wait_ended(pid)
    async with ending(private_place) as client, open_channel(client.address, "s") as channel:
        messages = await receive_until(channel, is_kernel("exited"))

    assert messages[-1]["exited"] == 4
    assert sum(message["output"][1].count("e") for message in messages if "output" in message) >= size


async def test_plot_that_is_on_its_way_comes_whole(private_place: Path) -> None:
    """A plot of ten megabytes that is on its way when the server is killed comes whole, once, from the next."""
    size = 10 << 20
    async with open_servers(private_place) as servers:
        client = await servers.start()
        assert client is not None
        code = (
            "import os, time\nfrom IPython.display import display\n"
            f"while not os.path.exists({str(private_place / 'go')!r}): time.sleep(0.01)\n"
            f"display({{'text/plain': 'x' * {size}}}, raw=True)"
        )
        await client.call("PUT", "/sessions", body(argv=list(ipykernel_argv())))
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s", since=0) as channel:
            msg_id = await channel.send(make_execute_request(code))
            first = await receive_until(channel, is_type("execute_input", msg_id))
        (private_place / "go").touch()
        await servers.kill()
        client = await servers.start()
        assert client is not None
        since = max(message["seq"] for message in first if "seq" in message)
        async with open_channel(client.address, "s", since=since) as channel:
            rest = await receive_until(channel, is_done(msg_id))
        await client.call("POST", "/shutdown")
        await servers.wait()
    plots = [message["content"]["data"]["text/plain"] for message in rest if is_type("display_data")(message)]
    numbers = [message["seq"] for message in rest if "seq" in message]

    assert [len(plot) for plot in plots] == [size]
    assert numbers == list(range(since + 1, since + 1 + len(numbers)))


# The disk


async def test_full_disk_ends_durability_and_not_the_session(
    private_place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, the session goes on, and is durable again when there is room; only what was said is missing."""
    write_all = session_log._write_all

    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with keeping(private_place) as client, open_started(client, body()) as channel:
        await run_code(channel, "print one")
        monkeypatch.setattr(session_log, "_write_all", refuse)
        during = await execute(channel, "print two\nflood 50 10")
        said = [message["output"][1] for message in during if "output" in message]
        monkeypatch.setattr(session_log, "_write_all", write_all)
        after = await run_code(channel, "print three")
    async with ending(private_place) as client, open_channel(client.address, "s") as channel:
        last = await run_code(channel, "print four")
        history = await client.call("GET", "/sessions/s/history")

    assert said == [f"[kallichore] {NO_MORE}: No space left on device\n"]
    assert (after, last) == ("three\n", "four\n")
    assert [entry["input"].split("\n")[0] for entry in history] == [
        f"print {n}" for n in ("one", "two", "three", "four")
    ]
    assert caplog.text.count(NO_MORE) == 1
    assert caplog.text.count(NO_MORE.replace("no more", "again")) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
async def test_damaged_log_is_named_and_the_session_goes_on(
    private_place: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is whole counts; the kernel is there, and a client with a number is told of what is missing."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body())
        await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s", since=0) as channel:
            msg_id = await channel.send(make_execute_request("flood 200 100"))
            await receive_until(channel, is_done(msg_id))
        pid = await pid_of(client)
    (log,) = session_place(private_place).glob("log-*")
    content = bytearray(log.read_bytes())
    if damage == "gone":
        log.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 1
        log.write_bytes(content[:middle] if damage == "cut" else content)
    async with ending(private_place) as client:
        session = await client.call("GET", "/sessions/s")
        if session["status"] == "uninitialized":
            await client.call("POST", "/sessions/s/start")
        async with open_channel(client.address, "s", since=0) as channel:
            msg_id = await channel.send(make_execute_request("print on"))
            messages = await receive_until(channel, is_done(msg_id))
    numbers = [message["seq"] for message in messages if "seq" in message]
    await wait_ended(pid)

    assert numbers == sorted(set(numbers))
    assert "on\n" in text_of(messages)
    assert ("Found damaged" in caplog.text) == (damage != "cut")


@pytest.mark.parametrize("content", [b"", b"{", b'{"session_id": "s"}', None])
async def test_session_whose_record_is_damaged_is_named_and_disturbs_no_other(
    private_place: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The next server starts, has the other sessions, and says where the files are."""
    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body())
        place = session_place(private_place)
        await client.call("PUT", "/sessions", body("other"))
    (place / "session.json").unlink()
    if content is not None:
        (place / "session.json").write_bytes(content)
    async with ending(private_place) as client:
        sessions = (await client.call("GET", "/sessions"))["sessions"]

    assert [session["session_id"] for session in sessions] == ["other"]
    assert f"its files stay in {place}" in caplog.text


# Two servers


async def test_second_server_says_who_has_the_directory(private_place: Path) -> None:
    """It ends with an error that names the first one's process and address, and disturbs nothing."""
    async with open_servers(private_place) as servers:
        client = await servers.start()
        assert client is not None
        second = servers.launch()
        with trio.fail_after(30):
            while second.poll() is None:  # noqa: ASYNC110  # there is no event for it
                await trio.sleep(0.01)
        await client.call("GET", "/status")
        pid = servers.process.pid if servers.process else 0
        await client.call("POST", "/shutdown")
        await servers.wait()

    assert second.returncode == 1
    assert f"the server with pid {pid} at http://127.0.0.1:{client.address.port} has it" in servers.log


async def test_server_whose_port_is_taken_meanwhile_takes_another(
    private_place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins at the address of the one before where it can; else it begins all the same, and says so."""
    ports = []
    async with keeping(private_place) as client:
        ports.append(client.address.port)
    async with keeping(private_place) as client:
        ports.append(client.address.port)
    with socket.create_server(("127.0.0.1", ports[0])):
        async with ending(private_place) as client:
            await client.call("GET", "/status")
            ports.append(client.address.port)

    assert ports[0] == ports[1] != ports[2]
    assert f"Port {ports[0]}, which the server before had, is somebody else's now" in caplog.text


async def test_replaced_server_hands_over_under_load(private_place: Path) -> None:
    """With --replace the next server takes over in the middle of a flood, and a client has each message once."""
    count = 3000
    async with open_servers(private_place) as servers:
        client = await begin(servers)
        reader = ReturningClient(client.address)
        async with open_channel(client.address, "s", attach="visit") as channel:
            await channel.send(make_execute_request(f"flood {count} 50\nafter {private_place / 'go'}"))
        first = servers.process
        next_one = servers.launch("--replace")
        heard_at = [trio.current_time()]

        def is_enough(reader: ReturningClient) -> bool:
            heard_at.append(trio.current_time())
            return has_lines(reader, count)

        with trio.fail_after(60):
            while reader.visits < 50 and not has_lines(reader, count):
                try:
                    await reader.visit(is_enough)
                except OSError:
                    await trio.sleep(0.005)
        assert await servers.wait_listening(next_one) is not None
        code = first.wait() if first else None
        (private_place / "go").touch()
        await servers.client.call("POST", "/shutdown")
        await servers.wait()
        left = await wait_nothing_left(servers)

    away = max(after - before for before, after in pairwise(heard_at))
    print(f"away for {away:.2f} seconds, in {reader.visits} visits")

    assert code == 0
    assert reader.numbers == list(range(1, len(reader.numbers) + 1))
    assert lines_of(reader) == list(range(count))
    assert left == []


def lines_of(reader: ReturningClient) -> list[int]:
    """Return the numbers of a flood's lines that a client has heard."""
    texts = [json.loads(message)["content"]["text"] for message in reader.messages if b'"stream"' in message]
    return [int(text.split()[0]) for text in texts]


def has_lines(reader: ReturningClient, count: int) -> bool:
    """Return whether a client has the last line of a flood."""
    return any(f'"{count - 1} x'.encode() in message for message in reader.messages[-3:])


# What is written down


async def test_what_was_sent_to_a_kernel_ends_with_it(private_place: Path) -> None:
    """Nothing that one kernel was sent can reach another, and an end is written down with what follows from it."""
    async with keeping(private_place) as client, open_started(client, body()) as channel:
        await run_code(channel, "print one")
        await client.call("POST", "/sessions/s/kill")
        await receive_until(channel, is_kernel("exited"))
        await ask_until(client, lambda session: session["status"] == "exited")
        # Not at the server's end: that is what a killed one has not got.
        parts = recover(session_place(private_place)).parts
        phase = json.loads(parts["supervision"])["phase"]

    assert "sent" not in parts
    assert phase == "RESTING"


async def test_session_that_cannot_be_gone_on_with_disturbs_no_other(
    private_place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with one, the next server starts, has the others, and says where its files are."""
    restore = Session.restore

    def fail(session: Session, recovered: Any) -> None:
        if session.session_id == "s":
            raise RuntimeError("a fault of ours")
        restore(session, recovered)

    async with keeping(private_place) as client:
        await client.call("PUT", "/sessions", body())
        place = session_place(private_place)
        await client.call("PUT", "/sessions", body("other"))
    monkeypatch.setattr(Session, "restore", fail)
    async with ending(private_place) as client:
        sessions = (await client.call("GET", "/sessions"))["sessions"]

    assert [session["session_id"] for session in sessions] == ["other"]
    assert f"[session s] Could not be found again, its files stay in {place}" in caplog.text
