"""Kernels by name: what is installed, and a session with one line of curl."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kallichore.client.api_client import ApiError, session_path
from kallichore.kernel.kernelspecs import default_kernel
from kernels import execute, open_channel, open_client, scripted_argv, text_of


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a scripted kernel installed, and one that ends at once."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for name, behaviour in (("scripted", ()), ("broken", ("exit-at-start=3",))):
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        document = {
            "argv": list(scripted_argv(*behaviour)),
            "display_name": name.title(),
            "language": "script",
            "interrupt_mode": "message",
            "env": {"OF_THE_SPEC": "1"},
        }
        (folder / "kernel.json").write_text(json.dumps(document))
    return tmp_path


async def test_installed_kernels_are_listed(installed: Path) -> None:
    """Each kernel comes with what its kernelspec says, and the one that is meant by default is named."""
    async with open_client() as client:
        answer = await client.call("GET", "/kernels")

    assert "python3" == answer["default"]
    assert {
        "display_name": "Scripted",
        "language": "script",
        "argv": list(scripted_argv()),
        "interrupt_mode": "message",
        "resource_dir": str(installed / "kernels" / "scripted"),
        "env": {"OF_THE_SPEC": "1"},
        "supported_encryption": [],
    } == answer["kernels"]["scripted"]


@pytest.mark.parametrize(
    ("names", "expected"), [(["ir", "python3", "bash"], "python3"), (["ir", "bash"], "bash"), ([], None)]
)
def test_default_is_pythons_or_the_first(names: list[str], expected: str | None) -> None:
    """Where nothing is named, Python's kernel is meant, else the first by name, else there is none."""
    assert expected == default_kernel(names)


async def test_session_is_started_by_the_name_of_its_kernel(installed: Path) -> None:
    """One request creates a session and starts it; what it does not say is by default, the id included."""
    async with open_client() as client:
        first = await client.call("POST", "/sessions", {"kernel": "scripted"})
        second = await client.call("POST", "/sessions", {"kernel": "SCRIPTED"})
        async with open_channel(client.address, first["session_id"]) as channel:
            said = text_of(await execute(channel, "print alive"))

    assert ("idle", "Scripted", "message") == (first["status"], first["display_name"], first["interrupt_mode"])
    assert first["session_id"].startswith("scripted-")
    assert first["session_id"] != second["session_id"]
    assert "1" == first["initial_env"]["OF_THE_SPEC"]
    assert "alive\n" == said


async def test_session_by_name_is_as_it_is_asked_for(installed: Path, private_place: Path) -> None:
    """The id, the directory, variables and the notebook are those of the request."""
    wanted = {
        "kernel": "scripted",
        "session_id": "mine",
        "working_directory": str(private_place),
        "env": [{"action": "append", "name": "OF_THE_SPEC", "value": "2"}],
        "notebook_uri": "file:///n.ipynb",
    }
    async with open_client() as client:
        session = await client.call("POST", "/sessions", wanted)

    assert ("mine", str(private_place)) == (session["session_id"], session["working_directory"])
    assert ("12", "file:///n.ipynb") == (session["initial_env"]["OF_THE_SPEC"], session["notebook_uri"])


async def test_nothing_asked_for_is_python() -> None:
    """A request without a body starts Python."""
    async with open_client() as client:
        session = await client.call("POST", "/sessions")

    assert ("python", [sys.executable]) == (session["language"], session["argv"][:1])


@pytest.mark.parametrize(
    ("wanted", "status", "told"),
    [
        ({"kernel": "nowhere"}, 400, "There is no kernel 'nowhere'; installed: .*scripted"),
        ({"kernel": "scripted", "session_id": "taken"}, 400, "There is a session 'taken' already"),
        ({"kernel": "scripted", "name": "x"}, 400, r"unknown member; known are kernel, session_id, .* @ \$\.name"),
        ({"kernel": "broken", "session_id": "b"}, 500, "exited with code 3"),
    ],
)
async def test_what_cannot_be_started_leaves_no_session(
    installed: Path, wanted: dict[str, Any], status: int, told: str
) -> None:
    """It is refused with the reason, and there are no other sessions than before."""
    async with open_client() as client:
        await client.call("POST", "/sessions", {"kernel": "scripted", "session_id": "taken"})
        with pytest.raises(ApiError, match=told) as refused:
            await client.call("POST", "/sessions", wanted)
        sessions = await client.call("GET", "/sessions")
        assert "idle" == (await client.call("GET", session_path("taken")))["status"]

    assert status == refused.value.status
    assert ["taken"] == [session["session_id"] for session in sessions["sessions"]]
