"""A kernel in a pod of a real cluster, where one is named: by KUBECONFIG, and where its pods can reach this machine.

``KUBECONFIG=… KALLICHORE_LISTEN_HOSTS=10.0.0.5:8800 KALLICHORE_IMAGE=quay.io/jupyter/base-notebook nox -s engines``
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.models.bodies import InterruptMode, NewSession
from kallichore.server import open_server

NEEDED = ("KUBECONFIG", "KALLICHORE_LISTEN_HOSTS", "KALLICHORE_IMAGE")

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not all(name in os.environ for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"),
]

PULLING = 100
"""Seconds for an image that the node may have to pull, less than a test may take."""


async def test_kernel_in_a_pod_of_a_real_cluster(tmp_path: Path) -> None:
    """It starts, runs code, and is gone with its session; the profile can be used by what the cluster says."""
    profile = {"kind": "kubernetes", "image": os.environ["KALLICHORE_IMAGE"], "memory": "512Mi"}
    config = ServerConfig(token=None, listen_hosts=os.environ["KALLICHORE_LISTEN_HOSTS"], profiles={"pods": profile})
    argv = ("python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    request = NewSession(session_id="s", argv=argv, engine={"profile": "pods"}, interrupt_mode=InterruptMode.SIGNAL)
    with trio.fail_after(PULLING):
        async with open_server(config) as server:
            problems = await server.facilities.engines.check("pods")
            session = server.create_session(request)
            await session.start()
            result = await session.run("print(6 * 7)")

    assert ([], "42\n") == (list(problems), result.text)
