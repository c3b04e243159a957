"""Kernels of provisioners, for tests: our own odd ones are made known to the program that runs provisioners."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from kallichore.config import ServerConfig
from kallichore.engines.provisioner_process import Patience
from kallichore.models.bodies import KernelProvisioner, NewSession
from kallichore.server import Server, open_server
from kernels import scripted_argv

FAST = ServerConfig(token=None, shutdown_grace=2, terminate_grace=0.5)

ENTRY_POINTS = """\
[jupyter_client.kernel_provisioners]
odd-provisioner = odd_provisioners:Odd
finder-provisioner = odd_provisioners:Finder
kubernetes-provisioner = odd_provisioners:Odd
local-provisioner = jupyter_client.provisioning:LocalProvisioner
"""


def install_odd_provisioners(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """Make our own provisioners known to processes that are started from now on; return where they note things."""
    folder = place / "packages" / "odd_provisioners-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-provisioners\nVersion: 1\n")
    notes = place / "notes"
    notes.mkdir()
    paths = (str(folder.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return notes


def provisioned(
    session_id: str, place: Path, fault: str = "", *behaviours: str, by: str = "odd-provisioner", **members: Any
) -> NewSession:
    """Return a request for a session with a scripted kernel that one of our provisioners launches."""
    wanted = KernelProvisioner(
        provisioner_name=by, kernel_name="scripted", config={"fault": fault, "place": str(place)}
    )
    given = {"argv": scripted_argv(*behaviours), "kernel_provisioner": wanted, **members}
    return NewSession(session_id=session_id, **given)


@asynccontextmanager
async def open_provisioning(**patience: float) -> AsyncIterator[Server]:
    """Run a server that waits for provisioners only as long as is said."""
    async with open_server(FAST) as server:
        assert server.facilities.provisioners is not None
        server.facilities.provisioners().patience = Patience(**patience)
        yield server


def notes_of(place: Path) -> list[str]:
    """Return what our provisioners noted, without the ids of kernels."""
    file = place / "notes"
    return [line.partition(" ")[2] for line in file.read_text().splitlines()] if file.exists() else []


async def until(holds: Callable[[], Any]) -> Any:
    """Wait until something holds that nobody tells, and return it."""
    while not (value := holds()):  # noqa: ASYNC110
        await trio.sleep(0.02)
    return value


async def wait_noted(place: Path, note: str) -> str:
    """Wait until something was noted, and return the whole note."""
    found: str = await until(lambda: next((line for line in notes_of(place) if line.startswith(note)), None))
    return found
