"""What IPython says to people who type ``sys.exit()`` into it, which is noise where a program does so. [pure]"""

from __future__ import annotations

import re
from typing import Any

import attrs

_WARNING = re.compile(r"[^\n]*UserWarning: To exit: use 'exit', 'quit', or Ctrl-D\.\n(?:[^\n]*warn\([^\n]*\n)?")


@attrs.define
class ExitWarning:
    """Takes the warning out of what follows a SystemExit."""

    _has_exited: bool = attrs.field(default=False, init=False)

    def strip(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return a message of an execution without the warning; None if there was nothing else in it."""
        content = message["content"]
        match message["header"]["msg_type"]:
            case "error":
                self._has_exited = content.get("ename") == "SystemExit"
            case "stream" if self._has_exited and content["name"] == "stderr":
                text = _WARNING.sub("", content["text"])
                return {**message, "content": {**content, "text": text}} if text else None
        return message
