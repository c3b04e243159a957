"""What agents send that is no request: JSON-RPC of every kind, in both of the protocol's ways."""

from __future__ import annotations

import json
from typing import Any

import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from kallichore.client.address import from_url
from kallichore.client.api_client import send_request
from kernels import REAL_TIME, open_client

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0"]) | JSON,
        "id": JSON,
        "method": st.sampled_from(["initialize", "tools/call", "tools/list", "server/discover", "ping"]) | JSON,
        "params": JSON | st.fixed_dictionaries({"name": JSON, "arguments": JSON}),
        "result": JSON,
    },
)
BODIES = st.binary(max_size=50) | (JSON | MESSAGES | st.lists(MESSAGES, max_size=3)).map(
    lambda value: json.dumps(value).encode("utf-8", "replace")
)
VERSIONS = st.sampled_from([None, "2025-11-25", "2026-07-28", "1999-01-01"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(BODIES, VERSIONS, st.booleans()), max_size=12))
def draw(sent: list[tuple[bytes, str | None, bool]]) -> None:
    """Collect examples."""
    COLLECTED.extend(sent)


COLLECTED: list[tuple[bytes, str | None, bool]] = []


async def test_what_is_no_request_is_refused_and_the_next_is_served() -> None:
    """Whatever an agent posts is answered with a status of its own doing, never ours; then a request is served as ever,
    and a body without end is refused.
    """
    draw()
    with trio.fail_after(REAL_TIME):
        async with open_client(transport="tcp", token="tok") as client:
            given_ = await client.call("POST", "/mcp/workspaces", {"display_name": "w"})
            address = from_url(given_["url"].partition("/mcp")[0], given_["token"])
            path = given_["url"][given_["url"].index("/mcp") :]
            accept = [("accept", "application/json, text/event-stream"), ("content-type", "application/json")]

            async def post(body: bytes, *headers: tuple[str, str]) -> Any:
                return await send_request(address, "POST", path, body, [*accept, *headers])

            statuses = set()
            for body, version, names_session in COLLECTED[:150]:
                headers = [] if version is None else [("mcp-protocol-version", version)]
                headers += [("mcp-session-id", "made-up")] if names_session else []
                statuses.add((await post(body, *headers)).status)
            deep = await post(b"[" * 100_000)
            huge = await post(b'"' + b"x" * (1 << 24) + b'"')
            served = await post(
                json.dumps(
                    {
                        "jsonrpc": "2.0",
                        "id": 1,
                        "method": "initialize",
                        "params": {
                            "protocolVersion": "2025-06-18",
                            "capabilities": {},
                            "clientInfo": {"name": "t", "version": "1"},
                        },
                    }
                ).encode()
            )

    assert all(status in (200, 202) or 400 <= status < 500 for status in statuses), statuses
    assert 400 <= deep.status < 500
    assert huge.status == 413
    assert (served.status, "mcp-session-id" in served.headers) == (200, True)
