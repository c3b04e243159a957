"""The REST routes of Jupyter's API, as its clients call them."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from jupyter_requests import TOKEN, install_kernels, open_jupyter
from kernels import scripted

SIX_DECIMALS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(autouse=True)
def kernelspecs(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install kernels, and return the folder of their kernelspecs."""
    return install_kernels(private_place, monkeypatch)


SCRIPT = {"name": "script"}


async def test_kernels_and_documents_are_ended_as_the_server_is_set() -> None:
    """Jupyter's API has no limits of its own."""
    async with open_jupyter(cull_idle_after=3600, cull_connected=True) as client:
        await client("POST", "/api/kernels", SCRIPT)
        await client("POST", "/api/sessions", {"path": "n.ipynb", "type": "notebook", "kernel": SCRIPT})
        limits = [session.describe().cull for session in client.server.sessions]

    assert [(3600, True, False)] * 2 == [limit and (limit.idle_after, limit.connected, limit.busy) for limit in limits]


async def test_kernel_lives_from_start_to_end() -> None:
    """Each answer has the status, and each model the members, that clients insist on."""
    async with open_jupyter() as client:
        started = await client("POST", "/api/kernels", SCRIPT)
        one = f"/api/kernels/{started.body['id']}"
        listed = await client("GET", "/api/kernels?1795415914417")
        interrupted = await client("POST", f"{one}/interrupt")
        restarted = await client("POST", f"{one}/restart", {})
        ended = await client("DELETE", one)
        gone = await client("GET", one)

    assert started.status == 201
    assert started.headers["location"] == one
    assert {**started.body, "last_activity": ""} == {
        "id": str(uuid.UUID(started.body["id"])),
        "name": "script",
        "last_activity": "",
        "execution_state": "idle",
        "connections": 0,
    }
    assert SIX_DECIMALS.fullmatch(started.body["last_activity"])
    assert [each["id"] for each in listed.body] == [started.body["id"]]
    assert (interrupted.status, restarted.status, restarted.body["id"]) == (204, 200, started.body["id"])
    assert (ended.status, "content-length" in ended.headers and ended.headers["content-length"] != "0") == (204, False)
    assert (gone.status, gone.body) == (
        404,
        {"message": f"Kernel does not exist: {started.body['id']}", "reason": "Not Found"},
    )


async def test_id_that_the_client_chose_is_the_kernels_and_starts_it_once() -> None:
    """One that runs is returned; one that gateways could not route is refused."""
    chosen = str(uuid.uuid4())
    async with open_jupyter() as client:
        answers = [await client("POST", "/api/kernels", {**SCRIPT, "kernel_id": chosen}) for _ in range(2)]
        bad = await client("POST", "/api/kernels", {**SCRIPT, "kernel_id": "mine"})
        count = len(client.server.sessions)

    assert [(answer.status, answer.body["id"]) for answer in answers] == [(201, chosen)] * 2
    assert (bad.status, count) == (400, 1)
    assert "kernel_id" in bad.body["message"]


async def test_sessions_of_our_own_api_are_kernels_too() -> None:
    """Under an id that looks like others' do, and that stays."""
    async with open_jupyter() as client:
        await client.server.create_session(scripted("mine")).start()
        first, second = [(await client("GET", "/api/kernels")).body for _ in range(2)]
        one = await client("GET", f"/api/kernels/{first[0]['id']}")

    assert first == second
    assert (one.status, one.body) == (200, first[0])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "nope"}, 404, "There is no kernel 'nope'"),
        ({"name": "broken"}, 500, "exit"),
        ({"name": 3}, 400, "name is 3; it must be a string"),
        ({"name": "script", "env": []}, 400, "env is []; it must be an object"),
        ({"name": "script", "env": {"KERNEL_X": 1}}, 400, "env.KERNEL_X is 1"),
        ({"name": "script", "path": "../.."}, 400, "must be below the server's directory"),
        (b"{", 400, "Invalid JSON"),
        (b"[]", 400, "must be a JSON object"),
    ],
)
async def test_start_that_fails_says_why_and_leaves_nothing(body: Any, status: int, words: str) -> None:
    """In the member that clients show."""
    async with open_jupyter() as client:
        answer = await client("POST", "/api/kernels", body)
        left = client.server.sessions

    assert status == answer.status
    assert words in answer.body["message"]
    assert isinstance(answer.body["reason"], str)
    assert left == []


