"""Workspaces of a running server: registered, reached by agents and windows, and forgotten."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import mcp_types.version
import pytest
import trio
from trio_websocket import ConnectionClosed

from agent_client import open_endpoint
from kallichore.client.address import from_url
from kallichore.client.api_client import ApiClient, ApiError, send_request, session_path
from kallichore.client.event_stream import open_events
from kallichore.mcp import way_in
from kallichore.mcp.beside import PROTOCOL_VERSIONS
from kallichore.mcp.names import is_token
from kernels import LOCAL, REAL_TIME, ask_until, body, execute, is_kernel, open_client, open_started, receive_until
from mcp_windows import open_window

TCP = {"transport": "tcp", "token": "tok"}
HERE = {"transport": LOCAL, "token": "tok"}


async def register(client: ApiClient, **members: Any) -> dict[str, Any]:
    """Register a workspace and return what the server says."""
    answer: dict[str, Any] = await client.call("POST", "/mcp/workspaces", {"display_name": "My work", **members})
    return answer


async def status_of(client: ApiClient) -> dict[str, Any]:
    """Return what there is for agents."""
    answer: dict[str, Any] = (await client.call("GET", "/status"))["mcp"]
    return answer


def can_connect(port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_workspace_is_registered_and_forgotten() -> None:
    """Nobody listens before the first registration; a second one gives the same token and a new name; the last removal
    frees the port, and what the workspace was given before can be had again.
    """
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            before = await status_of(client)
            first = await register(client, capabilities={"commands": True})
            again = await register(client, workspace_id=first["workspace_id"], display_name="New name", token="f" * 64)
            during = await status_of(client)
            await client.call("DELETE", f"/mcp/workspaces/{first['workspace_id']}")
            is_open = can_connect(first["port"])
            after = await status_of(client)
            kept = await register(
                client, workspace_id=first["workspace_id"], token=first["token"], preferred_port=first["port"]
            )
            with pytest.raises(ApiError) as unknown:
                await client.call("DELETE", "/mcp/workspaces/nobody")

    nothing = {"active": False, "port": 0, "request_count": 0, "workspaces": []}
    assert (before, after, is_open) == (nothing, nothing, False)
    assert is_token(first["token"])
    assert first["workspace_id"].startswith("my-work-")
    assert first["url"] == f"http://127.0.0.1:{first['port']}/mcp/w/{first['workspace_id']}"
    assert again == first
    assert [each["display_name"] for each in during["workspaces"]] == ["New name"]
    assert kept == first
    assert (unknown.value.status, unknown.value.body["code"]) == (404, "no_such_workspace")


async def test_port_that_is_taken_is_replaced() -> None:
    """A preferred port that somebody else has is no reason to refuse."""
    with trio.fail_after(REAL_TIME), socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        async with open_client(**TCP) as client:
            given = await register(client, preferred_port=taken)
            huge = await register(client, preferred_port=70000)

    assert given["port"] not in (0, taken)
    assert huge["port"] == given["port"]


async def test_without_the_package_registration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package that serves agents is missing, registration is a 400 with the command that installs it, and
    the status has nothing about agents.
    """
    monkeypatch.setattr(way_in, "find_spec", lambda name: None)
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            with pytest.raises(ApiError) as refused:
                await register(client)
            status = await client.call("GET", "/status")

    assert (refused.value.status, refused.value.body["code"]) == (400, "mcp_not_installed")
    assert "pip install 'kallichore[mcp]'" in str(refused.value)
    assert "mcp" not in status


async def test_start_of_a_server_imports_nothing_for_agents() -> None:
    """What a server's start imports has in it neither the package that speaks MCP nor what stands on it."""
    code = "import sys, kallichore.embed; print(*sorted(sys.modules))"
    with trio.fail_after(REAL_TIME):
        ran = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)
    loaded = set(ran.stdout.decode().split())

    assert "kallichore.mcp.way_in" in loaded
    assert not {"mcp", "anyio", "pydantic", "jsonschema", "kallichore.mcp.side", "kallichore.agents.tools"} & loaded


