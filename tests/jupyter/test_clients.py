"""Jupyter's own clients, unchanged, at our server."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.embed import RunningServer, serve

TOKEN = "t0ken"

PATIENCE = 100.0
"""Seconds for a program that imports half of Jupyter and starts a kernel."""

NBCLIENT = """
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(code) for code in ("print(6 * 7)", "'res' + 'ult'", "1 / 0")]
notebook = nbformat.v4.new_notebook(cells=cells)
manager = "jupyter_server.gateway.managers.GatewayKernelManager"
NotebookClient(notebook, kernel_manager_class=manager, timeout=60, allow_errors=True).execute()
for cell in cells:
    print(cell.outputs[0].get("text") or cell.outputs[0].get("data") or cell.outputs[0].get("ename"))
"""

PAPERMILL = """
import nbformat, papermill, sys
parameters = nbformat.v4.new_code_cell("x = 3", metadata={"tags": ["parameters"]})
kernel = {"name": "python3", "display_name": "x", "language": "python"}
cells = [parameters, nbformat.v4.new_code_cell("print(x * 2)")]
nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), "in.ipynb")
manager = "jupyter_server.gateway.managers.GatewayKernelManager"
done = papermill.execute_notebook(
    "in.ipynb", "out.ipynb", parameters={"x": 21}, kernel_manager_class=manager, progress_bar=False
)
print(done.cells[-1].outputs[0]["text"])
"""

KERNEL_CLIENT = """
import os
from jupyter_kernel_client import JupyterKernelClient
with JupyterKernelClient(server_url=os.environ["URL"], token=os.environ["TOKEN"]) as kernel:
    print(kernel.execute("print(6 * 7)")["outputs"][0]["text"], kernel.is_alive())
"""


@asynccontextmanager
async def open_jupyter() -> AsyncIterator[RunningServer]:
    """Run a server."""
    async with serve(ServerConfig(token=TOKEN)) as server:
        yield server


async def run(program: str, server: RunningServer, directory: Path) -> str:
    """Run a program with the addresses of the server, and return what it printed."""
    url = f"http://127.0.0.1:{server.address.port}"
    # The token is in the path, as the client's WebSocket sends none in any other way.
    addresses = {"JUPYTER_GATEWAY_URL": f"{url}/t/{TOKEN}", "URL": url, "TOKEN": TOKEN}
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, **addresses, "HOME": str(directory)},
            cwd=directory,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    return (done.stdout or done.stderr).decode().replace(os.linesep, "\n")


@pytest.mark.parametrize(
    ("library", "program", "expected"),
    [
        ("nbclient", NBCLIENT, "42\n\n{'text/plain': \"'result'\"}\nZeroDivisionError\n"),
        ("papermill", PAPERMILL, "42\n\n"),
        ("jupyter_kernel_client", KERNEL_CLIENT, "42\n True\n"),
    ],
    ids=["nbclient", "papermill", "jupyter_kernel_client"],
)
async def test_client_runs_code_and_leaves_no_kernel(
    library: str, program: str, expected: str, private_place: Path
) -> None:
    """As with a Jupyter server: it starts a kernel, runs code in it, and ends it."""
    pytest.importorskip(library)
    async with open_jupyter() as server:
        printed = await run(program, server, private_place)
        left = server.sessions

    assert printed == expected
    assert left == []
