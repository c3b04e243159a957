"""JupyterLab's own library (@jupyterlab/services) in Node, directly at our server."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from kallichore.config import ServerConfig
from kallichore.embed import serve
from node_programs import install, needs_node

NODE = Path(__file__).with_name("node")

TOKEN = "t0ken"

PATIENCE = 90.0
"""Seconds for four kernels, one after another."""

MOST_TWICE = 500
"""Lines: what was said in the moments before a cut, and not confirmed."""


async def run_steps() -> dict[str, Any]:
    """Run the program at a server of its own, and return what each step said; nothing may be left of it."""
    packages = install(NODE)
    async with serve(ServerConfig(token=TOKEN)) as server:
        url = f"http://127.0.0.1:{server.address.port}/"
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                ["node", str(NODE / "services.cjs"), url, TOKEN],
                env={**os.environ, "NODE_PATH": str(packages)},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert server.sessions == []
    assert done.returncode == 0, done.stderr.decode()
    # The library itself says a word now and then.
    return dict(json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith('["'))


@needs_node
async def test_services_work_in_whole() -> None:
    """Managers become ready, kernels and sessions start, change and end, code is executed, asked, interrupted, and the
    lines of a cell are all there though its socket was cut; what was not confirmed then may come twice, in one piece.
    """
    told = await run_steps()
    was_cut, status, text = told.pop("cut")
    lines = [int(line) for line in text.split()]
    steps_back = [line for before, line in pairwise(lines) if line <= before]

    assert told == {
        "user": "kallichore",
        "default": "python3",
        "language": "python",
        "protocol": "v1.kernel.websocket.jupyter.org",
        "result": ["a\n42", "ok", 1],
        "input": ["Who? hello Ada\n", "ok", 2],
        "interrupted": ["on\nKeyboardInterrupt", "error", 3],
        "restarted": ["False", "ok", 1],
        "listed": [True],
        "left": 0,
        "session": ["'a.ipynb'", "ok", 1],
        "paths": ["b.ipynb"],
        "changed": [True, ["2", "ok", 1]],
    }
    assert (was_cut, status) == (True, "ok")
    assert sorted(set(lines)) == list(range(1000))
    assert len(steps_back) <= 1
    assert len(lines) - 1000 < MOST_TWICE
