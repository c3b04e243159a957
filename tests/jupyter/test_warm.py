"""Kernels that are kept ready, for front ends of Jupyter's API: taken for a document, and told which that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_requests import open_jupyter
from warm import wait_warm

pytestmark = pytest.mark.posix_only("kernels that are kept ready")

ASK = """
import os
print(os.environ["JPY_SESSION_NAME"], __session__, os.environ["KERNEL_GATEWAY"], os.environ["KERNEL_ID_OF_TEST"])
"""


async def test_documents_kernel_is_one_that_was_ready(private_place: Path) -> None:
    """A notebook's kernel of Python is taken, knows its document, and has run nothing; so after a restart."""
    document = {
        "path": "n.ipynb",
        "type": "notebook",
        "kernel": {"name": "python3", "env": {"KERNEL_ID_OF_TEST": "7"}},
    }
    async with open_jupyter(warm={"python3": 1}, root_directory=private_place, shutdown_grace=2) as client:
        server = client.server.server
        (kernel,) = await wait_warm(server)
        opened = await client("POST", "/api/sessions", document)
        (session,) = server.sessions
        assert kernel.pid == session.process_id
        name = str(private_place / "n.ipynb")
        first = await session.run(ASK)
        assert (f"{name} {name} 1 7\n", 1) == (first.text, first.execution_count)
        names = await session.run("print([name for name in dir() if not name.startswith('_')])")
        assert "['In', 'Out', 'exit', 'get_ipython', 'open', 'os', 'quit']\n" == names.text

        (other,) = await wait_warm(server)
        restarted = await client("POST", f"/api/kernels/{opened.body['kernel']['id']}/restart", {})
        assert (200, other.pid) == (restarted.status, session.process_id)
        assert f"{name} {name} 1 7\n" == (await session.run(ASK)).text
