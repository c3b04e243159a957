"""Reading what an IDE wrote about its workspaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from kallichore.cli.bridge.workspaces import Endpoint, Wanted, choose

LARGEST_FILE = 1 << 20


@attrs.frozen
class Discovery:
    """Finds the endpoint, anew each time: an IDE that was restarted may have written another.

    Args:
        wanted: What the agent was started with.
        directory: Where ``connections.json`` is; None if that was not said.
    """

    wanted: Wanted
    directory: Path | None

    def find(self) -> Endpoint:
        """Return the endpoint.

        Raises:
            ToolError: ``NO_WORKSPACE``, there is none.
        """
        return choose(self.wanted, self._read("connections.json"), self._read)

    def _read(self, name: str) -> Any:
        """Return what a file holds; None where there is none, or it is no JSON."""
        if self.directory is None:
            return None
        try:
            with open(self.directory / name, "rb") as file:
                return json.loads(file.read(LARGEST_FILE))
        except (OSError, ValueError, RecursionError):
            return None
