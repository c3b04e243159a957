"""What is measured: servers as processes of their own, and a client of the kernel without any server.

All start the same kernels, from the same command lines. Each is as one gets it, except that Jupyter's servers ask for
no token (nor does ours) and do not throttle output, which they do by default.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.accounting import cpu_seconds, resident_megabytes
from benchmarks.clients import Address, JupyterChannel, Received, WebSocketChannel, ZeroMQChannel

ROOT = Path(__file__).parents[1]

KERNELS = {
    "scripted": [sys.executable, str(ROOT / "benchmarks" / "kernel.py"), "{connection_file}"],
    "short-queue": [
        *(sys.executable, str(ROOT / "benchmarks" / "kernel.py"), "{connection_file}"),
        *("--behaviour", "short-queue"),
    ],
    "ipykernel": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
}

PATIENCE = 30.0
"""Seconds that a server gets to give its first answer."""

NOTHING_SAID: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

KEEP_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""As after an installation: Jupyter's modules are compiled by pip, ours, where they are edited, by the first start."""

UNTHROTTLED = ("--log-level=ERROR", "--ZMQChannelsWebsocketConnection.limit_rate=False")

QUIET_SERVER = (sys.executable, "-m", "kallichore.cli.kcserver", "--token", "none", "--log-level", "error")


class Channel(Protocol):
    """A connection to a kernel."""

    def run(self, code: str) -> Received:
        """Execute code and wait until it is done."""


class Server(Protocol):
    """A server that runs."""

    pid: int
    start_seconds: float
    address: Address
    status_path: str

    def start_kernel(self, kind: str) -> Channel:
        """Start a kernel and return its channel, which is closed with the server."""

    def cpu(self) -> float:
        """Return the CPU seconds used so far, all threads."""

    def memory(self) -> float:
        """Return the megabytes in memory."""


class _Process:
    """A server that is a process."""

    def __init__(self, command: list[str], address: Address, first: str, environment: dict[str, str]) -> None:
        self.address, self.status_path = address, first
        self._channels = ExitStack()
        began = time.perf_counter()
        self._process = subprocess.Popen(
            command, env={**os.environ, **KEEP_COMPILED, **environment}, cwd=ROOT, **NOTHING_SAID
        )
        self.pid = self._process.pid
        try:
            self._wait(began + PATIENCE)
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.perf_counter() - began

    def _wait(self, deadline: float) -> None:
        while True:
            try:
                self.address.call("GET", self.status_path)
                return
            except (ConnectionRefusedError, FileNotFoundError):
                assert self._process.poll() is None, f"the server ended: {self._process.args}"
                assert time.perf_counter() < deadline, f"the server does not answer: {self._process.args}"
                # Nothing tells that it listens; two milliseconds are as exact as a start is measured.
                time.sleep(0.002)

    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    def memory(self) -> float:
        return resident_megabytes(self.pid)

    def _open(self, channel: WebSocketChannel, path: str) -> WebSocketChannel:
        channel.path = path
        return self._channels.enter_context(closing(channel))

    def end(self) -> None:
        """End the server and whatever it has started."""
        self._channels.close()
        # One that has ended by itself left nobody that could be told as its own; why it did is raised already.
        children = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.terminate()
        self._process.wait()
        _, left = psutil.wait_procs(children, timeout=5)
        for child in left:
            child.kill()
        psutil.wait_procs(left)


class KallichoreServer(_Process):
    """Ours."""

    def start_kernel(self, kind: str) -> WebSocketChannel:
        session_id = secrets.token_hex(4)
        path = f"/sessions/{session_id}"
        body: dict[str, Any] = dict.fromkeys(
            ("display_name", "language", "username", "input_prompt", "continuation_prompt", "working_directory"), ""
        )
        body |= {"session_id": session_id, "argv": KERNELS[kind], "session_mode": "console", "env": []}
        body |= {"interrupt_mode": "message", "startup_environment": "none"}
        self.address.call("PUT", "/sessions", body)
        self.address.call("POST", f"{path}/start")
        channels = f"{path}/channels"
        if self.address.path:
            # On Unix sockets each session has one of its own.
            return self._open(WebSocketChannel(Address(path=self.address.call("GET", channels)), "/"), path)
        return self._open(WebSocketChannel(self.address, channels), path)


class DurableServer(KallichoreServer):
    """Ours with a state directory. What its kernels' hosts use is counted with it."""

    def __init__(self, *arguments: Any) -> None:
        self._hosts: list[int] = []
        super().__init__(*arguments)

    def start_kernel(self, kind: str) -> WebSocketChannel:
        channel = super().start_kernel(kind)
        kernels = (session["process_id"] for session in self.address.call("GET", "/sessions")["sessions"])
        self._hosts = [psutil.Process(pid).ppid() for pid in kernels]
        return channel

    def cpu(self) -> float:
        return super().cpu() + sum(map(cpu_seconds, self._hosts))

    def memory(self) -> float:
        return super().memory() + sum(map(resident_megabytes, self._hosts))