def test_versions_are_those_of_the_package() -> None:
    """What the server card promises is what is spoken."""
    assert mcp_types.version.KNOWN_PROTOCOL_VERSIONS == PROTOCOL_VERSIONS


@pytest.mark.parametrize("transport", [TCP, HERE], ids=["tcp", LOCAL])
async def test_window_and_agent_reach_each_other(transport: dict[str, Any]) -> None:
    """On every transport: a window's commands are found and run by an agent, its plot is an image, a command that
    fails says why, and the window is told which agents are there.
    """
    commands = [
        {"id": "view.table", "description": "Show a table", "args": [{"name": "name", "required": True}]},
        {"id": "other", "description": "Something else"},
    ]
    with trio.fail_after(REAL_TIME):
        async with open_client(**transport) as client:
            given = await register(client)
            url = from_url(given["url"].partition("/mcp")[0], given["token"])
            path = given["url"][given["url"].index("/mcp") :]
            hello = {"commands": commands, "positron_version": "2026.10.0"}
            async with (
                open_window(client.address, given["workspace_id"], **hello) as window,
                open_endpoint(given["url"], given["token"]) as agent,
                open_events(url, f"{path}/presence?name=robot&version=2&pid=7&cwd=/tmp"),
                trio.open_nursery() as nursery,
            ):
                told = await window.hear("clients_changed")
                while not told["clients"]:
                    told = await window.hear("clients_changed")
                requests = []

                async def answer() -> None:
                    for reply in (
                        {"ok": True, "result": {"rows": 3}},
                        {"ok": True, "result": "data:image/png;base64,aGk="},
                        {"ok": False, "reason": "disabled", "message": "Not now"},
                    ):
                        requests.append(await window.hear("command_request"))
                        await window.say("nonsense", of=1)
                        await window.say("command_reply")
                        await window.say("command_reply", id=requests[-1]["id"], **reply)

                nursery.start_soon(answer)
                listed = await agent.call("list_positron_commands", search="TABLE show")
                ran = await agent.call("run_positron_command", command_id="view.table", args=["df"])
                plot = await agent.call("get_plot")
                failed = await agent.call("run_positron_command", command_id="other")
                status = await status_of(client)

    assert [command["id"] for command in listed.members["commands"]] == ["view.table"]
    assert ran.members["result"] == {"rows": 3}
    assert (ran.members["positron_connected"], ran.members["positron_version"]) == (True, "2026.10.0")
    assert [block.data for block in plot.content if block.type == "image"] == ["aGk="]
    assert (failed.code, failed.members["reason"]) == ("COMMAND_FAILED", "disabled")
    assert [request["command_id"] for request in requests] == [
        "view.table", "positron.mcp.getCurrentPlot", "other",
    ]  # fmt: skip
    assert requests[0]["args"] == ["df"]
    assert requests[0]["agent"] == {"name": "tester", "version": "1"}
    client_facts = {name: told["clients"][0][name] for name in ("name", "version", "pid", "working_directory")}
    assert client_facts == {"name": "robot", "version": "2", "pid": 7, "working_directory": "/tmp"}
    assert status["request_count"] == 4
    assert status["workspaces"][0]["connected"] is True


