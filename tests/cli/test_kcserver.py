"""The kcserver command as its launchers see it: files, output, exit codes, signals."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from kallichore import __version__
from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient, ApiError, open_stream
from kernels import LOCAL, REAL_TIME, body, has_ended, local_address, open_started, run_code

LOCAL_WORDS = "named pipe" if sys.platform == "win32" else "Unix socket"
"""What the transport of this machine alone is called when it is told."""

COMMAND = [sys.executable, "-m", "kallichore.cli.kcserver"]


@asynccontextmanager
async def run_kcserver(*options: str, **settings: Any) -> AsyncIterator[trio.Process]:
    """Run kcserver for as long as the block runs."""
    process = await trio.lowlevel.open_process([*COMMAND, *options], stdin=subprocess.DEVNULL, **settings)
    try:
        with trio.fail_after(REAL_TIME):  # noqa: ASYNC100  # the block of the caller waits
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def appears(path: Path, process: trio.Process) -> Any:
    """Wait for a file of JSON, as launchers do; return what is in it."""
    while not path.exists():
        assert process.returncode is None, "kcserver ended"
        await trio.sleep(0.01)
    return json.loads(path.read_text())


async def end(process: trio.Process, client: ApiClient) -> int:
    """End a server in order and return its exit code: by SIGTERM; on Windows, where no process can signal another
    without a console that both have, on request.
    """
    if sys.platform == "win32":
        await client.call("POST", "/shutdown")
    else:
        process.send_signal(signal.SIGTERM)
    return await process.wait()


def run_to_end(*options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run kcserver to its end."""
    return subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=REAL_TIME, check=False, **settings
    )


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_printed(option: str) -> None:
    """One line on standard output, exit code 0."""
    ended = run_to_end(option)

    assert (0, "") == (ended.returncode, ended.stderr)
    assert re.fullmatch(r"kcserver \d+\.\d+\.\d+\n", ended.stdout)


def test_help_names_every_option() -> None:
    """-h and --help are the same text."""
    short, long = run_to_end("-h"), run_to_end("--help")

    assert (0, short.stdout) == (short.returncode, long.stdout)
    assert {"--handshake-socket", "--connection-file", "--token"} <= set(re.findall(r"--[\w-]+", long.stdout))
    assert ("--unix-socket" in long.stdout) is (sys.platform != "win32")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--transport", "bogus"], "bogus"),
        (["--token", "missing"], "missing"),
        (["--log-file", "no/such/folder/log"], "log file"),
        (["--connection-file", "no/such/folder/f", "--transport", "tcp"], "no.such.folder.f"),
        pytest.param(
            *(["--unix-socket", "/tmp/" + "x" * 110], "110|11[0-9] bytes"),
            marks=pytest.mark.posix_only("a Unix socket"),
        ),
        (["--handshake-socket", "nobody.sock"], "nobody.sock"),
        pytest.param(
            *(["--warm", "nosuch=1"], "'nosuch'; installed: .*python3"),
            marks=pytest.mark.posix_only("kernels that are kept ready"),
        ),
    ],
)
def test_what_cannot_work_ends_with_code_1_and_the_reason(options: list[str], named: str, private_place: Path) -> None:
    """One line that begins with Error and names what is wrong; nothing is left behind."""
    ended = run_to_end(*options, cwd=private_place)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("Error: ")]

    assert (1, 1) == (ended.returncode, len(errors))
    assert re.search(named, errors[0])
    assert [] == list(private_place.iterdir())