async def test_kernel_gets_the_variables_and_the_directory_that_a_gateway_sends(private_place: Path) -> None:
    """Of ``env`` what begins with KERNEL_; the notebook's directory where it exists."""
    there = private_place / "there"
    there.mkdir()
    environment = {"KERNEL_USERNAME": "alice", "OTHER": "x", "KERNEL_WORKING_DIR": str(there)}
    async with open_jupyter() as client:
        await client("POST", "/api/kernels", {**SCRIPT, "env": environment})
        session = client.server.sessions[0]
        result = await session.run("env KERNEL_USERNAME\nenv OTHER\ncwd")

    assert result.text == f"alice<unset>{there}"


async def test_working_directory_is_the_nearest_that_there_is(private_place: Path) -> None:
    """Below the server's own."""
    (private_place / "a").mkdir()
    async with open_jupyter(root_directory=private_place) as client:
        await client("POST", "/api/kernels", {**SCRIPT, "path": "a/b/c"})
        result = await client.server.sessions[0].run("cwd")

    assert result.text == str(private_place / "a")


async def test_kernelspecs_are_as_they_are_written() -> None:
    """With their defaults filled in, and the addresses of their files."""
    async with open_jupyter(base_url="/here") as client:
        listed = await client("GET", "/here/api/kernelspecs")
        one = await client("GET", "/here/api/kernelspecs/script")
        of_a_user = await client("GET", "/here/api/kernelspecs?user=alice/script")
        missing = await client("GET", "/here/api/kernelspecs/nope")
        logo = await client("GET", "/here/kernelspecs/script/logo-64x64.png")
        outside = await client("GET", "/here/kernelspecs/script/logo-svg.svg")

    assert listed.body["default"] in listed.body["kernelspecs"]
    assert listed.body["kernelspecs"]["script"] == one.body == of_a_user.body
    assert one.body["resources"]["logo-64x64"] == "/here/kernelspecs/script/logo-64x64.png"
    assert (one.body["spec"]["interrupt_mode"], one.body["spec"]["metadata"], one.body["spec"]["env"]) == (
        "message",
        {},
        {},
    )
    assert (missing.status, logo.body, logo.headers["content-type"]) == (404, b"\x89PNG", "image/png")
    assert outside.status == 404


# Documents


async def test_document_keeps_its_kernel() -> None:
    """Opened again it is the same; changed it has another path, and then another kernel; closed, both are gone."""
    wanted = {"path": "a.ipynb", "type": "notebook", "name": "a", "kernel": SCRIPT}
    async with open_jupyter() as client:
        opened, again = [await client("POST", "/api/sessions", wanted) for _ in range(2)]
        one = f"/api/sessions/{opened.body['id']}"
        renamed = await client("PATCH", one, {"path": "b.ipynb", "name": "b"})
        changed = await client("PATCH", one, {"kernel": SCRIPT})
        kernels = (await client("GET", "/api/kernels")).body
        listed = await client("GET", "/api/sessions")
        closed = await client("DELETE", one)
        gone = await client("GET", one)
        left = (await client("GET", "/api/kernels")).body

    assert (opened.status, opened.headers["location"]) == (201, one)
    assert again.body["id"] == opened.body["id"]
    assert opened.body["notebook"] == {"path": "a.ipynb", "name": "a"}
    assert (renamed.status, renamed.body["path"], renamed.body["name"]) == (200, "b.ipynb", "b")
    assert renamed.body["kernel"]["id"] == opened.body["kernel"]["id"] != changed.body["kernel"]["id"]
    assert [each["id"] for each in kernels] == [changed.body["kernel"]["id"]]
    assert [each["id"] for each in listed.body] == [opened.body["id"]]
    assert (closed.status, gone.status, left) == (204, 404, [])


