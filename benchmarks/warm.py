"""What a start and a restart take, with a kernel that is ready and without: ``python -m benchmarks.warm``.

A server as people start it, asked over HTTP; the kernel is ipykernel. Each time is from the request to its answer,
which comes when the new kernel has answered. A restart begins with the end of the kernel before: that takes its time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KERNEL = "python3"

PAUSE = 0.02
"""Seconds between two looks at what is not there yet."""


class Server:
    """A server over HTTP."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", int(document["base_path"].rpartition(":")[2]))
        self._headers = {"Authorization": f"Bearer {document['bearer_token']}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return what the answer says."""
        content = None if body is None else json.dumps(body)
        self._connection.request(method, path, content, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise RuntimeError(answer.decode())
        return json.loads(answer) if answer else None

    def timed(self, method: str, path: str, body: Any = None) -> float:
        """Return how many milliseconds an answer takes."""
        began = time.perf_counter()
        self.call(method, path, body)
        return (time.perf_counter() - began) * 1000

    def wait_warm(self) -> dict[str, Any]:
        """Wait until a kernel is ready that nobody has asked for, and let it come to rest; return it."""
        while not (ready := [each for each in self.call("GET", "/warm")["kernels"] if each["status"] == "ready"]):
            time.sleep(PAUSE)
        time.sleep(0.5)
        kernel: dict[str, Any] = ready[0]
        return kernel


@contextmanager
def open_server(*options: str) -> Iterator[Server]:
    """Run kcserver."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "server.json")
        command = [
            sys.executable,
            "-m",
            "kallichore.cli.kcserver",
            "--transport",
            "tcp",
            "--connection-file",
            str(file),
        ]
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        try:
            while not file.exists():
                time.sleep(PAUSE)
            yield Server(json.loads(file.read_text()))
        finally:
            process.terminate()
            process.wait()


def measure(count: int, *, warm: bool) -> dict[str, list[float]]:
    """Start and restart so many kernels, one after another, and return the milliseconds of each."""
    found: dict[str, list[float]] = {"start": [], "restart": []}
    with open_server(*(["--warm", f"{KERNEL}=1"] if warm else [])) as server:
        spec = server.call("GET", "/kernels")["kernels"][KERNEL]
        for number in range(count):
            name = f"s{number}"
            server.call("PUT", "/sessions", _request(name, spec))
            if warm:
                server.wait_warm()
            found["start"].append(server.timed("POST", f"/sessions/{name}/start"))
            if warm:
                server.wait_warm()
            found["restart"].append(server.timed("POST", f"/sessions/{name}/restart", {}))
            _end(server, name)
        if warm:
            answer = server.call("GET", "/warm")
            assert answer["taken"] == 2 * count, answer
    return found


def _request(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    texts = ("username", "input_prompt", "continuation_prompt", "working_directory")
    return {
        **dict.fromkeys(texts, ""),
        "session_id": name,
        "display_name": spec["display_name"],
        "language": spec["language"],
        "argv": spec["argv"],
        "session_mode": "console",
        "env": [],
        "interrupt_mode": spec["interrupt_mode"],
        "startup_environment": "none",
    }


def _end(server: Server, name: str) -> None:
    server.call("POST", f"/sessions/{name}/kill")
    while server.call("GET", f"/sessions/{name}")["status"] != "exited":
        time.sleep(PAUSE)
    server.call("DELETE", f"/sessions/{name}")


def measure_memory() -> dict[str, float]:
    """Return what a kernel that is ready has in memory, in MB: all of it, and what it shares with nobody."""
    with open_server("--warm", f"{KERNEL}=2") as server:
        while len([each for each in server.call("GET", "/warm")["kernels"] if each["status"] == "ready"]) < 2:
            time.sleep(PAUSE)
        pid = server.call("GET", "/warm")["kernels"][0]["process_id"]
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(size) / 1000 for name, size in re.findall(r"(\w+): +(\d+) kB", text)}
    return {"resident": sizes["Rss"], "its own": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="how many starts and restarts (20)")
    options = parser.parse_args()
    print("| ms, median (fastest to slowest) | started when asked for | ready before |\n|---|---|---|")
    cold, warm = measure(options.count, warm=False), measure(options.count, warm=True)
    for what in cold:
        cells = [
            f"{statistics.median(each):.0f} ({min(each):.0f} to {max(each):.0f})" for each in (cold[what], warm[what])
        ]
        print(f"| {what} | {cells[0]} | {cells[1]} |")
    print(*(f"{size:.0f} MB {what}" for what, size in measure_memory().items()), sep=", ")


if __name__ == "__main__":
    main()
