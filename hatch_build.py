"""How the package is built: which kind of command ``kcserver`` is on the system that builds.

Elsewhere than on Windows it is a script that runs Python isolated; no entry point can do that. On Windows it is an
entry point, of which pip makes the program that launchers there look for. A wheel that was built on one of them is
therefore for systems of its kind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

IS_WINDOWS = sys.platform == "win32"


class Commands(MetadataHookInterface):
    """Says which commands are entry points."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add them to the metadata."""
        scripts = {"kcclient": "kallichore.cli.kcclient:main"}
        if IS_WINDOWS:
            scripts["kcserver"] = "kallichore.cli.kcserver:main"
        metadata["scripts"] = scripts


class Launcher(BuildHookInterface):
    """Puts the script into wheels."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add it, under the name of the command."""
        if IS_WINDOWS:
            build_data["tag"] = "py3-none-win_amd64" if sys.maxsize > 1 << 32 else "py3-none-win32"
        else:
            build_data["shared_scripts"][str(Path(self.root, "packaging", "kcserver.sh"))] = "kcserver"
