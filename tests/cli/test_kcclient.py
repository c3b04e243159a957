"""The kcclient command as its users and their scripts see it: output, exit codes, and how it finds the server."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from command import Ended, ended_as, ended_with
from kallichore._version import __version__
from kallichore.cli.kcclient import main
from kallichore.client.api_client import ApiClient
from kallichore.client.channel_client import open_channel
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kernels import (
    LOCAL,
    REAL_TIME,
    address_of,
    body,
    execute,
    is_kernel,
    is_type,
    open_started,
    receive_until,
    scripted,
    scripted_argv,
)
from warm import wait_warm

COMMAND = [sys.executable, "-m", "kallichore.cli.kcclient"]

no_ctrl_c = pytest.mark.posix_only("Ctrl-C for another process, which on Windows needs a console that both have")

EACH = """
import gc, json, os, shlex, sys, tempfile
from kallichore.cli.kcclient import main

def run(words):
    while words and words[0].startswith("KALLICHORE_"):
        name, _, os.environ[name] = words.pop(0).partition("=")
    main(words, prog_name="kcclient")

def run_in_a_fork(words, out, err):
    pid = os.fork()
    if pid == 0:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        run(words)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def run_here(words, out, err):
    kept, streams = dict(os.environ), (sys.stdout, sys.stderr)
    sys.stdout, sys.stderr = (open(file.fileno(), "w", encoding="utf-8", closefd=False) for file in (out, err))
    try:
        run(words)
    except SystemExit as ended:
        return ended.code
    finally:
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout, sys.stderr = streams
        os.environ.clear()
        os.environ.update(kept)

gc.freeze()
told = []
for line in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = (run_in_a_fork if hasattr(os, "fork") else run_here)(shlex.split(line), out, err)
        for file in (out, err):
            file.seek(0)
        told.append([code, *(file.read().decode().replace(os.linesep, "\\n") for file in (out, err))])
json.dump(told, sys.stdout)
"""
"""Runs command lines, without half a second of imports for each: in a process of its own where that can be had so.
On Windows all run in one, one after the other.
"""


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KALLICHORE_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "200", **more}


async def kcclient(*arguments: str, stdin: str = "") -> Ended:
    """Run kcclient to its end."""
    with trio.fail_after(REAL_TIME):
        process = await trio.run_process(
            [*COMMAND, *arguments],
            stdin=stdin.encode(),
            env=_environment(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return ended_as(process)


async def kcclient_each(lines: Iterable[str], options: str = "") -> dict[str, Ended]:
    """Run command lines one after the other, each with the same options before it, and return how each ended.

    Variables of the environment may stand before a command, as in a shell.
    """
    lines = list(lines)
    with trio.fail_after(REAL_TIME):
        ended = await trio.run_process(
            [sys.executable, "-c", EACH],
            stdin=json.dumps([f"{options} {line}" for line in lines]).encode(),
            env=_environment(),
            capture_stdout=True,
        )
    return {line: ended_with(*told) for line, told in zip(lines, json.loads(ended.stdout), strict=True)}


@attrs.define
class Lines:
    """What a command prints, line by line, as it comes."""

    _stream: trio.abc.ReceiveStream
    _rest: bytes = attrs.field(default=b"", init=False)

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        while b"\n" not in self._rest:
            data = await self._stream.receive_some()
            if not data:
                raise StopAsyncIteration
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().removesuffix("\r")

    async def find(self, text: str) -> str:
        """Return the next line that has some text in it."""
        async for line in self:
            if text in line:
                return line
        raise AssertionError(f"it ended without {text!r}")


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[tuple[trio.Process, Lines]]:
    """Run kcclient while a block runs; yield the process and the lines of both its streams."""
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(REAL_TIME):  # noqa: ASYNC100  # the block of the caller waits
            yield process, Lines(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


@pytest.fixture
def connection_file(private_place: Path) -> str:
    """Return where the test's server puts its connection file."""
    # With slashes on Windows, too: it is given in lines that are split as a shell would.
    return (private_place / "server.json").as_posix()


