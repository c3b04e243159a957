"""What a kernel's messages look like in a terminal: streams as they come, results as text, errors with traceback."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import attrs

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def plain_text(bundle: dict[str, Any]) -> str:
    """Return a result or display as text: its own, or what else there would be."""
    text = bundle.get("text/plain")
    if text is None:
        return "[" + ", ".join(bundle) + "]"
    return "".join(text) if isinstance(text, list) else str(text)


@attrs.define
class Printer:
    """Prints what one execution says; ``failed`` tells whether it raised an error."""

    failed: bool = attrs.field(default=False, init=False)
    _traceback_shown: bool = attrs.field(default=False, init=False)

    def show(self, message: dict[str, Any]) -> None:
        """Print a Jupyter message, if there is anything to see in it."""
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                out = sys.stderr if content["name"] == "stderr" else sys.stdout
                out.write(content["text"])
                out.flush()
            case "execute_result" | "display_data":
                print(plain_text(content["data"]), flush=True)
            case "error":
                self.failed = self._traceback_shown = True
                self._show_error(content)
            case "execute_reply" if content.get("status") != "ok":
                self.failed = True
                if not self._traceback_shown and content.get("status") == "error":
                    self._show_error(content)

    def _show_error(self, content: dict[str, Any]) -> None:
        lines = content.get("traceback") or [f"{content.get('ename')}: {content.get('evalue')}"]
        text = "\n".join(lines)
        print(text if sys.stderr.isatty() else _COLOURS.sub("", text), file=sys.stderr, flush=True)


def show_log_line(line: dict[str, Any], as_json: bool) -> None:
    """Print a line of a log, as text or as a line of JSON."""
    text = json.dumps(line) if as_json else f"{line['time']} [{line['stream']}] {line['text']}"
    print(text, flush=True)


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    print(json.dumps(value, indent=2))