async def test_document_takes_a_kernel_that_runs() -> None:
    """By its id; an unknown one is started under that id."""
    async with open_jupyter() as client:
        kernel = (await client("POST", "/api/kernels", SCRIPT)).body["id"]
        unknown = str(uuid.uuid4())
        taken, started = [
            await client("POST", "/api/sessions", {"path": path, "type": "console", "kernel": {**SCRIPT, "id": each}})
            for path, each in (("a", kernel), ("b", unknown))
        ]

    assert (taken.body["kernel"]["id"], started.body["kernel"]["id"]) == (kernel, unknown)
    assert "notebook" not in taken.body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"type": "notebook"}, 400),
        ({"path": "a"}, 400),
        ({"path": "a", "type": "notebook", "kernel": {"name": "nope"}}, 501),
        ({"path": "a", "type": "notebook", "kernel": "script"}, 400),
    ],
)
async def test_document_that_cannot_be_opened_says_why(body: Any, status: int) -> None:
    """No kernel is left for it."""
    async with open_jupyter() as client:
        answer = await client("POST", "/api/sessions", body)
        left = client.server.sessions

    assert (answer.status, left) == (status, [])
    assert answer.body["message"]


# The server


async def test_server_says_what_it_is() -> None:
    """As the managers of JupyterLab's services ask."""
    async with open_jupyter() as client:
        version = await client("GET", "/api", authorization="")
        status = await client("GET", "/api/status")
        me = await client("GET", '/api/me?permissions={"kernels":["read"]}')
        page = await client("GET", "/tree?")
        hub = await client("GET", "/hub/api")
        no_socket = await client("GET", "/api/events/subscribe")

    assert isinstance(version.body["version"], str)
    assert {"started", "last_activity", "kernels", "connections"} == set(status.body)
    assert me.body["permissions"]["kernels"] == ["read"]
    assert isinstance(me.body["identity"]["username"], str)
    assert (page.status, hub.status, no_socket.status) == (200, 404, 400)


async def test_token_comes_in_any_of_the_ways_that_clients_have() -> None:
    """And without it nothing is told."""
    async with open_jupyter() as client:
        right = [
            await client("GET", "/api/kernels", authorization=f"Bearer {TOKEN}"),
            await client("GET", f"/api/kernels?token={TOKEN}", authorization=""),
            await client("GET", f"/t/{TOKEN}/api/kernels", authorization="token"),
        ]
        wrong = [
            await client("GET", "/api/kernels", authorization=""),
            await client("GET", "/api/kernels?token=", authorization="token"),
            await client("GET", "/t/x/api/kernels", authorization=""),
        ]

    assert [answer.status for answer in right] == [200] * 3
    assert [answer.status for answer in wrong] == [401] * 3
    assert wrong[0].body == {"message": "The token is missing or wrong", "reason": "Unauthorized"}


async def test_pages_of_other_origins_are_let_in_by_name() -> None:
    """Their browsers ask beforehand, without a token. Our own API takes their requests, and shows no page an answer."""
    page = "https://notebooks.example"
    async with open_jupyter(allow_origin=[page]) as client:
        asked = await client("OPTIONS", "/api/kernels", authorization="", origin=page)
        allowed = await client("GET", "/api/kernels", origin=page)
        foreign = await client("GET", "/api/kernels", origin="https://evil.example")
        ours = await client("GET", "/status", origin=page, authorization=f"Bearer {TOKEN}")

    assert asked.status == 200
    assert "PATCH" in asked.headers["access-control-allow-methods"]
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert allowed.headers["access-control-allow-origin"] == page
    assert (foreign.status, ours.status) == (403, 200)
    assert "access-control-allow-origin" not in ours.headers


async def test_leave_for_every_page_is_for_jupyters_api_alone() -> None:
    """With `*`, a page of whatever origin is let in to Jupyter's API, and not to ours."""
    async with open_jupyter(allow_origin=["*"]) as client:
        theirs = await client("GET", "/api/kernels", origin="https://any.example")
        ours = await client("GET", "/status", origin="https://any.example", authorization=f"Bearer {TOKEN}")

    assert (theirs.status, ours.status) == (200, 403)


async def test_server_without_jupyters_api_has_none() -> None:
    """Its own goes on."""
    async with open_jupyter(jupyter=False) as client:
        answers = [await client("GET", path, authorization=f"Bearer {TOKEN}") for path in ("/api/kernels", "/sessions")]

    assert [answer.status for answer in answers] == [404, 200]
