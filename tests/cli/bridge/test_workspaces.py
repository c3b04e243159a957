"""Which workspace an agent belongs to."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.agents.problems import ToolError
from kallichore.cli.bridge.workspaces import Endpoint, Wanted, choose


def entry(name: str, *folders: str, active: object = 0) -> dict[str, Any]:
    """Return a workspace of connections.json, whose descriptor is a file."""
    return {"descriptor": f"{name}.json", "folders": list(folders), "lastActive": active}


CONNECTIONS = {
    "version": 1,
    "workspaces": {
        "outer": entry("outer", "/work"),
        "inner": entry("inner", "/elsewhere", "/work/inner", active=1),
        "later": entry("later", "/work/inner", active="2026-10-01T10:00:00Z"),
        "inline": {"descriptor": {"url": "http://inline", "token": "t"}, "folders": ["/inline"]},
    },
}


def read(name: str) -> Any:
    """Return a descriptor."""
    return {"url": f"http://{name}", "token": "t", "port": 1}


def chosen(directory: str, workspace_id: str | None = None, connections: Any = CONNECTIONS, **variables: str) -> str:
    """Return the address of the workspace that is chosen, or the code of the error."""
    try:
        return choose(Wanted(workspace_id, PurePosixPath(directory), variables), connections, read).url
    except ToolError as error:
        return error.code


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("http://outer.json", chosen("/work")),
        ("http://outer.json", chosen("/work/innermost")),
        ("http://later.json", chosen("/work/inner/deep")),
        ("http://inner.json", chosen("/elsewhere")),
        ("http://inline", chosen("/inline/a")),
        ("NO_WORKSPACE", chosen("/nowhere")),
        ("http://inner.json", chosen("/nowhere", "inner")),
        ("NO_WORKSPACE", chosen("/work", "nobody")),
        ("http://env", chosen("/work", POSITRON_MCP_URL="http://env", POSITRON_MCP_TOKEN="t")),
        ("http://outer.json", chosen("/work", POSITRON_MCP_URL="http://env")),
        ("http://inner.json", chosen("/", "inner", POSITRON_MCP_URL="http://env", POSITRON_MCP_TOKEN="t")),
        ("NO_WORKSPACE", chosen("/work", connections=None)),
    ],
)
def test_workspace_is_the_named_one_else_the_variables_else_the_deepest_folder(expected: str, actual: str) -> None:
    """The order of the rules; of two workspaces with the same folder the one that was active last."""
    assert expected == actual


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["workspaces", "descriptor", "folders", "lastActive", "a"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_is_in_the_file_there_is_an_endpoint_or_an_error(connections: object) -> None:
    """A file that somebody else wrote is no reason to fail in any other way."""
    result: object
    try:
        result = choose(Wanted(None, PurePosixPath("/work"), {}), connections, lambda name: None)
    except ToolError as error:
        result = error.code

    assert result == "NO_WORKSPACE" or isinstance(result, Endpoint)
