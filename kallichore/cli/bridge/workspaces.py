"""Which workspace an agent belongs to, by what an IDE wrote into its directory of connections. [pure]

``connections.json`` (version 1) has ``workspaces``: by id, each with ``folders``, ``lastActive`` and its
``descriptor``, which is a file beside it, or stands there itself. A descriptor has ``url`` and ``token``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

import attrs

from kallichore.agents.problems import Problem, ToolError

URL, TOKEN = "POSITRON_MCP_URL", "POSITRON_MCP_TOKEN"  # names of variables


@attrs.frozen
class Endpoint:
    """Where a workspace's agents are served.

    Args:
        url: The endpoint's address.
        token: Its token.
    """

    url: str
    token: str = attrs.field(repr=False)


@attrs.frozen
class Wanted:
    """What an agent was started with.

    Args:
        workspace_id: The workspace that was named, if one was.
        directory: Where the agent works.
        environment: Its variables.
    """

    workspace_id: str | None
    directory: PurePath
    environment: Mapping[str, str] = attrs.field(repr=False)


def choose(wanted: Wanted, connections: Any, read: Callable[[str], Any]) -> Endpoint:
    """Return the endpoint of the workspace that is named; else that of the variables; else that of the deepest folder
    which contains the directory, of several the one that was active last.

    Args:
        wanted: What the agent was started with.
        connections: What ``connections.json`` holds; None where there is none.
        read: Returns what a descriptor's file holds; None where there is none.

    Raises:
        ToolError: ``NO_WORKSPACE``, there is none, or what was written is none.
    """
    workspaces = connections.get("workspaces") if isinstance(connections, dict) else None
    workspaces = workspaces if isinstance(workspaces, dict) else {}
    if wanted.workspace_id is not None:
        if wanted.workspace_id not in workspaces:
            raise ToolError(Problem.NO_WORKSPACE, f"No workspace {wanted.workspace_id[:100]!r} was ever opened here")
        return _endpoint(workspaces[wanted.workspace_id], read)
    url, token = wanted.environment.get(URL), wanted.environment.get(TOKEN)
    if url and token:
        return Endpoint(url, token)
    ranked = [
        (depth, _moment(entry.get("lastActive")), name)
        for name, entry in workspaces.items()
        if isinstance(entry, dict) and (depth := _depth(entry.get("folders"), wanted.directory)) is not None
    ]
    if not ranked:
        raise ToolError(
            Problem.NO_WORKSPACE,
            f"No Positron workspace has a folder that contains {wanted.directory}. Open it in Positron, with MCP on",
        )
    return _endpoint(workspaces[max(ranked)[2]], read)


def _depth(folders: Any, directory: PurePath) -> int | None:
    """Return how deep the deepest of the folders is that contains a directory; None if none does."""
    depths = [
        len(PurePath(folder).parts)
        for folder in (folders if isinstance(folders, list) else ())
        if isinstance(folder, str) and directory.is_relative_to(folder)
    ]
    return max(depths, default=None)


def _moment(value: Any) -> float:
    """Return when something was, for comparison: from a number of milliseconds, or a date."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp() * 1000
    except ValueError:
        return 0.0


def _endpoint(entry: Any, read: Callable[[str], Any]) -> Endpoint:
    descriptor = entry.get("descriptor") if isinstance(entry, dict) else None
    if isinstance(descriptor, str):
        descriptor = read(descriptor)
    url = descriptor.get("url") if isinstance(descriptor, dict) else None
    token = descriptor.get("token") if isinstance(descriptor, dict) else None
    if not (isinstance(url, str) and isinstance(token, str)):
        raise ToolError(Problem.NO_WORKSPACE, "The workspace's descriptor is missing, or has no address")
    return Endpoint(url, token)