async def test_agent_sees_its_workspaces_sessions_only() -> None:
    """Sessions of a workspace, and those that its window lists, are its agents'; of others there is but a count."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            mine, other = await register(client), await register(client, display_name="Other")
            for name, owner in (("own", mine), ("theirs", other)):
                await client.call("PUT", "/sessions", body(name, workspace_id=owner["workspace_id"]))
            await client.call("PUT", "/sessions", body("listed"))
            async with (
                open_window(client.address, mine["workspace_id"]) as window,
                open_endpoint(mine["url"], mine["token"]) as agent,
            ):
                alone = await agent.call("list_sessions")
                await window.say("sessions_changed", session_ids=["listed", "theirs"])
                await window.say("foreground_changed", session_id="listed")
                while (both := await agent.call("list_sessions")).members["default_session_id"] != "listed":
                    pass
                refused = [
                    (await agent.call("execute_code", code="1", session_id=name)).code
                    for name in ("theirs", "nobody", "own")
                ]

    assert [session["session_id"] for session in alone.members["sessions"]] == ["own"]
    assert alone.members["other_sessions"] == 2
    assert [session["session_id"] for session in both.members["sessions"]] == ["own", "listed"]
    assert refused == ["SESSION_NOT_VISIBLE", "SESSION_NOT_FOUND", "SESSION_NOT_READY"]


async def test_console_is_told_whose_code_runs() -> None:
    """A client hears which agent has what code run, before anything comes of it, and the history names the agent; an
    agent inside the kernel cannot wait for itself.
    """
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            request = body(workspace_id=given["workspace_id"])
            async with open_started(client, request) as channel, open_endpoint(given["url"], given["token"]) as agent:
                await execute(channel, "print first")
                told = await agent.call("execute_code", code="print hello")
                messages = await receive_until(channel, lambda message: '"hello' in json.dumps(message.get("content")))
                history = await client.call("GET", "/sessions/s/history")
                async with open_endpoint(given["url"] + "/s/s", given["token"]) as inside:
                    itself = await inside.call("execute_code", code="1")
                    looked = await inside.call("get_session_history")
    requested = next(message for message in messages if is_kernel("executionRequested")(message))["executionRequested"]
    kinds = [next(iter(message.keys() - {"kind"}), "") for message in messages]
    first_output = next(place for place, message in enumerate(messages) if message.get("parent_header"))

    assert told.members["stdout"] == "hello\n"
    assert requested["code"] == "print hello"
    assert requested["attribution"] == {
        "source": "agent",
        "agent_name": "tester",
        "agent_version": "1",
        "workspace_id": given["workspace_id"],
        "tool": "execute_code",
    }
    assert any("executionRequested" in message for message in messages[:first_output]), kinds
    assert [(entry["input"], entry.get("agent")) for entry in history] == [
        ("print first", None), ("print hello", "tester"),
    ]  # fmt: skip
    assert itself.code == "SESSION_IS_CALLER"
    assert len(looked.members["entries"]) == 2


async def test_agent_that_vanishes_leaves_nothing_running() -> None:
    """An agent whose connection is gone in the middle of a call does not leave its code running, be it that it cannot
    say so any more.
    """
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            async with open_started(client, body(workspace_id=given["workspace_id"])):
                async with open_endpoint(given["url"], given["token"]) as agent:
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(lambda: agent.call("execute_code", code="sleep 1000"))
                            await ask_until(client, lambda session: session["status"] == "busy")
                            scope.cancel()
                idle = await ask_until(client, lambda session: session["status"] == "idle")

    assert idle["execution_queue"]["length"] == 0


async def test_session_that_dies_in_the_middle_of_a_call() -> None:
    """A kernel that ends while an agent waits for it is CHANNEL_CLOSED, with how it ended."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            async with (
                open_started(client, body(workspace_id=given["workspace_id"])),
                open_endpoint(given["url"], given["token"]) as agent,
            ):
                died = await agent.call("execute_code", code="exit 3")
                dead = await agent.call("execute_code", code="print x")

    assert (died.code, dead.code) == ("CHANNEL_CLOSED", "SESSION_NOT_READY")
    assert "code 3" in died.members["error"]["message"]


