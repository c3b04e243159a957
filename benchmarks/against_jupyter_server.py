"""kcserver beside jupyter_server, in one run: ``python -m benchmarks.against_jupyter_server``.

The same ipykernel, the same client that only counts, both servers as processes of their own. Compared are the start of
the server up to its first answer, the start of a kernel, a small execution from request to idle, and a flood of stream
messages with the server's CPU time a message. Medians; the ratios are what is worth comparing.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from benchmarks.common import RawChannel, call, run_kcserver, start_session

MESSAGES = 5_000

FLOOD = (
    "kernel = get_ipython().kernel\n"
    f"for _ in range({MESSAGES}):\n"
    "    kernel.send_response(kernel.iopub_socket, 'stream', {'name': 'stdout', 'text': 'x' * 100})"
)

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class JupyterChannel(RawChannel):
    """The same client, with the header members that jupyter_server insists on."""

    def execute(self, code: str) -> str:
        """Send an execute_request and return its id."""
        msg_id = secrets.token_hex(8)
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        header = {"msg_id": msg_id, "msg_type": "execute_request", "session": "x", "username": "", "version": "5.3"}
        header["date"] = "2026-01-01T00:00:00Z"
        message = {"header": header, "parent_header": {}, "channel": "shell", "content": content, "metadata": {}}
        self.send({**message, "buffers": []})
        return msg_id


@contextmanager
def run_jupyter_server() -> Iterator[tuple[str, int, float]]:
    """Run jupyter_server without token; yield base URL, process id, and the seconds from exec to the first status."""
    with tempfile.TemporaryDirectory() as place:
        options = ["--no-browser", "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.port=0"]
        options += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={place}", "--allow-root", "--log-level=ERROR"]
        options += ["--ServerApp.disable_check_xsrf=True", "--ZMQChannelsWebsocketConnection.limit_rate=False"]
        environment = {**os.environ, "JUPYTER_RUNTIME_DIR": place}
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *options], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            file = Path(place) / f"jpserver-{process.pid}.json"
            while not file.exists() or not file.read_text():
                assert process.poll() is None, "jupyter_server ended"
                time.sleep(0.002)
            base = f"http://127.0.0.1:{json.loads(file.read_text())['port']}"
            while True:
                try:
                    call(base, "GET", "/api/status")
                    break
                except URLError:
                    time.sleep(0.002)
            yield base, process.pid, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def open_kallichore(base: str) -> RawChannel:
    """Start a kernel and connect to it."""
    name = secrets.token_hex(4)
    start_session(base, name, IPYKERNEL)
    return RawChannel(base, f"/sessions/{name}/channels")


def open_jupyter(base: str) -> RawChannel:
    """Start a kernel and connect to it; it counts as started when it has answered."""
    kernel = call(base, "POST", "/api/kernels", {"name": "python3"})
    channel = JupyterChannel(base, f"/api/kernels/{kernel['id']}/channels?session_id=x")
    channel.until_idle(channel.execute("1"))
    return channel


def measure(run: Any, open_channel: Any) -> dict[str, float]:
    """Return the medians of one server."""
    starts = []
    for _ in range(3):
        with run() as (_, _, seconds):
            starts.append(seconds)
    with run() as (base, pid, _):
        kernels = []
        for _ in range(3):
            began = time.perf_counter()
            channel = open_channel(base)
            kernels.append(time.perf_counter() - began)
        channel.until_idle(channel.execute("1"))
        executions = []
        for _ in range(100):
            began = time.perf_counter()
            channel.until_idle(channel.execute("1"))
            executions.append(time.perf_counter() - began)
        costs, rates = [], []
        for _ in range(5):
            before, began = psutil.Process(pid).cpu_times(), time.perf_counter()
            channel.until_idle(channel.execute(FLOOD))
            rates.append(MESSAGES / (time.perf_counter() - began))
            after = psutil.Process(pid).cpu_times()
            costs.append((after.user + after.system - before.user - before.system) / MESSAGES * 1e6)
    return {
        "server, exec to first answer (ms)": statistics.median(starts) * 1000,
        "start of an ipykernel (ms)": statistics.median(kernels) * 1000,
        "small execution (ms)": statistics.median(executions) * 1000,
        "flood from ipykernel (messages/s)": statistics.median(rates),
        "server CPU a message (µs)": statistics.median(costs),
    }


def main() -> None:
    """Measure both and print a table."""
    ours = measure(lambda: run_kcserver("--resource-sample-interval", "0", "--log-level", "error"), open_kallichore)
    theirs = measure(run_jupyter_server, open_jupyter)
    print(f"| {'':36} | kcserver | jupyter_server | ratio |")
    for name, value in ours.items():
        print(f"| {name:36} | {value:8,.1f} | {theirs[name]:14,.1f} | {theirs[name] / value:5.2f} |")


if __name__ == "__main__":
    main()