def test_port_that_is_taken_is_refused() -> None:
    """The message names the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run_to_end("--port", str(taken.getsockname()[1]))

    assert 1 == ended.returncode
    assert "choose another --port" in ended.stderr


@pytest.mark.parametrize("transport", ["tcp", None])
async def test_connection_file_tells_how_to_reach_the_server(transport: str | None, private_place: Path) -> None:
    """Its members fit the transport, and it goes with the server; the log stays."""
    file, log = private_place / "kc.json", private_place / "log"
    options = [
        "--connection-file",
        str(file),
        "--log-file",
        str(log),
        *(["--transport", transport] if transport else []),
    ]
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as process:
        document = await appears(file, process)
        client = ApiClient(from_connection_document(document))
        status = await client.call("GET", "/status")
        code = await end(process, client)

    assert (process.pid, str(log), 64) == (document["server_pid"], document["log_path"], len(document["bearer_token"]))
    assert (transport or LOCAL) == document["transport"]
    assert document["server_id"] == status["server_id"]
    assert (0, ["log"]) == (code, [path.name for path in private_place.iterdir()])


@pytest.mark.posix_only("modes of files; tests/transport looks at their access lists")
async def test_connection_file_and_log_are_their_owners_alone(private_place: Path) -> None:
    """Nobody else may read who may connect, or what was logged."""
    file, log = private_place / "kc.json", private_place / "log"
    options = ["--connection-file", str(file), "--log-file", str(log)]
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, log)]
        await end(process, client)

    assert [0o600, 0o600] == modes


@pytest.mark.posix_only("a Unix socket; tests/windows tells a launcher by a pipe")
async def test_handshake_tells_a_launcher_that_listens(private_place: Path) -> None:
    """One document and the end of the stream, on TCP by default; no file is written."""
    async with await open_listener(private_place / "h.sock") as listener:
        async with run_kcserver(
            "--handshake-socket", str(private_place / "h.sock"), stdout=subprocess.DEVNULL
        ) as process:
            text = b""
            async with await listener.accept() as stream:
                while data := await stream.receive_some():
                    text += bytes(data)
            document = json.loads(text)
            status = await ApiClient(from_connection_document(document)).call("GET", "/status")
            process.send_signal(signal.SIGTERM)
            code = await process.wait()

    assert text.endswith(b"\n")
    assert ("tcp", process.pid, 0) == (document["transport"], document["server_pid"], code)
    assert f"http://127.0.0.1:{document['port']}" == document["base_path"]
    assert document["server_id"] == status["server_id"]


async def open_listener(path: Path) -> trio.SocketListener:
    """Listen on a Unix socket."""
    listening = trio.socket.socket(socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(1)
    return trio.SocketListener(listening)


no_signals = pytest.mark.posix_only("signals to another process; tests/windows has Ctrl-Break come from its own")


@no_signals
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
async def test_signals_end_the_server_and_its_kernels(name: str, private_place: Path) -> None:
    """Exit code 0, kernels gone, nothing left."""
    file = private_place / "kc.json"
    async with run_kcserver("--connection-file", str(file), stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        async with open_started(client, body()):
            pid = (await client.call("GET", "/sessions/s"))["process_id"]
            process.send_signal(signal.Signals[name])
            code = await process.wait()

    assert (0, True, []) == (code, has_ended(pid), list(private_place.iterdir()))


@no_signals
async def test_second_signal_hurries(private_place: Path) -> None:
    """A kernel that ignores everything is killed at the second signal, long before its grace period is over."""
    file = private_place / "kc.json"
    async with run_kcserver("--connection-file", str(file), stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        async with open_started(client, body("s", "ignore-shutdown", "ignore-sigterm")):
            process.send_signal(signal.SIGTERM)
            while True:
                # Refused from the first signal on.
                try:
                    await client.call("GET", "/status")
                except OSError:
                    break
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(3):
                code = await process.wait()

    assert 0 == code


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is kept is told to glibc")
async def test_memory_of_large_messages_is_given_back(private_place: Path) -> None:
    """What three messages of 10 MB took is the system's again a moment later, although it is kept between them."""
    file = private_place / "kc.json"
    async with run_kcserver("--connection-file", str(file), stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        memory = psutil.Process(process.pid).memory_info
        async with open_started(client, body()) as channel:
            await run_code(channel, "print 1")
            before = memory().rss
            for _ in range(3):
                await run_code(channel, "flood 1 10000000")
            while memory().rss > before + (10 << 20):  # noqa: ASYNC110  # memory is no event
                await trio.sleep(0.05)
        await end(process, client)


@pytest.mark.posix_only("a terminal that hangs up")
async def test_hang_up_is_ignored_under_nohup(private_place: Path) -> None:
    """A server that was started with SIGHUP ignored goes on."""
    file = private_place / "kc.json"
    options = ["--connection-file", str(file), "--transport", "tcp"]
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, *options]
    process = await trio.lowlevel.open_process(ignoring, stdout=subprocess.DEVNULL)
    try:
        with trio.fail_after(REAL_TIME):
            client = ApiClient(from_connection_document(await appears(file, process)))
            process.send_signal(signal.SIGHUP)
            status = await client.call("GET", "/status")
            await client.call("POST", "/shutdown")
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (0, 0) == (code, status["sessions"])


