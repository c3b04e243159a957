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

from kallichore.cli.dialogue import open_dialogue
from kallichore.cli.execution import attend
from kallichore.cli.show import Printer
from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.models.bodies import NewSession
from kallichore.models.converter import unstructure

KERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
CODE = "import os; print(os.environ.get('LD_LIBRARY_PATH'), [name for name in os.environ if name.startswith('_PYI')])"


def start(binary: str, transport: str, place: Path, file: Path) -> subprocess.Popen[bytes]:
    """Start the binary as a launcher does, with nothing of this environment's libraries."""
    environment = {**os.environ, "TMPDIR": str(place), "XDG_RUNTIME_DIR": str(place)}
    environment.pop("LD_LIBRARY_PATH", None)
    command = [binary, "--connection-file", str(file), "--transport", transport]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


async def check(binary: str, transport: str, place: Path) -> None:
    """Start the binary, run a kernel, end it by SIGTERM, and look at what is left."""
    file = place / "connection.json"
    began = time.perf_counter()
    process = start(binary, transport, place, file)
    try:
        with trio.fail_after(60):
            while not file.exists():
                assert process.poll() is None, "kcserver ended"
                await trio.sleep(0.01)
            document = json.loads(file.read_text())
            client = ApiClient(from_connection_document(document))
            await client.call("GET", "/status")
            print(f"{transport}: {time.perf_counter() - began:.2f} s to the first answer")
            name = Path(f"/proc/{document['server_pid']}/comm").read_text().strip()
            assert name == "kcserver", f"the process is called {name}"
            await client.call("PUT", "/sessions", unstructure(NewSession(session_id="s", argv=KERNEL)))
            await client.call("POST", "/sessions/s/start")
            printer = Printer()
            async with open_dialogue(client.address, "s", printer.show_output) as dialogue:
                outcome = await attend(dialogue, CODE, printer.show)
            assert outcome.exit_code == 0, f"the code ended with {outcome.exit_code}"
            family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
            process.send_signal(signal.SIGTERM)
            code = await trio.to_thread.run_sync(process.wait)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    left = [path.name for path in place.iterdir()]
    alive = [pid for pid in family if psutil.pid_exists(pid)]
    assert (code, left, alive) == (0, [], []), f"exit code {code}, left behind: {left}, processes {alive}"


def main() -> None:
    """Check both transports."""
    for transport in ("tcp", "socket"):
        with tempfile.TemporaryDirectory(prefix="kb-") as place:
            trio.run(check, sys.argv[1], transport, Path(place))
    print("the binary works")


if __name__ == "__main__":
    main()
