"""Kernels that are kept ready, over HTTP: asked for, shown, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from jupyter_requests import install_kernels
from kallichore.client.api_client import ApiClient, ApiError, session_path
from kernels import REAL_TIME, body, open_client

pytestmark = pytest.mark.posix_only("kernels that are kept ready")


async def ask_until_ready(client: ApiClient, count: int = 1) -> dict[str, Any]:
    """Ask until so many are ready, and return the answer."""
    with trio.fail_after(REAL_TIME):
        while True:
            answer: dict[str, Any] = await client.call("GET", "/warm")
            if sum(kernel["status"] == "ready" for kernel in answer["kernels"]) >= count:
                return answer
            await trio.sleep(0.01)


async def test_those_of_the_server_and_of_a_session_are_listed(
    private_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with whom it is for, its process and memory; they are no sessions, and the metrics have them apart."""
    install_kernels(private_place, monkeypatch)
    async with open_client(warm={"script": 1}, root_directory=private_place) as client:
        await client.call("PUT", "/sessions", body("s", "prompts", spares=1))
        await client.call("POST", session_path("s", "start"))
        answer = await ask_until_ready(client, 2)
        sessions = await client.call("GET", "/sessions")
        text = await client.call("GET", "/metrics")

    everybodys, own = sorted(answer["kernels"], key=lambda kernel: "session_id" in kernel)
    samples = {
        sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }
    assert {"wanted": 2, "taken": 0, "missed": 0} == {name: answer[name] for name in ("wanted", "taken", "missed")}
    assert ("script", str(private_place.resolve())) == (everybodys["kernel"], everybodys["working_directory"])
    assert "s" == own["session_id"]
    assert all(kernel["memory_bytes"] > 1 << 20 and kernel["process_id"] > 1 for kernel in answer["kernels"])
    assert 1 == sessions["total"]
    assert (2, 1, 0) == (
        samples["kallichore_warm_kernels"],
        samples["kallichore_kernels"],
        samples["kallichore_warm_kernels_taken_total"],
    )


async def test_session_by_name_may_keep_some(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`POST /sessions` has the member too, and a restart takes what is ready."""
    install_kernels(private_place, monkeypatch)
    async with open_client() as client:
        await client.call("POST", "/sessions", {"kernel": "script", "session_id": "s", "spares": 1})
        (kernel,) = (await ask_until_ready(client))["kernels"]
        await client.call("POST", session_path("s", "restart"), {})
        session = await client.call("GET", session_path("s"))
        answer = await client.call("GET", "/warm")

    assert (kernel["process_id"], 1) == (session["process_id"], answer["taken"])


@pytest.mark.parametrize("spares", [-1, 101])
async def test_numbers_that_make_no_sense_are_refused(spares: int) -> None:
    """The member is named, and what it may be."""
    async with open_client() as client:
        with pytest.raises(ApiError, match=f"spares is {spares}; it can be 0 to 100"):
            await client.call("PUT", "/sessions", body(spares=spares))
