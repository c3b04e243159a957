"""Kernels for tests: real ones, and the scripted one for faults."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from kallichore.client.address import Address
from kallichore.client.api_client import ApiClient, session_path
from kallichore.client.channel_client import ChannelClient, make_execute_request, open_channel
from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve
from kallichore.models.bodies import NewSession

SCRIPTED = Path(__file__).with_name("scripted_kernel.py")

LOCAL = "named-pipe" if sys.platform == "win32" else "socket"
"""The transport of this machine alone, as the system has it."""

REAL_TIME = 90.0 if sys.platform == "win32" else 30.0
"""Seconds after which a wait for a real kernel has failed; on a noisy machine they take a second or two, and under Wine
ten times as long."""

LONG_SLEEP = "[time.sleep(0.1) for _ in range(600)]"
"""Code that sleeps for a minute and can be interrupted. Python hears a signal that comes between its last look and the
beginning of one long sleep only at the end of that: seldom, but on a loaded machine it comes."""

START_LIMIT = 10 if sys.platform == "win32" else 2
"""Seconds for a kernel that starts in its usual time and then does nothing that could be waited for."""

KILLED = (1, "code 1") if sys.platform == "win32" else (-1, "SIGKILL")
"""The exit code of a kernel that was killed on request, and what is told of its end: Windows has no signals."""


def scripted_argv(*behaviours: str) -> tuple[str, ...]:
    """Return the command line of a scripted kernel."""
    flags = [word for name in behaviours for word in ("--behaviour", name)]
    return (sys.executable, str(SCRIPTED), "{connection_file}", *flags)


def ipykernel_argv() -> tuple[str, ...]:
    """Return the command line of the Python kernel."""
    return (sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}")


def bash_kernel_argv() -> tuple[str, ...]:
    """Return the command line of the bash kernel."""
    return (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")


def scripted(session_id: str = "s", *behaviours: str, **members: Any) -> NewSession:
    """Return a request for a session with a scripted kernel."""
    return NewSession(session_id=session_id, argv=scripted_argv(*behaviours), **members)


def body(session_id: str = "s", *behaviours: str, **members: Any) -> dict[str, Any]:
    """Return the JSON body of a new session with a scripted kernel."""
    return {
        "session_id": session_id,
        "display_name": "Scripted",
        "language": "script",
        "username": "tester",
        "input_prompt": "",
        "continuation_prompt": "",
        "argv": list(scripted_argv(*behaviours)),
        "session_mode": "console",
        "working_directory": "",
        "env": [],
        "interrupt_mode": "message",
        "startup_environment": "none",
        "connection_timeout": 20,
        **members,
    }


def address_of(server: RunningServer) -> Address:
    """Return the address under which clients reach a server of this process."""
    where = server.address
    if where.socket_path is not None:
        return Address(socket_path=where.socket_path, token=server.token)
    if where.named_pipe is not None:
        return Address(named_pipe=where.named_pipe, token=server.token)
    return Address(host="127.0.0.1", port=where.port, token=server.token)


def local_address(path: str, token: str | None = None) -> Address:
    """Return an address of this machine alone: of a pipe on Windows, of a Unix socket elsewhere."""
    return Address(named_pipe=path, token=token) if sys.platform == "win32" else Address(socket_path=path, token=token)


@asynccontextmanager
async def open_client(**settings: Any) -> Any:
    """Run a server and yield a client of its HTTP API."""
    async with serve(ServerConfig(**settings)) as server:
        yield ApiClient(address_of(server))


@asynccontextmanager
async def open_started(client: ApiClient, request: dict[str, Any]) -> Any:
    """Create and start a session, connect to its channels, and yield them; the kernel ends with the server."""
    await client.call("PUT", "/sessions", request)
    await client.call("POST", session_path(request["session_id"], "start"))
    async with open_channel(client.address, request["session_id"]) as channel:
        yield channel


async def receive_until(channel: ChannelClient, wanted: Any) -> list[dict[str, Any]]:
    """Receive up to and including the first message for which ``wanted`` holds; return all."""
    messages = []
    with trio.fail_after(REAL_TIME):
        while True:
            messages.append(await channel.receive())
            if wanted(messages[-1]):
                return messages


def is_type(msg_type: str, parent: str | None = None) -> Any:
    """Return a predicate: a Jupyter message of this type, and of this parent where one is given."""

    def check(message: dict[str, Any]) -> bool:
        if message["kind"] != "jupyter" or message["header"]["msg_type"] != msg_type:
            return False
        return parent is None or (message["parent_header"] or {}).get("msg_id") == parent

    return check


def is_idle(parent: str) -> Any:
    """Return a predicate: the idle that ends the request ``parent``."""
    check = is_type("status", parent)
    return lambda message: check(message) and message["content"]["execution_state"] == "idle"


def is_done(parent: str) -> Any:
    """Return a predicate, for one use: now both the reply and the idle of the request ``parent`` have come.

    They come over two sockets, in either order.
    """
    check_idle, seen = is_idle(parent), set()

    def check(message: dict[str, Any]) -> bool:
        if check_idle(message):
            seen.add("idle")
        elif message["kind"] == "jupyter" and message["header"]["msg_type"].endswith("_reply"):
            seen.update({"reply"} if (message["parent_header"] or {}).get("msg_id") == parent else ())
        return len(seen) == 2

    return check


def is_kernel(member: str, value: Any = None) -> Any:
    """Return a predicate: a ``kind: kernel`` message with this member, and this value where one is given."""
    return lambda message: member in message and (value is None or message[member] == value)


def is_status(status: str) -> Any:
    """Return a predicate: the session's status became this."""
    return lambda message: "status" in message and message["status"]["status"] == status