async def test_removal_lets_go_of_windows_and_agents() -> None:
    """A workspace that is removed closes its window's channel and its agents' presence, and its token opens nothing."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            kept, given = await register(client), await register(client)
            address = from_url(given["url"].partition("/mcp")[0], given["token"])
            path = given["url"][given["url"].index("/mcp") :]
            async with open_window(client.address, given["workspace_id"]) as window:
                async with open_events(address, f"{path}/presence") as presence:
                    await client.call("DELETE", f"/mcp/workspaces/{given['workspace_id']}")
                    told = [event async for event in presence]
                with pytest.raises(ConnectionClosed):
                    await window.hear("never")
            refused = await send_request(address, "POST", path, b"{}")

    assert (told, window.socket.closed.code, refused.status) == ([], 1001, 401)
    assert kept["port"] == given["port"]


async def test_kernels_of_a_workspace_know_the_way_to_it() -> None:
    """A kernel that is started for a registered workspace finds its endpoint and token in its environment; others, and
    those of workspaces that are gone, find nothing.
    """
    found = {}
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            for name, owner in (("own/1", given["workspace_id"]), ("free", None), ("gone", "gone-1")):
                await client.call("PUT", "/sessions", body(name, workspace_id=owner))
                await client.call("POST", session_path(name, "start"))
                environment = (await client.call("GET", session_path(name)))["initial_env"]
                found[name] = [environment.get("POSITRON_MCP_URL"), environment.get("POSITRON_MCP_TOKEN")]

    assert found == {
        "own/1": [given["url"] + "/s/own%2F1", given["token"]],
        "free": [None, None],
        "gone": [None, None],
    }


async def test_deleted_session_ends_the_service_for_agents_inside() -> None:
    """An agent inside a kernel is let go when its session is deleted, and finds nothing at its address any more."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            await client.call("PUT", "/sessions", body(workspace_id=given["workspace_id"]))
            address = from_url(given["url"].partition("/mcp")[0], given["token"])
            path = given["url"][given["url"].index("/mcp") :] + "/s/s"
            async with open_events(address, f"{path}/presence") as presence:
                during = (await status_of(client))["workspaces"][0]["clients"]
                await client.call("DELETE", "/sessions/s")
                told = [event async for event in presence]
            after = (await status_of(client))["workspaces"][0]["clients"]
            refused = await send_request(address, "POST", path, b"{}")

    assert [each["session_id"] for each in during] == ["s"]
    assert (told, after, refused.status) == ([], [], 404)


async def test_card_is_public_and_cacheable() -> None:
    """The server card needs no token, tells where the endpoint is, and is not sent again to who has it."""
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            address = from_url(given["url"].partition("/mcp")[0])
            path = given["url"][given["url"].index("/mcp") :] + "/server-card"
            card = await send_request(address, "GET", path)
            known = await send_request(address, "GET", path, headers=[("if-none-match", card.headers["etag"])])
            posted = await send_request(address, "POST", path)

    assert (card.status, known.status, posted.status) == (200, 304, 405)
    assert card.headers["content-type"] == "application/mcp-server-card+json"
    assert card.headers["cache-control"] == "no-cache"
    assert card.json()["remotes"][0]["url"] == given["url"]
    assert given["token"] not in card.body.decode()


async def test_channel_is_refused_to_strangers() -> None:
    """The channel needs the server's token before it is a WebSocket, and says 400 to what is none, 404 to no
    workspace.
    """
    upgrade = [
        ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]  # fmt: skip
    with trio.fail_after(REAL_TIME):
        async with open_client(**TCP) as client:
            given = await register(client)
            path = f"/mcp/workspaces/{given['workspace_id']}/channel"
            stranger = from_url(f"http://{client.address.authority}")
            strangers = await send_request(stranger, "GET", path, headers=upgrade)
            plain = await send_request(client.address, "GET", path)
            nobody = await send_request(client.address, "GET", "/mcp/workspaces/nobody/channel", headers=upgrade)

    assert [answer.status for answer in (strangers, plain, nobody)] == [401, 400, 404]
    assert plain.json()["code"] == "upgrade_required"