class JupyterServer(_Process):
    """A server with Jupyter's own API: one of Jupyter's, or ours."""

    def start_kernel(self, kind: str) -> WebSocketChannel:
        kernel = self.address.call("POST", "/api/kernels", {"name": kind})
        path = f"/api/kernels/{kernel['id']}"
        return self._open(JupyterChannel(self.address, f"{path}/channels?session_id=bench"), path)


class PlainZeroMQ:
    """No server: the client's own process starts the kernels; its CPU time is the client's."""

    pid = 0
    start_seconds = 0.0
    address, status_path = Address(), ""

    def __init__(self, place: str, kernels: ExitStack) -> None:
        self._place, self._kernels = Path(place), kernels

    def start_kernel(self, kind: str) -> ZeroMQChannel:
        names = ("shell_port", "control_port", "stdin_port", "iopub_port", "hb_port")
        info = {**dict(zip(names, free_ports(5), strict=True)), "ip": "127.0.0.1", "transport": "tcp"}
        info |= {"key": secrets.token_hex(8), "signature_scheme": "hmac-sha256"}
        file = self._place / f"{secrets.token_hex(4)}.json"
        file.write_text(json.dumps(info))
        argv = [word.replace("{connection_file}", str(file)) for word in KERNELS[kind]]
        process = subprocess.Popen(argv, **NOTHING_SAID)
        self._kernels.callback(process.wait)
        self._kernels.callback(process.kill)
        channel = ZeroMQChannel(info)
        self._kernels.callback(channel.close)
        channel.wait_ready()
        return channel

    def cpu(self) -> float:
        return time.process_time()

    def memory(self) -> float:
        return 0.0


def free_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with ExitStack() as sockets:
        held = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


@contextmanager
def open_kallichore_tcp() -> Iterator[Server]:
    """Run kcserver on a port."""
    (port,) = free_ports(1)
    command = [*QUIET_SERVER, "--transport", "tcp", "--port", str(port)]
    server = KallichoreServer(command, Address(port=port), "/status", {})
    try:
        yield server
    finally:
        server.end()


@contextmanager
def open_kallichore_durable() -> Iterator[Server]:
    """Run kcserver on a port, with sessions that outlive it."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as place:
        options = ("--transport", "tcp", "--port", str(port), "--state-dir", place, "--on-exit", "stop")
        server = DurableServer([*QUIET_SERVER, *options], Address(port=port), "/status", {})
        try:
            yield server
        finally:
            server.end()


@contextmanager
def open_kallichore_unix() -> Iterator[Server]:
    """Run kcserver on a Unix socket."""
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/socket"
        command = [*QUIET_SERVER, "--transport", "socket", "--unix-socket", path]
        server = KallichoreServer(command, Address(path=path), "/status", {})
        try:
            yield server
        finally:
            server.end()


@contextmanager
def open_jupyter(*options: str) -> Iterator[Server]:
    """Run a server with Jupyter's API, with our kernels as its kernelspecs."""
    (port,) = free_ports(1)
    with _kernelspecs() as place:
        environment = dict.fromkeys(("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"), place)
        command = [option.format(port=port, place=place) for option in options]
        server = JupyterServer([sys.executable, "-m", *command], Address(port=port), "/api", environment)
        try:
            yield server
        finally:
            server.end()


@contextmanager
def _kernelspecs() -> Iterator[str]:
    """Yield a directory with our kernels as its kernelspecs."""
    with tempfile.TemporaryDirectory() as place:
        for name, argv in KERNELS.items():
            directory = Path(place, "kernels", name)
            directory.mkdir(parents=True)
            spec = {"argv": argv, "display_name": name, "language": name, "interrupt_mode": "message"}
            (directory / "kernel.json").write_text(json.dumps(spec))
        yield place


def open_kallichore_jupyter() -> Any:
    """Run kcserver, and speak Jupyter's API to it."""
    return open_jupyter(*QUIET_SERVER[2:], "--transport", "tcp", "--port", "{port}")


def open_jupyter_server() -> Any:
    """Run jupyter_server."""
    server_app = ("port={port}", "ip=127.0.0.1", "root_dir={place}", "disable_check_xsrf=True")
    options = ("--no-browser", "--allow-root", "--IdentityProvider.token=", *UNTHROTTLED)
    return open_jupyter("jupyter_server", *options, *(f"--ServerApp.{option}" for option in server_app))


def open_kernel_gateway() -> Any:
    """Run jupyter_kernel_gateway."""
    options = ("--KernelGatewayApp.ip=127.0.0.1", "--KernelGatewayApp.port={port}")
    return open_jupyter("kernel_gateway", *options, *UNTHROTTLED)


@contextmanager
def open_plain_zeromq() -> Iterator[Server]:
    """Do without a server."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as kernels:
        yield PlainZeroMQ(place, kernels)


CONTESTANTS: dict[str, Callable[[], Any]] = {
    "plain ZeroMQ": open_plain_zeromq,
    "Kallichore, TCP": open_kallichore_tcp,
    "Kallichore, Unix socket": open_kallichore_unix,
    "Kallichore, Jupyter's API": open_kallichore_jupyter,
    "Kallichore, durable": open_kallichore_durable,
    "jupyter_server": open_jupyter_server,
    "kernel_gateway": open_kernel_gateway,
}