async def execute(channel: ChannelClient, code: str) -> list[dict[str, Any]]:
    """Execute code and return all messages up to its reply and its idle."""
    msg_id = await channel.send(make_execute_request(code))
    return await receive_until(channel, is_done(msg_id))


def text_of(messages: list[dict[str, Any]]) -> str:
    """Return what the streams among some messages say, joined."""
    return "".join(message["content"]["text"] for message in messages if is_type("stream")(message))


def statuses_of(messages: list[dict[str, Any]]) -> list[str]:
    """Return the session statuses among some messages."""
    return [message["status"]["status"] for message in messages if "status" in message]


async def run_code(channel: ChannelClient, code: str) -> str:
    """Execute code and return what its streams say.

    What another client did not confirm, as it closed in the middle, comes again in front of them.
    """
    msg_id = await channel.send(make_execute_request(code))
    is_own = is_type("stream", msg_id)
    return text_of([message for message in await receive_until(channel, is_done(msg_id)) if is_own(message)])


async def ask_until(client: ApiClient, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the session until ``wanted`` holds for it, and return it."""
    with trio.fail_after(REAL_TIME):
        while True:
            session: dict[str, Any] = await client.call("GET", session_path("s"))
            if wanted(session):
                return session


async def wait_ended(pid: int) -> None:
    """Wait until a process, ours or not, has ended."""
    if sys.platform == "win32":
        with suppress(psutil.NoSuchProcess):
            await trio.to_thread.run_sync(psutil.Process(pid).wait, REAL_TIME)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(REAL_TIME):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


unseen_in_wine = pytest.mark.not_in_wine("nobody can see that a process is suspended")
"""For tests in which a process is frozen and has to be seen to be."""


def freeze(pid: int) -> None:
    """Have a process do nothing any more: SIGSTOP, or what Windows has in its place."""
    psutil.Process(pid).suspend()


def thaw(pid: int) -> None:
    """Have a frozen process go on."""
    psutil.Process(pid).resume()


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or is a zombie that waits for whoever adopted it to reap it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