async def test_nobody_has_to_read_what_it_prints(private_place: Path) -> None:
    """With full pipes, and with closed streams, everything works on."""
    file = private_place / "kc.json"
    options = ["--connection-file", str(file), "--log-level", "trace"]
    async with run_kcserver(*options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        async with open_started(client, body()) as channel:
            for _ in range(600):
                # Each leaves a line of 80 characters or more; a pipe holds 64 KiB.
                await client.call("GET", f"/sessions?{'x' * 80}")
            text = await run_code(channel, "print alive")
        code = await end(process, client)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            await stream.aclose()

    assert ("alive\n", 0) == (text, code)


@pytest.mark.posix_only("a shell, and streams that are closed")
async def test_closed_streams_are_no_obstacle(private_place: Path) -> None:
    """Started without standard streams, it serves, and no socket takes their place."""
    file = private_place / "kc.json"
    closing = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *COMMAND, "--connection-file", str(file)]
    process = await trio.lowlevel.open_process(closing)
    try:
        with trio.fail_after(REAL_TIME):
            document = await appears(file, process)
            streams = [os.readlink(f"/proc/{document['server_pid']}/fd/{number}") for number in range(3)]
            await ApiClient(from_connection_document(document)).call("POST", "/shutdown")
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (0, ["/dev/null"] * 3) == (code, streams)


async def test_log_tells_requests_in_the_usual_form(private_place: Path) -> None:
    """Lines have time, level and operation; the token is in none of them, and the token file is gone at once."""
    file, log, token = private_place / "kc.json", private_place / "log", private_place / "token"
    token.write_text("sesame-open\n")
    options = ["--connection-file", str(file), "--log-file", str(log), "--token", str(token)]
    async with run_kcserver(*options, stdout=subprocess.PIPE) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        await client.call("PUT", "/sessions", body("abc"))
        await client.call("GET", "/sessions/abc")
        lines = log.read_text().splitlines()
        await end(process, client)
        assert process.stdout is not None
        console = b""
        while data := await process.stdout.receive_some():
            console += bytes(data)
        await process.stdout.aclose()

    assert all(re.match(r"\d\d:\d\d:\d\d \[(ERROR|WARN|INFO|DEBUG|TRACE)\] ", line) for line in lines)
    assert any(" [INFO] get_session(abc) - X-Span-ID: " in line for line in lines)
    assert f"Listening on {LOCAL_WORDS}: " in console.decode()
    assert "sesame" not in log.read_text() + console.decode()
    assert not token.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
async def test_process_is_named_and_its_environment_stays(private_place: Path) -> None:
    """Clients find it by the name of its main thread, tools by what it was started with."""
    file = private_place / "kc.json"
    environment = {**os.environ, "CASE_MARK": "here"}
    async with run_kcserver("--connection-file", str(file), stdout=subprocess.DEVNULL, env=environment) as process:
        await appears(file, process)
        read = {name: Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("environ", "cmdline", "comm")}
        process.send_signal(signal.SIGTERM)
        await process.wait()

    expected = {os.fsencode(f"{name}={value}") for name, value in environment.items()}
    assert expected == set(read["environ"].split(b"\0")[:-1])
    assert os.fsencode(file) in read["cmdline"].split(b"\0")
    assert b"kcserver\n" == read["comm"]