@pytest.fixture
def installed_kernel(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the scripted kernel, under a name that a terminal could take for more than a name."""
    folder = private_place / "jupyter" / "kernels" / "scripted"
    folder.mkdir(parents=True)
    spec = {"argv": scripted_argv(), "display_name": "Script [env:a]", "language": "script"}
    (folder / "kernel.json").write_text(json.dumps({**spec, "interrupt_mode": "message"}))
    monkeypatch.setenv("JUPYTER_PATH", str(private_place / "jupyter"))


@pytest.fixture
async def server(connection_file: str, installed_kernel: None) -> AsyncIterator[RunningServer]:
    """Run a server on TCP, with a connection file."""
    async with serve(ServerConfig(connection_file=Path(connection_file))) as running_server:
        yield running_server


@pytest.mark.parametrize("transport", ["tcp", LOCAL])
async def test_session_lives_by_commands_alone(transport: str, connection_file: str, installed_kernel: None) -> None:
    """Start, list, run code, run more in a kernel of its own, end the kernel, end the server: over either transport."""
    ask = partial(kcclient, "-c", connection_file)
    async with serve(ServerConfig(transport=transport, connection_file=Path(connection_file))) as server:
        started = await ask("start", "-k", "scripted", "-s", "a b")
        ran = await ask("execute", "-s", "a b", "--wait", "--code", "-", stdin="print one\nresult two")
        commands = ["list", "exec -k scripted 'error boom'", "shutdown -s 'a b'", "list --json", "shutdown"]
        listed, failed, ended, left, shut = (await kcclient_each(commands, f"-c {connection_file}")).values()
        with trio.fail_after(REAL_TIME):
            await server.server.shutdown_requested.wait()

    assert Ended(0, "a b\n", "") == started
    assert Ended(0, "one\ntwo\n", "") == ran
    assert (0, ["a", "b", "Script", "[env:a]", "idle"]) == (listed.code, listed.rows[0][:5])
    assert Ended(1, "", "ScriptError: boom\n") == failed
    assert Ended(0, "a b: exited\n", "") == ended
    assert [("a b", "exited")] == [(each["session_id"], each["status"]) for each in json.loads(left.out)["sessions"]]
    assert Ended(0, "The server is shutting down\n", "") == shut


async def test_list_says_when_kernels_will_be_ended_because_nobody_uses_them(connection_file: str) -> None:
    """Or what keeps them from it; where the server ends none, there is no such column."""
    async with serve(ServerConfig(connection_file=Path(connection_file))) as server:
        server.create_session(scripted("never"))
        without = await kcclient("-c", connection_file, "list")
        await server.create_session(scripted("idle", cull_idle_after=7205)).start()
        server.create_session(scripted("new", cull_idle_after=60))
        listed = await kcclient("-c", connection_file, "list")

    assert "Ends" not in without.out
    assert ["Ends", "never", "in 2 hours", "not now (no kernel)"] == [
        line.rpartition("  ")[2] for line in listed.out.splitlines()
    ]


async def test_list_says_how_old_and_how_large_sessions_are(connection_file: str) -> None:
    """Their age, since when they are idle, and their memory, which is known once somebody has asked."""
    settings = ServerConfig(connection_file=Path(connection_file), resource_sample_interval_ms=100)
    async with serve(settings) as server:
        server.create_session(scripted("new"))
        async with open_started(ApiClient(address_of(server)), body("ready")) as channel:
            await receive_until(channel, lambda message: "resourceUsage" in message)
            listed = await kcclient("-c", connection_file, "list")
    titles, new, ready = (re.split("  +", line) for line in listed.out.splitlines())

    assert ["Age", "Idle", "Memory"] == titles[6:]
    assert re.fullmatch(r"[0-9]+ s", new[-2])
    assert re.fullmatch(r"[0-9]+ s", new[-1])
    assert re.fullmatch(r"[0-9.]+ MB", ready[-1])


async def test_scripts_get_json(server: RunningServer, connection_file: str) -> None:
    """With --json, what a command prints is one JSON document and nothing else; without a name it is the first."""
    client, options = ApiClient(address_of(server)), f"-c {connection_file}"
    new = await kcclient_each(["create -k scripted -s s --json", "start -s s --json", "list --json"], options)
    async with open_channel(client.address, "s") as channel:
        changed = await kcclient_each(["restart --json", "interrupt --json", "info", "kill --json"], options)
        await receive_until(channel, is_kernel("exited"))
        await receive_until(channel, is_kernel("exited"))
    gone = await kcclient_each(["delete --json", "list --json", "create -k scripted --json"], options)
    told = [*new.values(), *changed.values(), *gone.values()]
    create, start, before, restart, interrupt, info, kill, delete, after, other = (
        json.loads(ended.out) for ended in told
    )
    first = before["sessions"][0]

    assert [(0, "")] * 10 == [(ended.code, ended.err) for ended in told]
    assert {"session_id": "s"} == create == start
    assert (1, "s", "idle") == (before["total"], first["session_id"], first["status"])
    for answer, result in ((restart, "restarted"), (interrupt, "interrupted"), (kill, "killed"), (delete, "deleted")):
        assert {"session_id": "s", "result": result} == answer
    assert (True, False) == (info["connected"], info["process_id"] == first["process_id"])
    assert {"total": 0, "sessions": []} == after
    assert other["session_id"].startswith("scripted-")


async def test_tables_and_json_agree(server: RunningServer, connection_file: str) -> None:
    """Status, settings and installed kernels are told both ways, with the same content."""
    commands = ["status", "configuration", "kernels"]
    ended = await kcclient_each(
        ["idle-timeout-hours --hours 12", *commands, *(f"{command} --json" for command in commands)],
        f"-c {connection_file}",
    )
    changed, *tables = list(ended.values())[:4]
    status, configuration, kernels = (json.loads(each.out) for each in list(ended.values())[4:])

    assert [(0, "")] * 7 == [(each.code, each.err) for each in ended.values()]
    assert "Idle shutdown: 12 hours\n" == changed.out
    assert ["server_id", server.server.server_id] in tables[0].rows
    assert server.server.server_id == status["server_id"]
    assert {name: str(value) for name, value in configuration.items()} == dict(row for row in tables[1].rows)
    assert 12 == configuration["idle_shutdown_hours"]
    assert set(kernels) == {row[0] for row in tables[2].rows}
    assert list(scripted_argv()) == kernels["scripted"]["argv"]


async def test_server_is_found_by_what_is_typed_first(server: RunningServer, connection_file: str) -> None:
    """A connection file, or a URL and a token; what is typed counts more than the environment."""
    url, token = f"{server.address}", f"{server.token}"
    nobody = "KALLICHORE_CONNECTION_FILE=/nobody.json KALLICHORE_URL=unix:/nobody"
    server.create_session(scripted("found"))
    ways = [
        f"{nobody} KALLICHORE_TOKEN=wrong -c {connection_file} list",
        f"{nobody} -u {url} -t {token} list",
        f"KALLICHORE_CONNECTION_FILE={connection_file} list",
        f"KALLICHORE_CONNECTION_FILE={connection_file} KALLICHORE_URL=unix:/nobody list",
        f"KALLICHORE_URL={url} KALLICHORE_TOKEN={token} list",
    ]
    other = f"KALLICHORE_CONNECTION_FILE={connection_file} -u unix:/nobody.sock list"
    wrong = f"KALLICHORE_CONNECTION_FILE={connection_file} -t wrong list"
    ended = await kcclient_each([*ways, other, wrong])

    assert dict.fromkeys(ways, (0, "found")) == {way: (ended[way].code, ended[way].rows[0][0]) for way in ways}
    assert (1, "") == (ended[other].code, ended[other].out)
    unreached = "A Unix socket, " if sys.platform == "win32" else "Could not reach a server at unix:"
    assert f"Error: {unreached}/nobody.sock" in ended[other].err
    assert (1, "") == (ended[wrong].code, ended[wrong].out)
    assert "this is not it; use --connection-file or --token" in ended[wrong].err


async def test_dead_server_is_told_by_every_command(private_place: Path, connection_file: str) -> None:
    """A connection file that outlived its server: each command names the address, says what to do, and ends with 1."""
    dead, here = (private_place / "dead.json").as_posix(), Path(__file__).as_posix()
    async with serve(ServerConfig(transport=LOCAL, connection_file=Path(connection_file))) as server:
        Path(dead).write_bytes(Path(connection_file).read_bytes())
    async with serve() as other:
        pass
    commands = [
        *("list", "status", "configuration", "idle-timeout-hours --hours 1", "create", "start", "info", "connect"),
        *("execute --code 1", "exec 1", "console", "logs", "logs -f", "interrupt", "shutdown", "shutdown -s x"),
        *("restart", "kill", "delete", "listen", "history", "kernels", "engines", f"run {here}", f"run -s x {here}"),
    ]
    over_tcp = f"-u {other.address} list"
    ended = await kcclient_each([over_tcp, *(f"-c {dead} {command}" for command in commands)])
    # The system's own words.
    nothing = ctypes.FormatError(2).strip() if sys.platform == "win32" else os.strerror(errno.ENOENT)
    told = (
        f"Error: Could not reach a server at {address_of(server)}: {nothing}; "
        "is it running? To start one: kcserver --connection-file FILE\n"
    )

    # These need no server.
    assert {"completion", "mcp", "sessions"} == set(main.commands) - {command.split()[0] for command in commands}
    assert f"Error: Could not reach a server at {other.address}; is it running?" in ended.pop(over_tcp).err
    assert [Ended(1, "", told)] * len(commands) == list(ended.values())


async def test_what_is_not_there_is_named(server: RunningServer, connection_file: str) -> None:
    """A session, a kernel, and any session at all: each error says which is missing and how to get on."""
    about_a_session = [
        *("info", "execute --code 1", "execute --wait --code 1", "connect", "console", "logs", "logs -f"),
        *("interrupt", "restart", "kill", "delete", "shutdown"),
    ]
    with_a_kernel = ["create -k nope", "start -k nope", "exec -k nope 1", "console -k nope"]
    commands = [*(f"{command} -s nope" for command in about_a_session), *with_a_kernel, "info"]
    ended = await kcclient_each(commands, f"-c {connection_file}")
    none = ended.pop("info")
    kernels = [ended.pop(command) for command in with_a_kernel]
    unknown = Ended(1, "", "Error: There is no session 'nope'; kcclient list shows those that there are\n")

    assert [unknown] * len(about_a_session) == list(ended.values())
    assert [(1, "")] * 4 == [(each.code, each.out) for each in kernels]
    assert [] == [each.err for each in kernels if "There is no kernel 'nope' where the server is; " not in each.err]
    assert [] == [each.err for each in kernels if "scripted" not in each.err or "kcclient kernels" not in each.err]
    assert Ended(1, "", "Error: The server has no sessions; make one with: kcclient start\n") == none
    assert [] == server.sessions


async def test_wrong_command_lines_end_with_code_2() -> None:
    """What cannot be meant is explained on standard error, with the way to the help."""
    commands = {
        "bogus": "No such command 'bogus'",
        "list --bogus": "No such option",
        "execute": "give it as an argument or with -c",
        "exec": "or '-' for standard input",
        "exec 1 -c 2": "The code was given twice",
        "execute --json 1": "--json needs --wait",
        "execute --timeout 1 1": "--timeout needs --wait",
        "run": "Missing argument 'FILE'",
        "run -s a -k b file": "-k, --cwd and --env are for new ones",
        "console -s a -k b": "give one of them",
        "logs -n -1": "-1 is not in the range",
        "idle-timeout-hours --hours x": "'x' is not a valid integer",
        "completion tcsh": "'tcsh' is not one of",
        "-u http://localhost:1 -c file list": "give one of them",
    }
    ended = await kcclient_each(commands)

    assert dict.fromkeys(commands, (2, "")) == {command: (each.code, each.out) for command, each in ended.items()}
    assert [] == [each.err for command, each in ended.items() if commands[command] not in each.err]
    assert all("for help" in each.err for each in ended.values())


async def test_addresses_that_cannot_be_right_are_explained(private_place: Path) -> None:
    """No URL, no connection file, a file of something else, another program's port: one line of reason, code 1."""
    none, text = private_place / "none", private_place / "text"
    text.write_text("hello")

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        commands = {
            "-u http://127.0.0.1:99999 list": "use http://host:port or unix:/path",
            f"-c {none.as_posix()} list": f"Could not read the connection file {none}: No such file",
            f"-c {text.as_posix()} list": f"{text} is not a connection file",
            f"-u http://127.0.0.1:{port} list": "is no Kallichore server",
        }
        ended = await kcclient_each(commands)
        nursery.cancel_scope.cancel()

    assert dict.fromkeys(commands, (1, "", 1)) == {
        command: (each.code, each.out, each.err.count("\n")) for command, each in ended.items()
    }
    assert [] == [each.err for command, each in ended.items() if commands[command] not in each.err]


async def test_code_runs_only_where_a_kernel_is(server: RunningServer, connection_file: str) -> None:
    """A kernel that ends, has ended, or was never started is told with the way out, rather than waited for."""
    server.create_session(scripted("fresh"))
    async with open_started(ApiClient(address_of(server)), body("dead")):
        *unstarted, held, dying, not_run, not_shut, not_talked_to = (
            await kcclient_each(
                [
                    *("execute -s fresh --wait --code 'print x'", "console -s fresh", "shutdown -s fresh"),
                    "execute -s fresh --code 'print held'",
                    "execute -s dead --wait --code 'exit 3'",
                    *("execute -s dead --code 'print x'", "shutdown -s dead", "console -s dead"),
                ],
                f"-c {connection_file}",
            )
        ).values()
    start = "Error: The kernel of session fresh was not started; start it with: kcclient start -s fresh\n"
    restart = "Error: The kernel of session dead has exited; start it again with: kcclient restart -s dead\n"

    assert [Ended(1, "", start)] * 3 == unstarted
    assert Ended(0, "", "") == held
    assert (1, "") == (dying.code, dying.out)
    assert "The kernel ended before it was done: Kernel process " in dying.err
    assert "exited with code 3" in dying.err
    assert [Ended(1, "", restart)] * 3 == [not_run, not_shut, not_talked_to]


async def test_messages_are_lines_of_json(server: RunningServer, connection_file: str) -> None:
    """What a session says, that of before included, until it is deleted; then the command ends."""
    client = ApiClient(address_of(server))
    async with open_started(client, body()):
        pass
    sent = await kcclient("-c", connection_file, "execute", "--code", "print before")
    async with running("-c", connection_file, "connect") as (process, lines):
        said: list[Any] = []
        async for line in lines:
            if not line.startswith("{"):
                break
            said.append(json.loads(line))
            if is_type("stream")(said[-1]):
                await client.call("POST", "/sessions/s/kill")
            elif is_kernel("exited")(said[-1]):
                await client.call("DELETE", "/sessions/s")
        code = await process.wait()

    assert (Ended(0, "", ""), 0) == (sent, code)
    assert line.startswith("The channels were closed")
    assert ["before\n"] == [message["content"]["text"] for message in said if is_type("stream")(message)]


async def test_log_is_shown_from_its_end(server: RunningServer, connection_file: str) -> None:
    """The server's and a session's log: as text or as lines of JSON, all or the last lines."""
    for number in range(3):
        server.server.log.append("INFO", f"line [{number}]", f"2026-01-01T00:00:0{number}.000Z")
    async with open_started(ApiClient(address_of(server)), body()) as channel:
        await execute(channel, "stdout printed\nstdout last")
        with trio.fail_after(REAL_TIME):
            await server.sessions[0].log.wait_beyond(1)
        ended = await kcclient_each(
            ["logs", "logs -n 2", "logs -n 1 --json", "logs -s s -n 1"], f"-c {connection_file}"
        )
    all_lines, two, one, session = ended.values()

    assert [(0, "")] * 4 == [(each.code, each.err) for each in ended.values()]
    assert [f"2026-01-01T00:00:0{number}.000Z [INFO] line [{number}]" for number in range(3)] == (
        all_lines.out.splitlines()
    )
    assert all_lines.out.splitlines()[1:] == two.out.splitlines()
    assert (3, "INFO", "line [2]") == tuple(json.loads(one.out)[member] for member in ("number", "stream", "text"))
    assert session.out.endswith(" [stdout] last\n")


@no_ctrl_c
async def test_log_is_followed_until_ctrl_c(server: RunningServer, connection_file: str) -> None:
    """Lines come as they are printed; an interrupt ends it without a word, the end of the session with code 0."""
    client = ApiClient(address_of(server))
    async with open_started(client, body()) as channel:
        await execute(channel, "stdout first")
        async with running("-c", connection_file, "logs", "-s", "s", "-f") as (process, lines):
            await lines.find("first")
            await execute(channel, "stderr second")
            second = await lines.find("second")
            process.send_signal(signal.SIGINT)
            interrupted = await process.wait()
            rest = [line async for line in lines]
        async with running("-c", connection_file, "logs", "-s", "s", "-f") as (process, lines):
            await lines.find("second")
            await client.call("POST", "/sessions/s/kill")
            await receive_until(channel, is_kernel("exited"))
            await client.call("DELETE", "/sessions/s")
            ended = await process.wait()

    assert second.endswith(" [stderr] second")
    assert (130, [], 0) == (interrupted, rest, ended)


async def test_exec_needs_no_server() -> None:
    """Code from an argument or standard input in the Python kernel: output, errors with traceback, 0 or 1."""
    worked = await kcclient(
        "exec", "-", stdin="import sys\nprint(6 * 7)\nprint('oops', file=sys.stderr)\n'res' + 'ult'"
    )
    failed = await kcclient("exec", "print('so far')\n1 / 0")

    assert Ended(0, "42\n'result'\n", "oops\n") == worked
    assert (1, "so far\n") == (failed.code, failed.out)
    assert "----> 2 1 / 0" in failed.err
    assert failed.err.endswith("ZeroDivisionError: division by zero\n")
    assert "\x1b" not in failed.err


@no_ctrl_c
@pytest.mark.parametrize("on_a_server", [False, True])
async def test_exec_passes_interrupts_on(on_a_server: bool, server: RunningServer, connection_file: str) -> None:
    """Ctrl-C interrupts the code, and the exit code is a shell's; the session and its kernel go all the same."""
    options = ["-c", connection_file] if on_a_server else []
    async with running(*options, "exec", "-k", "scripted", "print begun\nsleep 60") as (process, lines):
        begun = await anext(lines)
        process.send_signal(signal.SIGINT)
        code = await process.wait()

    assert ("begun", 130, []) == (begun, code, server.sessions)


async def test_console_runs_what_is_piped_into_it(server: RunningServer, connection_file: str) -> None:
    """Without a terminal it runs standard input: in the server's first session, or in a kernel that goes with it."""
    async with open_started(ApiClient(address_of(server)), body("first")):
        pass
    ended = [
        await kcclient("-c", connection_file, "console", stdin="print here"),
        await kcclient("-c", connection_file, "console", "-k", "scripted", stdin="error there"),
    ]

    assert [Ended(0, "here\n", ""), Ended(1, "", "ScriptError: there\n")] == ended
    assert ["first"] == [session.session_id for session in server.sessions]


@pytest.mark.posix_only("bash, whose version click asks for")
async def test_each_shell_gets_its_completion_script() -> None:
    """Each script is the shell's own, and asks kcclient what to offer."""
    ended = await kcclient_each(["completion bash", "completion zsh", "completion fish"])

    assert [(0, "")] * 3 == [(each.code, each.err) for each in ended.values()]
    for (command, each), word in zip(ended.items(), ("complete -o", "compdef", "complete --no-files"), strict=True):
        shell = command.split()[1]
        assert f"_KCCLIENT_COMPLETE={shell}_complete" in each.out
        assert word in each.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
async def test_bash_completes_commands(private_place: Path) -> None:
    """With the line that the help gives, Tab behind "kcclient con" offers what begins like that."""
    command = private_place / "kcclient"
    code = "from kallichore.cli.kcclient import main; main(prog_name='kcclient')"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(kcclient completion bash)"; COMP_WORDS=(kcclient con); COMP_CWORD=1; _kcclient_completion kcclient; '
        'echo "${COMPREPLY[@]}"'
    )
    with trio.fail_after(REAL_TIME):
        ended = await trio.run_process(
            ["bash", "-c", script],
            env=_environment(PATH=f"{private_place}:{os.environ['PATH']}"),
            capture_stdout=True,
        )

    assert {"configuration", "connect", "console"} == set(ended.stdout.decode().split())


