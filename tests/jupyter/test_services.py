"""JupyterLab's own library (@jupyterlab/services) in Node, directly at our server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.embed import serve

NODE = Path(__file__).with_name("node")

TOKEN = "t0ken"

PATIENCE = 90.0
"""Seconds for four kernels, one after another."""

INSTALL_LIMIT = 60.0

MOST_TWICE = 500
"""Lines: what was said in the moments before a cut, and not confirmed."""


def install() -> Path:
    """Return where the library is; it is installed once for each set of versions, and kept in the cache directory."""
    files = [NODE / name for name in ("package.json", "package-lock.json")]
    content = b"".join(file.read_bytes() for file in files)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kallichore-node"
    place = cache / hashlib.sha256(content).hexdigest()[:16]
    if place.exists():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=cache))
    for file in files:
        shutil.copy(file, made)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_LIMIT)
    if done.returncode:
        shutil.rmtree(made)
        pytest.skip(f"npm cannot install @jupyterlab/services: {done.stderr.strip().splitlines()[-1:]}")
    try:
        made.rename(place)
    except OSError:
        # Another run was faster.
        shutil.rmtree(made)
    return place


async def run_steps() -> dict[str, Any]:
    """Run the program at a server of its own, and return what each step said; nothing may be left of it."""
    place = install()
    async with serve(ServerConfig(token=TOKEN)) as server:
        url = f"http://127.0.0.1:{server.address.port}/"
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                ["node", str(NODE / "services.cjs"), url, TOKEN],
                env={**os.environ, "NODE_PATH": str(place / "node_modules")},
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert server.sessions == []
    assert done.returncode == 0, done.stderr.decode()
    # The library itself says a word now and then.
    return dict(json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith('["'))


@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="there is no Node with npm here")
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