async def test_version_that_a_client_pins_can_be_reported(private_place: Path) -> None:
    """GET /status says it, and our own beside it."""
    file = private_place / "kc.json"
    options = ["--report-version", "0.1.69", "--connection-file", str(file)]
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        status = await client.call("GET", "/status")
        await end(process, client)

    assert ("0.1.69", __version__) == (status["version"], status["kallichore_version"])


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_no_connection_is_accepted_once_a_shutdown_is_answered(transport: str, private_place: Path) -> None:
    """Who has the answer does not reach the dying server again, while a kernel still takes its time to end."""
    file = private_place / "kc.json"
    options = ["--connection-file", str(file), "--transport", transport]
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        async with open_started(client, body("s", "ignore-shutdown", "ignore-sigterm")):
            path = await client.call("GET", "/sessions/s/channels") if transport == LOCAL else None
            await client.call("POST", "/shutdown")
            with pytest.raises(OSError, match="Could not reach"):
                await client.call("GET", "/status")
            if path is not None:
                with pytest.raises(OSError, match="Could not reach"):
                    await open_stream(local_address(path))
            still_runs = process.returncode is None
            if sys.platform != "win32":
                process.send_signal(signal.SIGTERM)
            code = await process.wait()

    assert (True, 0) == (still_runs, code)


def test_crash_is_told_on_the_console(private_place: Path) -> None:
    """Whatever fails in the server, its traceback is on standard error, and the exit code is 1."""
    crash = "import kallichore.embed, sys\nasync def run(*_, **__): raise {}\nkallichore.embed.run = run\n"
    crash += "from kallichore.cli.kcserver import main\nsys.exit(main())"
    for raised in ("RuntimeError('the roof is on fire')", "BaseExceptionGroup('', [OSError('the roof is on fire')])"):
        ended = subprocess.run(
            [sys.executable, "-c", crash.format(raised)], capture_output=True, text=True, timeout=REAL_TIME, check=False
        )

        assert 1 == ended.returncode
        assert "Traceback" in ended.stderr
        assert "the roof is on fire" in ended.stderr


async def test_creating_a_session_is_a_line_in_the_log(private_place: Path) -> None:
    """Which, of which kernel, and where."""
    file, log = private_place / "kc.json", private_place / "log"
    options = ["--connection-file", str(file), "--log-file", str(log)]
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        await client.call("PUT", "/sessions", body("abc", working_directory=str(private_place)))
        text = log.read_text()
        await end(process, client)

    assert f"[INFO] [session abc] Created: Scripted, in {private_place}\n" in text


INSTALLED = Path(sys.executable).with_name("kcserver")


@pytest.mark.skipif(not INSTALLED.exists(), reason="the package is not installed")
@pytest.mark.parametrize(
    "variables", [{"PYTHONPATH": "{bad}"}, {"PYTHONHOME": "{bad}"}, {"PYTHONSTARTUP": "{bad}/logging.py"}, {}]
)
async def test_installed_command_is_isolated(variables: dict[str, str], private_place: Path) -> None:
    """No variable and no file in the current directory keeps it from starting; kernels get the variables untouched."""
    bad = private_place / "bad"
    bad.mkdir()
    for name in ("logging", "trio", "sitecustomize", "encodings"):
        (bad / f"{name}.py").write_text("raise SystemExit('shadowed')")
    theirs = {name: value.format(bad=bad) for name, value in variables.items()}
    file = private_place / "kc.json"
    link = private_place / "kcserver"
    link.symlink_to(INSTALLED)
    process = await trio.lowlevel.open_process(
        [str(link), "--connection-file", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **theirs},
        cwd=bad,
    )
    try:
        with trio.fail_after(REAL_TIME):
            document = await appears(file, process)
            client = ApiClient(from_connection_document(document))
            printing = ["sh", "-c", "env; exit 1"]
            await client.call("PUT", "/sessions", body("s", argv=printing, working_directory=str(private_place)))
            with pytest.raises(ApiError) as info:
                await client.call("POST", "/sessions/s/start")
            name = Path(f"/proc/{process.pid}/comm").read_text()
            await client.call("POST", "/shutdown")
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (0, "kcserver\n", process.pid) == (code, name, document["server_pid"])
    assert {f"{name}={value}" for name, value in theirs.items()} <= set(info.value.body["output"].splitlines())