async def test_help_and_version_are_on_standard_output() -> None:
    """The help names every command, the version is one line, and both end with 0."""
    ended = await kcclient_each(["--help", "-h", "--version", "-V"])
    *helps, version, short = ended.values()

    assert [(0, "")] * 4 == [(each.code, each.err) for each in ended.values()]
    assert set(main.commands) <= set(helps[0].out.split())
    assert helps[0] == helps[1]
    assert f"kcclient {__version__}\n" == version.out == short.out


@pytest.mark.posix_only("kernels that are kept ready")
async def test_kernels_that_are_kept_ready_are_asked_for_and_listed(
    server: RunningServer, connection_file: str
) -> None:
    """``start --spares`` has them, ``list --warm`` shows for whom, what and where, for people and for programs."""
    option = f"--connection-file {connection_file}"
    before = await kcclient_each(["list --warm", "start -k scripted -s a --spares 1"], option)
    (kernel,) = await wait_warm(server.server)
    after = await kcclient_each(["list --warm", "list --warm --json", "start -s a --spares 2"], option)

    assert [0, 0] == [ended.code for ended in before.values()]
    titles, row = after["list --warm"].out.splitlines()
    assert ["Kernel", "For", "Status", "Process", "Age", "Memory", "Where"] == titles.split()
    assert re.fullmatch(rf" +a +ready +{kernel.pid} +\d+ s +[\d.]+ MB +{re.escape(os.getcwd())}", row)
    assert 1 == json.loads(after["list --warm --json"].out)["wanted"]
    assert after["start -s a --spares 2"].code != 0
