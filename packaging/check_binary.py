"""Try a self-contained kcserver as a launcher would: ``python packaging/check_binary.py PATH``.

The kernel is ipykernel of the Python that runs this. Prints the seconds to the first answer; fails loudly.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.models.bodies import NewSession
from kallichore.models.converter import unstructure

KERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
LIMIT = 180 if sys.platform == "win32" else 60
"""Seconds after which it has failed. Under Wine all takes ten times as long."""
LAST_MOMENT = 10
"""Seconds in which the server and its kernels have to be gone when the program has ended."""
TRANSPORTS = ("tcp", "named-pipe" if sys.platform == "win32" else "socket")
CODE = "import os; print(os.environ.get('LD_LIBRARY_PATH'), [name for name in os.environ if name.startswith('_PYI')])"


def start(binary: str, transport: str, place: Path, file: Path) -> subprocess.Popen[bytes]:
    """Start the binary as a launcher does, with nothing of this environment's libraries."""
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR"), str(place))
    environment = {**os.environ, **places}
    environment.pop("LD_LIBRARY_PATH", None)
    command = [binary, "--connection-file", str(file), "--transport", transport]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a binary that still runs: it is two processes, of which the second is the server."""
    if process.poll() is None:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
    process.wait()


def ended_late(family: list[int]) -> list[int]:
    """Return the processes that do not end in their last moment."""
    deadline = time.monotonic() + LAST_MOMENT
    while (alive := [pid for pid in family if psutil.pid_exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return alive


async def check(binary: str, transport: str, place: Path) -> None:
    """Start the binary, run a kernel, end it in order, and look at what is left."""
    file = place / "connection.json"
    began = time.perf_counter()
    process = start(binary, transport, place, file)
    try:
        with trio.fail_after(LIMIT):
            while not file.exists():
                assert process.poll() is None, "kcserver ended"
                await trio.sleep(0.01)
            document = json.loads(file.read_text())
            client = ApiClient(from_connection_document(document))
            await client.call("GET", "/status")
            print(f"{transport}: {time.perf_counter() - began:.2f} s to the first answer")
            if sys.platform == "linux":
                name = Path(f"/proc/{document['server_pid']}/comm").read_text().strip()
                assert name == "kcserver", f"the process is called {name}"
            await client.call("PUT", "/sessions", unstructure(NewSession(session_id="s", argv=KERNEL)))
            await client.call("POST", "/sessions/s/start")
            told = await client.call("POST", "/sessions/s/execute", {"code": CODE})
            assert told["status"] == "ok", f"the code ended with {told}"
            print(*(output["text"] for output in told["output"]), sep="", end="")
            server = psutil.Process(document["server_pid"])
            family = [server.pid, *(child.pid for child in server.children(recursive=True))]
            if sys.platform == "win32":
                await client.call("POST", "/shutdown")
            else:
                process.send_signal(signal.SIGTERM)
            code = await trio.to_thread.run_sync(process.wait)
    finally:
        end(process)
    left = [path.name for path in place.iterdir()]
    alive = ended_late(family)
    assert (code, left, alive) == (0, [], []), f"exit code {code}, left behind: {left}, processes {alive}"


def main() -> None:
    """Check both transports."""
    for transport in TRANSPORTS:
        with tempfile.TemporaryDirectory(prefix="kb-") as place:
            trio.run(check, sys.argv[1], transport, Path(place))
    print("the binary works")


if __name__ == "__main__":
    main()