@pytest.mark.posix_only("Unix sockets")
async def test_live_socket_is_not_taken_and_a_stale_one_is(private_place: Path) -> None:
    """A second server at the same path is refused; after the first was killed, the path is free again."""
    path = private_place / "own.sock"
    options = ["--unix-socket", str(path), "--token", "none"]
    address = from_connection_document({"socket_path": str(path)})
    async with run_kcserver(*options, stdout=subprocess.DEVNULL) as first:
        while True:
            try:
                await ApiClient(address).call("GET", "/status")
                break
            except OSError:
                await trio.sleep(0.01)
        refused = await trio.to_thread.run_sync(lambda: run_to_end(*options))
        first.kill()
        await first.wait()
        left = path.exists()
        async with run_kcserver(*options, stdout=subprocess.DEVNULL) as second:
            while True:
                try:
                    await ApiClient(address).call("POST", "/shutdown")
                    break
                except OSError:
                    await trio.sleep(0.01)
            code = await second.wait()

    assert (1, True, 0) == (refused.returncode, left, code)
    assert "Another server listens" in refused.stderr


@pytest.mark.posix_only("kernels end with their server on Windows")
@pytest.mark.parametrize(
    ("options", "span"),
    [((), ", for 1 day"), (("--abandon-after", "5400"), ", for 1.5 hours"), (("--abandon-after", "0"), "")],
    ids=["default", "some time", "for ever"],
)
async def test_server_says_how_to_come_back_to_its_kernels(
    options: tuple[str, ...], span: str, private_place: Path
) -> None:
    """At its end: how many go on, for how long, and the commands that go on with them or end them."""
    file, state = private_place / "kc.json", private_place / "a state"
    places = ("--connection-file", str(file), "--state-dir", str(state))
    async with run_kcserver(*places, *options, stdout=subprocess.PIPE) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        async with open_started(client, body()):
            pid = (await client.call("GET", "/sessions/s"))["process_id"]
        assert process.stdout is not None
        process.terminate()
        said = b"".join([piece async for piece in process.stdout]).decode()
    seen = run_kcclient_at(state)
    lines = said.splitlines()[-3:]

    assert lines == [
        f"1 kernel goes on without a server{span}",
        f"To come back to it: kcserver --state-dir '{state}'",
        f"To end it: kcclient sessions end --state-dir '{state}' --all",
    ]
    assert seen == "s: ended\n"
    assert has_ended(pid)


def run_kcclient_at(state: Path) -> str:
    """End all that a state directory holds, and return what is said."""
    command = [sys.executable, "-m", "kallichore.cli.kcclient", "sessions", "end", "--state-dir", str(state), "--all"]
    return subprocess.run(command, capture_output=True, text=True, timeout=REAL_TIME, check=True).stdout


@pytest.mark.posix_only("kernels end with their server on Windows")
@pytest.mark.parametrize("on_exit", ["stop", "keep"])
async def test_server_that_leaves_nothing_says_nothing_of_it(on_exit: str, private_place: Path) -> None:
    """With on-exit stop, and where no kernel runs."""
    file = private_place / "kc.json"
    options = ("--connection-file", str(file), "--state-dir", str(private_place / "state"), "--on-exit", on_exit)
    async with run_kcserver(*options, stdout=subprocess.PIPE) as process:
        client = ApiClient(from_connection_document(await appears(file, process)))
        await client.call("PUT", "/sessions", body())
        if on_exit == "stop":
            await client.call("POST", "/sessions/s/start")
        assert process.stdout is not None
        process.terminate()
        said = b"".join([piece async for piece in process.stdout]).decode()

    assert "without a server" not in said
